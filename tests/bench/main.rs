//! Measures every budget of the design on this machine: as ratios, in one run, to what public tools take for the same work.
//!
//! ```text
//! bench --visor FILE [--symbols FILE] [--rounds N] [--on here,ext4,xfs] [--json] [--check] [PART ...] [MIB ...]
//! ```
//! `scripts/bench` builds the programs and tells what the parts are. Only figures of one run can be compared: the machine may be
//! busy with something else. No test asserts a time; `--check` fails where the median of a run misses its budget.

mod backup;
mod download;
mod latency;
mod memory;
mod rig;
mod size;
mod suite;
mod table;

use rig::{Outcome, Setup};
use serde_json::json;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use table::Row;

/// The parts, in the order in which they are measured.
const PARTS: &[&str] = &["size", "latency", "death", "memory", "download", "backup", "tests"];

/// The words of the command line.
struct Wanted {
    setup: Setup,
    symbols: Option<PathBuf>,
    parts: Vec<String>,
    sizes: Vec<u64>,
    on: Vec<String>,
    json: bool,
    check: bool,
}

fn main() -> ExitCode {
    match wanted().and_then(|wanted| measure(&wanted)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(5),
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn wanted() -> Outcome<Wanted> {
    let simnode = std::env::current_exe()?.with_file_name("simnode");
    let setup = Setup { visor: PathBuf::new(), simnode, rounds: 5, dir: std::env::temp_dir() };
    let on = ["here", "ext4", "xfs"].map(str::to_owned).to_vec();
    let mut wanted =
        Wanted { setup, symbols: None, parts: Vec::new(), sizes: Vec::new(), on, json: false, check: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--visor" => wanted.setup.visor = value()?.into(),
            "--symbols" => wanted.symbols = Some(value()?.into()),
            "--rounds" => wanted.setup.rounds = value()?.parse()?,
            "--on" => wanted.on = value()?.split(',').map(str::to_owned).collect(),
            "--json" => wanted.json = true,
            "--check" => wanted.check = true,
            part if PARTS.contains(&part) => wanted.parts.push(word),
            size => {
                let size = size.parse().map_err(|_| format!("no such part, flag or size in MiB: {size}"))?;
                wanted.sizes.push(size);
            }
        }
    }
    if wanted.parts.is_empty() {
        wanted.parts = PARTS.iter().map(|part| (*part).to_owned()).collect();
    }
    if wanted.sizes.is_empty() {
        wanted.sizes = vec![100, 1024];
    }
    if !rustix::process::geteuid().is_root() {
        // Only root can mount.
        wanted.on.retain(|on| on == "here");
    }
    Ok(wanted)
}

/// Measures what is wanted; whether every budget is kept, where that is asked.
fn measure(wanted: &Wanted) -> Outcome<bool> {
    let mut rows = Vec::new();
    let mut out = std::io::stdout();
    for found in wanted.parts.iter().flat_map(|part| pieces(wanted, part)) {
        let found = found?;
        if !wanted.json {
            found.iter().try_for_each(|row| writeln!(out, "{}", row.line()))?;
        }
        rows.extend(found);
    }
    let missed = rows.iter().filter(|row| row.is_kept() == Some(false)).count();
    if wanted.json {
        writeln!(
            out,
            "{:#}",
            json!({"rows": rows.iter().map(Row::json).collect::<Vec<_>>(), "missed": missed})
        )?;
    } else {
        writeln!(out, "{} results, {missed} budgets missed", rows.len())?;
        if let Some(symbols) = &wanted.symbols {
            writeln!(out, "{}", size::by_crate(symbols)?)?;
        }
    }
    Ok(missed == 0 || !wanted.check)
}

/// The pieces of a part, each measured when it is asked for, so that its results are shown when it ends.
fn pieces<'a>(wanted: &'a Wanted, part: &'a str) -> Box<dyn Iterator<Item = Outcome<Vec<Row>>> + 'a> {
    let setup = &wanted.setup;
    if part == "backup" {
        let places = wanted.on.iter().flat_map(|kind| wanted.sizes.iter().map(move |mib| (kind, *mib)));
        return Box::new(places.map(|(kind, mib)| backup::all(setup, kind, mib)));
    }
    Box::new(std::iter::once_with(move || match part {
        "size" => size::all(&setup.visor),
        "latency" => latency::all(setup),
        "death" => latency::death(setup),
        "memory" => memory::all(setup),
        "download" => download::all(setup),
        _ => suite::all(),
    }))
}
