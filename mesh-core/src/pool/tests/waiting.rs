//! Requests that wait for a connection, and what becomes of connections whose requests left.

use super::{
    super::{
        Protocol,
        conn::Hosts,
        host::{Host, Key, Seeker, Step, Wake},
        meter::Counted,
        service::Waiting,
    },
    limits::one_connection,
    *,
};
use crate::{Kind, cluster::Permit};

fn key(protocol: Protocol) -> Key {
    Key {
        thread: 0,
        endpoint: 1,
        generation: 0,
        protocol,
        priority: Priority::Default,
        downstream: 0,
    }
}

const SEEKER: Seeker = Seeker {
    fresh: false,
    again: false,
    streams: 1,
};

/// A cluster whose one connection is on its way to `host`, and whoever waits for it.
fn connecting(host: &Host<Body>) -> tokio::sync::oneshot::Receiver<Wake<Body>> {
    let cluster = cluster(Address::Socket(([127, 0, 0, 1], 1).into()), one_connection);
    let endpoint = cluster.endpoints().all()[0].clone();
    let target = Target::new(cluster, endpoint);
    let begin = |_| {
        let permit = Permit::connection(&target.cluster, Priority::Default)?;
        Some(Counted::begin(&target, None, permit))
    };
    match host.step(&SEEKER, begin) {
        Step::Wait(wake, Some(_)) => wake,
        _ => panic!("the first has a connection made"),
    }
}

#[tokio::test]
async fn a_turn_that_comes_to_one_who_left_goes_to_the_next() {
    let (host, hosts) = (Host::new(key(Protocol::Http2)), Hosts::default());
    let _first = connecting(&host);
    let waiting = || match host.step(&SEEKER, |_| None) {
        Step::Wait(wake, None) => Waiting::new(wake, &host, &hosts),
        _ => panic!("the connection is on its way"),
    };
    let (left, next, _last) = (waiting(), waiting(), waiting());
    // The first of all, then the one who left.
    host.wake_next();
    host.wake_next();
    // It was told to look again, and is gone before it looks.
    drop(left);
    let wake = tokio::time::timeout(Duration::from_secs(5), next.wait()).await;
    assert!(matches!(wake.expect("it is its turn"), Wake::Retry));
}

#[tokio::test]
async fn the_queue_is_as_long_as_those_who_wait_in_it() {
    let (host, hosts) = (Host::new(key(Protocol::Http1)), Hosts::default());
    let _first = connecting(&host);
    let wait = || match host.step(&SEEKER, |_| None) {
        Step::Wait(wake, None) => Waiting::new(wake, &host, &hosts),
        _ => panic!("all connections are in use"),
    };
    let staying: Vec<_> = (0..20).map(|_| wait()).collect();
    for _ in 0..10_000 {
        drop(wait());
    }
    assert!(host.queued() <= 4 * staying.len(), "{}", host.queued());
    // Nobody lost a place; the first of all is asked first.
    host.wake_next();
    for waiting in staying.into_iter().take(19) {
        host.wake_next();
        let wake = tokio::time::timeout(Duration::from_secs(5), waiting.wait()).await;
        assert!(matches!(wake.expect("it is its turn"), Wake::Retry));
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_without_connections_is_forgotten_when_all_leave() {
    let hosts: Hosts<Body> = Hosts::default();
    let host = hosts.get(&key(Protocol::Http1));
    let first = Waiting::new(connecting(&host), &host, &hosts);
    let waiting = [(); 2].map(|()| match host.step(&SEEKER, |_| None) {
        Step::Wait(wake, None) => Waiting::new(wake, &host, &hosts),
        _ => panic!("the connection is on its way"),
    });
    // The first is told to look again, and all are gone before they do.
    host.failed(None);
    drop((first, waiting));
    assert_eq!(hosts.len(), 0);
}

/// Never connects.
pub(super) struct Never;

impl Connector for Never {
    type Io = DuplexStream;
    type Future = std::future::Pending<Result<DuplexStream, ConnectError>>;

    fn connect(&self, _: &Target) -> Self::Future {
        std::future::pending()
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_before_there_is_a_connection_gives_back_its_places() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let address = Address::Socket(([127, 0, 0, 1], 1).into());
        let cluster = cluster(address, |config| {
            one_connection(config);
            config.protocol = protocol;
        });
        let pool = Pool::new(Never);
        let send = || {
            let request = Request::get("/").header("host", "h");
            let request = request.body(Body::default()).expect("a request");
            let (outgoing, mut service) = (outgoing(&cluster, request), pool.service());
            tokio::spawn(async move { service.call(outgoing).await.map(drop) })
        };
        let (connects, waits) = (send(), send());
        settle().await;
        let places = || {
            let (_, state) = cluster.limits(Priority::Default);
            let stats = cluster.stats();
            let waiting = stats.upstream_rq_pending_active.get();
            let given_up = stats.upstream_rq_cancelled.get();
            (
                state.connections.get(),
                state.pending.get(),
                waiting,
                given_up,
            )
        };
        assert_eq!(places(), (1, 2, 2, 0), "{protocol:?}");
        waits.abort();
        assert!(waits.await.is_err_and(|gone| gone.is_cancelled()));
        assert_eq!(places(), (1, 1, 1, 1), "{protocol:?}");
        connects.abort();
        assert!(connects.await.is_err_and(|gone| gone.is_cancelled()));
        assert_eq!(places(), (1, 0, 0, 2), "{protocol:?}: it still connects");
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(places(), (0, 0, 0, 2), "{protocol:?}: that took too long");
        assert_eq!(pool.shared.hosts.len(), 0, "{protocol:?}: it is forgotten");
        let stats = cluster.stats();
        let counted = (
            stats.upstream_cx_connect_timeout.get(),
            stats.upstream_rq_pending_failure_eject.get(),
        );
        assert_eq!(counted, (1, 0), "{protocol:?}: nobody waited any more");
    }
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_fail_with_a_connection_that_cannot_be_made() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let address = Address::Socket(([127, 0, 0, 1], 1).into());
        let cluster = cluster(address, |config| {
            one_connection(config);
            config.protocol = protocol;
        });
        let pool = Pool::new(Never);
        let begun = tokio::time::Instant::now();
        let answers = [(); 3].map(|()| {
            let request = Request::get("/").header("host", "h");
            let request = request.body(Body::default()).expect("a request");
            let (outgoing, mut service) = (outgoing(&cluster, request), pool.service());
            tokio::spawn(async move { service.call(outgoing).await })
        });
        for answer in answers {
            assert_eq!(failure(answer).await.kind(), Kind::ConnectTimeout);
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(5), "{protocol:?}");
        let stats = cluster.stats();
        let counted = (
            stats.upstream_cx_connect_fail.get(),
            stats.upstream_rq_pending_failure_eject.get(),
        );
        assert_eq!(counted, (1, 3), "{protocol:?}");
    }
}

/// Connects when the test says so.
struct Later(mpsc::UnboundedSender<tokio::sync::oneshot::Sender<DuplexStream>>);

impl Connector for Later {
    type Io = DuplexStream;
    type Future = Pin<Box<dyn Future<Output = Result<DuplexStream, ConnectError>> + Send>>;

    fn connect(&self, _: &Target) -> Self::Future {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let asked = self.0.send(sender).is_ok();
        Box::pin(async move {
            assert!(asked, "the test goes on");
            Ok(receiver.await.expect("the test connects"))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_waits_for_any_more_serves_the_next() {
    let (sender, mut asked) = mpsc::unbounded_channel();
    let pool = Pool::new(Later(sender));
    let cluster = cluster(Address::Socket(([127, 0, 0, 1], 1).into()), |_| {});
    let send = |path: &str| {
        let request = Request::get(path).header("host", "h");
        let request = request.body(Body::default()).expect("a request");
        let (outgoing, mut service) = (outgoing(&cluster, request), pool.service());
        tokio::spawn(async move { service.call(outgoing).await })
    };
    let first = send("/1");
    let connect = asked.recv().await.expect("it connects");
    first.abort();
    settle().await;
    let second = send("/2");
    settle().await;
    assert!(
        asked.try_recv().is_err(),
        "one is on its way for the second"
    );
    let (near, far) = duplex(64 * 1024);
    connect.send(near).expect("it still connects");
    let mut upstream = Http1(far);
    assert!(upstream.serve().await.starts_with("GET /2 "));
    assert_eq!(text(second).await, "ok");
    assert_eq!(cluster.stats().upstream_cx_total.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_gets_free_first_is_taken() {
    let (sender, mut asked) = mpsc::unbounded_channel();
    let pool = Pool::new(Later(sender));
    let cluster = cluster(Address::Socket(([127, 0, 0, 1], 1).into()), |_| {});
    let send = |path: &str| {
        let request = Request::get(path).header("host", "h");
        let request = request.body(Body::default()).expect("a request");
        let (outgoing, mut service) = (outgoing(&cluster, request), pool.service());
        tokio::spawn(async move { service.call(outgoing).await })
    };
    let first = send("/1");
    let connect = asked.recv().await.expect("the first connects");
    let (near, far) = duplex(64 * 1024);
    connect.send(near).expect("it connects");
    let mut upstream = Http1(far);
    upstream.head().await;
    let second = send("/2");
    let slow = asked.recv().await.expect("the second connects too");
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await;
    text(first).await;
    assert!(upstream.serve().await.starts_with("GET /2 "));
    assert_eq!(text(second).await, "ok");
    let (near, _far) = duplex(64 * 1024);
    slow.send(near)
        .expect("its own still connects, and is kept");
    settle().await;
    assert_eq!(cluster.stats().upstream_cx_active.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_none_of_the_limited_requests() {
    let mut fixture = fixture(|config| {
        one_connection(config);
        config.limits[0].max_requests = 1;
    });
    let attempt = |fixture: &Fixture| {
        let attempt = fixture
            .cluster
            .attempt(Priority::Default, &PickKey::default());
        (attempt, fixture.get("/"))
    };
    let busy = fixture.get("/busy");
    let mut upstream = fixture.accept().await;
    upstream.head().await;
    let (first, answer) = attempt(&fixture);
    let first = first.expect("the only one");
    settle().await;
    let (second, refused) = attempt(&fixture);
    let second = second.expect("the first only waits");
    settle().await;
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await;
    text(busy).await;
    upstream.serve().await;
    text(answer).await;
    // The first lives on, say since its client is slow.
    assert_eq!(failure(refused).await.kind(), Kind::Overflow);
    let stats = fixture.cluster.stats();
    assert_eq!(stats.upstream_rq_active_overflow.get(), 1);
    drop((first, second));
    let (third, answer) = attempt(&fixture);
    let _third = third.expect("all are gone");
    upstream.serve().await;
    text(answer).await;
    assert_eq!(fixture.cluster.stats().upstream_cx_total.get(), 1);
}
