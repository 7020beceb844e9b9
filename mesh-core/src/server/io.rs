//! The socket under a codec: counted, and handed back when the codec is done with it.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    frames::{Frames, Tally},
    heads::Heads,
    link::{Command, Link},
};
use crate::{
    sync::lock,
    transport::{ConnInfo, Interims, Io, Prefixed},
};

/// The socket as a codec or an upgraded stream has it.
#[derive(Debug)]
pub(super) struct Lent<I> {
    /// Taken on drop only.
    io: Option<Prefixed<I>>,
    link: Arc<Link>,
    conn: Arc<ConnInfo>,
    back: Arc<Back<I>>,
    /// HTTP/2 only.
    frames: Option<Box<Frames>>,
    /// HTTP/1, where a length beside chunks is refused.
    heads: Option<Box<Heads>>,
    /// HTTP/1, where interim responses of upstreams pass.
    interims: Option<Box<Inserted>>,
}

/// Interim responses that are written between what the codec writes.
#[derive(Debug)]
struct Inserted {
    from: Arc<Interims>,
    /// What the socket has not taken yet.
    rest: Bytes,
}

/// Where a lent socket comes back to.
#[derive(Debug)]
pub(super) struct Back<I> {
    io: Mutex<Option<Prefixed<I>>>,
    returned: AtomicBool,
    /// The codec gave the socket away to somebody who upgraded the connection.
    upgraded: AtomicBool,
    /// Who waits for bytes of an upgraded connection, to be woken by an abort.
    reader: Mutex<Option<Waker>>,
    /// What passed on an HTTP/2 connection.
    pub(super) tally: Tally,
}

impl<I> Back<I> {
    /// The socket, if it was given back.
    pub(super) fn take(&self) -> Option<Prefixed<I>> {
        lock(&self.io).take()
    }

    // The task says that it waits and then looks for the socket, while whoever drops the socket gives it back and then looks
    // whether the task waits. With any weaker order both could miss one another, and the task would sleep for ever.

    pub(super) fn is_returned(&self) -> bool {
        self.returned.load(Ordering::SeqCst)
    }

    pub(super) fn upgrade(&self) {
        self.upgraded.store(true, Ordering::SeqCst);
    }

    /// Lets whoever reads from an upgraded connection see that it was aborted.
    pub(super) fn abort(&self) {
        if let Some(waker) = lock(&self.reader).take() {
            waker.wake();
        }
    }
}

impl<I> Lent<I> {
    /// `http2`: the frames are followed.
    pub(super) fn new(
        io: Prefixed<I>,
        link: Arc<Link>,
        conn: Arc<ConnInfo>,
        http2: bool,
    ) -> (Self, Arc<Back<I>>) {
        if http2 {
            conn.count_resets();
        }
        let back = Arc::new(Back {
            io: Mutex::default(),
            returned: AtomicBool::new(false),
            upgraded: AtomicBool::new(false),
            reader: Mutex::default(),
            tally: Tally::default(),
        });
        let lent = Self {
            io: Some(io),
            link,
            conn,
            back: back.clone(),
            frames: http2.then(|| Box::new(Frames::new())),
            heads: None,
            interims: None,
        };
        (lent, back)
    }

    /// Heads that declare their body in two ways are told to the link.
    pub(super) fn watch_heads(&mut self) {
        self.heads = Some(Box::default());
    }

    /// Interim responses for the client are written.
    pub(super) fn pass_interims(&mut self, from: Arc<Interims>) {
        let rest = Bytes::new();
        self.interims = Some(Box::new(Inserted { from, rest }));
    }

    fn io(&mut self) -> Pin<&mut Prefixed<I>>
    where
        I: Unpin,
    {
        Pin::new(self.io.as_mut().expect("it is taken on drop only"))
    }

    fn wrote(
        &mut self,
        result: Poll<io::Result<usize>>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Ready(Err(_)) => self.conn.set_gone(),
            Poll::Ready(Ok(count)) => {
                self.link.wrote(*count);
                if let Some(frames) = &mut self.frames {
                    let mut left = *count;
                    for buf in bufs {
                        let taken = left.min(buf.len());
                        frames.wrote(&buf[..taken], &self.back.tally);
                        left -= taken;
                    }
                }
            }
            Poll::Pending => {}
        }
        result
    }

    /// Writes what is left of interim responses; a head is whole before the codec's next byte.
    fn poll_inserted(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        I: AsyncWrite + Unpin,
    {
        while let Some(inserted) = &mut self.interims
            && !inserted.rest.is_empty()
        {
            let io = Pin::new(self.io.as_mut().expect("it is taken on drop only"));
            let count = match ready!(io.poll_write(cx, &inserted.rest)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => count,
                Err(error) => {
                    self.conn.set_gone();
                    return Poll::Ready(Err(error));
                }
            };
            inserted.rest.advance(count);
            self.link.wrote(count);
        }
        Poll::Ready(Ok(()))
    }

    /// An upgraded connection has no task that could end it, so its reads do.
    fn check_abort(&self, cx: &Context<'_>) -> io::Result<()> {
        *lock(&self.back.reader) = Some(cx.waker().clone());
        match self.link.command() {
            Command::Abort => Err(io::ErrorKind::ConnectionAborted.into()),
            _ => Ok(()),
        }
    }
}

impl<I> Drop for Lent<I> {
    fn drop(&mut self) {
        *lock(&self.back.io) = self.io.take();
        self.back.returned.store(true, Ordering::SeqCst);
        if self.back.upgraded.load(Ordering::SeqCst) {
            self.link.wake();
        }
    }
}

impl<I: Io> Io for Lent<I> {
    fn alpn(&self) -> Option<&[u8]> {
        self.io.as_ref().and_then(Io::alpn)
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.io.as_ref().and_then(Io::local_address)
    }

    fn break_off(&self) {
        if let Some(io) = &self.io {
            io.break_off();
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Lent<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.back.upgraded.load(Ordering::Relaxed) {
            this.check_abort(cx)?;
        }
        let before = buf.filled().len();
        let result = ready!(this.io().poll_read(cx, buf));
        let read = &buf.filled()[before..];
        if result.is_err() || read.is_empty() {
            this.conn.set_gone();
        }
        if result.is_ok() {
            this.link.read(read.len());
            if let Some(inserted) = &this.interims {
                inserted.from.came(read);
            }
            if let Some(heads) = &mut this.heads
                && this.link.active() == 0
            {
                heads.read(read, &this.link.both);
            }
            if let Some(frames) = &mut this.frames {
                let resets = frames.read(read, &this.back.tally);
                if resets > 0 {
                    this.conn.add_resets(resets);
                }
            }
        }
        Poll::Ready(result)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Lent<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_inserted(cx))?;
        let result = this.io().poll_write(cx, buf);
        this.wrote(result, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_inserted(cx))?;
        let result = this.io().poll_write_vectored(cx, bufs);
        this.wrote(result, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // The codec flushes when all that it wrote is out, so this is between two of its messages, or within the body of one: then
        // no exchange is open.
        if let Some(inserted) = &mut this.interims
            && inserted.rest.is_empty()
            && let Some(heads) = inserted.from.take()
        {
            inserted.rest = heads.into();
            // The response may have waited for this.
            cx.waker().wake_by_ref();
        }
        ready!(this.poll_inserted(cx))?;
        this.io().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().io().poll_shutdown(cx)
    }
}
