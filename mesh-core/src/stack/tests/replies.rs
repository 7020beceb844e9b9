//! Replies that the mesh makes itself, what formats know of a request by then, and requests as the upstream reads them.

use http::{HeaderName, Method};

use super::*;
use crate::model::{
    Action, BodyFormat, DirectResponse, Format, FormatKind, HeaderAddition, LocalReply, LogFilter,
    ReplyMapper,
};

fn format(text: &str) -> BodyFormat {
    BodyFormat {
        format: FormatKind::Text(Format { text: text.into() }),
        content_type: None,
    }
}

fn add(name: &'static str, text: &str) -> HeaderAddition {
    HeaderAddition {
        name: HeaderName::from_static(name),
        value: Format { text: text.into() },
        action: Default::default(),
        keep_empty: false,
    }
}

fn direct(path: &str, status: StatusCode, body: &'static str) -> model::Route {
    let mut route = forward("echo");
    route.matches.path = model::PathMatch::Exact(path.into());
    route.action = Action::DirectResponse(DirectResponse {
        status,
        body: Bytes::from_static(body.as_bytes()),
        format: None,
    });
    route
}

/// One request through a listener with these routes, `echo` and `gone` (which refuses connections) as clusters.
async fn call(
    routes: Vec<model::Route>,
    local_reply: LocalReply,
    request: Request<Full<Bytes>>,
) -> Response<impl http_body::Body<Data = Bytes, Error: std::fmt::Debug>> {
    let (_held, refused) = super::refusing();
    let clusters = [cluster("echo", upstream().await), cluster("gone", refused)];
    let table = model::RouteConfiguration {
        virtual_hosts: vec![model::VirtualHost {
            name: "all".into(),
            domains: vec!["*".into()],
            routes: model::RouteRules::List(routes),
            ..Default::default()
        }],
        ..Default::default()
    };
    let table = RouteTable::compile(&table, &clusters.into_iter().collect()).expect("valid");
    let config = model::HttpConnectionManager {
        local_reply,
        ..Default::default()
    };
    let http = Http::new(
        Arc::new(config),
        Arc::new(RouteCell::new("table".into(), table)),
        model::Direction::Outbound,
        &Metrics::default(),
        &"test".into(),
    );
    let pool: Pool<_, RequestBody<Full<Bytes>>> = Pool::new(TcpConnector);
    let parts = OutboundParts::new(Arc::new(http.expect("valid")), pool.service(), TokioExec);
    parts
        .connection(None)
        .call(request)
        .await
        .expect("never fails")
}

#[tokio::test]
async fn a_reply_to_head_has_the_length_of_its_body_and_no_body() {
    let config = LocalReply {
        body: Some(format("no such thing")),
        ..LocalReply::default()
    };
    for path in ["/direct", "/none"] {
        let mut request = get(path);
        *request.method_mut() = Method::HEAD;
        let routes = vec![direct("/direct", StatusCode::OK, "here I am")];
        let response = call(routes, config.clone(), request).await;
        assert_eq!(response.headers()["content-length"], "13", "{path}");
        assert_eq!(text(response).await, "", "{path}");
    }
    let mut request = get("/direct");
    *request.method_mut() = Method::HEAD;
    let routes = vec![direct("/direct", StatusCode::OK, "here I am")];
    let response = call(routes, LocalReply::default(), request).await;
    assert_eq!(response.headers()["content-length"], "9");
    assert_eq!(text(response).await, "");
}

#[tokio::test]
async fn direct_responses_and_redirects_are_local_replies() {
    let mapper = ReplyMapper {
        filter: LogFilter::Status(model::Comparison::Eq, 404),
        status: Some(StatusCode::GONE),
        body: None,
        body_format: Some(format("%RESPONSE_CODE% %REQ(x-who)% %LOCAL_REPLY_BODY%")),
        headers: vec![add("x-mapped", "%REQ(x-why)%")],
    };
    let config = LocalReply {
        mappers: vec![mapper],
        body: None,
    };
    let request = Request::get("/direct")
        .header("host", "test")
        .header("x-who", "me")
        .header("x-why", "so");
    let request = request.body(Full::default()).expect("a request");
    let routes = vec![direct("/direct", StatusCode::NOT_FOUND, "gone")];
    let response = call(routes, config.clone(), request).await;
    assert_eq!(response.status(), StatusCode::GONE);
    assert_eq!(response.headers()["x-mapped"], "so");
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert_eq!(text(response).await, "410 me gone", "the new status");

    let mut grpc = get("/direct");
    let kind = "application/grpc".parse().expect("a value");
    grpc.headers_mut().insert("content-type", kind);
    let routes = vec![direct("/direct", StatusCode::OK, "fine")];
    let response = call(routes, config, grpc).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        response.headers()["grpc-status"],
        "2",
        "HTTP says nothing of gRPC"
    );
    assert_eq!(response.headers()["grpc-message"], "fine");
}

#[tokio::test]
async fn a_reply_without_a_body_has_no_content_type() {
    let mut route = direct("/direct", StatusCode::OK, "");
    route.headers.response_add = vec![add("content-type", "text/html")];
    let response = call(vec![route], LocalReply::default(), get("/direct")).await;
    assert!(!response.headers().contains_key("content-type"));
    let mut route = direct("/direct", StatusCode::OK, "<p>");
    let details = add("x-details", "%RESPONSE_CODE_DETAILS%");
    route.headers.response_add = vec![add("content-type", "text/html"), details];
    let response = call(vec![route], LocalReply::default(), get("/direct")).await;
    assert_eq!(response.headers()["content-type"], "text/plain,text/html");
    assert_eq!(response.headers()["x-details"], "direct_response");
}

#[tokio::test]
async fn replies_of_the_router_get_what_the_route_adds() {
    for to in ["gone", "absent"] {
        let mut route = forward(to);
        route.headers.response_add = vec![
            add("x-details", "%RESPONSE_CODE_DETAILS%"),
            add("x-path", "%REQ(:path)%"),
        ];
        let response = call(vec![route], LocalReply::default(), get("/a")).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["x-path"], "/a", "{to}");
        let details = response.headers()["x-details"].to_str().expect("text");
        match to {
            "absent" => assert_eq!(details, "cluster_not_found"),
            _ => assert!(details.starts_with("upstream_reset_before"), "{details}"),
        }
    }
}

#[tokio::test]
async fn headers_of_a_response_know_its_status_and_the_request() {
    let mut route = forward("echo");
    route.headers.request_add = vec![add("x-try", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%")];
    route.headers.response_add = vec![
        add("x-code", "%RESPONSE_CODE%"),
        add("x-details", "%RESPONSE_CODE_DETAILS%"),
        add("x-who", "%REQ(x-who)% %REQ(:method)%"),
        add("x-dash", "%ENVIRONMENT(NO_SUCH_NAME)%%RESPONSE_FLAGS_LONG%"),
    ];
    let mut request = get("/");
    let who = "me".parse().expect("a value");
    request.headers_mut().insert("x-who", who);
    let response = call(vec![route], LocalReply::default(), request).await;
    assert_eq!(response.headers()["x-code"], "200");
    assert_eq!(response.headers()["x-details"], "via_upstream");
    assert_eq!(response.headers()["x-who"], "me GET");
    assert_eq!(response.headers()["x-dash"], "--");
    let seen = text(response).await;
    assert!(seen.contains("x-try: 1\n"), "{seen}");
}

#[tokio::test]
async fn a_body_of_unknown_length_reaches_the_upstream_whatever_the_method() {
    for method in [Method::GET, Method::HEAD, Method::POST] {
        let body = Unsized(Some(Bytes::from_static(b"body")));
        let request = Request::builder()
            .method(method.clone())
            .uri("/")
            .header("host", "test");
        let request = request.body(body).expect("a request");
        let clusters = [cluster("echo", upstream().await)];
        let http = parts(forward("echo"), clusters.into(), &Metrics::default());
        let pool: Pool<_, RequestBody<_>> = Pool::new(TcpConnector);
        let mut stack = OutboundParts::new(http, pool.service(), TokioExec).connection(None);
        let response = stack.call(request).await.expect("never fails");
        assert_eq!(response.status(), StatusCode::OK);
        if method != Method::HEAD {
            let seen = text(response).await;
            assert!(seen.ends_with("\nbody"), "{method}: {seen}");
            assert!(seen.contains("transfer-encoding: chunked"), "{seen}");
        }
    }
    let mut request = get("/");
    *request.method_mut() = Method::PATCH;
    let response = call(vec![forward("echo")], LocalReply::default(), request).await;
    let seen = text(response).await;
    assert!(seen.contains("content-length: 0\n"), "{seen}");
}

/// A body whose size nobody knows, as a chunked one.
struct Unsized(Option<Bytes>);

impl http_body::Body for Unsized {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        std::task::Poll::Ready(self.0.take().map(|data| Ok(http_body::Frame::data(data))))
    }
}

#[tokio::test]
async fn a_further_content_type_goes_on_behind_a_comma() {
    for (types, wanted) in [
        (&["application/grpc"][..], 200),
        (&["application/grpc", "a"], 404),
        (&["application/grpc+proto", "a"], 200),
        (&["a", "application/grpc"], 404),
    ] {
        let mut request = get("/none");
        for kind in types {
            let kind = kind.parse().expect("a value");
            request.headers_mut().append("content-type", kind);
        }
        let response = call(Vec::new(), LocalReply::default(), request).await;
        assert_eq!(response.status(), wanted, "{types:?}");
    }
}

#[tokio::test]
async fn a_redirect_that_rewrites_the_path_changes_what_formats_read_of_it() {
    let redirect = |path| {
        let mut route = forward("echo");
        route.matches.path = model::PathMatch::Prefix("/old".into());
        route.action = Action::Redirect(Box::new(model::Redirect {
            scheme: None,
            host: None,
            port: None,
            path,
            code: StatusCode::FOUND,
            strip_query: false,
        }));
        route.headers.response_add = vec![
            add("x-path", "%REQ(:path)%"),
            add("x-original", "%REQ(x-envoy-original-path)%"),
        ];
        route
    };
    let route = redirect(Some(model::RedirectPath::Prefix("/new".into())));
    let response = call(vec![route], LocalReply::default(), get("/old/a?b")).await;
    let headers = response.headers();
    let location = headers["location"].to_str().expect("text");
    assert!(location.ends_with("/new/a?b"), "{location}");
    assert_eq!(headers["x-path"], "/new/a?b");
    assert_eq!(headers["x-original"], "/old/a?b");
    let route = redirect(Some(model::RedirectPath::Full("/new".into())));
    let response = call(vec![route], LocalReply::default(), get("/old/a?b")).await;
    assert_eq!(
        response.headers()["x-path"],
        "/old/a?b",
        "Envoy's path_redirect"
    );
    assert!(!response.headers().contains_key("x-original"));
}
