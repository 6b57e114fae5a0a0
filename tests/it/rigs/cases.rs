//! The commands that write without a running node, each with the home that it begins with.

use super::disk::Disk;
use super::settings::Settings;
use super::trace::{self, Fault, Outcome};
use super::tree::{self, Tree};
use crate::rig::server::{Content, Server};
use crate::rig::visor::Rig;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;
use wemixvisor::Digest;
use wemixvisor::inside::sweep;

/// A command to be broken.
pub(super) struct Case {
    /// Its name in `RIG_CASE`.
    pub(super) name: &'static str,
    /// The home that it begins with.
    start: Start,
    /// Its words; a path in them lies beside the home.
    args: &'static [&'static str],
    /// The exit codes by which a second run reports that there is nothing left to do.
    pub(super) already: &'static [i32],
}

/// The words that stand for the address and the digest of the binary that is served.
const FETCH: &[&str] = &["upgrade", "fetch", "v2", "--url", "URL", "--sha256", "SHA256"];

/// Every such command.
const CASES: &[Case] = &[
    Case { name: "init", start: Start::Nothing, args: &["init", "v1"], already: &[] },
    Case { name: "import", start: Start::Cosmovisor, args: &["init", "--import"], already: &[] },
    Case { name: "schedule", start: Start::Bare, args: &["upgrade", "schedule", "v2", "1000"], already: &[] },
    Case {
        name: "reschedule",
        start: Start::Cancelled,
        args: &["upgrade", "schedule", "v2", "2000"],
        already: &[],
    },
    Case { name: "cancel", start: Start::Planned, args: &["upgrade", "cancel", "v2"], already: &[4] },
    Case { name: "hold", start: Start::Planned, args: &["upgrade", "hold", "v2"], already: &[] },
    Case {
        name: "add-args",
        start: Start::Bare,
        args: &["upgrade", "add", "v2", "v2", "--add-arg", "--cache=7", "--drop-arg", "--http"],
        already: &[],
    },
    Case { name: "add", start: Start::Bare, args: &["upgrade", "add", "v2", "v2"], already: &[] },
    Case {
        name: "replace",
        start: Start::Planned,
        args: &["upgrade", "add", "v2", "v3", "--force"],
        already: &[],
    },
    Case { name: "fetch", start: Start::Bare, args: FETCH, already: &[] },
    Case {
        name: "plan-create",
        start: Start::Bare,
        args: &["plan", "create", "p", "v2:1000"],
        already: &[1],
    },
    Case {
        name: "plan-add",
        start: Start::Plan,
        args: &["plan", "add-upgrade", "p", "v3:2000"],
        already: &[1],
    },
    Case {
        name: "plan-take",
        start: Start::Plan,
        args: &["plan", "remove-upgrade", "p", "v2"],
        already: &[4],
    },
    Case { name: "plan-execute", start: Start::Plan, args: &["plan", "execute", "p"], already: &[] },
    Case { name: "plan-pause", start: Start::Followed, args: &["plan", "pause", "p"], already: &[1] },
    Case { name: "plan-resume", start: Start::Paused, args: &["plan", "resume", "p"], already: &[1] },
    Case { name: "plan-remove", start: Start::Plan, args: &["plan", "remove", "p"], already: &[4] },
    Case { name: "retry", start: Start::Halted, args: &["resolve", "retry"], already: &[5] },
    Case {
        name: "retry-with",
        start: Start::Halted,
        args: &["resolve", "retry", "--with", "v3"],
        already: &[5],
    },
    Case { name: "rollback", start: Start::Halted, args: &["resolve", "rollback", "--force"], already: &[5] },
    Case {
        name: "rollback-any",
        start: Start::Halted,
        args: &["rollback", "--yes", "--force"],
        already: &[5],
    },
    Case { name: "head", start: Start::Halted, args: &["resolve", "head"], already: &[] },
    Case { name: "chain", start: Start::Halted, args: &["resolve", "chain"], already: &[5] },
    Case { name: "backup-create", start: Start::Kept, args: &["backup", "create", "c"], already: &[] },
    Case { name: "backup-verify", start: Start::Kept, args: &["backup", "verify", "FIRST"], already: &[] },
    Case { name: "backup-restore", start: Start::Kept, args: &["backup", "restore", "FIRST"], already: &[] },
    Case { name: "backup-prune", start: Start::Kept, args: &["backup", "prune", "FIRST"], already: &[4] },
    Case {
        name: "prune-replaced",
        start: Start::Restored,
        args: &["backup", "prune", "--replaced"],
        already: &[],
    },
    Case { name: "accept", start: Start::Rehearsed, args: &["rehearse", "v2", "--force"], already: &[] },
];

/// Does something with every case that is wanted, and collects what it returns. The cases of one start are one thread.
pub(super) fn each_wanted(
    settings: &Settings,
    ground: impl Fn(Start) -> Ground + Sync,
    act: impl Fn(&Stage<'_>) -> Vec<String> + Sync,
) -> Vec<String> {
    let (ground, act) = (&ground, &act);
    std::thread::scope(|scope| {
        let threads: Vec<_> = Start::ALL
            .into_iter()
            .map(|start| {
                let cases = CASES.iter().filter(move |case| case.start == start && settings.wants(case.name));
                (start, cases.collect::<Vec<_>>())
            })
            .filter(|(_, cases)| !cases.is_empty())
            .map(|(start, cases)| {
                scope.spawn(move || {
                    let ground = ground(start);
                    cases.into_iter().flat_map(|case| act(&ground.stage(case))).collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("the case has said why it failed"))
            .collect()
    })
}

/// A home that commands begin with, and what they need beside it.
pub(super) struct Ground {
    rig: Rig,
    /// The home that every run begins with.
    before: PathBuf,
    server: Server,
    /// The disk of the home, where its power is to be cut. It is unmounted after the rig has looked at it once more.
    disk: Option<Disk>,
}

impl Ground {
    pub(super) fn new(start: Start) -> Ground {
        Ground::of(start, Rig::empty(), None)
    }

    /// The same with the home on a disk.
    pub(super) fn on_disk(start: Start) -> Ground {
        let disk = Disk::new();
        let rig = Rig::empty().on(&disk.mount());
        // The data that a restore has put in place must outlive a power cut as well.
        let rig = if start.has_data() { rig.with_data_inside() } else { rig };
        Ground::of(start, rig, Some(disk))
    }

    fn of(start: Start, rig: Rig, disk: Option<Disk>) -> Ground {
        let content = Content::new(program());
        let server = Server::start(move |asked, conn| content.serve(asked, conn));
        for (name, tail) in [("v1", 1), ("v2", 2), ("v3", 3)] {
            let path = rig.path().join(name);
            fs::write(&path, [program(), vec![tail]].concat()).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        start.lay_out(&rig);
        let before = rig.path().join("before");
        tree::copy(&rig.home(), &before);
        Ground { rig, before, server, disk }
    }

    /// Runs a command without a fault.
    fn stage(&self, case: &'static Case) -> Stage<'_> {
        let outcome = Outcome { code: 0, calls: Vec::new(), hits: Vec::new() };
        let (after, whole) = (Tree::default(), Run { outcome, stderr: String::new() });
        let mut stage = Stage { case, ground: self, after, whole };
        stage.whole = stage.break_at(Fault::None);
        assert_eq!(stage.whole.outcome.code, 0, "{}: {}", case.name, stage.whole.stderr);
        let (_, temporary) = Tree::of(&self.rig);
        assert_eq!(temporary, [""; 0], "{} leaves temporary files behind", case.name);
        sweep(&self.rig.as_home()).remove();
        stage.after = Tree::of(&self.rig).0;
        stage
    }
}

/// A case made ready, and its uninterrupted run.
pub(super) struct Stage<'a> {
    pub(super) case: &'static Case,
    ground: &'a Ground,
    /// The home after the uninterrupted run and a sweep.
    after: Tree,
    /// The uninterrupted run.
    pub(super) whole: Run,
}

/// A run under the tracer, and what it printed.
pub(super) struct Run {
    pub(super) outcome: Outcome,
    pub(super) stderr: String,
}

impl Run {
    /// The lines by which the program addresses the operator.
    pub(super) fn messages(&self) -> usize {
        self.stderr.lines().filter(|line| line.starts_with("wemixvisor: ")).count()
    }
}

impl Stage<'_> {
    /// Runs the command with a fault, on a home as it was at the beginning.
    pub(super) fn break_at(&self, fault: Fault) -> Run {
        let rig = self.rig();
        tree::copy(&self.ground.before, &rig.home());
        if let Some(disk) = &self.ground.disk {
            disk.sync();
        }
        let (stdout, stderr) = (rig.path().join("stdout"), rig.path().join("stderr"));
        let create = |path: &Path| File::create(path).unwrap();
        let args = self.args();
        let command = rig.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let is_cut = matches!(fault, Fault::PowerCut { .. });
        let outcome = trace::start(&command, create(&stdout), create(&stderr), fault).end();
        if let (true, Some(disk)) = (is_cut, &self.ground.disk) {
            disk.restart();
        }
        Run { outcome, stderr: String::from_utf8_lossy(&fs::read(stderr).unwrap()).into_owned() }
    }

    /// A power cut of the disk at a call.
    pub(super) fn power_cut(&self, at: usize) -> Fault {
        let disk = self.ground.disk.as_ref().expect("the home is on a disk");
        Fault::PowerCut { at, plug: disk.plug(at), dir: self.rig().home() }
    }

    /// A power cut of the disk now.
    pub(super) fn cut_power(&self) {
        let disk = self.ground.disk.as_ref().expect("the home is on a disk");
        disk.plug(1).pull();
        disk.restart();
    }

    /// Runs the command once more, without a fault.
    pub(super) fn again(&self) -> Output {
        self.rig().output(&self.args().iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The rig of the home.
    pub(super) fn rig(&self) -> &Rig {
        &self.ground.rig
    }

    fn args(&self) -> Vec<String> {
        let word = |word: &&str| match *word {
            "URL" => self.ground.server.url("/v2"),
            "SHA256" => Digest::sha256(&program()).hex(),
            // As it was: a run that is repeated may find it gone.
            "FIRST" => first_backup(&self.ground.before),
            other => other.to_owned(),
        };
        self.case.args.iter().map(word).collect()
    }

    /// How the home differs from that after the uninterrupted run, once it is swept as the next supervisor sweeps it.
    pub(super) fn differences(&self) -> Vec<String> {
        sweep(&self.rig().as_home()).remove();
        let (now, temporary) = Tree::of(self.rig());
        let mut differences = self.after.differences(&now);
        differences.extend(temporary.into_iter().map(|path| format!("{path} was not swept")));
        differences
    }
}

/// A small program that passes the smoke test: it prints the word `version`.
fn program() -> Vec<u8> {
    fs::read("/bin/echo").unwrap()
}

/// A home that commands begin with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Nothing,
    Cosmovisor,
    Bare,
    /// An upgrade is staged and scheduled.
    Planned,
    /// The same, cancelled again.
    Cancelled,
    /// A plan is made.
    Plan,
    /// It is followed.
    Followed,
    Paused,
    Halted,
    /// There are data and two backups of what they were before.
    Kept,
    /// One of them was put back.
    Restored,
    /// The staged binary has failed its rehearsal.
    Rehearsed,
}

impl Start {
    const ALL: [Start; 12] = [
        Start::Nothing,
        Start::Cosmovisor,
        Start::Bare,
        Start::Planned,
        Start::Cancelled,
        Start::Plan,
        Start::Followed,
        Start::Paused,
        Start::Halted,
        Start::Kept,
        Start::Restored,
        Start::Rehearsed,
    ];

    /// Whether its commands work on the data.
    fn has_data(self) -> bool {
        matches!(self, Start::Kept | Start::Restored)
    }

    fn lay_out(self, rig: &Rig) {
        let add = ["upgrade", "add", "v2", "v2"];
        match self {
            Start::Nothing => {}
            Start::Cosmovisor => cosmovisor(rig),
            Start::Halted => halted(rig),
            Start::Kept => kept(rig),
            Start::Restored => {
                Start::Kept.lay_out(rig);
                rig.ok(&["backup", "restore", &first_backup(&rig.home())]);
            }
            Start::Rehearsed => rehearsed(rig),
            Start::Bare => drop(rig.ok(&["init", "v1"])),
            Start::Planned => Start::Bare.and(rig, &[&add, &["upgrade", "schedule", "v2", "1000"]]),
            Start::Cancelled => Start::Planned.and(rig, &[&["upgrade", "cancel", "v2"]]),
            Start::Plan => Start::Bare.and(rig, &[&add, &["plan", "create", "p", "v2:1000"]]),
            Start::Followed => Start::Plan.and(rig, &[&["plan", "execute", "p"]]),
            Start::Paused => Start::Followed.and(rig, &[&["plan", "pause", "p"]]),
        }
    }

    fn and(self, rig: &Rig, commands: &[&[&str]]) {
        self.lay_out(rig);
        for command in commands {
            rig.ok(command);
        }
    }
}

/// A home of Cosmovisor with one upgrade applied.
fn cosmovisor(rig: &Rig) {
    let home = rig.home().join("cosmovisor");
    for (dir, binary) in [("genesis", "v1"), ("upgrades/v2", "v2")] {
        let bin = home.join(dir).join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy(rig.path().join(binary), bin.join("simnode")).unwrap();
    }
    symlink("upgrades/v2", home.join("current")).unwrap();
}

/// A home that has halted past the fork, with a third binary staged. It has the real node, which it must run.
fn halted(rig: &Rig) {
    let v1 = rig.binary("node1", &[("freeze", "10")]);
    rig.ok(&["init", v1.to_str().unwrap()]);
    for (name, options) in [("v2", &[("end", "1")][..]), ("v3", &[])] {
        let binary = rig.binary(&format!("node-{name}"), options);
        rig.ok(&["upgrade", "add", name, binary.to_str().unwrap()]);
    }
    rig.ok(&["upgrade", "schedule", "v2", "10", "--fork-height", "11"]);
    assert_eq!(rig.run().end(), 79);
}

/// A home with data, a key among them, and two backups of what the data were before.
fn kept(rig: &Rig) {
    Start::Bare.lay_out(rig);
    let chain = rig.data().join("geth/chaindata");
    fs::create_dir_all(&chain).unwrap();
    let write = |files: &[(&str, &str)]| {
        files.iter().for_each(|(name, text)| fs::write(chain.join(name), text).unwrap());
    };
    // A table of a database is linked where that can be done, all else is copied.
    write(&[("../nodekey", "the key"), ("MANIFEST-000001", "tables"), ("000001.sst", "table"), ("log", "1")]);
    symlink("MANIFEST-000001", chain.join("CURRENT")).unwrap();
    rig.ok(&["backup", "create", "a"]);
    write(&[("000002.sst", "another table"), ("log", "1, 2")]);
    rig.ok(&["backup", "create", "b"]);
    fs::remove_file(chain.join("000001.sst")).unwrap();
    write(&[("log", "1, 2, 3")]);
}

/// The name of the backup that was made first.
fn first_backup(home: &Path) -> String {
    let names = fs::read_dir(home.join("backups")).unwrap().flatten();
    names.map(|entry| entry.file_name().into_string().unwrap()).min().unwrap()
}

/// A home whose staged binary has failed its rehearsal.
fn rehearsed(rig: &Rig) {
    let v1 = rig.binary("node1", &[]);
    rig.ok(&["init", v1.to_str().unwrap()]);
    rig.stage("v2", &[("end", "3")]);
    let mut visor = rig.run();
    visor.wait_head(5);
    // A disk whose power is to be cut is too small for a clone.
    let beside = rig.path().join("clones");
    rig.fails(5, &["rehearse", "v2", "--blocks", "1", "--daemon-data-backup-dir", beside.to_str().unwrap()]);
    assert_eq!(visor.stop(), 0);
}
