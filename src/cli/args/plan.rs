//! The part of the command line that is about plans.

use super::values::positive;
use super::{
    Format, entry, format, free, free_if_any, misused, name, opt, opt_free, parsed, subcommand, timeout,
    unknown,
};
use crate::error::Result;
use crate::force::Force;
use crate::name::Name;
use crate::schedule::Entry;
use pico_args::Arguments;
use std::path::PathBuf;
use std::time::Duration;

/// A command about plans.
#[derive(Debug, PartialEq)]
pub(crate) enum PlanCommand {
    Create(Box<NewPlan>),
    AddUpgrade { plan: Name, entry: Box<Entry> },
    RemoveUpgrade { plan: Name, upgrade: Name },
    Validate { name_or_file: PathBuf, format: Format },
    Show(Format, Name),
    List(Format),
    Execute { plan: Name, force: Force },
    Apply { file: PathBuf, force: Force },
    Pause(Name),
    Resume(Name),
    Remove(Name),
    Status { plan: Option<Name>, format: Format, watch: bool },
    Wait { plan: Name, timeout: Option<Duration> },
}

/// The parts of a new plan.
#[derive(Debug, PartialEq)]
pub(crate) struct NewPlan {
    pub(crate) name: Name,
    pub(crate) description: Option<String>,
    pub(crate) chain_id: Option<u64>,
    pub(crate) from: Option<PathBuf>,
    pub(crate) upgrades: Vec<Entry>,
    /// Whether it is made although a fork is too near.
    pub(crate) force: Force,
}

pub(super) fn plan(args: &mut Arguments) -> Result<PlanCommand> {
    let sub = subcommand(args, "plan")?;
    let word = &format!("plan {sub}");
    Ok(match sub.as_str() {
        "create" => PlanCommand::Create(Box::new(create(args, word)?)),
        "add-upgrade" => {
            let mut plan = None;
            let entry = entry(args, word, |args| {
                plan = Some(free(args, word, "PLAN", name)?);
                free(args, word, "NAME:HEIGHT", str::parse::<Entry>)
            })?;
            let plan = plan.ok_or_else(|| misused(word, "PLAN is missing"))?;
            PlanCommand::AddUpgrade { plan, entry: Box::new(entry) }
        }
        "remove-upgrade" => PlanCommand::RemoveUpgrade {
            plan: free(args, word, "PLAN", name)?,
            upgrade: free(args, word, "NAME", name)?,
        },
        "validate" => {
            let format = format(args);
            let name_or_file =
                opt_free(args, word)?.ok_or_else(|| misused(word, "NAME or FILE is missing"))?;
            PlanCommand::Validate { name_or_file, format }
        }
        "show" => PlanCommand::Show(format(args), free(args, word, "NAME", name)?),
        "list" => PlanCommand::List(format(args)),
        "execute" => {
            PlanCommand::Execute { force: super::force(args), plan: free(args, word, "NAME", name)? }
        }
        "apply" => {
            let force = super::force(args);
            let file = opt_free(args, word)?.ok_or_else(|| misused(word, "FILE is missing"))?;
            PlanCommand::Apply { file, force }
        }
        "pause" => PlanCommand::Pause(free(args, word, "NAME", name)?),
        "resume" => PlanCommand::Resume(free(args, word, "NAME", name)?),
        "remove" => PlanCommand::Remove(free(args, word, "NAME", name)?),
        "status" => {
            let (format, watch) = (format(args), args.contains("--watch"));
            PlanCommand::Status { plan: free_if_any(args, word, "NAME", name)?, format, watch }
        }
        "wait" => PlanCommand::Wait {
            timeout: opt(args, word, "--timeout", timeout)?,
            plan: free(args, word, "NAME", name)?,
        },
        _ => return Err(unknown(word)),
    })
}

fn create(args: &mut Arguments, word: &str) -> Result<NewPlan> {
    let description = opt(args, word, "--description", parsed)?;
    let chain_id = opt(args, word, "--chain-id", chain_id)?;
    let from = opt(args, word, "--from", parsed)?;
    let force = super::force(args);
    let name = free(args, word, "NAME", name)?;
    let mut upgrades = Vec::new();
    while let Some(entry) = free_if_any(args, word, "NAME:HEIGHT", str::parse::<Entry>)? {
        upgrades.push(entry);
    }
    Ok(NewPlan { name, description, chain_id, from, upgrades, force })
}

fn chain_id(text: &str) -> Result<u64, String> {
    positive(text, "the id of a chain")
}

#[cfg(test)]
mod tests {
    use super::super::{Command, parse};
    use super::*;
    use crate::digest::Digest;
    use crate::error::Kind;
    use std::ffi::OsString;

    fn read(line: &str) -> Result<PlanCommand> {
        match parse(line.split_whitespace().map(OsString::from).collect())?.command {
            Command::Plan(command) => Ok(command),
            other => panic!("{other:?}"),
        }
    }

    fn named(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn a_plan_is_made_of_a_file_and_of_words() {
        let PlanCommand::Create(new) =
            read("plan create p v2:100 --description spring --from=f.json v3:200 --chain-id 1112").unwrap()
        else {
            panic!()
        };
        let upgrades: Vec<_> = new.upgrades.iter().map(|e| (e.name.as_str(), e.height)).collect();
        assert_eq!(upgrades, [("v2", 100), ("v3", 200)]);
        assert_eq!((new.name, new.description.as_deref()), (named("p"), Some("spring")));
        assert_eq!((new.from, new.chain_id), (Some("f.json".into()), Some(1112)));
    }

    #[test]
    fn an_upgrade_of_a_plan_has_the_options_of_a_scheduled_one() {
        let hex = Digest::sha256(b"x").hex();
        let line = format!(
            "plan add-upgrade p v2:100 --fork-height 200 --deadline-height 150 --sha256 {hex} --info hi \
             --url linux/amd64=https://x/a --url https://x/b --data-incompatible"
        );
        let PlanCommand::AddUpgrade { plan, entry } = read(&line).unwrap() else { panic!() };
        assert_eq!((plan, entry.name.as_str(), entry.height), (named("p"), "v2", 100));
        assert_eq!((entry.fork_height, entry.deadline_height), (Some(200), Some(150)));
        assert_eq!((entry.digest, entry.data_compat), (Some(Digest::sha256(b"x")), Some(false)));
        let places: Vec<_> = entry.binaries.iter().collect();
        assert_eq!(places, [("any", "https://x/b"), ("linux/amd64", "https://x/a")]);
    }

    #[test]
    fn status_is_of_one_plan_or_of_all() {
        let all = PlanCommand::Status { plan: None, format: Format::Json, watch: false };
        assert_eq!(read("plan status --json").unwrap(), all);
        let one = PlanCommand::Status { plan: Some(named("p")), format: Format::Text, watch: true };
        assert_eq!(read("plan status --watch p").unwrap(), one);
        let wait = PlanCommand::Wait { plan: named("p"), timeout: Some(Duration::from_secs(90)) };
        assert_eq!(read("plan wait p --timeout 1m30s").unwrap(), wait);
    }

    #[test]
    fn wrong_usage_names_the_command_that_was_meant() {
        for (line, synopsis) in [
            ("plan", "plan create NAME"),
            ("plan excute p", "plan execute"),
            ("plan create", "plan create NAME"),
            ("plan create ../p", "plan create NAME"),
            ("plan create p v2", "plan create NAME"),
            ("plan create p v2:0", "plan create NAME"),
            ("plan add-upgrade p", "plan add-upgrade PLAN NAME:HEIGHT"),
            ("plan add-upgrade p v2:5 --url", "plan add-upgrade PLAN"),
            ("plan add-upgrade p v2:5 --sha512 abc", "plan add-upgrade PLAN"),
            ("plan execute p q", "plan execute NAME"),
            ("plan wait p --timeout soon", "plan wait NAME"),
            ("wait-height", "wait-height HEIGHT"),
            ("wait-height x", "wait-height HEIGHT"),
        ] {
            let err = read(line).unwrap_err();
            assert_eq!(err.kind(), Kind::Usage, "{line}: {err}");
            assert!(err.to_string().contains(synopsis), "{line}: {err}");
        }
    }
}
