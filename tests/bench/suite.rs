//! The time of `cargo test` after the build.

use super::rig::{Outcome, now, sh};
use super::table::{Budget, Row};

pub(crate) fn all() -> Outcome<Vec<Row>> {
    sh("cargo", &["test", "--quiet", "--locked", "--no-run"])?;
    let begun = now();
    sh("cargo", &["test", "--quiet", "--locked"])?;
    let took = (now() - begun) / 1e3;
    Ok(vec![Row::new("cargo test after the build", "s", vec![took]).budget(Budget::AtMost(90.0))])
}
