//! The sources of an upgrade's binary: the candidates in their order, from plan and configuration.
//!
//! Nothing is contacted here. Verification does not depend on where a file comes from, so every
//! candidate may stand in for every other one.

use super::url::Url;
use crate::config::DownloadUrls;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::machine::Upgrade;
use crate::name::Name;

/// One place of a binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The URL, without a checksum in its query.
    pub url: Url,
    /// The digest that the URL carried.
    pub digest: Option<Digest>,
    /// How the binary is packed.
    pub form: Form,
}

/// How a binary is packed, judged by the file's name alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Not at all.
    Bare,
    /// Compressed by gzip.
    Gzip,
    /// In a tar archive that is compressed by gzip.
    TarGzip,
    /// In a zip archive.
    Zip,
}

/// The endings of files that are packed in another way.
const FOREIGN: [&str; 7] = [".xz", ".txz", ".zst", ".tzst", ".bz2", ".7z", ".tar"];

/// The platform that binaries are looked for, as Go names it: `("linux", "amd64")`.
pub fn platform() -> (&'static str, &'static str) {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "loongarch64" => "loong64",
        other => other,
    };
    (std::env::consts::OS, arch)
}

/// The places of an upgrade in the order in which they are tried: what the plan names for this
/// platform, then `download_urls` of its name, then its defaults. One that cannot be read, because it is
/// not a URL or carries a checksum that is none, stands in the way of no other.
pub fn candidates(upgrade: &Upgrade, urls: &DownloadUrls, (os, arch): (&str, &str)) -> Vec<Result<Source>> {
    let planned = upgrade.binaries.get(&format!("{os}/{arch}")).or_else(|| upgrade.binaries.get("any"));
    let configured = urls.by_name.get(&upgrade.name).into_iter().flatten().chain(&urls.default);
    let templates = planned.into_iter().chain(configured.map(String::as_str));
    templates.map(|template| Source::parse(&fill(template, &upgrade.name, os, arch))).collect()
}

/// Whether there is any source for the binary of an upgrade for this machine.
pub fn has_source(upgrade: &Upgrade, urls: &DownloadUrls) -> bool {
    document(upgrade).is_some() || !candidates(upgrade, urls, platform()).is_empty()
}

/// The URL of a document with binaries that `info` consists of, if it does.
pub(super) fn document(upgrade: &Upgrade) -> Option<&str> {
    let info = upgrade.info.as_deref()?.trim();
    let is_url = info.starts_with("http://") || info.starts_with("https://");
    (upgrade.binaries.is_empty() && is_url && !info.contains(char::is_whitespace)).then_some(info)
}

pub(super) fn fill(template: &str, name: &Name, os: &str, arch: &str) -> String {
    let holes = [("{name}", name.as_str()), ("{version}", name.as_str()), ("{os}", os), ("{arch}", arch)];
    holes.iter().fold(template.to_owned(), |url, (hole, value)| url.replace(hole, value))
}

impl Source {
    /// Reads a URL, which may carry `checksum=sha256:HEX`, `sha512:HEX` or digits alone in its query.
    ///
    /// # Errors
    /// [`Kind::BadInput`] if it is not a URL, or carries a checksum that is none.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: String| Error::new(Kind::BadInput, "read the URL of a binary").because(why);
        let (url, checksums) = text.parse::<Url>().map_err(bad)?.take_parameter("checksum");
        let digest = match checksums.as_slice() {
            [] => None,
            [one] => Some(one.parse::<Digest>().map_err(|e| bad(e.to_string()).at(&url))?),
            _ => return Err(bad("it carries more than one checksum".to_owned()).at(&url)),
        };
        let name = url.file_name();
        if let Some(ending) = FOREIGN.iter().find(|ending| name.to_ascii_lowercase().ends_with(*ending)) {
            let why = format!("files that end with {ending} are not unpacked here");
            return Err(bad(why).at(&url).hint("pack it as .gz, .tar.gz or .zip"));
        }
        Ok(Source { url, digest, form: Form::of(&name) })
    }
}

impl Form {
    fn of(file_name: &str) -> Self {
        let name = file_name.to_ascii_lowercase();
        match name.as_str() {
            n if n.ends_with(".tar.gz") || n.ends_with(".tgz") => Form::TarGzip,
            n if n.ends_with(".gz") => Form::Gzip,
            n if n.ends_with(".zip") => Form::Zip,
            _ => Form::Bare,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Origin;

    const LINUX: (&str, &str) = ("linux", "amd64");

    fn upgrade(binaries: &[(&str, &str)]) -> Upgrade {
        let mut upgrade = Upgrade::new("v2".parse().unwrap(), 1, Origin::TriggerFile);
        upgrade.binaries = binaries.iter().copied().collect();
        upgrade
    }

    fn urls(of_v2: &[&str], default: &[&str]) -> DownloadUrls {
        let strings = |list: &[&str]| list.iter().map(|u| (*u).to_owned()).collect();
        DownloadUrls { by_name: [("v2".parse().unwrap(), strings(of_v2))].into(), default: strings(default) }
    }

    fn found(upgrade: &Upgrade, urls: &DownloadUrls) -> Vec<String> {
        let sources = candidates(upgrade, urls, LINUX);
        sources.into_iter().map(|s| s.unwrap().url.as_str().to_owned()).collect()
    }

    #[test]
    fn plan_before_name_before_default() {
        let upgrade = upgrade(&[("linux/amd64", "https://p/x"), ("any", "https://p/any")]);
        let urls = urls(&["https://a/{version}", "http://b/x"], &["https://d/{name}/{os}_{arch}"]);
        assert_eq!(
            found(&upgrade, &urls),
            ["https://p/x", "https://a/v2", "http://b/x", "https://d/v2/linux_amd64"]
        );
    }

    #[test]
    fn any_stands_in_for_a_missing_platform_and_another_never_does() {
        let none = urls(&[], &[]);
        assert_eq!(found(&upgrade(&[("any", "https://p/any")]), &none), ["https://p/any"]);
        assert!(found(&upgrade(&[("linux/arm64", "https://p/arm")]), &none).is_empty());
    }

    #[test]
    fn a_checksum_in_the_url_is_taken_out_of_it() {
        let digest = Digest::sha256(b"x");
        for text in [digest.to_string(), digest.hex().to_uppercase(), digest.to_string().replace(':', "%3A")]
        {
            let source = Source::parse(&format!("https://a/x?k=1&checksum={text}")).unwrap();
            assert_eq!((source.url.as_str(), source.digest), ("https://a/x?k=1", Some(digest)));
        }
        for bad in
            ["", "md5:0123", "sha256:zz", "file:https://a/sums", &format!("{digest}&checksum={digest}")]
        {
            let err = Source::parse(&format!("https://a/x?checksum={bad}")).unwrap_err();
            assert_eq!(err.kind(), Kind::BadInput, "{bad}");
        }
    }

    #[test]
    fn the_form_follows_from_the_name() {
        for (name, form) in [
            ("gwemix", Form::Bare),
            ("gwemix.gz", Form::Gzip),
            ("gwemix.tar.gz", Form::TarGzip),
            ("GWEMIX.TGZ?x=.zip", Form::TarGzip),
            ("gwemix.Zip", Form::Zip),
            ("tar.gz/gwemix", Form::Bare),
        ] {
            assert_eq!(Source::parse(&format!("https://a/{name}")).unwrap().form, form, "{name}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_unpacked_is_refused_before_it_is_fetched() {
        for name in ["gwemix.tar.xz", "gwemix.ZST", "gwemix.tar?x=.gz"] {
            let err = Source::parse(&format!("https://a/{name}")).unwrap_err().to_string();
            assert!(err.contains("are not unpacked here; pack it as .gz, .tar.gz or .zip"), "{err}");
        }
    }

    #[test]
    fn only_an_info_that_is_one_url_is_a_document() {
        let mut upgrade = upgrade(&[]);
        for (info, is) in
            [("https://a/x.json ", true), ("see https://a", false), ("https://a b", false), ("{}", false)]
        {
            upgrade.info = Some(info.to_owned());
            assert_eq!(document(&upgrade).is_some(), is, "{info}");
        }
        upgrade.info = Some("https://a".to_owned());
        upgrade.binaries = [("any", "https://b")].into_iter().collect();
        assert_eq!(document(&upgrade), None);
    }
}
