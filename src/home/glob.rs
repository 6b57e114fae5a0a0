//! Paths with `*` in them: how the node's socket and lock are found without knowing the node's name.
//!
//! `*` stands for any characters within one component. Nothing else is special, hidden names need
//! their dot to be written, and what cannot be listed matches nothing.

use crate::sorted;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// The existing paths that match `pattern`, sorted.
pub fn expand(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        match component {
            Component::Normal(part) if part.as_bytes().contains(&b'*') => {
                found = found.iter().flat_map(|dir| children(dir, part)).collect();
            }
            plain => found.iter_mut().for_each(|path| path.push(plain)),
        }
    }
    found.retain(|path| fs::symlink_metadata(path).is_ok());
    sorted::sort(&mut found);
    found
}

fn children(dir: &Path, pattern: &OsStr) -> Vec<PathBuf> {
    let here = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let names = fs::read_dir(here).into_iter().flatten().filter_map(|e| Some(e.ok()?.file_name()));
    names.filter(|name| accepts(name, pattern)).map(|name| dir.join(name)).collect()
}

fn accepts(name: &OsString, pattern: &OsStr) -> bool {
    let (name, pattern) = (name.as_bytes(), pattern.as_bytes());
    (name.first() != Some(&b'.') || pattern.first() == Some(&b'.')) && matches(name, pattern)
}

/// Whether a name matches a pattern with `*` in it.
pub fn matches(name: &[u8], pattern: &[u8]) -> bool {
    // Going back to the last star is enough: an earlier one could only give it more, never less.
    let (mut n, mut p) = (0, 0);
    let mut star = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, n));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            (n, p) = (n + 1, p + 1);
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            (n, p) = (taken + 1, at + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_within_a_name() {
        let yes = [("gwemix.ipc", "*.ipc"), ("a", "*"), ("abcbc", "a*bc"), ("ab", "a*b*"), ("LOCK", "LOCK")];
        let no = [("gwemix.ipcx", "*.ipc"), ("abcb", "a*bc"), ("", "a*"), ("LOCKS", "LOCK")];
        assert!(yes.iter().all(|(n, p)| matches(n.as_bytes(), p.as_bytes())));
        assert!(no.iter().all(|(n, p)| !matches(n.as_bytes(), p.as_bytes())));
    }

    #[test]
    fn finds_files_one_directory_down() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["geth", "other", ".hidden", "empty"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        for name in ["geth/LOCK", "other/LOCK", ".hidden/LOCK", "LOCK"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let found = expand(&dir.path().join("*/LOCK"));
        assert_eq!(found, [dir.path().join("geth/LOCK"), dir.path().join("other/LOCK")]);
        assert_eq!(expand(&dir.path().join("gone/*/LOCK")), [] as [PathBuf; 0]);
        assert_eq!(expand(&dir.path().join("LOCK")), [dir.path().join("LOCK")]);
    }
}
