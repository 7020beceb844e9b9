//! Retries of routed requests: what they hold of their cluster's limits, and until when.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, Request, Response, header::HOST};
use http_body_util::{BodyExt, Full};
use tokio::task::JoinHandle;
use tower_layer::Layer;
use tower_service::Service;
use tower_test::mock::{self, Handle};

use super::{Retry, RetryLayer};
use crate::{
    Error, Kind,
    body::{RequestBody, ResponseBody},
    cluster::Cluster,
    layer::timeout::{StreamLimits, TimeoutLayer},
    layer::{
        ByRoute, Routed,
        admit::{Admit, AdmitLayer},
        tests::{Paced, Tame, routed},
    },
    model::{self, Limits, Priority, RateLimitedBackOff, RetryBudget, RetryOn, RetryPolicy},
    pool::Outgoing,
    stack::tests::{cluster_config, forward},
    telemetry::record::Record,
};

type Body = RequestBody<Full<Bytes>>;
type Pool = Tame<Outgoing<Body>, Response<Paced>>;
type Upstream = Handle<Outgoing<Body>, Response<Paced>>;
type Answer = Result<Response<ResponseBody<Paced>>, Error>;

fn cluster(limits: Limits) -> Arc<Cluster> {
    let mut config = cluster_config("c", ([127, 0, 0, 1], 1).into());
    config.limits[0] = limits;
    Arc::new(Cluster::new(Arc::new(config), None))
}

fn route(retry: RetryPolicy) -> model::Route {
    let mut route = forward("c");
    let model::Action::Forward(action) = &mut route.action else {
        unreachable!("the route forwards");
    };
    action.retry = Some(retry);
    route
}

fn once() -> RetryPolicy {
    RetryPolicy {
        on: RetryOn::SERVER_ERROR,
        retries: 1,
        ..RetryPolicy::default()
    }
}

/// Retries in front of limits in front of the test.
struct Fixture {
    service: Retry<Admit<Pool, ByRoute>, ByRoute>,
    upstream: Upstream,
    cluster: Arc<Cluster>,
    /// Of the last request.
    record: Option<Arc<Record>>,
}

impl Fixture {
    fn new(limits: Limits) -> Self {
        let (mock, mut upstream) = mock::pair();
        upstream.allow(100);
        let admit = AdmitLayer::new(ByRoute).layer(Tame(mock));
        Self {
            service: RetryLayer::new(ByRoute).layer(admit),
            upstream,
            cluster: cluster(limits),
            record: None,
        }
    }

    fn send(&mut self, policy: RetryPolicy) -> JoinHandle<Answer> {
        let request = Request::get("/").header(HOST, "a");
        let request = request.body(RequestBody::new(Full::from("")));
        let routed = routed(route(policy), &self.cluster, request.expect("a request"));
        self.record = Some(routed.record.clone());
        tokio::spawn(self.service.call(routed))
    }

    /// Answers the next attempt, with a body that comes in two pieces.
    async fn answer(&mut self, status: u16) {
        let (_, send) = self.upstream.next_request().await.expect("an attempt");
        let mut response = Response::new(Paced::new(&[1, 1]));
        *response.status_mut() = status.try_into().expect("a status");
        let wait = "10".parse().expect("a value");
        response.headers_mut().insert("retry-after", wait);
        send.send_response(response);
    }

    fn retries(&self) -> u32 {
        self.cluster.limits(Priority::Default).1.retries.get()
    }

    /// Nothing is in flight.
    fn assert_idle(&self, when: &str) {
        let (_, state) = self.cluster.limits(Priority::Default);
        let endpoints = self.cluster.endpoints();
        assert_eq!(
            (
                state.requests.get(),
                state.retries.get(),
                self.cluster.stats().upstream_rq_active.get(),
                endpoints.all()[0].active()
            ),
            (0, 0, 0, 0),
            "{when}"
        );
    }
}

async fn status(answer: JoinHandle<Answer>) -> u16 {
    let response = answer.await.expect("no panic").expect("a response");
    response.status().as_u16()
}

#[tokio::test(start_paused = true)]
async fn a_retry_keeps_its_place_until_the_end_of_its_response() {
    let budget = RetryBudget {
        basis_points: 0,
        min_concurrency: 1,
    };
    for limits in [
        Limits {
            max_retries: 1,
            ..Limits::default()
        },
        Limits {
            retry_budget: Some(budget),
            ..Limits::default()
        },
    ] {
        let mut fixture = Fixture::new(limits);
        let first = fixture.send(once());
        fixture.answer(503).await;
        fixture.answer(200).await;
        let held = first.await.expect("no panic").expect("a response");
        assert_eq!((held.status().as_u16(), fixture.retries()), (200, 1));
        // There is no other place as long as that body is on its way.
        let second = fixture.send(once());
        fixture.answer(503).await;
        assert_eq!(status(second).await, 503);
        let overflow = &fixture.cluster.stats().upstream_rq_retry_overflow;
        assert_eq!((overflow.get(), fixture.retries()), (1, 1));
        held.into_body().collect().await.expect("a whole body");
        assert_eq!(fixture.retries(), 0);
        let third = fixture.send(once());
        fixture.answer(503).await;
        fixture.answer(200).await;
        assert_eq!(status(third).await, 200);
        let record = fixture.record.as_ref().expect("there was a request");
        assert_eq!(record.late().attempts, 2);
        fixture.assert_idle("at the end");
        // What was tried again is counted apart.
        let mut counted = Vec::new();
        fixture.cluster.stats().each(|name, value| {
            if name.ends_with("_200") || name.ends_with("_503") {
                counted.push(format!("{name}: {value}"));
            }
        });
        let wanted = [
            "upstream_rq_200: 2",
            "upstream_rq_503: 1",
            "retry.upstream_rq_503: 2",
        ];
        assert_eq!(counted, wanted);
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_counted_for_the_endpoint() {
    let routed = limited(RetryPolicy::default(), 2, &[]);
    let endpoints = routed.cluster.endpoints();
    let mut fixture = Fixture::new(Limits::default());
    let mut service = TimeoutLayer::new(ByRoute, StreamLimits::default()).layer(fixture.service);
    let answer = tokio::spawn(service.call(routed));
    let _silent = fixture.upstream.next_request().await;
    let error = answer.await.expect("no panic").expect_err("no answer");
    assert_eq!(error.kind(), Kind::UpstreamTimeout);
    let stats = endpoints.all()[0].stats();
    assert_eq!((stats.rq_timeout.get(), stats.rq_error.get()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_gives_back_every_place_whenever_that_is() {
    let patient = RetryPolicy {
        rate_limited: Some(RateLimitedBackOff {
            reset_headers: vec![(HeaderName::from_static("retry-after"), true)],
            max_interval: Duration::from_secs(300),
        }),
        ..once()
    };
    let mut fixture = Fixture::new(Limits::default());

    let request = fixture.send(patient.clone());
    let unanswered = fixture.upstream.next_request().await.expect("an attempt");
    assert_eq!(fixture.cluster.stats().upstream_rq_active.get(), 1);
    leave(request).await;
    drop(unanswered);
    fixture.assert_idle("before the response");

    let request = fixture.send(patient.clone());
    fixture.answer(503).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.retries(), 1);
    leave(request).await;
    fixture.assert_idle("between two attempts");

    let request = fixture.send(patient.clone());
    fixture.answer(503).await;
    let unanswered = fixture.upstream.next_request().await.expect("a retry");
    assert_eq!(fixture.retries(), 1);
    leave(request).await;
    drop(unanswered);
    fixture.assert_idle("in the second attempt");

    for (frames, when) in [(0, "before the body"), (1, "in the body")] {
        let request = fixture.send(patient.clone());
        fixture.answer(503).await;
        fixture.answer(200).await;
        let mut response = request.await.expect("no panic").expect("a response");
        for _ in 0..frames {
            let frame = response.body_mut().frame().await.expect("a frame");
            assert!(frame.expect("no error").is_data());
        }
        let (_, state) = fixture.cluster.limits(Priority::Default);
        assert_eq!((state.requests.get(), fixture.retries()), (1, 1));
        drop(response);
        fixture.assert_idle(when);
    }
}

/// The client goes away.
async fn leave(request: JoinHandle<Answer>) {
    request.abort();
    let gone = request.await.expect_err("it was on its way");
    assert!(gone.is_cancelled());
}

/// How long a request takes whose body arrives in three seconds and which is never answered, and its error.
async fn unanswered(policy: RetryPolicy) -> (Kind, u64) {
    let silent = tower::service_fn(|routed: Routed<RequestBody<Paced>>| async {
        let body = routed.request.into_inner().into_body().collect().await;
        body.expect("the whole body");
        std::future::pending::<Result<Response<ResponseBody<Paced>>, Error>>().await
    });
    let mut service = RetryLayer::new(ByRoute).layer(silent);
    let request = Request::post("/").header(HOST, "a");
    let request = request.body(RequestBody::empty());
    let cluster = cluster(Limits::default());
    let mut routed = routed(route(policy), &cluster, request.expect("a request"));
    *routed.request.body_mut() = RequestBody::observed(Paced::new(&[1, 1, 1]), &routed.record);
    let begun = tokio::time::Instant::now();
    let error = service.call(routed).await.expect_err("no answer");
    (error.kind(), begun.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn the_time_of_an_attempt_runs_from_the_end_of_the_request() {
    let limited = RetryPolicy {
        retries: 0,
        per_try_timeout: Some(Duration::from_secs(2)),
        base_interval: Some(Duration::from_millis(1)),
        ..RetryPolicy::default()
    };
    assert_eq!(unanswered(limited.clone()).await, (Kind::PerTryTimeout, 5));
    // The second attempt has the whole request from its beginning.
    let again = RetryPolicy {
        on: RetryOn::SERVER_ERROR,
        retries: 1,
        ..limited
    };
    assert_eq!(unanswered(again).await, (Kind::PerTryTimeout, 7));
}

/// A request that is sent on at `limit` for all attempts, and what it asks for.
fn limited(policy: RetryPolicy, limit: u64, asks: &[(&'static str, &str)]) -> Routed<Body> {
    let mut route = route(policy);
    let model::Action::Forward(action) = &mut route.action else {
        unreachable!("the route forwards");
    };
    action.timeout = Some(Duration::from_secs(limit));
    let mut request = Request::get("/").header(HOST, "a");
    for (name, value) in asks {
        request = request.header(*name, *value);
    }
    let request = request.body(RequestBody::new(Full::from("")));
    routed(
        route,
        &cluster(Limits::default()),
        request.expect("a request"),
    )
}

/// Envoy takes it for no limit at all, so that nothing is tried again.
#[tokio::test(start_paused = true)]
async fn a_limit_for_one_attempt_that_is_no_shorter_than_that_of_all_is_none() {
    for (limit, per_try, asks, wanted) in [
        (2, 2, &[][..], (Kind::UpstreamTimeout, 2)),
        (
            9,
            2,
            &[("x-envoy-upstream-rq-timeout-ms", "2000")],
            (Kind::UpstreamTimeout, 2),
        ),
        (
            2,
            1,
            &[("x-envoy-upstream-rq-per-try-timeout-ms", "2000")],
            (Kind::UpstreamTimeout, 2),
        ),
        (
            2,
            2,
            &[("x-envoy-upstream-rq-timeout-ms", "3000")],
            (Kind::PerTryTimeout, 2),
        ),
        (0, 2, &[], (Kind::PerTryTimeout, 2)),
    ] {
        let policy = RetryPolicy {
            retries: 0,
            per_try_timeout: Some(Duration::from_secs(per_try)),
            ..once()
        };
        let silent = tower::service_fn(|_: Routed<Body>| {
            std::future::pending::<Result<Response<ResponseBody<Paced>>, Error>>()
        });
        let retry = RetryLayer::new(ByRoute).layer(silent);
        let mut service = TimeoutLayer::new(ByRoute, StreamLimits::default()).layer(retry);
        let begun = tokio::time::Instant::now();
        let error = service.call(limited(policy, limit, asks)).await;
        let seen = (
            error.expect_err("no answer").kind(),
            begun.elapsed().as_secs(),
        );
        assert_eq!(seen, wanted, "{limit} {per_try} {asks:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_further_attempt_is_told_of_the_time_that_is_left() {
    let at_once = |per_try: u64| RetryPolicy {
        retries: 3,
        per_try_timeout: Some(Duration::from_secs(per_try)),
        base_interval: Some(Duration::from_nanos(1)),
        ..once()
    };
    for (policy, asks, wanted) in [
        (at_once(0), &[][..], ["10000", "6000", "2000", "1"]),
        (at_once(5), &[], ["5000", "5000", "2000", "1"]),
        (
            at_once(0),
            &[("x-envoy-upstream-rq-timeout-ms", "0")],
            ["-"; 4],
        ),
        (
            at_once(0),
            &[("x-envoy-upstream-rq-timeout-ms", "9000")],
            ["9000", "5000", "1000", "1"],
        ),
    ] {
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let list = told.clone();
        let busy = tower::service_fn(move |routed: Routed<Body>| {
            let expected = routed
                .request
                .headers()
                .get("x-envoy-expected-rq-timeout-ms");
            let expected = expected.map_or("-", |value| value.to_str().expect("digits"));
            list.lock().expect("no panic").push(expected.to_owned());
            async {
                tokio::time::sleep(Duration::from_secs(4)).await;
                let mut response = Response::new(ResponseBody::<Paced>::empty());
                *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                Ok::<_, Error>(response)
            }
        });
        // The limit of all attempts is told, and kept by nobody here.
        let mut request = limited(policy, 10, asks);
        let timeouts = request.forwarding.policies().timeouts().clone();
        let scan = request.scan;
        let headers = request.request.headers_mut();
        let resolved = timeouts.resolve(headers, scan, StreamLimits::default(), false);
        request.record.late().asked = resolved.asked.map(Box::new);
        let answer = RetryLayer::new(ByRoute).layer(busy).call(request).await;
        assert_eq!(answer.expect("a response").status(), 503);
        let told = told.lock().expect("no panic");
        assert_eq!(told.len(), wanted.len(), "{asks:?}");
        for (told, wanted) in told.iter().zip(wanted) {
            let number = |text: &str| text.parse::<i64>().unwrap_or(-1);
            let early = number(wanted) - number(told);
            // Timers count whole milliseconds.
            assert!((0..9).contains(&early), "{told} {wanted} {asks:?}");
        }
    }
}

/// Until there is a connection, the limits of connecting count.
#[tokio::test(start_paused = true)]
async fn the_time_of_an_attempt_runs_from_its_connection() {
    let policy = RetryPolicy {
        retries: 0,
        per_try_timeout: Some(Duration::from_secs(2)),
        ..once()
    };
    let late = tower::service_fn(|routed: Routed<Body>| async move {
        assert!(routed.timed);
        routed.record.set_pending(true);
        tokio::time::sleep(Duration::from_secs(3)).await;
        routed.record.set_pending(false);
        std::future::pending::<Result<Response<ResponseBody<Paced>>, Error>>().await
    });
    let begun = tokio::time::Instant::now();
    let answer = RetryLayer::new(ByRoute)
        .layer(late)
        .call(limited(policy, 10, &[]));
    let error = answer.await.expect_err("no answer");
    let seen = (error.kind(), begun.elapsed().as_secs());
    assert_eq!(seen, (Kind::PerTryTimeout, 5));
}
