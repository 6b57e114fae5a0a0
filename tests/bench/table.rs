//! The results: medians and spread of ours and of the tool beside it, their ratio, and the budget.

use serde_json::{Value, json};
use std::fmt::Write as _;

/// The limit of a result.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Budget {
    /// Shown for comparison alone.
    None,
    /// In the unit of the row.
    AtMost(f64),
    /// Times as much as the tool beside it takes.
    Times(f64),
}

/// One result.
#[derive(Debug)]
pub(crate) struct Row {
    what: String,
    unit: &'static str,
    ours: Vec<f64>,
    beside: Option<(String, Vec<f64>)>,
    budget: Budget,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, unit: &'static str, ours: Vec<f64>) -> Row {
        Row { what: what.into(), unit, ours, beside: None, budget: Budget::None }
    }

    /// Sets what a public tool takes for the same work.
    pub(crate) fn beside(mut self, tool: impl Into<String>, times: Vec<f64>) -> Row {
        self.beside = Some((tool.into(), times));
        self
    }

    pub(crate) fn budget(mut self, budget: Budget) -> Row {
        self.budget = budget;
        self
    }

    fn ratio(&self) -> Option<f64> {
        let (_, times) = self.beside.as_ref()?;
        Some(median(&self.ours) / median(times)).filter(|ratio| ratio.is_finite())
    }

    /// Whether the budget is kept, if there is one.
    pub(crate) fn is_kept(&self) -> Option<bool> {
        match self.budget {
            Budget::None => None,
            Budget::AtMost(limit) => Some(median(&self.ours) <= limit),
            Budget::Times(limit) => Some(self.ratio().is_some_and(|ratio| ratio <= limit)),
        }
    }

    /// The row as a line of text.
    pub(crate) fn line(&self) -> String {
        let verdict = match self.is_kept() {
            None => "",
            Some(true) => "ok",
            Some(false) => "MISSED",
        };
        let budget = match self.budget {
            Budget::None => String::new(),
            Budget::AtMost(limit) => format!("<= {}", figure(limit)),
            Budget::Times(limit) => format!("<= x {limit}"),
        };
        let mut line =
            format!("{verdict:<6} {:<62} {:>24} {:<2} {budget:<8}", self.what, spread(&self.ours), self.unit);
        if let Some((tool, times)) = &self.beside {
            let ratio = self.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            let _ = write!(line, " x {ratio:<6} {tool}: {}", spread(times));
        }
        line.trim_end().to_owned()
    }

    pub(crate) fn json(&self) -> Value {
        let times = |times: &[f64]| json!({"median": median(times), "all": times});
        let (at_most, ratio) = match self.budget {
            Budget::None => (None, None),
            Budget::AtMost(limit) => (Some(limit), None),
            Budget::Times(limit) => (None, Some(limit)),
        };
        json!({
            "what": self.what, "unit": self.unit, "ours": times(&self.ours), "ratio": self.ratio(),
            "beside": self.beside.as_ref().map(|(tool, all)| json!({"tool": tool, "times": times(all)})),
            "at_most": at_most, "ratio_at_most": ratio, "kept": self.is_kept(),
        })
    }
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// The median, with the extremes where there are several.
fn spread(times: &[f64]) -> String {
    let (least, most) = times.iter().fold((f64::MAX, f64::MIN), |(a, b), t| (a.min(*t), b.max(*t)));
    let middle = figure(median(times));
    if times.len() < 2 { middle } else { format!("{middle} ({} - {})", figure(least), figure(most)) }
}

/// Three digits at least, and no more than two behind the point.
fn figure(number: f64) -> String {
    let digits = if number == 0.0 || number >= 100.0 {
        0
    } else if number >= 10.0 {
        1
    } else {
        2
    };
    format!("{number:.digits$}")
}
