//! The consensus as people read it: as wide as the terminal, and while it is watched no longer than that.

use super::super::terminal;
use super::Seen;
use crate::config::Config;
use crate::machine::gates::{Gate, Reason, Verdict};
use crate::printable::printable;
use crate::wbft::{ConsensusState, Member};

/// Where the labels end and what they are about begins.
const INDENT: usize = 12;
/// What a line about a validator takes before the name of its program, besides its address.
const COLUMNS: usize = 2 + 2 + 4 + 2 + 17 + 2;

/// What there is to draw on.
pub(super) struct Frame {
    pub(super) width: usize,
    pub(super) rows: usize,
    pub(super) colour: bool,
}

impl Frame {
    pub(super) fn of_stdout(config: &Config) -> Self {
        let (width, colour) = terminal::of_stdout(config);
        let rows = if width == usize::MAX { usize::MAX } else { terminal::size().1 };
        Frame { width, rows, colour }
    }

    fn paint(&self, good: bool, text: &str) -> String {
        let code = if good { "32" } else { "31" };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A label and what it is about, in as many lines as that takes.
    fn entry(&self, label: &str, text: &str) -> Vec<String> {
        let room = self.width.saturating_sub(INDENT).max(20);
        let mut lines = vec![String::new()];
        for word in printable(text).split(' ') {
            let line = lines.last_mut().expect("there is a line from the beginning");
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
                lines.push(word.to_owned());
            } else {
                line.push_str(if line.is_empty() { "" } else { " " });
                line.push_str(word);
            }
        }
        let labels = std::iter::once(label).chain(std::iter::repeat(""));
        labels.zip(lines).map(|(label, line)| format!("{label:<INDENT$}{line}")).collect()
    }
}

/// The whole picture.
pub(super) fn text(seen: &Seen, frame: &Frame) -> String {
    let mut lines = match &seen.trouble {
        Some(trouble) => frame.entry("down", trouble),
        None => summary(seen, frame),
    };
    if !seen.state.validators.is_empty() {
        lines.push(String::new());
        let free = frame.rows.saturating_sub(lines.len());
        lines.extend(members(&seen.state, frame, free));
    }
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}

fn summary(seen: &Seen, frame: &Frame) -> Vec<String> {
    let s = &seen.state;
    let step = serde_json::to_value(s.step).ok();
    let step = step.as_ref().and_then(|step| step.as_str()).unwrap_or_default();
    let (age, period) = (s.head_age.as_secs_f64(), s.block_period.as_secs_f64());
    let head = format!(
        "{} decided in round {}, {age:.1} s ago, a block every {period:.1} s: {step}",
        s.height, s.round
    );
    let rounds: Vec<String> =
        s.rounds.iter().map(|(round, blocks)| format!("{blocks} in round {round}")).collect();
    let peers = s.peers.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    let role = match (s.address, s.validator_index) {
        (Some(address), Some(index)) => format!("{address}, validator {index}"),
        (Some(address), None) => format!("{address}, no validator"),
        (None, _) => "its address is not told".to_owned(),
    };
    let live = frame.paint(s.live >= s.quorum, &format!("{} of {} live", s.live, s.validator_count));
    let mut lines = frame.entry("head", &head);
    lines.push(format!("{:<INDENT$}{live}, quorum {}, margin {}", "validators", s.quorum, s.margin));
    lines.extend(frame.entry("rounds", &format!("of the last blocks: {}", rounds.join(", "))));
    if let Some(counters) = &s.live_rounds {
        let told = [
            (counters.heights, "heights"),
            (counters.round_changes, "round changes"),
            (counters.timeouts, "timeouts"),
        ];
        let told: Vec<String> =
            told.iter().filter_map(|(n, what)| n.map(|n| format!("{n} {what}"))).collect();
        let told = if told.is_empty() { "its metrics tell of no rounds".to_owned() } else { told.join(", ") };
        lines.extend(frame.entry("since start", &told));
    }
    lines.extend(frame.entry("this node", &format!("{role}, peers {peers}")));
    lines.extend(frame.entry("stop now", &words(&seen.spare)));
    if let Some((name, height, verdict)) = &seen.next {
        // Until then the set that shares the turns is not known, and that is nothing to wonder about.
        let when = match height.saturating_sub(s.height) {
            0 => words(verdict),
            blocks => format!("in {blocks} blocks"),
        };
        lines.extend(frame.entry("upgrade", &format!("{name} at {height}: {when}")));
    }
    lines
}

/// A line for every validator. Where they do not fit, those that are gone come first, and the others are counted.
fn members(s: &ConsensusState, frame: &Frame, free: usize) -> Vec<String> {
    let us = |member: &&Member| s.address == Some(member.address);
    let mut shown: Vec<&Member> = s.validators.iter().collect();
    let mut rest = None;
    if shown.len() > free {
        shown.sort_by_key(|member| (member.live, !us(member)));
        let left_out = shown.split_off(free.saturating_sub(1));
        let live = left_out.iter().filter(|member| member.live).count();
        rest = Some(format!("  and {} more, {live} of them live", left_out.len()));
    }
    let narrow = frame.width < COLUMNS + 42 + 40;
    let line = |member: &&Member| {
        let address = member.address.to_string();
        let address = if narrow { format!("{}…{}", &address[..8], &address[38..]) } else { address };
        let mark = frame.paint(member.live, if member.live { "live" } else { "gone" });
        let seal = member.last_commit.map_or_else(|| "-".to_owned(), |height| height.to_string());
        let client = printable(member.client.as_deref().unwrap_or("-"));
        let room = frame.width.saturating_sub(COLUMNS + address.chars().count());
        let who = if us(member) { format!("{client} (this node)") } else { client };
        let who: String = who.chars().take(room).collect();
        format!("  {address}  {mark}  sealed {seal:<10}  {who}")
    };
    shown.iter().map(line).chain(rest).collect()
}

fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Go(reason @ (Reason::Open | Reason::NotInSet)) => format!("yes: {reason}"),
        Verdict::Go(reason) => format!("yes, but: {reason}"),
        Verdict::Hold(gates) if gates.is_empty() => "not known".to_owned(),
        Verdict::Hold(gates) => {
            let gate = |gate: &Gate| match gate {
                Gate::Unknown { .. } => format!("{}: {gate}", gate.name()),
                gate => format!("{}: {gate} (waits for {})", gate.name(), gate.waits_for()),
            };
            format!("no; {}", gates.iter().map(gate).collect::<Vec<_>>().join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wbft::RoundMetrics;

    fn seen(validators: u8, gone: &[u8]) -> Seen {
        let member = |n: u8| Member {
            address: format!("0x{}", format!("{n:02x}").repeat(20)).parse().unwrap(),
            live: !gone.contains(&n),
            last_commit: Some(12_345_678),
            client: Some("geth 1.0.0 go1.26.6 linux".to_owned()),
        };
        let validators: Vec<Member> = (1..=validators).map(member).collect();
        let state = ConsensusState {
            height: 12_345_679,
            address: Some(validators[0].address),
            validator_index: Some(0),
            validator_count: validators.len(),
            live: validators.iter().filter(|member| member.live).count(),
            live_rounds: Some(RoundMetrics { round_changes: Some(7), timeouts: Some(3), heights: None }),
            validators,
            ..ConsensusState::down()
        };
        let gate = Gate::Quorum { live: 3, validators: 4, needed: 3, without_us: 2 };
        let turn = Gate::Turn { head: 1, group: 1, groups: 4, opens_at: 1000 };
        Seen { state, spare: Verdict::Hold(vec![gate, turn]), next: None, trouble: None }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_no_picture_longer() {
        for (width, rows) in [(80, 24), (120, 24), (70, 20), (200, 60)] {
            for validators in [1, 4, 100] {
                let frame = Frame { width, rows, colour: false };
                let text = text(&seen(validators, &[1, 77]), &frame);
                let widest = text.lines().map(|line| line.chars().count()).max();
                assert!(widest <= Some(width) && text.lines().count() <= rows, "{width}x{rows}\n{text}");
                assert!(text.contains("geth 1.0.0") && text.contains("this node"), "{text}");
            }
        }
    }

    #[test]
    fn where_they_do_not_fit_those_that_are_gone_are_shown() {
        let text = text(&seen(100, &[50, 77]), &Frame { width: 80, rows: 24, colour: false });
        assert_eq!(text.matches("gone").count(), 2, "{text}");
        assert!(text.contains("(this node)") && text.contains("of them live"), "{text}");
        assert!(text.contains("7 round changes, 3 timeouts"), "{text}");
    }

    #[test]
    fn of_a_node_that_is_down_nothing_is_told_but_why() {
        let trouble = Some("the node cannot be asked".to_owned());
        let state = ConsensusState::down();
        let down = Seen { state, spare: Verdict::Hold(Vec::new()), next: None, trouble };
        let text = text(&down, &Frame { width: 80, rows: 24, colour: false });
        assert_eq!(text, "down        the node cannot be asked\n");
        let json = super::super::value(&down);
        assert_eq!(
            json,
            serde_json::json!({"consensus": {"step": "down"}, "trouble": "the node cannot be asked"})
        );
    }
}
