//! A custom sidecar: carries what an Envoy file says, follows its changes, and drains when the standard input ends.
//!
//! `cargo run -p mesh-examples --bin sidecar -- examples/envoy.yaml`

use std::{error::Error, time::Duration};

use mesh_core::{
    pool::Pool,
    server::{self, Listeners},
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

    let pool = Pool::new(TcpConnector);
    let clusters = mesh.clusters().clone();
    let proxy = Proxy::new(pool.service(), TcpConnector, clusters, TokioExec);
    let mut listeners = Listeners::default();
    let mut watch = mesh.watch();
    let stop = mesh_examples::stdin_closed();
    tokio::pin!(stop);
    loop {
        let snapshot = tokio::select! {
            snapshot = watch.changed() => snapshot,
            () = &mut stop => break,
        };
        for rejection in &mesh.status().load().rejections {
            eprintln!("refused: {rejection}");
        }
        // Sockets that stay are kept, new ones are opened, gone ones drained.
        let failed = listeners.follow(&snapshot, |socket, listener| {
            println!("{} listens on {}", listener.name(), socket.address());
            let serving = server::serve(socket, listener.clone(), proxy.clone(), TokioExec);
            tokio::spawn(serving);
            Ok(())
        });
        for failed in failed {
            eprintln!("{failed}");
        }
    }
    let cut = listeners.finish(Duration::from_secs(5)).await;
    println!("drained, {cut} connections cut off");
    Ok(())
}
