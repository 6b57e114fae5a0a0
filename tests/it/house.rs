//! The rules of the house that the compiler does not check: which part may know which.

use std::fs;
use std::path::{Path, PathBuf};

/// Every Rust file below `dir`, with its text.
fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push((path.clone(), fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(found.len() > 2, "{dir} has moved");
    found
}

/// The text without its tests and its comments: what is compiled into the program.
fn program(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn nowhere(dir: &str, words: &[&str]) {
    for (path, text) in sources(dir) {
        if path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs") {
            continue;
        }
        for (number, line) in program(&text).lines().enumerate() {
            for word in words {
                assert!(!line.contains(word), "{}:{}: {word} has no place here", path.display(), number + 1);
            }
        }
    }
}

#[test]
fn the_machine_is_pure() {
    nowhere("src/machine", &["std::fs", "std::io", "std::net", "std::thread", "std::env", "std::process"]);
    nowhere(
        "src/machine",
        &["Instant::now", "SystemTime", "log::", "crossbeam", "rustix", "ureq", "println"],
    );
    let parts =
        ["schedule", "cli", "config", "error", "home", "supervisor", "sys", "upgrade", "wbft", "children"];
    nowhere(
        "src/machine",
        &parts.map(|part| format!("crate::{part}")).iter().map(String::as_str).collect::<Vec<_>>(),
    );
}

#[test]
fn the_public_library_does_not_know_the_supervisor() {
    for dir in ["src/wbft", "src/schedule", "src/config", "src/home"] {
        nowhere(dir, &["crate::supervisor", "crate::cli"]);
    }
    nowhere("src/upgrade", &["crate::supervisor", "crate::cli"]);
    nowhere("src/supervisor", &["crate::cli"]);
}

#[test]
fn argument_parsing_and_unsafe_code_have_one_place_each() {
    for (path, text) in sources("src") {
        let text = program(&text);
        let is = |end: &str| path.ends_with(end);
        assert!(
            path.to_string_lossy().contains("src/cli/args") || !text.contains("pico_args"),
            "{}",
            path.display()
        );
        assert!(is("src/sys.rs") || !text.contains("unsafe {"), "{}", path.display());
    }
}
