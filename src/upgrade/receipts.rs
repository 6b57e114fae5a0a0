//! Receipts of upgrades that have ended: one file each, for people and their tools. They are never read for a decision.

use crate::error::{Error, Kind, Result};
use crate::home::{Home, durable, regular};
use crate::machine::Receipt;
use crate::name::Name;
use serde_json::Value;
use std::fs;

/// Far larger than any receipt.
const LARGEST: u64 = 1 << 20;

/// Writes a receipt, durably. That of an earlier try of the same upgrade is kept beside it, with a `~`.
///
/// # Errors
/// If writing fails.
pub fn keep(home: &Home, receipt: &Receipt) -> Result<()> {
    let path = home.receipt(&receipt.name);
    path.parent().map_or(Ok(()), durable::mkdir)?;
    // Most often there is none, and one that cannot be kept must not keep this one from being written.
    let _ = fs::rename(&path, path.with_file_name(format!("{}~.json", receipt.name)));
    let text = serde_json::to_string_pretty(receipt).expect("every key of a receipt is a string");
    durable::put(&path, format!("{text}\n").as_bytes(), 0o600)
}

/// The receipt of an upgrade as JSON, if there is one.
///
/// # Errors
/// If the file cannot be read, or is no JSON.
pub fn read(home: &Home, name: &Name) -> Result<Option<Value>> {
    let path = home.receipt(name);
    let Some(text) =
        regular::found(regular::read(&path, LARGEST)).map_err(|e| Error::io("read", &path, e))?
    else {
        return Ok(None);
    };
    let nonsense = |e| Error::new(Kind::BadInput, "read the receipt").at(path.display()).because(e);
    serde_json::from_slice(&text).map(Some).map_err(nonsense)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Outcome;

    fn receipt(outcome: Outcome) -> Receipt {
        Receipt {
            schema: 1,
            name: "v2".parse().unwrap(),
            height: 7,
            fork_height: None,
            outcome,
            detail: String::new(),
            from: None,
            to: None,
            client_before: None,
            client_after: None,
            starts: 1,
            backup: None,
            hook: None,
            own: None,
            last_own_seal: None,
            steps: Vec::new(),
        }
    }

    #[test]
    fn the_receipt_of_an_earlier_try_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), "node").unwrap();
        let (first, second) = (receipt(Outcome::Failed), receipt(Outcome::Applied));
        assert_eq!(read(&home, &first.name).unwrap(), None);
        keep(&home, &first).unwrap();
        assert_eq!(read(&home, &first.name).unwrap(), Some(serde_json::to_value(&first).unwrap()));
        keep(&home, &second).unwrap();
        assert_eq!(read(&home, &first.name).unwrap(), Some(serde_json::to_value(&second).unwrap()));
        let before = fs::read(home.state().join("receipts/v2~.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&before).unwrap()["outcome"], "failed");
        assert_eq!(fs::read_dir(home.state().join("receipts")).unwrap().count(), 2);
        fs::write(home.receipt(&first.name), "{").unwrap();
        assert_eq!(read(&home, &first.name).unwrap_err().kind(), Kind::BadInput);
    }
}
