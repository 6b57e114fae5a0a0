//! `history`: what has happened to the node of this home, and the receipts of its upgrades as `upgrade show` has them.

use super::args::Format;
use super::{output, show};
use crate::error::Result;
use crate::home::Home;
use crate::machine::Receipt;
use crate::upgrade::history;
use serde_json::json;

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

/// The rows of a receipt, below those of its upgrade.
pub(super) fn receipt(receipt: &Receipt) -> Vec<[String; 2]> {
    let mut rows = Vec::new();
    let mut row = |label: &str, text: String| rows.push([label.to_owned(), text]);
    let clients = [("before", &receipt.client_before), ("after", &receipt.client_after)];
    for (label, client) in clients.iter().filter_map(|(label, client)| Some((label, client.as_ref()?))) {
        row(label, client.clone());
    }
    receipt.backup.iter().for_each(|backup| row("backup", backup.clone()));
    receipt.hook.iter().for_each(|hook| row("hook", hook.clone()));
    if let Some(height) = receipt.last_own_seal {
        row("last own seal", format!("block {height}"));
    }
    for step in &receipt.steps {
        let Some(time) = &step.time else { continue };
        let after = step.after_ms.map(|ms| format!(", {}.{:03} s after the stop", ms / 1000, ms % 1000));
        let block = step.block.as_ref().map(|block| {
            let hash = block.hash.as_ref().map(|hash| format!(" {hash}")).unwrap_or_default();
            format!(", block {}{hash}", block.height)
        });
        let text = format!("{time}{}{}", after.unwrap_or_default(), block.unwrap_or_default());
        row(&step.step.replace('_', " "), text);
    }
    rows
}
