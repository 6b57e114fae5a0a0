//! A supervisor at work, killed before a call that changes something: alone at every odd call, together with its node
//! at every even one. The next supervisor ends what was begun as if nothing had happened, with one node.
//!
//! A [`Flow`] says what is begun, when it is over, and what has to hold then.

use super::settings::Settings;
use super::trace::{self, Fault, Outcome, Traced, is_permitted};
use crate::rig::server::Server;
use crate::rig::sim::until;
use crate::rig::visor::{Rig, is_alive, working_on};
use serde_json::Value;
use std::fs::{self, File};
use std::path::PathBuf;
use wemixvisor::inside::journal::Journal;
use wemixvisor::inside::sweep;

/// Supervisors that are killed at the same time.
const AT_ONCE: usize = 4;

/// The work of a supervisor during which it is killed.
pub(super) struct Flow {
    /// Its name in `RIG_CASE`.
    pub(super) name: &'static str,
    /// Lays out the home, up to the start of the program that is killed.
    pub(super) scene: fn() -> Scene,
    /// The words of that program, where it is no supervisor.
    pub(super) words: Option<&'static [&'static str]>,
    /// Has it do its work, and end.
    pub(super) drive: fn(&Run<'_>),
    /// Whether the work is done, as the next supervisor sees it.
    pub(super) is_done: fn(&Value) -> bool,
    /// Checks the home in the end.
    pub(super) check: fn(&Rig, &str),
    /// Whether a node that was not killed goes on as the same process.
    pub(super) node_stays: bool,
    /// Whether the supervisor that recovers is killed as well.
    pub(super) nested: bool,
}

/// A home, and what is needed beside it.
pub(super) struct Scene {
    pub(super) rig: Rig,
    _server: Option<Server>,
    /// Whether the calls before [`Traced::arm`] do not count.
    is_later: bool,
}

impl Scene {
    pub(super) fn new(rig: Rig) -> Scene {
        Scene { rig, _server: None, is_later: false }
    }

    pub(super) fn with(rig: Rig, server: Server) -> Scene {
        Scene { _server: Some(server), ..Scene::new(rig) }
    }

    /// The same, where only the calls after [`Traced::arm`] count.
    pub(super) fn later(rig: Rig) -> Scene {
        Scene { is_later: true, ..Scene::new(rig) }
    }

    fn log(&self) -> PathBuf {
        self.rig.path().join("traced.log")
    }
}

/// A program at work under the tracer.
pub(super) struct Run<'a> {
    pub(super) scene: &'a Scene,
    pub(super) traced: &'a Traced,
}

impl Run<'_> {
    /// Its log.
    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.scene.log()).unwrap_or_default()).into_owned()
    }

    /// Waits until it has logged lines with all of these words, one for each; false if it has ended before.
    pub(super) fn has_logged(&self, lines: &[&[&str]]) -> bool {
        let is_there = |log: &str| {
            lines.iter().all(|words| log.lines().any(|line| words.iter().all(|word| line.contains(word))))
        };
        until(&format!("{lines:?}"), || (self.traced.has_ended() || is_there(&self.log())).then_some(()));
        !self.traced.has_ended()
    }

    /// Waits until an upgrade has ended, as the journal says, because a supervisor that comes after the last record
    /// logs nothing more of it.
    pub(super) fn has_upgraded(&self) -> bool {
        // Without power nothing can be read.
        let home = self.scene.rig.as_home();
        let has_ended = || Journal::read(&home).is_ok_and(|read| !read.record.ended.is_empty());
        until("the end of an upgrade", || (self.traced.has_ended() || has_ended()).then_some(()));
        // Its node is the one to stop.
        self.has_logged(&[&["event=rpc_connected"]])
    }

    /// Waits until it is at rest with a node: the chain is known and bound.
    pub(super) fn is_at_rest(&self) -> bool {
        let rig = &self.scene.rig;
        let is_bound = || rig.as_home().journal().exists() && rig.journal()["chain"].is_object();
        self.has_logged(&[&["event=rpc_connected"], &["event=chain_bound"]])
            && until("the record of the chain", || {
                (self.traced.has_ended() || is_bound()).then_some(is_bound())
            })
    }

    /// Ends it by a command, which is of no use if it has been killed, and has to be repeated if it does not listen yet.
    pub(super) fn end_by(&self, command: &str) {
        until("its end", || {
            if !self.traced.has_ended() {
                self.scene.rig.output(&[command]);
            }
            self.traced.has_ended().then_some(())
        });
    }
}

/// Kills a flow at some of its calls, or at all of them.
pub(super) fn kill(flow: &Flow, reduced: usize) {
    let settings = Settings::new();
    if !is_permitted() || !settings.wants(flow.name) {
        return;
    }
    let count = whole(flow);
    let points = settings.points(count, reduced);
    println!("{}: {count} calls, killed at {}", flow.name, points.len());
    in_turn(&points, AT_ONCE, |at| kill_at(flow, at, count, &settings));
}

/// Does something with each of some points, with a few threads.
pub(super) fn in_turn(points: &[usize], threads: usize, act: impl Fn(usize) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(points.len()) {
            scope.spawn(|| {
                while let Some(at) = points.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    act(*at);
                }
            });
        }
    });
}

/// The number of calls of an uninterrupted run.
fn whole(flow: &Flow) -> usize {
    let scene = (flow.scene)();
    let outcome = start(flow, &scene, Fault::None);
    assert_eq!(outcome.code, 0, "{}", fs::read_to_string(scene.log()).unwrap());
    ends(flow, &scene, false, &format!("{} without a kill", flow.name));
    outcome.calls.len()
}

/// Runs the flow under the tracer, to its end or until it is killed.
pub(super) fn start(flow: &Flow, scene: &Scene, fault: Fault) -> Outcome {
    start_with(flow, scene, fault, &flow.drive)
}

/// The same with another one who drives it.
pub(super) fn start_with(flow: &Flow, scene: &Scene, fault: Fault, drive: &dyn Fn(&Run<'_>)) -> Outcome {
    let rig = &scene.rig;
    let data = rig.data();
    let run = ["run", "--", "--datadir", data.to_str().unwrap(), "--verbosity", "2", "--mine"];
    let command = rig.command(flow.words.unwrap_or(&run));
    let log = File::options().create(true).append(true).open(scene.log()).unwrap();
    let out = File::create(rig.path().join("traced.out")).unwrap();
    let start = if scene.is_later { trace::start_unarmed } else { trace::start };
    let traced = start(&command, out, log, fault);
    drive(&Run { scene, traced: &traced });
    traced.end()
}

fn kill_at(flow: &Flow, at: usize, count: usize, settings: &Settings) {
    let with_node = at.is_multiple_of(2);
    let scene = (flow.scene)();
    let fault =
        |at| if with_node { Fault::KillAll { at, dir: scene.rig.data() } } else { Fault::Kill { at } };
    let outcome = start(flow, &scene, fault(at));
    // A run is never as long as another, so this one may have been over before.
    let Some(hit) = outcome.hits.first() else { return };
    scene.rig.one_was_killed();
    let (whose, replay) = (if with_node { "with its node" } else { "alone" }, settings.replay(flow.name, at));
    let mut what = format!("{}: killed {whose} at call {at} of {count}, {hit}; {replay}", flow.name);
    println!("{what}");
    let told = Told(what.clone());
    if flow.nested {
        // Far apart from run to run, and the same for the same call.
        let second = 1 + at * 7919 % count;
        let outcome = start(flow, &scene, fault(second));
        if let Some(hit) = outcome.hits.first() {
            scene.rig.one_was_killed();
            what = format!("{what}, and again at {second}, {hit}");
        }
    }
    ends(flow, &scene, with_node, &what);
    drop(told);
}

/// The next supervisor ends what was begun.
pub(super) fn ends(flow: &Flow, scene: &Scene, with_node: bool, what: &str) {
    let rig = &scene.rig;
    let mut visor = rig.run();
    visor.wait_status(what, |status| {
        (status["state"] == "running" && !status["head"].is_null() && (flow.is_done)(status)).then_some(())
    });
    // Its process may just be executing its program.
    until(&format!("one node: {what}"), || {
        let nodes = working_on(&rig.data()).into_iter().filter(|pid| *pid != visor.pid());
        let alive: Vec<_> = nodes.filter(|pid| is_alive(*pid)).collect();
        (alive == [visor.node()]).then_some(())
    });
    assert_eq!(rig.traces().overlaps().len(), 0, "{what}");
    let starts = rig.traces().starts();
    assert!(!flow.node_stays || with_node || starts.len() == 1, "{what}: another node: {starts:?}");
    assert_eq!(visor.stop(), 0, "{what}");
    assert!(!rig.journal()["current"].is_null(), "{what}");
    (flow.check)(rig, what);
    // Nothing is swept that the supervisor has not swept.
    let before = temporaries(rig);
    sweep(&rig.as_home()).remove();
    assert_eq!(before, temporaries(rig), "{what}");
}

/// Everything in the home and its backups that looks temporary.
fn temporaries(rig: &Rig) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![rig.home()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.contains("partial") || name.ends_with(".tmp") || name.contains("restoring") {
                found.push(entry.path());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// Names the run where another assertion than one of ours fails.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}", self.0);
        }
    }
}
