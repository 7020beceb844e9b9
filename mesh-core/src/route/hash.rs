//! Hash tables over configured keys.
//!
//! Keys come from the configuration, never from requests, so that a request cannot grow a chain: a fast hash is safe.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// A table from bytes to `V`.
pub(crate) type ByteMap<V> = HashMap<Box<[u8]>, V, BuildHasherDefault<WordHasher>>;

/// Multiplies and rotates word by word.
#[derive(Default)]
pub(crate) struct WordHasher(u64);

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl WordHasher {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    }
}

impl Hasher for WordHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.mix(u64::from_le_bytes(last));
        }
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn finish(&self) -> u64 {
        // The table takes its bucket from the low bits and its tag from the high ones.
        self.0 ^ (self.0 >> 32)
    }
}
