//! `upgrade wait`: until one upgrade has ended, for better or worse.

use super::{Deadline, Heard, LOOK, unanswered};
use crate::cli::{print, show};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::machine::Outcome;
use crate::name::Name;
use std::thread;
use std::time::Duration;

/// Waits until an upgrade is applied.
///
/// # Errors
/// [`Kind::Failed`] if it has ended otherwise, [`Kind::Halted`] if the operator must decide, [`Kind::NotMet`] when the time
/// is over, [`Kind::NotFound`] if it is neither planned nor known, [`Kind::Unreachable`] if nothing will happen because no
/// supervisor runs.
pub(in crate::cli) fn upgrade(
    config: &Config,
    home: &Home,
    name: &Name,
    timeout: Option<Duration>,
) -> Result<()> {
    let deadline = Deadline::after(timeout);
    let mut heard = Heard::nothing_yet();
    let mut was_known = false;
    loop {
        match show::current(config, home) {
            Ok(status) => {
                let view = &status.view;
                if let Some(reason) = &view.halted {
                    return Err(Error::new(Kind::Halted, reason.clone()));
                }
                let planned = view.planned.iter().find(|plan| plan.name == *name);
                let under_way = view.upgrade.as_ref().filter(|attempt| attempt.name == *name);
                let now = match (under_way, planned) {
                    (Some(attempt), _) => format!("it is under way: {}", show::stage(attempt)),
                    (None, Some(plan)) => plan.why.clone(),
                    // It may have ended before it was planned anew.
                    (None, None) => match view.ended.iter().rfind(|ended| ended.name == *name) {
                        Some(ended) if ended.outcome == Outcome::Applied => {
                            return print(&format!("upgrade {name} is applied\n"));
                        }
                        Some(ended) => {
                            let what = format!("upgrade {name} has ended as {}", ended.outcome);
                            return Err(Error::new(Kind::Failed, what).because(ended.detail.clone()));
                        }
                        None if was_known => {
                            let what = format!("upgrade {name} is not planned any more");
                            return Err(Error::new(Kind::Failed, what));
                        }
                        None => {
                            let what = format!("no upgrade {name} is planned");
                            return Err(
                                Error::new(Kind::NotFound, what).hint("see `wemixvisor upgrade list`")
                            );
                        }
                    },
                };
                was_known = true;
                if status.running {
                    heard = Heard::now();
                } else if heard.is_too_long_ago() || deadline.has_passed() {
                    return Err(unanswered(home));
                }
                if deadline.has_passed() {
                    return Err(Error::new(Kind::NotMet, format!("upgrade {name} has not ended: {now}")));
                }
            }
            Err(e) if heard.is_too_long_ago() || deadline.has_passed() => return Err(e),
            // The supervisor has just begun, or is ending.
            Err(_) => {}
        }
        thread::sleep(deadline.limit(LOOK));
    }
}
