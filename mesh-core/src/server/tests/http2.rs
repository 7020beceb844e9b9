//! HTTP/2 connections, and peers that flood them. Frames are written by hand, as no client library sends such things.

use std::time::Duration;

use tokio::{io::AsyncWriteExt, time::timeout};

use super::support::*;
use crate::{
    Kind,
    model::{CodecType, HttpConnectionManager},
    server::Drain,
};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
/// The PING whose answer tells the server that its GOAWAY has arrived. It may stand before the GOAWAY or after it.
const SHUTDOWN_PING: &[u8] = &[0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];

/// `GET http://x/` in HPACK: three entries of the static table and one literal.
pub(super) const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'x'];

fn manager() -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: "test".into(),
        codec: CodecType::Http2,
        ..HttpConnectionManager::default()
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

impl Client {
    pub(super) async fn preface(&mut self) {
        self.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        self.send(&frame(SETTINGS, 0, 0, &[])).await;
    }

    pub(super) async fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        if !self.read(&mut head).await {
            return None;
        }
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; len];
        if !self.read(&mut payload).await {
            return None;
        }
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some((head[3], head[4], stream, payload))
    }

    /// Reads until a frame of `kind`; `None` if the connection ends before.
    pub(super) async fn frame_of(&mut self, kind: u8) -> Option<(u8, u32, Vec<u8>)> {
        loop {
            let (found, flags, stream, payload) = self.frame().await?;
            if found == kind {
                return Some((flags, stream, payload));
            }
        }
    }
}

#[tokio::test]
async fn streams_are_answered_and_counted() {
    let server = Running::http(manager());
    let mut client = server.connect().await;
    client.preface().await;
    for stream in [1, 3] {
        client
            .send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, GET))
            .await;
        let (_, _, payload) = client.frame_of(DATA).await.expect("a body");
        assert_eq!(payload, b"GET http://x/");
    }
    drop(client);
    server.idle().await;
    assert_eq!(server.stat("http.test.downstream_rq_active"), 0);
    assert_eq!(server.stat("http.test.downstream_cx_http2_active"), 0);
    assert_eq!(server.rejected(), []);
}

#[tokio::test]
async fn a_drain_says_goaway_and_answers_what_came() {
    let server = Running::http(manager());
    let mut client = server.connect().await;
    client.preface().await;
    client
        .send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, GET))
        .await;
    client.frame_of(DATA).await.expect("a body");
    server.handle.drain(Drain::Gradual(Duration::ZERO));
    client.frame_of(GOAWAY).await.expect("told to go");
    client
        .send(&frame(HEADERS, END_STREAM | END_HEADERS, 3, GET))
        .await;
    client.frame_of(DATA).await.expect("still answered");
    client.send(&frame(PING, ACK, 0, SHUTDOWN_PING)).await;
    while client.frame().await.is_some() {}
    drop(client);
    server.idle().await;
}

#[tokio::test]
async fn an_idle_peer_that_never_leaves_is_closed() {
    let mut short = manager();
    short.idle_timeout = Some(Duration::from_millis(50));
    short.drain_timeout = Duration::from_millis(50);
    let server = Running::http(short);
    let mut client = server.connect().await;
    client.preface().await;
    while client.frame().await.is_some() {}
    drop(client);
    server.idle().await;
    assert_eq!(server.stat("http.test.downstream_cx_idle_timeout"), 1);
}

#[tokio::test]
async fn rapid_reset_ends_the_connection() {
    let server = Running::http(manager());
    let mut client = server.connect().await;
    client.preface().await;
    let mut flood = Vec::new();
    for n in 0..5000 {
        flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, GET));
        flood.extend(frame(RST_STREAM, 0, 2 * n + 1, &8u32.to_be_bytes()));
    }
    client.send(&flood).await;
    let goaway = client.frame_of(GOAWAY).await;
    if let Some((_, _, payload)) = goaway {
        assert_eq!(payload[7], 11, "ENHANCE_YOUR_CALM");
    }
    drop(client);
    server.idle().await;
    assert_eq!(server.stat("http.test.downstream_rq_active"), 0);
    assert_eq!(server.rejected()[0].kind, Kind::DownstreamProtocol);
    assert_eq!(server.stat("http.test.downstream_cx_protocol_error"), 1);
}

#[tokio::test]
async fn endless_continuation_ends_the_connection() {
    let server = Running::http(manager());
    let mut client = server.connect().await;
    client.preface().await;
    client.send(&frame(HEADERS, END_STREAM, 1, GET)).await;
    // A header that is never indexed, again and again.
    let line = [&[0x10, 1, b'a', 0x7f, 0x81, 0x7e][..], &[b'b'; 16_384]].concat();
    let piece = frame(CONTINUATION, 0, 1, &line[..16_000]);
    let mut sent = 0;
    while sent < 100 << 20 && client.0.write_all(&piece).await.is_ok() {
        sent += piece.len();
    }
    assert!(sent < 16 << 20, "{sent} bytes were taken");
    drop(client);
    server.idle().await;
}

#[tokio::test]
async fn pings_and_settings_whose_answers_are_not_read_stop_being_read() {
    for piece in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[])] {
        let server = Running::http(manager());
        let mut client = server.connect().await;
        client.preface().await;
        let flood = piece.repeat(1000);
        let mut sent = 0;
        // Blocked writing is the proof that the server holds back.
        while let Ok(Ok(())) = timeout(Duration::from_millis(500), client.0.write_all(&flood)).await
        {
            sent += flood.len();
            assert!(sent < 256 << 20, "the server takes any number of them");
        }
        drop(client);
        server.idle().await;
    }
}

#[tokio::test]
async fn streams_over_the_limit_are_refused_and_others_answered() {
    let mut two = manager();
    two.http2.max_concurrent_streams = Some(2);
    let server = Running::http(two);
    let mut client = server.connect().await;
    client.preface().await;
    // Bodies that do not end keep their streams open on the client's side.
    for stream in [1, 3, 5] {
        client.send(&frame(HEADERS, END_HEADERS, stream, GET)).await;
    }
    let (_, stream, reason) = client.frame_of(RST_STREAM).await.expect("refused");
    assert_eq!(
        (stream, &reason[..]),
        (5, &7u32.to_be_bytes()[..]),
        "REFUSED_STREAM"
    );
}

#[tokio::test]
async fn a_head_that_is_too_large_is_answered_with_431() {
    let mut small = manager();
    small.max_headers_count = 5;
    let server = Running::http(small);
    let mut client = server.connect().await;
    client.preface().await;
    let mut block = GET.to_vec();
    for n in b'a'..=b'z' {
        block.extend([0x10, 1, n, 1, b'v']);
    }
    client
        .send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block))
        .await;
    let (_, stream, _) = client.frame_of(HEADERS).await.expect("an answer");
    assert_eq!(stream, 1);
    assert_eq!(server.rejected()[0].kind, Kind::TooManyHeaders);
}

/// Nothing more has to come for it to be said.
#[tokio::test]
async fn the_last_request_of_a_connection_is_followed_by_goaway() {
    let mut one = manager();
    one.max_requests_per_connection = Some(1);
    let server = Running::http(one);
    let mut client = server.connect().await;
    client.preface().await;
    client
        .send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, GET))
        .await;
    client.frame_of(GOAWAY).await.expect("told to go");
    let reached = server.stat("http.test.downstream_cx_max_requests_reached");
    assert_eq!(reached, 1);
}
