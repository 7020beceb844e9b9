//! Real requests through the whole stack: hyper server, pool, loopback.

#[cfg(feature = "server")]
mod failures;
mod replies;
#[cfg(feature = "server")]
mod upgrades;

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tower_service::Service;

use super::OutboundParts;
use crate::{
    body::RequestBody,
    model::{self, Address, ClusterLoadAssignment, Discovery},
    pool::Pool,
    route::RouteTable,
    snapshot::{Clusters, Http, RouteCell},
    telemetry::metrics::{Metrics, Workload},
    transport::{ConnInfo, TcpConnector, TokioExec},
};

/// An address where connections are refused as long as the socket is held: nobody listens there, nor can anybody.
pub(crate) fn refusing() -> (tokio::net::TcpSocket, SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(any).expect("a port");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

/// An upstream that answers with what it saw: `METHOD PATH`, the headers that are asked for, the body.
pub(crate) async fn upstream() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service_fn(echo);
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service)
                    .with_upgrades(),
            );
        }
    });
    address
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let status = parts
        .headers
        .get("x-status")
        .and_then(|status| status.to_str().ok()?.parse().ok())
        .unwrap_or(StatusCode::OK);
    let mut text = format!("{} {}\n", parts.method, parts.uri);
    for (name, value) in &parts.headers {
        text += &format!("{name}: {}\n", value.to_str().unwrap_or("?"));
    }
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    text += &String::from_utf8_lossy(&body);
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert("x-from-upstream", "yes".parse().expect("a value"));
    if let ("/move", Some(location)) = (parts.uri.path(), parts.headers.get("x-location")) {
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        response.headers_mut().insert("location", location.clone());
    }
    Ok(response)
}

pub(crate) fn cluster_config(name: &str, address: SocketAddr) -> model::Cluster {
    let mut config = model::Cluster::new(name, Discovery::Static);
    config.load_assignment = ClusterLoadAssignment::of(name, [address]);
    config
}

fn cluster(name: &str, address: SocketAddr) -> Arc<crate::cluster::Cluster> {
    let config = cluster_config(name, address);
    Arc::new(crate::cluster::Cluster::new(Arc::new(config), None))
}

pub(crate) fn forward(to: &str) -> model::Route {
    let all = model::RouteMatch::path(model::PathMatch::Prefix("/".into()));
    let forward = model::Forward::to(model::ClusterChoice::Name(to.into()));
    model::Route {
        name: "all".into(),
        ..model::Route::new(all, model::Action::Forward(Box::new(forward)))
    }
}

fn parts(
    route: model::Route,
    clusters: Vec<Arc<crate::cluster::Cluster>>,
    metrics: &Metrics,
) -> Arc<Http> {
    let host = model::VirtualHost {
        name: "all".into(),
        domains: vec!["*".into()],
        routes: model::RouteRules::List(vec![route]),
        ..Default::default()
    };
    host_parts(host, clusters, metrics)
}

fn host_parts(
    host: model::VirtualHost,
    clusters: Vec<Arc<crate::cluster::Cluster>>,
    metrics: &Metrics,
) -> Arc<Http> {
    let clusters: Clusters = clusters.into_iter().collect();
    let table = model::RouteConfiguration {
        name: "table".into(),
        virtual_hosts: vec![host],
        ..Default::default()
    };
    let table = RouteTable::compile(&table, &clusters).expect("a valid table");
    let cell = Arc::new(RouteCell::new("table".into(), table));
    let config = Arc::new(model::HttpConnectionManager::default());
    let http = Http::new(
        config,
        cell,
        model::Direction::Outbound,
        metrics,
        &"test".into(),
    );
    Arc::new(http.expect("a valid manager"))
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path)
        .header("host", "test")
        .body(Full::default())
        .expect("a request")
}

async fn text<B>(response: Response<B>) -> String
where
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let body = response.into_body().collect().await.expect("a whole body");
    String::from_utf8_lossy(&body.to_bytes()).into_owned()
}

#[tokio::test]
async fn a_request_passes_all_layers_and_is_counted() {
    let address = upstream().await;
    let metrics = Metrics::new(Workload::default());
    let http = parts(forward("echo"), vec![cluster("echo", address)], &metrics);
    let pool: Pool<_, RequestBody<Full<Bytes>>> = Pool::new(TcpConnector);
    let stacks = OutboundParts::new(http, pool.service(), TokioExec);
    let conn = Arc::new(ConnInfo::new(
        Address::Socket(([127, 0, 0, 1], 80).into()),
        Address::Socket(([10, 0, 0, 9], 1234).into()),
    ));
    let mut stack = stacks.connection(Some(conn));
    let response = stack.call(get("/hello?x")).await.expect("never fails");
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["server"], "envoy");
    assert_eq!(response.headers()["x-from-upstream"], "yes");
    assert!(
        response
            .headers()
            .contains_key("x-envoy-upstream-service-time")
    );
    let seen = text(response).await;
    assert!(seen.starts_with("GET /hello?x\n"), "{seen}");
    for header in [
        "x-request-id: ",
        "x-forwarded-proto: http",
        "x-envoy-expected-rq-timeout-ms: 15000",
    ] {
        assert!(seen.contains(header), "{header} is missing in {seen}");
    }
    let metrics = metrics.render();
    assert!(metrics.contains("response_code=\"200\""), "{metrics}");
}

/// What virtual clusters and routes have counted, but for zeros.
fn counted(metrics: &Metrics) -> Vec<String> {
    let mut seen = Vec::new();
    metrics.each_route(|scope, stats| {
        stats.each(|field, value| {
            if value > 0 {
                let part = scope.part.as_str();
                let name = format!("{}.{part}.{}.{field}", scope.host, scope.name);
                seen.push(format!("{name} {value}"));
            }
        });
    });
    seen
}

#[tokio::test]
async fn virtual_clusters_and_routes_with_a_prefix_count_for_themselves() {
    let address = upstream().await;
    let metrics = Metrics::default();
    let posts = model::HeaderMatcher {
        name: ":method".into(),
        value: model::HeaderValueMatcher::String(model::StringMatcher {
            pattern: model::StringPattern::Exact("POST".into()),
            ignore_case: false,
        }),
        invert: false,
        missing_as_empty: false,
    };
    let mut gone = forward("gone");
    gone.matches.path = model::PathMatch::Prefix("/gone".into());
    gone.stat_prefix = Some("lost".into());
    let host = model::VirtualHost {
        name: "v".into(),
        domains: vec!["*".into()],
        routes: model::RouteRules::List(vec![gone, forward("echo")]),
        virtual_clusters: vec![model::VirtualCluster {
            name: "posts".into(),
            headers: vec![posts],
        }],
        ..Default::default()
    };
    let http = host_parts(host, vec![cluster("echo", address)], &metrics);
    let pool: Pool<_, RequestBody<Full<Bytes>>> = Pool::new(TcpConnector);
    let mut stack = OutboundParts::new(http, pool.service(), TokioExec).connection(None);
    for (method, path) in [
        ("POST", "/"),
        ("POST", "/gone"),
        ("GET", "/"),
        ("GET", "/gone"),
        ("GET", "/gone"),
    ] {
        let mut request = get(path);
        *request.method_mut() = method.parse().expect("a method");
        let response = stack.call(request).await.expect("never fails");
        text(response).await;
    }
    assert_eq!(
        counted(&metrics),
        [
            // What no cluster answers is charged to none, as in Envoy.
            "v.vcluster.other.upstream_rq_total 1",
            "v.vcluster.other.upstream_rq_completed 1",
            "v.vcluster.other.upstream_rq_2xx 1",
            "v.vcluster.other.upstream_rq_200 1",
            "v.vcluster.posts.upstream_rq_total 1",
            "v.vcluster.posts.upstream_rq_completed 1",
            "v.vcluster.posts.upstream_rq_2xx 1",
            "v.vcluster.posts.upstream_rq_200 1",
        ]
    );
}

#[tokio::test]
async fn no_route_is_404_with_its_flag() {
    let metrics = Metrics::default();
    let mut route = forward("echo");
    route.matches.path = model::PathMatch::Prefix("/other".into());
    let address = upstream().await;
    let http = parts(route, vec![cluster("echo", address)], &metrics);
    let pool: Pool<_, RequestBody<Full<Bytes>>> = Pool::new(TcpConnector);
    let mut stack = OutboundParts::new(http, pool.service(), TokioExec).connection(None);
    let response = stack.call(get("/")).await.expect("never fails");
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(text(response).await, "");
    assert!(
        metrics.render().contains("response_flags=\"NR\""),
        "{}",
        metrics.render()
    );
}

/// A stack in front of `address`, with a listener that allows WebSocket.
fn upgrading(address: SocketAddr) -> Arc<Http> {
    let clusters: Clusters = [cluster("echo", address)].into_iter().collect();
    let table = model::RouteConfiguration {
        virtual_hosts: vec![model::VirtualHost {
            name: "all".into(),
            domains: vec!["*".into()],
            routes: model::RouteRules::List(vec![forward("echo")]),
            ..Default::default()
        }],
        ..Default::default()
    };
    let table = RouteTable::compile(&table, &clusters).expect("a valid table");
    let config = model::HttpConnectionManager {
        upgrades: vec![model::Upgrade {
            kind: "websocket".into(),
            enabled: true,
            connect: None,
        }],
        ..Default::default()
    };
    let cell = Arc::new(RouteCell::new("table".into(), table));
    let metrics = Metrics::default();
    let http = Http::new(
        Arc::new(config),
        cell,
        model::Direction::Outbound,
        &metrics,
        &"t".into(),
    );
    Arc::new(http.expect("a valid manager"))
}

/// Serves one client connection with `stack`, as a listener would; its address.
async fn serve_one(http: Arc<Http>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let pool: Pool<_, RequestBody<Incoming>> = Pool::new(TcpConnector);
        let stack = OutboundParts::new(http, pool.service(), TokioExec).connection(None);
        let (socket, _) = listener.accept().await.expect("a client");
        let service = service_fn(move |request| stack.clone().call(request));
        let served = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades();
        served.await.expect("a whole connection");
    });
    address
}

#[tokio::test]
async fn an_upgrade_carries_bytes_both_ways() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let upstream = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("the proxy");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.expect("a head"));
        }
        let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
        assert!(head.contains("upgrade: websocket\r\n"), "{head}");
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        socket.write_all(answer).await.expect("written");
        let mut ping = [0; 4];
        socket.read_exact(&mut ping).await.expect("four bytes");
        socket
            .write_all(&ping.map(|byte| byte.to_ascii_uppercase()))
            .await
            .expect("written");
    });
    let proxy = serve_one(upgrading(upstream)).await;
    let mut client = tokio::net::TcpStream::connect(proxy)
        .await
        .expect("a connection");
    let ask = b"GET /chat HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    client.write_all(ask).await.expect("written");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.expect("a head"));
    }
    let head = String::from_utf8(head).expect("text");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    client.write_all(b"ping").await.expect("written");
    let mut pong = [0; 4];
    client.read_exact(&mut pong).await.expect("four bytes");
    assert_eq!(&pong, b"PING");
}

#[tokio::test]
async fn an_upgrade_that_is_not_allowed_is_refused() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = upstream().await;
    let http = parts(
        forward("echo"),
        vec![cluster("echo", address)],
        &Metrics::default(),
    );
    let proxy = serve_one(http).await;
    let mut client = tokio::net::TcpStream::connect(proxy)
        .await
        .expect("a connection");
    let ask = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, close\r\nupgrade: other\r\n\r\n";
    client.write_all(ask).await.expect("written");
    let mut answer = [0; 12];
    client.read_exact(&mut answer).await.expect("a status line");
    assert_eq!(&answer, b"HTTP/1.1 403");
}

#[tokio::test]
async fn a_dead_endpoint_is_answered_and_a_retry_finds_the_living_one() {
    let living = upstream().await;
    let (_held, dead) = refusing();
    let mut config = cluster_config("both", dead);
    let second = cluster_config("both", living).load_assignment.localities;
    let second = second.into_iter().flat_map(|group| group.endpoints);
    config.load_assignment.localities[0]
        .endpoints
        .extend(second);
    // By chance, so that only what is remembered of the first attempt leads the second one elsewhere.
    config.lb = model::LbPolicy::Random;
    let both = Arc::new(crate::cluster::Cluster::new(Arc::new(config), None));
    for (retries, wanted) in [(0, None), (1, Some(200))] {
        let mut route = forward("both");
        let model::Action::Forward(forward) = &mut route.action else {
            unreachable!("the route forwards");
        };
        forward.retry = Some(model::RetryPolicy {
            on: model::RetryOn::CONNECT_FAILURE,
            retries,
            avoid_previous_hosts: true,
            host_selection_attempts: 5,
            ..Default::default()
        });
        let metrics = Metrics::default();
        let http = parts(route, vec![both.clone()], &metrics);
        let pool: Pool<_, RequestBody<Full<Bytes>>> = Pool::new(TcpConnector);
        let mut stack = OutboundParts::new(http, pool.service(), TokioExec).connection(None);
        let mut seen = Vec::new();
        for _ in 0..40 {
            let Ok(response) = stack.call(get("/")).await;
            seen.push(response.status().as_u16());
            text(response).await;
        }
        match wanted {
            Some(wanted) => assert!(seen.iter().all(|status| *status == wanted), "{seen:?}"),
            None => {
                assert!(seen.contains(&503) && seen.contains(&200), "{seen:?}");
                let metrics = metrics.render();
                assert!(metrics.contains("response_flags=\"URX,UF\""), "{metrics}");
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_sent_again_is_counted() {
    let mut route = forward("echo");
    let model::Action::Forward(action) = &mut route.action else {
        unreachable!("the route forwards");
    };
    action.retry = Some(model::RetryPolicy {
        on: model::RetryOn::SERVER_ERROR,
        retries: 1,
        ..Default::default()
    });
    route.per_request_buffer_limit = Some(4);
    let echo = cluster("echo", upstream().await);
    let http = parts(route, vec![echo.clone()], &Metrics::default());
    let pool: Pool<_, RequestBody<Full<Bytes>>> = Pool::new(TcpConnector);
    let mut stack = OutboundParts::new(http, pool.service(), TokioExec).connection(None);
    for (body, abandoned) in [("four", 0), ("more than four", 1)] {
        let request = Request::post("/").header("host", "test");
        let request = request.body(Full::from(body)).expect("a request");
        let Ok(response) = stack.call(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(text(response).await.ends_with(body));
        let count = echo.stats().retry_or_shadow_abandoned.get();
        assert_eq!(count, abandoned, "{body}");
    }
}

#[tokio::test]
async fn a_direct_response_is_answered_here() {
    let mut direct = forward("none");
    direct.action = model::Action::DirectResponse(model::DirectResponse {
        status: StatusCode::IM_A_TEAPOT,
        body: Bytes::from_static(b"short and stout"),
        format: None,
    });
    let mut stack = {
        let http = parts(direct, Vec::new(), &Metrics::default());
        let pool: Pool<_, RequestBody<Full<Bytes>>> = Pool::new(TcpConnector);
        OutboundParts::new(http, pool.service(), TokioExec).connection(None)
    };
    let Ok(response) = stack.call(get("/")).await;
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(response.headers()["server"], "envoy");
    assert_eq!(text(response).await, "short and stout");
}

#[tokio::test]
async fn a_redirect_of_the_upstream_is_followed_through_all_layers() {
    let mut route = forward("echo");
    let model::Action::Forward(action) = &mut route.action else {
        unreachable!("the route forwards");
    };
    action.internal_redirect = Some(model::InternalRedirect {
        max: 1,
        codes: vec![307],
        cross_scheme: false,
        predicates: Vec::new(),
        copy_headers: Vec::new(),
    });
    action.retry = Some(model::RetryPolicy {
        on: model::RetryOn::SERVER_ERROR,
        retries: 1,
        ..Default::default()
    });
    let metrics = Metrics::new(Workload::default());
    let echo = cluster("echo", upstream().await);
    let http = parts(route, vec![echo.clone()], &metrics);
    let pool: Pool<_, RequestBody<Full<Bytes>>> = Pool::new(TcpConnector);
    let mut stack = OutboundParts::new(http, pool.service(), TokioExec).connection(None);
    for (location, landed) in [
        ("http://other.test/landed?x", true),
        ("http://other.test/move", false),
    ] {
        let request = Request::post("/move")
            .header("host", "test")
            .header("x-location", location)
            .body(Full::from("the body"));
        let Ok(response) = stack.call(request.expect("a request")).await;
        let (status, seen) = (response.status(), text(response).await);
        if landed {
            assert_eq!(status, StatusCode::OK, "{seen}");
            assert!(seen.starts_with("POST /landed?x\n"), "{seen}");
            assert!(seen.contains("host: other.test\n"), "{seen}");
            let original = "x-envoy-original-url: http://test/move\n";
            assert!(seen.contains(original), "{seen}");
        } else {
            assert_eq!(
                status,
                StatusCode::TEMPORARY_REDIRECT,
                "the second is one too many"
            );
        }
        assert!(seen.ends_with("the body"), "{seen}");
    }
    for location in ["/landed", "https://other.test/landed"] {
        let request = Request::post("/move")
            .header("host", "test")
            .header("x-location", location)
            .body(Full::from("the body"));
        let Ok(response) = stack.call(request.expect("a request")).await;
        assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    }
    let stats = echo.stats();
    assert_eq!(stats.upstream_rq_total.get(), 6);
    assert_eq!(stats.upstream_internal_redirect_succeeded_total.get(), 2);
    assert_eq!(stats.upstream_internal_redirect_failed_total.get(), 3);
    let left = metrics.http(&"".into());
    for (count, why) in [
        (
            &left.passthrough_internal_redirect_too_many_redirects,
            "too many",
        ),
        (&left.passthrough_internal_redirect_bad_location, "relative"),
        (&left.passthrough_internal_redirect_unsafe_scheme, "scheme"),
    ] {
        assert_eq!(count.get(), 1, "{why}");
    }
    assert_eq!(echo.limits(model::Priority::Default).1.requests.get(), 0);
}
