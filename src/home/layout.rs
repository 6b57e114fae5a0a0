//! Every path under the home, so that no other file joins a name to it.
//!
//! A [`Home`] is a value without I/O, but for [`Home::read_current`], which is strict on purpose: a link
//! that is missing or dangling is an error with the next step. Falling back to `genesis` would
//! start an old binary past a fork.

use crate::error::{Doing as _, Error, Kind, Result, is_of_the_machine};
use crate::machine::Target;
use crate::name::Name;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The home of one node: where everything is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
    daemon: String,
    data: PathBuf,
    backups: PathBuf,
}

/// The target of `current`, with the binary it resolves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// The target of the link.
    pub target: Target,
    /// The binary, by its final path and not through the link.
    pub binary: PathBuf,
}

impl Home {
    /// The directory that everything of ours is in, below the root.
    pub const DIR: &str = "wemixvisor";

    /// The home at `root` of the node whose binary is called `daemon`, with data and backups in
    /// `<root>/data` and `<root>/backups`.
    ///
    /// # Errors
    /// [`Kind::Config`] if `root` is not absolute or `daemon` is not the name of a file.
    pub fn new(root: impl Into<PathBuf>, daemon: &str) -> Result<Self> {
        let root = root.into();
        if !root.is_absolute() {
            return Err(Error::new(Kind::Config, "daemon_home is not an absolute path").at(root.display()));
        }
        let mut parts = Path::new(daemon).components();
        let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(n)), None) if n == daemon);
        if !plain || daemon.contains('\0') {
            let what = format!("daemon_name {daemon:?} is not the name of a file");
            return Err(Error::new(Kind::Config, what));
        }
        let (data, backups) = (root.join("data"), root.join("backups"));
        Ok(Home { root, daemon: daemon.to_owned(), data, backups })
    }

    /// The same home with the node's data directory elsewhere.
    #[must_use]
    pub fn with_data(mut self, data: impl Into<PathBuf>) -> Self {
        self.data = data.into();
        self
    }

    /// The same home with backups elsewhere.
    #[must_use]
    pub fn with_backups(mut self, backups: impl Into<PathBuf>) -> Self {
        self.backups = backups.into();
        self
    }

    /// `$DAEMON_HOME`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `$DAEMON_NAME`: the file name of the node's binary.
    pub fn daemon(&self) -> &str {
        &self.daemon
    }

    /// The node's data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The directory that backups are made in.
    pub fn backups(&self) -> &Path {
        &self.backups
    }

    /// `upgrade-info.json`, the trigger file in the data directory.
    pub fn trigger(&self) -> PathBuf {
        self.data.join("upgrade-info.json")
    }

    /// `wemixvisor/`.
    pub fn dir(&self) -> PathBuf {
        self.root.join(Home::DIR)
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir().join("config.yaml")
    }

    /// The link to the version that runs.
    pub fn current(&self) -> PathBuf {
        self.dir().join("current")
    }

    /// The directory of the version given to `init`.
    pub fn genesis(&self) -> PathBuf {
        self.dir().join("genesis")
    }

    /// The directory of all staged upgrades.
    pub fn upgrades(&self) -> PathBuf {
        self.dir().join("upgrades")
    }

    /// The directory of one upgrade.
    pub fn upgrade(&self, name: &Name) -> PathBuf {
        self.upgrades().join(name)
    }

    /// The directory of a target.
    pub fn target(&self, target: &Target) -> PathBuf {
        match target {
            Target::Genesis => self.genesis(),
            Target::Upgrade(name) => self.upgrade(name),
        }
    }

    /// The binary of a target.
    pub fn binary(&self, target: &Target) -> PathBuf {
        self.target(target).join("bin").join(&self.daemon)
    }

    /// The manifest of a target.
    pub fn manifest(&self, target: &Target) -> PathBuf {
        self.target(target).join("manifest.json")
    }

    /// The standard error of a node that is tried without peers.
    pub fn last_words(&self) -> PathBuf {
        self.state().join("last-words")
    }

    /// The report of the last rehearsal of an upgrade.
    pub fn rehearsal(&self, name: &Name) -> PathBuf {
        self.upgrade(name).join("rehearsal.json")
    }

    /// The changes of the node's arguments that a version needs.
    pub fn args(&self, target: &Target) -> PathBuf {
        self.target(target).join("args")
    }

    /// The hook that runs while the node is down, before the switch.
    pub fn pre_upgrade(&self, name: &Name) -> PathBuf {
        self.upgrade(name).join("pre-upgrade")
    }

    /// The hook that runs when the upgrade has proved itself.
    pub fn post_upgrade(&self, name: &Name) -> PathBuf {
        self.upgrade(name).join("post-upgrade")
    }

    /// The directory of plans.
    pub fn plans(&self) -> PathBuf {
        self.dir().join("plans")
    }

    /// One plan.
    pub fn plan(&self, name: &Name) -> PathBuf {
        self.plans().join(format!("{name}.json"))
    }

    /// The directory of unfinished downloads.
    pub fn downloads(&self) -> PathBuf {
        self.dir().join("downloads")
    }

    /// The directory of what must survive a crash.
    pub fn state(&self) -> PathBuf {
        self.dir().join("state")
    }

    /// `state/journal`.
    pub fn journal(&self) -> PathBuf {
        self.state().join("journal")
    }

    /// `state/upgrading`: it is there while an upgrade is under way.
    pub fn upgrading(&self) -> PathBuf {
        self.state().join("upgrading")
    }

    /// `state/head`: the head record.
    pub fn head(&self) -> PathBuf {
        self.state().join("head")
    }

    /// The upgrades of `upgrade schedule`, and the active plans.
    pub fn schedule(&self) -> PathBuf {
        self.state().join("schedule.json")
    }

    /// The lock that is held while the schedule is changed.
    pub fn schedule_lock(&self) -> PathBuf {
        self.state().join("schedule.lock")
    }

    /// The receipt of an upgrade that has ended.
    pub fn receipt(&self, name: &Name) -> PathBuf {
        self.state().join("receipts").join(format!("{name}.json"))
    }

    /// The append-only history.
    pub fn history(&self) -> PathBuf {
        self.state().join("history.jsonl")
    }

    /// The lock that every process of a node holds.
    pub fn node_lock(&self) -> PathBuf {
        self.state().join("node.lock")
    }

    /// The last restore that was done.
    pub fn restored(&self) -> PathBuf {
        self.state().join("restored.json")
    }

    /// The lock that every process of a hook holds.
    pub fn hook_lock(&self) -> PathBuf {
        self.state().join("hook.lock")
    }

    /// The lock that a rehearsal and its shadow hold.
    pub fn rehearsal_lock(&self) -> PathBuf {
        self.state().join("rehearsal.lock")
    }

    /// The directory of a rehearsal that is going on: the clone of the data, and what belongs to the shadow.
    pub fn rehearsal_dir(&self) -> PathBuf {
        self.backups.join(".wemixvisor-rehearsal")
    }

    /// The lock that a supervisor holds for life.
    pub fn lock(&self) -> PathBuf {
        self.dir().join("lock")
    }

    /// The control socket.
    pub fn control(&self) -> PathBuf {
        self.dir().join("control.sock")
    }

    /// The target of `current` and the binary it resolves to.
    ///
    /// # Errors
    /// [`Kind::Halted`] if the link is missing, is not a link, names anything but `genesis` or
    /// `upgrades/<name>`, or does not resolve to a file under the home.
    pub fn read_current(&self) -> Result<Current> {
        let link = self.current();
        let target = self.read_current_link()?;
        let binary = self.binary(&target);
        let halted = |what: &str| Error::new(Kind::Halted, what.to_owned()).at(link.display());
        let put_back = || format!("put the binary back at {}", binary.display());
        let real = fs::canonicalize(&binary).map_err(|e| {
            // Neither says anything about the binary.
            if e.kind() == io::ErrorKind::PermissionDenied || is_of_the_machine(&e) {
                return Error::io("resolve", &binary, e);
            }
            halted("`current` does not resolve to a binary").because(e).hint(put_back())
        })?;
        let dir = fs::canonicalize(self.dir()).doing("resolve", &self.dir())?;
        if !real.starts_with(&dir) {
            let hint = format!("replace {} by the file {} itself", binary.display(), real.display());
            return Err(halted("`current` resolves to a binary outside the home").hint(hint));
        }
        if !real.is_file() {
            return Err(halted("`current` does not resolve to a file").hint(put_back()));
        }
        Ok(Current { target, binary })
    }

    /// The text of the link `current`, whether or not it resolves.
    ///
    /// # Errors
    /// As [`Home::read_current`], for the link alone.
    pub fn read_current_link(&self) -> Result<Target> {
        let link = self.current();
        let halted = |what: &str| Error::new(Kind::Halted, what.to_owned()).at(link.display());
        let text = fs::read_link(&link).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound if !self.dir().is_dir() => {
                Error::new(Kind::Failed, "no home here").at(self.dir().display()).hint("run `wemixvisor init BINARY`")
            }
            io::ErrorKind::NotFound => halted("`current` is missing").hint(
                "if the home is new, run `wemixvisor init BINARY`; otherwise link it to the version that ran last: \
                 ln -s upgrades/NAME current",
            ),
            io::ErrorKind::InvalidInput => halted("`current` is not a symbolic link").hint(
                "move it away, then link it to the version that ran last: ln -s upgrades/NAME current",
            ),
            _ => Error::io("read link", &link, e),
        })?;
        let relative = text.to_str().and_then(|t| t.parse::<Target>().ok());
        relative.ok_or_else(|| {
            halted("`current` points neither to `genesis` nor to `upgrades/<name>`")
                .because(text.display().to_string())
                .hint("if another program laid out this home, run `wemixvisor init --import`")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn home(dir: &Path) -> Home {
        let home = Home::new(dir, "node").unwrap();
        for target in [Target::Genesis, Target::Upgrade("v2".parse().unwrap())] {
            let binary = home.binary(&target);
            fs::create_dir_all(binary.parent().unwrap()).unwrap();
            fs::write(binary, "x").unwrap();
        }
        home
    }

    fn halts_with(home: &Home, part: &str) {
        let err = home.read_current().unwrap_err();
        assert_eq!(err.kind(), Kind::Halted, "{err}");
        assert!(err.to_string().contains(part), "{err}");
    }

    #[test]
    fn current_names_a_version_and_its_binary() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path());
        symlink("genesis", home.current()).unwrap();
        let current = home.read_current().unwrap();
        assert_eq!(
            (current.target, current.binary),
            (Target::Genesis, dir.path().join("wemixvisor/genesis/bin/node"))
        );
        fs::remove_file(home.current()).unwrap();
        symlink("upgrades/v2", home.current()).unwrap();
        assert_eq!(home.read_current().unwrap().target.to_string(), "upgrades/v2");
    }

    #[test]
    fn a_current_that_proves_nothing_halts_instead_of_falling_back() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path());
        halts_with(&home, "missing");
        fs::create_dir(home.current()).unwrap();
        halts_with(&home, "not a symbolic link");
        fs::remove_dir(home.current()).unwrap();
        for (text, part) in [
            ("upgrades/gone", "does not resolve"),
            ("upgrades/../genesis", "neither"),
            ("../wemixvisor/genesis", "neither"),
            ("/bin", "neither"),
            ("upgrades", "neither"),
        ] {
            symlink(text, home.current()).unwrap();
            halts_with(&home, part);
            fs::remove_file(home.current()).unwrap();
        }
    }

    #[test]
    fn a_binary_that_is_a_link_out_of_the_home_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path());
        symlink("genesis", home.current()).unwrap();
        fs::remove_file(home.binary(&Target::Genesis)).unwrap();
        symlink(std::env::current_exe().unwrap(), home.binary(&Target::Genesis)).unwrap();
        halts_with(&home, "outside the home");
    }

    #[test]
    fn a_home_that_was_never_laid_out_asks_for_init() {
        let dir = tempfile::tempdir().unwrap();
        let err = Home::new(dir.path(), "node").unwrap().read_current().unwrap_err();
        assert!(err.to_string().contains("init BINARY"), "{err}");
    }

    #[test]
    fn relative_homes_and_names_with_separators_are_refused() {
        Home::new("x", "node").unwrap_err();
        for bad in ["", ".", "..", "a/b", "/a", "a/"] {
            Home::new("/x", bad).unwrap_err();
        }
    }
}
