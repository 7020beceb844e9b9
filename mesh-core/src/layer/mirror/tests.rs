use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower_layer::Layer;
use tower_service::Service;

use super::{FixedMirrors, MirrorLayer, Shadow};
use crate::{
    Error,
    body::{RequestBody, ResponseBody},
    model::Fraction,
};

type Seen = Arc<Mutex<Vec<(String, Bytes)>>>;

/// Sends one request with `body` and returns what the mirror saw once the copy's task is through.
async fn mirrored(body: &'static str, share: Fraction) -> Vec<(String, Bytes)> {
    let seen = Seen::default();
    let sink = seen.clone();
    let (done, mut arrived) = tokio::sync::mpsc::unbounded_channel();
    let shadow = tower::service_fn(
        move |(_, request): (Shadow, Request<RequestBody<Full<Bytes>>>)| {
            let (sink, done) = (sink.clone(), done.clone());
            async move {
                let host = request.headers()["host"].to_str().expect("text").to_owned();
                let body = request.into_body().collect().await.map_err(Error::adopt)?;
                sink.lock().expect("no panic").push((host, body.to_bytes()));
                done.send(()).expect("the test waits");
                Ok::<_, Error>(Response::new(ResponseBody::<Full<Bytes>>::empty()))
            }
        },
    );
    let app = tower::service_fn(|request: Request<RequestBody<Full<Bytes>>>| async move {
        let body = request.into_body().collect().await?.to_bytes();
        Ok::<_, crate::BoxError>(Response::new(Full::new(body)))
    });
    let policy = FixedMirrors {
        share,
        timeout: None,
    };
    let mut service = MirrorLayer::fixed(policy, shadow).layer(app);
    let request = Request::post("/x")
        .header("host", "a:80")
        .body(Full::from(body));
    let response = service
        .call(request.expect("a request"))
        .await
        .expect("an answer");
    let answer = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    assert_eq!(
        answer, body,
        "the client's own exchange is as without a mirror"
    );
    if share == Fraction::ALWAYS {
        arrived.recv().await.expect("a copy");
    }
    seen.lock().expect("no panic").clone()
}

#[tokio::test]
async fn a_copy_is_sent_with_the_body_and_another_host() {
    let copy = ("a-shadow:80".to_owned(), Bytes::from("hello"));
    assert_eq!(mirrored("hello", Fraction::ALWAYS).await, [copy]);
    let empty = ("a-shadow:80".to_owned(), Bytes::new());
    assert_eq!(mirrored("", Fraction::ALWAYS).await, [empty]);
}

#[tokio::test]
async fn a_share_of_zero_sends_nothing() {
    assert!(mirrored("hello", Fraction::NEVER).await.is_empty());
}
