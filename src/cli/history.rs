//! `history`: what has happened to the node of this home, and the receipts of its upgrades as `upgrade show` has them.

use super::args::Format;
use super::{output, show};
use crate::error::Result;
use crate::home::Home;
use crate::upgrade::history;
use serde_json::{Value, json};

/// Shows the history, oldest first: no more than its last mebibyte.
///
/// # Errors
/// If it cannot be read.
pub(super) fn history(home: &Home, format: Format) -> Result<()> {
    let entries = history::read(home, usize::MAX)?;
    output(format, &json!({"events": entries}), || {
        let row = |entry: &history::Entry| {
            let height = entry.height.map(|height| height.to_string()).unwrap_or_default();
            [entry.time.clone(), height, entry.event.clone(), entry.detail.clone()]
        };
        show::table(entries.iter().map(row).collect())
    })
}

/// The rows of a receipt, below those of its upgrade: the figures that were seen.
pub(super) fn receipt(receipt: &Value) -> Vec<[String; 2]> {
    let mut rows = Vec::new();
    for key in ["client_before", "client_after", "backup", "hook", "last_own_seal"] {
        let text = match &receipt[key] {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            other => format!("block {other}"),
        };
        rows.push([key.replace('_', " "), text]);
    }
    for step in receipt["steps"].as_array().into_iter().flatten() {
        let (Some(name), Some(time)) = (step["step"].as_str(), step["time"].as_str()) else { continue };
        let mut text = time.to_owned();
        if let Some(ms) = step["after_ms"].as_u64() {
            text += &format!(", {}.{:03} s after the stop", ms / 1000, ms % 1000);
        }
        if let Some(height) = step["block"]["height"].as_u64() {
            text += &format!(", block {height} {}", step["block"]["hash"].as_str().unwrap_or_default());
        }
        rows.push([name.replace('_', " "), text]);
    }
    rows
}
