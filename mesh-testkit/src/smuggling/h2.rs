//! Just enough HTTP/2 to send frames that a library would refuse to send, and to read what is answered.

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const DATA: u8 = 0x0;
pub(super) const HEADERS: u8 = 0x1;
pub(super) const PRIORITY: u8 = 0x2;
pub(super) const RST_STREAM: u8 = 0x3;
pub(super) const SETTINGS: u8 = 0x4;
pub(super) const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
pub(super) const WINDOW_UPDATE: u8 = 0x8;
pub(super) const CONTINUATION: u8 = 0x9;
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
/// The names of error codes (RFC 9113, 7).
const REASONS: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

/// How a client begins.
pub(super) fn preface() -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    frame(&mut out, SETTINGS, 0, 0, &[]);
    out
}

/// A connection with one stream: these fields, byte for byte, and this body.
pub(super) fn connection(fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut out = preface();
    let mut block = Vec::new();
    for (name, value) in fields {
        field(&mut block, name, value);
    }
    let end = if body.is_empty() { END_STREAM } else { 0 };
    frame(&mut out, HEADERS, END_HEADERS | end, 1, &block);
    if !body.is_empty() {
        frame(&mut out, DATA, END_STREAM, 1, body);
    }
    out
}

/// A literal field without indexing, new name, no Huffman code (RFC 7541, 6.2.2).
pub(super) fn field(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    string(block, name.as_bytes());
    string(block, value.as_bytes());
}

/// A literal field that enters the dynamic table (RFC 7541, 6.2.1).
pub(super) fn indexed_field(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0x40);
    string(block, name.as_bytes());
    string(block, value.as_bytes());
}

pub(super) fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// What a server said, as far as it is an answer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// The status of the first response.
    pub(super) status: Option<u16>,
    /// The code of the first RST_STREAM.
    pub(super) reset: Option<&'static str>,
    /// How many streams were reset.
    pub(super) resets: usize,
    /// The code of the last GOAWAY that is an error.
    pub(super) goaway: Option<&'static str>,
}

/// Reads the frames of an answer.
pub(super) fn answer(bytes: &[u8]) -> Answer {
    let (mut rest, mut out) = (bytes, Answer::default());
    while let Some((head, after)) = rest.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some((payload, next)) = after.split_at_checked(length) else {
            break;
        };
        match head[3] {
            HEADERS if out.status.is_none() => out.status = first_status(payload),
            RST_STREAM => {
                out.reset = out.reset.or(payload.get(..4).and_then(reason));
                out.resets += 1;
            }
            GOAWAY => {
                let code = payload.get(4..8).and_then(reason);
                out.goaway = code.filter(|name| *name != "NO_ERROR").or(out.goaway);
            }
            _ => {}
        }
        rest = next;
    }
    out
}

fn reason(code: &[u8]) -> Option<&'static str> {
    let code = u32::from_be_bytes(code.try_into().ok()?);
    REASONS.get(code as usize).copied().or(Some("unknown"))
}

/// The status at the head of a response's block, where it is one of the static table or a plain literal. RFC 7541, appendix A:
/// indices 8 to 14 are statuses; a literal with such a name has its digits next.
fn first_status(block: &[u8]) -> Option<u16> {
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    // A change of the table's size may stand first (RFC 7541, 6.3).
    let start = block.iter().position(|byte| byte & 0xe0 != 0x20)?;
    let block = &block[start..];
    let first = *block.first()?;
    if first & 0x80 != 0 {
        return STATIC
            .get(usize::from(first & 0x7f).checked_sub(8)?)
            .copied();
    }
    let length = *block.get(1)?;
    let text = block.get(2..2 + usize::from(length & 0x7f))?;
    let digits = if length & 0x80 != 0 {
        huffman_digits(text)
    } else {
        String::from_utf8(text.to_vec()).ok()?
    };
    digits.parse().ok()
}

/// Digits in Huffman code: five bits for 0 to 2, six bits for 3 to 9 (RFC 7541, appendix B); padding ends them.
fn huffman_digits(bytes: &[u8]) -> String {
    let bits: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1))
        .collect();
    let number = |bits: &[u8]| bits.iter().fold(0u8, |sum, bit| sum << 1 | bit);
    let (mut rest, mut out) = (&bits[..], String::new());
    while rest.len() >= 5 {
        let short = number(&rest[..5]);
        let (digit, used) = match rest.get(..6).map(number) {
            _ if short <= 2 => (short, 5),
            Some(long @ 0x19..=0x1f) => (long - 0x19 + 3, 6),
            _ => break,
        };
        out.push(char::from(b'0' + digit));
        rest = &rest[used..];
    }
    out
}

/// A string of HPACK: a length with a prefix of seven bits, then the bytes.
fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut length = bytes.len();
    if length < 127 {
        out.push(length as u8);
    } else {
        out.push(127);
        length -= 127;
        while length >= 128 {
            out.push((length % 128) as u8 | 128);
            length /= 128;
        }
        out.push(length as u8);
    }
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_resets_and_goaways_are_read() {
        let mut bytes = Vec::new();
        frame(&mut bytes, SETTINGS, 0, 0, &[]);
        // 431 in Huffman code: 011010 011001 00001, padded with ones.
        frame(
            &mut bytes,
            HEADERS,
            END_HEADERS,
            1,
            &[0x48, 0x83, 0b0110_1001, 0b1001_0000, 0b1111_1111],
        );
        frame(&mut bytes, RST_STREAM, 0, 3, &[0, 0, 0, 7]);
        frame(&mut bytes, GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 11]);
        frame(&mut bytes, GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
        let seen = answer(&bytes);
        assert_eq!(seen.status, Some(431));
        assert_eq!((seen.reset, seen.resets), (Some("REFUSED_STREAM"), 1));
        assert_eq!(seen.goaway, Some("ENHANCE_YOUR_CALM"));
        assert_eq!(
            first_status(&[0x3f, 0xe1, 0x1f, 0x8c]),
            None,
            "a size over one byte"
        );
        assert_eq!(first_status(&[0x20, 0x8c]), Some(400));
    }
}
