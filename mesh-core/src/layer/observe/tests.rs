use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use tower_layer::Layer;
use tower_service::Service;

use super::ObserveLayer;
use crate::{
    body::RequestBody,
    telemetry::{
        flags::Flag,
        record::{Late, Record, Sink},
    },
};

/// What was told: status, bytes of the response, whether the client is said to have gone.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<(u16, u64, bool)>>);

impl Sink for Told {
    fn finish(&self, record: &Record, late: &Late) {
        let gone = late.flags.contains(Flag::DownstreamConnectionTermination);
        let told = (late.status, record.response_bytes(), gone);
        self.0.lock().expect("no panic").push(told);
    }
}

impl Told {
    fn all(&self) -> Vec<(u16, u64, bool)> {
        self.0.lock().expect("no panic").clone()
    }
}

type Req = Request<RequestBody<Empty<Bytes>>>;

fn answering(
    body: &'static str,
) -> impl Service<Req, Response = Response<Full<Bytes>>, Error = std::convert::Infallible, Future: Unpin>
+ Clone {
    tower::service_fn(move |_: Req| std::future::ready(Ok(Response::new(Full::from(body)))))
}

#[tokio::test]
async fn the_record_completes_at_the_last_frame() {
    let told = Arc::new(Told::default());
    let mut service = ObserveLayer::fixed(told.clone()).layer(answering("hello"));
    let response = service
        .call(Request::new(Empty::new()))
        .await
        .expect("an answer");
    assert_eq!(told.all(), [], "the body is not sent yet");
    let mut body = response.into_body();
    let frame = body.frame().await.expect("a frame").expect("data");
    assert!(frame.is_data() && body.is_end_stream());
    // Hyper does not ask for another frame after the last sized one.
    assert_eq!(told.all(), [(200, 5, false)]);
    drop(body);
    assert_eq!(told.all().len(), 1, "told once");
}

#[tokio::test]
async fn a_body_that_is_over_at_once_may_be_dropped_unasked() {
    let told = Arc::new(Told::default());
    let mut service = ObserveLayer::fixed(told.clone()).layer(answering(""));
    let response = service
        .call(Request::new(Empty::new()))
        .await
        .expect("an answer");
    assert!(response.body().is_end_stream());
    drop(response);
    assert_eq!(told.all(), [(200, 0, false)]);
}

#[tokio::test]
async fn a_client_that_goes_away_is_told_as_such() {
    let told = Arc::new(Told::default());
    let mut service = ObserveLayer::fixed(told.clone()).layer(answering("hello"));
    let response = service
        .call(Request::new(Empty::new()))
        .await
        .expect("an answer");
    drop(response);
    assert_eq!(told.all(), [(200, 0, true)], "before the body");
    let silent = tower::service_fn(|_: Req| {
        std::future::pending::<Result<Response<Full<Bytes>>, crate::Error>>()
    });
    let told = Arc::new(Told::default());
    let mut service = ObserveLayer::fixed(told.clone()).layer(silent);
    drop(service.call(Request::new(Empty::new())));
    assert_eq!(told.all(), [(0, 0, true)], "before the response");
}
