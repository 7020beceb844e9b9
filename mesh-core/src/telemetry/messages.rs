//! How many gRPC messages pass in one direction, by their frames: a byte of flags, four of length, then so many bytes.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes ahead of a message.
const HEAD: u64 = 5;

/// Counts messages. One task at a time writes it, so that plain stores do.
#[derive(Debug, Default)]
pub(super) struct Messages {
    count: AtomicU64,
    /// Bytes of the frame's head that have come, above 32 bits of its length or, behind the head, of what is left of it.
    place: AtomicU64,
}

impl Messages {
    /// Takes the next bytes of the direction. A message counts from its first byte on, as in Envoy.
    pub(super) fn see(&self, mut data: &[u8]) {
        let place = self.place.load(Ordering::Relaxed);
        let mut count = self.count.load(Ordering::Relaxed);
        let (mut head, mut length) = (place >> 32, place & u64::from(u32::MAX));
        while let [first, rest @ ..] = data {
            if head == HEAD {
                let taken = usize::try_from(length).map_or(data.len(), |left| left.min(data.len()));
                data = &data[taken..];
                length -= taken as u64;
            } else {
                match head {
                    0 => count += 1,
                    _ => length = length << 8 | u64::from(*first),
                }
                head += 1;
                data = rest;
            }
            if head == HEAD && length == 0 {
                head = 0;
            }
        }
        self.count.store(count, Ordering::Relaxed);
        self.place.store(head << 32 | length, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_count_however_they_are_cut() {
        let long = vec![7; 70_000];
        let messages: [&[u8]; 5] = [b"abc", b"", &long, b"", b"x"];
        let mut stream = Vec::new();
        for message in messages {
            let length = u32::try_from(message.len()).expect("short");
            stream.push(0);
            stream.extend(length.to_be_bytes());
            stream.extend(message);
        }
        for size in [1, 2, 3, 4, 5, 7, 4096, stream.len()] {
            let counted = Messages::default();
            stream.chunks(size).for_each(|part| counted.see(part));
            assert_eq!(counted.count(), 5, "in parts of {size}");
        }
        let counted = Messages::default();
        counted.see(&[1, 0xff, 0xff, 0xff, 0xff]);
        counted.see(&long);
        assert_eq!(counted.count(), 1, "a message that breaks off counts");
    }
}
