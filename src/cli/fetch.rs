//! `upgrade fetch`: the download that `run` does by itself, by hand, with a progress bar.

use super::args::Format;
use super::logger::show_warnings;
use super::upgrade::refresh;
use super::{print, print_json};
use crate::config::{Config, DownloadUrls};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::home::{Home, Manifest};
use crate::machine::{Origin, Target, Upgrade};
use crate::name::Name;
use crate::schedule::Planned;
use crate::upgrade::download::progress::Meter;
use crate::upgrade::download::{Order, Progress, Rests};
use crate::upgrade::{Cancel, install, prepare};
use rustix::termios::tcgetwinsize;
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The binary that the operator wants fetched.
pub(super) struct Wanted {
    pub(super) name: Name,
    pub(super) url: Option<String>,
    pub(super) digest: Option<Digest>,
}

pub(super) fn fetch(config: &Config, home: &Home, wanted: Wanted, format: Format) -> Result<()> {
    let mut config = config.clone();
    if wanted.url.is_some() {
        // An operator who names a place asks about that place, not about other ones.
        config.download_urls = DownloadUrls::default();
    }
    let upgrade = upgrade(home, wanted)?;
    let target = Target::Upgrade(upgrade.name.clone());
    show_warnings();
    match install::verify(home, &target, upgrade.digest.as_ref()) {
        Ok(manifest) => return show(home, &upgrade.name, &manifest, "was staged already", format),
        Err(e) if e.kind() == Kind::NotFound => {}
        // A good one that the operator has put there is not ours to move.
        Err(e) if install::verify(home, &target, None).is_ok() => {
            let hint = format!("to replace it, remove {}", home.upgrade(&upgrade.name).display());
            return Err(Error::new(Kind::Failed, "another binary is staged").because(e).hint(hint));
        }
        Err(e) => prepare::put_aside(&config, home, &upgrade, e)?,
    }
    let cancel = cancelled_by_signals()?;
    let mut bar = Bar::default();
    let order = Order { home, upgrade: &upgrade, urls: &config.download_urls };
    let progress = &mut |progress: Progress<'_>| bar.update(&progress);
    let fetched = prepare::fetch(&config, &order, Rests::default(), progress, &cancel);
    bar.end();
    let manifest = match fetched {
        Err(_) if cancel.is_cancelled() => {
            let what = "interrupted; what has arrived is kept, and the next fetch goes on from there";
            return Err(Error::new(Kind::Failed, what));
        }
        fetched => fetched?,
    };
    refresh(home, Some(&upgrade.name));
    show(home, &upgrade.name, &manifest, "is staged", format)
}

/// The upgrade as it is planned, with what the operator says instead.
fn upgrade(home: &Home, wanted: Wanted) -> Result<Upgrade> {
    let Wanted { name, url, digest } = wanted;
    let planned = Planned::read(home).upgrade(&name)?;
    let mut upgrade = planned.map_or_else(|| Upgrade::new(name, 1, Origin::Schedule), Arc::unwrap_or_clone);
    if let Some(url) = url {
        upgrade.binaries = [("any", url)].into_iter().collect();
        upgrade.info = None;
    }
    upgrade.digest = digest.or(upgrade.digest);
    Ok(upgrade)
}

fn show(home: &Home, name: &Name, manifest: &Manifest, what: &str, format: Format) -> Result<()> {
    if format == Format::Json {
        let path = home.binary(&Target::Upgrade(name.clone()));
        return print_json(&json!({"name": name, "path": path, "manifest": manifest}));
    }
    print(&format!("{name} {what}: {} from {}\n", manifest.sha256, manifest.source))
}

/// A token that Ctrl-C and SIGTERM cancel.
pub(super) fn cancelled_by_signals() -> Result<Cancel> {
    let failed = |e| Error::new(Kind::Io, "catch signals").because(e);
    let cancel = Cancel::new().map_err(failed)?;
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let token = cancel.clone();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || signals.forever().for_each(|_| token.cancel()))
        .map_err(failed)?;
    Ok(cancel)
}

/// Shows a download on stderr: a bar on a terminal, a line now and then elsewhere.
pub(super) struct Bar {
    meter: Meter,
    begun: Instant,
    terminal: bool,
    drawn: bool,
}

impl Default for Bar {
    fn default() -> Self {
        Bar {
            meter: Meter::default(),
            begun: Instant::now(),
            terminal: io::stderr().is_terminal(),
            drawn: false,
        }
    }
}

impl Bar {
    const REDRAW: Duration = Duration::from_millis(100);
    const LINE: Duration = Duration::from_secs(5);

    pub(super) fn update(&mut self, progress: &Progress<'_>) {
        // There is a warning of it.
        if progress.trouble.is_some() {
            return;
        }
        let now = self.begun.elapsed();
        self.meter.update(now, progress);
        let done = progress.total == Some(progress.received);
        let every = if self.terminal { Self::REDRAW } else { Self::LINE };
        if self.meter.is_due(now, every) || done {
            self.draw();
        }
    }

    fn draw(&mut self) {
        let mut stderr = io::stderr().lock();
        // A progress that cannot be shown is no reason to stop.
        let _ = if self.terminal {
            let columns = tcgetwinsize(&stderr).map_or(80, |size| usize::from(size.ws_col).max(20));
            write!(stderr, "\r\x1b[K{}", self.meter.bar(columns - 1)).and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{}", self.meter.line())
        };
        self.drawn = true;
    }

    pub(super) fn end(&mut self) {
        if self.terminal && self.drawn {
            // Nothing is lost where this cannot be shown.
            let _ = writeln!(io::stderr());
        }
    }
}
