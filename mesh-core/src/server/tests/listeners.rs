//! Sockets that follow snapshots.

use std::{convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use ::http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::{sync::Semaphore, time::timeout};
use tower::util::ServiceFn;

use super::support::*;
use crate::{
    config::{Change, Update},
    model::{self, Address, HttpConnectionManager},
    server::*,
    snapshot::{Compiler, Snapshot},
    transport::TokioExec,
};

/// A program whose answers to `/held` wait for permits.
struct Program {
    compiler: Compiler,
    snapshot: Arc<Snapshot>,
    listeners: Listeners,
    held: Arc<Semaphore>,
    /// Has a permit for each request that waits.
    reached: Arc<Semaphore>,
}

fn config(name: &str, address: &Address) -> model::Listener {
    let manager = HttpConnectionManager {
        stat_prefix: "test".into(),
        ..HttpConnectionManager::default()
    };
    model::Listener {
        filter_chains: vec![http_chain(manager)],
        ..model::Listener::new(name, address.clone())
    }
}

/// An address that was free a moment ago.
fn free() -> Address {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    Address::Socket(probe.local_addr().expect("an address"))
}

type Answer =
    Pin<Box<dyn Future<Output = Result<Response<Full<bytes::Bytes>>, Infallible>> + Send>>;

impl Program {
    fn new() -> Self {
        Self {
            compiler: Compiler::default(),
            snapshot: Arc::default(),
            listeners: Listeners::default(),
            held: Arc::new(Semaphore::new(0)),
            reached: Arc::new(Semaphore::new(0)),
        }
    }

    fn apply(&mut self, changes: Vec<Change>) -> Vec<ListenError> {
        let (snapshot, outcome) = self.compiler.apply(Update {
            changes,
            ..Update::default()
        });
        assert!(outcome.rejections.is_empty(), "{:?}", outcome.rejections);
        self.snapshot = snapshot.into();
        self.follow()
    }

    fn add(&mut self, config: model::Listener) -> Vec<ListenError> {
        self.apply(vec![Change::Listener(Arc::new(config))])
    }

    fn follow(&mut self) -> Vec<ListenError> {
        let (held, reached) = (self.held.clone(), self.reached.clone());
        let factory = move |_: &Accepted| -> ServiceFn<_> {
            let (held, reached) = (held.clone(), reached.clone());
            tower::service_fn(move |request: Request<Incoming>| -> Answer {
                let (held, reached) = (held.clone(), reached.clone());
                Box::pin(async move {
                    if request.uri().path() == "/held" {
                        reached.add_permits(1);
                        held.acquire().await.expect("it stays open").forget();
                    }
                    Ok(Response::new(Full::from(request.uri().to_string())))
                })
            })
        };
        self.listeners.follow(&self.snapshot, |socket, listener| {
            tokio::spawn(serve(socket, listener.clone(), factory.clone(), TokioExec));
            Ok(())
        })
    }

    /// Waits until a request is held.
    async fn held_request(&self) {
        let reached = timeout(PATIENCE, self.reached.acquire()).await;
        reached.expect("it comes").expect("it stays open").forget();
    }

    fn counts(&self) -> ListenerCounts {
        self.listeners.status().counts()
    }

    fn names(&self) -> Vec<String> {
        let addresses = self.listeners.status().addresses();
        addresses.keys().map(ToString::to_string).collect()
    }
}

#[tokio::test]
async fn a_socket_stays_over_a_change_and_a_change_of_name() {
    let mut program = Program::new();
    let address = free();
    assert!(program.add(config("a", &address)).is_empty());
    let mut client = Client::connect(&address).await;
    client.get("/1").await;
    client.until("/1").await;

    let mut changed = config("a", &address);
    changed
        .metadata
        .namespaces
        .push(("x".into(), model::Value::Null));
    assert!(program.add(changed).is_empty());
    let renamed = vec![
        Change::RemoveListener("a".into()),
        Change::Listener(Arc::new(config("b", &address))),
    ];
    assert!(program.apply(renamed).is_empty());
    client.get("/2").await;
    client.until("/2").await;
    assert_eq!(program.names(), ["b"]);
    let counts = program.counts();
    assert_eq!((counts.opened, counts.added, counts.removed), (1, 1, 0));
    assert_eq!(counts.modified, 2);
}

#[tokio::test]
async fn a_listener_that_is_gone_finishes_what_it_has_also_when_the_program_ends() {
    let mut program = Program::new();
    let address = free();
    assert!(program.add(config("a", &address)).is_empty());
    let mut client = Client::connect(&address).await;
    client.get("/held").await;
    program.held_request().await;
    let gone = vec![Change::RemoveListener("a".into())];
    assert!(program.apply(gone).is_empty());
    assert_eq!(program.names(), [""; 0]);
    assert_eq!(
        (program.counts().removed, program.counts().draining),
        (1, 1)
    );
    let status = program.listeners.status().clone();

    let finish = tokio::spawn(program.listeners.finish(PATIENCE));
    tokio::task::yield_now().await;
    program.held.add_permits(1);
    client.until("/held").await;
    let cut = timeout(PATIENCE, finish).await.expect("in time");
    assert_eq!(cut.expect("no panic"), 0);
    assert_eq!(status.counts().draining, 0);
}

#[tokio::test]
async fn what_takes_too_long_is_cut_off_and_counted() {
    let mut program = Program::new();
    let address = free();
    assert!(program.add(config("a", &address)).is_empty());
    let mut client = Client::connect(&address).await;
    client.get("/held").await;
    program.held_request().await;
    let cut = program.listeners.finish(Duration::from_millis(300)).await;
    let rest = client.rest().await;
    assert_eq!((cut, rest.as_str()), (1, ""));
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_and_tried_again() {
    let mut program = Program::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = Address::Socket(taken.local_addr().expect("an address"));
    let changes = vec![
        Change::Listener(Arc::new(config("a", &address))),
        Change::Listener(Arc::new(config("b", &free()))),
    ];
    let failed = program.apply(changes);
    let told: Vec<_> = failed.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let start = format!("listener a cannot listen on {address}: ");
    assert!(told[0].starts_with(&start), "{told:?}");
    assert_eq!(program.names(), ["b"]);
    drop(taken);
    assert!(program.follow().is_empty());
    assert_eq!(program.names(), ["a", "b"]);
    let counts = program.counts();
    assert_eq!((counts.opened, counts.failed), (2, 1));

    program.listeners.close();
    let more = config("c", &free());
    assert!(program.add(more).is_empty());
    assert_eq!(program.names(), [""; 0]);
}
