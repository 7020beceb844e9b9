use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use tower_layer::Layer;
use tower_service::Service;

use super::FaultLayer;
use crate::{
    Error,
    body::RequestBody,
    model::{
        AbortWith, Fault, FaultAbort, FaultDelay, Fraction, HeaderMatcher, HeaderValueMatcher,
    },
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
        ..fault
    };
    assert_eq!(ask(limited, &[("x-test", "1")]).await.0, 200);
}
