//! A hyper service inside the mesh's inbound layer: each request is counted, and errors become answers.
//!
//! It serves until the standard input ends, then prints what the mesh counted.

use std::{error::Error, time::Duration};

use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use mesh_core::{
    BoxError,
    body::RequestBody,
    config::{MemorySource, Update},
    snapshot::Mesh,
};
use tokio::net::TcpListener;
use tower_layer::Layer as _;

/// The application: an ordinary tower service.
async fn hello(request: Request<RequestBody<Incoming>>) -> Result<Response<Full<Bytes>>, BoxError> {
    match request.uri().path() {
        "/fail" => Err("the application failed".into()),
        path => Ok(Response::new(Full::from(format!("hello from {path}\n")))),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (source, configuration) = MemorySource::new();
    let (mesh, driver) = Mesh::builder().source(source).build();
    tokio::spawn(driver.run());
    configuration.push(Update::default()); // Without any, nothing is served.
    mesh.ready(Duration::from_secs(5)).await?;
    let service = TowerToHyperService::new(mesh.inbound().layer(tower::service_fn(hello)));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("hello listens on {}", listener.local_addr()?);
    let stop = mesh_examples::stdin_closed();
    tokio::pin!(stop);
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => accepted?,
            () = &mut stop => break,
        };
        let service = service.clone();
        tokio::spawn(async move {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                eprintln!("{peer}: {error}");
            }
        });
    }
    print!("{}", mesh.metrics().render());
    Ok(())
}
