//! The part of the configuration that the machine decides by.

use super::keys::Config;
use super::value::{BackupMethod, HeightSource, Rehearse, SignAfterUnclean, StopTimeoutAction};
use crate::machine::{Policy, StopTimeout};

impl Config {
    /// The operator's choices, as the machine decides by them.
    pub(crate) fn policy(&self) -> Policy {
        Policy {
            restart_after_upgrade: self.daemon_restart_after_upgrade,
            restart_delay: self.daemon_restart_delay,
            restart_on_failure: self.daemon_restart_on_failure,
            max_restarts: self.daemon_max_restarts,
            poll_interval: self.daemon_poll_interval,
            watch_height: self.daemon_height_source == HeightSource::Rpc,
            shutdown_grace: self.daemon_shutdown_grace,
            stop_timeout: match self.daemon_stop_timeout_action {
                StopTimeoutAction::Wait => StopTimeout::Wait,
                StopTimeoutAction::Abort => StopTimeout::Abort,
                StopTimeoutAction::Kill => StopTimeout::Kill,
            },
            start_timeout: self.daemon_start_timeout,
            probation_blocks: self.daemon_probation_blocks,
            probation_time: self.daemon_probation_time,
            backup: self.makes_backups(),
            backup_ahead: self.daemon_backup_ahead,
            backups_age: self.daemon_backup_max_age.is_some(),
            hook_retries: self.daemon_preupgrade_max_retries,
            validator: self.validator_mode,
            shortest_period: self.block_period,
            silent_after_unclean: self.sign_after_unclean == SignAfterUnclean::Wait,
            sign_wait: self.sign_wait_timeout,
            rehearse: self.daemon_rehearse == Rehearse::BeforeUpgrade,
        }
    }

    /// Whether backups are made at all.
    pub(crate) fn makes_backups(&self) -> bool {
        !self.unsafe_skip_backup && self.daemon_backup_method != BackupMethod::None
    }
}

#[cfg(test)]
impl Default for Policy {
    fn default() -> Self {
        Config::defaults(std::path::Path::new("/h")).policy()
    }
}
