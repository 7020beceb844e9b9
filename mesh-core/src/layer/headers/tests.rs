use bytes::Bytes;
use http::{HeaderName, Request, Response};
use http_body_util::Empty;
use tower_layer::Layer;
use tower_service::Service;

use super::{HeaderRules, HeadersLayer};
use crate::{
    body::RequestBody,
    model::{AppendAction, Format, HeaderAddition, HeaderMutations},
};

fn set(name: &'static str, value: &str) -> HeaderAddition {
    HeaderAddition {
        name: HeaderName::from_static(name),
        value: Format { text: value.into() },
        action: AppendAction::OverwriteIfExistsOrAdd,
        keep_empty: false,
    }
}

#[tokio::test]
async fn requests_and_responses_change_on_their_way() {
    let rules = HeaderRules::new(&HeaderMutations {
        request_add: vec![set("x-path", "%REQ(:path)%")],
        request_remove: vec![HeaderName::from_static("x-gone")],
        response_add: vec![set("x-added", "1")],
        response_remove: vec![HeaderName::from_static("x-secret")],
    });
    let app = tower::service_fn(|request: Request<RequestBody<Empty<Bytes>>>| async move {
        assert!(!request.headers().contains_key("x-gone"));
        let mut response = Response::new(Empty::<Bytes>::new());
        response
            .headers_mut()
            .insert("x-saw", request.headers()["x-path"].clone());
        response
            .headers_mut()
            .insert("x-secret", "s".parse().expect("a value"));
        Ok::<_, std::convert::Infallible>(response)
    });
    let mut service = HeadersLayer::fixed(rules.expect("valid")).layer(app);
    let request = Request::get("/p?q")
        .header("x-gone", "1")
        .body(Empty::new());
    let response = service
        .call(request.expect("a request"))
        .await
        .expect("an answer");
    assert_eq!(response.headers()["x-saw"], "/p?q");
    assert_eq!(response.headers()["x-added"], "1");
    assert!(!response.headers().contains_key("x-secret"));
}

#[test]
fn a_format_that_does_not_parse_is_refused() {
    let bad = HeaderMutations {
        request_add: vec![set("x", "%NOTHING%")],
        ..HeaderMutations::default()
    };
    assert!(HeaderRules::new(&bad).is_err());
}
