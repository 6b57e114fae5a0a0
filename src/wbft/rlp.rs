//! Reading RLP (Ethereum Yellow Paper, appendix B), strictly: one value has one encoding.
//!
//! Only what headers need: byte strings, lists and numbers, borrowed from the input. There is no recursion, so no depth
//! can hurt: the inside of a list is read when it is asked for.

/// A value: a byte string, or the encoded items of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item<'a> {
    Bytes(&'a [u8]),
    List(&'a [u8]),
}

/// Why bytes are not the RLP that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadRlp(pub(super) &'static str);

/// The items of bytes that are exactly one list; no more than `limit`.
pub(super) fn list(input: &[u8], limit: usize) -> Result<Vec<Item<'_>>, BadRlp> {
    match split(input)? {
        (Item::List(_), [_, ..]) => Err(BadRlp("bytes follow the list")),
        (item, _) => item.list(limit),
    }
}

/// The first value of some bytes, and the bytes behind it.
fn split(input: &[u8]) -> Result<(Item<'_>, &[u8]), BadRlp> {
    let (&first, rest) = input.split_first().ok_or(BadRlp("a value is missing"))?;
    let (is_list, length, rest) = match first {
        0x00..=0x7f => return Ok((Item::Bytes(&input[..1]), rest)),
        0x80..=0xb7 => (false, usize::from(first - 0x80), rest),
        0xb8..=0xbf => long(first - 0xb7, rest).map(|(n, rest)| (false, n, rest))?,
        0xc0..=0xf7 => (true, usize::from(first - 0xc0), rest),
        0xf8..=0xff => long(first - 0xf7, rest).map(|(n, rest)| (true, n, rest))?,
    };
    let (payload, rest) = rest.split_at_checked(length).ok_or(BadRlp("a value is cut short"))?;
    if is_list {
        return Ok((Item::List(payload), rest));
    }
    match payload {
        [byte] if *byte < 0x80 => Err(BadRlp("a small byte has a length")),
        _ => Ok((Item::Bytes(payload), rest)),
    }
}

/// A length that is written in `size` bytes.
fn long(size: u8, rest: &[u8]) -> Result<(usize, &[u8]), BadRlp> {
    let (bytes, rest) = rest.split_at_checked(size.into()).ok_or(BadRlp("a length is cut short"))?;
    let length = number(bytes)?;
    let length = usize::try_from(length).map_err(|_| BadRlp("a length is too large"))?;
    if length < 56 { Err(BadRlp("a short length has the long form")) } else { Ok((length, rest)) }
}

fn number(bytes: &[u8]) -> Result<u128, BadRlp> {
    match bytes {
        [0, ..] => Err(BadRlp("a number has leading zeros")),
        _ if bytes.len() > 16 => Err(BadRlp("a number is too large")),
        _ => Ok(bytes.iter().fold(0, |n, b| n << 8 | u128::from(*b))),
    }
}

impl<'a> Item<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], BadRlp> {
        match self {
            Item::Bytes(bytes) => Ok(bytes),
            Item::List(_) => Err(BadRlp("bytes were expected")),
        }
    }

    /// The items of a list; no more than `limit`.
    pub(super) fn list(self, limit: usize) -> Result<Vec<Item<'a>>, BadRlp> {
        let Item::List(mut rest) = self else { return Err(BadRlp("a list was expected")) };
        let mut items = Vec::new();
        while !rest.is_empty() {
            if items.len() == limit {
                return Err(BadRlp("a list is too long"));
            }
            let (item, after) = split(rest)?;
            items.push(item);
            rest = after;
        }
        Ok(items)
    }

    /// A number of at most 128 bits.
    pub(super) fn number(self) -> Result<u128, BadRlp> {
        number(self.bytes()?)
    }

    /// A number of at most 64 bits.
    pub(super) fn small(self) -> Result<u64, BadRlp> {
        u64::try_from(self.number()?).map_err(|_| BadRlp("a number is too large"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_one_encoding() {
        assert_eq!(split(&[0x05, 9]), Ok((Item::Bytes(&[5]), &[9][..])));
        assert_eq!(split(&[0x80]), Ok((Item::Bytes(&[]), &[][..])));
        assert_eq!(split(&[0x82, 1, 2]).unwrap().0.small(), Ok(0x102));
        let long: Vec<u8> = [0xb8, 56].into_iter().chain([7; 56]).collect();
        assert_eq!(split(&long).unwrap().0, Item::Bytes(&[7; 56]));
        for bad in
            [&[][..], &[0x81], &[0x81, 5], &[0xb8, 1, 200], &[0xb9, 0, 56], &[0xb8], &[0xc2, 1], &[0xbf; 9]]
        {
            assert!(split(bad).is_err(), "{bad:?}");
        }
        assert!(number(&[0, 1]).is_err() && number(&[1; 17]).is_err());
    }

    #[test]
    fn lists_are_read_to_their_end_and_no_further() {
        let items = list(&[0xc3, 1, 0xc1, 2], 5).unwrap();
        assert_eq!(items[0].small(), Ok(1));
        assert_eq!(items[1].list(1).unwrap()[0].small(), Ok(2));
        assert!(list(&[0xc1, 1, 2], 9).is_err(), "something follows");
        assert!(list(&[0x81, 0x90], 9).is_err(), "no list");
        assert!(list(&[0xc2, 1, 2], 1).is_err(), "too long");
        assert!(list(&[0xc2, 1, 0x81], 9).is_err(), "cut short");
    }
}
