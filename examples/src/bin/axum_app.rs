//! An axum app whose outgoing calls go through the mesh: by a `MeshClient`, and by reqwest and hyper-util's client, which
//! keep their own connections and reach the mesh at a listener inside this process.

use std::{error::Error, fmt::Display, io, net::SocketAddr, time::Duration};

use axum::body::{Body, Bytes};
use axum::{Router, routing::get};
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::{
    pool::Pool,
    server::{self, Listeners},
    snapshot::Mesh,
    stack::Proxy,
    transport::{TcpConnector, TokioExec},
};
use tokio::net::{TcpListener, TcpStream};
use tower::{Service, service_fn};

/// Opens the mesh's outbound listener in this process.
fn open(mesh: &Mesh) -> Result<SocketAddr, Box<dyn Error>> {
    let pool = Pool::new(TcpConnector);
    let clusters = mesh.clusters().clone();
    let proxy = Proxy::new(pool.service(), TcpConnector, clusters, TokioExec);
    let mut listeners = Listeners::default();
    let failed = listeners.follow(&mesh.snapshot(), |socket, listener| {
        let serving = server::serve(socket, listener.clone(), proxy.clone(), TokioExec);
        tokio::spawn(serving);
        Ok(())
    });
    let bound = listeners.status().addresses();
    let outbound = bound.get("outbound").and_then(|all| all[0].socket());
    outbound.ok_or_else(|| format!("nothing listens: {failed:?}").into())
}

/// What the app calls: it has no idea of the mesh.
async fn reviews() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let app = Router::new().route("/stars", get(|| async { "five stars" }));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

const STARS: &str = "http://reviews:9080/stars";

/// Calls by a tower service; both `MeshClient` and hyper-util's client are one.
async fn stars<S, B>(mut client: S) -> Result<Bytes, String>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Display>,
    B: axum::body::HttpBody<Data = Bytes, Error: Display>,
{
    let request = Request::get(STARS).body(Body::empty());
    let answer = client.call(request.map_err(text)?).await.map_err(text)?;
    Ok(answer.into_body().collect().await.map_err(text)?.to_bytes())
}

/// Calls by reqwest.
async fn plain(client: reqwest::Client) -> Result<Bytes, String> {
    let answer = client.get(STARS).send().await.map_err(text)?;
    answer.bytes().await.map_err(text)
}

fn text(error: impl Display) -> String {
    error.to_string()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = mesh_examples::envoy_file(reviews().await?.port(), 1);
    let source = mesh_xds::file::FileSource::parse("envoy.yaml", &config)?;
    let (mesh, driver) = Mesh::builder().source(source).build();
    tokio::spawn(driver.run());
    mesh.ready(Duration::from_secs(5)).await?;
    let direct = mesh.client(TcpConnector);
    let outbound = open(&mesh)?;
    let proxy = reqwest::Proxy::http(format!("http://{outbound}"))?;
    let by_reqwest = reqwest::Client::builder().proxy(proxy).build()?;
    // Whatever is called, the connection goes to the mesh, which looks at the host.
    let connect =
        move |_: Uri| Box::pin(async move { TcpStream::connect(outbound).await.map(TokioIo::new) });
    let executor = TokioExecutor::new();
    let by_hyper: Client<_, Body> = Client::builder(executor).build(service_fn(connect));
    let app = Router::new()
        .route("/direct", get(|| stars(direct)))
        .route("/hyper", get(|| stars(by_hyper)))
        .route("/reqwest", get(|| plain(by_reqwest)));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("app listens on {}", listener.local_addr()?);
    let stop = mesh_examples::stdin_closed();
    axum::serve(listener, app)
        .with_graceful_shutdown(stop)
        .await?;
    print!("{}", mesh.metrics().render());
    Ok(())
}
