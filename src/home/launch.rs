//! The process that was launched last, as it has named itself in `node.lock` before it executed the node.
//!
//! A process is named by its id, its start time in clock ticks since the boot (proc(5), field 22 of `stat`) and the boot:
//! two of them never agree in all three.

use super::process::Stat;
use super::{Home, regular};
use crate::digest::{Algorithm, Digest};
use crate::error::{Doing as _, Error, Result};
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// The longest time that a process takes from its birth to its exec, and the time between two looks.
const BIRTH: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(5);
const LIMIT: u64 = 4096;

/// The process that was launched last since the boot.
#[derive(Debug)]
pub struct Launch {
    /// The number of the launch.
    pub number: u64,
    /// The process, where it still runs.
    pub process: Option<Process>,
}

/// A process that runs.
#[derive(Debug)]
pub struct Process {
    /// Its id.
    pub pid: Pid,
    /// A descriptor that becomes readable when it has ended (pidfd_open(2)).
    pub pidfd: OwnedFd,
    /// The digest of the file that it executes.
    pub sha256: Digest,
    /// How long it has run.
    pub age: Duration,
    /// Whether it is our child: the program that ran in this process before us has launched it.
    pub is_child: bool,
}

impl Process {
    /// The arguments with which it was executed, in order.
    pub fn args(&self) -> Vec<OsString> {
        let line = fs::read(format!("/proc/{}/cmdline", self.pid.as_raw_pid())).unwrap_or_default();
        let words = line.split(|byte| *byte == 0).map(|word| OsStr::from_bytes(word).to_owned());
        let mut args: Vec<OsString> = words.skip(1).collect();
        // Each one ends with a zero, and behind the last one there is none.
        args.pop();
        args
    }
}

/// The text before `/proc/self/stat` in the lock of a launch.
///
/// # Errors
/// If the boot cannot be named.
pub fn note(number: u64) -> io::Result<Vec<u8>> {
    Ok(format!("{number} {} ", boot()?).into_bytes())
}

/// The launch that the lock names, if it names one since the boot. The name is written without a sync, so that a power
/// cut may bring an older one back.
///
/// # Errors
/// If the lock, or a process that runs, cannot be examined: what it is then is not known.
pub fn last(home: &Home) -> Result<Option<Launch>> {
    let path = home.node_lock();
    let bytes = match regular::read(&path, LIMIT) {
        // A lock that is not a regular file is reported when it is taken.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
            return Ok(None);
        }
        read => read.doing("read", &path)?,
    };
    let text = String::from_utf8_lossy(&bytes);
    let Some((number, boot_id, stat)) = parts(&text) else { return Ok(None) };
    let Some(named) = Stat::parse(stat) else { return Ok(None) };
    if boot().doing("read", Path::new(BOOT))? != boot_id {
        return Ok(None);
    }
    Ok(Some(Launch { number, process: examine(&named)? }))
}

/// The process that is named, if it runs.
fn examine(named: &Stat) -> Result<Option<Process>> {
    let Some(pid) = Pid::from_raw(named.pid) else { return Ok(None) };
    let dir = format!("/proc/{}", named.pid);
    // From here on the descriptor stands for one process, whichever it is.
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(e) => return Err(Error::io("open the process", Path::new(&dir), e.into())),
    };
    if named.now(&dir)?.is_none() {
        return Ok(None);
    }
    let exe = format!("{dir}/exe");
    let begun = Instant::now();
    // Between its birth and its exec it is still the program that gave birth to it, as we are.
    while fs::read_link(&exe).is_ok_and(|path| fs::read_link("/proc/self/exe").is_ok_and(|own| own == path))
        && begun.elapsed() < BIRTH
    {
        thread::sleep(AGAIN);
    }
    let digest = File::open(&exe).and_then(|file| Digest::of_reader(Algorithm::Sha256, file));
    // A process that has ended meanwhile has no such file any more.
    let Some(now) = named.now(&dir)? else { return Ok(None) };
    let sha256 = digest.doing("read", Path::new(&exe))?;
    let is_child = now.parent == getpid().as_raw_pid();
    Ok(Some(Process { pid, pidfd, sha256, age: named.age()?, is_child }))
}

const BOOT: &str = "/proc/sys/kernel/random/boot_id";

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string(BOOT)?.trim().to_owned())
}

/// The number, the boot, and the line of `stat`.
fn parts(text: &str) -> Option<(u64, &str, &str)> {
    let (number, rest) = text.split_once(' ')?;
    let (boot, stat) = rest.split_once(' ')?;
    Some((number.parse().ok()?, boot, stat))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::children;
    use crate::home::lock::NodeLock;
    use crate::sys::{Birth, at_birth};
    use rustix::process::Signal;
    use std::process::Command;

    #[test]
    fn a_launch_names_itself_before_its_exec_and_is_known_again() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        fs::create_dir_all(home.state()).unwrap();
        assert!(last(&home).unwrap().is_none());
        let lock = NodeLock::try_acquire(&home).unwrap().unwrap();
        assert!(last(&home).unwrap().is_none(), "an empty lock names none");
        let mut command = Command::new("/bin/sleep");
        command.arg("1000");
        let birth = Birth { inherit: vec![lock.into_fd()], note: Some(note(7).unwrap()), ..Birth::default() };
        at_birth(&mut command, birth);
        let mut child = children::spawn(&mut command).unwrap();
        drop(command);
        let launch = last(&home).unwrap().unwrap();
        let process = launch.process.unwrap();
        assert_eq!((launch.number, process.pid), (7, child.pid()));
        let sleep = File::open("/bin/sleep").unwrap();
        assert_eq!(process.sha256, Digest::of_reader(Algorithm::Sha256, sleep).unwrap());
        assert!(process.is_child);
        assert_eq!(process.args(), ["1000"]);
        assert!(process.age < Duration::from_secs(60), "{:?}", process.age);
        child.signal(Signal::KILL).unwrap();
        let mut ended = [rustix::event::PollFd::new(&process.pidfd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut ended, None).unwrap();
        assert!(
            last(&home).unwrap().unwrap().process.is_none(),
            "a process that was not waited for is no node"
        );
        child.try_wait().unwrap().unwrap();
        let launch = last(&home).unwrap().unwrap();
        assert!(launch.number == 7 && launch.process.is_none());
    }

    #[test]
    fn another_boot_or_another_start_is_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        fs::create_dir_all(home.state()).unwrap();
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let started = Stat::parse(&stat).unwrap().started;
        let found = |text: String| {
            fs::write(home.node_lock(), text).unwrap();
            last(&home).unwrap()
        };
        let other = stat.replace(&format!(" {started} "), &format!(" {} ", started + 1));
        assert!(found(format!("1 {} {other}", boot().unwrap())).unwrap().process.is_none());
        assert!(found(format!("1 another-boot {stat}")).is_none(), "a power cut may have brought it back");
    }
}
