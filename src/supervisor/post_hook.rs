//! The post-upgrade hook: the operator's program for an upgrade that has proved itself.
//!
//! Nothing waits for it and nothing depends on it: a failure is only reported. It runs at most once, beside the node, in a
//! thread of its own. When the supervisor ends, so does the hook. The hook of a later upgrade waits for its end, and for
//! that of all processes that it has started.

use super::worker::Context;
use crate::machine::{Attempt, HookEnd};
use crate::upgrade::hook::{Hook, When};
use crate::upgrade::{Cancel, history, hook};
use crossbeam_channel::Sender;
use std::path::Path;
use std::thread::{self, JoinHandle};

/// The hooks that run.
#[derive(Debug)]
pub(super) struct PostHooks {
    running: Vec<(Cancel, JoinHandle<()>)>,
    ended: Sender<()>,
}

impl PostHooks {
    /// No hook yet; the end of each goes to `ended`.
    pub(super) fn new(ended: Sender<()>) -> PostHooks {
        PostHooks { running: Vec::new(), ended }
    }

    /// Runs the post-upgrade hook of an upgrade. Where there is none it has ended at once.
    pub(super) fn begin(&mut self, context: Context, progress: Attempt) {
        // Reports the end in every case, also where the thread cannot be started.
        let end = End(self.ended.clone());
        let configured = context.config.daemon_postupgrade.as_deref();
        let Some(program) = hook::post_upgrade(&context.home, &progress.name, configured) else { return };
        self.running.retain(|(_, thread)| !thread.is_finished());
        let begun = Cancel::new().and_then(|cancel| {
            let token = cancel.clone();
            let body = move || {
                run(&program, &context, &progress, &token);
                drop(end);
            };
            Ok((cancel, thread::Builder::new().name("post-upgrade".to_owned()).spawn(body)?))
        });
        match begun {
            Ok(hook) => self.running.push(hook),
            Err(e) => log::error!("event=post_upgrade_not_begun {e}"),
        }
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

/// Reports the end of a hook when it is dropped.
struct End(Sender<()>);

impl Drop for End {
    fn drop(&mut self) {
        // A loop that has ended needs no report.
        let _ = self.0.send(());
    }
}

fn run(program: &Path, context: &Context, progress: &Attempt, cancel: &Cancel) {
    let hook = Hook {
        path: program,
        home: &context.home,
        when: When::After,
        occasion: progress.into(),
        timeout: context.config.daemon_preupgrade_timeout,
    };
    let (event, text) = match hook.call(cancel) {
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
