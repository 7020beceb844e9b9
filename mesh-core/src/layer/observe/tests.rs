use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use tower_layer::Layer;
use tower_service::Service;

use super::ObserveLayer;
use crate::{
    Error, Kind,
    body::RequestBody,
    telemetry::{
        flags::Flag,
        record::{Late, Record, Sink, Wants},
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

/// What was told of a request: method, a header, the flags.
#[derive(Debug)]
struct Heads(Wants, Mutex<Vec<String>>);

impl Sink for Heads {
    fn wants(&self) -> &Wants {
        &self.0
    }

    fn finish(&self, _: &Record, late: &Late) {
        let head = late.head.as_ref().expect("it is wanted");
        let told = format!("{} {:?} {}", head.method, late.request_headers, late.flags);
        self.1.lock().expect("no panic").push(told);
    }
}

#[tokio::test]
async fn alone_it_tells_the_head_and_why_there_is_no_answer() {
    let wants = Wants {
        head: true,
        request: vec![http::header::ACCEPT],
        ..Wants::default()
    };
    let told = Arc::new(Heads(wants, Mutex::default()));
    let failing = tower::service_fn(|_: Req| {
        std::future::ready(Err::<Response<Full<Bytes>>, _>(Error::new(Kind::Overflow)))
    });
    let mut service = ObserveLayer::fixed(told.clone()).layer(failing);
    let request = Request::post("/").header("accept", "a/b");
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    let error = service.call(request).await.expect_err("it fails");
    assert_eq!(error.kind(), Kind::Overflow);
    let told = told.1.lock().expect("no panic").clone();
    assert_eq!(told, [r#"POST [("accept", "a/b")] UO"#]);
}
