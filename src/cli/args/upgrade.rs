//! The part of the command line that is about upgrades.

use super::values::{height, name, parsed, place, timeout, url};
use super::{Command, binary, format, free, misused, opt, subcommand, unknown};
use crate::cli::fetch::Wanted;
use crate::cli::stage::New;
use crate::cli::upgrade::Consent;
use crate::error::Result;
use crate::schedule::{Entry, Finding, Report};
use pico_args::Arguments;
use serde_json::Map;

/// Reads a command about upgrades.
pub(super) fn upgrade(args: &mut Arguments) -> Result<Command> {
    let sub = subcommand(args, "upgrade")?;
    let word = format!("upgrade {sub}");
    Ok(match sub.as_str() {
        "schedule" => {
            let consent = Consent { now: super::consent(args, "--now"), force: super::force(args) };
            let entry = entry(args, &word, |args| {
                let name = free(args, &word, "NAME", name)?;
                Ok(Entry::new(name, free(args, &word, "HEIGHT", height)?))
            })?;
            Command::Schedule(Box::new(entry), consent)
        }
        "list" => Command::List(format(args)),
        "cancel" => Command::Cancel(free(args, &word, "NAME", name)?),
        "hold" => Command::Hold(free(args, &word, "NAME", name)?),
        "release" => Command::Release(free(args, &word, "NAME", name)?),
        "add" => {
            // Their values may look like flags of ours.
            let add_args = every(args, &word, "--add-arg")?;
            let drop_args = every(args, &word, "--drop-arg")?;
            let file = opt(args, &word, "--args", parsed)?;
            let force = super::force(args);
            let name = free(args, &word, "NAME", name)?;
            let binary = binary(args, &word)?.ok_or_else(|| misused(&word, "BINARY is missing"))?;
            Command::Add(Box::new(New { name, binary, force, args: file, add_args, drop_args }))
        }
        "show" => Command::Show(format(args), free(args, &word, "NAME", name)?),
        "fetch" => Command::Fetch(Wanted {
            url: opt(args, &word, "--url", url)?,
            digest: opt(args, &word, "--sha256", parsed)?,
            format: format(args),
            name: free(args, &word, "NAME", name)?,
        }),
        "wait" => Command::WaitUpgrade {
            timeout: opt(args, &word, "--timeout", timeout)?,
            name: free(args, &word, "NAME", name)?,
        },
        "remove" => {
            let force = super::force(args);
            Command::Unstage { name: free(args, &word, "NAME", name)?, force }
        }
        "now" => Command::Now(free(args, &word, "NAME", name)?),
        _ => return Err(unknown(&word)),
    })
}

/// The values of an option that may be given many times.
fn every(args: &mut Arguments, word: &str, flag: &'static str) -> Result<Vec<String>> {
    let mut values = Vec::new();
    while let Some(value) = opt(args, word, flag, parsed)? {
        values.push(value);
    }
    Ok(values)
}

/// An upgrade with all its options; `read` takes its name and height.
pub(super) fn entry(
    args: &mut Arguments,
    word: &str,
    read: impl FnOnce(&mut Arguments) -> Result<Entry>,
) -> Result<Entry> {
    let mut fields = Map::new();
    for (flag, key) in Entry::OPTIONS {
        let text: Option<String> = opt(args, word, flag, parsed)?;
        fields.extend(text.map(|text| (key.to_owned(), text.into())));
    }
    if args.contains("--data-incompatible") {
        fields.insert("data_compat".to_owned(), false.into());
    }
    let mut binaries = Map::new();
    while let Some((platform, url)) = opt(args, word, "--url", |text| Ok(place(text)))? {
        if binaries.insert(platform.clone(), url.into()).is_some() {
            return Err(misused(word, &format!("--url: there are two for {platform}")));
        }
    }
    fields.insert("binaries".to_owned(), binaries.into());
    let Entry { name, height, .. } = read(args)?;
    fields.insert("name".to_owned(), name.as_str().into());
    fields.insert("height".to_owned(), height.into());
    let fields = fields.into_iter().map(|(key, value)| (key, value.into())).collect();
    Entry::read(fields).map_err(|report| misused(word, &in_options(&report)))
}

/// The first thing that is wrong with an upgrade, with the option in which it stands.
fn in_options(report: &Report) -> String {
    let Some(Finding { pointer, what, .. }) = report.findings.first() else { return String::new() };
    let key = pointer.split('/').nth(1).unwrap_or_default();
    let option = Entry::OPTIONS.iter().find(|(_, known)| *known == key).map_or("--url", |(flag, _)| flag);
    format!("{option}: {what}")
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use crate::force::Force;

    #[test]
    fn arguments_of_a_version_may_look_like_flags_of_a_command() {
        let line = "upgrade add v2 b --add-arg --force --drop-arg --mine --add-arg --x=1";
        let Command::Add(new) = parse(line.split_whitespace().map(Into::into).collect()).unwrap().command
        else {
            panic!()
        };
        assert_eq!(
            (new.force, &new.add_args[..], &new.drop_args[..]),
            (Force::No, &["--force".to_owned(), "--x=1".to_owned()][..], &["--mine".to_owned()][..],)
        );
        // The node has a flag of this name as well as we.
        let line = "upgrade add v2 b --add-arg --config=n.toml --drop-arg --home --add-arg=--config";
        let invocation = parse(line.split_whitespace().map(Into::into).collect()).unwrap();
        let Command::Add(new) = invocation.command else { panic!() };
        assert_eq!((invocation.config, invocation.flags), (None, Vec::new()));
        assert_eq!(
            (new.add_args, new.drop_args),
            (vec!["--config=n.toml".to_owned(), "--config".to_owned()], vec!["--home".to_owned()])
        );
    }
}
