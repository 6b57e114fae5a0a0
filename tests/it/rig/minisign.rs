//! Signatures as minisign makes them, so that tests can sign what they serve.
//!
//! Ed25519 is that of the TLS library; BLAKE2b (RFC 7693) and base64 are written out, since nothing
//! else in the tree makes them.

use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::SigningKey;
use std::sync::Arc;

/// A pair of keys.
pub(crate) struct Key {
    id: [u8; 8],
    key: Arc<dyn SigningKey>,
}

impl Key {
    /// The pair that follows from a number.
    pub(crate) fn new(seed: u8) -> Self {
        // PKCS #8 of an Ed25519 key without its public half (RFC 8410): a fixed head and 32 bytes.
        let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        der.extend([seed; 32]);
        Key { id: [seed; 8], key: any_eddsa_type(&PrivatePkcs8KeyDer::from(der)).unwrap() }
    }

    /// The public key as in the second line of a `.pub` file.
    pub(crate) fn public(&self) -> String {
        let spki = self.key.public_key().unwrap();
        let raw = &spki.as_ref()[spki.as_ref().len() - 32..];
        base64(&[b"Ed", &self.id[..], raw].concat())
    }

    /// A `.minisig` file for some bytes.
    pub(crate) fn sign(&self, bytes: &[u8], trusted_comment: &str) -> String {
        self.write(b"ED", &blake2b(bytes), trusted_comment)
    }

    /// One of the kind that minisign made before it hashed first.
    pub(crate) fn sign_legacy(&self, bytes: &[u8], trusted_comment: &str) -> String {
        self.write(b"Ed", bytes, trusted_comment)
    }

    fn write(&self, kind: &[u8; 2], message: &[u8], comment: &str) -> String {
        let signature = self.raw(message);
        let global = self.raw(&[&signature[..], comment.as_bytes()].concat());
        let first = base64(&[&kind[..], &self.id, &signature].concat());
        format!(
            "untrusted comment: made by a test\n{first}\ntrusted comment: {comment}\n{}\n",
            base64(&global)
        )
    }

    fn raw(&self, message: &[u8]) -> Vec<u8> {
        self.key.choose_scheme(&[SignatureScheme::ED25519]).unwrap().sign(message).unwrap()
    }
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - three.len()));
        for index in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * index)) as usize & 63];
            text.push(if index <= three.len() { letter as char } else { '=' });
        }
    }
    text
}

/// BLAKE2b with 64 bytes of output and no key.
fn blake2b(bytes: &[u8]) -> [u8; 64] {
    const IV: [u64; 8] = [
        0x6a09_e667_f3bc_c908,
        0xbb67_ae85_84ca_a73b,
        0x3c6e_f372_fe94_f82b,
        0xa54f_f53a_5f1d_36f1,
        0x510e_527f_ade6_82d1,
        0x9b05_688c_2b3e_6c1f,
        0x1f83_d9ab_fb41_bd6b,
        0x5be0_cd19_137e_2179,
    ];
    let mut state = IV;
    state[0] ^= 0x0101_0040;
    let blocks = bytes.len().div_ceil(128).max(1);
    for index in 0..blocks {
        let part = &bytes[index * 128..bytes.len().min(index * 128 + 128)];
        let mut block = [0; 128];
        block[..part.len()].copy_from_slice(part);
        let mut words = [0; 16];
        for (word, eight) in words.iter_mut().zip(block.chunks_exact(8)) {
            *word = u64::from_le_bytes(eight.try_into().unwrap());
        }
        let mut v = [state, IV].concat();
        v[12] ^= (index * 128 + part.len()) as u64;
        if index + 1 == blocks {
            v[14] = !v[14];
        }
        compress(&mut v, &words);
        for (at, word) in state.iter_mut().enumerate() {
            *word ^= v[at] ^ v[at + 8];
        }
    }
    let mut out = [0; 64];
    for (eight, word) in out.chunks_exact_mut(8).zip(state) {
        eight.copy_from_slice(&word.to_le_bytes());
    }
    out
}

fn compress(v: &mut [u64], words: &[u64; 16]) {
    const SIGMA: [[usize; 16]; 10] = [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
        [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
        [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
        [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
        [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
        [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
        [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
        [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
        [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
    ];
    const MIX: [[usize; 4]; 8] = [
        [0, 4, 8, 12],
        [1, 5, 9, 13],
        [2, 6, 10, 14],
        [3, 7, 11, 15],
        [0, 5, 10, 15],
        [1, 6, 11, 12],
        [2, 7, 8, 13],
        [3, 4, 9, 14],
    ];
    for round in 0..12 {
        let order = SIGMA[round % 10];
        for (step, [a, b, c, d]) in MIX.into_iter().enumerate() {
            for (word, (first, second)) in [(order[2 * step], (32, 24)), (order[2 * step + 1], (16, 63))] {
                v[a] = v[a].wrapping_add(v[b]).wrapping_add(words[word]);
                v[d] = (v[d] ^ v[a]).rotate_right(first);
                v[c] = v[c].wrapping_add(v[d]);
                v[b] = (v[b] ^ v[c]).rotate_right(second);
            }
        }
    }
}
