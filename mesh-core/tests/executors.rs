//! One stack code on both kinds of runtime: a current-thread runtime that asks for no `Send`, and a multi-threaded one.

#![cfg(feature = "server")]

use std::{rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use mesh_core::{
    model::{self, Address},
    server::{
        self, Accepted, BindOptions, ConnTask, Factory, ListenerHandle, ServerStats, StreamExec,
        Unobserved,
    },
    snapshot::Compiler,
    transport::{Exec, LocalExec, TokioExec},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What no answer may take longer than.
const PATIENCE: Duration = Duration::from_secs(10);

/// A listener on a free port of loopback.
fn listener() -> (server::Socket, ListenerHandle) {
    let any = Address::Socket(([127, 0, 0, 1], 0).into());
    let mut config = model::Listener::new("test", any);
    let manager = model::HttpConnectionManager {
        stat_prefix: "test".into(),
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
    let (snapshot, outcome) = Compiler::default().apply(mesh_core::config::Update {
        changes: vec![mesh_core::config::Change::Listener(Arc::new(config))],
        ..Default::default()
    });
    assert!(outcome.rejections.is_empty(), "{:?}", outcome.rejections);
    let current = snapshot.listeners()["test"].clone();
    let handle = ListenerHandle::new(current, Arc::<ServerStats>::default(), Arc::new(Unobserved));
    (socket, handle)
}

/// The code under test: bounds name no `Send`, so that both executors fit.
async fn play<F, X>(factory: F, exec: X, text: &str)
where
    F: Factory + Unpin + 'static,
    X: StreamExec<F> + Exec<ConnTask<F, X>>,
{
    let (socket, handle) = listener();
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
        play(factory, LocalExec, "local").await;
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
        tokio::spawn(play(factory, TokioExec, "threads"))
            .await
            .expect("no panic");
    });
}
