//! gRPC through the mesh: a tonic server inside the inbound layer, a tonic client over a `MeshClient`.

use std::{error::Error, time::Duration};

use mesh_core::{snapshot::Mesh, transport::TcpConnector};
use mesh_xds::file::FileSource;
use tokio::net::TcpListener;
use tonic::{
    Code,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let text = mesh_examples::envoy_file(1, port);
    let source = FileSource::parse("envoy.yaml", &text)?;
    let (mesh, driver) = Mesh::builder().source(source).build();
    tokio::spawn(driver.run());

    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = Server::builder().layer(mesh.inbound()).add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));

    mesh.ready(Duration::from_secs(5)).await?;
    let client = mesh.client(TcpConnector);
    // The mesh knows where `health` is: there is no such name in any DNS.
    let mut client = HealthClient::with_origin(client, "http://health:9090".parse()?);
    let whole = HealthCheckRequest::default();
    let answer = client.check(whole).await?.into_inner();
    println!("the server is {:?}", answer.status());
    let unknown = HealthCheckRequest {
        service: "unknown".to_owned(),
    };
    match client.check(unknown).await {
        Err(status) if status.code() == Code::NotFound => println!("no service is called unknown"),
        other => return Err(format!("expected NOT_FOUND, came {other:?}").into()),
    }
    let metrics = mesh.metrics().render();
    for line in metrics
        .lines()
        .filter(|line| line.starts_with("istio_requests_total"))
    {
        println!("{line}");
    }
    Ok(())
}
