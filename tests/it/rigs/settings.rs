//! How much is broken, and what: from the environment.

use std::str::FromStr;

/// The settings of all rigs.
pub(super) struct Settings {
    /// Whether every call is broken.
    is_full: bool,
    /// Calls per case that are broken otherwise.
    runs: Option<usize>,
    /// The only call to be broken.
    at: Option<usize>,
    /// The only case, by name.
    case: Option<String>,
    /// The only error, by number.
    errno: Option<i32>,
    seed: u64,
}

impl Settings {
    pub(super) fn new() -> Settings {
        Settings {
            is_full: variable::<u8>("RIG_FULL").is_some_and(|full| full != 0),
            runs: variable("RIG_RUNS"),
            at: variable("RIG_AT"),
            case: variable("RIG_CASE"),
            errno: variable("RIG_ERRNO"),
            seed: variable("RIG_SEED").unwrap_or(1),
        }
    }

    /// One case, whatever the environment asks for.
    pub(super) fn only(case: &str) -> Settings {
        Settings { case: Some(case.to_owned()), ..Settings::new() }
    }

    /// Whether everything is broken.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether it is the small set of `cargo test`, which waits for nothing that takes long.
    pub(super) fn is_reduced(&self) -> bool {
        !self.is_full && self.runs.is_none() && self.at.is_none()
    }

    /// Whether a case is to be broken.
    pub(super) fn wants(&self, case: &str) -> bool {
        self.case.as_deref().is_none_or(|wanted| wanted == case)
    }

    /// Of `count` calls those to be broken, from 1; `reduced` of them where nothing else was asked for.
    pub(super) fn points(&self, count: usize, reduced: usize) -> Vec<usize> {
        if let Some(at) = self.at {
            return vec![at];
        }
        let runs = if self.is_full { count } else { self.runs.unwrap_or(reduced) };
        if runs >= count {
            return (1..=count).collect();
        }
        // One of each stretch of the run, so that a small sample covers all of it.
        let mut random = self.random();
        (0..runs).map(|i| stretch(i, runs, count, &mut random)).collect()
    }

    /// The size of a rig that has no calls to choose from: reduced, or in full.
    pub(super) fn count(&self, (reduced, full): (usize, usize)) -> usize {
        self.runs.unwrap_or(if self.is_full { full } else { reduced })
    }

    /// Of some errors those to be tried at one call: all of them, or one.
    pub(super) fn errors<E: Copy>(&self, all: &[E], number: impl Fn(E) -> i32, at: usize) -> Vec<E> {
        match self.errno {
            Some(wanted) => all.iter().copied().filter(|e| number(*e) == wanted).collect(),
            None if self.is_full => all.to_vec(),
            None => vec![all[(self.random().next() as usize).wrapping_add(at) % all.len()]],
        }
    }

    /// The variables that repeat one run.
    pub(super) fn replay(&self, case: &str, at: usize) -> String {
        format!("RIG_SEED={} RIG_CASE={case:?} RIG_AT={at}", self.seed)
    }

    /// A generator that the seed determines.
    pub(super) fn random(&self) -> Random {
        Random(self.seed)
    }
}

fn stretch(index: usize, runs: usize, count: usize, random: &mut Random) -> usize {
    let (begin, end) = (index * count / runs, (index + 1) * count / runs);
    begin + 1 + random.next() as usize % (end - begin)
}

/// The generator `SplitMix64`.
pub(super) struct Random(u64);

impl Random {
    /// A number below another one.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} cannot be understood")))
}
