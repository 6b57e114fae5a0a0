//! The sync cycle: when a node that is behind asks its peers for what it lacks.
//!
//! With few peers a node looks for a better chain only once in a cycle of ten seconds, which the flags
//! `--sync.forcecycle` and `--sync.tdinterval` or the environment can shorten. Simulated time runs faster than life, so
//! these durations are scaled: a second of them is a period. Block propagation is not modelled here.

/// Prefixes of the environment variables that stand for flags.
const PREFIXES: [&str; 2] = ["GETH", "GWEMIX"];

/// Peers from which on a node syncs at once.
const MANY_PEERS: usize = 5;

/// The two durations that govern a sync, in milliseconds of a chain whose period is a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cycle {
    /// Time until a sync is tried with few peers.
    pub(crate) force: u64,
    /// Time between two comparisons with the peers.
    pub(crate) interval: u64,
}

impl Default for Cycle {
    fn default() -> Cycle {
        Cycle { force: 10_000, interval: 1000 }
    }
}

impl Cycle {
    /// Milliseconds from noticing that the chain is ahead to having fetched it.
    pub(crate) fn delay(self, period: u64, peers: usize) -> u64 {
        let wait = if peers >= MANY_PEERS { 0 } else { self.force };
        (wait + self.interval).saturating_mul(period) / 1000
    }
}

/// Blocks that a peer must be ahead for a sync to start: one in the first sync of a process, two later.
pub(crate) fn gap(first: bool) -> u64 {
    if first { 1 } else { 2 }
}

/// Takes over what the environment says.
pub(crate) fn from_environment(
    cycle: &mut Cycle,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(), String> {
    for (flag, name, duration) in [
        ("sync.forcecycle", "SYNC_FORCECYCLE", &mut cycle.force),
        ("sync.tdinterval", "SYNC_TDINTERVAL", &mut cycle.interval),
    ] {
        for variable_name in PREFIXES.map(|prefix| format!("{prefix}_{name}")) {
            let Some(text) = variable(&variable_name).filter(|text| !text.is_empty()) else { continue };
            *duration = milliseconds(&text).ok_or(format!(
                "could not parse {text:?} as duration value from environment variable {variable_name:?} for flag {flag}: parse error"
            ))?;
        }
    }
    Ok(())
}

/// The value of a flag.
pub(crate) fn flag(name: &str, text: &str) -> Result<u64, String> {
    milliseconds(text).ok_or(format!("invalid value {text:?} for flag -{name}: parse error"))
}

/// A duration as Go writes it: `1ms`, `1.5h`, `1m30s`, `0`.
fn milliseconds(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let (mut total, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_length = rest[digits..].find(|c: char| c == '.' || c.is_ascii_digit());
        let (unit, tail) = rest[digits..].split_at(unit_length.unwrap_or(rest.len() - digits));
        let factor = match unit {
            "ns" => 1e-6,
            "us" | "µs" => 1e-3,
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 6e4,
            "h" => 3.6e6,
            _ => return None,
        };
        total += number * factor;
        rest = tail;
    }
    (!text.is_empty()).then_some(total as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let read = ["1ms", "100ms", "1s", "1m30s", "1.5h", "0", "500us"].map(milliseconds);
        assert_eq!(read, [1, 100, 1000, 90_000, 5_400_000, 0, 0].map(Some));
        assert_eq!(["", "5", "s", "1d", "1s5", "-1s"].map(milliseconds), [None; 6]);
    }

    #[test]
    fn a_cycle_is_scaled_and_short_with_many_peers() {
        assert_eq!(Cycle::default().delay(20, 3), 220);
        assert_eq!(Cycle::default().delay(20, 5), 20);
        assert_eq!(Cycle { force: 1, interval: 100 }.delay(20, 3), 2);
    }

    #[test]
    fn the_environment_names_either_program() {
        let mut cycle = Cycle::default();
        let variable = |name: &str| match name {
            "GETH_SYNC_FORCECYCLE" => Some("1ms".into()),
            "GWEMIX_SYNC_TDINTERVAL" => Some("100ms".into()),
            _ => None,
        };
        from_environment(&mut cycle, variable).unwrap();
        assert_eq!(cycle, Cycle { force: 1, interval: 100 });
        let refused = from_environment(&mut cycle, |_| Some("soon".into())).unwrap_err();
        assert!(refused.contains("\"GETH_SYNC_FORCECYCLE\""), "{refused}");
    }
}
