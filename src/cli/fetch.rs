//! `upgrade fetch`: the download that `run` does by itself, by hand, with a progress bar.

use super::args::Format;
use super::logger::show_warnings;
use super::output;
use super::terminal::on_signals;
use super::upgrade::refresh;
use crate::config::{Config, DownloadUrls};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::home::{Home, Manifest};
use crate::machine::{Origin, Target, Upgrade};
use crate::name::Name;
use crate::schedule::Planned;
use crate::upgrade::download::progress::Meter;
use crate::upgrade::download::{Order, Progress, RetryAfter};
use crate::upgrade::{Cancel, install, prepare};
use rustix::termios::tcgetwinsize;
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The binary that the operator wants fetched.
#[derive(Debug, PartialEq)]
pub(super) struct Wanted {
    pub(super) name: Name,
    pub(super) url: Option<String>,
    pub(super) digest: Option<Digest>,
    pub(super) format: Format,
}

pub(super) fn fetch(config: &Config, home: &Home, wanted: Wanted) -> Result<()> {
    let (mut config, format) = (config.clone(), wanted.format);
    if wanted.url.is_some() {
        // A URL on the command line replaces the configured mirrors.
        config.download_urls = DownloadUrls::default();
    }
    let upgrade = upgrade(home, wanted)?;
    let target = Target::Upgrade(upgrade.name.clone());
    show_warnings();
    match install::verify(home, &target, upgrade.digest.as_ref()) {
        Ok(manifest) => return show(home, &upgrade.name, &manifest, "was staged already", format),
        Err(e) if e.kind() == Kind::NotFound => {}
        // It is whole, so the operator wants it there: it is not moved.
        Err(e) if install::verify(home, &target, None).is_ok() => {
            let hint = format!("to replace it, remove {}", home.upgrade(&upgrade.name).display());
            return Err(Error::new(Kind::Failed, "another binary is staged").because(e).hint(hint));
        }
        Err(e) => prepare::put_aside(&config, home, &upgrade, e)?,
    }
    let cancel = cancelled_by_signals()?;
    let manifest = match with_bar(&config, home, &upgrade, &cancel) {
        Err(_) if cancel.is_cancelled() => {
            let what = "interrupted; what has arrived is kept, and the next fetch goes on from there";
            return Err(Error::new(Kind::Failed, what));
        }
        fetched => fetched?,
    };
    refresh(home, Some(&upgrade.name));
    show(home, &upgrade.name, &manifest, "is staged", format)
}

/// The upgrade as it is planned, with the URL and digest of the command line.
fn upgrade(home: &Home, wanted: Wanted) -> Result<Upgrade> {
    let Wanted { name, url, digest, .. } = wanted;
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
    let path = home.binary(&Target::Upgrade(name.clone()));
    output(format, &json!({"name": name, "path": path, "manifest": manifest}), || {
        format!("{name} {what}: {} from {}\n", manifest.sha256, manifest.source)
    })
}

/// Fetches and stages the binary of an upgrade, with its progress on stderr.
pub(super) fn with_bar(config: &Config, home: &Home, upgrade: &Upgrade, cancel: &Cancel) -> Result<Manifest> {
    let mut bar = Bar::default();
    let order = Order { home, upgrade, urls: &config.download_urls };
    let progress = &mut |progress: Progress<'_>| bar.update(&progress);
    prepare::fetch(config, &order, RetryAfter::default(), progress, cancel)
}

/// A token that Ctrl-C and SIGTERM cancel.
pub(super) fn cancelled_by_signals() -> Result<Cancel> {
    let cancel = Cancel::new().map_err(|e| Error::new(Kind::Io, "make an event").because(e))?;
    let token = cancel.clone();
    on_signals(&[SIGINT, SIGTERM], move |_| token.cancel())?;
    Ok(cancel)
}

/// Shows a download on stderr: a bar on a terminal, elsewhere a line every few seconds.
struct Bar {
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

    fn update(&mut self, progress: &Progress<'_>) {
        // A warning is logged for it.
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
        // A bar that cannot be drawn does not end the download.
        let _ = if self.terminal {
            let columns = tcgetwinsize(&stderr).map_or(80, |size| usize::from(size.ws_col).max(20));
            write!(stderr, "\r\x1b[K{}", self.meter.bar(columns - 1)).and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{}", self.meter.line())
        };
        self.drawn = true;
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.terminal && self.drawn {
            let _ = writeln!(io::stderr());
        }
    }
}
