//! Hexadecimal as a geth-like node writes it: `0x` data, `0x` quantities without leading zeros, EIP-55 addresses.

use super::keccak::keccak256;

/// Lower-case digits without `0x`.
pub(crate) fn plain(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble & 0xf)]);
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        text.push(digit(byte >> 4));
        text.push(digit(*byte));
        text
    })
}

/// `0x` and two digits per byte.
pub(crate) fn data(bytes: &[u8]) -> String {
    format!("0x{}", plain(bytes))
}

/// A number as JSON-RPC writes it: `0x0`, `0x50`.
pub(crate) fn quantity(number: impl Into<u128>) -> String {
    format!("{:#x}", number.into())
}

/// The mixed-case form of an address (EIP-55).
pub(crate) fn checksummed(address: &[u8; 20]) -> String {
    let lower = plain(address);
    let digest = keccak256(lower.as_bytes());
    let mixed = lower.chars().enumerate().map(|(i, digit)| {
        let nibble = digest[i / 2] >> (4 * (1 - i % 2)) & 0xf;
        if nibble >= 8 { digit.to_ascii_uppercase() } else { digit }
    });
    format!("0x{}", mixed.collect::<String>())
}

/// The bytes of hex digits, with or without `0x`.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return None;
    }
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_the_recorded_case() {
        for address in [
            "0x54C42592181332091666e677A8FF8b1376dbD49D",
            "0xfbF542697ecBCB7b6D7999c55c5642eF34559393",
            "0x05e85200434A6B4e5d4218089f6Ce222935F803E",
            "0xa133C1852f98218776452A1d56A8B2E7128c7ec8",
        ] {
            let bytes: [u8; 20] = decode(address).unwrap().try_into().unwrap();
            assert_eq!(checksummed(&bytes), address);
        }
    }
}
