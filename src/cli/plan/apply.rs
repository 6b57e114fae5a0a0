//! `plan apply`: a file that a configuration manager distributes becomes the plan that is followed, however often.

use super::{Situation, execute, plans};
use crate::cli::print;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::force::Force;
use crate::home::Home;
use crate::schedule::{Activation, Plan, read_file};
use std::path::Path;

/// Makes or changes the plan that the file describes, and follows it. Nothing changes where the same is in force.
///
/// # Errors
/// [`Kind::Failed`] if the operator has paused it; [`Kind::NotMet`] if an upgrade would begin at once; otherwise as `plan execute`. The plan that was followed before is
/// followed on then.
pub(super) fn apply(config: &Config, home: &Home, file: &Path, force: Force) -> Result<()> {
    let new = read_file(file)?;
    let name = new.plan.name.clone();
    let known = match plans(home).load(&name) {
        Ok(known) => Some(known),
        Err(e) if e.kind() == Kind::NotFound => None,
        Err(e) => return Err(e),
    };
    let activation = match &known {
        Some(known) => Situation::look(config, home)?.activation(known),
        None => Activation::Inactive,
    };
    if activation == Activation::Paused {
        let hint = format!("let it go on first: wemixvisor plan resume {name}");
        return Err(Error::new(Kind::Failed, format!("plan {name} is paused")).hint(hint));
    }
    let is_same = known.as_ref().is_some_and(|known| is_same(&known.plan, &new.plan));
    if is_same && activation == Activation::Active {
        return print(&format!("plan {name} is in force already\n"));
    }
    // Before the file changes, since the old plan is not followed from then on.
    let world = execute::check(config, home, &new, force)?;
    // A configuration manager applies it, and no person would read a warning.
    if let Some(entry) = world.begins_at_once(&new.plan).filter(|_| !force.is_given()) {
        let what = format!("{} would begin at once: its height {} has come", entry.name, entry.height);
        return Err(Error::new(Kind::NotMet, what).hint("give it a height to come, or add --force"));
    }
    if !is_same {
        plans(home).save(&new.plan)?;
    }
    execute::follow(config, home, &plans(home).load(&name)?)
}

/// Whether two plans are the same but for the time at which they were made.
fn is_same(one: &Plan, other: &Plan) -> bool {
    Plan { created_at: other.created_at.clone(), ..one.clone() } == *other
}
