use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::{ActiveFaults, FaultLayer};
use crate::{
    Error,
    body::{RequestBody, ResponseBody},
    layer::{
        Fixed,
        timeout::{StreamLimits, TimeoutLayer, Timeouts},
    },
    model::{
        AbortWith, Fault, FaultAbort, FaultDelay, FaultRateLimit, Fraction, HeaderMatcher,
        HeaderValueMatcher,
    },
    route::FaultRules,
};

fn abort(with: AbortWith, percentage: Fraction) -> Option<FaultAbort> {
    Some(FaultAbort { with, percentage })
}

/// Status of the answer, or of the error, and after how many milliseconds.
async fn ask(fault: Fault, headers: &[(&'static str, &'static str)]) -> (u16, u64) {
    let app = tower::service_fn(|_: Request<RequestBody<Empty<Bytes>>>| async {
        Ok::<_, std::convert::Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let mut service = FaultLayer::fixed(fault).expect("valid").layer(app);
    let mut request = Request::new(Empty::new());
    for (name, value) in headers {
        request
            .headers_mut()
            .insert(*name, value.parse().expect("a value"));
    }
    let begun = tokio::time::Instant::now();
    let status = match service.call(request).await {
        Ok(response) => response.status().as_u16(),
        Err(error) => {
            let error: Error = error;
            error.status()
        }
    };
    (status, begun.elapsed().as_millis() as u64)
}

#[tokio::test(start_paused = true)]
async fn delay_comes_before_abort_and_shares_hold() {
    let fault = Fault {
        delay: Some(FaultDelay {
            fixed: Some(Duration::from_millis(300)),
            percentage: Fraction::ALWAYS,
        }),
        abort: abort(AbortWith::Http(StatusCode::IM_A_TEAPOT), Fraction::ALWAYS),
        ..Fault::default()
    };
    assert_eq!(ask(fault.clone(), &[]).await, (418, 300));
    let never = Fault {
        abort: abort(AbortWith::Http(StatusCode::IM_A_TEAPOT), Fraction::NEVER),
        delay: None,
        ..fault
    };
    assert_eq!(ask(never, &[]).await, (200, 0));
}

#[tokio::test(start_paused = true)]
async fn headers_of_the_request_drive_faults_that_leave_it_open() {
    let fault = Fault {
        delay: Some(FaultDelay {
            fixed: None,
            percentage: Fraction::ALWAYS,
        }),
        abort: abort(AbortWith::Header, Fraction::ALWAYS),
        ..Fault::default()
    };
    assert_eq!(ask(fault.clone(), &[]).await, (200, 0));
    let both = [
        ("x-envoy-fault-delay-request", "20"),
        ("x-envoy-fault-abort-request", "429"),
    ];
    assert_eq!(ask(fault.clone(), &both).await, (429, 20));
    let lowered = [
        ("x-envoy-fault-abort-request", "429"),
        ("x-envoy-fault-abort-request-percentage", "0"),
    ];
    assert_eq!(ask(fault.clone(), &lowered).await, (200, 0));
    assert_eq!(
        ask(fault, &[("x-envoy-fault-abort-grpc-request", "5")]).await,
        (200, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn only_matching_requests_meet_a_fault_and_no_more_than_allowed() {
    let fault = Fault {
        abort: abort(AbortWith::Http(StatusCode::BAD_GATEWAY), Fraction::ALWAYS),
        headers: vec![HeaderMatcher {
            name: "x-test".into(),
            value: HeaderValueMatcher::Present(true),
            invert: false,
            missing_as_empty: false,
        }],
        ..Fault::default()
    };
    assert_eq!(ask(fault.clone(), &[]).await.0, 200);
    assert_eq!(ask(fault.clone(), &[("x-test", "1")]).await.0, 502);
    let limited = Fault {
        max_active_faults: Some(0),
        ..fault.clone()
    };
    assert_eq!(ask(limited, &[("x-test", "1")]).await.0, 200);
    // No route leads this request to any cluster.
    let elsewhere = Fault {
        upstream_cluster: "other".into(),
        ..fault.clone()
    };
    assert_eq!(ask(elsewhere, &[("x-test", "1")]).await.0, 200);
    let of_nodes = Fault {
        downstream_nodes: vec!["a".into(), "b".into()],
        ..fault
    };
    for (node, wanted) in [("b", 502), ("c", 200)] {
        let sent = [("x-test", "1"), ("x-envoy-downstream-service-node", node)];
        assert_eq!(ask(of_nodes.clone(), &sent).await.0, wanted, "{node}");
    }
}

fn delay(time: u64) -> Option<FaultDelay> {
    Some(FaultDelay {
        fixed: Some(Duration::from_millis(time)),
        percentage: Fraction::ALWAYS,
    })
}

fn rate(kibps: Option<u64>, percentage: Fraction) -> Option<FaultRateLimit> {
    Some(FaultRateLimit { kibps, percentage })
}

type Req = Request<RequestBody<Empty<Bytes>>>;

/// The layer with its counts, in front of a service that answers with `make()`.
fn layered<U: crate::body::MeshBody>(
    config: Fault,
    make: fn() -> U,
) -> (
    impl Service<Req, Response = Response<ResponseBody<U>>, Error = Error>,
    ActiveFaults,
) {
    let rules = Arc::new(FaultRules {
        config,
        headers: Box::default(),
    });
    let active = ActiveFaults::default();
    let app = tower::service_fn(move |_: Req| async move {
        Ok::<_, Error>(Response::new(ResponseBody::upstream(make())))
    });
    (
        FaultLayer::new(Fixed(rules), active.clone()).layer(app),
        active,
    )
}

fn request(headers: &[(&'static str, &'static str)]) -> Req {
    let mut request = Request::new(RequestBody::new(Empty::new()));
    for (name, value) in headers {
        request
            .headers_mut()
            .insert(*name, value.parse().expect("a value"));
    }
    request
}

fn four_kib() -> Full<Bytes> {
    Full::from(vec![7; 4096])
}

/// Reads a body; how long each frame took in milliseconds, its length, and the trailers.
async fn read<B>(body: B) -> (Vec<(u64, usize)>, Option<HeaderMap>)
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Debug,
{
    let mut body = body;
    let (begun, mut seen, mut trailers) = (Instant::now(), Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame.expect("a frame").into_data() {
            Ok(data) => seen.push((begun.elapsed().as_millis() as u64, data.len())),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    (seen, trailers)
}

#[tokio::test(start_paused = true)]
async fn a_response_comes_at_its_rate_and_whole() {
    let fault = Fault {
        response_rate_limit: rate(Some(1), Fraction::ALWAYS),
        ..Fault::default()
    };
    let (mut service, active) = layered(fault, four_kib);
    let response = service.call(request(&[])).await.expect("a head");
    assert_eq!(response.body().size_hint().exact(), Some(4096));
    let (seen, _) = read(response.into_body()).await;
    assert_eq!(seen.iter().map(|(_, length)| length).sum::<usize>(), 4096);
    // Envoy: 51 bytes at once, and what has come together every 50 ms.
    assert_eq!(seen[0], (0, 51));
    assert_eq!(seen[1].0, 50);
    let (last, _) = seen[seen.len() - 1];
    assert!((3900..=4050).contains(&last), "{last}");
    for (at, _) in &seen {
        let upto: usize = seen
            .iter()
            .filter(|(when, _)| when <= at)
            .map(|(_, length)| length)
            .sum();
        assert!(upto as u64 <= 52 + at * 1024 / 1000, "{upto} after {at} ms");
    }
    let stats = active.stats();
    assert_eq!(
        (stats.response_rl_injected.get(), stats.active_faults.get()),
        (1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_header_gives_the_rate_and_trailers_wait_for_the_data() {
    let fault = Fault {
        response_rate_limit: rate(None, Fraction::ALWAYS),
        ..Fault::default()
    };
    let make = || {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().expect("a value"));
        let trailers = std::future::ready(Some(Ok::<_, Infallible>(trailers)));
        Full::from(vec![1; 3000]).with_trailers(trailers)
    };
    for (headers, wanted) in [
        (&[][..], 0..=0),
        (&[("x-envoy-fault-throughput-response", "0")], 0..=0),
        (&[("x-envoy-fault-throughput-response", "fast")], 0..=0),
        (&[("x-envoy-fault-throughput-response", "2")], 1300..=1500),
        (
            &[
                ("x-envoy-fault-throughput-response", "2"),
                ("x-envoy-fault-throughput-response-percentage", "0"),
            ],
            0..=0,
        ),
    ] {
        let (mut service, _) = layered(fault.clone(), make);
        let response = service.call(request(headers)).await.expect("a head");
        let (seen, trailers) = read(response.into_body()).await;
        let (last, _) = seen[seen.len() - 1];
        assert!(wanted.contains(&last), "{headers:?}: {last}");
        assert_eq!(trailers.expect("trailers")["grpc-status"], "0");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_counts_as_active_as_long_as_in_envoy() {
    // Only delayed: until the delay ends.
    let delayed = Fault {
        delay: delay(100),
        max_active_faults: Some(1),
        ..Fault::default()
    };
    let (mut service, active) = layered(delayed.clone(), four_kib);
    let first = service.call(request(&[]));
    assert_eq!(active.stats().active_faults.get(), 1);
    // Another one is over the limit, and passes at once.
    let begun = Instant::now();
    service.call(request(&[])).await.expect("a response");
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let first = first.await.expect("a response");
    assert_eq!(begun.elapsed(), Duration::from_millis(100));
    assert_eq!(active.stats().active_faults.get(), 0);
    assert_eq!(active.stats().faults_overflow.get(), 1);
    assert_eq!(active.stats().delays_injected.get(), 1);
    drop(first);
    let aborted = Fault {
        abort: abort(AbortWith::Http(StatusCode::CONFLICT), Fraction::ALWAYS),
        ..delayed.clone()
    };
    let (mut refusing, refused) = layered(aborted, four_kib);
    assert!(refusing.call(request(&[])).await.is_err());
    assert_eq!(refused.stats().aborts_injected.get(), 1);
    assert_eq!(refused.stats().active_faults.get(), 0);
    // A client that goes away during the delay counts no longer.
    let gone = service.call(request(&[]));
    assert_eq!(active.stats().active_faults.get(), 1);
    drop(gone);
    assert_eq!(active.stats().active_faults.get(), 0);
    // With a limit of the response rate: until the end of the response, also where the limit misses this request.
    for share in [Fraction::ALWAYS, Fraction::NEVER] {
        let lasting = Fault {
            response_rate_limit: rate(Some(1), share),
            ..delayed.clone()
        };
        let (mut service, active) = layered(lasting, four_kib);
        let response = service.call(request(&[])).await.expect("a response");
        assert_eq!(active.stats().active_faults.get(), 1);
        read(response.into_body()).await;
        assert_eq!(active.stats().active_faults.get(), 0);
        let response = service.call(request(&[])).await.expect("a response");
        assert_eq!(active.stats().active_faults.get(), 1);
        drop(response);
        assert_eq!(active.stats().active_faults.get(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_held_back_is_not_the_upstreams_time() {
    let config = Fault {
        response_rate_limit: rate(Some(1), Fraction::ALWAYS),
        ..Fault::default()
    };
    let rules = Arc::new(FaultRules {
        config,
        headers: Box::default(),
    });
    let limits = Timeouts {
        route: Some(Duration::from_secs(1)),
        ..Timeouts::default()
    };
    let app = tower::service_fn(|_: Req| async {
        Ok::<_, Error>(Response::new(ResponseBody::upstream(four_kib())))
    });
    let timed = TimeoutLayer::new(Fixed(limits), StreamLimits::default()).layer(app);
    let mut service = FaultLayer::new(Fixed(rules), ActiveFaults::default()).layer(timed);
    let response = service.call(request(&[])).await.expect("a head");
    let (seen, _) = read(response.into_body()).await;
    assert!(
        seen[seen.len() - 1].0 > 3000,
        "it took longer than the route's timeout"
    );
    assert_eq!(seen.iter().map(|(_, length)| length).sum::<usize>(), 4096);
}
