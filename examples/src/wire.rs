//! As much HTTP/1.1 as `foreign_proxy` speaks: heads without bodies, one request a connection.

use std::io::{self, BufRead as _, BufReader, Cursor, Read, Write as _};
use std::net::TcpStream;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};

/// Reads a request; `None` if it is not understood, or has a body.
pub fn read(client: &TcpStream) -> Option<Request<()>> {
    let lines = BufReader::new(client.take(65_536)).lines();
    let mut lines = lines.map_while(Result::ok);
    let first = lines.next()?;
    let &[method, path, "HTTP/1.1"] = &first.split(' ').collect::<Vec<_>>()[..] else {
        return None;
    };
    let mut request = Request::builder().method(method).uri(path);
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        request = request.header(name, value.trim());
    }
    let request = request.body(()).ok()?;
    let body = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    let has_body = body.iter().any(|name| request.headers().contains_key(name));
    (!has_body).then_some(request)
}

/// Sends a request on: the status of the answer, and all of the answer, to be read.
///
/// # Errors
/// No connection, or no answer that is HTTP/1.
pub fn send(address: &str, mut request: Request<()>) -> io::Result<(u16, impl Read)> {
    let close = HeaderValue::from_static("close");
    request.headers_mut().insert(header::CONNECTION, close);
    let first = format!("{} {} HTTP/1.1", request.method(), request.uri());
    let mut upstream = TcpStream::connect(address)?;
    upstream.write_all(&head(&first, request.headers()))?;
    let (mut rest, mut line) = (BufReader::new(upstream), String::new());
    rest.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    Ok((status, Cursor::new(line).chain(rest)))
}

/// Answers by ourselves.
///
/// # Errors
/// The client has gone.
pub fn answer(mut client: &TcpStream, response: &Response<Bytes>) -> io::Result<()> {
    let first = format!("HTTP/1.1 {}\r\nconnection: close", response.status());
    client.write_all(&head(&first, response.headers()))?;
    client.write_all(response.body())
}

fn head(first: &str, headers: &HeaderMap) -> Vec<u8> {
    let mut bytes = [first.as_bytes(), b"\r\n"].concat();
    for (name, value) in headers {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend(b"\r\n");
    bytes
}
