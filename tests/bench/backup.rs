//! The time that a node is down for an upgrade with its backup, beside cp and rsync on the same data.
//!
//! The data is laid out as chaindata is, and 1 % of it changes between what is brought while the node runs and the stop. It is
//! measured in `dir`, and as root on ext4 and xfs in files, since only xfs can clone. There is one tree of data and one copy of
//! it at a time, so that twice the size suffices.

use super::rig::{Home, Outcome, Setup, now, run, sh};
use super::table::{Budget, Row};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// The size of a table, as Pebble has it.
const TABLE: u64 = 4;

/// Measures so many MiB on a file system: `here`, `ext4`, `xfs`.
pub(crate) fn all(setup: &Setup, kind: &str, mib: u64) -> Outcome<Vec<Row>> {
    has_space(&setup.dir, mib)?;
    let mounted = if kind == "here" { None } else { Some(Mounted::new(setup, kind, mib)?) };
    let dir = mounted.as_ref().map_or_else(|| setup.dir.join("here"), |m| m.at.clone());
    fs::create_dir_all(&dir)?;
    let rows = Bench::new(setup, &dir, mib)?.measure(kind)?;
    if mounted.is_none() {
        fs::remove_dir_all(dir)?;
    }
    Ok(rows)
}

/// Space for the data, a copy, and everything that changes, in MiB.
fn need(setup_mib: u64) -> u64 {
    setup_mib * 21 / 10 + 768
}

fn has_space(dir: &Path, mib: u64) -> Outcome<()> {
    let fs = rustix::fs::statvfs(dir)?;
    let free = fs.f_bavail * fs.f_frsize / MIB;
    if free >= need(mib) {
        return Ok(());
    }
    let at = dir.display();
    let needed = need(mib);
    Err(format!(
        "a backup of {mib} MiB needs {needed} MiB in {at}, where {free} are free; TMPDIR names another place"
    )
    .into())
}

/// A file system in a file. What is written to it passes no second cache on its way to the disk.
struct Mounted {
    at: PathBuf,
    image: PathBuf,
}

impl Mounted {
    fn new(setup: &Setup, kind: &str, mib: u64) -> Outcome<Mounted> {
        let mounted = Mounted { at: setup.dir.join(kind), image: setup.dir.join(format!("{kind}.img")) };
        let image = mounted.image.display().to_string();
        // It has all its blocks before anything is measured.
        std::io::copy(&mut std::io::repeat(0).take(need(mib) * MIB), &mut File::create(&mounted.image)?)?;
        let keep = if kind == "xfs" { vec!["-K"] } else { vec!["-E", "nodiscard", "-m", "0"] };
        sh(&format!("mkfs.{kind}"), &[&["-q"][..], &keep, &[&image]].concat())?;
        fs::create_dir_all(&mounted.at)?;
        let device = sh("losetup", &["--find", "--show", "--direct-io=on", &image])?;
        let done = sh("mount", &[device.trim(), &mounted.at.display().to_string()]);
        // It goes when it is no longer mounted.
        sh("losetup", &["--detach", device.trim()])?;
        done.map(|_| mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = sh("umount", &[&self.at.display().to_string()]);
        let _ = fs::remove_file(&self.image);
    }
}

/// One tree of data.
struct Bench<'a> {
    setup: &'a Setup,
    dir: &'a Path,
    mib: u64,
    chain: PathBuf,
    /// The numbers of the tables that exist: from the first, below the second.
    tables: (u64, u64),
}

impl<'a> Bench<'a> {
    /// Three quarters are in tables, the rest in ancient data.
    fn new(setup: &'a Setup, dir: &'a Path, mib: u64) -> Outcome<Self> {
        let chain = dir.join("chain");
        let mut bench = Bench { setup, dir, mib, chain, tables: (1, 1) };
        let ancient = bench.chain.join("ancient/chain");
        fs::create_dir_all(&ancient)?;
        fs::write(bench.chain.join("MANIFEST-000001"), "tables\n")?;
        fs::write(ancient.join("bodies.cidx"), "index\n")?;
        for n in 0..3 {
            noise(&ancient.join(format!("bodies.000{n}.cdat")), mib * MIB / 12)?;
        }
        bench.grow(&bench.chain.clone(), mib * 3 / 4 / TABLE)?;
        Ok(bench)
    }

    /// Adds tables to a tree.
    fn grow(&mut self, chain: &Path, count: u64) -> Outcome<()> {
        for n in self.tables.1..self.tables.1 + count {
            noise(&chain.join(format!("{n:06}.sst")), TABLE * MIB)?;
        }
        self.tables.1 += count;
        Ok(())
    }

    /// The number of tables in 1 %.
    fn part(&self) -> u64 {
        self.mib / 100 / TABLE + 1
    }

    /// 1 % goes and comes, as when a node goes on.
    fn change(&mut self, chain: &Path) -> Outcome<()> {
        let count = self.part();
        for n in self.tables.0..self.tables.0 + count {
            fs::remove_file(chain.join(format!("{n:06}.sst")))?;
        }
        self.tables.0 += count;
        self.grow(chain, count)?;
        let mut ancient = File::options().append(true).open(chain.join("ancient/chain/bodies.0002.cdat"))?;
        ancient.write_all(&[7; 100_000])?;
        settle(self.dir)
    }

    fn measure(mut self, kind: &str) -> Outcome<Vec<Row>> {
        let mut ways: Vec<(String, Vec<f64>)> = Vec::new();
        let mut add = |what: &str, time: f64| match ways.iter_mut().find(|(known, _)| known == what) {
            Some((_, times)) => times.push(time),
            None => ways.push((what.to_owned(), vec![time])),
        };
        for _ in 0..self.setup.rounds {
            add("cp -a of the 1 %, sync", self.copied_part()?);
            for method in ["auto", "hardlink", "copy"] {
                add(&format!("node down, method {method}"), self.down(method, true)?);
            }
            add("node down, all copied after the stop", self.down("copy", false)?);
            add("cp -a --reflink=never, sync", self.copied(&["-a", "--reflink=never"])?);
            if kind == "xfs" {
                add("cp -a --reflink, sync", self.copied(&["-a", "--reflink=always"])?);
            }
            add("cp -al, sync (all linked: unsafe)", self.copied(&["-al"])?);
            add("rsync, second pass, sync", self.synced()?);
        }
        let beside = ways.remove(0);
        let whole = ways.iter().find(|(what, _)| what.starts_with("cp -a --reflink=never")).cloned();
        let head = |what: &str| format!("{kind}, {} MiB: {what}", self.mib);
        let row = |(what, times): (String, Vec<f64>)| {
            let row = Row::new(head(&what), "ms", times);
            match &whole {
                Some((tool, all)) if what.ends_with("after the stop") => {
                    row.beside(tool, all.clone()).budget(Budget::Times(1.0))
                }
                _ if what.starts_with("node down") => {
                    row.beside(&beside.0, beside.1.clone()).budget(Budget::Times(1.5))
                }
                _ => row,
            }
        };
        Ok(ways.into_iter().map(row).collect())
    }

    /// The time from the end of the node to the start of the next, with a backup in between.
    fn down(&mut self, method: &str, ahead: bool) -> Outcome<f64> {
        let env = [
            ("DAEMON_BACKUP_METHOD", method),
            ("DAEMON_BACKUP_AHEAD", if ahead { "true" } else { "false" }),
            ("DAEMON_BACKUP_RATE", "1TiB"),
            ("DAEMON_LOG_LEVEL", "debug"),
        ];
        let home = Home::new(self.setup, self.dir, &[], &env)?;
        let chain = home.data.join("gwemix/chaindata");
        fs::create_dir_all(home.data.join("gwemix"))?;
        fs::rename(&self.chain, &chain)?;
        let mut visor = home.supervise(&[])?;
        home.visor(&["upgrade", "add", "v2", &home.node("v2", &[])?])?;
        // It is brought ahead when the upgrade is minutes away.
        home.visor(&["upgrade", "schedule", "v2", "500"])?;
        visor.wait(if ahead { "event=backup_brought_ahead" } else { "event=upgrade_ready" })?;
        self.change(&chain)?;
        if !ahead {
            forget(&chain)?;
        }
        home.visor(&["upgrade", "now", "v2"])?;
        let stopped = visor.wait("event=node_stopped")?;
        let started = visor.wait("event=node_started")?;
        visor.stop()?;
        fs::rename(&chain, &self.chain)?;
        Ok(started - stopped)
    }

    /// The time of a copy of what comes by a change.
    fn copied_part(&mut self) -> Outcome<f64> {
        let from = self.dir.join("part");
        fs::create_dir_all(&from)?;
        let tables = self.tables;
        self.grow(&from, self.part())?;
        self.tables = tables;
        settle(self.dir)?;
        let took = self.copy(&from, &["-a", "--reflink=never"])?;
        fs::remove_dir_all(from)?;
        Ok(took)
    }

    fn copied(&self, flags: &[&str]) -> Outcome<f64> {
        settle(self.dir)?;
        forget(&self.chain)?;
        self.copy(&self.chain, flags)
    }

    fn copy(&self, from: &Path, flags: &[&str]) -> Outcome<f64> {
        let to = self.dir.join("copy");
        let begun = now();
        run(Command::new("cp").args(flags).args([from, &to]))?;
        run(Command::new("sync").arg("-f").arg(&to))?;
        let took = now() - begun;
        fs::remove_dir_all(to)?;
        Ok(took)
    }

    fn synced(&mut self) -> Outcome<f64> {
        let (from, to) = (self.chain.join(""), self.dir.join("copy"));
        run(Command::new("cp").arg("-a").args([&self.chain, &to]))?;
        self.change(&self.chain.clone())?;
        let begun = now();
        run(Command::new("rsync").args(["-a", "--delete"]).args([&from, &to]))?;
        run(Command::new("sync").arg("-f").arg(&to))?;
        let took = now() - begun;
        fs::remove_dir_all(to)?;
        Ok(took)
    }
}

/// Writes a file that nothing can compress.
fn noise(path: &Path, bytes: u64) -> Outcome<()> {
    std::io::copy(&mut File::open("/dev/urandom")?.take(bytes), &mut File::create(path)?)?;
    Ok(())
}

/// Nothing of a tree is in memory any more, as most of a large one never is: a copy of all reads it from the disk.
fn forget(tree: &Path) -> Outcome<()> {
    for entry in fs::read_dir(tree)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            forget(&entry.path())?;
        } else {
            rustix::fs::fadvise(File::open(entry.path())?, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// Everything of this file system is on the disk, which has got back what was removed and is at rest: each of those that are
/// compared begins so.
fn settle(dir: &Path) -> Outcome<()> {
    for _ in 0..2 {
        rustix::fs::syncfs(File::open(dir)?)?;
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}
