use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header::HOST};
use http_body_util::{BodyExt, Full};
use tower_service::Service;
use tower_test::mock::{self, Handle};

use super::{Front, Route};
use crate::{
    Error, Kind,
    body::{RequestBody, ResponseBody},
    cluster::Cluster,
    layer::{
        Exchange, Routed,
        tests::{Tame, table},
    },
    model::{self, InternalRedirect, Name, RedirectPredicate},
    route::RouteTable,
    snapshot::Clusters,
    stack::tests::{cluster_config, forward},
    telemetry::record::Record,
};

type Body = RequestBody<Full<Bytes>>;
type Res = Response<ResponseBody<Full<Bytes>>>;
type Routes = Route<Tame<Routed<Body>, Res>, Arc<RouteTable>>;
type Mock = Handle<Routed<Body>, Res>;

fn clusters() -> Clusters {
    let made = ["a", "b"].map(|name| {
        let config = cluster_config(name, ([127, 0, 0, 1], 1).into());
        Arc::new(Cluster::new(Arc::new(config), None))
    });
    made.into_iter().collect()
}

/// A route of the name `name` for what begins with `prefix`, to `cluster`.
fn to(name: &str, prefix: &str, cluster: &str) -> model::Route {
    let mut route = forward(cluster);
    route.name = name.into();
    route.matches.path = model::PathMatch::Prefix(prefix.into());
    route
}

fn action(route: &mut model::Route) -> &mut model::Forward {
    match &mut route.action {
        model::Action::Forward(action) => action,
        _ => panic!("the route forwards"),
    }
}

fn service(table: Arc<RouteTable>) -> (Routes, Mock) {
    let (mock, mut handle) = mock::pair();
    handle.allow(100);
    let front = Front::new(&model::HttpConnectionManager::default(), Arc::default());
    (Route::new(Tame(mock), Arc::new(front), table, None), handle)
}

fn exchange(
    method: Method,
    path: &str,
    headers: &[(&'static str, &'static str)],
) -> Exchange<Body> {
    let record = Record::begin(None, http::Version::HTTP_11, false);
    let text = if method == Method::GET {
        ""
    } else {
        "the body"
    };
    let mut request = Request::new(RequestBody::observed(Full::from(text), &record));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().expect("a path");
    request
        .headers_mut()
        .insert(HOST, "first.test".parse().expect("a host"));
    for (name, value) in headers {
        request
            .headers_mut()
            .insert(*name, value.parse().expect("a value"));
    }
    Exchange::new(request, record)
}

#[tokio::test]
async fn a_request_gets_its_route_cluster_and_record() {
    let routes = vec![to("one", "/a", "a"), to("rest", "/", "b")];
    let (mut service, mut handle) = service(table(routes, &clusters()));
    for (path, route, cluster) in [("/a/x", "one", "a"), ("/z", "rest", "b")] {
        let exchange = exchange(Method::GET, path, &[]);
        let record = exchange.record.clone();
        let answer = tokio::spawn(service.call(exchange));
        let (routed, send) = handle.next_request().await.expect("a request");
        assert_eq!(&**routed.forwarding.route().name(), route);
        assert_eq!(&**routed.cluster.name(), cluster);
        assert_eq!((routed.attempt, routed.redirected), (1, false));
        assert!(routed.request.headers().contains_key("x-request-id"));
        let recorded = record.late().route.clone().expect("a route");
        assert_eq!(&**recorded.name(), route);
        send.send_response(Response::new(ResponseBody::empty()));
        assert!(answer.await.expect("no panic").is_ok());
    }
}

/// A route that answers by itself.
fn direct(path: &str) -> model::Route {
    let mut direct = to("direct", path, "a");
    direct.action = model::Action::DirectResponse(model::DirectResponse {
        status: StatusCode::IM_A_TEAPOT,
        body: Bytes::from_static(b"short"),
        format: None,
    });
    direct
}

#[tokio::test(start_paused = true)]
async fn what_is_answered_here_meets_the_filters_too() {
    use crate::layer::fault::{ActiveFaults, RouteFaults};
    use std::time::Duration;

    let fault = |abort| model::Fault {
        delay: Some(model::FaultDelay {
            fixed: Some(Duration::from_millis(300)),
            percentage: model::Fraction::ALWAYS,
        }),
        abort,
        ..Default::default()
    };
    let abort = model::FaultAbort {
        with: model::AbortWith::Http(StatusCode::CONFLICT),
        percentage: model::Fraction::ALWAYS,
    };
    for (abort, path, status) in [
        (None, "/direct", 418),
        (None, "/none", 404),
        (None, "/unknown", 503),
        (Some(abort.clone()), "/direct", 409),
        (Some(abort.clone()), "/none", 409),
        (Some(abort), "/unknown", 409),
    ] {
        let routes = vec![direct("/direct"), to("unknown", "/unknown", "nobody")];
        let mut front = Front::new(&model::HttpConnectionManager::default(), Arc::default());
        let active = ActiveFaults::default();
        front.set_ahead(super::Ahead {
            cors: crate::layer::cors::Acts::Always,
            cors_stats: None,
            faults: RouteFaults::filter("fault".into(), fault(abort), false).expect("valid"),
            active: active.clone(),
        });
        let (mock, _handle) = mock::pair();
        let mut service: Routes = Route::new(
            Tame(mock),
            Arc::new(front),
            table(routes, &clusters()),
            None,
        );
        let exchange = exchange(Method::GET, path, &[]);
        let record = exchange.record.clone();
        let begun = tokio::time::Instant::now();
        let seen = match service.call(exchange).await {
            Ok(response) => response.status().as_u16(),
            Err(error) => error.status(),
        };
        assert_eq!(seen, status, "{path}");
        assert_eq!(begun.elapsed(), Duration::from_millis(300), "{path}");
        assert_eq!(record.late().flags.to_string(), "DI", "{path}");
        let counts = active.stats();
        assert_eq!(counts.active_faults.get(), 0, "{path}");
        assert_eq!(counts.aborts_injected.get(), u64::from(status == 409));
    }
}

#[tokio::test]
async fn what_needs_no_upstream_is_answered_here() {
    let mut moved = to("moved", "/old", "a");
    moved.action = model::Action::Redirect(Box::new(model::Redirect {
        scheme: None,
        host: None,
        port: None,
        path: Some(model::RedirectPath::Full("/new".into())),
        code: StatusCode::MOVED_PERMANENTLY,
        strip_query: false,
    }));
    let direct = direct("/direct");
    let mut unknown = to("unknown", "/unknown", "nobody");
    action(&mut unknown).cluster_not_found_status = StatusCode::NOT_FOUND;
    let routes = vec![moved, direct, unknown];
    let (mut service, _handle) = service(table(routes, &clusters()));
    let Ok(response) = service.call(exchange(Method::GET, "/old", &[])).await else {
        panic!("a redirect");
    };
    assert_eq!(response.status(), StatusCode::MOVED_PERMANENTLY);
    assert_eq!(response.headers()["location"], "http://first.test/new");
    let direct = exchange(Method::GET, "/direct", &[]);
    let record = direct.record.clone();
    let response = service.call(direct).await.expect("a response");
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(record.late().details.as_deref(), Some("direct_response"));
    for (path, kind, status) in [
        ("/unknown", Kind::NoCluster, 404),
        ("/none", Kind::NoRoute, 404),
    ] {
        let error = service.call(exchange(Method::GET, path, &[])).await;
        let error = error.expect_err("nowhere to go");
        assert_eq!((error.kind(), error.status()), (kind, status), "{path}");
    }
}

/// What a redirected request was like.
#[derive(Debug, PartialEq, Eq)]
struct Second {
    route: Name,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Second {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

async fn see(routed: Routed<Body>) -> Second {
    let route = routed.forwarding.route().name().clone();
    let (parts, body) = routed.request.into_inner().into_parts();
    Second {
        route,
        method: parts.method,
        uri: parts.uri,
        headers: parts.headers,
        body: body.collect().await.expect("a body").to_bytes(),
    }
}

fn redirect(status: u16, location: &str) -> Res {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = status.try_into().expect("a status");
    let location = location.parse().expect("a value");
    response.headers_mut().insert("location", location);
    response
}

fn following() -> InternalRedirect {
    InternalRedirect {
        max: 1,
        codes: vec![302],
        cross_scheme: false,
        predicates: Vec::new(),
        copy_headers: Vec::new(),
    }
}

/// Three routes, the first of which follows redirects by `policy`, the others by `other`.
fn redirecting(policy: InternalRedirect, other: Option<InternalRedirect>) -> Arc<RouteTable> {
    let (mut first, mut second) = (to("first", "/first", "a"), to("second", "/second", "b"));
    action(&mut first).internal_redirect = Some(policy);
    action(&mut second).internal_redirect = other.clone();
    let mut third = to("third", "/third", "a");
    action(&mut third).internal_redirect = other;
    let mut direct = to("direct", "/direct", "a");
    direct.action = model::Action::DirectResponse(model::DirectResponse {
        status: StatusCode::IM_A_TEAPOT,
        body: Bytes::new(),
        format: None,
    });
    table(vec![first, second, third, direct], &clusters())
}

/// Sends a request to `/first?q`, plays `answers` in turn, and returns the status that the client saw, and what the upstreams
/// saw after the first.
async fn play(
    table: Arc<RouteTable>,
    exchange: Exchange<Body>,
    answers: Vec<Res>,
) -> (Result<u16, Error>, Vec<Second>) {
    let (mut service, mut handle) = service(table);
    let answer = tokio::spawn(service.call(exchange));
    let mut seen = Vec::new();
    for response in answers {
        let next = tokio::time::timeout(std::time::Duration::from_secs(5), handle.next_request());
        let Ok(Some((routed, send))) = next.await else {
            break;
        };
        seen.push(see(routed).await);
        send.send_response(response);
    }
    drop(handle);
    let answer = answer.await.expect("no panic");
    seen.remove(0);
    (answer.map(|response| response.status().as_u16()), seen)
}

fn ok() -> Res {
    Response::new(ResponseBody::empty())
}

#[tokio::test(start_paused = true)]
async fn a_redirect_of_the_upstream_is_followed_with_the_whole_request() {
    let policy = InternalRedirect {
        codes: vec![302, 307],
        copy_headers: vec![
            "x-token".parse().expect("a name"),
            "x-gone".parse().expect("a name"),
        ],
        ..following()
    };
    let sent = [("x-kept", "1"), ("x-gone", "1"), ("x-token", "old")];
    for (method, body) in [(Method::GET, ""), (Method::POST, "the body")] {
        let mut first = redirect(307, "http://other.test:8080/second/x?y=z#part");
        for value in ["t1", "t2"] {
            first
                .headers_mut()
                .append("x-token", value.parse().expect("a value"));
        }
        let exchange = exchange(method.clone(), "/first?q", &sent);
        let record = exchange.record.clone();
        let (status, seen) = play(
            redirecting(policy.clone(), None),
            exchange,
            vec![first, ok()],
        )
        .await;
        assert_eq!(status.expect("a response"), 200);
        let second = &seen[0];
        assert_eq!((&*second.route, &second.method), ("second", &method));
        assert_eq!(second.uri, "/second/x?y=z");
        assert_eq!(second.header("host"), Some("other.test:8080"));
        assert_eq!(second.body, body);
        let original = second.header("x-envoy-original-url");
        assert_eq!(original, Some("http://first.test/first?q"));
        assert_eq!(second.header("x-kept"), Some("1"));
        assert_eq!(second.header("x-gone"), None);
        let tokens: Vec<_> = second.headers.get_all("x-token").iter().collect();
        assert_eq!(tokens, ["t1", "t2"]);
        let late = record.late();
        let name = late.route.as_ref().map(|route| route.name().clone());
        let cluster = late.cluster.as_ref().map(|cluster| cluster.name().clone());
        assert_eq!(
            (name.as_deref(), cluster.as_deref()),
            (Some("second"), Some("b"))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn see_other_becomes_a_get_without_a_body() {
    let policy = InternalRedirect {
        codes: vec![303],
        ..following()
    };
    let sent = [("content-length", "8")];
    for (method, wanted) in [
        (Method::POST, Method::GET),
        (Method::PUT, Method::GET),
        (Method::HEAD, Method::HEAD),
    ] {
        let exchange = exchange(method.clone(), "/first", &sent);
        let answers = vec![redirect(303, "http://x.test/second"), ok()];
        let (_, seen) = play(redirecting(policy.clone(), None), exchange, answers).await;
        assert_eq!(seen[0].method, wanted);
        let bare = seen[0].body.is_empty() && seen[0].header("content-length").is_none();
        assert_eq!(bare, method != Method::HEAD, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_followed_goes_to_the_client() {
    let safe = InternalRedirect {
        cross_scheme: true,
        predicates: vec![RedirectPredicate::SafeCrossScheme],
        ..following()
    };
    let cross = InternalRedirect {
        cross_scheme: true,
        ..following()
    };
    let listed = InternalRedirect {
        predicates: vec![RedirectPredicate::AllowListedRoutes(vec!["third".into()])],
        ..following()
    };
    let none = InternalRedirect {
        max: 0,
        ..following()
    };
    let https = &[("x-forwarded-proto", "https")][..];
    for (policy, headers, status, location, followed) in [
        (following(), &[][..], 302, "http://x.test/second", true),
        (following(), &[], 301, "http://x.test/second", false),
        (following(), &[], 302, "/second", false),
        (following(), &[], 302, "", false),
        (following(), &[], 302, "ftp://x.test/second", false),
        (following(), &[], 302, "http://user@x.test/second", false),
        (following(), &[], 302, "http://x.test/nowhere", false),
        (following(), &[], 302, "https://x.test/second", false),
        (following(), https, 302, "https://x.test/second", true),
        (following(), https, 302, "http://x.test/second", false),
        (cross.clone(), &[], 302, "https://x.test/second", true),
        (safe.clone(), &[], 302, "https://x.test/second", false),
        (safe.clone(), https, 302, "http://x.test/second", true),
        (safe.clone(), &[], 302, "http://x.test/second", true),
        (listed.clone(), &[], 302, "http://x.test/second", false),
        (listed.clone(), &[], 302, "http://x.test/third", true),
        (none.clone(), &[], 302, "http://x.test/second", false),
    ] {
        let case = format!("{policy:?} {headers:?} {status} {location}");
        let exchange = exchange(Method::GET, "/first", headers);
        let answers = vec![redirect(status, location), ok()];
        let (seen, more) = play(redirecting(policy, None), exchange, answers).await;
        let wanted = if followed { 200 } else { status };
        assert_eq!(seen.expect("a response"), wanted, "{case}");
        assert_eq!(more.len(), usize::from(followed), "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_redirects_ends_where_a_route_says_so() {
    let hops = || {
        vec![
            redirect(302, "http://x.test/second"),
            redirect(302, "http://x.test/first"),
            redirect(302, "http://x.test/second"),
            redirect(302, "http://x.test/third"),
            ok(),
        ]
    };
    let up_to = |max| InternalRedirect { max, ..following() };
    let once_each = || InternalRedirect {
        predicates: vec![RedirectPredicate::PreviousRoutes],
        ..up_to(9)
    };
    for (first, other, hops_seen, status) in [
        // The second route follows none.
        (up_to(9), None, 1, 302),
        // Two redirects were there when the second route is asked.
        (up_to(9), Some(up_to(2)), 3, 302),
        (up_to(9), Some(up_to(9)), 4, 200),
        // The first route led to the second before.
        (once_each(), Some(up_to(9)), 2, 302),
        // Only the second is particular, and it leads somewhere else each time.
        (up_to(9), Some(once_each()), 4, 200),
    ] {
        let exchange = exchange(Method::GET, "/first", &[]);
        let case = format!("{first:?} {other:?}");
        let (seen, more) = play(redirecting(first, other), exchange, hops()).await;
        assert_eq!(
            (seen.expect("a response"), more.len()),
            (status, hops_seen),
            "{case}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn each_hop_of_a_chain_is_judged_by_the_one_before() {
    let up_to = |max| InternalRedirect { max, ..following() };
    let once_each = InternalRedirect {
        predicates: vec![RedirectPredicate::PreviousRoutes],
        ..up_to(9)
    };
    let cross = InternalRedirect {
        cross_scheme: true,
        ..following()
    };
    for (first, other, path, wanted) in [
        // Another route led there, and this one may once too.
        (
            up_to(9),
            once_each,
            [
                "http://x.test/third",
                "http://x.test/second",
                "http://x.test/third",
            ],
            (200, 3),
        ),
        // The scheme is that of the hop before.
        (
            cross,
            up_to(9),
            [
                "https://x.test/second",
                "https://x.test/third",
                "http://x.test/first",
            ],
            (302, 2),
        ),
    ] {
        let mut hops = Vec::from(path.map(|location| redirect(302, location)));
        hops.push(ok());
        let exchange = exchange(Method::GET, "/first", &[]);
        let (seen, more) = play(redirecting(first, Some(other)), exchange, hops).await;
        assert_eq!((seen.expect("a response"), more.len()), wanted, "{path:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_redirect_may_lead_to_an_answer_of_our_own() {
    let exchange = exchange(Method::GET, "/first", &[]);
    let answers = vec![redirect(302, "http://x.test/direct")];
    let (seen, more) = play(redirecting(following(), None), exchange, answers).await;
    assert_eq!((seen.expect("a response"), more.len()), (418, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_all_here_is_not_sent_on() {
    // The upstream answers before it has read the body, or the body is over the limit.
    for limit in [None, Some(3)] {
        let (mut first, second) = (to("first", "/first", "a"), to("second", "/second", "b"));
        action(&mut first).internal_redirect = Some(following());
        first.per_request_buffer_limit = limit;
        let (mut service, mut handle) = service(table(vec![first, second], &clusters()));
        let answer = tokio::spawn(service.call(exchange(Method::POST, "/first", &[])));
        let (routed, send) = handle.next_request().await.expect("a request");
        let mut unread = Some(routed);
        if limit.is_some() {
            see(unread.take().expect("the request")).await;
        }
        send.send_response(redirect(302, "http://x.test/second"));
        let response = answer.await.expect("no panic").expect("a response");
        assert_eq!(response.status(), StatusCode::FOUND, "{limit:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_second_round_has_what_the_first_upstream_got() {
    let (mut first, second) = (to("first", "/first", "a"), to("second", "/second", "b"));
    first.headers.request_add = vec![model::HeaderAddition {
        name: "x-added".parse().expect("a name"),
        value: model::Format { text: "yes".into() },
        action: model::AppendAction::default(),
        keep_empty: false,
    }];
    action(&mut first).internal_redirect = Some(following());
    action(&mut first).host_rewrite = Some(model::HostRewrite::Literal("inner.test".into()));
    action(&mut first).path_rewrite = Some(model::PathRewrite::Prefix("/inner".into()));
    let sent = [
        ("x-envoy-upstream-rq-timeout-ms", "50"),
        ("x-envoy-retry-on", "5xx"),
    ];
    let exchange = exchange(Method::GET, "/first/x", &sent);
    let answers = vec![redirect(302, "http://x.test/second"), ok()];
    let (_, seen) = play(table(vec![first, second], &clusters()), exchange, answers).await;
    assert_eq!(seen[0].header("x-added"), Some("yes"));
    let original = seen[0].header("x-envoy-original-url");
    assert_eq!(original, Some("http://inner.test/inner/x"));
    assert_eq!(seen[0].header("x-envoy-upstream-rq-timeout-ms"), None);
    assert_eq!(seen[0].header("x-envoy-retry-on"), None);
}
