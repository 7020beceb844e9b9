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
    stats: Arc<ServerStats>,
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
        let stats = Arc::<ServerStats>::default();
        Self {
            compiler: Compiler::default(),
            snapshot: Arc::default(),
            listeners: Listeners::new(stats.clone()),
            stats,
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

/// One request on a new connection, which must not be refused at this very moment.
async fn asks(address: &Address) {
    let addr = address.socket().expect("TCP");
    let stream = std::net::TcpStream::connect(addr).expect("it is not refused");
    stream.set_nonblocking(true).expect("a socket");
    let mut client = Client(tokio::net::TcpStream::from_std(stream).expect("a socket"));
    client.get("/now").await;
    client.until("/now").await;
}

/// Waits until nobody listens on `address` any more.
async fn closed(address: &Address) {
    let addr = address.socket().expect("TCP");
    let refused = async {
        while std::net::TcpStream::connect(addr).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, refused).await.expect("it closes");
}

fn on(name: &str, addresses: &[&Address]) -> model::Listener {
    model::Listener {
        additional_addresses: addresses[1..].iter().copied().cloned().collect(),
        ..config(name, addresses[0])
    }
}

#[tokio::test]
async fn addresses_come_and_go_and_those_that_stay_are_always_open() {
    let mut program = Program::new();
    let [a, b, c] = [free(), free(), free()];
    assert!(program.add(on("x", &[&a, &b])).is_empty());
    let mut client = Client::connect(&b).await;
    client.get("/1").await;
    client.until("/1").await;
    assert!(program.add(on("x", &[&a, &b, &c])).is_empty());
    for address in [&a, &b, &c] {
        asks(address).await;
    }
    // What was open lives on, also when another address is the first.
    client.get("/2").await;
    client.until("/2").await;
    assert!(program.add(on("x", &[&c, &b])).is_empty());
    for address in [&b, &c] {
        asks(address).await;
    }
    closed(&a).await;
    let counts = program.counts();
    assert_eq!((counts.opened, counts.modified, counts.failed), (3, 2, 0));
    let open = program.listeners.status().addresses();
    assert_eq!(open[&model::Name::from("x")], [c.clone(), b.clone()]);
    // It is counted where it is now.
    let mut accepted = 0;
    program.stats.each(|name, value| {
        if name
            == format!(
                "listener.{}.downstream_cx_total",
                c.to_string().replace(':', "_")
            )
        {
            accepted = value;
        }
    });
    assert_eq!(accepted, 2);
}

#[tokio::test]
async fn an_address_goes_to_another_listener_or_gets_other_options_without_a_gap() {
    for (from, to) in [("x", "y"), ("y", "x")] {
        let mut program = Program::new();
        let [a, b, c] = [free(), free(), free()];
        let changes = |first: model::Listener, second: model::Listener| {
            vec![
                Change::Listener(Arc::new(first)),
                Change::Listener(Arc::new(second)),
            ]
        };
        let before = changes(on(from, &[&a, &b]), on(to, &[&c]));
        assert!(program.apply(before).is_empty());
        asks(&b).await;
        let after = changes(on(from, &[&a]), on(to, &[&c, &b]));
        assert!(program.apply(after).is_empty(), "from {from} to {to}");
        for address in [&a, &b, &c] {
            asks(address).await;
        }
        let mut other = on(to, &[&c, &b]);
        other.tcp_backlog = Some(17);
        assert!(program.add(other).is_empty());
        for address in [&a, &b, &c] {
            asks(address).await;
        }
        // The old sockets are gone, and those that came instead are open still.
        for _ in 0..20 {
            for address in [&a, &b, &c] {
                asks(address).await;
            }
        }
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_had_leaves_a_listener_as_it_was() {
    let mut program = Program::new();
    let [a, b] = [free(), free()];
    assert!(program.add(on("x", &[&a, &b])).is_empty());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let other = Address::Socket(taken.local_addr().expect("an address"));
    assert_eq!(program.add(on("x", &[&a, &other])).len(), 1);
    for address in [&a, &b] {
        asks(address).await;
    }
    drop(taken);
    assert!(program.follow().is_empty());
    for address in [&a, &other] {
        asks(address).await;
    }
    closed(&b).await;
}
