//! CONNECT that ends here: the payload goes on as raw TCP.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{Method, Request, Response};
use http_body::{Body, Frame};
use tokio::io::{AsyncWriteExt, ReadBuf};

use super::{
    Pool, PoolBody,
    meter::{Counted, Metered},
    sending::Ask,
    service::{Pending, PoolExec, permit},
    task,
};
use crate::{
    BoxError, Error, Kind,
    cluster::Permit,
    model::{ConnectConfig, Priority},
    telemetry::record::Record,
    transport::{Connector, Io, Switched, Target, UpstreamConn, proxy_protocol},
};

/// How much is read at once for a response body.
const CHUNK: usize = 16 * 1024;

impl<C, B, X> Pool<C, B, X>
where
    C: Connector + Send + Sync + 'static,
    C::Future: Send,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    X: PoolExec<C::Io, B>,
{
    /// Connects, and answers 200. After CONNECT the connection is in the extensions of the answer; other requests have a body,
    /// which is written to the connection while the response's is read from it.
    pub(super) async fn tunnel(
        &self,
        request: Request<B>,
        ask: Ask,
        priority: Priority,
        config: ConnectConfig,
    ) -> Result<Response<PoolBody>, Error> {
        let Ask { target, record, .. } = ask;
        let mut io = self.dial(&target, priority, record.as_deref()).await?;
        target.count_request();
        if let Some(record) = record {
            record.late().upstream = Some(Arc::new(UpstreamConn {
                local: io.local_address(),
                protocol: None,
                id: 0,
            }));
        }
        if let Some(version) = config.proxy_protocol {
            let addresses = target.downstream.as_deref();
            let header = proxy_protocol::write(
                version,
                addresses.and_then(|conn| conn.peer.socket()),
                addresses.and_then(|conn| conn.local.socket()),
            );
            let written = async {
                io.write_all(&header).await?;
                io.flush().await
            };
            written
                .await
                .map_err(|error| Error::caused_by(Kind::ConnectionTermination, error))?;
        }
        if *request.method() == Method::CONNECT {
            let mut response = Response::new(PoolBody::empty());
            let switched = Switched::raw(Box::new(io));
            response.extensions_mut().insert(switched);
            return Ok(response);
        }
        let exchange = Exchange {
            io,
            upload: Some(request.into_body()),
            chunk: None,
        };
        Ok(Response::new(PoolBody::tcp(Box::new(Mutex::new(exchange)))))
    }

    /// A connection within the cluster's limits.
    async fn dial(
        &self,
        target: &Target,
        priority: Priority,
        record: Option<&Record>,
    ) -> Result<Metered<C::Io>, Error> {
        let (cluster, stats) = (&target.cluster, target.cluster.stats());
        let overflow = || {
            stats.upstream_rq_pending_overflow.add(1);
            Error::from(Kind::Overflow)
        };
        let _pending = Permit::pending(cluster, priority).ok_or_else(overflow)?;
        let permit = permit(target, priority, false).ok_or_else(overflow)?;
        let mut gauge = Pending::begin(target, record);
        let counted = Counted::begin(target, None, permit);
        let dialled = task::dial(&self.shared.connector, target).await;
        gauge.over();
        match dialled {
            Ok(io) => Ok(Metered::new(io, counted)),
            Err(error) => {
                counted.failed(target, error.kind());
                stats.upstream_rq_pending_failure_eject.add(1);
                Err(error)
            }
        }
    }
}

/// A raw connection as the body of a response.
pub(super) trait RawBody: Send {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>>;
}

/// A request body on its way to a connection, and what comes back.
struct Exchange<I, B: Body> {
    io: I,
    /// `None` once its end was passed on.
    upload: Option<B>,
    /// What could not be written yet.
    chunk: Option<B::Data>,
}

impl<I: Io, B> Exchange<I, B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(chunk) = &mut self.chunk {
                while chunk.has_remaining() {
                    let count = ready!(Pin::new(&mut self.io).poll_write(cx, chunk.chunk()))?;
                    if count == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    chunk.advance(count);
                }
                self.chunk = None;
            }
            let Some(upload) = &mut self.upload else {
                return Poll::Ready(Ok(()));
            };
            let Poll::Ready(frame) = Pin::new(upload).poll_frame(cx) else {
                // Nothing that was written waits for what is still to come.
                ready!(Pin::new(&mut self.io).poll_flush(cx))?;
                return Poll::Pending;
            };
            match frame {
                Some(Ok(frame)) => self.chunk = frame.into_data().ok(),
                // The client went away; whoever waits for the response sees that too.
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error.into()))),
                None => {
                    ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
                    self.upload = None;
                }
            }
        }
    }
}

impl<I: Io, B> RawBody for Exchange<I, B>
where
    B: Body + Send + Unpin,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let broken = |error| Error::caused_by(Kind::ConnectionTermination, error);
        if let Poll::Ready(Err(error)) = self.poll_upload(cx) {
            return Poll::Ready(Some(Err(broken(error))));
        }
        let mut buffer = [0; CHUNK];
        let mut buf = ReadBuf::new(&mut buffer);
        Poll::Ready(
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf)) {
                Ok(()) if buf.filled().is_empty() => None,
                Ok(()) => Some(Ok(Frame::data(Bytes::copy_from_slice(buf.filled())))),
                Err(error) => Some(Err(broken(error))),
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body_util::Full;
    use tokio::io::{AsyncRead, AsyncWrite};

    use super::*;

    /// Takes no byte and says nothing.
    struct Closed;

    impl Io for Closed {}

    impl AsyncRead for Closed {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Closed {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(0))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_connection_that_takes_no_byte_is_broken() {
        let mut exchange = Exchange {
            io: Closed,
            upload: Some(Full::new(Bytes::from_static(b"hello"))),
            chunk: None,
        };
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Some(Err(error))) = exchange.poll_frame(&mut cx) else {
            panic!("it waits for nothing");
        };
        assert_eq!(error.kind(), Kind::ConnectionTermination);
    }
}
