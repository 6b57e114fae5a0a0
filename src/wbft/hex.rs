//! The hexadecimal forms of JSON-RPC: quantities, hashes, addresses and data, read strictly.
//!
//! A height that was misread stops a validator at the wrong block, so nothing is guessed: no missing `0x`, no leading
//! zeros, no decimal digits where hexadecimal ones belong, no overflow. Letters of either case are fine: nodes mix them.

use crate::digest::decode_hex;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Why a text is not the hexadecimal value that was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadHex {
    text: String,
    why: &'static str,
}

impl BadHex {
    fn new(text: &str, why: &'static str) -> Self {
        BadHex { text: text.chars().take(80).collect(), why }
    }
}

impl fmt::Display for BadHex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.text, self.why)
    }
}

impl std::error::Error for BadHex {}

/// Reads a quantity as [execution-apis] define it: `0x`, then digits without leading zeros; `0x0` is zero.
///
/// [execution-apis]: https://ethereum.github.io/execution-apis/
///
/// # Errors
/// If the text has any other form, or the number does not fit 64 bits.
///
/// ```
/// use wemixvisor::wbft::parse_quantity;
/// assert_eq!(parse_quantity("0x50"), Ok(80));
/// assert!(parse_quantity("80").is_err() && parse_quantity("0x050").is_err());
/// ```
pub fn parse_quantity(text: &str) -> Result<u64, BadHex> {
    let digits = text.strip_prefix("0x").ok_or_else(|| BadHex::new(text, "has no 0x prefix"))?;
    if digits.is_empty() {
        return Err(BadHex::new(text, "has no digits"));
    }
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(BadHex::new(text, "is not hexadecimal"));
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return Err(BadHex::new(text, "has leading zeros"));
    }
    u64::from_str_radix(digits, 16).map_err(|_| BadHex::new(text, "does not fit 64 bits"))
}

/// Writes a quantity the way nodes want it in parameters.
#[must_use]
pub fn show_quantity(number: u64) -> String {
    format!("{number:#x}")
}

/// Reads data of any length: `0x`, then an even number of digits.
///
/// # Errors
/// If the text has any other form.
pub fn parse_data(text: &str) -> Result<Vec<u8>, BadHex> {
    let digits = text.strip_prefix("0x").ok_or_else(|| BadHex::new(text, "has no 0x prefix"))?;
    decode_hex(digits).ok_or_else(|| BadHex::new(text, "is not an even number of hexadecimal digits"))
}

fn parse_fixed<const N: usize>(text: &str, why: &'static str) -> Result<[u8; N], BadHex> {
    parse_data(text)?.try_into().map_err(|_| BadHex::new(text, why))
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("0x")?;
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

/// Gives a byte array its text form in both directions, and serde's by way of that.
macro_rules! fixed {
    ($name:ident, $why:literal) => {
        impl FromStr for $name {
            type Err = BadHex;

            fn from_str(text: &str) -> Result<Self, BadHex> {
                parse_fixed(text, $why).map($name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadHex;

            fn try_from(text: String) -> Result<Self, BadHex> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }
    };
}

/// The hash of a block: `0x` and 64 digits of either case, shown in lower case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(pub [u8; 32]);

/// The address of an account, such as a validator: `0x` and 40 digits of either case, shown in lower case.
///
/// Methods of one node disagree on the case; as bytes they compare equal. Addresses are ordered by their bytes, which is
/// the order in which validators take turns.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(pub [u8; 20]);

impl Address {
    /// The address that stands for none.
    pub const ZERO: Address = Address([0; 20]);
}

fixed!(Hash, "is not 32 bytes");
fixed!(Address, "is not 20 bytes");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_is_a_height_only_in_its_one_form() {
        assert_eq!(parse_quantity("0x0"), Ok(0));
        assert_eq!(parse_quantity("0x5"), Ok(5));
        assert_eq!(parse_quantity("0xFf"), Ok(255));
        assert_eq!(parse_quantity("0xffffffffffffffff"), Ok(u64::MAX));
        for bad in [
            "",
            "0x",
            "5",
            "0x05",
            "0x00",
            "0X5",
            "0x10000000000000000",
            "0xg",
            "0x-1",
            "0x+1",
            " 0x1",
            "0x1 ",
            "0x1.0",
            "٣",
        ] {
            assert!(parse_quantity(bad).is_err(), "{bad:?}");
        }
        assert_eq!(show_quantity(80), "0x50");
        assert_eq!(show_quantity(0), "0x0");
    }

    #[test]
    fn addresses_compare_without_regard_to_case_and_have_one_length() {
        let lower: Address = "0xfbf542697ecbcb7b6d7999c55c5642ef34559393".parse().unwrap();
        let mixed: Address = "0xfbF542697ecBCB7b6D7999c55c5642eF34559393".parse().unwrap();
        assert_eq!(lower, mixed);
        assert_eq!(mixed.to_string(), "0xfbf542697ecbcb7b6d7999c55c5642ef34559393");
        for bad in ["", "0x", "fbf542697ecbcb7b6d7999c55c5642ef34559393", "0xfb", "0xzz"] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?}");
            assert!(bad.parse::<Hash>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_long_text_is_cut_in_the_message() {
        let message = parse_quantity(&"9".repeat(5000)).unwrap_err().to_string();
        assert!(message.len() < 120, "{message}");
    }
}
