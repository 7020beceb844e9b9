use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Empty;
use tower_layer::Layer;
use tower_service::Service;

use super::CorsLayer;
use crate::{
    body::RequestBody,
    model::{Cors, StringMatcher, StringPattern},
};

fn policy() -> Cors {
    Cors {
        allow_origins: vec![StringMatcher {
            pattern: StringPattern::Exact("https://good".into()),
            ignore_case: false,
        }],
        allow_methods: Some("GET,PUT".parse().expect("a value")),
        expose_headers: Some("x-shown".parse().expect("a value")),
        max_age: Some("60".parse().expect("a value")),
        allow_credentials: Some(true),
        ..Cors::default()
    }
}

async fn ask(
    policy: Cors,
    method: Method,
    origin: &str,
) -> Response<crate::body::ResponseBody<Empty<Bytes>>> {
    let app = tower::service_fn(|_: Request<RequestBody<Empty<Bytes>>>| async {
        let mut response = Response::new(Empty::<Bytes>::new());
        *response.status_mut() = StatusCode::ACCEPTED;
        Ok::<_, std::convert::Infallible>(response)
    });
    let mut service = CorsLayer::fixed(policy).layer(app);
    let request = Request::builder()
        .method(method)
        .header(header::ORIGIN, origin)
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "PUT")
        .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "x-asked")
        .body(Empty::new());
    service
        .call(request.expect("a request"))
        .await
        .expect("an answer")
}

#[tokio::test]
async fn a_preflight_of_an_allowed_origin_is_answered() {
    let response = ask(policy(), Method::OPTIONS, "https://good").await;
    assert_eq!(response.status(), StatusCode::OK);
    let headers = response.headers();
    assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://good");
    assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_METHODS], "GET,PUT");
    assert_eq!(headers[header::ACCESS_CONTROL_MAX_AGE], "60");
    assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
    assert_eq!(headers[header::ACCESS_CONTROL_EXPOSE_HEADERS], "x-shown");
}

#[tokio::test]
async fn other_preflights_pass_unless_the_policy_ends_them() {
    let response = ask(policy(), Method::OPTIONS, "https://bad").await;
    assert_eq!(response.status(), StatusCode::ACCEPTED, "forwarded");
    assert!(response.headers().is_empty());
    let ended = Cors {
        forward_not_matching_preflights: Some(false),
        ..policy()
    };
    let response = ask(ended, Method::OPTIONS, "https://bad").await;
    assert_eq!(response.status(), StatusCode::OK, "answered here");
    let headers = response.headers();
    assert!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    // As in Envoy it is told what others may do.
    assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_METHODS], "GET,PUT");
    assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
}

#[tokio::test]
async fn a_star_stands_for_everything() {
    let star = || Some(http::HeaderValue::from_static("*"));
    let any = Cors {
        allow_origins: vec![StringMatcher {
            pattern: StringPattern::Exact("*".into()),
            ignore_case: false,
        }],
        allow_methods: star(),
        allow_headers: star(),
        expose_headers: star(),
        ..policy()
    };
    let response = ask(any.clone(), Method::OPTIONS, "https://who").await;
    let headers = response.headers();
    assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://who");
    assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_METHODS], "PUT");
    assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_HEADERS], "x-asked");
    assert_eq!(headers[header::ACCESS_CONTROL_EXPOSE_HEADERS], "*");
    // Nobody asked.
    let response = ask(any, Method::OPTIONS, "").await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert!(response.headers().is_empty());
}

#[tokio::test]
async fn responses_to_allowed_origins_are_marked() {
    let response = ask(policy(), Method::GET, "https://good").await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(
        response.headers()[header::ACCESS_CONTROL_EXPOSE_HEADERS],
        "x-shown"
    );
    let response = ask(policy(), Method::GET, "https://bad").await;
    assert!(response.headers().is_empty());
}
