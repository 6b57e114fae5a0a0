//! The consensus as text: as wide as the terminal, and while it is watched no longer than that.

use super::super::forecast::{about, grouped};
use super::super::{show::word, terminal};
use super::{Node, Seen, no_turns};
use crate::config::Config;
use crate::machine::View;
use crate::machine::gates::{Gate, Reason, Verdict};
use crate::printable::printable;
use crate::sorted;
use crate::wbft::{ConsensusState, Member};
use std::time::Duration;

/// The least difference between clocks that is shown.
const SKEW: Duration = Duration::from_secs(3);
/// The column at which the labels end and their values begin.
const INDENT: usize = 12;
/// The width that a line about a validator takes before the name of its program, besides its address.
const COLUMNS: usize = 2 + 2 + 4 + 2 + 17 + 2;

/// Colours of a terminal (ECMA-48).
const GREEN: &str = "32";
const RED: &str = "31";

/// The screen to draw on.
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

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A label and its text, wrapped.
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
    let mut lines = match &seen.node {
        Err(trouble) => frame.entry("down", trouble),
        Ok(node) => summary(node, frame),
    };
    lines.extend(seen.view.iter().flat_map(|view| warnings(view, frame)));
    if let Ok(node) = &seen.node
        && !node.state.validators.is_empty()
    {
        lines.push(String::new());
        let free = frame.rows.saturating_sub(lines.len());
        lines.extend(members(&node.state, frame, free));
    }
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}

/// The next turns, one in a line, and the one for the upgrade that is next.
pub(super) fn turns(node: &Node) -> String {
    let mut text = format!("head {}\n", grouped(node.now.head));
    for window in &node.turns {
        text.push_str(&format!("turn: {}\n", node.now.words(*window)));
    }
    if let Some((plan, window)) = &node.next {
        let turn = node.now.our_turn(*window, plan);
        text.push_str(&format!("upgrade {} at {}; {turn}\n", plan.name, grouped(plan.height)));
    }
    text
}

fn summary(node: &Node, frame: &Frame) -> Vec<String> {
    let s = &node.state;
    let (age, period, step) = (s.head_age.as_secs_f64(), s.block_period.as_secs_f64(), word(&s.step));
    let decided = format!("{} decided in round {}, {age:.1} s ago", s.height, s.round);
    let head = format!("{decided}, a block every {period:.1} s: {step}");
    let mut lines = frame.entry("head", &head);
    lines.extend(overdue(node, frame));
    if s.clock_skew > SKEW {
        let skew = format!("our clock is {} behind that of the proposer: check NTP", about(s.clock_skew));
        lines.extend(frame.entry("clock", &skew));
    }
    let code = if s.live >= s.quorum { GREEN } else { RED };
    let live = frame.paint(code, &format!("{} of {} live", s.live, s.validator_count));
    lines.push(format!("{:<INDENT$}{live}, quorum {}, margin {}", "validators", s.quorum, s.margin));
    let rounds: Vec<String> =
        s.rounds.iter().map(|(round, blocks)| format!("{blocks} in round {round}")).collect();
    lines.extend(frame.entry("rounds", &format!("of the last blocks: {}", rounds.join(", "))));
    lines.extend(counters(s, frame));
    lines.extend(frame.entry("this node", &this_node(node)));
    lines.extend(frame.entry("stop now", &words(&node.spare)));
    lines.extend(plans(node, frame));
    lines
}

/// The round that runs, where the next block is overdue.
fn overdue(node: &Node, frame: &Frame) -> Vec<String> {
    let Some(round) = node.round else { return Vec::new() };
    let age = node.state.head_age;
    let text = format!(
        "block {} is overdue: round {} for {}, the next one in {}",
        node.state.height + 1,
        round.round,
        about(age.saturating_sub(round.since)),
        about(round.next.saturating_sub(age)),
    );
    frame.entry("round", &text)
}

fn counters(s: &ConsensusState, frame: &Frame) -> Vec<String> {
    let Some(counters) = &s.live_rounds else { return Vec::new() };
    let all = [
        (counters.heights, "heights"),
        (counters.round_changes, "round changes"),
        (counters.timeouts, "timeouts"),
    ];
    let known: Vec<String> = all.iter().filter_map(|(n, what)| n.map(|n| format!("{n} {what}"))).collect();
    let text = if known.is_empty() { "its metrics have no rounds".to_owned() } else { known.join(", ") };
    frame.entry("since start", &text)
}

fn this_node(node: &Node) -> String {
    let s = &node.state;
    let role = match (s.address, s.validator_index) {
        (Some(address), Some(index)) => format!("{address}, validator {index}"),
        (Some(address), None) => format!("{address}, no validator"),
        (None, _) => "its address is not known".to_owned(),
    };
    let peers = s.peers.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    let connected = node.connected.map(|(n, of)| format!(", {n} of {of} other validators connected"));
    format!("{role}, peers {peers}{}", connected.unwrap_or_default())
}

/// Our turns, and the upgrade that is next.
fn plans(node: &Node, frame: &Frame) -> Vec<String> {
    let mut lines = match node.turns.split_first() {
        Some((first, rest)) => {
            let later: Vec<String> = rest.iter().map(|window| grouped(window.opens_at)).collect();
            let later = if later.is_empty() { String::new() } else { format!("; then {}", later.join(", ")) };
            frame.entry("our turns", &format!("{}{later}", node.now.words(*first)))
        }
        None if node.state.is_validator => frame.entry("our turns", no_turns(&node.state)),
        None => Vec::new(),
    };
    if let Some((plan, window)) = &node.next {
        let when = match plan.height.saturating_sub(node.state.height) {
            0 => words(&node.in_turn),
            blocks => format!("{} blocks away, {}", grouped(blocks), node.now.when(plan.height)),
        };
        let turn = node.now.our_turn(*window, plan);
        let turn = if turn.is_empty() { turn } else { format!("; {turn}") };
        lines.extend(frame.entry("upgrade", &format!("{} at {}: {when}{turn}", plan.name, plan.height)));
    }
    lines
}

/// The upgrade under way and the symptoms, as the supervisor reports them.
fn warnings(view: &View, frame: &Frame) -> Vec<String> {
    let under_way = view.upgrade.iter().flat_map(|attempt| {
        let stage = super::status::stage(attempt);
        frame.entry("under way", &format!("{} at {}: {stage}", attempt.name, attempt.height))
    });
    let symptoms = view.symptoms.iter().flat_map(|symptom| frame.entry("warning", &symptom.text));
    under_way.chain(symptoms).collect()
}

/// A line for every validator. Where they do not fit, those that are gone come first, and the others are counted.
fn members(s: &ConsensusState, frame: &Frame, free: usize) -> Vec<String> {
    let us = |member: &&Member| s.address == Some(member.address);
    let mut shown: Vec<&Member> = s.validators.iter().collect();
    let mut rest = None;
    if shown.len() > free {
        sorted::by_key(&mut shown, |member| (member.live, !us(member)));
        let left_out = shown.split_off(free.saturating_sub(1));
        let live = left_out.iter().filter(|member| member.live).count();
        rest = Some(format!("  and {} more, {live} of them live", left_out.len()));
    }
    let narrow = frame.width < COLUMNS + 42 + 40;
    let line = |member: &&Member| {
        let address = member.address.to_string();
        let address = if narrow { format!("{}…{}", &address[..8], &address[38..]) } else { address };
        let mark = if member.live { frame.paint(GREEN, "live") } else { frame.paint(RED, "gone") };
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
    use super::super::super::forecast::Now;
    use super::*;
    use crate::machine::gates::Window;
    use crate::wbft::{Forecast, RoundMetrics};
    use serde_json::json;
    use std::time::UNIX_EPOCH;

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
            ..ConsensusState::default()
        };
        let gate = Gate::Quorum { live: 3, validators: 4, needed: 3, without_us: 2 };
        let turn = Gate::Turn { head: 1, group: 1, groups: 4, opens_at: 1000 };
        let now = Now { head: state.height, period: Duration::from_secs(1), time: UNIX_EPOCH };
        let window = |opens_at| Window { opens_at, closes_at: opens_at + 11 };
        let node = Node {
            state,
            spare: Verdict::Hold(vec![gate]),
            in_turn: Verdict::Hold(vec![turn]),
            now,
            turns: vec![window(12_345_696), window(12_345_792)],
            connected: Some((2, 3)),
            round: None,
            next: None,
        };
        Seen { node: Ok(node), view: None }
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
    fn of_a_node_that_is_down_nothing_is_shown_but_why() {
        let trouble = "upgrade v2 is under way: backed-up (upgrading)";
        let down = Seen { node: Err(trouble.to_owned()), view: None };
        let text = text(&down, &Frame { width: 80, rows: 24, colour: false });
        assert_eq!(text, format!("down        {trouble}\n"));
        let json = super::super::value(&down);
        assert_eq!((&json["consensus"], &json["trouble"]), (&json!({"step": "down"}), &json!(trouble)));
        assert!(json.get("turns").is_none(), "{json}");
    }

    #[test]
    fn turns_rounds_and_a_wrong_clock_are_shown_with_their_numbers() {
        let mut seen = seen(4, &[]);
        let Ok(node) = &mut seen.node else { panic!() };
        node.state.clock_skew = Duration::from_secs(5);
        node.state.head_age = Duration::from_secs(8);
        node.round =
            Some(Forecast { round: 2, since: Duration::from_secs(6), next: Duration::from_secs(14) });
        let json = super::super::value(&seen);
        assert_eq!(json["turns"][0]["opens_at"], 12_345_696);
        assert_eq!(
            (&json["turns"][0]["opens_in_blocks"], &json["turns"][0]["opens_in_ms"]),
            (&json!(17), &json!(17_000))
        );
        assert_eq!(json["forecast"], json!({"round": 2, "next_in_ms": 6000}));
        let text = text(&seen, &Frame { width: 200, rows: 24, colour: false });
        for part in [
            "our turns   block 12,345,696 to 12,345,707, in 17 s, ",
            "; then 12,345,792",
            "round       block 12345680 is overdue: round 2 for 2 s, the next one in 6 s",
            "clock       our clock is 5 s behind",
            "2 of 3 other validators connected",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}
