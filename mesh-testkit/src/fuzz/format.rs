//! Formats of access logs, headers and replies: whatever is written, each yields the same again and stays on its line.

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderName;
use mesh_core::model::{Format, JsonFormat, Name, Value};
use mesh_core::route::Field;
use mesh_core::route::format::{
    FormatContext, Formatter, Item, JsonFormatter, MetadataSource, TimePoint,
};

/// A context in which everything is known.
struct Known {
    start: SystemTime,
    now: Instant,
}

const VALUE: &[u8] = b"a \"value\" \xff%20\\";

impl FormatContext for Known {
    fn request_header(&self, _field: &Field) -> Option<Cow<'_, [u8]>> {
        Some(VALUE.into())
    }

    fn response_header(&self, _name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        Some(VALUE.into())
    }

    fn response_trailer(&self, _name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        Some(VALUE.into())
    }

    fn item(&self, _item: Item, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(b"127.0.0.1");
        true
    }

    fn metadata(&self, _: MetadataSource, _: &str, path: &[Name]) -> Option<Cow<'_, Value>> {
        let text = Value::String("text".into());
        Some(Cow::Owned(match path.len() % 3 {
            0 => text,
            1 => Value::Object(vec![("a".into(), text)]),
            _ => Value::List(vec![text, Value::Null]),
        }))
    }

    fn filter_state(&self, _key: &str) -> Option<Cow<'_, [u8]>> {
        Some(VALUE.into())
    }

    fn start_time(&self) -> Option<SystemTime> {
        Some(self.start)
    }

    fn moment(&self, _point: TimePoint) -> Option<Instant> {
        Some(self.now)
    }
}

/// Parses bytes as a format, behind eight bytes that say what time it is, and writes it with all and with nothing known.
pub fn format(data: &[u8]) {
    let Some((seconds, text)) = data.split_first_chunk::<8>() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    // As late as the calendar of any peer may go: the year 10,000.
    let seconds = u64::from_le_bytes(*seconds) % 253_402_300_800;
    let known = Known {
        start: UNIX_EPOCH + Duration::from_secs(seconds),
        now: Instant::now(),
    };
    let format = match Formatter::parse(text) {
        Ok(format) => format,
        Err(error) => {
            assert!(!error.reason.is_empty(), "a refusal says nothing");
            return;
        }
    };
    let write = |context: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        context(&mut out);
        out
    };
    let whole = write(&|out| format.write(&known, b"-", out));
    let nothing = write(&|out| format.write(&(), b"-", out));
    for line in [&whole, &nothing] {
        let breaks = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
        assert!(
            breaks(line) <= breaks(text.as_bytes()),
            "{text:?} breaks its line"
        );
    }
    let leaf = Format { text: text.into() };
    let members = [("a".into(), JsonFormat::Leaf(leaf))];
    let json = JsonFormatter::new(&members, false).expect("a format is one in JSON too");
    let object = write(&|out| json.write(&known, out));
    let read: Result<serde_json::Value, _> = serde_json::from_slice(&object);
    assert!(
        read.is_ok(),
        "{text:?} makes {}",
        String::from_utf8_lossy(&object)
    );
}
