//! Connections that are closed once their peers have read all.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, ReadBuf};

use crate::{
    telemetry::clock,
    transport::{Io, Prefixed},
};

/// Most bytes that a closed connection may still send before it is closed for good.
const MAX_LINGER: usize = 1 << 20;

/// Reads what a peer still sends, so that closing does not reset the connection before the peer has read the response.
pub(super) struct Linger<I> {
    io: Prefixed<I>,
    sleep: Pin<Box<tokio::time::Sleep>>,
    read: usize,
}

impl<I: Io> Linger<I> {
    pub(super) fn new(io: Prefixed<I>, limit: Duration) -> Self {
        let until: Instant = clock::after(clock::now(), limit);
        Self {
            io,
            sleep: Box::pin(tokio::time::sleep_until(until.into())),
            read: 0,
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.sleep.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut buffer = [0; 4096];
        while self.read < MAX_LINGER {
            let mut buf = ReadBuf::new(&mut buffer);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => self.read += buf.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(())
    }
}
