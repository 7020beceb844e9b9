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
    layer::{
        ByRoute, Routed,
        admit::{Admit, AdmitLayer},
        tests::{Paced, Tame, routed},
    },
    model::{self, Limits, Priority, RateLimitedBackOff, RetryBudget, RetryOn, RetryPolicy},
    pool::Outgoing,
    stack::tests::{cluster_config, forward},
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
        }
    }

    fn send(&mut self, policy: RetryPolicy) -> JoinHandle<Answer> {
        let request = Request::get("/").header(HOST, "a");
        let request = request.body(RequestBody::new(Full::from("")));
        let routed = routed(route(policy), &self.cluster, request.expect("a request"));
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
        fixture.assert_idle("at the end");
    }
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
