//! The certificate authorities that a download trusts, and how they are chosen.
//!
//! In order: `download_ca_file`, the file that `SSL_CERT_FILE` names, the bundle of the system, and
//! the roots of Mozilla that are built in. Exactly one of them counts. Minimal machines have no
//! bundle, and an operator with a private authority must not have to trust the public ones as well.

use crate::error::{Error, Kind, Result};
use crate::home::regular;
use std::path::{Path, PathBuf};
use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

/// The paths at which distributions keep their bundle.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A larger bundle is refused.
const LIMIT: u64 = 4 * 1024 * 1024;

/// Trusted authorities and where they came from.
#[derive(Clone)]
pub(super) struct Roots {
    pub(super) certs: RootCerts,
    /// To be named when an issuer is unknown.
    pub(super) origin: String,
}

impl Roots {
    /// Finds the authorities to trust.
    ///
    /// # Errors
    /// [`Kind::Config`] if a file that was asked for cannot be read or has no certificate.
    pub(super) fn load(ca_file: Option<&Path>) -> Result<Self> {
        let named = std::env::var_os("SSL_CERT_FILE").filter(|v| !v.is_empty()).map(PathBuf::from);
        Roots::choose(ca_file, named.as_deref(), &BUNDLES.map(Path::new))
    }

    fn choose(ca_file: Option<&Path>, named: Option<&Path>, bundles: &[&Path]) -> Result<Self> {
        for (path, what) in [(ca_file, "download_ca_file"), (named, "SSL_CERT_FILE")] {
            let Some(path) = path else { continue };
            let certs = read(path).map_err(|why| {
                Error::new(Kind::Config, format!("read the certificates of {what}"))
                    .at(path.display())
                    .because(why)
                    .hint("name a PEM file with the certificates of the authorities to trust")
            })?;
            return Ok(Roots { certs, origin: format!("{what} {}", path.display()) });
        }
        let bundle = bundles.iter().find_map(|path| Some((read(path).ok()?, path)));
        Ok(match bundle {
            Some((certs, path)) => Roots { certs, origin: format!("the system's {}", path.display()) },
            None => Roots { certs: RootCerts::WebPki, origin: "the built-in ones".to_owned() },
        })
    }
}

fn read(path: &Path) -> Result<RootCerts, String> {
    let pem = regular::read(path, LIMIT).map_err(|e| e.to_string())?;
    let mut certs: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(cert) = item.map_err(|e| e.to_string())? {
            certs.push(cert);
        }
    }
    if certs.is_empty() { Err("it has no certificate".to_owned()) } else { Ok(certs.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const CERT: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    #[test]
    fn the_first_that_is_named_counts_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (a, b, empty) = (file("a", CERT), file("b", CERT), file("empty", "nothing"));
        let origin = |ca: Option<&Path>, named: Option<&Path>, bundles: &[&Path]| {
            Roots::choose(ca, named, bundles).map(|r| r.origin)
        };
        assert!(origin(Some(&a), Some(&b), &[]).unwrap().starts_with("download_ca_file"));
        assert!(origin(None, Some(&b), &[&a]).unwrap().starts_with("SSL_CERT_FILE"));
        assert!(origin(None, None, &[&empty, &a]).unwrap().ends_with("/a"));
        assert!(origin(None, None, &[&empty]).unwrap().contains("built-in"));
        for bad in [&empty, &dir.path().join("missing")] {
            assert_eq!(origin(Some(bad), Some(&a), &[]).unwrap_err().kind(), Kind::Config);
            assert_eq!(origin(None, Some(bad), &[&a]).unwrap_err().kind(), Kind::Config);
        }
    }
}
