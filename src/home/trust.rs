//! Whether a file or directory may be relied on: no user but its owner can change it, and its owner is one who may.
//!
//! The one rule for all that decides what is executed: the home, configuration, plans, hooks and the program for events.

use super::Home;
use crate::error::{Doing as _, Error, Kind, Result};
use rustix::process::geteuid;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The fault of a file or directory, and its remedy; None where it may be relied on. Root also trusts the owner of `home`,
/// the directory that it acts for.
pub fn fault(meta: &Metadata, home: &Path) -> Option<(String, &'static str)> {
    let (owner, us) = (meta.uid(), geteuid().as_raw());
    let is_of_home = |owner| us == 0 && fs::metadata(home).is_ok_and(|home| home.uid() == owner);
    if owner != us && owner != 0 && !is_of_home(owner) {
        return Some((format!("it belongs to user {owner}, not to {us}"), "look at it, then chown it"));
    }
    let mode = meta.mode() & 0o7777;
    (mode & 0o022 != 0).then(|| {
        let what = format!("others than its owner may write it (mode {mode:03o})");
        (what, "look at it, then chmod go-w it")
    })
}

/// Refuses a path below the home that a link leads out of it.
///
/// # Errors
/// [`Kind::BadInput`] if one does. A path that does not exist is none.
pub fn check_inside(home: &Home, path: &Path) -> Result<()> {
    let Ok(real) = fs::canonicalize(path) else { return Ok(()) };
    let dir = fs::canonicalize(home.dir()).doing("resolve", &home.dir())?;
    if real.starts_with(dir) {
        return Ok(());
    }
    Err(Error::new(Kind::BadInput, "a link leads out of the home")
        .at(path.display())
        .because(format!("it is {}", real.display()))
        .hint("move what is there to its place in the home"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    #[test]
    fn only_its_owner_may_write_a_file_that_is_relied_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "").unwrap();
        let fault_of = |mode| {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            fault(&fs::metadata(&file).unwrap(), dir.path()).map(|(what, _)| what)
        };
        assert_eq!((fault_of(0o755), fault_of(0o600)), (None, None));
        assert_eq!(fault_of(0o664).unwrap(), "others than its owner may write it (mode 664)");
        assert!(fault_of(0o602).is_some());
        // Only root can give a file away.
        if geteuid().is_root() {
            chown(&file, Some(4711), None).unwrap();
            assert_eq!(fault_of(0o600).unwrap(), "it belongs to user 4711, not to 0");
            chown(dir.path(), Some(4711), None).unwrap();
            assert_eq!(fault_of(0o600), None, "the home is that user's");
        }
    }

    #[test]
    fn a_link_may_stay_in_the_home() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        fs::create_dir_all(home.genesis()).unwrap();
        symlink("genesis", home.upgrades()).unwrap();
        symlink(dir.path(), home.downloads()).unwrap();
        check_inside(&home, &home.upgrades()).unwrap();
        check_inside(&home, &home.plans()).unwrap();
        let err = check_inside(&home, &home.downloads()).unwrap_err().to_string();
        assert!(err.starts_with("a link leads out of the home: "), "{err}");
    }
}
