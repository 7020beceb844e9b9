//! A custom sidecar: carries what an Envoy file says, follows its changes, and drains when the standard input ends.
//!
//! `cargo run -p mesh-examples --bin sidecar -- examples/envoy.yaml`

use std::{error::Error, sync::Arc, time::Duration};

use hyper::body::Incoming;
use mesh_core::{
    body::RequestBody,
    pool::Pool,
    server::{self, BindOptions, Drain, ListenerHandle, ServerStats, Unobserved},
    snapshot::Mesh,
    stack::Proxy,
    transport::{TcpConnector, TokioExec},
};
use mesh_xds::file::FileSource;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: sidecar ENVOY_FILE")?;
    let source = FileSource::open(path)?.watched();
    let (mesh, driver) = Mesh::builder().source(source).build();
    tokio::spawn(driver.run());
    let mut watch = mesh.watch();
    let snapshot = watch.changed().await;
    let pool: Pool<TcpConnector, RequestBody<Incoming>> = Pool::new(TcpConnector);
    let clusters = mesh.clusters().clone();
    let proxy = Proxy::new(pool.service(), TcpConnector, clusters, TokioExec);
    let stats = Arc::new(ServerStats::default());
    let mut handles = Vec::new();
    for listener in snapshot.listeners().values() {
        let config = listener.config();
        let socket = server::bind(&config.address, &BindOptions::from(&**config))?;
        println!("{} listens on {}", config.name, socket.address());
        let handle = ListenerHandle::new(listener.clone(), stats.clone(), Arc::new(Unobserved));
        let serving = server::serve(socket, handle.clone(), proxy.clone(), TokioExec);
        tokio::spawn(serving);
        handles.push(handle);
    }
    let stop = mesh_examples::stdin_closed();
    tokio::pin!(stop);
    loop {
        for rejection in &mesh.status().load().rejections {
            eprintln!("refused: {rejection}");
        }
        let snapshot = tokio::select! {
            snapshot = watch.changed() => snapshot,
            () = &mut stop => break,
        };
        for handle in &handles {
            match snapshot.listeners().get(handle.name()) {
                Some(listener) => handle.replace(listener.clone()),
                None => handle.close(),
            }
        }
    }
    for handle in &handles {
        handle.close();
        handle.drain(Drain::Now);
        // Requests that take longer are cut off.
        let _ = tokio::time::timeout(Duration::from_secs(5), handle.idle()).await;
    }
    println!("drained");
    Ok(())
}
