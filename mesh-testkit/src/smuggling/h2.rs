//! Just enough HTTP/2 to send heads that a library would refuse to send, and to read a status.

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// A connection with one stream: these fields, byte for byte, and this body.
pub(super) fn connection(fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    frame(&mut out, SETTINGS, 0, 0, &[]);
    let mut block = Vec::new();
    for (name, value) in fields {
        // Literal field without indexing, new name, no Huffman code (RFC 7541, 6.2.2).
        block.push(0);
        string(&mut block, name.as_bytes());
        string(&mut block, value.as_bytes());
    }
    let end = if body.is_empty() { END_STREAM } else { 0 };
    frame(&mut out, HEADERS, END_HEADERS | end, 1, &block);
    if !body.is_empty() {
        frame(&mut out, DATA, END_STREAM, 1, body);
    }
    out
}

/// The status of the first HEADERS frame in an answer, where it is one of the static table or a plain literal.
pub(super) fn status(answer: &[u8]) -> Option<u16> {
    let mut rest = answer;
    while let Some((head, after)) = rest.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (payload, next) = after.split_at_checked(length)?;
        if head[3] == HEADERS {
            return first_status(payload);
        }
        rest = next;
    }
    None
}

/// RFC 7541, appendix A: indices 8 to 14 are statuses; a literal with such a name has its digits next.
fn first_status(block: &[u8]) -> Option<u16> {
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let first = *block.first()?;
    if first & 0x80 != 0 {
        return STATIC
            .get(usize::from(first & 0x7f).checked_sub(8)?)
            .copied();
    }
    let length = *block.get(1)?;
    if length & 0x80 != 0 {
        // A Huffman code of digits: codes of 5 bits for 0 to 2, of 6 bits for 3 to 9; only the first digit is needed.
        let bits = block.get(2)? >> 3;
        return Some(match bits {
            0..=2 => u16::from(bits) * 100,
            _ => u16::from((block.get(2)? >> 2).checked_sub(0x19)? + 3) * 100,
        });
    }
    std::str::from_utf8(block.get(2..5)?).ok()?.parse().ok()
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
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
