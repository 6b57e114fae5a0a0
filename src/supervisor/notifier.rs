//! The operator's program for events: run beside everything else, once for each event, with the event as JSON on its
//! standard input.
//!
//! Nothing waits for it and nothing depends on it. What it cannot take is dropped and counted: the loop hands an event over
//! or does not, and the end of the supervisor waits for no longer than one event may take.

use super::threads::start_thread;
use super::worker::Context;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::exit::Exit;
use crate::machine::{Level, Notice, Outcome};
use crate::printable::printable_json;
use crate::time::rfc3339;
use crate::upgrade::counters::{NOTIFY_DROPPED, NOTIFY_FAILURES};
use crate::upgrade::run::{self, End, Program};
use crate::upgrade::{Cancel, hook};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

/// The events by their stable names, each with the notices that it stands for. `upgrade_ended` stands for several:
/// [`event_of`].
const EVENTS: [(&str, &[&str]); 13] = [
    ("upgrade_known", &["upgrade_known"]),
    ("upgrade_ready", &["upgrade_ready"]),
    (
        "upgrade_not_ready",
        &["upgrade_not_ready", "upgrade_unfit", "upgrade_changed_on_disk", "upgrade_overdue"],
    ),
    ("upgrade_due", &["upgrade_due"]),
    (
        "upgrade_held",
        &["gates_hold", "backup_not_possible", "rehearsal_failed", "upgrade_put_off", "upgrade_set_back"],
    ),
    ("stopping", &["signal_sent"]),
    ("switched", &["switched"]),
    ("halted", &["halted"]),
    ("node_restarted", &["restarting", "attempt_failed"]),
    ("chain_still", &["chain_stands_still", "frozen", "frozen_at_fork"]),
    ("deadline_passed", &["deadline_passed"]),
    ("duplicate_signer", &["duplicate_signer"]),
    ("supervisor_adopted", &["adopted"]),
];

/// Events of a state that lasts, of which the program reports again and again. The others each report a step.
const LASTING: [&str; 6] = [
    "upgrade_not_ready",
    "upgrade_held",
    "node_restarted",
    "chain_still",
    "deadline_passed",
    "duplicate_signer",
];

/// The version of the JSON.
const SCHEMA: u32 = 1;
/// Events that wait for the program; more are dropped.
const WAITING: usize = 64;
/// An event that lasts is not repeated for the same upgrade within this time.
const REPEAT: Duration = Duration::from_secs(600);
/// Events of level info beyond the first [`BURST`] in a row come no closer than this; others are dropped.
const APART: Duration = Duration::from_secs(10);
const BURST: u32 = 30;
/// The longest text, in characters.
const LONGEST: usize = 2000;
/// The time for all events that wait when the supervisor ends, unless the operator must come.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long the program has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_millis(200);

/// The event that a notice stands for, if it stands for one; `ended` is the outcome of the upgrade that ended last.
pub(super) fn event_of(notice: &str, ended: Option<Outcome>) -> Option<&'static str> {
    if notice == "upgrade_ended" {
        return ended.map(|outcome| match outcome {
            Outcome::Applied => "applied",
            Outcome::Failed | Outcome::Aborted => "failed",
            Outcome::RolledBack => "rolled_back",
        });
    }
    EVENTS.iter().find(|(_, notices)| notices.contains(&notice)).map(|(event, _)| *event)
}

/// An event.
#[derive(Debug, Clone)]
pub(super) struct News {
    pub(super) event: &'static str,
    pub(super) notice: Notice,
    /// The directory of the version that runs, or is about to.
    pub(super) version: String,
    pub(super) height: Option<u64>,
    pub(super) upgrade: Option<String>,
}

impl News {
    fn json(&self, home: &str) -> String {
        let level = match self.notice.level {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
        };
        let text: String = self.notice.text.chars().take(LONGEST).collect();
        let News { event, version, height, upgrade, .. } = self;
        let event = json!({
            "schema": SCHEMA, "event": event, "level": level, "time": rfc3339(SystemTime::now()), "home": home,
            "version": version, "height": height, "upgrade": upgrade, "text": text,
        });
        printable_json(&event.to_string()) + "\n"
    }
}

/// The configuration of the moment, the event, and its JSON.
type Order = (Context, &'static str, String);

/// The handle of the thread.
pub(super) struct Notifier {
    orders: Sender<Order>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
    cancel: Cancel,
    limits: Limits,
}

impl Notifier {
    /// Starts the thread.
    ///
    /// # Errors
    /// If no thread or no descriptor can be had.
    pub(super) fn start() -> Result<Notifier> {
        let (orders, waiting) = bounded::<Order>(WAITING);
        let (ends, ended) = bounded::<()>(0);
        let cancel = Cancel::new().map_err(|e| Error::new(Kind::Io, "make an event").because(e))?;
        let token = cancel.clone();
        start_thread("notifier", move || {
            for (context, event, json) in &waiting {
                if let Err(why) = notify(&context, &json, &token) {
                    NOTIFY_FAILURES.add(1);
                    log::warn!("event=notify_failed of={event} {why}");
                }
            }
            drop(ends);
        })?;
        Ok(Notifier { orders, ended, cancel, limits: Limits::default() })
    }

    /// Hands an event over, if a program is configured and the limits allow it. It never waits.
    pub(super) fn tell(&mut self, context: &Context, news: News) {
        if context.config.notify_command.program().is_none() {
            return;
        }
        let is_taken = match self.limits.judge(Instant::now(), &news) {
            Verdict::Repeated => return,
            Verdict::TooMany => false,
            Verdict::Send => {
                let json = news.json(&context.home.root().to_string_lossy());
                self.orders.try_send((context.clone(), news.event, json)).is_ok()
            }
        };
        NOTIFY_DROPPED.add(u64::from(!is_taken));
    }

    /// Gives the events that wait their time, then ends the program that runs. Where the operator must come, no start waits
    /// for that; any other supervisor may be followed by another, whose node is down until then.
    pub(super) fn end(self, config: &Config, exit: Exit) {
        let time =
            if exit == Exit::Halted { config.notify_timeout } else { config.notify_timeout.min(LAST_WORDS) };
        let Notifier { orders, ended, cancel, .. } = self;
        drop(orders);
        if let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(time) {
            cancel.cancel();
            let _ = ended.recv_timeout(GRACE * 2);
        }
    }
}

/// Runs the program for one event.
fn notify(context: &Context, json: &str, cancel: &Cancel) -> std::result::Result<(), String> {
    let Context { config, home, .. } = context;
    let Some(path) = config.notify_command.program() else { return Ok(()) };
    hook::check(home, path).map_err(|e| e.to_string())?;
    let args: Vec<&str> = config.notify_command.0[1..].iter().map(String::as_str).collect();
    let program = Program {
        inherit: true,
        input: Some(json),
        env: vec![("DAEMON_HOME", home.root().into()), ("DAEMON_NAME", home.daemon().into())],
        ..Program::bare(path, &args, home.root(), config.notify_timeout, GRACE)
    };
    let ran = run::run(&program, cancel).map_err(|e| e.to_string())?;
    let how = match ran.end {
        End::Exited(0) => return Ok(()),
        End::Exited(code) => format!("exit code {code}"),
        End::Signalled(signal) => format!("signal {signal}"),
        End::TimedOut => format!("took longer than {} s", config.notify_timeout.as_secs()),
        End::Cancelled => "there was no time left for it".to_owned(),
    };
    Err(format!("{how}: {}", ran.last_words()))
}

/// The limits on how many events are sent.
#[derive(Debug, Default)]
struct Limits {
    /// When each event was sent, of the last [`REPEAT`].
    sent: BTreeMap<(&'static str, Option<String>), Instant>,
    /// When the next event of level info would be due if they came evenly.
    even: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Send,
    /// It was sent a short while ago.
    Repeated,
    TooMany,
}

impl Limits {
    fn judge(&mut self, now: Instant, news: &News) -> Verdict {
        self.sent.retain(|_, at| now < *at + REPEAT);
        let key = (news.event, news.upgrade.clone());
        if LASTING.contains(&news.event) && self.sent.contains_key(&key) {
            return Verdict::Repeated;
        }
        if news.notice.level == Level::Info {
            let even = self.even.map_or(now, |even| even.max(now));
            if even > now + APART * (BURST - 1) {
                return Verdict::TooMany;
            }
            self.even = Some(even + APART);
        }
        self.sent.insert(key, now);
        Verdict::Send
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(event: &'static str, level: Level, upgrade: &str) -> News {
        let notice = Notice { level, event, text: "name=v2 why=\"\u{1b}[2J\"".to_owned(), history: false };
        let upgrade = Some(upgrade.to_owned());
        News { event, notice, version: "genesis".to_owned(), height: Some(7), upgrade }
    }

    #[test]
    fn every_notice_that_an_event_stands_for_is_one_of_the_program() {
        let sources = ["src/machine", "src/supervisor"].map(|dir| {
            let files =
                std::fs::read_dir(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)).unwrap();
            let paths = files.map(|file| file.unwrap().path()).filter(|path| !path.ends_with("notifier.rs"));
            paths.filter_map(|path| std::fs::read_to_string(path).ok()).collect::<String>()
        });
        let sources = sources.concat();
        for notice in EVENTS.iter().flat_map(|(_, notices)| *notices).chain(&["upgrade_ended"]) {
            assert!(sources.contains(&format!("\"{notice}\"")), "no notice {notice}");
        }
        for event in LASTING {
            assert!(EVENTS.iter().any(|(known, _)| *known == event), "no event {event}");
        }
        assert_eq!(event_of("upgrade_ended", Some(Outcome::RolledBack)), Some("rolled_back"));
        assert_eq!(event_of("frozen_at_fork", None), Some("chain_still"));
        assert_eq!(event_of("node_started", None), None);
    }

    #[test]
    fn an_event_is_one_line_of_json_that_acts_on_no_terminal() {
        let line = news("halted", Level::Error, "v2").json("/h\u{9b}");
        assert!(line.ends_with("}\n") && !line.trim_end().chars().any(char::is_control), "{line:?}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        for (key, wanted) in [
            ("schema", json!(1)),
            ("event", json!("halted")),
            ("level", json!("error")),
            ("home", json!("/h\u{9b}")),
            ("version", json!("genesis")),
            ("height", json!(7)),
            ("upgrade", json!("v2")),
            ("text", json!("name=v2 why=\"\u{1b}[2J\"")),
        ] {
            assert_eq!(value[key], wanted, "{key}");
        }
        assert!(value["time"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn an_event_is_repeated_after_ten_minutes_and_many_small_ones_are_too_many() {
        let mut limits = Limits::default();
        let begun = Instant::now();
        let still = news("chain_still", Level::Warn, "v2");
        assert_eq!(limits.judge(begun, &still), Verdict::Send);
        assert_eq!(limits.judge(begun + REPEAT - APART, &still), Verdict::Repeated);
        assert_eq!(limits.judge(begun, &news("chain_still", Level::Warn, "v3")), Verdict::Send);
        assert_eq!(limits.judge(begun + REPEAT, &still), Verdict::Send);
        // Each try of an upgrade is told of.
        let failed = news("failed", Level::Error, "v2");
        assert_eq!(
            [limits.judge(begun, &failed), limits.judge(begun, &failed)],
            [Verdict::Send, Verdict::Send]
        );
        let known = |n: u32| news("upgrade_known", Level::Info, &format!("u{n}"));
        let sent = (0..1000).filter(|n| limits.judge(begun, &known(*n)) == Verdict::Send).count();
        assert_eq!(sent, BURST as usize);
        assert_eq!(limits.judge(begun + APART, &known(2000)), Verdict::Send);
        assert_eq!(limits.judge(begun + APART, &known(2001)), Verdict::TooMany);
        assert_eq!(
            limits.judge(begun, &news("halted", Level::Error, "u1")),
            Verdict::Send,
            "an error always is"
        );
    }
}
