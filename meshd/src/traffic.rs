//! The stack of one worker: its pool, and the sockets that it accepts on.

use hyper::body::Incoming;
use mesh_core::{
    body::RequestBody,
    pool::Pool,
    server::{self, ListenerHandle, Socket},
    snapshot::Clusters,
    stack::Proxy,
    transport::{TcpConnector, TokioExec},
};

/// The stack of a new worker: accepts on sockets, on the runtime of the caller.
pub(crate) fn worker(clusters: Clusters) -> impl Fn(Socket, ListenerHandle) {
    let pool: Pool<TcpConnector, RequestBody<Incoming>> = Pool::new(TcpConnector);
    let factory = Proxy::new(pool.service(), TcpConnector, clusters, TokioExec);
    move |socket, listener| {
        let name = listener.name();
        let accepting = server::serve(socket, listener, factory.clone(), TokioExec);
        tokio::spawn(async move {
            if let Err(error) = accepting.await {
                tracing::error!(listener = %name, %error, "A socket cannot be accepted on");
            }
        });
    }
}
