//! One stack code on both kinds of runtime: a current-thread runtime that asks for no `Send`, and a multi-threaded one.

#![cfg(all(feature = "server", feature = "client"))]

use std::{rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use mesh_core::{
    body::RequestBody,
    config::{Change, MemorySource, Update},
    model::{self, Address},
    pool::Pool,
    server::{
        self, Accepted, BindOptions, ConnTask, Factory, ListenerHandle, ServerStats, StreamExec,
        Unobserved,
    },
    snapshot::{Clusters, Mesh},
    stack::Proxy,
    transport::{Exec, LocalExec, TcpConnector, TokioExec},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What no answer may take longer than.
const PATIENCE: Duration = Duration::from_secs(10);

/// A listener on a free port of loopback whose requests go to `upstream`, and the directory of its clusters.
fn listener(upstream: Option<Address>) -> (server::Socket, ListenerHandle, Clusters) {
    let any = Address::Socket(([127, 0, 0, 1], 0).into());
    let mut config = model::Listener::new("test", any);
    let manager = model::HttpConnectionManager {
        stat_prefix: "test".into(),
        routes: model::RouteSource::Inline(Arc::new(table())),
        ..Default::default()
    };
    config.filter_chains.push(model::FilterChain {
        name: "chain".into(),
        matches: Default::default(),
        transport: Default::default(),
        transport_connect_timeout: None,
        network: model::Network::Http(Box::new(manager)),
        refuse: None,
    });
    let socket = server::bind(&config.address, &BindOptions::from(&config)).expect("a free port");
    let mut changes = vec![Change::Listener(Arc::new(config))];
    changes.extend(upstream.map(cluster));
    let (source, _) = MemorySource::new();
    let (mesh, mut driver) = Mesh::builder().source(source).build();
    driver.apply(Update {
        changes,
        ..Default::default()
    });
    let report = mesh.status().load();
    assert!(report.rejections.is_empty(), "{:?}", report.rejections);
    let current = mesh.snapshot().listeners()["test"].clone();
    let handle = ListenerHandle::new(current, Arc::<ServerStats>::default(), Arc::new(Unobserved));
    (socket, handle, mesh.clusters().clone())
}

/// Everything to one cluster.
fn table() -> model::RouteConfiguration {
    let matches = model::RouteMatch::path(model::PathMatch::Prefix("/".into()));
    let app = model::ClusterChoice::Name("app".into());
    let route = model::Route {
        name: "all".into(),
        ..model::Route::new(
            matches,
            model::Action::Forward(Box::new(model::Forward::to(app))),
        )
    };
    model::RouteConfiguration {
        name: "all".into(),
        virtual_hosts: vec![model::VirtualHost {
            name: "all".into(),
            domains: vec!["*".into()],
            routes: model::RouteRules::List(vec![route]),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn cluster(address: Address) -> Change {
    let mut cluster = model::Cluster::new("app", model::Discovery::Static);
    cluster.load_assignment.cluster = "app".into();
    cluster.load_assignment.localities = vec![model::LocalityEndpoints {
        endpoints: vec![model::LbEndpoint {
            address,
            hostname: "".into(),
            weight: 1,
            health: model::HealthStatus::Unknown,
            metadata: Default::default(),
        }],
        ..Default::default()
    }];
    Change::Cluster(Arc::new(cluster))
}

/// An application behind the whole stack of a proxy and its pool; the same words for any executor.
macro_rules! behind_a_stack {
    ($app:expr, $exec:expr, $text:expr) => {{
        let (behind, app, _) = listener(None);
        let upstream = behind.address().clone();
        let serving = server::serve(behind, app.clone(), $app, $exec);
        let (socket, handle, clusters) = listener(Some(upstream));
        let pool: Pool<TcpConnector, RequestBody<Incoming>, _> =
            Pool::with_exec(TcpConnector, $exec);
        let stack = Proxy::new(pool.service(), TcpConnector, clusters, $exec);
        let asking = async {
            play((socket, handle), stack, $exec, $text).await;
            app.close();
            // The pool keeps its connections.
            app.drain(server::Drain::Now);
        };
        let (served, ()) = tokio::join!(serving, asking);
        served.expect("the loop ends in order");
    }};
}

/// The code under test: bounds name no `Send`, so that both executors fit.
async fn play<F, X>(
    (socket, handle): (server::Socket, ListenerHandle),
    factory: F,
    exec: X,
    text: &str,
) where
    F: Factory + Unpin + 'static,
    X: StreamExec<F> + Exec<ConnTask<F, X>>,
{
    let address = socket.address().socket().expect("TCP");
    let serving = server::serve(socket, handle.clone(), factory, exec);
    let asking = async {
        for _ in 0..3 {
            for http2 in [false, true] {
                let answer = tokio::time::timeout(PATIENCE, ask(address, http2)).await;
                let answer = answer.expect("an answer in time");
                assert!(answer.contains(text), "{http2}: {answer}");
            }
        }
        handle.close();
    };
    let (served, ()) = tokio::join!(serving, asking);
    served.expect("the loop ends in order");
    tokio::time::timeout(PATIENCE, handle.idle())
        .await
        .expect("connections end");
}

/// A request by hand, and what comes back until the body is there.
async fn ask(address: std::net::SocketAddr, http2: bool) -> String {
    let mut client = TcpStream::connect(address).await.expect("it listens");
    let request: &[u8] = if http2 {
        // Preface, SETTINGS, and a GET of `http://x/` on stream 1.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01x"
    } else {
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    };
    client.write_all(request).await.expect("written");
    let mut answer = String::new();
    while !answer.contains("end of answer") {
        let mut bytes = [0; 1024];
        let count = client.read(&mut bytes).await.expect("read");
        assert!(count > 0, "closed after {answer:?}");
        answer.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    answer
}

fn answer(text: &str) -> Response<Full<Bytes>> {
    Response::new(Full::from(format!("{text}, end of answer")))
}

#[test]
fn a_current_thread_serves_what_is_not_send() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let factory = |_: &Accepted| {
            // An `Rc` in the service, and one in its future.
            let name = Rc::new("local");
            tower::service_fn(move |_: Request<Incoming>| {
                let name = name.clone();
                async move {
                    tokio::task::yield_now().await;
                    Ok::<_, std::convert::Infallible>(answer(&name))
                }
            })
        };
        let (socket, handle, _) = listener(None);
        play((socket, handle), factory, LocalExec, "local").await;
        behind_a_stack!(factory, LocalExec, "local");
    });
}

#[test]
fn many_threads_serve_with_the_same_code() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let factory = |_: &Accepted| {
            tower::service_fn(|_: Request<Incoming>| async {
                tokio::task::yield_now().await;
                Ok::<_, std::convert::Infallible>(answer("threads"))
            })
        };
        // On a task of the runtime, so that it has to be `Send` here.
        let (socket, handle, _) = listener(None);
        tokio::spawn(play((socket, handle), factory, TokioExec, "threads"))
            .await
            .expect("no panic");
        behind_a_stack!(factory, TokioExec, "threads");
    });
}
