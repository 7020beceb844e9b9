use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower_layer::Layer;
use tower_service::Service;
use tower_test::mock::{self, SendResponse};

use super::{Retries, RetryLayer};
use crate::{
    Error, Kind,
    body::{RequestBody, ResponseBody},
    layer::{
        Fixed,
        tests::{Paced, Tame},
    },
    model::{
        HeaderMatcher, HeaderValueMatcher, RateLimitedBackOff, RetryOn, RetryPolicy, StringMatcher,
        StringPattern,
    },
};

type Req = Request<RequestBody<Full<Bytes>>>;
type Res = Response<ResponseBody<Full<Bytes>>>;

fn policy(on: &str, retries: u32) -> RetryPolicy {
    RetryPolicy {
        on: RetryOn::parse(on).0,
        retries,
        codes: vec![StatusCode::IM_A_TEAPOT],
        headers: vec![exact("x-again", "yes"), exact(":status", "201")],
        ..RetryPolicy::default()
    }
}

fn exact(name: &str, value: &str) -> HeaderMatcher {
    HeaderMatcher {
        name: name.into(),
        value: HeaderValueMatcher::String(StringMatcher {
            pattern: StringPattern::Exact(value.into()),
            ignore_case: false,
        }),
        invert: false,
        missing_as_empty: false,
    }
}

/// What an attempt comes to.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Status(u16),
    Grpc(&'static str),
    Header(u16, &'static str, &'static str),
    Fail(Kind),
    Silence,
}

/// Some of the headers that are not sent on.
const USED_UP: [&str; 3] = [
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-hedge-on-per-try-timeout",
];

/// Plays `answers` to a request and returns what the client saw, and how many attempts there were.
async fn play(
    policy: RetryPolicy,
    headers: &[(&'static str, &'static str)],
    answers: &[Answer],
) -> (Result<u16, Kind>, usize) {
    let (mock, mut handle) = mock::pair::<Req, Res>();
    handle.allow(10);
    let policy = Retries::new(&policy, None).expect("valid");
    let mut service = RetryLayer::new(Fixed(policy)).layer(Tame(mock));
    let mut request = Request::post("http://a/b")
        .body(RequestBody::new(Full::from("body")))
        .expect("a request");
    for (name, value) in headers {
        request
            .headers_mut()
            .append(*name, value.parse().expect("a value"));
    }
    let client = tokio::spawn(service.call(request));
    let mut attempts = 0;
    let mut silent: Vec<SendResponse<Res>> = Vec::new();
    for answer in answers {
        let next = tokio::time::timeout(Duration::from_secs(60), handle.next_request()).await;
        let Ok(Some((seen, send))) = next else { break };
        attempts += 1;
        for name in USED_UP {
            assert_eq!(seen.headers().get(name), None, "{name} is not sent on");
        }
        let body = seen.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(body, "body", "attempt {attempts}");
        let mut response = Response::new(ResponseBody::empty());
        match *answer {
            Answer::Status(status) => *response.status_mut() = status.try_into().expect("a status"),
            Answer::Grpc(status) => {
                response
                    .headers_mut()
                    .insert("grpc-status", status.parse().expect("a value"));
            }
            Answer::Header(status, name, value) => {
                *response.status_mut() = status.try_into().expect("a status");
                let value = value.parse().expect("a value");
                response.headers_mut().insert(name, value);
            }
            Answer::Fail(kind) => {
                send.send_error(Error::new(kind));
                continue;
            }
            Answer::Silence => {
                silent.push(send);
                continue;
            }
        }
        send.send_response(response);
    }
    let seen = client.await.expect("no panic");
    (
        seen.map(|response| response.status().as_u16())
            .map_err(|error| error.kind()),
        attempts,
    )
}

#[tokio::test(start_paused = true)]
async fn conditions_decide_what_is_tried_again() {
    use Answer::*;
    let ok = Status(200);
    for (on, first, wanted) in [
        ("5xx", Status(500), 2),
        ("5xx", Status(404), 1),
        ("5xx", Fail(Kind::ConnectionTermination), 2),
        ("gateway-error", Status(500), 1),
        ("gateway-error", Status(502), 2),
        ("gateway-error", Status(504), 2),
        ("gateway-error", Status(505), 1),
        ("reset", Status(503), 1),
        ("reset", Fail(Kind::RemoteReset), 2),
        ("reset-before-request", Fail(Kind::RemoteReset), 1),
        ("reset-before-request", Fail(Kind::ConnectFailure), 2),
        ("connect-failure", Fail(Kind::ConnectTimeout), 2),
        ("connect-failure", Fail(Kind::RefusedStream), 1),
        ("refused-stream", Fail(Kind::RefusedStream), 2),
        ("refused-stream", Fail(Kind::RemoteReset), 1),
        ("retriable-4xx", Status(409), 2),
        ("retriable-4xx", Status(404), 1),
        ("retriable-status-codes", Status(418), 2),
        ("unavailable", Grpc("14"), 2),
        ("unavailable", Grpc("13"), 1),
        ("cancelled,internal", Grpc("13"), 2),
        ("reset", Fail(Kind::MaxDuration), 2),
        ("5xx,reset", Fail(Kind::Overflow), 1),
        ("5xx,reset", Fail(Kind::NoHealthyUpstream), 1),
        ("reset-before-request", Fail(Kind::RefusedStream), 1),
        ("5xx", Header(503, "x-envoy-ratelimited", "true"), 1),
        (
            "envoy-ratelimited",
            Header(429, "x-envoy-ratelimited", "true"),
            2,
        ),
        ("retriable-headers", Header(200, "x-again", "yes"), 2),
        ("retriable-headers", Header(200, "x-again", "no"), 1),
        ("retriable-headers", Status(201), 2),
        ("5xx", Header(200, "x-again", "yes"), 1),
    ] {
        let (_, attempts) = play(policy(on, 1), &[], &[first, ok]).await;
        assert_eq!(attempts, wanted, "{on} {first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn retries_stop_when_they_are_used_up() {
    let bad = Answer::Status(503);
    let seen = play(policy("5xx", 2), &[], &[bad; 9]).await;
    assert_eq!(seen, (Ok(503), 3));
    let lost = Answer::Fail(Kind::RemoteReset);
    let seen = play(policy("5xx", 1), &[], &[lost; 9]).await;
    assert_eq!(seen, (Err(Kind::RemoteReset), 2));
}

#[tokio::test(start_paused = true)]
async fn the_time_between_attempts_grows() {
    let slow = RetryPolicy {
        base_interval: Some(Duration::from_secs(1)),
        max_interval: Some(Duration::from_secs(100)),
        ..policy("5xx", 4)
    };
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let begun = tokio::time::Instant::now();
        let seen = play(slow.clone(), &[], &[Answer::Status(503); 5]).await;
        assert_eq!(seen, (Ok(503), 5));
        longest = longest.max(begun.elapsed());
    }
    // By chance up to 1, 2, 4 and 8 seconds; up to 4 in all if it did not grow.
    assert!(longest > Duration::from_secs(4), "{longest:?}");
    assert!(longest <= Duration::from_secs(15), "{longest:?}");
}

#[test]
fn the_time_between_attempts_has_a_ceiling() {
    let second = |count: u64| count * 1_000_000_000;
    // The longest is ten times the shortest where nothing else is said, and never shorter than that.
    for (longest, retry, random, wanted) in [
        (None, 1, second(1) + 5, second(1) + 5),
        (None, 1, second(2), 0),
        (None, 9, second(9), second(9)),
        (None, 9, second(10), 0),
        (None, 40, second(10), 0),
        (Some(3), 9, second(3), 0),
        (Some(0), 9, second(1), 0),
    ] {
        let policy = RetryPolicy {
            base_interval: Some(Duration::from_secs(1)),
            max_interval: longest.map(Duration::from_secs),
            ..policy("5xx", 1)
        };
        let policy = Retries::new(&policy, None).expect("valid");
        let seen = policy.0.back_off(retry, random).as_nanos();
        assert_eq!(seen, wanted.into(), "{longest:?} {retry} {random}");
    }
}

#[test]
fn a_policy_without_conditions_may_limit_the_time_of_an_attempt() {
    let time = Some(Duration::from_secs(1));
    for (on, per_try, idle, wanted) in [
        ("", None, None, false),
        ("5xx", None, None, true),
        ("", time, None, true),
        ("", None, time, true),
        ("", Some(Duration::ZERO), Some(Duration::ZERO), false),
    ] {
        let policy = RetryPolicy {
            per_try_timeout: per_try,
            per_try_idle_timeout: idle,
            ..policy(on, 1)
        };
        let policy = Retries::new(&policy, None).expect("valid");
        assert_eq!(policy.0.acts(), wanted, "{on} {per_try:?} {idle:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn headers_of_the_request_add_to_the_policy() {
    let bad = Answer::Status(503);
    let asks = [
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-max-retries", "3"),
        ("x-envoy-upstream-alt-stat-name", "other"),
        ("x-envoy-hedge-on-per-try-timeout", "true"),
    ];
    assert_eq!(play(policy("", 0), &asks, &[bad; 9]).await, (Ok(503), 4));
    let codes = [
        ("x-envoy-retry-on", "retriable-status-codes"),
        ("x-envoy-retriable-status-codes", "404, 503"),
    ];
    assert_eq!(play(policy("", 1), &codes, &[bad; 9]).await.1, 2);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_is_tried_again() {
    let limit = RetryPolicy {
        per_try_timeout: Some(Duration::from_secs(1)),
        ..policy("5xx", 1)
    };
    let seen = play(limit.clone(), &[], &[Answer::Silence, Answer::Status(200)]).await;
    assert_eq!(seen, (Ok(200), 2));
    let seen = play(limit, &[], &[Answer::Silence, Answer::Silence]).await;
    assert_eq!(seen, (Err(Kind::PerTryTimeout), 2));
}

#[tokio::test(start_paused = true)]
async fn a_body_over_its_limit_is_sent_once() {
    let (mock, mut handle) = mock::pair::<Req, Res>();
    handle.allow(10);
    let policy = Retries::new(&policy("5xx", 3), Some(3)).expect("valid");
    let mut service = RetryLayer::new(Fixed(policy)).layer(Tame(mock));
    let request = Request::new(RequestBody::new(Full::from("longer")));
    let client = tokio::spawn(service.call(request));
    let (seen, send) = handle.next_request().await.expect("a request");
    assert_eq!(
        seen.into_body().collect().await.expect("a body").to_bytes(),
        "longer"
    );
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    send.send_response(response);
    let seen = client.await.expect("no panic").expect("the response");
    assert_eq!(seen.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_in_which_nothing_comes_is_tried_again() {
    let limit = RetryPolicy {
        per_try_timeout: Some(Duration::from_secs(5)),
        per_try_idle_timeout: Some(Duration::from_secs(1)),
        ..policy("reset", 1)
    };
    let begun = tokio::time::Instant::now();
    let seen = play(limit.clone(), &[], &[Answer::Silence, Answer::Status(200)]).await;
    assert_eq!((seen, begun.elapsed().as_secs()), ((Ok(200), 2), 1));
    let silence = [Answer::Silence, Answer::Silence];
    let seen = play(limit.clone(), &[], &silence).await;
    assert_eq!(seen, (Err(Kind::PerTryIdleTimeout), 2));
    let both = RetryPolicy {
        per_try_timeout: limit.per_try_idle_timeout,
        ..limit
    };
    let seen = play(both, &[], &silence).await;
    assert_eq!(seen, (Err(Kind::PerTryTimeout), 2));
}

#[tokio::test(start_paused = true)]
async fn the_idle_time_of_an_attempt_holds_for_its_response_body() {
    // One frame comes after each pause, in seconds.
    for (pauses, wanted) in [
        (&[2, 2, 2][..], Ok(6)),
        (&[2, 2, 4], Err((Kind::PerTryIdleTimeout, 7))),
    ] {
        let app = tower::service_fn(move |_: Req| async move {
            Ok::<_, Error>(Response::new(ResponseBody::upstream(Paced::new(pauses))))
        });
        let limit = RetryPolicy {
            per_try_idle_timeout: Some(Duration::from_secs(3)),
            ..RetryPolicy::default()
        };
        let policy = Retries::new(&limit, None).expect("valid");
        let mut service = RetryLayer::new(Fixed(policy)).layer(app);
        let request = Request::new(RequestBody::new(Full::from("body")));
        let begun = tokio::time::Instant::now();
        let response = service.call(request).await.expect("a head");
        let seen = response.into_body().collect().await;
        let after = begun.elapsed().as_secs();
        let seen = seen.map(|_| after).map_err(|error| {
            let error = error.downcast::<Error>().expect("one of ours");
            (error.kind(), after)
        });
        assert_eq!(seen, wanted, "{pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_header_of_the_request_means_what_it_means_in_envoy() {
    use Answer::*;
    for (headers, first, wanted) in [
        (&[("x-envoy-retry-grpc-on", "cancelled")][..], Grpc("1"), 2),
        (&[("x-envoy-retry-grpc-on", "5xx")], Status(500), 1),
        (&[("x-envoy-retry-on", "cancelled")], Grpc("1"), 1),
        (
            &[("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "0")],
            Status(500),
            1,
        ),
        (
            &[("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "many")],
            Status(500),
            2,
        ),
        (&[("x-envoy-max-retries", "5")], Status(500), 1),
        // Two lines are one list.
        (
            &[
                ("x-envoy-retry-on", "connect-failure"),
                ("x-envoy-retry-on", "5xx"),
            ],
            Status(500),
            2,
        ),
        (
            &[
                ("x-envoy-retry-on", "retriable-headers"),
                ("x-envoy-retriable-header-names", "x-a, x-b"),
            ],
            Header(200, "x-b", "1"),
            2,
        ),
    ] {
        let (_, attempts) = play(policy("", 1), headers, &[first, Status(200)]).await;
        assert_eq!(attempts, wanted, "{headers:?} {first:?}");
    }
    // The time for one attempt, and none of it.
    let limit = RetryPolicy {
        per_try_timeout: Some(Duration::from_secs(9)),
        ..policy("5xx", 1)
    };
    let begun = tokio::time::Instant::now();
    let asks = [("x-envoy-upstream-rq-per-try-timeout-ms", "2000")];
    let seen = play(limit.clone(), &asks, &[Silence, Status(200)]).await;
    assert_eq!((seen, begun.elapsed().as_secs()), ((Ok(200), 2), 2));
    let slow = tower::service_fn(|_: Req| async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        Ok::<Res, Error>(Response::new(ResponseBody::empty()))
    });
    let policy = Retries::new(&limit, None).expect("valid");
    let request = Request::get("http://a/b").header(asks[0].0, "0");
    let request = request.body(RequestBody::new(Full::from("")));
    let answer = RetryLayer::new(Fixed(policy)).layer(slow);
    let answer = { answer }.call(request.expect("a request")).await;
    assert_eq!(answer.expect("in time").status(), 200);
}

#[tokio::test(start_paused = true)]
async fn only_requests_with_certain_headers_are_tried_again() {
    let bad = [Answer::Status(503), Answer::Status(200)];
    for (wanted, attempts) in [
        (vec![exact("x-user", "test")], 2),
        (vec![exact("x-user", "other")], 1),
        (vec![exact("x-user", "other"), exact(":method", "POST")], 2),
        (vec![exact(":path", "/b")], 2),
        (vec![exact(":authority", "c")], 1),
    ] {
        let limited = RetryPolicy {
            request_headers: wanted.clone(),
            ..policy("5xx", 1)
        };
        let seen = play(limited, &[("x-user", "test")], &bad).await;
        assert_eq!(seen.1, attempts, "{wanted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_response_may_say_when_to_come_again() {
    let now = std::time::SystemTime::now();
    let now = now
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let later: &'static str = Box::leak((now.as_secs() + 100).to_string().into_boxed_str());
    for (name, value, least, most) in [
        ("retry-after", "10", 10_000, 15_000),
        // Over the longest wait the next header counts, and where there is none, the usual back-off.
        ("retry-after", "300", 300_000, 450_000),
        ("retry-after", "301", 0, 25),
        ("retry-after", "0", 0, 25),
        ("retry-after", "soon", 0, 25),
        ("x-reset-at", later, 98_000, 151_000),
        ("x-reset-at", "5", 0, 25),
    ] {
        let limited = RetryPolicy {
            rate_limited: Some(RateLimitedBackOff {
                reset_headers: vec![
                    (http::HeaderName::from_static("retry-after"), true),
                    (http::HeaderName::from_static("x-reset-at"), false),
                ],
                max_interval: Duration::from_secs(300),
            }),
            ..policy("5xx", 1)
        };
        let begun = tokio::time::Instant::now();
        let answers = [Answer::Header(503, name, value), Answer::Status(200)];
        // The test's own patience is shorter than these waits.
        let (seen, _) = patient(limited, &answers).await;
        assert_eq!(seen, Ok(200));
        let after = begun.elapsed().as_millis();
        assert!(
            (least..=most).contains(&after),
            "{name}: {value}: {after} ms"
        );
    }
}

/// What responses ask for does not count as one of the policy's own back-offs.
#[tokio::test(start_paused = true)]
async fn a_wait_that_was_asked_for_does_not_lengthen_the_next_back_off() {
    let limited = RetryPolicy {
        base_interval: Some(Duration::from_secs(1)),
        max_interval: Some(Duration::from_secs(100)),
        rate_limited: Some(RateLimitedBackOff {
            reset_headers: vec![(http::HeaderName::from_static("retry-after"), true)],
            max_interval: Duration::from_secs(300),
        }),
        ..policy("5xx", 4)
    };
    let (asked, plain) = (
        Answer::Header(503, "retry-after", "2"),
        Answer::Header(503, "x-none", ""),
    );
    let mut longest = Duration::ZERO;
    for _ in 0..30 {
        let begun = tokio::time::Instant::now();
        let (seen, attempts) = patient(limited.clone(), &[asked, asked, asked, plain]).await;
        assert_eq!((seen, attempts), (Ok(200), 5));
        // Three times two to three seconds, then less than one; up to eight if it had grown.
        let after = begun.elapsed();
        assert!(after <= Duration::from_secs(10), "{after:?}");
        longest = longest.max(after);
    }
    // Clients do not all come again at the same time.
    assert!(longest > Duration::from_secs(7), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn what_came_too_early_is_sent_again_at_once_unless_it_came_so() {
    let slow = RetryPolicy {
        codes: vec![StatusCode::TOO_EARLY],
        base_interval: Some(Duration::from_secs(1000)),
        ..policy("retriable-status-codes", 1)
    };
    let answers = [Answer::Status(425), Answer::Status(200)];
    let begun = tokio::time::Instant::now();
    assert_eq!(play(slow.clone(), &[], &answers).await, (Ok(200), 2));
    assert_eq!(begun.elapsed().as_millis(), 0);
    // For another reason it is as any other response.
    let other = RetryPolicy {
        on: RetryOn::parse("retriable-4xx,retriable-headers").0,
        headers: vec![exact(":status", "425")],
        ..slow.clone()
    };
    assert_eq!(patient(other, &[Answer::Header(425, "x-a", "")]).await.1, 2);
    assert!(begun.elapsed().as_millis() > 0);
    let early = [("early-data", "1")];
    assert_eq!(play(slow, &early, &answers).await, (Ok(425), 1));
}

/// Plays without a limit for the time between two attempts.
async fn patient(policy: RetryPolicy, answers: &[Answer]) -> (Result<u16, Kind>, usize) {
    let attempts = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (count, list) = (attempts.clone(), answers.to_vec());
    let app = tower::service_fn(move |_: Req| {
        let turn = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut response = Response::new(ResponseBody::<Full<Bytes>>::empty());
        if let Some(Answer::Header(status, name, value)) = list.get(turn) {
            *response.status_mut() = (*status).try_into().expect("a status");
            let value = value.parse().expect("a value");
            response.headers_mut().insert(*name, value);
        }
        async { Ok::<_, Error>(response) }
    });
    let policy = Retries::new(&policy, None).expect("valid");
    let mut service = RetryLayer::new(Fixed(policy)).layer(app);
    let seen = service
        .call(Request::new(RequestBody::new(Full::from("body"))))
        .await;
    let seen = seen
        .map(|response| response.status().as_u16())
        .map_err(|error| error.kind());
    (seen, attempts.load(std::sync::atomic::Ordering::Relaxed))
}
