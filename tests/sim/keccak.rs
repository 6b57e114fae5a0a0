//! Keccak-256, the hash of Ethereum: block hashes and the mixed case of addresses.
//!
//! Written out here because no crate of the project has it and the simulated node must not share code with what it
//! tests. Checked against hashes that a real node recorded. Every header that a node shows is hashed anew, so this is most
//! of what a node computes.

const ROUND_CONSTANTS: [u64; 24] = [
    0x0000_0000_0000_0001,
    0x0000_0000_0000_8082,
    0x8000_0000_0000_808a,
    0x8000_0000_8000_8000,
    0x0000_0000_0000_808b,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8009,
    0x0000_0000_0000_008a,
    0x0000_0000_0000_0088,
    0x0000_0000_8000_8009,
    0x0000_0000_8000_000a,
    0x0000_0000_8000_808b,
    0x8000_0000_0000_008b,
    0x8000_0000_0000_8089,
    0x8000_0000_0000_8003,
    0x8000_0000_0000_8002,
    0x8000_0000_0000_0080,
    0x0000_0000_0000_800a,
    0x8000_0000_8000_000a,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8080,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8008,
];
/// Bytes absorbed per permutation for an output of 256 bits.
const RATE: usize = 136;

/// The Keccak-256 of `data`, with the padding that Ethereum uses (not SHA3-256's).
pub(crate) fn keccak256(data: &[u8]) -> [u8; 32] {
    let mut state = [0u64; 25];
    let mut padded = data.to_vec();
    padded.push(0x01);
    padded.resize(padded.len().div_ceil(RATE) * RATE, 0);
    if let Some(last) = padded.last_mut() {
        *last |= 0x80;
    }
    for block in padded.chunks_exact(RATE) {
        for (lane, bytes) in state.iter_mut().zip(block.chunks_exact(8)) {
            let mut word = [0; 8];
            word.copy_from_slice(bytes);
            *lane ^= u64::from_le_bytes(word);
        }
        permute(&mut state);
    }
    let mut digest = [0; 32];
    for (bytes, lane) in digest.chunks_exact_mut(8).zip(state) {
        bytes.copy_from_slice(&lane.to_le_bytes());
    }
    digest
}

/// Moves each lane to the next of these places, rotated by the number behind it. Constant places need no check of bounds.
macro_rules! rho_pi {
    ($a:ident: $($lane:literal $rotation:literal),*) => {
        let mut moved = $a[1];
        $((moved, $a[$lane]) = ($a[$lane], moved.rotate_left($rotation));)*
        let _ = moved;
    };
}

fn permute(a: &mut [u64; 25]) {
    for constant in ROUND_CONSTANTS {
        let mut parity = [0u64; 5];
        for [v, w, x, y, z] in a.as_chunks().0 {
            let [p, q, r, s, t] = parity;
            parity = [p ^ v, q ^ w, r ^ x, s ^ y, t ^ z];
        }
        let [v, w, x, y, z] = parity;
        for row in a.as_chunks_mut().0 {
            let [p, q, r, s, t] = *row;
            *row = [
                p ^ z ^ w.rotate_left(1),
                q ^ v ^ x.rotate_left(1),
                r ^ w ^ y.rotate_left(1),
                s ^ x ^ z.rotate_left(1),
                t ^ y ^ v.rotate_left(1),
            ];
        }
        rho_pi!(a:
            10 1, 7 3, 11 6, 17 10, 18 15, 3 21, 5 28, 16 36,
            8 45, 21 55, 24 2, 4 14, 15 27, 23 41, 19 56, 13 8,
            12 25, 2 43, 20 62, 14 18, 22 39, 9 61, 6 20, 1 44
        );
        for row in a.as_chunks_mut().0 {
            let [p, q, r, s, t] = *row;
            *row = [p ^ (!q & r), q ^ (!r & s), r ^ (!s & t), s ^ (!t & p), t ^ (!p & q)];
        }
        a[0] ^= constant;
    }
}

#[cfg(test)]
mod tests {
    use super::super::hex;
    use super::keccak256;

    #[test]
    fn known_digests() {
        let empty = "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470";
        assert_eq!(hex::plain(&keccak256(b"")), empty);
        // One byte less than a block, a whole block, and one more: the places where padding goes wrong.
        for (len, digest) in [
            (135, "34367dc248bbd832f4e3e69dfaac2f92638bd0bbd18f2912ba4ef454919cf446"),
            (136, "a6c4d403279fe3e0af03729caada8374b5ca54d8065329a3ebcaeb4b60aa386e"),
            (137, "d869f639c7046b4929fc92a4d988a8b22c55fbadb802c0c66ebcd484f1915f39"),
        ] {
            assert_eq!(hex::plain(&keccak256(&vec![b'a'; len])), digest, "{len} bytes");
        }
    }
}
