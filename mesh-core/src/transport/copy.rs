//! Copying bytes one way. Idle connections hold no buffer: bytes are read into one that the thread's connections share.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is read at once.
const CHUNK: usize = 64 * 1024;
/// How often one way may read before the other way gets its turn.
const ROUNDS: u32 = 8;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into_boxed_slice());
}

/// One way of a proxied connection.
#[derive(Debug, Default)]
pub(crate) struct OneWay {
    /// What was read and could not be written yet; the first `written` bytes are gone.
    left: Vec<u8>,
    written: usize,
    /// Something was written since `to` was flushed: one that encrypts may hold back what it took.
    unflushed: bool,
    eof: bool,
    #[cfg(feature = "server")]
    done: bool,
    /// Bytes written so far.
    pub(crate) bytes: u64,
}

/// Which side of a copy failed.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Reading did.
    From(io::Error),
    /// Writing did.
    To(io::Error),
}

impl OneWay {
    /// Whether the end has been passed on.
    #[cfg(feature = "server")]
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// Whether something was read that could not be written yet.
    #[cfg(feature = "server")]
    pub(crate) fn holds_bytes(&self) -> bool {
        !self.left.is_empty()
    }

    /// Copies as long as it goes. Ready when the end of `from` has been passed on to `to` as the end of its writing.
    #[cfg(feature = "server")]
    pub(crate) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Poll<Result<(), Failed>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if !self.done {
            ready!(self.poll_data(cx, from, to))?;
            let ended = ready!(Pin::new(&mut *to).poll_shutdown(cx));
            ended.or_else(gone).map_err(Failed::To)?;
            self.done = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Copies as long as it goes. Ready when `from` has ended and all that came is on its way; `to` is not told of the end.
    pub(crate) fn poll_data<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Poll<Result<(), Failed>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..ROUNDS {
            ready!(self.poll_left(cx, to)).map_err(Failed::To)?;
            if self.eof {
                return self.poll_flush(cx, to).map(Ok);
            }
            ready!(SCRATCH.with_borrow_mut(|scratch| self.poll_chunk(cx, from, to, scratch)))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn wrote(&mut self, count: usize) {
        self.bytes += count as u64;
        self.unflushed = true;
    }

    /// While nothing more comes. What goes wrong shows in the next write, or in reading the other way.
    fn poll_flush<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<()> {
        if self.unflushed {
            let _ = ready!(Pin::new(to).poll_flush(cx));
            self.unflushed = false;
        }
        Poll::Ready(())
    }

    fn poll_left<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<io::Result<()>> {
        while self.written < self.left.len() {
            let count = ready!(Pin::new(&mut *to).poll_write(cx, &self.left[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
            self.wrote(count);
        }
        if !self.left.is_empty() {
            self.left = Vec::new();
            self.written = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes what came; what cannot be written is kept.
    fn poll_chunk<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        scratch: &mut [u8],
    ) -> Poll<Result<(), Failed>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buf = ReadBuf::new(scratch);
        match Pin::new(from).poll_read(cx, &mut buf) {
            Poll::Ready(result) => result.map_err(Failed::From)?,
            Poll::Pending => {
                let _ = self.poll_flush(cx, to);
                return Poll::Pending;
            }
        }
        let mut rest = buf.filled();
        self.eof = rest.is_empty();
        while !rest.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(Failed::To(io::ErrorKind::WriteZero.into())));
                }
                Poll::Ready(Ok(count)) => {
                    self.wrote(count);
                    rest = &rest[count..];
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failed::To(error))),
                Poll::Pending => {
                    self.left = rest.to_vec();
                    self.written = 0;
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A peer that is gone already needs no end of writing.
#[cfg(feature = "server")]
fn gone(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotConnected | io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    }
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_a_writer_holds_back_goes_out_before_more_comes() {
        let (mut client, mut from) = duplex(100);
        let (to, mut server) = duplex(100);
        let mut to = tokio::io::BufWriter::new(to);
        let copy = tokio::spawn(async move {
            let mut way = OneWay::default();
            poll_fn(|cx| way.poll(cx, &mut from, &mut to)).await
        });
        for text in [b"ping", b"pong"] {
            client.write_all(text).await.expect("written");
            let mut got = [0; 4];
            let limit = std::time::Duration::from_secs(10);
            let read = tokio::time::timeout(limit, server.read_exact(&mut got)).await;
            read.expect("it came").expect("read");
            assert_eq!(&got, text);
        }
        drop(client);
        copy.await.expect("no panic").expect("copied");
    }

    #[tokio::test]
    async fn what_a_writer_holds_back_goes_out_at_the_end_too() {
        let (mut client, mut from) = duplex(100);
        let (to, mut server) = duplex(100);
        let mut to = tokio::io::BufWriter::new(to);
        client.write_all(b"last words").await.expect("written");
        drop(client);
        let mut way = OneWay::default();
        let copied = poll_fn(|cx| way.poll_data(cx, &mut from, &mut to)).await;
        copied.expect("copied");
        let mut got = [0; 10];
        let limit = std::time::Duration::from_secs(10);
        let read = tokio::time::timeout(limit, server.read_exact(&mut got)).await;
        read.expect("it came").expect("read");
        assert_eq!(&got, b"last words");
    }

    #[tokio::test]
    async fn bytes_and_the_end_pass_through_small_buffers() {
        let (mut client, mut from) = duplex(100);
        let (mut to, mut server) = duplex(7);
        let sent: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
        let copy = async move {
            let mut way = OneWay::default();
            poll_fn(|cx| way.poll(cx, &mut from, &mut to))
                .await
                .expect("copied");
            way.bytes
        };
        let write = async {
            client.write_all(&sent).await.expect("written");
            client.shutdown().await.expect("ended");
        };
        let mut got = Vec::new();
        let (bytes, (), read) = tokio::join!(copy, write, server.read_to_end(&mut got));
        read.expect("read to the end");
        assert_eq!(bytes, 10_000);
        assert!(got == sent);
    }
}
