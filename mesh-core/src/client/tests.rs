use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tower::ServiceExt;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    body::RequestBody,
    config::{Change, MemorySource, Update},
    layer::tests::Strict,
    model,
    snapshot::Mesh,
    stack::tests::{cluster_config, forward, upstream},
    telemetry::metrics::Workload,
    transport::TcpConnector,
};

fn table(name: &str, hosts: &[(&str, &str)]) -> Change {
    let virtual_hosts = hosts
        .iter()
        .map(|(domain, cluster)| model::VirtualHost {
            name: (*domain).into(),
            domains: vec![(*domain).into()],
            routes: model::RouteRules::List(vec![forward(cluster)]),
            ..Default::default()
        })
        .collect();
    Change::Routes(Arc::new(model::RouteConfiguration {
        name: name.into(),
        virtual_hosts,
        ..Default::default()
    }))
}

fn request(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).expect("a request")
}

#[tokio::test]
async fn calls_go_by_the_table_of_their_port_and_the_host() {
    let address = upstream().await;
    let (source, _handle) = MemorySource::new();
    let (mesh, mut driver) = Mesh::builder().source(source).build();
    let mut client = mesh.client(TcpConnector);
    let early = client.call(request("http://reviews:9080/")).await;
    let Ok(early) = early;
    assert_eq!(early.status(), StatusCode::SERVICE_UNAVAILABLE);
    driver.apply(Update {
        changes: vec![
            Change::Cluster(Arc::new(cluster_config("reviews", address))),
            table(
                "9080",
                &[
                    ("reviews", "reviews"),
                    ("reviews:9080", "reviews"),
                    ("gone:9080", "absent"),
                ],
            ),
            table("80", &[("*", "absent")]),
        ],
        ..Update::default()
    });
    mesh.ready(Duration::from_secs(1))
        .await
        .expect("a configuration");
    for (uri, wanted) in [
        ("http://reviews:9080/a", 200),
        ("http://gone:9080/", 503),
        ("http://other:9080/", 404),
        ("http://reviews/", 503),
    ] {
        let Ok(response) = client.call(request(uri)).await;
        assert_eq!(response.status().as_u16(), wanted, "{uri}");
    }
    let rendered = mesh.metrics().render();
    assert!(rendered.contains("reporter=\"source\""), "{rendered}");
}

#[tokio::test]
async fn an_application_is_counted_and_its_errors_are_answered() {
    let (source, _handle) = MemorySource::new();
    let (mesh, mut driver) = Mesh::builder().source(source).build();
    driver.apply(Update::default());
    let app = tower::service_fn(|request: Request<RequestBody<Full<Bytes>>>| async move {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await?.to_bytes();
        match path.as_str() {
            "/fail" => Err(crate::BoxError::from("broken")),
            _ => Ok(Response::new(Full::new(body))),
        }
    });
    let service = mesh.inbound().layer(Strict::new(app));
    let post = Request::post("http://me/")
        .body(Full::from("hello"))
        .expect("a request");
    let answer: Result<_, Infallible> = service.clone().oneshot(post).await;
    let body = answer.expect("never fails").into_body().collect().await;
    assert_eq!(body.expect("a body").to_bytes(), "hello");
    let Ok(failed) = service.oneshot(request("http://me/fail")).await;
    assert_eq!(failed.status(), StatusCode::INTERNAL_SERVER_ERROR);
    drop(failed);
    let rendered = mesh.metrics().render();
    assert!(rendered.contains("response_code=\"500\""), "{rendered}");
    assert!(rendered.contains("istio_request_bytes_sum"), "{rendered}");
}

#[tokio::test]
async fn inbound_traffic_is_refused_before_a_configuration_and_where_a_listener_says_so() {
    let (source, _handle) = MemorySource::new();
    let (mesh, mut driver) = Mesh::builder().source(source).build();
    let app = tower::service_fn(|_: Request<RequestBody<Full<Bytes>>>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let mut service = mesh.inbound().layer(app);
    let Ok(early) = service.call(request("http://me/")).await;
    assert_eq!(early.status(), StatusCode::SERVICE_UNAVAILABLE);
    let chain = model::FilterChain {
        name: "".into(),
        matches: Default::default(),
        transport: Default::default(),
        transport_connect_timeout: None,
        network: model::Network::Http(Box::default()),
        refuse: Some("PeerAuthentication default/strict cannot act yet".into()),
    };
    for default in [false, true] {
        let address = model::Address::Socket(([127, 0, 0, 1], 0).into());
        let mut listener = model::Listener::new("in", address);
        listener.direction = model::Direction::Inbound;
        match default {
            true => listener.default_filter_chain = Some(chain.clone()),
            false => listener.filter_chains.push(chain.clone()),
        }
        driver.apply(Update {
            changes: vec![Change::Listener(Arc::new(listener))],
            ..Update::default()
        });
        let Ok(refused) = service.call(request("http://me/")).await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{default}");
        let body = refused.into_body().collect().await.expect("a body");
        let body = body.to_bytes();
        assert!(body.starts_with(b"PeerAuthentication"), "{body:?}");
    }
}

/// Whoever calls and whoever is called are both programs with the mesh inside.
#[tokio::test]
async fn a_program_that_calls_is_named_in_the_metrics_of_the_one_it_calls() {
    let (source, _handle) = MemorySource::new();
    let (called, mut driver) = Mesh::builder().source(source).build();
    driver.apply(Update::default());
    let app = tower::service_fn(
        |request: Request<RequestBody<hyper::body::Incoming>>| async move {
            let told = request.headers().contains_key("x-envoy-peer-metadata");
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(told.to_string())))
        },
    );
    let service = called.inbound().layer(app);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            let service = hyper::service::service_fn(move |request| service.clone().call(request));
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(socket), service));
        }
    });

    let (source, _handle) = MemorySource::new();
    let workload = Workload {
        name: "productpage-v1".into(),
        namespace: "default".into(),
        ..Workload::default()
    };
    let builder = Mesh::builder().source(source).workload(workload);
    let (calling, mut driver) = builder.build();
    let mesh_cluster = "outbound|9080||reviews.default.svc.cluster.local";
    driver.apply(Update {
        changes: vec![
            Change::Cluster(Arc::new(cluster_config(mesh_cluster, address))),
            Change::Cluster(Arc::new(cluster_config("foreign", address))),
            table(
                "9080",
                &[("reviews:9080", mesh_cluster), ("foreign:9080", "foreign")],
            ),
        ],
        ..Update::default()
    });
    let mut client = calling.client(TcpConnector);
    for host in ["reviews", "foreign"] {
        let uri = format!("http://{host}:9080/");
        let Ok(response) = client.call(request(&uri)).await;
        let body = response.into_body().collect().await.expect("a body");
        // The metrics have it; the application has no use for it.
        assert_eq!(body.to_bytes(), "false", "{host}");
    }
    // A cluster outside of the mesh is told nothing.
    let rendered = called.metrics().render();
    assert_eq!(
        by_source(&rendered),
        [("productpage-v1", "1"), ("unknown", "1")].into(),
        "{rendered}"
    );
}

/// Requests by the workload that sent them.
fn by_source(rendered: &str) -> std::collections::BTreeMap<&str, &str> {
    let lines = rendered.lines();
    let lines = lines.filter(|line| line.starts_with("istio_requests_total{"));
    lines
        .filter_map(|line| {
            let (labels, value) = line.rsplit_once(' ')?;
            let (_, rest) = labels.split_once("source_workload=\"")?;
            Some((rest.split_once('"')?.0, value))
        })
        .collect()
}
