//! The post-upgrade hook: what an operator wants done when an upgrade has proved itself.
//!
//! Nothing waits for it and nothing depends on it: a failure is reported and that is all. It runs at most
//! once, beside the node, in a thread of its own. When the supervisor ends, so does the hook. A hook of a later upgrade
//! waits for the end of it and of what it has started.

use super::worker::Context;
use crate::machine::{Attempt, HookEnd};
use crate::upgrade::hook::When;
use crate::upgrade::{Cancel, history, hook};
use std::path::Path;
use std::thread::{self, JoinHandle};

/// The hooks that run.
#[derive(Debug, Default)]
pub(super) struct Afterwards {
    running: Vec<(Cancel, JoinHandle<()>)>,
}

impl Afterwards {
    /// Runs the post-upgrade hook of an upgrade, if it has one.
    pub(super) fn begin(&mut self, context: Context, progress: Attempt) {
        let Some(program) = hook::post_upgrade(&context.home, &progress.name) else { return };
        self.running.retain(|(_, thread)| !thread.is_finished());
        let begun = Cancel::new().and_then(|cancel| {
            let token = cancel.clone();
            let body = move || run(&program, &context, &progress, &token);
            Ok((cancel, thread::Builder::new().name("post-upgrade".to_owned()).spawn(body)?))
        });
        match begun {
            Ok(hook) => self.running.push(hook),
            Err(e) => log::error!("event=post_upgrade_not_begun {e}"),
        }
    }

    /// Whether a hook still runs.
    pub(super) fn are_running(&self) -> bool {
        self.running.iter().any(|(_, thread)| !thread.is_finished())
    }

    /// Ends the hooks that still run, and waits for their end.
    pub(super) fn end(self) {
        for (cancel, _) in &self.running {
            cancel.cancel();
        }
        for (_, thread) in self.running {
            // A panic in it was reported by the thread itself.
            let _ = thread.join();
        }
    }
}

fn run(program: &Path, context: &Context, progress: &Attempt, cancel: &Cancel) {
    let occasion =
        hook::Occasion { name: &progress.name, height: progress.height, info: progress.info.as_deref() };
    let timeout = context.config.daemon_preupgrade_timeout;
    let (event, text) = match hook::call(program, &context.home, When::After, occasion, timeout, cancel) {
        HookEnd::Continue => ("post_upgrade_done", format!("name={}", progress.name)),
        HookEnd::Abort(said) | HookEnd::Retry(said) => (
            "post_upgrade_failed",
            format!("name={} it can neither abort nor be retried: {said}", progress.name),
        ),
        HookEnd::Failed(failure) => ("post_upgrade_failed", format!("name={} {failure}", progress.name)),
    };
    let level = if event == "post_upgrade_done" { log::Level::Info } else { log::Level::Error };
    log::log!(level, "event={event} {text}");
    if let Err(e) =
        history::append(&context.home, &history::Entry::new(event, Some(&progress.name), None, text))
    {
        log::warn!("event=history_not_written {e}");
    }
}
