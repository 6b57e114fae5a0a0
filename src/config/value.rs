//! How a value is read and shown: one [`Setting`] per type, whatever source the text came from.
//!
//! The same reader serves file, environment, flags and the defaults of the key table, so that a value
//! means the same everywhere. Which keys there are is the business of [`super::keys`].

use crate::name::Name;
use crate::time::{parse_duration, show_duration};
use crate::url::redact;
use crate::wbft::{Address, Endpoint};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A value as it was written, of no type yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Raw {
    /// The line in the file; 0 where there are no lines.
    pub(super) line: usize,
    pub(super) data: Data,
}

/// The shape of a [`Raw`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    /// A key with nothing after it.
    Unset,
    Text(String),
    List(Vec<Raw>),
    Map(Vec<(String, Raw)>),
}

/// The problem with a value, and its line if that is another than the key's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) what: String,
}

/// The outcome of reading a value.
pub(super) type Read<T> = Result<T, Vec<Fault>>;

/// A type of which a key can be.
pub(super) trait Setting: Sized {
    /// The name of this type in the man page and in `config.yaml`.
    const KIND: &'static str;

    /// Reads a value; a relative path is taken from `base`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    fn read(raw: &Raw, base: &Path) -> Read<Self>;

    /// The value as JSON, in the form in which an operator would write it.
    fn show(&self) -> Value;

    /// The place of the value among others of its type, for types that a key may bound.
    fn rank(&self) -> Option<u128> {
        None
    }
}

/// A program and its arguments; empty where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Argv(pub Vec<String>);

impl Argv {
    /// The path of the program, if there is one.
    pub fn program(&self) -> Option<&Path> {
        self.0.first().map(Path::new)
    }
}

/// A number of bytes, written as `1GiB`, `500MB` or plain bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Raw {
    pub(super) fn text(text: impl Into<String>) -> Raw {
        Raw { line: 0, data: Data::Text(text.into()) }
    }

    /// The items of a list; a text is a list of what its commas separate.
    pub(super) fn items(&self) -> Read<Vec<Raw>> {
        match &self.data {
            Data::Unset => Ok(Vec::new()),
            Data::List(items) => Ok(items.clone()),
            Data::Text(text) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Ok(parts.map(|part| Raw { line: self.line, ..Raw::text(part) }).collect())
            }
            Data::Map(_) => self.fault("expected a list, not a map"),
        }
    }

    pub(super) fn as_text(&self) -> Read<&str> {
        match &self.data {
            Data::Text(text) => Ok(text),
            Data::Unset => self.fault("expected a value"),
            Data::List(_) => self.fault("expected one value, not a list"),
            Data::Map(_) => self.fault("expected one value, not a map"),
        }
    }

    pub(super) fn fault<T>(&self, what: impl Into<String>) -> Read<T> {
        Err(vec![Fault { line: self.line, what: what.into() }])
    }

    fn is_blank(&self) -> bool {
        self.data == Data::Unset || self.data == Data::Text(String::new())
    }

    /// Reads the text with a function whose error is the fault, in words.
    pub(super) fn parse<T, E: std::fmt::Display>(&self, f: impl FnOnce(&str) -> Result<T, E>) -> Read<T> {
        f(self.as_text()?).or_else(|e| self.fault(e.to_string()))
    }
}

impl Setting for bool {
    const KIND: &'static str = "true or false";

    fn read(raw: &Raw, _: &Path) -> Read<Self> {
        raw.parse(|text| match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err(format!("{text:?} is neither true nor false")),
        })
    }

    fn show(&self) -> Value {
        json!(self)
    }
}

impl Setting for u64 {
    const KIND: &'static str = "number";

    fn read(raw: &Raw, _: &Path) -> Read<Self> {
        raw.parse(|text| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let number = digits.then(|| text.parse().ok()).flatten();
            number.ok_or_else(|| format!("{text:?} is not a whole number"))
        })
    }

    fn show(&self) -> Value {
        json!(self)
    }

    fn rank(&self) -> Option<u128> {
        Some(u128::from(*self))
    }
}

impl Setting for u32 {
    const KIND: &'static str = u64::KIND;

    fn read(raw: &Raw, base: &Path) -> Read<Self> {
        let wide = u64::read(raw, base)?;
        wide.try_into().or_else(|_| raw.fault(format!("{wide} is too large")))
    }

    fn show(&self) -> Value {
        json!(self)
    }

    fn rank(&self) -> Option<u128> {
        Some(u128::from(*self))
    }
}

impl Setting for Duration {
    const KIND: &'static str = "duration";

    fn read(raw: &Raw, _: &Path) -> Read<Self> {
        raw.parse(parse_duration)
    }

    fn show(&self) -> Value {
        json!(show_duration(*self))
    }

    fn rank(&self) -> Option<u128> {
        Some(self.as_nanos())
    }
}

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("B", 1),
];

impl Setting for Size {
    const KIND: &'static str = "size";

    fn read(raw: &Raw, _: &Path) -> Read<Self> {
        raw.parse(|text| {
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            let (number, unit) = text.split_at(digits);
            let scale = SIZE_UNITS.iter().find(|(u, _)| unit.trim_start().eq_ignore_ascii_case(u));
            let scale = if unit.is_empty() { Some(1) } else { scale.map(|(_, s)| *s) };
            let bytes = number.parse::<u64>().ok().zip(scale).and_then(|(n, s)| n.checked_mul(s));
            let bad = || format!("{text:?} is not a size: write it as 1GiB, 500MB or plain bytes");
            bytes.map(Size).ok_or_else(bad)
        })
    }

    fn show(&self) -> Value {
        let fits = |(_, scale): &&(&str, u64)| self.0 != 0 && self.0.is_multiple_of(*scale);
        match SIZE_UNITS.iter().find(fits) {
            Some((unit, scale)) if *scale > 1 => json!(format!("{}{unit}", self.0 / scale)),
            _ => json!(self.0.to_string()),
        }
    }

    fn rank(&self) -> Option<u128> {
        Some(u128::from(self.0))
    }
}

impl Setting for Name {
    const KIND: &'static str = "name";

    fn read(raw: &Raw, _: &Path) -> Read<Self> {
        raw.parse(str::parse)
    }

    fn show(&self) -> Value {
        json!(self)
    }
}

impl Setting for Endpoint {
    const KIND: &'static str = "address";

    fn read(raw: &Raw, _: &Path) -> Read<Self> {
        raw.parse(str::parse::<Endpoint>)
    }

    fn show(&self) -> Value {
        json!(self.to_string())
    }
}

impl Setting for SocketAddr {
    const KIND: &'static str = "IP address and port";

    /// No name of a host: another process decides where that leads.
    fn read(raw: &Raw, _: &Path) -> Read<Self> {
        raw.parse(|text| text.parse().map_err(|_| format!("{text:?} is not an IP address and a port")))
    }

    fn show(&self) -> Value {
        json!(self)
    }
}

impl Setting for Address {
    const KIND: &'static str = "account address";

    fn read(raw: &Raw, _: &Path) -> Read<Self> {
        raw.parse(|text| match text.parse() {
            Ok(Address::ZERO) => Err("the zero address is no validator's".to_owned()),
            Ok(address) => Ok(address),
            Err(e) => Err(format!("{e}: write 0x and 40 hexadecimal digits")),
        })
    }

    fn show(&self) -> Value {
        json!(self)
    }
}

impl Setting for String {
    const KIND: &'static str = "pattern";

    fn read(raw: &Raw, _: &Path) -> Read<Self> {
        raw.parse(|text| match text {
            "" => Err("expected a value"),
            _ if text.contains('\0') => Err("a NUL byte cannot be part of a path"),
            _ => Ok(text.to_owned()),
        })
    }

    fn show(&self) -> Value {
        json!(self)
    }
}

impl Setting for PathBuf {
    const KIND: &'static str = "path";

    /// The path without `.` components and trailing slashes. `..` stays: resolving it needs the disk.
    fn read(raw: &Raw, base: &Path) -> Read<Self> {
        raw.parse(|text| match text {
            "" => Err("expected a path"),
            _ if Path::new(text).starts_with("~") => Err("~ means nothing here: write the path out"),
            _ if text.contains('\0') => Err("a NUL byte cannot be part of a path"),
            _ => Ok(base.join(text).components().collect()),
        })
    }

    fn show(&self) -> Value {
        json!(self.to_string_lossy())
    }
}

impl<T: Setting> Setting for Option<T> {
    const KIND: &'static str = T::KIND;

    fn read(raw: &Raw, base: &Path) -> Read<Self> {
        if raw.is_blank() { Ok(None) } else { T::read(raw, base).map(Some) }
    }

    fn show(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::show)
    }
}

/// Reads every item and reports the faults of all of them.
pub(super) fn read_each<T>(items: &[Raw], read: impl Fn(&Raw) -> Read<T>) -> Read<Vec<T>> {
    let (mut values, mut faults) = (Vec::new(), Vec::new());
    for item in items {
        match read(item) {
            Ok(value) => values.push(value),
            Err(more) => faults.extend(more),
        }
    }
    if faults.is_empty() { Ok(values) } else { Err(faults) }
}

macro_rules! list {
    ($($type:ty = $kind:literal),+) => {$(
        impl Setting for Vec<$type> {
            const KIND: &'static str = $kind;

            fn read(raw: &Raw, base: &Path) -> Read<Self> {
                read_each(&raw.items()?, |item| Setting::read(item, base))
            }

            fn show(&self) -> Value {
                self.iter().map(Setting::show).collect()
            }
        }
    )+};
}

list!(
    Endpoint = "list of addresses",
    String = "list of patterns",
    super::download::PublicKey = "list of keys"
);

impl Setting for Argv {
    const KIND: &'static str = "program and arguments";

    fn read(raw: &Raw, base: &Path) -> Read<Self> {
        let items = raw.items()?;
        let mut argv = read_each(&items, |item| Ok(item.as_text()?.to_owned()))?;
        if let Some((first, item)) = argv.first_mut().zip(items.first()) {
            *first = PathBuf::read(item, base)?.to_string_lossy().into_owned();
        }
        match argv.iter().any(|arg| arg.contains('\0')) {
            true => raw.fault("a NUL byte cannot be part of an argument"),
            false => Ok(Argv(argv)),
        }
    }

    fn show(&self) -> Value {
        let shown = |arg: &String| if arg.contains("://") { redact(arg) } else { arg.clone() };
        self.0.iter().map(shown).map(Value::String).collect()
    }
}

/// A type that is one of a few words.
macro_rules! choice {
    ($(#[$meta:meta])+ $name:ident = $kind:literal { $($(#[$variant_meta:meta])+ $variant:ident = $word:literal),+ }) => {
        $(#[$meta])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_meta])+ $variant),+
        }

        impl Setting for $name {
            const KIND: &'static str = $kind;

            fn read(raw: &Raw, _: &Path) -> Read<Self> {
                raw.parse(|text| match text.to_ascii_lowercase().as_str() {
                    $($word => Ok($name::$variant),)+
                    _ => Err(format!("{text:?} is none of {}", $kind)),
                })
            }

            fn show(&self) -> Value {
                json!(match self {
                    $($name::$variant => $word),+
                })
            }
        }
    };
}

choice! {
    /// The source of the chain's height.
    HeightSource = "rpc | none" {
        /// The node is asked.
        Rpc = "rpc",
        /// No node is asked: it stops by itself, and the trigger file is the trigger.
        None = "none"
    }
}

choice! {
    /// How files get into a backup.
    BackupMethod = "auto | reflink | hardlink | copy | none" {
        /// Each by the cheapest method that is safe for it.
        Auto = "auto",
        /// All of them as clones that share their blocks until either is written to.
        Reflink = "reflink",
        /// As another name of the same file where the node never writes to it again; copied otherwise.
        Hardlink = "hardlink",
        /// All of them as copies of their own.
        Copy = "copy",
        /// Not at all: there are no backups.
        None = "none"
    }
}

choice! {
    /// The action for a node that does not end within `daemon_shutdown_grace`.
    StopTimeoutAction = "wait | abort | kill" {
        /// Go on waiting, and log it.
        Wait = "wait",
        /// Give the upgrade up; the node goes on ending at its own pace and is then started again.
        Abort = "abort",
        /// Send SIGKILL, which makes a WBFT node lose minutes to hours of blocks.
        Kill = "kill"
    }
}

choice! {
    /// When the binary of an upgrade is rehearsed by itself.
    Rehearse = "off | before-upgrade" {
        /// Never.
        Off = "off",
        /// When it is ready.
        BeforeUpgrade = "before-upgrade"
    }
}

choice! {
    /// When a validator signs again after an unclean stop.
    SignAfterUnclean = "wait | now" {
        /// Once its head is past everything that it may have voted on.
        Wait = "wait",
        /// At once.
        Now = "now"
    }
}

choice! {
    /// The form of our own log on stderr.
    LogFormat = "text | json" {
        /// Lines for people.
        Text = "text",
        /// One JSON object per line.
        Json = "json"
    }
}

choice! {
    /// Whether output is coloured.
    LogColor = "auto | always | never" {
        /// On a terminal, unless NO_COLOR is set.
        Auto = "auto",
        /// Always.
        Always = "always",
        /// Never.
        Never = "never"
    }
}

choice! {
    /// The least important messages that are still logged.
    LogLevel = "error | warn | info | debug | trace" {
        /// Errors only.
        Error = "error",
        /// Warnings too.
        Warn = "warn",
        /// Events, too.
        Info = "info",
        /// Their reasons, too.
        Debug = "debug",
        /// Everything.
        Trace = "trace"
    }
}

impl From<LogLevel> for log::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => log::LevelFilter::Error,
            LogLevel::Warn => log::LevelFilter::Warn,
            LogLevel::Info => log::LevelFilter::Info,
            LogLevel::Debug => log::LevelFilter::Debug,
            LogLevel::Trace => log::LevelFilter::Trace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Setting>(text: &str) -> Result<T, String> {
        T::read(&Raw::text(text), Path::new("/base")).map_err(|f| f[0].what.clone())
    }

    #[test]
    fn words_for_true_and_false() {
        for (text, value) in [("true", true), ("Yes", true), ("1", true), ("OFF", false), ("false", false)] {
            assert_eq!(read(text), Ok(value));
        }
        assert_eq!(read::<bool>("maybe").unwrap_err(), "\"maybe\" is neither true nor false");
    }

    #[test]
    fn numbers_are_digits_only_and_fit() {
        assert_eq!(read::<u64>("18446744073709551615"), Ok(u64::MAX));
        for bad in ["", "+1", "-1", "1.0", "0x10", "1_000", "18446744073709551616"] {
            assert!(read::<u64>(bad).is_err(), "{bad:?}");
        }
        assert_eq!(read::<u32>("4294967296").unwrap_err(), "4294967296 is too large");
    }

    #[test]
    fn sizes_are_read_and_shown_exactly() {
        for (text, bytes) in [("0", 0), ("1024B", 1024), ("1GiB", 1 << 30), ("500MB", 500_000_000), ("7", 7)]
        {
            assert_eq!(read(text), Ok(Size(bytes)), "{text:?}");
        }
        for bytes in [0, 1, 999, 1000, 1024, 1 << 30, 3_000_000_000, u64::MAX] {
            let shown = Size(bytes).show();
            assert_eq!(read(shown.as_str().unwrap()), Ok(Size(bytes)), "{shown}");
        }
        for bad in ["", "GiB", "1.5GiB", "1G", "-1", "1 XB", "99999999TiB"] {
            assert!(read::<Size>(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn relative_paths_are_taken_from_the_base() {
        assert_eq!(read("a/./b/"), Ok(PathBuf::from("/base/a/b")));
        assert_eq!(read("/x"), Ok(PathBuf::from("/x")));
        assert!(read::<PathBuf>("").is_err());
        assert_eq!(read::<PathBuf>("~/x").unwrap_err(), "~ means nothing here: write the path out");
        assert_eq!(read("~x"), Ok(PathBuf::from("/base/~x")));
        assert_eq!(read::<Option<PathBuf>>(""), Ok(None));
    }

    #[test]
    fn a_word_that_is_no_choice_lists_the_choices() {
        assert_eq!(read("KILL"), Ok(StopTimeoutAction::Kill));
        assert_eq!(read::<StopTimeoutAction>("die").unwrap_err(), "\"die\" is none of wait | abort | kill");
    }

    #[test]
    fn the_address_of_a_validator_has_one_form() {
        let text = "0x00112233445566778899AABBCCDDEEFF00112233";
        let address: Address = read(text).unwrap();
        assert_eq!(address.show(), json!(text.to_ascii_lowercase()));
        assert_eq!(read::<Option<Address>>(""), Ok(None));
        let error = read::<Address>("0x12").unwrap_err();
        assert_eq!(error, "\"0x12\" is not 20 bytes: write 0x and 40 hexadecimal digits");
        for bad in [&text[2..], &format!("0x{}", "0".repeat(40))] {
            assert!(read::<Address>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_address_of_a_node_is_the_rpc_clients_own_type() {
        assert_eq!(read("localhost:1"), Ok(Endpoint::Http("http://localhost:1".to_owned())));
        assert_eq!(read("/data/geth.ipc"), Ok(Endpoint::Ipc("/data/geth.ipc".into())));
        let error = read::<Endpoint>("localhost").unwrap_err();
        assert!(error.contains("it has no port; write host:port"), "{error}");
        assert!(read::<Endpoint>("").is_err() && read::<Endpoint>("http://[]:1").is_err());
        assert_eq!(read::<Endpoint>("http://me:secret@a").unwrap().show(), json!("http://***@a"));
    }

    #[test]
    fn every_bad_item_of_a_list_is_reported() {
        let faults = Vec::<Endpoint>::read(&Raw::text("ftp://a, http://b, nonsense:"), Path::new("/"));
        assert_eq!(faults.unwrap_err().len(), 2);
    }
}
