//! The durable primitives, each for itself.

use super::{bytes, make_dir, nothing_is_left, text, write};
use crate::crash::{Flow, step};
use crate::home::{Home, durable};
use std::fs;
use std::path::{Path, PathBuf};

const STEPS: usize = 6;

/// `put`: the old file or the new one.
pub(in crate::crash) const PUT: Flow = Flow {
    name: "put",
    share: 120,
    setup: |home| {
        durable::mkdir(&home.state()).unwrap();
        durable::put(&home.state().join("f"), &bytes(0), 0o600).unwrap();
    },
    run: |home, from| {
        for number in from..=STEPS {
            step(number, || durable::put(&home.state().join("f"), &bytes(number), 0o600).unwrap());
        }
    },
    law: |home, seen| {
        let found = fs::read(home.state().join("f")).map_err(text)?;
        seen.check("the file", (0..=STEPS).find(|number| found == bytes(*number)))?;
        nothing_is_left(home)
    },
};

/// `mkdir`, and a file in the new directory.
pub(in crate::crash) const MKDIR: Flow = Flow {
    name: "mkdir",
    share: 40,
    setup: |_| {},
    run: |home, from| {
        for number in from..=STEPS {
            step(number, || {
                let dir = nested(home, number);
                durable::mkdir(&dir).unwrap();
                durable::put(&dir.join("f"), &bytes(number), 0o600).unwrap();
            });
        }
    },
    law: |home, seen| {
        for number in 1..=STEPS {
            match fs::read(nested(home, number).join("f")) {
                Ok(found) if found == bytes(number) => {}
                Ok(_) => return Err(format!("file {number} is in parts")),
                Err(e) if number <= seen.acked => return Err(format!("file {number}: {e}")),
                Err(_) => {}
            }
        }
        Ok(())
    },
};

fn nested(home: &Home, number: usize) -> PathBuf {
    // Siblings, and directories in each other.
    home.dir().join(format!("{}/{}/{number}", number % 2, number % 3))
}

/// `link`: the old target or the new one.
pub(in crate::crash) const LINK: Flow = Flow {
    name: "link",
    share: 10,
    setup: |home| {
        durable::mkdir(&home.dir()).unwrap();
        durable::link(Path::new("0"), &home.current()).unwrap();
    },
    run: |home, from| {
        for number in from..=STEPS {
            step(number, || durable::link(Path::new(&number.to_string()), &home.current()).unwrap());
        }
    },
    law: |home, seen| {
        let found = fs::read_link(home.current()).map_err(text)?;
        seen.check("the link", found.to_str().and_then(|text| text.parse().ok()))?;
        nothing_is_left(home)
    },
};

/// `remove`: a file that was removed is gone, and the others are whole.
pub(in crate::crash) const REMOVE: Flow = Flow {
    name: "remove",
    share: 5,
    setup: |home| {
        durable::mkdir(&home.state()).unwrap();
        for number in 1..=STEPS {
            durable::put(&home.state().join(number.to_string()), &bytes(number), 0o600).unwrap();
        }
    },
    run: |home, from| {
        for number in from..=STEPS {
            step(number, || durable::remove(&home.state().join(number.to_string())).unwrap());
        }
    },
    law: |home, seen| {
        for number in 1..=STEPS {
            match fs::read(home.state().join(number.to_string())) {
                Ok(_) if number <= seen.acked => return Err(format!("file {number} has come back")),
                Ok(found) if found == bytes(number) => {}
                Ok(_) => return Err(format!("file {number} is in parts")),
                Err(e) if number > seen.begun => return Err(format!("file {number}: {e}")),
                Err(_) => {}
            }
        }
        Ok(())
    },
};

/// `promote`: a tree that was written without a sync is at its final name as a whole, or not at all.
pub(in crate::crash) const PROMOTE: Flow = Flow {
    name: "promote",
    share: 100,
    setup: |home| durable::mkdir(&home.upgrades()).unwrap(),
    run: |home, from| {
        for number in from..=3 {
            step(number, || {
                let to = home.upgrades().join(number.to_string());
                if to.exists() {
                    // It was killed behind the rename, and what it made is found.
                    return durable::sync_dir(&home.upgrades()).unwrap();
                }
                // One from the same directory, the others from another one.
                let beside = if number == 1 { to.clone() } else { home.dir().join(number.to_string()) };
                let temp = durable::temp_beside(&beside);
                make_dir(&temp);
                make_dir(&temp.join("d"));
                for file in ["a", "d/b"] {
                    write(&temp.join(file), &bytes(number));
                }
                durable::promote(&temp, &to).unwrap();
            });
        }
    },
    law: |home, seen| {
        for number in 1..=3 {
            let to = home.upgrades().join(number.to_string());
            if !to.exists() && number > seen.acked {
                continue;
            }
            for file in ["a", "d/b"] {
                let found = fs::read(to.join(file)).map_err(|e| format!("{number}/{file}: {e}"))?;
                if found != bytes(number) {
                    return Err(format!("{number}/{file} is in parts"));
                }
            }
        }
        nothing_is_left(home)
    },
};

/// `exchange`: one of two trees is at each of two names, at every moment.
pub(in crate::crash) const EXCHANGE: Flow = Flow {
    name: "exchange",
    share: 5,
    setup: |home| {
        for (number, dir) in ["one/a", "two/b"].into_iter().enumerate() {
            durable::mkdir(&home.dir().join(dir)).unwrap();
            durable::put(&home.dir().join(dir).join("f"), &bytes(number), 0o600).unwrap();
        }
    },
    run: |home, from| {
        let (a, b) = (home.dir().join("one/a"), home.dir().join("two/b"));
        for number in from..=4 {
            // Killed behind the exchange, it must not be done twice.
            let content = fs::read(a.join("f")).unwrap();
            step(number, || match content == bytes(number % 2) {
                true => durable::sync_dir(a.parent().unwrap()).unwrap(),
                false => durable::exchange(&a, &b).unwrap(),
            });
        }
    },
    law: |home, seen| {
        let read = |dir: &str| fs::read(home.dir().join(dir).join("f")).map_err(text);
        let (a, b) = (read("one/a")?, read("two/b")?);
        let exchanged = a == bytes(1);
        let pair = if exchanged { [bytes(1), bytes(0)] } else { [bytes(0), bytes(1)] };
        if [a, b] != pair {
            return Err("the two are not there as a whole".to_owned());
        }
        let step = (seen.acked..=seen.begun).find(|step| (step % 2 == 1) == exchanged);
        seen.check("the exchange", step)
    },
};
