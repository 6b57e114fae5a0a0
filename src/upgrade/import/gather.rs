//! Settings, plans and hook that another supervisor has left beside its binaries. All of it is read before anything is
//! changed, and written into the home before the journal, so that a home that runs has all of it.
//!
//! Upgrades that were planned become plans, which do nothing until the operator executes them: whether their heights
//! have passed, and whether that is wanted, is known then.

use super::settings::{Program, Settings};
use crate::config::{Config, Key};
use crate::error::{Error, Result};
use crate::home::{Home, durable, regular};
use crate::machine::Ended;
use crate::name::Name;
use crate::schedule::{Plan, Plans, trigger};
use crate::upgrade::init::{Line, Report};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Larger than any file that is read here.
const LIMIT: u64 = 4 << 20;
/// The name of a hook that was copied.
const HOOK: &str = "imported-pre-upgrade";
/// The files of the Go wemixvisor that may hold its settings, below the home; the first one that is there counts.
const GO_FILES: [&str; 5] = [
    "wemixvisor/config/wemixvisor.toml",
    "wemixvisor/wemixvisor.toml",
    "wemixvisor/config.toml",
    "config/wemixvisor.toml",
    "wemixvisor.toml",
];

/// Everything that was found, and the lines that report it.
#[derive(Debug, Default)]
pub struct Gathered {
    /// The text of our configuration file.
    pub(super) config: String,
    hook: Option<PathBuf>,
    plans: Vec<Found>,
    /// Files among our plans that would be taken for plans of ours.
    aside: Vec<PathBuf>,
    of_settings: Vec<Line>,
    lines: Vec<Line>,
}

/// A plan that was found.
#[derive(Debug)]
struct Found {
    plan: Plan,
    /// The file that has it, as seen from the home.
    place: String,
}

impl Gathered {
    /// Looks for all of it. `given` are the keys that the command was given.
    #[must_use]
    pub fn read(home: &Home, given: &[(&'static Key, Value)], env: &[(OsString, OsString)]) -> Gathered {
        let foreign = super::foreign(home);
        let program = if home.dir().is_dir() { Program::Go } else { Program::Cosmovisor };
        let mut gathered = Gathered::default();
        let files = match program {
            Program::Go => GO_FILES.iter().map(|name| home.root().join(name)).collect(),
            Program::Cosmovisor => vec![foreign.join("config.toml")],
        };
        let file = files.into_iter().find(|path| fs::symlink_metadata(path).is_ok());
        let text = file.as_deref().and_then(|path| gathered.slurp(path));
        let place = file.as_deref().map(|path| below(home, path)).unwrap_or_default();
        let file = text.as_deref().map(|text| (&*place, text));
        let mut settings = Settings::read(home.root(), file, env, program);
        match program {
            Program::Go => gathered.go_plans(home),
            Program::Cosmovisor => {
                gathered.find_hook(home, &foreign, &mut settings);
                gathered.batch(home, settings.keeps_case);
                gathered.others(home, &foreign);
            }
        }
        gathered.of_settings = settings.lines;
        gathered.config = Config::template(&[given, &settings.values].concat());
        gathered
    }

    /// The height at which an upgrade was planned.
    pub(super) fn height(&self, name: &Name) -> Option<u64> {
        let entries = self.plans.iter().flat_map(|found| &found.plan.upgrades);
        entries.filter(|entry| entry.name == *name).map(|entry| entry.height).next()
    }

    /// Writes plans and hook into the home, which has its configuration file already: ours, or another.
    ///
    /// # Errors
    /// If something cannot be written.
    pub(super) fn write(self, home: &Home, ended: &[Ended], is_new: bool, report: &mut Report) -> Result<()> {
        if is_new {
            report.lines.extend(self.of_settings);
        } else if !self.of_settings.is_empty() {
            let why = "config.yaml was there already, so no setting was taken into it";
            report.lines.push(Line::Left(format!("settings of the other supervisor: {why}")));
        }
        report.lines.extend(self.lines);
        if let Some(hook) = self.hook {
            let place = home.dir().join(HOOK);
            let bytes = regular::read(&hook, LIMIT).map_err(|e| Error::io("read", &hook, e))?;
            durable::put(&place, &bytes, 0o700)?;
        }
        for found in self.plans {
            found.write(home, ended, report);
        }
        for source in self.aside {
            let mut aside = source.clone().into_os_string();
            aside.push(".imported");
            durable::promote(&source, Path::new(&aside))?;
        }
        Ok(())
    }

    /// The text of a file; `None`, and a line that says so, where it cannot be read.
    fn slurp(&mut self, path: &Path) -> Option<String> {
        let read = regular::read(path, LIMIT).map_err(|e| e.to_string());
        let text = read.and_then(|bytes| String::from_utf8(bytes).map_err(|e| e.to_string()));
        text.map_err(|why| self.lines.push(Line::Left(format!("{}: {why}", path.display())))).ok()
    }

    /// The hook that Cosmovisor runs, which is copied, since its directory may be removed some day.
    fn find_hook(&mut self, home: &Home, foreign: &Path, settings: &mut Settings) {
        let unused = foreign.join("preupgrade.sh");
        let Some(name) = settings.hook.take() else {
            if unused.exists() {
                let why = "COSMOVISOR_CUSTOM_PREUPGRADE does not name it, so Cosmovisor did not run it; \
                           to have it run, set daemon_preupgrade";
                self.lines.push(Line::Left(format!("{}: {why}", below(home, &unused))));
            }
            return;
        };
        let hook = foreign.join(name.trim_start_matches('/'));
        let place = format!("{}/{HOOK}", Home::DIR);
        let is_file = fs::metadata(&hook).is_ok_and(|meta| meta.is_file());
        let key = crate::config::keys::named("daemon_preupgrade").expect("the table has it");
        if is_file && !settings.values.iter().any(|(known, _)| known.name == key.name) {
            settings.lines.push(Line::Taken(format!("{} as daemon_preupgrade: {place}", below(home, &hook))));
            settings.values.push((key, place.into()));
            self.hook = Some(hook);
        } else {
            let why = if is_file { "daemon_preupgrade has a value already" } else { "there is no such file" };
            self.lines.push(Line::Left(format!("{}: {why}", below(home, &hook))));
        }
    }

    /// The upgrades that were given to Cosmovisor all at once.
    fn batch(&mut self, home: &Home, keeps_case: bool) {
        let mut source = home.trigger().into_os_string();
        source.push(".batch");
        let source = PathBuf::from(source);
        if fs::symlink_metadata(&source).is_err() {
            return;
        }
        let Some(text) = self.slurp(&source) else { return };
        let name: Name = "cosmovisor".parse().expect("it is a name");
        let read = serde_json::from_str::<Vec<Box<RawValue>>>(&text).map_err(|e| e.to_string());
        match read
            .and_then(|upgrades| plan_of(Plan::new(name, "upgrade-info.json.batch of Cosmovisor"), &upgrades))
        {
            Ok(mut plan) => {
                for entry in plan.upgrades.iter_mut().filter(|_| !keeps_case) {
                    let lower = entry.name.as_str().to_ascii_lowercase();
                    entry.name = lower.parse().expect("a name in lower case is a name");
                }
                self.plans.push(Found { plan, place: below(home, &source) });
            }
            Err(why) => self.lines.push(Line::Left(format!("{}: {why}", below(home, &source)))),
        }
    }

    /// The plans of the Go wemixvisor: `NAME-YYYYMMDD-HHMMSS.json`, of which the newest of a name counts.
    fn go_plans(&mut self, home: &Home) {
        let Ok(entries) = fs::read_dir(home.plans()) else { return };
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        // Names of files end with their time, so the last one of a name is the newest.
        for source in files.into_iter().rev() {
            let stem = source.file_name().and_then(|name| name.to_str()?.strip_suffix(".json"));
            let Some(name) = stem.and_then(without_date).map(str::to_owned) else { continue };
            let newer = self.plans.iter().find(|found| found.plan.name.as_str() == name);
            if let Some(newer) = newer {
                let why = format!("{} is the newer one", newer.place);
                self.lines.push(Line::Left(format!("{}: {why}", below(home, &source))));
                self.aside.push(source);
                continue;
            }
            let Some(text) = self.slurp(&source) else { continue };
            match serde_json::from_str::<GoPlan>(&text).map_err(|e| e.to_string()).and_then(GoPlan::plan) {
                Ok(plan) => {
                    self.plans.push(Found { plan, place: below(home, &source) });
                    self.aside.push(source);
                }
                Err(why) => self.lines.push(Line::Left(format!("{}: {why}", below(home, &source)))),
            }
        }
    }

    /// The rest of the directory of Cosmovisor, and its backups.
    fn others(&mut self, home: &Home, foreign: &Path) {
        let known = ["genesis", "upgrades", "current", "config.toml", "preupgrade.sh"];
        let hook = self.hook.clone();
        let is_other = |path: &PathBuf| {
            Some(path) != hook.as_ref() && path.file_name().is_some_and(|n| !known.iter().any(|k| n == *k))
        };
        let is_backup = |path: &PathBuf| {
            path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"data-backup-"))
        };
        let list = |dir: &Path| {
            let paths = fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
            let mut paths: Vec<PathBuf> = paths.collect();
            paths.sort();
            paths
        };
        for path in list(foreign).iter().filter(|path| is_other(path)) {
            self.lines.push(Line::Left(format!(
                "{}: it is no part of what Cosmovisor lays out",
                below(home, path)
            )));
        }
        for path in list(home.root()).iter().filter(|path| is_backup(path)) {
            self.lines.push(Line::Left(format!("{}: no command here puts it back", below(home, path))));
        }
    }
}

impl Found {
    fn write(mut self, home: &Home, ended: &[Ended], report: &mut Report) {
        let place = &self.place;
        for done in self.plan.upgrades.extract_if(.., |entry| ended.iter().any(|e| e.name == entry.name)) {
            report.lines.push(Line::Left(format!("{place}: upgrade {}: it was applied already", done.name)));
        }
        let name = &self.plan.name;
        if self.plan.upgrades.is_empty() {
            report.lines.push(Line::Left(format!("{place}: no upgrade in it is to come")));
        } else if let Err(e) = Plans::new(home.plans()).create(&self.plan) {
            report.lines.push(Line::Left(format!("{place}: {e}")));
        } else {
            let count = self.plan.upgrades.len();
            report.lines.push(Line::Taken(format!(
                "{place} as plan {name}, of {count}: it does nothing until you run `wemixvisor plan execute {name}`"
            )));
        }
    }
}

/// A plan as the Go wemixvisor writes it.
#[derive(Deserialize)]
struct GoPlan {
    name: Name,
    #[serde(default)]
    description: String,
    #[serde(default)]
    created_at: String,
    upgrades: Vec<Box<RawValue>>,
}

impl GoPlan {
    fn plan(self) -> std::result::Result<Plan, String> {
        let mut plan = Plan::new(self.name, self.description);
        if !self.created_at.is_empty() {
            plan.created_at = self.created_at;
        }
        plan_of(plan, &self.upgrades)
    }
}

/// The plan with these upgrades, each of which is written like a trigger file. One that cannot be read spoils the plan:
/// one upgrade less is another plan.
fn plan_of(mut plan: Plan, upgrades: &[Box<RawValue>]) -> std::result::Result<Plan, String> {
    for (index, upgrade) in upgrades.iter().enumerate() {
        let entry = trigger::entry(upgrade.get().as_bytes())
            .map_err(|why| format!("upgrade {}: {why}", index + 1))?;
        plan.add(entry);
    }
    Ok(plan)
}

/// The name before `-YYYYMMDD-HHMMSS`.
fn without_date(stem: &str) -> Option<&str> {
    let (rest, time) = stem.rsplit_once('-')?;
    let (name, day) = rest.rsplit_once('-')?;
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    (digits(day, 8) && digits(time, 6)).then_some(name)
}

/// A path as seen from the home.
fn below(home: &Home, path: &Path) -> String {
    path.strip_prefix(home.root()).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::import::{import, tests};
    use crate::upgrade::journal::Journal;
    use std::os::unix::fs::PermissionsExt as _;

    /// A home with genesis and v2 in `dir`, of which v2 is current.
    fn laid_out(dir: &str) -> (tempfile::TempDir, Home) {
        tests::laid_out(dir, Some("upgrades/v2"))
    }

    fn imported(home: &Home, env: &[(&str, &str)]) -> String {
        let env: Vec<_> = env.iter().map(|(n, v)| (OsString::from(n), OsString::from(v))).collect();
        import(home, Gathered::read(home, &[], &env)).unwrap().to_string()
    }

    #[track_caller]
    fn says(report: &str, lines: &[&str]) {
        for line in lines {
            assert!(report.contains(line), "{line}\n{report}");
        }
    }

    fn plan(home: &Home, name: &str) -> Vec<String> {
        let plan = Plans::new(home.plans()).load(&name.parse().unwrap()).unwrap().plan;
        plan.upgrades.iter().map(|e| format!("{}:{} {:?}", e.name, e.height, e.digest.is_some())).collect()
    }

    #[test]
    fn a_batch_of_cosmovisor_becomes_a_plan_that_waits() {
        let (_temp, home) = laid_out("cosmovisor");
        let sha = "0".repeat(64);
        let batch = format!(
            r#"[{{"name":"V4","height":"400"}},{{"name":"v2","height":200}},
                {{"name":"v3","height":300,"info":"{{\"sha256\":\"{sha}\"}}"}}]"#
        );
        fs::write(home.data().join("upgrade-info.json.batch"), batch).unwrap();
        let report = imported(&home, &[]);
        says(
            &report,
            &["upgrade v2: it was applied already", "as plan cosmovisor, of 2: it does nothing until"],
        );
        assert_eq!(plan(&home, "cosmovisor"), ["v3:300 true", "v4:400 false"]);
        assert_eq!(Journal::open(&home).unwrap().record.ended[0].height, 200, "as it was planned");
        assert!(!home.schedule().exists());
    }

    #[test]
    fn a_batch_that_cannot_be_read_is_reported_and_spoils_nothing() {
        for (batch, why) in [
            ("{", "invalid type"),
            (r#"[{"name":"v3","height":300},{"name":"../v4","height":400}]"#, "upgrade 2: "),
            (r#"[{"name":"v2","height":2}]"#, "no upgrade in it is to come"),
        ] {
            let (_temp, home) = laid_out("cosmovisor");
            fs::write(home.data().join("upgrade-info.json.batch"), batch).unwrap();
            says(&imported(&home, &[]), &["left  ", why]);
            assert!(
                Plans::new(home.plans()).list().unwrap().is_empty() && home.journal().exists(),
                "{batch}"
            );
        }
    }

    #[test]
    fn the_hook_of_cosmovisor_is_copied_and_everything_else_is_named() {
        let (temp, home) = laid_out("cosmovisor");
        let hook = temp.path().join("cosmovisor/pre.sh");
        fs::write(&hook, "#!/bin/sh").unwrap();
        fs::write(temp.path().join("cosmovisor/preupgrade.sh"), "").unwrap();
        fs::write(temp.path().join("cosmovisor/notes"), "").unwrap();
        fs::create_dir(temp.path().join("data-backup-2024-1-24")).unwrap();
        fs::write(temp.path().join("cosmovisor/config.toml"), "cosmovisor_custom_preupgrade = 'pre.sh'")
            .unwrap();
        let report = imported(&home, &[]);
        says(
            &report,
            &[
                "taken cosmovisor/pre.sh as daemon_preupgrade: wemixvisor/imported-pre-upgrade",
                "left  cosmovisor/notes: it is no part",
                "left  data-backup-2024-1-24: no command here",
                "note  the height of v2 is not on record",
            ],
        );
        let mode = fs::metadata(home.dir().join(HOOK)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let config = fs::read_to_string(home.config()).unwrap();
        assert!(config.contains("\ndaemon_preupgrade: wemixvisor/imported-pre-upgrade\n"), "{config}");
    }

    #[test]
    fn a_hook_that_nothing_names_or_that_is_missing_is_left_with_the_reason() {
        let (temp, home) = laid_out("cosmovisor");
        fs::write(temp.path().join("cosmovisor/preupgrade.sh"), "").unwrap();
        says(
            &imported(&home, &[]),
            &["left  cosmovisor/preupgrade.sh: COSMOVISOR_CUSTOM_PREUPGRADE does not name it"],
        );
        let (_temp, home) = laid_out("cosmovisor");
        says(
            &imported(&home, &[("COSMOVISOR_CUSTOM_PREUPGRADE", "none.sh")]),
            &["left  cosmovisor/none.sh: there is no such file"],
        );
    }

    #[test]
    fn the_newest_plan_of_each_name_of_the_go_wemixvisor_becomes_one_of_ours() {
        let (temp, home) = laid_out("wemixvisor");
        fs::create_dir(home.plans()).unwrap();
        let sha = "0".repeat(64);
        let text = |name: &str, height: u64| {
            format!(
                r#"{{"version":"1.0","name":"{name}","description":"d","created_at":"2025-01-01T00:00:00Z",
                    "upgrades":[{{"name":"v3","height":{height},"info":{{"checksum":"{sha}","binaries":{{"linux/amd64":"https://x/v3"}}}}}}]}}"#
            )
        };
        let write = |file: &str, text: &str| fs::write(home.plans().join(file), text).unwrap();
        write("a-b-20250101-000000.json", &text("a-b", 300));
        write("a-b-20250301-000000.json", &text("a-b", 350));
        write("bad-20250301-000000.json", "{}");
        write("mine.json", &text("mine", 400));
        fs::write(temp.path().join("wemixvisor.toml"), "max_restarts = 9").unwrap();
        let report = imported(&home, &[]);
        says(
            &report,
            &[
                "taken wemixvisor.toml:1: max_restarts as daemon_max_restarts: 9",
                "taken wemixvisor/plans/a-b-20250301-000000.json as plan a-b, of 1",
                "left  wemixvisor/plans/a-b-20250101-000000.json: wemixvisor/plans/a-b-20250301-000000.json is the newer one",
                "left  wemixvisor/plans/bad-20250301-000000.json: missing field",
            ],
        );
        assert_eq!(plan(&home, "a-b"), ["v3:350 true"]);
        let names = Plans::new(home.plans()).list().unwrap();
        let names: Vec<_> = names.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a-b", "bad-20250301-000000", "mine"]);
        assert!(home.plans().join("a-b-20250101-000000.json.imported").exists());
        assert!(home.plans().join("mine.json").exists());
    }

    #[test]
    fn a_configuration_that_is_there_already_is_kept_and_this_is_said() {
        let (_temp, home) = laid_out("wemixvisor");
        fs::write(home.config(), "log_level: debug\n").unwrap();
        says(
            &imported(&home, &[("DAEMON_MAX_RESTARTS", "9")]),
            &["config.yaml was there already, so no setting was taken"],
        );
        assert_eq!(fs::read_to_string(home.config()).unwrap(), "log_level: debug\n");
    }
}
