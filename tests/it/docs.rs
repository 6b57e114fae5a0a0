//! Documents that cannot drift: man page, README, change log and scripts are held against the program.
//!
//! The program's own description (commands, keys, exit codes) is put into the man page by this test. It fails
//! where the page says something else, and `UPDATE_EXPECT=1` mends the page; prose under an item is kept.

use expect_test::expect_file;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use wemixvisor::config::{KEYS, Key};
use wemixvisor::inside::{COMMANDS, Exit, OPTIONS, Opt};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(ROOT).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn files_below(dir: &str) -> Vec<PathBuf> {
    let mut dirs = vec![Path::new(ROOT).join(dir)];
    let mut files = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() { dirs.push(entry) } else { files.push(entry) }
        }
    }
    files
}

#[test]
fn the_man_page_says_what_the_program_says() {
    let mut page = read("man/wemixvisor.1");
    page = put(&page, "commands", &commands());
    page = put(&page, "options", &options());
    page = put(&page, "keys", &keys());
    page = put(&page, "exit codes", &exit_codes());
    expect_file!["../../man/wemixvisor.1"].assert_eq(&page);
    let long = page.lines().find(|line| !line.starts_with('.') && line.len() > WIDTH);
    assert_eq!(long, None, "mandoc(1) wants shorter lines");
}

/// A list item or a line between items, as mdoc.
enum Said {
    Line(String),
    Item { head: String, text: String },
}

fn commands() -> Vec<Said> {
    COMMANDS
        .iter()
        .map(|c| Said::Item {
            head: format!("Ic {}", marked_up(c.synopsis)),
            text: prose(c.about) + &listed(&c.options()),
        })
        .collect()
}

/// The options that mean something of their own here, as a list.
fn listed(options: &[&Opt]) -> String {
    let own = options.iter().filter(|option| !option.command.is_empty());
    let items: String =
        own.map(|option| format!(".It Fl {}\n{}", &option.flag[1..], explained(option))).collect();
    if items.is_empty() { items } else { format!(".Bl -tag -width 4n -compact\n{items}.El\n") }
}

/// The options that mean the same wherever they are.
fn options() -> Vec<Said> {
    let common = OPTIONS.iter().filter(|option| option.command.is_empty());
    common
        .map(|option| Said::Item { head: format!("Fl {}", &option.flag[1..]), text: explained(option) })
        .collect()
}

fn explained(option: &Opt) -> String {
    let example = if option.example.is_empty() { "" } else { ", as in " };
    prose(&format!("{}{example}{}", option.about, option.example))
}

fn keys() -> Vec<Said> {
    let mut said = Vec::new();
    for section in KEYS.chunk_by(|a, b| a.section == b.section) {
        said.push(Said::Line(format!(".Ss {}\n.Bl -tag -width 4n", section[0].section)));
        said.extend(section.iter().map(|key| Said::Item {
            head: format!("Cm {} Pq {}", key.name, facts(key)),
            text: prose(key.doc) + &aliases(key),
        }));
        said.push(Said::Line(".El".to_owned()));
    }
    said
}

/// Kind, default and bounds of a key.
fn facts(key: &Key) -> String {
    let mut facts = key.kind.to_owned();
    // The home is given from outside, which the table writes as `.`.
    if !matches!(key.default, "" | ".") {
        let _ = write!(facts, "; default {}", key.default);
    }
    if let Some((least, most)) = key.bounds {
        let _ = write!(facts, "; {least} to {most}");
    }
    facts
}

/// The names of a key that do not follow from its own.
fn aliases(key: &Key) -> String {
    let flag = key.short.map(|short| format!("The flag may be written\n.Fl -{short} .\n"));
    let env = key.other_env.map(|env| format!("The variable may be named\n.Ev {env} .\n"));
    flag.into_iter().chain(env).collect()
}

fn exit_codes() -> Vec<Said> {
    Exit::ALL
        .iter()
        .map(|(exit, meaning)| Said::Item { head: exit.code().to_string(), text: prose(meaning) })
        .collect()
}

/// A synopsis with its flags, arguments and brackets as macros.
fn marked_up(synopsis: &str) -> String {
    let mut line = String::new();
    let mut last = "Ic";
    for word in synopsis.split(' ') {
        let bare = word.trim_start_matches('[').trim_end_matches(']');
        let (mark, text) = match bare.strip_prefix('-') {
            Some(flag) => ("Fl", flag),
            None if bare.bytes().any(|b| b.is_ascii_uppercase()) => ("Ar", bare),
            None => ("Ic", bare),
        };
        if word.starts_with('[') {
            (line, last) = (line + "Oo ", "");
        }
        if mark != last {
            line = line + mark + " ";
            last = mark;
        }
        line = line + text + " ";
        if word.ends_with(']') {
            (line, last) = (line + "Oc ", "");
        }
    }
    line.trim_end().to_owned()
}

/// How long a line of text may be for mandoc(1).
const WIDTH: usize = 80;

/// Words of the program as sentences, each on lines of its own.
fn prose(words: &str) -> String {
    let mut text = words.replace(". ", ".\n").replace("--", "\\-\\-");
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text.truncate(text.trim_end_matches('.').len());
    text.push_str(".\n");
    let mut folded = String::new();
    for line in text.lines() {
        let mut column = 0;
        for word in line.split(' ') {
            let gap = if column == 0 {
                ""
            } else if column + word.len() < WIDTH {
                " "
            } else {
                "\n"
            };
            column = if gap == " " { column + 1 + word.len() } else { word.len() };
            folded = folded + gap + word;
        }
        folded.push('\n');
    }
    folded
}

/// The page with what the program says in the place that is kept for it.
fn put(page: &str, place: &str, said: &[Said]) -> String {
    let opening = format!(".\\\" From the program: {place}\n");
    let (before, rest) = page.split_once(&opening).unwrap_or_else(|| panic!("no place for {place}"));
    let (old, after) = rest.split_once(".\\\" End\n").unwrap_or_else(|| panic!("no end of {place}"));
    let by_hand = by_hand(old);
    let show = |said: &Said| match said {
        Said::Line(line) => format!("{line}\n"),
        Said::Item { head, text } => {
            format!(".It {head}\n{text}{}", by_hand.get(subject(head)).map_or("", String::as_str))
        }
    };
    let new: String = said.iter().map(show).collect();
    format!("{before}{opening}{new}.\\\" End\n{after}")
}

/// The text written by hand under each item: from the first `.Pp` to the next item or the end of the list. Lists in an item
/// belong to it.
fn by_hand(items: &str) -> BTreeMap<&str, String> {
    let mut hand = BTreeMap::new();
    let (mut depth, mut top, mut item) = (0, None, None);
    for line in items.lines() {
        depth -= i32::from(line == ".El");
        match line.strip_prefix(".It ").filter(|_| *top.get_or_insert(depth) == depth) {
            Some(head) => item = Some((subject(head), false)),
            // The end of the list of items, or a heading between two.
            None if top.is_some_and(|top| depth < top) => (top, item) = (None, None),
            None => {
                let is_inside = top.is_some_and(|top| depth > top);
                if let Some((subject, begun)) = &mut item {
                    *begun |= line == ".Pp" && !is_inside;
                    if *begun {
                        *hand.entry(*subject).or_insert_with(String::new) += &format!("{line}\n");
                    }
                }
            }
        }
        depth += i32::from(line.starts_with(".Bl "));
    }
    hand
}

/// The subject of an item: its first line up to what may change, the arguments and facts.
fn subject(head: &str) -> &str {
    let line = head.lines().next().unwrap_or_default();
    let end = [" Ar ", " Oo ", " Pq "].iter().filter_map(|mark| line.find(mark)).min();
    &line[..end.unwrap_or(line.len())]
}

#[test]
fn prose_under_an_item_outlives_a_change_of_what_the_program_says() {
    let page = ".\\\" From the program: keys\n.It Cm a Pq old\nOld.\n.Pp\nBy hand.\n.El\n.\\\" End\n";
    let said =
        [Said::Item { head: "Cm a Pq new".into(), text: prose("new. newer") }, Said::Line(".El".into())];
    let new = ".\\\" From the program: keys\n.It Cm a Pq new\nNew.\nnewer.\n.Pp\nBy hand.\n.El\n.\\\" End\n";
    assert_eq!(put(page, "keys", &said), new);
}

#[test]
fn every_variable_and_key_that_a_document_names_exists() {
    let mut known: BTreeSet<String> = KEYS.iter().flat_map(|key| [key.name.to_owned(), key.env()]).collect();
    known.extend(KEYS.iter().filter_map(|key| key.other_env.map(str::to_owned)));
    // Only told of by the text that explains what a variable is.
    known.insert("DAEMON_".to_owned());
    for file in documents() {
        let text = read(&file);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|w| w.starts_with("DAEMON_") || w.starts_with("daemon_")) {
            assert!(known.contains(word), "{}: there is no {word}", file.display());
        }
    }
}

#[test]
fn every_variable_that_the_program_reads_is_in_the_man_page() {
    let (page, mut read_by_name) = (read("man/wemixvisor.1"), 0);
    for file in files_below("src") {
        for rest in read(&file).split("env::var_os(\"").skip(1) {
            let name = rest.split('"').next().unwrap_or_default();
            assert!(page.contains(&format!("\n.It Ev {name}\n")), "{}: {name}", file.display());
            read_by_name += 1;
        }
    }
    assert!(read_by_name > 0, "variables are read in another way now");
}

#[test]
fn every_command_that_the_readme_shows_exists() {
    let readme = read("README.md");
    let mut shown = 0;
    for line in readme.lines().filter_map(|line| line.strip_prefix("wemixvisor ")) {
        let first = line.split(' ').next().unwrap_or_default();
        let is_shown = |synopsis: &str| synopsis == first || synopsis.starts_with(&format!("{first} "));
        assert!(COMMANDS.iter().any(|c| is_shown(c.synopsis)), "wemixvisor {line}");
        shown += 1;
    }
    assert!(shown > 4, "the quick start has gone");
}

#[test]
fn every_script_and_file_that_the_readme_names_is_there() {
    let readme = read("README.md");
    let named = readme.split(|c: char| c.is_whitespace() || "`()[]".contains(c)).filter(|w| {
        ["scripts/", "man/", "tests/", "src/"].iter().any(|dir| w.starts_with(dir)) || w.ends_with(".md")
    });
    let mut scripts = 0;
    for name in named {
        let path = Path::new(ROOT).join(name);
        let meta = fs::metadata(&path).unwrap_or_else(|e| panic!("README.md names {name}: {e}"));
        // A script says in its first line by which program it is executed.
        if name.starts_with("scripts/") && read(name).starts_with("#!") {
            assert!(meta.permissions().mode() & 0o111 != 0, "{name} is not executable");
            scripts += 1;
        }
    }
    assert!(scripts > 0);
}

#[test]
fn every_source_file_says_at_once_what_it_is_for() {
    let sources = files_below("src").into_iter().chain(files_below("tests"));
    for file in sources.filter(|f| f.extension().is_some_and(|e| e == "rs")) {
        assert!(read(&file).starts_with("//! "), "{} does not open with `//!`", file.display());
    }
}

#[test]
fn every_test_that_the_crate_documentation_names_exists() {
    let sources: String =
        ["src", "tests"].into_iter().flat_map(files_below).map(|file| read(&file)).collect();
    for page in ["src/security.md", "src/predecessors.md"] {
        let text = read(page);
        let words = text.split('`').skip(1).step_by(2);
        let is_test = |word: &&str| {
            word.len() > 20 && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        let tests: Vec<&str> = words.filter(is_test).collect();
        assert!(tests.len() > 20, "{page} names {} tests", tests.len());
        for test in tests {
            assert!(sources.contains(&format!("fn {test}(")), "{page} names {test}, which does not exist");
        }
    }
}

#[test]
fn every_thread_is_in_the_diagram_of_the_crate_documentation() {
    let diagram = read("src/lib.rs");
    let diagram = diagram.split("```").nth(1).unwrap();
    let sources: String =
        ["src/supervisor", "src/upgrade"].into_iter().flat_map(files_below).map(read).collect();
    let named = |call: &str| {
        let names: Vec<String> =
            sources.split(call).skip(1).filter_map(|rest| Some(rest.split('"').nth(1)?.to_owned())).collect();
        names
    };
    let threads: Vec<String> = [named("start_thread("), named("Thread::start("), named(".name(")].concat();
    let threads: Vec<&String> =
        threads.iter().filter(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')).collect();
    assert!(threads.len() > 15, "{threads:?}");
    for name in threads {
        assert!(diagram.contains(name.as_str()), "the diagram lacks the thread {name}");
    }
}

/// A comment opens with a noun or a verb and not with a question word, and names the actor instead of a pronoun.
#[test]
fn comments_and_documents_name_things_and_actors() {
    let is_ours = |file: &PathBuf| !file.ends_with("docs.rs");
    let sources = ["src", "tests"].into_iter().flat_map(files_below).filter(is_ours);
    let sources = sources.filter(|file| file.extension().is_some_and(|e| e == "rs" || e == "mjs"));
    let mut found = Vec::new();
    for file in sources.chain(documents()) {
        for (number, line) in read(&file).lines().enumerate() {
            let comment = line.trim_start().trim_start_matches('/').trim_start_matches('!').trim_start();
            let is_comment = line.trim_start().starts_with("//");
            let is_riddle = is_comment && ["What ", "Who "].iter().any(|word| comment.starts_with(word));
            let mut words = line.split(|c: char| !c.is_alphabetic()).map(str::to_lowercase);
            if is_riddle || words.any(|word| ["somebody", "nobody", "everybody"].contains(&&*word)) {
                found.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_change_log_tells_of_this_version() {
    let version = format!("## {}", env!("CARGO_PKG_VERSION"));
    assert!(read("CHANGELOG.md").lines().any(|line| line.starts_with(&version)), "no heading {version:?}");
}

/// The documents for users.
fn documents() -> Vec<PathBuf> {
    let mut documents = files_below("scripts");
    documents.extend(files_below("man"));
    documents.extend(["README.md", "CHANGELOG.md"].map(PathBuf::from));
    documents
}
