//! Runs a program under ptrace(2), counts the system calls by which it changes something, and breaks it at one of them.
//!
//! One counter runs over all threads of the program and over the processes that it has forked, up to their exec; from
//! then on a child is another program and runs untraced. At the entry of call k, before the kernel has done anything,
//! the program is killed or the call is made to fail.
//!
//! All of it is one thread, because only the thread that attached may trace, and because it waits for its own children
//! only (`__WNOTHREAD`): the other tests of this process have children of their own.

use super::calls::{Call, mutating};
use super::disk::Plug;
use super::registers;
use crate::rig::sim::PATIENCE;
use crate::rig::visor::{send, working_on};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

/// The fault that is injected at one call of the program, counted from 1.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing: the calls are counted.
    None,
    /// It is killed before the call. Its children live on.
    Kill { at: usize },
    /// It is killed before the call, and with it every process that works on this directory.
    KillAll { at: usize, dir: PathBuf },
    /// The power is cut before the call: of its disk, and of every process that works on this directory.
    PowerCut { at: usize, plug: Plug, dir: PathBuf },
    /// The call fails; where it is lasting, so does every later one of the same name.
    Fail { at: usize, errno: Errno, lasting: bool },
    /// The first call of this name on a path that ends so is held at its entry, until the program sends a signal.
    Hold { call: &'static str, on: &'static str },
}

/// The calls by which a signal is sent.
pub(crate) const SIGNALS: [&str; 2] = ["pidfd_send_signal", "kill"];

/// How a program ended, and what it did until then.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Its exit code, or 128 + the signal that ended it.
    pub(crate) code: i32,
    /// The calls by which it wanted to change something, in the order in which they began.
    pub(crate) calls: Vec<Call>,
    /// The calls that were broken.
    pub(crate) hits: Vec<Call>,
}

/// A program that is being traced.
pub(crate) struct Traced {
    tracer: JoinHandle<Outcome>,
    /// Its process id.
    pid: u32,
    is_armed: Arc<AtomicBool>,
    is_holding: Arc<AtomicBool>,
}

impl Traced {
    /// Whether a call is being held.
    pub(crate) fn is_holding(&self) -> bool {
        self.is_holding.load(Ordering::SeqCst)
    }

    /// From now on its calls count; until then none does.
    pub(crate) fn arm(&self) {
        self.is_armed.store(true, Ordering::SeqCst);
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        // It is waited for by the tracer, so that its id is its own until that one has ended.
        if !self.has_ended() {
            send(self.pid, signal);
        }
    }

    /// Waits for its end.
    pub(crate) fn end(self) -> Outcome {
        self.tracer.join().expect("the tracer has said why it failed")
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.tracer.is_finished()
    }
}

/// Starts a program under the tracer. Its two streams go to these files, and it is killed if it takes longer than
/// [`PATIENCE`].
pub(crate) fn start(command: &Command, stdout: File, stderr: File, fault: Fault) -> Traced {
    start_as(command, stdout, stderr, fault, true)
}

/// The same for a program whose calls count once it is armed ([`Traced::arm`]).
pub(crate) fn start_unarmed(command: &Command, stdout: File, stderr: File, fault: Fault) -> Traced {
    start_as(command, stdout, stderr, fault, false)
}

fn start_as(command: &Command, stdout: File, stderr: File, fault: Fault, is_armed: bool) -> Traced {
    let mut shell = held(command);
    shell.stdin(Stdio::piped()).stdout(stdout).stderr(stderr);
    let is_armed = Arc::new(AtomicBool::new(is_armed));
    let is_holding = Arc::new(AtomicBool::new(false));
    let (flags, (started, pid)) = ([is_armed.clone(), is_holding.clone()], channel());
    let tracer = std::thread::spawn(move || trace(shell, fault, flags, &started));
    Traced { pid: pid.recv().expect("the tracer has said why it failed"), tracer, is_armed, is_holding }
}

/// Whether this process may trace its children. Where it may not, a rig proves nothing and says so.
pub(crate) fn is_permitted() -> bool {
    static PERMITTED: OnceLock<bool> = OnceLock::new();
    *PERMITTED.get_or_init(|| {
        let attempt = || {
            let mut child = Command::new(SHELL).args(["-c", "read go"]).stdin(Stdio::piped()).spawn().ok()?;
            let pid = Pid::from_raw(i32::try_from(child.id()).ok()?);
            let permitted = ptrace::seize(pid, Options::PTRACE_O_EXITKILL);
            let _ = child.kill();
            let _ = child.wait();
            permitted.ok()
        };
        // A thread of its own, so that nothing stays attached to this one.
        let permitted = std::thread::spawn(move || attempt().is_some()).join().unwrap_or(false);
        if !permitted {
            eprintln!("SKIPPED: ptrace is not permitted here, so nothing is broken on purpose");
        }
        permitted
    })
}

/// The program that holds a command back until it is traced.
const SHELL: &str = "/bin/sh";

fn is_shell(process: Pid) -> bool {
    fs::read_link(format!("/proc/{process}/exe")).ok() == fs::canonicalize(SHELL).ok()
}

/// The command behind a shell that waits for a line before it executes it.
fn held(command: &Command) -> Command {
    let mut shell = Command::new(SHELL);
    shell.args(["-c", "read go; exec \"$@\" </dev/null", "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(dir) = command.get_current_dir() {
        shell.current_dir(dir);
    }
    shell
}

#[expect(clippy::zombie_processes, reason = "the tracer waits for all that it traces")]
fn trace(mut shell: Command, fault: Fault, flags: [Arc<AtomicBool>; 2], started: &Sender<u32>) -> Outcome {
    let child = shell.spawn().unwrap();
    started.send(child.id()).expect("the thread that started this one waits");
    drop(shell);
    let root = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let follow = Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK;
    let options =
        follow | Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL;
    ptrace::seize(root, options).unwrap();
    // Attaching does not stop it.
    ptrace::interrupt(root).unwrap();
    child.stdin.as_ref().unwrap().write_all(b"\n").unwrap();
    let (is_over, over) = channel();
    let pid = child.id();
    let watchdog = std::thread::spawn(move || ends_in_time(pid, &over));
    let outcome = Tracer::new(root, fault, flags).follow();
    drop(is_over);
    assert!(watchdog.join().unwrap(), "it did not end: {:?}", outcome.calls.last());
    outcome
}

/// Kills a program that hangs, so that it is the end of one test only.
fn ends_in_time(pid: u32, over: &Receiver<()>) -> bool {
    let in_time = over.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout);
    if !in_time {
        send(pid, rustix::process::Signal::KILL);
    }
    in_time
}

struct Tracer {
    /// The process that is counted and broken.
    root: Pid,
    fault: Fault,
    /// Whether the shell has become the program.
    has_begun: bool,
    /// Whether the program was killed or has ended: what else is traced is let go.
    is_over: bool,
    /// Whether calls count.
    is_armed: Arc<AtomicBool>,
    /// Whether a call is being held, and the thread that makes it.
    is_holding: Arc<AtomicBool>,
    held: Option<Pid>,
    threads: HashMap<Pid, Thread>,
    calls: Vec<Call>,
    hits: Vec<Call>,
    code: Option<i32>,
}

/// A thread that is traced.
struct Thread {
    process: Pid,
    /// Whether it is between the entry and the exit of a call.
    is_inside: bool,
    /// The error that its call returns.
    fails: Option<Errno>,
}

impl Tracer {
    fn new(root: Pid, fault: Fault, [is_armed, is_holding]: [Arc<AtomicBool>; 2]) -> Tracer {
        let (has_begun, is_over, code) = (false, false, None);
        Tracer {
            root,
            fault,
            has_begun,
            is_over,
            is_armed,
            is_holding,
            held: None,
            threads: HashMap::new(),
            calls: Vec::new(),
            hits: Vec::new(),
            code,
        }
    }

    /// Follows it until nothing is traced any more.
    fn follow(mut self) -> Outcome {
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                Ok(status) => self.handle(status),
                Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => break,
                Err(e) => panic!("wait for what is traced: {e}"),
            }
        }
        let code = self.code.expect("the program was waited for");
        Outcome { code, calls: self.calls, hits: self.hits }
    }

    fn handle(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::Exited(thread, code) => self.ended(thread, code),
            WaitStatus::Signaled(thread, signal, _) => self.ended(thread, 128 + signal as i32),
            WaitStatus::PtraceSyscall(thread) => self.at_call(thread),
            WaitStatus::PtraceEvent(thread, _, libc::PTRACE_EVENT_EXEC) => self.at_exec(thread),
            // A new thread or process is stopped here, and so is the one that has made it.
            WaitStatus::PtraceEvent(thread, _, _) => self.go_on(thread, None),
            WaitStatus::Stopped(thread, signal) => self.go_on(thread, Some(signal)),
            other => panic!("{other:?} was not asked for"),
        }
    }

    fn ended(&mut self, thread: Pid, code: i32) {
        self.threads.remove(&thread);
        if thread == self.root {
            (self.code, self.is_over) = (Some(code), true);
        }
    }

    /// Lets a thread run to its next call; one that is not the program's runs free once the program is over.
    fn go_on(&mut self, thread: Pid, signal: Option<Signal>) {
        let root = self.root;
        let is_ours = self.thread(thread).process == root;
        // It may have been killed in the meantime, which the next wait says.
        let _ = if self.is_over && !is_ours {
            self.threads.remove(&thread);
            ptrace::detach(thread, signal)
        } else {
            ptrace::syscall(thread, signal)
        };
    }

    fn thread(&mut self, thread: Pid) -> &mut Thread {
        self.threads.entry(thread).or_insert_with(|| Thread {
            process: process_of(thread),
            is_inside: false,
            fails: None,
        })
    }

    /// Another program begins in a process, and its other threads are gone.
    fn at_exec(&mut self, leader: Pid) {
        self.threads.retain(|thread, known| *thread == leader || known.process != leader);
        // The call that began this ends later.
        self.thread(leader).is_inside = true;
        if leader == self.root {
            // The shell's own exec may come as late as this.
            self.has_begun |= !is_shell(leader);
            self.go_on(leader, None);
        } else {
            self.threads.remove(&leader);
            let _ = ptrace::detach(leader, None);
        }
    }

    fn at_call(&mut self, thread: Pid) {
        let known = self.thread(thread);
        known.is_inside = !known.is_inside;
        if known.is_inside {
            self.enters(thread);
        } else if let Some(errno) = known.fails.take() {
            registers::set_error(thread, errno);
        }
        if self.held != Some(thread) {
            self.go_on(thread, None);
        }
    }

    fn enters(&mut self, thread: Pid) {
        let Some((number, args)) = registers::call(thread) else { return };
        if !self.has_begun || self.is_over || !self.is_armed.load(Ordering::SeqCst) {
            return;
        }
        let Some(call) = mutating(thread, number, args) else { return };
        self.calls.push(call.clone());
        let now = self.calls.len();
        match &self.fault {
            Fault::Kill { at } if *at == now => {
                self.hits.push(call);
                self.kill();
            }
            Fault::KillAll { at, dir } if *at == now => {
                self.hits.push(call);
                let all = working_on(dir);
                self.kill();
                all.into_iter().for_each(|pid| send(pid, rustix::process::Signal::KILL));
            }
            Fault::PowerCut { at, plug, dir } if *at == now => {
                self.hits.push(call);
                plug.pull();
                let all = working_on(dir);
                self.kill();
                all.into_iter().for_each(|pid| send(pid, rustix::process::Signal::KILL));
            }
            Fault::Fail { at, errno, lasting } => {
                let is_again = *lasting && self.hits.iter().any(|hit| hit.number == number);
                if *at == now || is_again {
                    registers::void(thread);
                    let errno = *errno;
                    self.thread(thread).fails = Some(errno);
                    self.hits.push(call);
                }
            }
            Fault::Hold { .. } if SIGNALS.contains(&call.name) => {
                if let Some(held) = self.held.take() {
                    self.is_holding.store(false, Ordering::SeqCst);
                    self.go_on(held, None);
                }
            }
            Fault::Hold { call: name, on } if self.hits.is_empty() && call.is(name, on) => {
                self.held = Some(thread);
                self.is_holding.store(true, Ordering::SeqCst);
                self.hits.push(call);
            }
            Fault::None
            | Fault::Kill { .. }
            | Fault::KillAll { .. }
            | Fault::PowerCut { .. }
            | Fault::Hold { .. } => {}
        }
    }

    /// A call whose thread is killed at its entry is not made.
    fn kill(&mut self) {
        self.is_over = true;
        nix::sys::signal::kill(self.root, Signal::SIGKILL).unwrap();
    }
}

/// The process that a thread belongs to.
fn process_of(thread: Pid) -> Pid {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let id = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    id.map_or(thread, Pid::from_raw)
}

/// Makes two directories in a new one, with a fault.
fn mkdir(fault: Fault) -> (Outcome, Vec<bool>) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("/bin/mkdir");
    command.args(["a", "a/b"]).current_dir(dir.path());
    let stream = || tempfile::tempfile().unwrap();
    let outcome = start(&command, stream(), stream(), fault).end();
    let made = ["a", "a/b"].map(|name| dir.path().join(name).exists()).to_vec();
    (outcome, made)
}

#[test]
fn a_call_is_not_made_when_it_is_broken() {
    if !is_permitted() {
        return;
    }
    let (whole, made) = mkdir(Fault::None);
    let names = |outcome: &Outcome| outcome.calls.iter().map(ToString::to_string).collect::<Vec<_>>();
    let is_mkdir = |call: &Call| call.name.starts_with("mkdir");
    assert!(whole.calls.iter().all(is_mkdir), "{:?}", names(&whole));
    assert_eq!((whole.code, whole.calls.len(), whole.calls[1].on.last().unwrap().as_str()), (0, 2, "a/b"));
    assert_eq!(made, [true, true]);

    let (killed, made) = mkdir(Fault::Kill { at: 2 });
    assert_eq!((killed.code, killed.calls.len(), made), (128 + 9, 2, vec![true, false]));

    let (failed, made) = mkdir(Fault::Fail { at: 2, errno: Errno::ENOSPC, lasting: false });
    assert_eq!(
        (failed.code, failed.hits.first().map(|hit| hit.on.clone())),
        (1, Some(vec!["a/b".to_owned()]))
    );
    assert_eq!(made, [true, false]);
    let (failed, made) = mkdir(Fault::Fail { at: 1, errno: Errno::EIO, lasting: true });
    assert_eq!((failed.code, made), (1, vec![false, false]));
}
