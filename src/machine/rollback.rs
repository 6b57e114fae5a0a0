//! Whether the old binary may run again after the new one was executed: DESIGN section 6.

use super::record::{Attempt, Phase};
use crate::name::Name;

/// The end of an upgrade whose new binary did not prove itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Run the old binary on the data as it is.
    Old,
    /// Put this upgrade's own backup in place, then run the old binary.
    RestoreThenOld,
    /// No way back: halt for the operator.
    Halt(&'static str),
}

/// The facts about the new binary's time on the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Traces {
    /// The highest head seen since, or at, the stop.
    pub highest: Option<u64>,
    /// Whether the new binary has, or may have, signed a block.
    pub signed: bool,
}

/// The objection to running the old binary when no supervisor has watched the chain since the upgrade was halted.
#[must_use]
pub(super) fn objection(progress: &Attempt, highest: Option<u64>) -> Option<&'static str> {
    // How far the chain is by now can only matter where there is a fork.
    let highest = if progress.fork_height.is_none() { highest.or(Some(0)) } else { None };
    // Where the chain has not proven that a validator's new binary has signed nothing, it may have.
    let signed = progress.signed || progress.sealing != 0;
    match decide(progress, Traces { highest, signed }) {
        Verdict::Halt(why) => Some(why),
        Verdict::Old | Verdict::RestoreThenOld => None,
    }
}

/// The objection to finishing a halted upgrade with the binary that is staged as `name`.
#[must_use]
pub(super) fn objection_to(progress: &Attempt, name: &Name) -> Option<&'static str> {
    if progress.phase == Phase::Reverting {
        Some("the upgrade was on its way back, which `wemixvisor resolve retry` finishes")
    } else if progress.from.target.is(name) {
        Some("that is the old binary; to go back to it: wemixvisor resolve rollback")
    } else {
        None
    }
}

/// Decides by the table of DESIGN section 6. Rows are tried from the most forbidding down.
#[must_use]
pub(super) fn decide(progress: &Attempt, traces: Traces) -> Verdict {
    let Some(highest) = traces.highest else {
        return Verdict::Halt(
            "it is not known how far the chain was, so the old binary may be past the fork",
        );
    };
    if progress.fork_height.is_some_and(|fork| highest >= fork) {
        return Verdict::Halt("the chain is at or past the fork height, where the old binary must not run");
    }
    if traces.signed {
        return Verdict::Halt("the new binary may have signed blocks, so the old one must not run");
    }
    if progress.unclean {
        return Verdict::Halt("the old node ended uncleanly, so its data proves nothing");
    }
    match (progress.data_compat, &progress.backup) {
        (true, _) => Verdict::Old,
        (false, Some(_)) => Verdict::RestoreThenOld,
        (false, None) => Verdict::Halt("the old binary cannot open the new data, and there is no backup"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::machine::{Target, Version};

    /// The third attempt of an upgrade at 100 with a fork at 200.
    pub(in crate::machine) fn progress() -> Attempt {
        Attempt { fork_height: Some(200), phase: Phase::Trying, attempt: 3, ..Attempt::example() }
    }

    #[test]
    fn the_way_on_is_neither_back_nor_the_old_binary() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let from = Version { target: Target::Upgrade(name("v1")), ..progress().from };
        let halted = Attempt { from, ..progress() };
        assert!(objection_to(&halted, &name("v1")).is_some());
        assert_eq!(objection_to(&halted, &name("v2")), None, "its own, mended or not");
        assert_eq!(objection_to(&halted, &name("v3")), None);
        assert!(objection_to(&Attempt { phase: Phase::Reverting, ..halted }, &name("v3")).is_some());
    }

    #[test]
    fn the_table() {
        let traces = |highest, signed| Traces { highest, signed };
        let fine = progress();
        assert_eq!(decide(&fine, traces(Some(199), false)), Verdict::Old);
        assert!(matches!(decide(&fine, traces(Some(200), false)), Verdict::Halt(_)));
        assert!(matches!(decide(&fine, traces(Some(150), true)), Verdict::Halt(_)));
        assert!(matches!(decide(&fine, traces(None, false)), Verdict::Halt(_)));
        let unclean = Attempt { unclean: true, ..progress() };
        assert!(matches!(decide(&unclean, traces(Some(150), false)), Verdict::Halt(_)));
        let incompatible = Attempt { data_compat: false, ..progress() };
        assert!(matches!(decide(&incompatible, traces(Some(150), false)), Verdict::Halt(_)));
        let saved = Attempt { backup: Some("v2-1".into()), ..incompatible };
        assert_eq!(decide(&saved, traces(Some(150), false)), Verdict::RestoreThenOld);
        assert_eq!(objection(&Attempt { fork_height: None, ..progress() }, None), None);
        assert!(objection(&progress(), Some(150)).is_some());
        assert!(objection(&Attempt { fork_height: None, signed: true, ..progress() }, None).is_some());
        let no_fork = Attempt { fork_height: None, ..progress() };
        assert_eq!(decide(&no_fork, traces(Some(1_000_000), false)), Verdict::Old);
    }
}
