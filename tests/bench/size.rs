//! The size of the static binary, and which crates and modules of ours it comes from.

use super::rig::{Outcome, sh};
use super::table::{Budget, Row};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Bytes by name.
type Sums = BTreeMap<String, u64>;

pub(crate) fn all(binary: &Path) -> Outcome<Vec<Row>> {
    let size = fs::metadata(binary)?.len() as f64 / 1e6;
    Ok(vec![Row::new("the static binary", "MB", vec![size]).budget(Budget::AtMost(3.8))])
}

/// The bytes of each name in a binary with symbols, summed up, as a table. Functions with the same code are one, and count
/// once. A generic function of another crate counts for the module of ours of which the first type in its name is.
pub(crate) fn by_crate(binary: &Path) -> Outcome<String> {
    let symbols = sh("nm", &["--demangle", "--defined-only", "-S", &binary.display().to_string()])?;
    let stripped = tempfile::NamedTempFile::new()?;
    sh("strip", &["-s", "-o", &stripped.path().display().to_string(), &binary.display().to_string()])?;
    let whole = stripped.path().metadata()?.len();
    let (mut crates, mut modules, mut own) = (Sums::new(), Sums::new(), Sums::new());
    let mut seen = BTreeSet::new();
    for line in symbols.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        // Without a size, not in the file, or the same code again.
        let [address, size, kind, name] = words[..] else { continue };
        if kind.eq_ignore_ascii_case("b") || !seen.insert(address.to_owned()) {
            continue;
        }
        let size = u64::from_str_radix(size, 16)?;
        let of = crate_of(name);
        if let Some(module) = name.split_once("wemixvisor::").map(|(_, rest)| word(rest)) {
            *modules.entry(module.to_owned()).or_default() += size;
            *own.entry(module.to_owned()).or_default() += if of == "wemixvisor" { size } else { 0 };
        }
        *crates.entry(of.to_owned()).or_default() += size;
    }
    let named: u64 = crates.values().sum();
    crates.insert("no name: texts, tables, headers".to_owned(), whole.saturating_sub(named));
    let mut lines = vec![format!("{whole:>9} bytes, by crate")];
    lines.extend(largest(crates).into_iter().map(|(name, size)| format!("{size:>9}  {name}")));
    lines.push("by module of wemixvisor: all, of that in functions of its own".to_owned());
    let module = |(name, size)| format!("{size:>9} {:>9}  {name}", own.get(&name).copied().unwrap_or(0));
    lines.extend(largest(modules).into_iter().map(module));
    Ok(lines.join("\n"))
}

/// The identifier at the beginning of a text.
fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// The first path in a demangled name begins with its crate; primitive types are of `core`.
fn crate_of(name: &str) -> &str {
    let Some((path, _)) = name.split_once("::") else { return "C and assembly" };
    let found = path.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').find(|part| !part.is_empty());
    match found {
        Some(found) if found == "str" || found == "char" || is_number(found) => "core",
        Some(found) if found.starts_with(|c: char| c.is_ascii_lowercase() || c == '_') => found,
        _ => "core",
    }
}

fn is_number(name: &str) -> bool {
    name.trim_start_matches(['u', 'i', 'f']).parse::<u8>().is_ok() || matches!(name, "usize" | "isize")
}

/// Those of a thousand bytes and more, largest first.
fn largest(sums: Sums) -> Vec<(String, u64)> {
    let mut sums: Vec<_> = sums.into_iter().filter(|(_, size)| *size >= 1000).collect();
    sums.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    sums
}
