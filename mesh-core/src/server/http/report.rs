//! What the task answers or reports itself, since no service sees it.

use std::{
    error::Error as _,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use http::Version;
use hyper::rt::bounds::Http2ServerConnExec;
use tokio::io::AsyncWrite;

use super::{Codec, End, HttpTask};
use crate::{
    Kind,
    server::{Factory, Rejected, ServedBody, ServedFuture, factory::RawOf},
    telemetry::clock,
};

impl<F, X> HttpTask<F, X>
where
    F: Factory,
    X: Http2ServerConnExec<ServedFuture<F::Service, F::Body>, ServedBody<F::Body>> + Unpin,
{
    /// Looks for heads that come slowly, and for those that the codec answered by itself.
    pub(super) fn track_http2(&mut self) {
        let Some(back) = &self.back else { return };
        if !back.tally.in_head() {
            self.head = None;
        } else if self.head.is_none() {
            self.head = Some(clock::now());
        }
        let Some(heads) = back.tally.settled() else {
            return;
        };
        let (reported, resets) = self.unseen;
        let unseen = heads.saturating_sub(self.conn.link.handed_over() + reported);
        if unseen == 0 {
            return;
        }
        let reset = unseen.min(back.tally.resets() - resets);
        self.unseen = (reported + unseen, back.tally.resets());
        for n in 0..unseen {
            // What is not reset is answered: heads over the limit are all that the codec has an answer for.
            let (kind, status) = match n < reset {
                true => (Kind::DownstreamProtocol, 0),
                false => (Kind::HeadersTooLarge, Kind::HeadersTooLarge.reply().http),
            };
            self.reject(
                kind,
                status,
                Version::HTTP_2,
                "the codec refused the request",
            );
        }
    }

    /// The request head took too long. No codec answers half a request, so it is done here.
    pub(super) fn slow_head(&mut self, kind: Kind) -> End<RawOf<F>> {
        if kind == Kind::HeaderTimeout {
            self.conn.stats.downstream_rq_header_timeout.add(1);
        }
        let reply = kind.reply();
        // Half a request is never a whole one: 408 for each of them.
        let status = Kind::HeaderTimeout.reply().http;
        if matches!(self.codec, Codec::Http2(_)) {
            self.reject(kind, status, Version::HTTP_2, reply.details);
            return self.abort();
        }
        self.reject(kind, status, Version::HTTP_11, reply.details);
        let Some(mut io) = self.take_io() else {
            return End::Closed;
        };
        let server = self.conn.manager().server_name.clone();
        let rest = format!(
            "\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{}",
            reply.body.len(),
            reply.body
        );
        let answer = [
            b"HTTP/1.1 408 Request Timeout\r\nserver: ",
            server.as_bytes(),
            rest.as_bytes(),
        ]
        .concat();
        // Nothing else was written since the last response, so the socket's buffer has room, or the peer does not read.
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Ok(count)) = Pin::new(&mut io).poll_write(&mut cx, &answer) {
            self.conn.link.wrote(count);
        }
        let _ = Pin::new(&mut io).poll_shutdown(&mut cx);
        self.count_end(true);
        self.linger(io)
    }

    /// Reports a request whose head nobody has.
    fn reject(&self, kind: Kind, status: u16, version: Version, reason: &str) {
        let rejected = Rejected {
            kind,
            status,
            head: None,
            version,
            reason: reason.into(),
        };
        self.conn.reject(&rejected, None);
    }

    /// Reports why the codec gave up; whether the peer broke the protocol.
    pub(super) fn broke(&self, error: &hyper::Error, http1: bool) -> bool {
        let version = if http1 {
            Version::HTTP_11
        } else {
            Version::HTTP_2
        };
        let reason = || match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        let (kind, status) = if error.is_parse_too_large() {
            (Kind::HeadersTooLarge, Kind::HeadersTooLarge.reply().http)
        } else if error.is_parse_version_h2() {
            (Kind::DownstreamProtocol, 0)
        } else if error.is_parse() {
            (
                Kind::DownstreamProtocol,
                Kind::DownstreamProtocol.reply().http,
            )
        } else if is_protocol(error) {
            (Kind::DownstreamProtocol, 0)
        } else {
            // In the middle of a request its service sees it end; in the middle of a head nobody does.
            if error.is_incomplete_message() && self.conn.link.active() == 0 {
                let kind = Kind::DownstreamTermination;
                self.reject(kind, 0, version, &reason());
            }
            return false;
        };
        self.conn.stats.downstream_cx_protocol_error.add(1);
        self.reject(kind, status, version, &reason());
        true
    }
}

/// Whether an HTTP/2 connection ended since the peer broke the protocol, rather than for its socket.
fn is_protocol(error: &hyper::Error) -> bool {
    let h2 = error
        .source()
        .and_then(|source| source.downcast_ref::<h2::Error>());
    h2.is_some_and(|error| {
        !error.is_io() && error.is_library() && error.reason() != Some(h2::Reason::NO_ERROR)
    })
}
