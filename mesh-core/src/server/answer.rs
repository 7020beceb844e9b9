//! Connections that are answered without an upstream: by a text, or by what they send.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    Accepted,
    factory::filter_chain,
    link::{Command, Link},
};
use crate::{
    model::{LogType, Network, NetworkAnswer},
    telemetry::record::{Ending, Record},
    transport::{Io, Prefixed},
};

/// Bytes that are read before they are sent back.
const CHUNK: usize = 16 << 10;

/// Drives one such connection. Its listener's logs are written when it goes.
pub(super) struct AnswerTask<I> {
    /// `None`: it is over.
    io: Option<Prefixed<I>>,
    accepted: Accepted,
    link: Arc<Link>,
    /// What is on its way to the client.
    out: Bytes,
    /// More follows what the client sends.
    echoes: bool,
    received: u64,
    sent: u64,
}

impl<I: Io> AnswerTask<I> {
    pub(super) fn new(io: Prefixed<I>, accepted: Accepted, link: Arc<Link>) -> Self {
        let config = filter_chain(&accepted.listener, accepted.chain);
        let (out, echoes) = match &config.network {
            Network::Answer(NetworkAnswer::Direct(text)) => (text.clone(), false),
            _ => (Bytes::new(), true),
        };
        Self {
            io: Some(io),
            accepted,
            link,
            out,
            echoes,
            received: 0,
            sent: 0,
        }
    }

    /// Ready at the end, with the connection if the client may still have to read it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Prefixed<I>>> {
        self.link.register(cx.waker());
        let aborted = self.link.command() == Command::Abort;
        if !aborted && ready!(self.poll_answer(cx)).is_ok() {
            return Poll::Ready(self.io.take());
        }
        Poll::Ready(None)
    }

    /// Ready once all is answered and the client is told.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(io) = &mut self.io else {
            return Poll::Ready(Ok(()));
        };
        loop {
            while self.out.has_remaining() {
                let count = ready!(Pin::new(&mut *io).poll_write(cx, &self.out))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.out.advance(count);
                self.sent += count as u64;
            }
            ready!(Pin::new(&mut *io).poll_flush(cx))?;
            if !self.echoes {
                return Pin::new(io).poll_shutdown(cx);
            }
            let mut chunk = [0; CHUNK];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut chunk))?;
            self.echoes = !chunk.filled().is_empty();
            self.received += chunk.filled().len() as u64;
            self.out = Bytes::copy_from_slice(chunk.filled());
        }
    }
}

impl<I> Drop for AnswerTask<I> {
    fn drop(&mut self) {
        let listener = &self.accepted.listener;
        let conn = self.accepted.conn.clone();
        let record = Record::begin(Some(conn), ::http::Version::HTTP_09, false);
        record.spliced(self.received, self.sent);
        {
            let config = filter_chain(listener, self.accepted.chain);
            let direct = matches!(config.network, Network::Answer(NetworkAnswer::Direct(_)));
            let mut late = record.late();
            late.log_type = LogType::NotSet;
            late.details = direct.then(|| "direct_response".into());
        }
        record.finish(Ending::Complete, &**listener.observer());
    }
}
