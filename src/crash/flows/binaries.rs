//! Binaries: staged with their manifest, replaced, put aside, and switched to.

use super::{nothing_is_left, text};
use crate::crash::{Flow, step};
use crate::error::Kind;
use crate::force::Force;
use crate::home::binary::tests::write_elf;
use crate::home::{Home, durable};
use crate::machine::Target;
use crate::upgrade::install::{self, digest_of};
use std::fs;
use std::path::{Path, PathBuf};

fn target(name: &str) -> Target {
    Target::Upgrade(name.parse().unwrap())
}

/// The file that the operator names, and its payload of some pages.
fn source(home: &Home, name: &str) -> PathBuf {
    home.root().join("sources").join(name)
}

fn sources(home: &Home, names: &[&str]) {
    for (number, name) in names.iter().enumerate() {
        write_elf(&source(home, name), &super::bytes(number + 1).repeat(2));
    }
}

/// Whether what is staged for `name` may be used, and is the file `of`.
fn is_staged(home: &Home, name: &str, of: &str) -> Result<bool, String> {
    let target = target(name);
    match install::verify(home, &target, None) {
        Ok(_) => {
            let same =
                fs::read(home.binary(&target)).map_err(text)? == fs::read(source(home, of)).map_err(text)?;
            Ok(same)
        }
        Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Verification | Kind::BadInput) => Ok(false),
        Err(e) => Err(text(e)),
    }
}

/// Staging: what is acknowledged verifies, and nothing verifies that is not one of the files as a whole.
pub(in crate::crash) const STAGE: Flow = Flow {
    name: "stage",
    share: 70,
    setup: |home| {
        durable::mkdir(&home.state()).unwrap();
        durable::mkdir(&home.dir().join("genesis")).unwrap();
        sources(home, &["one", "two", "three"]);
    },
    run: |home, from| {
        let add = |name, file, force| {
            install::add(home, &target(name), &source(home, file), force).unwrap();
        };
        let quarantine = || {
            // Done already by one that was killed.
            if home.binary(&target("v3")).exists() {
                install::quarantine(home, &"v3".parse().unwrap()).unwrap();
            } else {
                durable::sync_dir(&home.upgrades()).unwrap();
                durable::sync_dir(home.binary(&target("v3")).parent().unwrap()).unwrap();
            }
        };
        let steps: [&dyn Fn(); 4] = [
            &|| add("v2", "one", Force::Yes),
            &|| add("v3", "three", Force::Yes),
            &|| add("v2", "two", Force::Yes),
            &quarantine,
        ];
        for number in from..=steps.len() {
            step(number, steps[number - 1]);
        }
    },
    law: |home, seen| {
        let [one, two, three] =
            [("v2", "one"), ("v2", "two"), ("v3", "three")].map(|(name, file)| is_staged(home, name, file));
        let (one, two, three) = (one?, two?, three?);
        for (name, is_known) in [("v2", one || two), ("v3", three)] {
            if !is_known && install::verify(home, &target(name), None).is_ok() {
                return Err(format!("{name} verifies, and is none of the files"));
            }
        }
        let must = [
            ("v2 is the first file", one, (1..3).contains(&seen.acked) && seen.begun < 3),
            ("v2 is the second file", two, seen.acked >= 3),
            ("v3 is the third file", three, (2..4).contains(&seen.acked) && seen.begun < 4),
        ];
        for (what, is, must) in must {
            if must && !is {
                return Err(format!("it is not so that {what}"));
            }
        }
        if seen.acked >= 4 && three {
            return Err("v3 has come back".to_owned());
        }
        // A binary that was put aside stays, and under its name.
        let temporary = |dir: &Path| {
            fs::read_dir(dir)
                .into_iter()
                .flatten()
                .flatten()
                .any(|entry| entry.file_name().to_string_lossy().ends_with(".tmp"))
        };
        crate::upgrade::sweep::sweep(home).remove();
        for dir in ["v2", "v2/bin", "v3", "v3/bin"] {
            if temporary(&home.upgrades().join(dir)) {
                return Err(format!("the sweep leaves something in {dir}"));
            }
        }
        // A binary that does not verify can be staged again.
        if !one && !two && seen.begun >= 1 {
            install::add(home, &target("v2"), &source(home, "one"), Force::Yes).map_err(text)?;
            install::verify(home, &target("v2"), None).map_err(text)?;
        }
        Ok(())
    },
};

/// Staging and switching: `current` always leads to a binary that verifies (I1).
pub(in crate::crash) const SWITCH: Flow = Flow {
    name: "switch",
    share: 50,
    setup: |home| {
        durable::mkdir(&home.state()).unwrap();
        sources(home, &["v0", "v1", "v2", "v3"]);
        install::add(home, &target("v0"), &source(home, "v0"), Force::No).unwrap();
        durable::link(Path::new("upgrades/v0"), &home.current()).unwrap();
    },
    run: |home, from| {
        for number in from..=3 {
            let name = format!("v{number}");
            step(number, || {
                install::add(home, &target(&name), &source(home, &name), Force::No).unwrap();
                install::verify(home, &target(&name), None).unwrap();
                durable::link(&Path::new("upgrades").join(&name), &home.current()).unwrap();
            });
        }
    },
    law: |home, seen| {
        let current = home.read_current().map_err(text)?.target;
        let step = (0..=3).find(|number| current == target(&format!("v{number}")));
        seen.check("`current`", step)?;
        let manifest = install::verify(home, &current, None).map_err(text)?;
        let name = format!("v{}", step.unwrap_or_default());
        if manifest.sha256 != digest_of(&source(home, &name)).map_err(text)? {
            return Err("it is another binary".to_owned());
        }
        nothing_is_left(home)
    },
};
