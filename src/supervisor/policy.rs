//! The part of the configuration that the machine decides by.

use crate::config::{Config, HeightSource, Rehearse, SignAfterUnclean, StopTimeoutAction};
use crate::machine::{Policy, StopTimeout};
use crate::upgrade::backup::Options;

pub(super) fn policy(config: &Config) -> Policy {
    Policy {
        restart_after_upgrade: config.daemon_restart_after_upgrade,
        restart_delay: config.daemon_restart_delay,
        restart_on_failure: config.daemon_restart_on_failure,
        max_restarts: config.daemon_max_restarts,
        poll_interval: config.daemon_poll_interval,
        watch_height: config.daemon_height_source == HeightSource::Rpc,
        shutdown_grace: config.daemon_shutdown_grace,
        stop_timeout: match config.daemon_stop_timeout_action {
            StopTimeoutAction::Wait => StopTimeout::Wait,
            StopTimeoutAction::Abort => StopTimeout::Abort,
            StopTimeoutAction::Kill => StopTimeout::Kill,
        },
        start_timeout: config.daemon_start_timeout,
        probation_blocks: config.daemon_probation_blocks,
        probation_time: config.daemon_probation_time,
        backup: Options::are_made(config),
        backup_ahead: config.daemon_backup_ahead,
        hook_retries: config.daemon_preupgrade_max_retries,
        validator: config.validator_mode,
        shortest_period: config.block_period,
        silent_after_unclean: config.sign_after_unclean == SignAfterUnclean::Wait,
        sign_wait: config.sign_wait_timeout,
        rehearse: config.daemon_rehearse == Rehearse::BeforeUpgrade,
    }
}
