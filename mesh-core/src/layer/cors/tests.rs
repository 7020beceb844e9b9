use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Empty;
use tower_layer::Layer;
use tower_service::Service;

use super::{Acts, CorsLayer};
use crate::{
    body::RequestBody,
    layer::{Fixed, Standalone},
    model::{Cors, Fraction, RuntimeFraction, StringMatcher, StringPattern},
    route::CorsPolicy,
    telemetry::metrics::CorsStats,
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

type Answer = Response<crate::body::ResponseBody<Empty<Bytes>>>;

async fn ask(policy: Cors, method: Method, origin: &str) -> Answer {
    ask_counted(policy, method, origin, &Arc::default()).await
}

async fn ask_counted(policy: Cors, method: Method, origin: &str, stats: &Arc<CorsStats>) -> Answer {
    let app = tower::service_fn(|_: Request<RequestBody<Empty<Bytes>>>| async {
        let mut response = Response::new(Empty::<Bytes>::new());
        *response.status_mut() = StatusCode::ACCEPTED;
        Ok::<_, std::convert::Infallible>(response)
    });
    let layer = CorsLayer::new(Fixed(CorsPolicy::new(policy)), Acts::Always);
    let mut service = Standalone(layer.stats(Some(stats.clone()))).layer(app);
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

#[tokio::test]
async fn origins_are_counted_also_where_the_filter_only_looks_on() {
    let share = |default| {
        Some(RuntimeFraction {
            default,
            key: "".into(),
        })
    };
    let shadowed = Cors {
        enabled: share(Fraction::NEVER),
        shadow: share(Fraction::ALWAYS),
        ..policy()
    };
    let off = Cors {
        enabled: share(Fraction::NEVER),
        ..policy()
    };
    let stats = Arc::<CorsStats>::default();
    for (config, method, origin, (valid, invalid), marked) in [
        (policy(), Method::GET, "https://good", (1, 0), true),
        (policy(), Method::OPTIONS, "https://good", (2, 0), true),
        (policy(), Method::GET, "https://bad", (2, 1), false),
        (policy(), Method::GET, "", (2, 1), false),
        (shadowed.clone(), Method::GET, "https://good", (3, 1), false),
        (shadowed, Method::OPTIONS, "https://bad", (3, 2), false),
        (off, Method::GET, "https://good", (3, 2), false),
    ] {
        let response = ask_counted(config, method, origin, &stats).await;
        let headers = response.headers();
        let seen = headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        assert_eq!(seen, marked, "{origin}");
        let counted = (stats.origin_valid.get(), stats.origin_invalid.get());
        assert_eq!(counted, (valid, invalid), "{origin}");
    }
}
