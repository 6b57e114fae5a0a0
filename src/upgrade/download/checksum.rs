//! Checksum files: the digest that one lists for our file, and for no other.
//!
//! Read are the formats of `sha256sum` (with and without name, text and binary mode), of BSD's
//! `sha256` and of OpenSSL. A line that names another file never counts, not even as the only one:
//! its author spoke of something else.

use crate::digest::{Algorithm, Digest};

/// The digest of `file_name` in the text of a checksum file; `None` if it is not listed.
///
/// A name counts if it is the file's own, with or without `./` before it. Digits alone count if they
/// are the only thing in the file.
///
/// # Errors
/// If the file contradicts itself, in words.
pub(super) fn find(text: &str, algorithm: Algorithm, file_name: &str) -> Result<Option<Digest>, String> {
    let text = text.trim_start_matches('\u{feff}');
    // No list of lines is kept: there may be a million of them.
    let lines = || text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let digest = |hex: &str| Digest::from_hex(hex).ok().filter(|d| d.algorithm() == algorithm);
    let mut first = lines();
    if let (Some(only), None) = (first.next(), first.next())
        && let Some(digest) = digest(only.trim())
    {
        return Ok(Some(digest));
    }
    let mut found: Option<Digest> = None;
    for line in lines() {
        let Some((hex, name)) = gnu(line).or_else(|| bsd(line, algorithm)) else { continue };
        if name.strip_prefix("./").unwrap_or(name) != file_name {
            continue;
        }
        // A line for our file without a digest must not lead to another line.
        let digest =
            digest(hex).ok_or_else(|| format!("its line for {file_name} has no {algorithm} digest"))?;
        if found.is_some_and(|other| other != digest) {
            return Err(format!("it lists {file_name} twice with different digests"));
        }
        found = Some(digest);
    }
    Ok(found)
}

/// `HEX  name` or `HEX *name`. Names with escapes (a backslash before the digits) are never ours.
fn gnu(line: &str) -> Option<(&str, &str)> {
    let (hex, rest) = line.split_once([' ', '\t'])?;
    let name = rest.trim_start_matches([' ', '\t']);
    let is_hex = hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    is_hex.then(|| (hex, name.strip_prefix('*').unwrap_or(name)))
}

/// `SHA256 (name) = HEX`, and `SHA2-256(name)= HEX` of OpenSSL.
fn bsd(line: &str, algorithm: Algorithm) -> Option<(&str, &str)> {
    let tags = match algorithm {
        Algorithm::Sha256 => ["SHA256", "SHA2-256"],
        Algorithm::Sha512 => ["SHA512", "SHA2-512"],
    };
    let rest = tags.iter().find_map(|tag| line.strip_prefix(tag))?;
    let (name, hex) = rest.trim_start().strip_prefix('(')?.rsplit_once(')')?;
    Some((hex.trim_start().strip_prefix('=')?.trim(), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "node.tar.gz";

    fn ours() -> Digest {
        Digest::sha256(b"ours")
    }

    fn find256(text: &str) -> Result<Option<Digest>, String> {
        find(text, Algorithm::Sha256, FILE)
    }

    #[test]
    fn every_format_with_our_name() {
        let (hex, other) = (ours().hex(), Digest::sha256(b"other").hex());
        for text in [
            hex.clone(),
            format!("\u{feff}{hex}\r\n\r\n"),
            format!("  {}\n", hex.to_uppercase()),
            format!("{hex}  {FILE}\n"),
            format!("{hex} *{FILE}\n"),
            format!("{hex} {FILE}"),
            format!("{hex}\t{FILE}"),
            format!("{}  ./{FILE}\r\n", hex.to_uppercase()),
            format!("# made today\n{other}  other\n{hex}  {FILE}\n{other}  {FILE}.asc\n"),
            format!("{hex}  {FILE}\n{hex} *{FILE}\n"),
            format!("SHA256 ({FILE}) = {hex}\n"),
            format!("SHA256 (other) = {other}\nSHA256 (./{FILE}) = {}\n", hex.to_uppercase()),
            format!("SHA256({FILE})= {hex}\n"),
            format!("SHA2-256({FILE})= {hex}\n"),
            format!("MD5 ({FILE}) = 00\nSHA1 ({FILE}) = 00\nSHA256 ({FILE}) = {hex}\n"),
        ] {
            assert_eq!(find256(&text), Ok(Some(ours())), "{text:?}");
        }
    }

    #[test]
    fn another_files_line_never_counts() {
        let hex = ours().hex();
        for name in [
            "other",
            "node.tar.gz.asc",
            "xnode.tar.gz",
            "NODE.TAR.GZ",
            "arm64/node.tar.gz",
            "../node.tar.gz",
            "node.tar.gz other",
            "/node.tar.gz",
        ] {
            for text in [format!("{hex}  {name}\n"), format!("SHA256 ({name}) = {hex}\n")] {
                assert_eq!(find256(&text), Ok(None), "{text:?}");
            }
        }
    }

    #[test]
    fn nonsense_lists_nothing() {
        let hex = ours().hex();
        for text in [
            String::new(),
            "<html>404</html>".to_owned(),
            format!("{hex}\n{hex}\n"),
            format!("{}  {FILE}", &hex[..31]),
            format!("\\{hex}  {FILE}"),
            format!("SHA512 ({FILE}) = {hex}"),
            format!("SHA256 {FILE} = {hex}"),
            format!("SHA256 ({FILE}) {hex}"),
            Digest::Sha512([1; 64]).hex(),
        ] {
            assert_eq!(find256(&text), Ok(None), "{text:?}");
        }
    }

    #[test]
    fn a_file_that_contradicts_itself_is_refused() {
        let (hex, other) = (ours().hex(), Digest::sha256(b"other").hex());
        find256(&format!("{hex}  {FILE}\n{other}  {FILE}\n")).unwrap_err();
        find256(&format!("{}  {FILE}\n", &hex[..40])).unwrap_err();
        find256(&format!("{}  {FILE}\n", Digest::Sha512([1; 64]).hex())).unwrap_err();
        find256(&format!("SHA256 ({FILE}) = junk\n")).unwrap_err();
    }

    #[test]
    fn sha512_likewise() {
        let digest = Digest::Sha512([7; 64]);
        let text = format!("SHA512 ({FILE}) = {}\n", digest.hex());
        assert_eq!(find(&text, Algorithm::Sha512, FILE), Ok(Some(digest)));
        assert_eq!(find(&digest.hex(), Algorithm::Sha512, FILE), Ok(Some(digest)));
    }
}
