//! How many backups are kept, and for how long. Only what upgrades have made is removed by itself.

use super::manifest::{Backup, MadeBy, Manifest, State, list, load_any};
use super::options::Options;
use super::{PARTIAL, Work};
use crate::error::{Doing as _, Error, Kind, Result};
use crate::home::lock::Claim;
use crate::home::trace::{Effect, note};
use crate::home::{Home, durable};
use crate::time::rfc3339;
use std::fs;
use std::time::SystemTime;

/// The backups that are too many or too old, oldest first: of those that upgrades have made, all but that of the last try of
/// each of the newest `keep` upgrades, and those that are older than `max_age`, but never the newest whole one. So an upgrade
/// that is tried again and again pushes out no other one's. None of the `needed` is among them: that of the upgrade, or of the way
/// back, that is under way, and that which leads back from the last upgrade that was applied.
pub fn outdated(backups: &[Backup], options: &Options, needed: &[String], now: SystemTime) -> Vec<String> {
    let oldest = options.max_age.and_then(|age| now.checked_sub(age)).map(rfc3339);
    let is_whole = |backup: &&Backup| backup.manifest.state() != State::Damaged;
    let newest = backups.iter().rfind(is_whole).or(backups.last()).map(|backup| &*backup.name);
    let is_of_upgrade = |backup: &&Backup| backup.manifest.made_by == MadeBy::Upgrade && backup.is_original();
    let of_upgrades: Vec<&Backup> = backups.iter().filter(is_of_upgrade).collect();
    let mut kept = Vec::new();
    let mut outdated = Vec::new();
    for backup in of_upgrades.into_iter().rev() {
        let Manifest { upgrade, time, .. } = &backup.manifest;
        let is_too_many = kept.contains(&upgrade) || kept.len() >= options.keep;
        let is_too_old = oldest.as_ref().is_some_and(|oldest| time < oldest);
        if (is_too_many || is_too_old) && Some(&*backup.name) != newest && !needed.contains(&backup.name) {
            outdated.push(backup.name.clone());
        }
        if is_whole(&backup) && !kept.contains(&upgrade) {
            kept.push(upgrade);
        }
    }
    outdated.reverse();
    outdated
}

/// Removes the backups that are outdated. Returns their names.
///
/// # Errors
/// If one cannot be removed.
pub fn prune(work: &Work<'_>, needed: &[String]) -> Result<Vec<String>> {
    let outdated = outdated(&list(work.home)?, work.options, needed, SystemTime::now());
    outdated.iter().try_for_each(|name| remove(work.home, name))?;
    if work.home.backups().is_dir() {
        // A process that was killed may have removed some before that was durable.
        durable::sync_dir(work.home.backups())?;
    }
    Ok(outdated)
}

/// Removes a backup. It is no longer listed before the first of its files goes.
///
/// # Errors
/// If there is none of this name, or the operating system refuses.
pub fn remove(home: &Home, name: &str) -> Result<()> {
    let backup = load_any(home, name)?;
    let path = home.backups().join(&backup.name);
    let hidden = home.backups().join(format!("{PARTIAL}{}", backup.name));
    let _claim = backup.claim(home, Claim::Alone)?;
    fs::rename(&path, &hidden).doing("remove", &path)?;
    note(Effect::Rename(&path, &hidden));
    durable::sync_dir(home.backups())?;
    // A crash leaves the rest to the next sweep.
    fs::remove_dir_all(&hidden).doing("remove", &hidden)?;
    note(Effect::Remove(&hidden));
    Ok(())
}

/// Removes what `names` are, which must all be there; `needed` must not be among them.
///
/// # Errors
/// As [`remove`]; [`Kind::NotMet`] for the one that is needed.
pub fn remove_named(home: &Home, names: &[String], needed: Option<&str>) -> Result<()> {
    for name in names {
        let backup = load_any(home, name)?;
        if needed == Some(&*backup.name) {
            let what = format!("backup {name} is needed by the upgrade or rollback under way");
            return Err(Error::new(Kind::NotMet, what).hint("it can be removed when that has ended"));
        }
    }
    names.iter().try_for_each(|name| remove(home, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::backup::manifest::{VERSION, name_of};
    use std::time::Duration;

    /// The label is kept as the version of the node; its first letter is the upgrade.
    fn backup(label: &str, days_old: u64, made_by: MadeBy) -> Backup {
        let time = rfc3339(now() - Duration::from_secs(days_old * 86_400));
        let upgrade = label[..1].parse().unwrap();
        let name = name_of(&upgrade, &time);
        let manifest = Manifest {
            version: VERSION,
            upgrade,
            made_by,
            time,
            took_ms: 0,
            source: "/d".into(),
            head: None,
            node: Some(label.to_owned()),
            bytes: 0,
            tree: None,
            left_out: Vec::new(),
            damaged: None,
            entries: Vec::new(),
        };
        Backup { name, manifest }
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000)
    }

    fn outdated_by(
        backups: &[Backup],
        keep: usize,
        max_days: Option<u64>,
        needed: Option<&str>,
    ) -> Vec<String> {
        let max_age = max_days.map(|days| Duration::from_secs(days * 86_400));
        let is_needed = |backup: &&Backup| backup.manifest.node.as_deref() == needed;
        let needed: Vec<String> =
            backups.iter().filter(is_needed).map(|backup| backup.name.clone()).collect();
        let outdated = outdated(backups, &Options { keep, max_age, ..Options::plain() }, &needed, now());
        let found = backups.iter().filter(|backup| outdated.contains(&backup.name));
        found.filter_map(|backup| backup.manifest.node.clone()).collect()
    }

    #[test]
    fn the_newest_stay_and_those_of_the_operator_too() {
        let (upgrade, operator) = (MadeBy::Upgrade, MadeBy::Operator);
        let mut all = [
            backup("a", 50, upgrade),
            backup("b", 40, operator),
            backup("c", 30, upgrade),
            backup("d", 20, upgrade),
            backup("e", 10, upgrade),
        ];
        assert_eq!(outdated_by(&all, 2, None, None), ["a", "c"]);
        assert_eq!(outdated_by(&all, 2, None, Some("c")), ["a"]);
        assert_eq!(outdated_by(&all, 9, None, None), [] as [&str; 0]);
        assert_eq!(outdated_by(&all, 9, Some(25), None), ["a", "c"]);
        // However old it is, one stays; and a damaged one is none.
        assert_eq!(outdated_by(&all, 1, Some(1), None), ["a", "c", "d"]);
        // The tries of one upgrade count once, and the last one stays.
        let tries = ["v1", "w1", "x1", "x2"]
            .into_iter()
            .zip([40, 30, 20, 10])
            .map(|(name, days)| backup(name, days, upgrade));
        let mut tries: Vec<Backup> = tries.collect();
        assert_eq!(outdated_by(&tries, 2, None, None), ["v1", "x1"]);
        assert_eq!(outdated_by(&tries, 3, None, None), ["x1"]);
        tries[3].manifest.damaged = Some("it is".to_owned());
        assert_eq!(outdated_by(&tries, 2, None, None), ["v1"]);
        all[4].manifest.damaged = Some("it is".to_owned());
        assert_eq!(outdated_by(&all, 1, Some(1), None), ["a", "c", "e"]);
        // A copy that the operator has put beside one is no try of its upgrade, and stays.
        let copy = Backup { name: "golden".to_owned(), ..backup("e", 10, upgrade) };
        let copied = [backup("a", 50, upgrade), backup("e", 10, upgrade), copy];
        assert_eq!(outdated_by(&copied, 1, None, None), ["a"]);
    }
}
