//! Texts that are made for single requests: written into one buffer a thread, kept in one block a thread, so that most cost no
//! allocation.

use std::{cell::RefCell, fmt, io::Write as _};

use bytes::{Bytes, BytesMut};
use http::HeaderValue;

/// Bytes that are cut into texts at a time. A text that lives on keeps its block.
const BLOCK: usize = 4096;
/// Longer texts have memory of their own, so that they do not use up blocks.
const LONGEST: usize = BLOCK / 8;
/// Most that the buffer keeps between texts.
const BUFFER: usize = 16 * 1024;

thread_local! {
    static MEMORY: RefCell<BytesMut> = RefCell::default();
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A copy of `text`.
pub(crate) fn bytes(text: &[u8]) -> Bytes {
    if text.len() > LONGEST {
        return Bytes::copy_from_slice(text);
    }
    MEMORY.with_borrow_mut(|memory| {
        if memory.capacity() < text.len() {
            memory.reserve(BLOCK);
        }
        memory.extend_from_slice(text);
        memory.split().freeze()
    })
}

/// A copy of `text`; `None` if no header can have this value.
pub(crate) fn header_value(text: &[u8]) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(bytes(text)).ok()
}

/// What `value` is written as; `None` if no header can have this value.
pub(crate) fn display_value(value: impl fmt::Display) -> Option<HeaderValue> {
    with_buffer(|buffer| {
        write!(buffer, "{value}").ok()?;
        header_value(buffer)
    })
}

/// Lends an empty buffer, which usually has room.
pub(crate) fn with_buffer<R>(work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    // Taken out for the time, so that work within work finds an empty one.
    let mut buffer = SPARE.take();
    let result = work(&mut buffer);
    if buffer.capacity() <= BUFFER {
        buffer.clear();
        SPARE.set(buffer);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stay_what_they_were() {
        let texts: Vec<String> = (0..2000).map(|n| format!("text {n}")).collect();
        let kept: Vec<Bytes> = texts.iter().map(|text| bytes(text.as_bytes())).collect();
        assert!(texts.iter().zip(&kept).all(|(text, kept)| text == kept));
        let long = vec![b'x'; LONGEST + 1];
        assert_eq!(bytes(&long), long);
        assert_eq!(bytes(b""), "");
    }

    #[test]
    fn values_are_checked() {
        assert_eq!(header_value(b"a b").expect("a value"), "a b");
        assert!(header_value(b"a\nb").is_none());
        assert_eq!(display_value(7).expect("a value"), "7");
        assert!(display_value("\0").is_none());
    }

    #[test]
    fn a_buffer_is_empty_also_within_another() {
        with_buffer(|outer| {
            outer.extend_from_slice(b"outer");
            with_buffer(|inner| assert!(inner.is_empty()));
            assert_eq!(outer, b"outer");
        });
        with_buffer(|again| assert!(again.is_empty()));
    }
}
