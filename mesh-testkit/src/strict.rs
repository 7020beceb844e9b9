//! A strict HTTP/1.1 request parser: it takes only what every parser understands in the same way.
//!
//! What a proxy sends on is read again with it. Anything that RFC 9112 lets a receiver repair, ignore or choose is an error
//! here, since two receivers may choose differently.

/// A request as a strict reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The request target as sent.
    pub target: String,
    /// The headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, chunks joined.
    pub body: Vec<u8>,
}

impl Request {
    /// The value of the first header `name` (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    fn count(&self, name: &str) -> usize {
        self.headers
            .iter()
            .filter(|(known, _)| known == name)
            .count()
    }
}

/// Reads one request from the start of `bytes`: the request and its length, or `None` if more bytes are needed.
///
/// # Errors
///
/// What is not strict, in words.
pub fn request(bytes: &[u8]) -> Result<Option<(Request, usize)>, String> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return incomplete_head(bytes);
    };
    let mut lines = Lines {
        rest: &bytes[..end + 2],
    };
    let (method, target) = request_line(lines.next_line()?)?;
    let mut head = Request {
        method,
        target,
        headers: Vec::new(),
        body: Vec::new(),
    };
    while !lines.rest.is_empty() {
        head.headers.push(field(lines.next_line()?)?);
    }
    if head.count("host") != 1 {
        return Err(format!("{} Host headers", head.count("host")));
    }
    let start = end + 4;
    let Some((body, length)) = body(&head, &bytes[start..])? else {
        return Ok(None);
    };
    head.body = body;
    Ok(Some((head, start + length)))
}

/// A head without its end is fine only as long as nothing in it is wrong already.
fn incomplete_head(bytes: &[u8]) -> Result<Option<(Request, usize)>, String> {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(0) => Err("empty line before the request".to_owned()),
        Some(at) if bytes[at - 1] != b'\r' => Err("bare LF in a head".to_owned()),
        _ => Ok(None),
    }
}

struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    fn next_line(&mut self) -> Result<&'a [u8], String> {
        let end = find(self.rest, b"\r\n").ok_or("line without CRLF")?;
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 2..];
        if line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return Err(format!(
                "CR, LF or NUL within a line: {:?}",
                String::from_utf8_lossy(line)
            ));
        }
        Ok(line)
    }
}

fn request_line(line: &[u8]) -> Result<(String, String), String> {
    let text =
        visible(line).ok_or_else(|| format!("request line {:?}", String::from_utf8_lossy(line)))?;
    let parts: Vec<&str> = text.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts.as_slice() else {
        return Err(format!("request line {text:?}"));
    };
    if !is_token(method.as_bytes()) || target.is_empty() {
        return Err(format!("request line {text:?}"));
    }
    Ok(((*method).to_owned(), (*target).to_owned()))
}

fn field(line: &[u8]) -> Result<(String, String), String> {
    let shown = || String::from_utf8_lossy(line).into_owned();
    let colon = line
        .iter()
        .position(|byte| *byte == b':')
        .ok_or_else(|| format!("header without colon {:?}", shown()))?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if !is_token(name) {
        return Err(format!("header name in {:?}", shown()));
    }
    if value
        .iter()
        .any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f)
    {
        return Err(format!("control byte in {:?}", shown()));
    }
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    Ok((name, String::from_utf8_lossy(value).into_owned()))
}

fn body(head: &Request, bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    match (
        head.count("transfer-encoding"),
        head.count("content-length"),
    ) {
        (0, 0) => Ok(Some((Vec::new(), 0))),
        (0, 1) => {
            let length = decimal(head.header("content-length").unwrap_or_default())?;
            Ok((bytes.len() >= length).then(|| (bytes[..length].to_vec(), length)))
        }
        (1, 0)
            if head
                .header("transfer-encoding")
                .is_some_and(|value| value.eq_ignore_ascii_case("chunked")) =>
        {
            chunks(bytes)
        }
        (codings, lengths) => Err(format!(
            "{codings} Transfer-Encoding ({:?}) and {lengths} Content-Length headers",
            head.header("transfer-encoding")
        )),
    }
}

fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else {
            return Ok(None);
        };
        let size = hexadecimal(&bytes[at..at + end])?;
        at += end + 2;
        if size == 0 {
            return Ok(trailers(&bytes[at..])?.map(|length| (body, at + length)));
        }
        let Some(chunk) = bytes.get(at..at + size + 2) else {
            return Ok(None);
        };
        if !chunk.ends_with(b"\r\n") {
            return Err("chunk without CRLF at its end".to_owned());
        }
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
    }
}

/// The length of the trailer section with its empty line.
fn trailers(bytes: &[u8]) -> Result<Option<usize>, String> {
    let mut at = 0;
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else {
            return Ok(None);
        };
        if end == 0 {
            return Ok(Some(at + 2));
        }
        let (name, _) = field(&bytes[at..at + end])?;
        if matches!(
            name.as_str(),
            "content-length" | "transfer-encoding" | "host"
        ) {
            return Err(format!("{name} in a trailer"));
        }
        at += end + 2;
    }
}

fn decimal(text: &str) -> Result<usize, String> {
    let digits =
        !text.is_empty() && text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    number.ok_or_else(|| format!("Content-Length {text:?}"))
}

fn hexadecimal(line: &[u8]) -> Result<usize, String> {
    let text = String::from_utf8_lossy(line);
    let digits = !line.is_empty() && line.len() <= 15 && line.iter().all(u8::is_ascii_hexdigit);
    let number = digits
        .then(|| usize::from_str_radix(&text, 16).ok())
        .flatten();
    number.ok_or_else(|| format!("chunk size {text:?}"))
}

fn visible(line: &[u8]) -> Option<&str> {
    let good = line.iter().all(|byte| (0x20..0x7f).contains(byte));
    good.then(|| std::str::from_utf8(line).ok()).flatten()
}

fn is_token(name: &[u8]) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<(Request, usize)>, String> {
        request(text.as_bytes())
    }

    #[test]
    fn pipelined_requests_are_read_one_by_one() {
        let text = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhiGET /b HTTP/1.1\r\nHost: h\r\n\r\n";
        let (first, used) = read(text).expect("strict").expect("complete");
        assert_eq!(
            (first.target.as_str(), first.body.as_slice()),
            ("/a", b"hi".as_slice())
        );
        let (second, _) = read(&text[used..]).expect("strict").expect("complete");
        assert_eq!(second.target, "/b");
    }

    #[test]
    fn chunks_are_joined_and_trailers_belong_to_the_request() {
        let text = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nx: y\r\n\r\n";
        let (request, used) = read(text).expect("strict").expect("complete");
        assert_eq!(
            (request.body.as_slice(), used),
            (b"abc".as_slice(), text.len())
        );
    }

    #[test]
    fn every_prefix_of_a_good_request_only_asks_for_more() {
        let text =
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(read(&text[..end]), Ok(None), "prefix of {end} bytes");
        }
    }

    #[test]
    fn what_receivers_may_read_differently_is_refused() {
        let host = "Host: h\r\n";
        for (what, text) in [
            ("bare LF", "GET / HTTP/1.1\nHost: h\n\n".to_owned()),
            ("no host", "GET / HTTP/1.1\r\nA: b\r\n\r\n".to_owned()),
            ("two hosts", format!("GET / HTTP/1.1\r\n{host}{host}\r\n")),
            (
                "both framings",
                format!(
                    "POST / HTTP/1.1\r\n{host}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
                ),
            ),
            (
                "two lengths",
                format!("POST / HTTP/1.1\r\n{host}Content-Length: 1\r\nContent-Length: 1\r\n\r\nx"),
            ),
            (
                "length in a list",
                format!("POST / HTTP/1.1\r\n{host}Content-Length: 1, 1\r\n\r\nx"),
            ),
            (
                "signed length",
                format!("POST / HTTP/1.1\r\n{host}Content-Length: +1\r\n\r\nx"),
            ),
            (
                "coding",
                format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: gzip, chunked\r\n\r\n"),
            ),
            (
                "space before colon",
                format!("GET / HTTP/1.1\r\n{host}A : b\r\n\r\n"),
            ),
            (
                "fold",
                format!("GET / HTTP/1.1\r\n{host}A: b\r\n c\r\n\r\n"),
            ),
            (
                "bare CR",
                format!("GET / HTTP/1.1\r\n{host}A: b\rc\r\n\r\n"),
            ),
            (
                "chunk size",
                format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n0x1\r\n"),
            ),
            (
                "trailer",
                format!(
                    "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\nHost: x\r\n\r\n"
                ),
            ),
            ("version", format!("GET / HTTP/1.0\r\n{host}\r\n")),
            ("spaces", format!("GET  / HTTP/1.1\r\n{host}\r\n")),
        ] {
            assert!(read(&text).is_err(), "{what} was taken");
        }
    }
}
