//! The pool against upstreams in memory, on paused time, and against sockets where those matter.

mod http1;
mod http2;
mod kept;
mod limits;
mod sockets;
mod waiting;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
};
use tower_service::Service;

use super::{Outgoing, Pool, PoolBody};
use crate::{
    Error,
    cluster::{Cluster, PickKey},
    model::{self, Address, Discovery, LbEndpoint, LocalityEndpoints, Priority, UpstreamProtocol},
    transport::{ConnectError, Connector, Io, Target},
};

impl Io for DuplexStream {}

/// Hands the other end of each connection to the test.
#[derive(Clone)]
struct Memory(mpsc::UnboundedSender<DuplexStream>);

impl Connector for Memory {
    type Io = DuplexStream;
    type Future = Pin<Box<dyn Future<Output = Result<DuplexStream, ConnectError>> + Send>>;

    fn connect(&self, to: &Target) -> Self::Future {
        let (near, far) = duplex(64 * 1024);
        let accepted = self.0.send(far).is_ok();
        let address = to.address().clone();
        Box::pin(async move {
            match accepted {
                true => Ok(near),
                false => Err(ConnectError::Io {
                    address,
                    source: std::io::ErrorKind::ConnectionRefused.into(),
                }),
            }
        })
    }
}

type Body = Full<Bytes>;

/// A pool with a cluster of one endpoint.
struct Fixture {
    pool: Pool<Memory, Body>,
    cluster: Arc<Cluster>,
    accept: mpsc::UnboundedReceiver<DuplexStream>,
}

fn fixture(configure: impl FnOnce(&mut model::Cluster)) -> Fixture {
    let (sender, accept) = mpsc::unbounded_channel();
    Fixture {
        pool: Pool::new(Memory(sender)),
        cluster: cluster(Address::Socket(([127, 0, 0, 1], 1).into()), configure),
        accept,
    }
}

fn http2(config: &mut model::Cluster) {
    config.protocol = UpstreamProtocol::Http2;
}

fn cluster(address: Address, configure: impl FnOnce(&mut model::Cluster)) -> Arc<Cluster> {
    let mut config = model::Cluster::new("c", Discovery::Static);
    config.load_assignment.localities = vec![LocalityEndpoints {
        endpoints: vec![LbEndpoint {
            address,
            hostname: "".into(),
            weight: 1,
            health: Default::default(),
            metadata: Default::default(),
        }],
        ..Default::default()
    }];
    configure(&mut config);
    Arc::new(Cluster::new(Arc::new(config), None))
}

type Answer = tokio::task::JoinHandle<Result<Response<PoolBody>, Error>>;

impl Fixture {
    /// Sends a GET in a task of its own.
    fn get(&self, path: &str) -> Answer {
        self.send(
            Request::get(path)
                .header("host", "h")
                .body(Body::default())
                .expect("a request"),
        )
    }

    fn send(&self, request: Request<Body>) -> Answer {
        let outgoing = outgoing(&self.cluster, request);
        let mut service = self.pool.service();
        tokio::spawn(async move { service.call(outgoing).await })
    }

    async fn accept(&mut self) -> Http1 {
        let accepted = tokio::time::timeout(Duration::from_secs(60), self.accept.recv()).await;
        Http1(
            accepted
                .expect("a connection in time")
                .expect("the pool lives"),
        )
    }
}

fn outgoing(cluster: &Arc<Cluster>, request: Request<Body>) -> Outgoing<Body> {
    let endpoint = cluster.pick(&PickKey::default()).expect("an endpoint");
    Outgoing {
        connect: None,
        request,
        cluster: cluster.clone(),
        endpoint,
        priority: Priority::Default,
        downstream: None,
        record: None,
    }
}

/// An upstream that speaks HTTP/1 by hand.
struct Http1(DuplexStream);

impl Http1 {
    /// Reads a request head, as text.
    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.expect("a byte of a head"));
        }
        String::from_utf8(head).expect("text")
    }

    async fn write(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.expect("written");
    }

    /// Answers a request with a short body.
    async fn serve(&mut self) -> String {
        let head = self.head().await;
        self.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await;
        head
    }

    /// Waits until the pool has closed the connection.
    async fn closed(&mut self) {
        let mut rest = Vec::new();
        tokio::time::timeout(Duration::from_secs(3600 * 3), self.0.read_to_end(&mut rest))
            .await
            .expect("closed in time")
            .expect("read");
        assert_eq!(rest, b"", "nothing more is sent");
    }
}

async fn text(answer: Answer) -> String {
    let response = answer.await.expect("the task ends").expect("a response");
    let body = response.into_body().collect().await.expect("a whole body");
    String::from_utf8(body.to_bytes().to_vec()).expect("text")
}

async fn failure(answer: Answer) -> Error {
    answer.await.expect("the task ends").expect_err("a failure")
}

/// Lets all tasks run until they wait.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}
