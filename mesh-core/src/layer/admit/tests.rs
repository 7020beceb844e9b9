use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, Request, Response, header::HOST};
use http_body_util::{BodyExt, Full};
use tower_layer::Layer;
use tower_service::Service;
use tower_test::mock::{self, Handle};

use super::{Admit, AdmitLayer, FixedAdmit};
use crate::{
    Kind,
    body::RequestBody,
    cluster::Cluster,
    layer::{
        ByRoute, Routed,
        respond::{Respond, RespondLayer},
        tests::{Tame, routed},
    },
    model::{self, Metadata, Priority, Value},
    pool::Outgoing,
    stack::tests::{cluster_config, forward},
    telemetry::{flags::Flag, late::Asked, record::Wants},
    transport::UpstreamConn,
};

type Body = RequestBody<Full<Bytes>>;
type Res = Response<Full<Bytes>>;
type Pool = Tame<Outgoing<Body>, Res>;
type Mock = Handle<Outgoing<Body>, Res>;

fn config(endpoints: u16) -> model::Cluster {
    let mut config = cluster_config("c", ([127, 0, 0, 1], 1).into());
    let group = &mut config.load_assignment.localities[0];
    let first = group.endpoints.remove(0);
    for port in 1..=endpoints {
        group.endpoints.push(model::LbEndpoint {
            address: model::Address::Socket(([127, 0, 0, 1], port).into()),
            ..first.clone()
        });
    }
    config
}

fn cluster(config: model::Cluster) -> Arc<Cluster> {
    Arc::new(Cluster::new(Arc::new(config), None))
}

fn pool() -> (Pool, Mock) {
    let (mock, mut handle) = mock::pair();
    handle.allow(100);
    (Tame(mock), handle)
}

/// The layer behind one that answers for it, as in the stack.
fn by_route(pool: Pool) -> Respond<Admit<Pool, ByRoute>> {
    RespondLayer::new(Arc::default()).layer(AdmitLayer::new(ByRoute).layer(pool))
}

fn request(route: model::Route, cluster: &Arc<Cluster>) -> Routed<Body> {
    let request = Request::get("/").header(HOST, "a");
    let request = request.body(RequestBody::new(Full::from("")));
    routed(route, cluster, request.expect("a request"))
}

/// Status, text and flags of a request that does not reach the pool.
async fn refused(config: model::Cluster) -> (u16, String, String) {
    let (pool, mut handle) = pool();
    let mut request = request(forward("c"), &cluster(config));
    request.attempt = 2;
    let record = request.record.clone();
    let Ok(response) = by_route(pool).call(request).await;
    assert_eq!(record.late().attempts, 2);
    let (status, body) = (response.status().as_u16(), response.into_body());
    let body = body.collect().await.expect("a body").to_bytes();
    assert!(handle.next_request().await.is_none(), "nothing is sent");
    let flags = record.late().flags.to_string();
    (status, String::from_utf8_lossy(&body).into_owned(), flags)
}

#[tokio::test]
async fn a_header_names_the_destination() {
    let named = |header: Option<HeaderName>| {
        let discovery = model::Discovery::OriginalDst(model::OriginalDst {
            header,
            port_override: None,
        });
        cluster(model::Cluster {
            discovery,
            ..cluster_config("c", ([127, 0, 0, 1], 1).into())
        })
    };
    let header = HeaderName::from_static("x-envoy-original-dst-host");
    for (cluster, value, wanted) in [
        (
            named(Some(header.clone())),
            "10.0.0.7:81",
            Some("10.0.0.7:81"),
        ),
        // One that is no address counts as absent, and this connection was meant for nowhere.
        (named(Some(header.clone())), "a:80", None),
        (named(None), "10.0.0.7:81", None),
        (named(Some(HOST)), "a:80", Some("10.0.0.8:82")),
    ] {
        let (pool, mut handle) = pool();
        let mut asked = request(forward("c"), &cluster);
        let value = value.parse().expect("a value");
        asked.request.headers_mut().insert(header.clone(), value);
        let host = "10.0.0.8:82".parse().expect("a value");
        asked.request.headers_mut().insert(HOST, host);
        let answer = tokio::spawn(by_route(pool).call(asked));
        let sent = handle.next_request().await;
        let to = sent
            .as_ref()
            .map(|(outgoing, _)| outgoing.endpoint.address().to_string());
        assert_eq!(to.as_deref(), wanted);
        drop((sent, handle));
        answer.await.expect("no panic").expect("an answer");
    }
}

/// Envoy's `:authority`, which CONNECT to a proxy that ends tunnels is for.
#[tokio::test]
async fn the_authority_may_name_the_destination() {
    let discovery = model::Discovery::OriginalDst(model::OriginalDst {
        header: Some(HOST),
        port_override: None,
    });
    let cluster = cluster(model::Cluster {
        discovery,
        ..cluster_config("c", ([127, 0, 0, 1], 1).into())
    });
    for of_uri in [true, false] {
        let (pool, mut handle) = pool();
        let mut asked = request(forward("c"), &cluster);
        match of_uri {
            true => *asked.request.uri_mut() = "http://10.0.0.7:81/".parse().expect("a URI"),
            false => {
                *asked.request.uri_mut() = "/".parse().expect("a path");
                let value = "10.0.0.7:81".parse().expect("a value");
                asked.request.headers_mut().insert(HOST, value);
            }
        }
        let answer = tokio::spawn(by_route(pool).call(asked));
        let sent = handle.next_request().await.expect("a request");
        let to = sent.0.endpoint.address().to_string();
        assert_eq!(to, "10.0.0.7:81", "{of_uri}");
        drop((sent, handle));
        answer.await.expect("no panic").expect("an answer");
    }
}

#[tokio::test]
async fn a_limit_fails_at_once_and_is_given_back_at_the_last_frame() {
    let mut limited = config(1);
    limited.limits[0].max_requests = 1;
    let cluster = cluster(limited);
    let (pool, mut handle) = pool();
    let mut service = by_route(pool);
    let first = tokio::spawn(service.call(request(forward("c"), &cluster)));
    let (_, send) = handle.next_request().await.expect("a request");
    // In flight, before the response and while its body is on its way.
    let second = request(forward("c"), &cluster);
    let record = second.record.clone();
    let Ok(over) = service.call(second).await;
    assert_eq!(over.status(), 503);
    assert!(record.late().flags.contains(Flag::UpstreamOverflow));
    assert_eq!(record.late().flags.to_string(), "UO");
    send.send_response(Response::new(Full::from("body")));
    let Ok(response) = first.await.expect("no panic");
    let Ok(over) = service.call(request(forward("c"), &cluster)).await;
    assert_eq!(over.status(), 503);
    assert_eq!(cluster.stats().upstream_rq_active_overflow.get(), 2);
    assert_eq!(
        response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes(),
        "body"
    );
    let third = tokio::spawn(service.call(request(forward("c"), &cluster)));
    let (_, send) = handle.next_request().await.expect("there is room again");
    send.send_response(Response::new(Full::default()));
    assert_eq!(
        third
            .await
            .expect("no panic")
            .expect("never fails")
            .status(),
        200
    );
}

#[tokio::test]
async fn the_limits_of_the_other_priority_are_others() {
    let mut limited = config(1);
    limited.limits[0].max_requests = 1;
    let cluster = cluster(limited);
    let (pool, mut handle) = pool();
    let mut service = by_route(pool);
    let mut high = forward("c");
    let model::Action::Forward(action) = &mut high.action else {
        unreachable!("the route forwards");
    };
    action.priority = Priority::High;
    let held = tokio::spawn(service.call(request(forward("c"), &cluster)));
    let (_, _send) = handle.next_request().await.expect("a request");
    let urgent = tokio::spawn(service.call(request(high, &cluster)));
    let (seen, send) = handle.next_request().await.expect("a request");
    assert_eq!(seen.priority, Priority::High);
    send.send_response(Response::new(Full::default()));
    assert_eq!(
        urgent
            .await
            .expect("no panic")
            .expect("never fails")
            .status(),
        200
    );
    held.abort();
}

#[tokio::test]
async fn nothing_to_pick_is_uh_and_protection_that_cannot_act_is_named() {
    let (status, text, flags) = refused(config(0)).await;
    assert_eq!(
        (status, &*text, &*flags),
        (503, "no healthy upstream", "UH")
    );
    let mut closed = config(1);
    closed.refuse = Some("TLS to the upstream".into());
    let (status, text, _) = refused(closed).await;
    assert_eq!((status, &*text), (503, "cluster c: TLS to the upstream"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_the_end_of_its_longest_life() {
    // Of the cluster and of the request, which has the last word; zero is none.
    for (own, asked, wanted) in [
        (Some(3), None, Some(3)),
        (Some(3), Some(5), Some(5)),
        (Some(3), Some(0), None),
        (Some(0), None, None),
    ] {
        let mut short = config(1);
        short.max_stream_duration = own.map(Duration::from_secs);
        let (pool, mut handle) = pool();
        let request = request(forward("c"), &cluster(short));
        let record = request.record.clone();
        record.late().asked = Some(Box::new(Asked {
            life: asked.map(Duration::from_secs),
            ..Asked::default()
        }));
        let answer = by_route(pool).call(request);
        let begun = tokio::time::Instant::now();
        let answer = tokio::spawn(async move { (answer.await, begun.elapsed().as_secs()) });
        let (_, send) = handle.next_request().await.expect("a request");
        tokio::time::sleep(Duration::from_secs(60)).await;
        if wanted.is_none() {
            send.send_response(Response::new(Full::default()));
        }
        let (Ok(response), after) = answer.await.expect("no panic");
        let (status, at, flag) = match wanted {
            Some(at) => (504, at, "UMSDR"),
            None => (200, 60, "-"),
        };
        let seen = (response.status().as_u16(), after);
        assert_eq!(seen, (status, at), "{own:?} {asked:?}");
        assert_eq!(record.late().flags.to_string(), flag);
    }
}

#[tokio::test]
async fn the_pool_has_the_record_where_that_makes_a_difference() {
    type Change = fn(&mut Routed<Body>);
    let changes: [(Change, bool); 5] = [
        (|_| {}, false),
        (|routed| routed.timed = true, true),
        (|routed| routed.cluster.sent_interim(), true),
        (
            |routed| routed.record.late().expectation = Some(Arc::default()),
            true,
        ),
        (
            |routed| {
                let wants = Wants {
                    upstream: true,
                    ..Wants::default()
                };
                routed.record.see_request(&routed.request, &Arc::new(wants));
            },
            true,
        ),
    ];
    for (index, (change, wanted)) in changes.into_iter().enumerate() {
        let (pool, mut handle) = pool();
        let mut asked = request(forward("c"), &cluster(config(1)));
        change(&mut asked);
        // That of an attempt before says nothing of this one.
        let record = asked.record.clone();
        record.late().upstream = Some(Arc::new(UpstreamConn {
            local: None,
            protocol: None,
            id: 7,
        }));
        let answer = tokio::spawn(by_route(pool).call(asked));
        let (seen, send) = handle.next_request().await.expect("a request");
        assert_eq!(seen.record.is_some(), wanted, "{index}");
        assert!(record.late().upstream.is_none(), "{index}");
        send.send_response(Response::new(Full::default()));
        let _ = answer.await.expect("no panic");
    }
}

#[tokio::test]
async fn a_tunnel_ends_here_where_the_route_says_so() {
    for (method, allow_post, wanted) in [
        ("CONNECT", false, true),
        ("POST", true, true),
        ("POST", false, false),
        ("GET", true, false),
    ] {
        let mut route = forward("c");
        let model::Action::Forward(action) = &mut route.action else {
            unreachable!("the route forwards");
        };
        action.upgrades = vec![model::Upgrade {
            kind: "connect".into(),
            enabled: true,
            connect: Some(model::ConnectConfig {
                allow_post,
                proxy_protocol: None,
            }),
        }];
        let (pool, mut handle) = pool();
        let mut asked = request(route, &cluster(config(1)));
        *asked.request.method_mut() = method.parse().expect("a method");
        let answer = tokio::spawn(by_route(pool).call(asked));
        let (seen, send) = handle.next_request().await.expect("a request");
        assert_eq!(seen.connect.is_some(), wanted, "{method} {allow_post}");
        send.send_response(Response::new(Full::default()));
        let _ = answer.await.expect("no panic");
    }
}

#[tokio::test]
async fn why_there_was_no_connection_is_in_the_record() {
    let (pool, mut handle) = pool();
    let asked = request(forward("c"), &cluster(config(1)));
    let record = asked.record.clone();
    let answer = tokio::spawn(by_route(pool).call(asked));
    let (_, send) = handle.next_request().await.expect("a request");
    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    send.send_error(crate::Error::caused_by(Kind::ConnectFailure, refused));
    let Ok(response) = answer.await.expect("no panic");
    assert_eq!(response.status(), 503);
    let failure = record.late().failure.clone();
    assert_eq!(failure.as_deref(), Some("connection refused"));
}

#[tokio::test]
async fn the_host_becomes_that_of_the_endpoint_where_the_route_says_so() {
    let mut named = config(1);
    named.load_assignment.localities[0].endpoints[0].hostname = "endpoint.test".into();
    let mut auto = forward("c");
    let model::Action::Forward(action) = &mut auto.action else {
        unreachable!("the route forwards");
    };
    action.host_rewrite = Some(model::HostRewrite::Auto);
    let (pool, mut handle) = pool();
    let cluster = cluster(named);
    let mut service = by_route(pool);
    for (route, host) in [(forward("c"), "a"), (auto, "endpoint.test")] {
        let mut request = request(route, &cluster);
        request.attempt = 2;
        let record = request.record.clone();
        record.see_request(&request.request, &Arc::new(Wants::HEAD));
        let answer = tokio::spawn(service.call(request));
        let (seen, send) = handle.next_request().await.expect("a request");
        assert_eq!(seen.request.headers()[HOST], host);
        let head = record.late().head.clone().expect("it was wanted");
        assert_eq!(head.authority.expect("one"), host);
        // A further attempt begins with what the one before wrote, as in Envoy.
        let kept = seen.request.headers().get("x-envoy-original-host");
        assert_eq!(kept.is_some_and(|kept| kept == host), host != "a");
        assert_eq!(&**seen.endpoint.hostname(), "endpoint.test");
        let late = record
            .late()
            .endpoint
            .as_ref()
            .map(|endpoint| endpoint.id());
        assert_eq!(late, Some(seen.endpoint.id()));
        send.send_response(Response::new(Full::default()));
        let _ = answer.await.expect("no panic");
    }
}

#[tokio::test]
async fn only_a_retry_avoids_what_the_policy_omits() {
    let mut config = config(3);
    for endpoint in &mut config.load_assignment.localities[0].endpoints[..2] {
        let canary = Value::Object(vec![("canary".into(), Value::Bool(true))]);
        endpoint.metadata = Metadata {
            namespaces: vec![("envoy.lb".into(), canary)],
        };
    }
    let mut route = forward("c");
    let model::Action::Forward(action) = &mut route.action else {
        unreachable!("the route forwards");
    };
    action.retry = Some(model::RetryPolicy {
        omit_canary_hosts: true,
        host_selection_attempts: 5,
        ..Default::default()
    });
    let (pool, mut handle) = pool();
    let (cluster, mut service) = (cluster(config), by_route(pool));
    for (attempt, wanted) in [(1, &[1, 2, 3][..]), (2, &[3])] {
        let mut ports = Vec::new();
        for _ in 0..12 {
            let mut request = request(route.clone(), &cluster);
            (request.attempt, request.host_attempts) = (attempt, 5);
            let answer = tokio::spawn(service.call(request));
            let (seen, send) = handle.next_request().await.expect("a request");
            let socket = seen.endpoint.address().socket();
            ports.push(socket.expect("a socket").port());
            send.send_response(Response::new(Full::default()));
            let _ = answer.await.expect("no panic");
        }
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports, wanted, "attempt {attempt}");
    }
}

#[tokio::test]
async fn one_cluster_for_all_requests() {
    let mut limited = config(1);
    limited.limits[1].max_requests = 1;
    let (pool, mut handle) = pool();
    let cluster = cluster(limited);
    let layer: AdmitLayer<FixedAdmit> = AdmitLayer::fixed(cluster.clone(), Priority::High);
    let mut service = layer.layer(pool);
    let request = || Request::new(RequestBody::new(Full::from("x")));
    let first = tokio::spawn(service.call(request()));
    let (seen, send) = handle.next_request().await.expect("a request");
    assert_eq!(
        (&**seen.cluster.name(), seen.priority),
        ("c", Priority::High)
    );
    let over = service.call(request()).await.expect_err("over the limit");
    assert_eq!(over.kind(), Kind::Overflow);
    send.send_error(crate::Error::new(Kind::ConnectFailure));
    let failed = first.await.expect("no panic").expect_err("it failed");
    assert_eq!(failed.kind(), Kind::ConnectFailure);
    assert_eq!(cluster.limits(Priority::High).1.requests.get(), 0);
    let total = cluster.stats().upstream_rq_total.get();
    assert_eq!(total, 0, "it had no connection");
}
