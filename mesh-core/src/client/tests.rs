use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::ServiceExt;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    body::RequestBody,
    config::{Change, MemorySource, Update},
    model,
    snapshot::Mesh,
    stack::tests::{cluster_config, forward, upstream},
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
    client
        .ready(Duration::from_secs(1))
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
    let (mesh, _driver) = Mesh::builder().source(source).build();
    let app = tower::service_fn(|request: Request<RequestBody<Full<Bytes>>>| async move {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await?.to_bytes();
        match path.as_str() {
            "/fail" => Err(crate::BoxError::from("broken")),
            _ => Ok(Response::new(Full::new(body))),
        }
    });
    let service = mesh.inbound().layer(app);
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
async fn inbound_traffic_is_refused_where_a_listener_says_so() {
    let (source, _handle) = MemorySource::new();
    let (mesh, mut driver) = Mesh::builder().source(source).build();
    let app = tower::service_fn(|_: Request<RequestBody<Full<Bytes>>>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let mut service = mesh.inbound().layer(app);
    let mut listener =
        model::Listener::new("in", model::Address::Socket(([127, 0, 0, 1], 0).into()));
    listener.direction = model::Direction::Inbound;
    listener.filter_chains.push(model::FilterChain {
        name: "".into(),
        matches: Default::default(),
        transport: Default::default(),
        transport_connect_timeout: None,
        network: model::Network::Http(Box::default()),
        refuse: Some("PeerAuthentication default/strict cannot act yet".into()),
    });
    driver.apply(Update {
        changes: vec![Change::Listener(Arc::new(listener))],
        ..Update::default()
    });
    let Ok(refused) = service.call(request("http://me/")).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let body = refused
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    assert!(body.starts_with(b"PeerAuthentication"), "{body:?}");
}
