//! Streams of bytes.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// A connected stream of bytes.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The application protocol that the handshake agreed on, if there was one: `h2`, `http/1.1`, ….
    fn alpn(&self) -> Option<&[u8]> {
        None
    }

    /// Our own address of the connection, if it has one.
    fn local_address(&self) -> Option<SocketAddr> {
        None
    }

    /// Closing tells the peer that something broke off (a TCP reset), not that all was said. Default: nothing changes.
    fn break_off(&self) {}
}

/// What a stream around another, its field `io`, leaves to it of [`Io`].
macro_rules! io_through {
    () => {
        fn alpn(&self) -> Option<&[u8]> {
            self.io.alpn()
        }

        fn local_address(&self) -> Option<std::net::SocketAddr> {
            self.io.local_address()
        }

        fn break_off(&self) {
            self.io.break_off();
        }
    };
}

/// The same of [`AsyncWrite`]; `poll_write` and `poll_write_vectored` are its own.
macro_rules! write_through {
    () => {
        fn is_write_vectored(&self) -> bool {
            self.io.is_write_vectored()
        }

        fn poll_flush(
            self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::pin::Pin::new(&mut self.get_mut().io).poll_flush(cx)
        }

        fn poll_shutdown(
            self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::pin::Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
        }
    };
}

#[cfg(feature = "client")]
pub(crate) use {io_through, write_through};

/// A plain socket.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix domain socket.
    Unix(UnixStream),
}

impl Io for Stream {
    fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    fn break_off(&self) {
        if let Self::Tcp(stream) = self
            && let Err(error) = stream.set_zero_linger()
        {
            tracing::debug!(%error, "A connection ends in order although it broke off");
        }
    }
}

/// Up to so many bytes in several pieces are copied together and written with `send`, which costs the kernel about 200 ns
/// less than `writev`: more than the copy. A head with a small body is such a write.
const GATHER: usize = 4096;

thread_local! {
    static GATHERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Calls `write` with the bytes of `bufs` in one piece; `None` if they are too many.
fn gathered<T>(bufs: &[IoSlice<'_>], write: impl FnOnce(&[u8]) -> T) -> Option<T> {
    if let [one] = bufs {
        return Some(write(one));
    }
    let total: usize = bufs.iter().map(|buf| buf.len()).sum();
    (total <= GATHER).then(|| {
        GATHERED.with_borrow_mut(|bytes| {
            bytes.clear();
            for buf in bufs {
                bytes.extend_from_slice(buf);
            }
            write(bytes)
        })
    })
}

macro_rules! each {
    ($self:expr, $stream:ident => $body:expr) => {
        match $self {
            Stream::Tcp($stream) => $body,
            Stream::Unix($stream) => $body,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match gathered(bufs, |bytes| Pin::new(&mut *this).poll_write(cx, bytes)) {
            Some(written) => written,
            None => each!(this, stream => Pin::new(stream).poll_write_vectored(cx, bufs)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets have no buffer of their own.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// A stream whose first bytes were read already, and are read again.
#[derive(Debug)]
pub struct Prefixed<I> {
    prefix: Bytes,
    io: I,
}

impl<I> Prefixed<I> {
    /// `io` after `prefix`.
    pub fn new(prefix: Bytes, io: I) -> Self {
        Self { prefix, io }
    }

    /// The stream after `bytes`, and after what was left to read again.
    #[cfg(feature = "server")]
    pub(crate) fn prepend(self, bytes: Bytes) -> Self {
        let prefix = if self.prefix.is_empty() {
            bytes
        } else {
            [bytes, self.prefix].concat().into()
        };
        Self {
            prefix,
            io: self.io,
        }
    }

    /// The same first bytes before another form of the stream.
    pub fn map<J>(self, f: impl FnOnce(I) -> J) -> Prefixed<J> {
        Prefixed {
            prefix: self.prefix,
            io: f(self.io),
        }
    }

    /// The stream itself.
    pub fn get_ref(&self) -> &I {
        &self.io
    }
}

impl<I: Io> Io for Prefixed<I> {
    io_through!();
}

impl<I: AsyncRead + Unpin> AsyncRead for Prefixed<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.prefix.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let count = this.prefix.len().min(buf.remaining());
        buf.put_slice(&this.prefix[..count]);
        this.prefix.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Prefixed<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    write_through!();
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;

    use super::*;

    /// Both sides of the limit, and the limit itself.
    #[tokio::test]
    async fn pieces_arrive_in_order_whether_or_not_they_are_gathered() {
        for last in [0, 1, GATHER - 3, GATHER - 2, 3 * GATHER] {
            let (ours, mut theirs) = UnixStream::pair().expect("a pair");
            let mut stream = Stream::Unix(ours);
            let tail = vec![b'c'; last];
            let pieces = [&b"a"[..], b"", b"b", &tail];
            let whole = pieces.concat();
            let mut sent = 0;
            while sent < whole.len() {
                let mut skip = sent;
                let rest: Vec<IoSlice<'_>> = pieces
                    .iter()
                    .map(|piece| {
                        let cut = skip.min(piece.len());
                        skip -= cut;
                        IoSlice::new(&piece[cut..])
                    })
                    .collect();
                sent += poll_fn(|cx| Pin::new(&mut stream).poll_write_vectored(cx, &rest))
                    .await
                    .expect("written");
            }
            drop(stream);
            let mut seen = Vec::new();
            theirs.read_to_end(&mut seen).await.expect("read");
            assert!(seen == whole, "{last} bytes at the end");
        }
    }
}
