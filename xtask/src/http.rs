//! The few lines of HTTP/1.1 that a measurement needs: one GET on a connection of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Fallible;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks `address` for `path`: the status and the body.
pub(crate) fn get(address: SocketAddr, path: &str) -> Fallible<(u16, String)> {
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or("an answer without a head")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or("an answer without a status")?;
    Ok((status, body.to_owned()))
}
