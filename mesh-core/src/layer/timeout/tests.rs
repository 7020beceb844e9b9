use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tower_layer::Layer;
use tower_service::Service;
use tower_test::mock;

use super::{StreamLimits, TimeoutLayer, Timeouts};
use crate::{
    Error, Kind,
    body::{RequestBody, ResponseBody},
    layer::{Exchange, Fixed, Scan, observe::ObserveLayer, tests::Paced},
    model,
    telemetry::record::{Late, Record, Sink},
};

type Req = Request<RequestBody<Empty<Bytes>>>;
type Res = Response<ResponseBody<Full<Bytes>>>;

fn request() -> Req {
    Request::new(RequestBody::new(Empty::new()))
}

fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

/// Drives a request through the layer against a mock that never answers, and returns the error and after how long.
async fn unanswered(policy: Timeouts, defaults: StreamLimits) -> (Error, u64) {
    let (mock, mut handle) = mock::pair::<Req, Res>();
    let inner = crate::layer::tests::Tame(mock);
    let mut service = TimeoutLayer::new(Fixed(policy), defaults).layer(inner);
    let begun = tokio::time::Instant::now();
    handle.allow(1);
    let answer = service.call(request());
    let (_seen, _send) = tokio::select! {
        seen = handle.next_request() => seen.expect("a request"),
        _ = std::future::pending::<()>() => unreachable!(),
    };
    let error = answer.await.expect_err("a timeout");
    (error, begun.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn the_route_timeout_ends_a_request_with_504() {
    let policy = Timeouts {
        route: seconds(2),
        ..Timeouts::default()
    };
    let (error, after) = unanswered(policy, StreamLimits::default()).await;
    assert_eq!(
        (error.kind(), error.status(), after),
        (Kind::UpstreamTimeout, 504, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_may_ask_for_204_in_the_place_of_a_timeout() {
    for (silent, kind, status) in [
        (true, Kind::UpstreamTimeout, 204),
        (false, Kind::PerTryTimeout, 204),
        (false, Kind::MaxDuration, 504),
        (false, Kind::RemoteReset, 503),
    ] {
        let inner = tower::service_fn(move |request: Req| async move {
            let asked = request.headers().len();
            assert_eq!(asked, 0, "the header is used up");
            if silent {
                std::future::pending::<()>().await;
            }
            Err::<Res, _>(Error::new(kind))
        });
        let policy = Timeouts {
            route: seconds(2),
            ..Timeouts::default()
        };
        let mut service = TimeoutLayer::new(Fixed(policy), StreamLimits::default())
            .quiet(true)
            .layer(inner);
        let mut request = request();
        let name = "x-envoy-upstream-rq-timeout-alt-response";
        let value = HeaderValue::from_static("any");
        request.headers_mut().insert(name, value);
        let error = service.call(request).await.expect_err("no answer");
        assert_eq!((error.kind(), error.status()), (kind, status));
    }
}

/// What a route adds acts beside what the request asked for itself, and is used up.
#[cfg(feature = "client")]
#[tokio::test(start_paused = true)]
async fn a_route_may_add_what_a_request_may_ask() {
    use crate::{
        cluster::Cluster,
        layer::tests::routed,
        stack::tests::{cluster_config, forward},
        telemetry::late::Asked,
    };

    let config = cluster_config("c", ([127, 0, 0, 1], 1).into());
    let cluster = Arc::new(Cluster::new(Arc::new(config), None));
    let routed = routed(forward("c"), &cluster, Request::new(()));
    let record = routed.record.clone();
    let add = |name: &'static str, value| {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        super::policy::take_added(&mut headers, &routed.forwarding, &record);
        assert!(headers.is_empty(), "{headers:?}");
        record.late().asked.as_deref().copied()
    };
    let mut wanted = Asked {
        route: seconds(15),
        life: seconds(7),
        alt_response: false,
    };
    assert_eq!(
        add("x-envoy-upstream-stream-duration-ms", "7000"),
        Some(wanted)
    );
    wanted.alt_response = true;
    let alt = "x-envoy-upstream-rq-timeout-alt-response";
    assert_eq!(add(alt, ""), Some(wanted));
    let inner = tower::service_fn(|_: Exchange<RequestBody<Empty<Bytes>>>| async {
        Err::<Res, _>(Error::new(Kind::UpstreamTimeout))
    });
    let mut service = TimeoutLayer::new(
        Fixed(Timeouts::of(&self::forward(), None)),
        StreamLimits::default(),
    )
    .layer(inner);
    let exchange = Exchange::new(request(), record.clone());
    let error = service.call(exchange).await.expect_err("a timeout");
    assert_eq!(error.status(), 204);
}

#[test]
fn what_is_expected_of_a_request_limits_it_where_that_counts() {
    let limits = |respect_expected| StreamLimits {
        respect_expected,
        ..StreamLimits::default()
    };
    for (respect, wanted) in [(false, (100, None)), (true, (200, Some("100")))] {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-envoy-upstream-rq-timeout-ms", "100"),
            ("x-envoy-expected-rq-timeout-ms", "200"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let seen = Timeouts::of(&forward(), None).resolve(
            &mut headers,
            Scan::UNKNOWN,
            limits(respect),
            false,
        );
        let expected = seen.route.map(|route| route.as_millis());
        assert_eq!(expected, Some(wanted.0), "{respect}");
        let passed = headers.get("x-envoy-upstream-rq-timeout-ms");
        assert_eq!(passed.map(|value| value.to_str().expect("text")), wanted.1);
        let told = &headers["x-envoy-expected-rq-timeout-ms"];
        assert_eq!(told, wanted.0.to_string().as_str());
    }
}

#[tokio::test(start_paused = true)]
async fn the_earliest_of_all_limits_acts() {
    let defaults = StreamLimits {
        idle: seconds(7),
        max_stream: seconds(9),
        ..StreamLimits::default()
    };
    let (error, after) = unanswered(Timeouts::default(), defaults).await;
    assert_eq!(
        (error.kind(), error.status(), after),
        (Kind::StreamIdle, 504, 7)
    );
    assert_eq!(error.grpc_override(), None);
    let policy = Timeouts {
        idle: Some(Duration::ZERO),
        ..Timeouts::default()
    };
    let (error, after) = unanswered(policy, defaults).await;
    assert_eq!((error.kind(), after), (Kind::DownstreamMaxDuration, 9));
    assert_eq!(error.grpc_override(), Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_limit_beyond_the_clock_is_none() {
    let app = tower::service_fn(|_: Req| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok::<_, Error>(Response::new(ResponseBody::<Full<Bytes>>::empty()))
    });
    let longest = Some(Duration::MAX);
    let policy = Timeouts {
        route: longest,
        idle: longest,
        ..Timeouts::default()
    };
    let defaults = StreamLimits {
        max_stream: longest,
        ..StreamLimits::default()
    };
    let mut service = TimeoutLayer::new(Fixed(policy), defaults).layer(app);
    service.call(request()).await.expect("in time");
}

#[tokio::test(start_paused = true)]
async fn the_route_timeout_holds_for_the_body_too() {
    let inner = tower::service_fn(|_: Req| async {
        let body = StreamBody::new(Never);
        Ok::<_, Error>(Response::new(ResponseBody::upstream(body)))
    });
    let policy = Timeouts {
        route: seconds(3),
        ..Timeouts::default()
    };
    let mut service = TimeoutLayer::new(Fixed(policy), StreamLimits::default()).layer(inner);
    let begun = tokio::time::Instant::now();
    let response = service.call(request()).await.expect("a head");
    let error = response.into_body().collect().await.expect_err("no end");
    let error = error.downcast::<Error>().expect("one of ours");
    assert_eq!(
        (error.kind(), begun.elapsed().as_secs()),
        (Kind::UpstreamTimeout, 3)
    );
}

/// A body that never moves.
struct Never;

impl futures_core::Stream for Never {
    type Item = Result<http_body::Frame<Bytes>, std::convert::Infallible>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Pending
    }
}

/// Drives a request with a body through the layer, idle after three seconds, and a record that sees what moves.
async fn idle(request: &'static [u64], response: &'static [u64]) -> (Result<(), Kind>, u64) {
    let app = tower::service_fn(move |exchange: Exchange<RequestBody<Paced>>| async move {
        let body = exchange.request.into_inner().into_body().collect().await;
        body.map_err(Error::adopt)?;
        Ok::<_, Error>(Response::new(ResponseBody::upstream(Paced::new(response))))
    });
    let defaults = StreamLimits {
        idle: seconds(3),
        ..StreamLimits::default()
    };
    let limited = TimeoutLayer::new(Fixed(Timeouts::default()), defaults).layer(app);
    let mut service = ObserveLayer::new(Arc::new(Nobody), None).layer(limited);
    let begun = tokio::time::Instant::now();
    let seen = async {
        let response = service.call(Request::new(Paced::new(request))).await?;
        let body = response.into_body().collect().await;
        body.map(drop).map_err(Error::adopt)
    };
    let seen = seen.await.map_err(|error| error.kind());
    (seen, begun.elapsed().as_secs())
}

#[derive(Debug)]
struct Nobody;

impl Sink for Nobody {
    fn finish(&self, _: &Record, _: &Late) {}
}

#[tokio::test(start_paused = true)]
async fn whatever_moves_in_either_direction_begins_the_idle_time_anew() {
    for (request, response, wanted) in [
        (&[2, 2, 2][..], &[2, 2, 2][..], (Ok(()), 12)),
        (&[2, 4], &[], (Err(Kind::StreamIdle), 5)),
        (&[2], &[2, 2, 4], (Err(Kind::StreamIdle), 9)),
    ] {
        let seen = idle(request, response).await;
        assert_eq!(seen, wanted, "{request:?} {response:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_record_the_response_moves() {
    let app = tower::service_fn(|_: Req| async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok::<_, Error>(Response::new(ResponseBody::upstream(Paced::new(&[2, 2]))))
    });
    let defaults = StreamLimits {
        idle: seconds(3),
        ..StreamLimits::default()
    };
    let mut service = TimeoutLayer::new(Fixed(Timeouts::default()), defaults).layer(app);
    let response = service.call(request()).await.expect("a head");
    let body = response.into_body().collect().await;
    assert_eq!(body.expect("a whole body").to_bytes(), "xx");
}

/// What becomes of a head: route timeout, stream life, `x-envoy-expected-rq-timeout-ms`, `grpc-timeout`.
fn resolved(
    forward: model::Forward,
    list: &[(&'static str, &'static str)],
) -> (Option<u128>, Option<u128>, Option<String>, Option<String>) {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    let per_try = forward
        .retry
        .as_ref()
        .and_then(|retry| retry.per_try_timeout);
    let seen = Timeouts::of(&forward, per_try).resolve(
        &mut headers,
        Scan::UNKNOWN,
        StreamLimits::default(),
        false,
    );
    let text = |name| {
        headers
            .get(name)
            .map(|value: &HeaderValue| value.to_str().expect("text").to_owned())
    };
    let millis = |limit: Option<Duration>| limit.map(|limit| limit.as_millis());
    (
        millis(seen.route),
        millis(seen.max_stream),
        text("x-envoy-expected-rq-timeout-ms"),
        text("grpc-timeout"),
    )
}

fn forward() -> model::Forward {
    model::Forward::to(model::ClusterChoice::Name("c".into()))
}

fn said(text: &str) -> Option<String> {
    Some(text.to_owned())
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

#[test]
fn timeouts_follow_envoys_final_timeout() {
    // Envoy's default.
    assert_eq!(
        resolved(forward(), &[]),
        (Some(15_000), None, said("15000"), None)
    );
    // Zero is none, and then nothing is expected.
    let none = model::Forward {
        timeout: Some(Duration::ZERO),
        ..forward()
    };
    assert_eq!(resolved(none, &[]), (None, None, None, None));
    // The header wins.
    assert_eq!(
        resolved(forward(), &[("x-envoy-upstream-rq-timeout-ms", "70")]),
        (Some(70), None, said("70"), None)
    );
    assert_eq!(
        resolved(forward(), &[("x-envoy-upstream-rq-timeout-ms", "0")]),
        (None, None, None, None)
    );
    // The time for one attempt is what the upstream has.
    let retry = model::RetryPolicy {
        per_try_timeout: seconds(4),
        ..Default::default()
    };
    let tried = model::Forward {
        retry: Some(retry),
        ..forward()
    };
    assert_eq!(
        resolved(tried.clone(), &[]),
        (Some(15_000), None, said("4000"), None)
    );
    // A copy has no further attempt.
    let mut copy = HeaderMap::new();
    Timeouts::of(&tried, seconds(4)).tell_copy(&mut copy, Scan::UNKNOWN, false);
    assert_eq!(copy["x-envoy-expected-rq-timeout-ms"], "15000");
}

#[test]
fn timeouts_of_grpc_follow_envoys_final_timeout() {
    // max_grpc_timeout caps, and the offset comes off.
    let capped = model::Forward {
        max_grpc_timeout: seconds(10),
        grpc_timeout_offset: seconds(1),
        ..forward()
    };
    assert_eq!(
        resolved(capped.clone(), &[GRPC, ("grpc-timeout", "5S")]),
        (Some(4000), None, said("4000"), said("4000m"))
    );
    assert_eq!(
        resolved(capped.clone(), &[GRPC, ("grpc-timeout", "1H")]),
        (Some(10_000), None, said("10000"), said("10000m"))
    );
    // max_stream_duration switches the route timeout off.
    let stream = model::MaxStreamDuration {
        max: seconds(30),
        grpc_timeout_header_max: seconds(8),
        grpc_timeout_header_offset: None,
    };
    let lives = model::Forward {
        max_stream_duration: Some(stream),
        ..forward()
    };
    assert_eq!(
        resolved(lives.clone(), &[]),
        (None, Some(30_000), None, None)
    );
    assert_eq!(
        resolved(lives.clone(), &[GRPC, ("grpc-timeout", "20S")]),
        (None, Some(8000), None, said("8000m"))
    );
    // None of it is for others, nor where the life of the stream decides.
    assert_eq!(
        resolved(capped.clone(), &[("grpc-timeout", "5S")]),
        (Some(15_000), None, said("15000"), said("5S"))
    );
    let both = model::Forward {
        max_grpc_timeout: seconds(10),
        ..lives.clone()
    };
    assert_eq!(resolved(both, &[GRPC, ("grpc-timeout", "5S")]).0, None);
}

#[test]
fn a_grpc_timeout_is_capped_lowered_and_told() {
    // The cap and the offset in seconds, what is asked, what it comes to in milliseconds, what is said.
    for (most, offset, asked, limit, told) in [
        (10, 2, "2S", Some(2000), said("2000m")),
        (10, 2, "2001m", Some(1), said("1m")),
        (10, 2, "0S", Some(10_000), said("10000m")),
        (10, 2, "x", Some(10_000), said("10000m")),
        (0, 0, "0S", None, said("0S")),
        (0, 0, "1500u", Some(2), said("2m")),
        (0, 0, "1n", Some(1), said("1m")),
        (0, 0, "99999999m", Some(99_999_999), said("99999999m")),
        (0, 0, "100000S", Some(100_000_000), said("100000S")),
        // What is malformed counts as absent.
        (0, 0, "S", None, said("S")),
        (0, 0, "123456789m", None, said("123456789m")),
        (0, 0, "5x", None, said("5x")),
        (0, 0, "", None, said("")),
    ] {
        let capped = model::Forward {
            max_grpc_timeout: seconds(most),
            grpc_timeout_offset: seconds(offset),
            ..forward()
        };
        let seen = resolved(capped, &[GRPC, ("grpc-timeout", asked)]);
        assert_eq!((seen.0, seen.3), (limit, told), "{asked}");
    }
}

/// Drives a request whose body is on its way through the layer; `finish`: when its last byte comes.
async fn receiving(defaults: StreamLimits, finish: Option<u64>) -> (Result<u16, Kind>, u64) {
    // The time of the upstream begins when it has the request.
    let policy = Timeouts {
        route: seconds(4),
        ..Timeouts::default()
    };
    let record = Record::begin(None, http::Version::HTTP_11, false);
    let body = RequestBody::observed(Full::from("on its way"), &record);
    let exchange = Exchange::new(Request::new(body), record);
    // The upstream reads the body when it is time, and answers two seconds later.
    let inner = tower::service_fn(
        move |exchange: Exchange<RequestBody<Full<Bytes>>>| async move {
            let Some(finish) = finish else {
                std::future::pending::<()>().await;
                unreachable!("it never comes");
            };
            tokio::time::sleep(Duration::from_secs(finish)).await;
            let body = exchange.request.into_inner().into_body().collect().await;
            body.expect("the whole body");
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok::<_, Error>(Response::new(ResponseBody::<Full<Bytes>>::empty()))
        },
    );
    let mut service = TimeoutLayer::new(Fixed(policy), defaults).layer(inner);
    let begun = tokio::time::Instant::now();
    let seen = service.call(exchange).await;
    let seen = seen
        .map(|response| response.status().as_u16())
        .map_err(|error| {
            assert_eq!(error.status(), 408, "the client was slow");
            error.kind()
        });
    (seen, begun.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_arrive_in_time_is_ended_with_408() {
    let defaults = StreamLimits {
        request: seconds(4),
        ..StreamLimits::default()
    };
    let seen = receiving(defaults, None).await;
    assert_eq!(seen, (Err(Kind::RequestTimeout), 4));
    // What arrives in time may be answered late.
    assert_eq!(receiving(defaults, Some(3)).await, (Ok(200), 5));
    // The other limits of the stream tell a slow client from a slow upstream too.
    for (defaults, kind) in [
        (
            StreamLimits {
                idle: seconds(4),
                ..StreamLimits::default()
            },
            Kind::StreamIdle,
        ),
        (
            StreamLimits {
                max_stream: seconds(4),
                ..StreamLimits::default()
            },
            Kind::DownstreamMaxDuration,
        ),
    ] {
        assert_eq!(receiving(defaults, None).await, (Err(kind), 4));
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_for_a_request_ends_when_its_response_begins() {
    let record = Record::begin(None, http::Version::HTTP_11, false);
    let body = RequestBody::observed(Full::from("on its way"), &record);
    // It answers at once, keeps the request's body, and its own body comes after ten seconds.
    let inner = tower::service_fn(|exchange: Exchange<RequestBody<Full<Bytes>>>| async {
        let late = Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(10)).await;
            drop(exchange);
            None::<Result<HeaderMap, std::convert::Infallible>>
        });
        let body = Full::from("begun").with_trailers(late);
        Ok::<_, Error>(Response::new(ResponseBody::upstream(body)))
    });
    let defaults = StreamLimits {
        request: seconds(4),
        ..StreamLimits::default()
    };
    let mut service = TimeoutLayer::new(Fixed(Timeouts::default()), defaults).layer(inner);
    let exchange = Exchange::new(Request::new(body), record);
    let response = service.call(exchange).await.expect("a head");
    let begun = tokio::time::Instant::now();
    let body = response.into_body().collect().await.expect("a whole body");
    assert_eq!(body.to_bytes(), "begun");
    assert_eq!(begun.elapsed().as_secs(), 10);
}

#[test]
fn the_life_of_a_stream_follows_envoys_refresh_duration_timeout() {
    let grpc = ("content-type", "application/grpc");
    let text = |text: &str| Some(text.to_owned());
    let forward_with = |max, most, offset| model::Forward {
        max_stream_duration: Some(model::MaxStreamDuration {
            max,
            grpc_timeout_header_max: most,
            grpc_timeout_header_offset: offset,
        }),
        ..forward()
    };
    // A limit that does not come of the header is told to a gRPC upstream all the same.
    let lives = forward_with(seconds(30), None, None);
    let seen = resolved(lives.clone(), &[grpc, ("grpc-timeout", "5S")]);
    assert_eq!(seen, (None, Some(30_000), None, text("30000m")));
    let seen = resolved(lives, &[("grpc-timeout", "5S")]);
    assert_eq!(seen, (None, Some(30_000), None, text("5S")));
    // Zero is no limit, and an offset may leave nothing.
    let none = forward_with(Some(Duration::ZERO), None, None);
    assert_eq!(resolved(none, &[]).1, None);
    // A route that says nothing of its own has the limit of the listener.
    let defaults = StreamLimits {
        max_stream: seconds(9),
        ..StreamLimits::default()
    };
    for (max, wanted) in [(None, 9), (seconds(3), 3)] {
        let seen = Timeouts::of(&forward_with(max, None, None), None);
        let seen = seen.resolve(&mut HeaderMap::new(), Scan::UNKNOWN, defaults, false);
        assert_eq!(seen.max_stream, seconds(wanted));
    }
    let any = forward_with(None, Some(Duration::ZERO), seconds(2));
    let seen = resolved(any.clone(), &[grpc, ("grpc-timeout", "5S")]);
    assert_eq!(seen, (None, Some(3000), None, text("3000m")));
    let seen = resolved(any, &[grpc, ("grpc-timeout", "1S")]);
    assert_eq!(seen, (None, Some(0), None, text("0m")));
}
