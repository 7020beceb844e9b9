//! The same services in one process: each wrapped by the mesh's layers and calling through a `MeshClient`, no sidecar.
//!
//! Every service still has a mesh of its own, made of the same folder for the same Pod as its sidecar would be, so that
//! the same YAML means the same. The gateway is a listener of this process.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::Router;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use mesh_core::{
    BoxError,
    body::RequestBody,
    pool::Pool,
    server::{self, BindOptions, Drain, ListenerHandle, ServerStats, Unobserved},
    snapshot::{Mesh, Snapshot},
    stack::Proxy,
    transport::{TcpConnector, TokioExec},
};
use mesh_xds::istio::{
    index::ProxyKind,
    source::{IstioOptions, IstioSource, ProxySpec},
};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tower_layer::Layer as _;
use tower_service::Service;

use super::{Options, state::Gathered};
use crate::{
    caller::{CallError, CallFuture, Caller, MAX_ANSWER},
    world::{Workload, World},
};

/// The embedded mesh cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The folder cannot be watched for a workload.
    #[error("{name}: {error}")]
    Source {
        /// The workload.
        name: String,
        /// Why.
        error: mesh_core::config::SourceError,
    },
    /// A service or the gateway cannot listen.
    #[error("{name} cannot listen on {address}: {error}")]
    Listen {
        /// The workload or listener.
        name: String,
        /// Where.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// No configuration came in time.
    #[error("{name} had no configuration within {within:?}")]
    NotReady {
        /// The workload.
        name: String,
        /// The time that it had.
        within: Duration,
    },
}

/// All services and the gateway, running in this process.
pub(super) struct Embedded {
    meshes: Vec<Mesh>,
    drivers: JoinSet<()>,
    services: JoinSet<()>,
    stop: watch::Sender<bool>,
    gateway: Listeners,
}

/// The gateway's listeners, shared with the task that follows the configuration.
type Listeners = Arc<Mutex<BTreeMap<String, ListenerHandle>>>;

impl Embedded {
    /// Starts everything and waits until each mesh has its first configuration.
    pub(super) async fn start(
        world: &World,
        options: &Options,
        within: Duration,
    ) -> Result<Self, EmbeddedError> {
        let (stop, stopped) = watch::channel(false);
        let mut this = Self {
            meshes: Vec::new(),
            drivers: JoinSet::new(),
            services: JoinSet::new(),
            stop,
            gateway: Listeners::default(),
        };
        for workload in &world.workloads {
            let mesh = this
                .mesh(
                    (ProxyKind::Sidecar, None),
                    &workload.namespace,
                    &workload.pod,
                    options,
                    within,
                )
                .await?;
            this.serve(workload, &mesh, stopped.clone()).await?;
        }
        let gateway = &world.gateway;
        let mesh = this
            .mesh(
                (ProxyKind::Router, Some(gateway.address.ip())),
                &gateway.namespace,
                &gateway.pod,
                options,
                within,
            )
            .await?;
        this.open_gateway(mesh)?;
        Ok(this)
    }

    /// A mesh for one workload, with its first configuration.
    async fn mesh(
        &mut self,
        (kind, bind): (ProxyKind, Option<IpAddr>),
        namespace: &str,
        pod: &str,
        options: &Options,
        within: Duration,
    ) -> Result<Mesh, EmbeddedError> {
        let spec = ProxySpec {
            kind,
            bind: bind.map(|ip| ip.to_string()),
            namespace: namespace.to_owned(),
            name: pod.to_owned(),
            ..ProxySpec::default()
        };
        let source = IstioSource::new(IstioOptions::new(&options.mesh, spec)).map_err(|error| {
            EmbeddedError::Source {
                name: pod.to_owned(),
                error,
            }
        })?;
        let (mesh, driver) = Mesh::builder().source(source).build();
        // A source that ends leaves the last configuration in force, which is what a demo wants.
        self.drivers.spawn(async move { drop(driver.run().await) });
        let mut watch = mesh.watch();
        if timeout(within, watch.changed()).await.is_err() {
            return Err(EmbeddedError::NotReady {
                name: pod.to_owned(),
                within,
            });
        }
        self.meshes.push(mesh.clone());
        Ok(mesh)
    }

    /// Serves an application at the address at which its sidecar would.
    async fn serve(
        &mut self,
        workload: &Workload,
        mesh: &Mesh,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<(), EmbeddedError> {
        let listener =
            TcpListener::bind(workload.inbound)
                .await
                .map_err(|error| EmbeddedError::Listen {
                    name: workload.pod.clone(),
                    address: workload.inbound.to_string(),
                    error,
                })?;
        let caller: Arc<dyn Caller> = Arc::new(Meshed(mesh.client(TcpConnector)));
        let router = workload.service.router(&workload.pod, caller);
        let app = Router::new().fallback_service(mesh.inbound().layer(router));
        self.services.spawn(async move {
            let end = async move { drop(stopped.wait_for(|stop| *stop).await) };
            // `axum::serve` retries what fails on accept and never answers an error.
            let _ = axum::serve(listener, app).with_graceful_shutdown(end).await;
        });
        Ok(())
    }

    /// Opens the gateway's listeners, and lets them follow the configuration from then on.
    fn open_gateway(&mut self, mesh: Mesh) -> Result<(), EmbeddedError> {
        let pool: Pool<TcpConnector, RequestBody<Incoming>> = Pool::new(TcpConnector);
        let proxy = Proxy::new(
            pool.service(),
            TcpConnector,
            mesh.clusters().clone(),
            TokioExec,
        );
        let stats = Arc::new(ServerStats::default());
        let open = move |listener: &Arc<mesh_core::snapshot::Listener>| -> Result<ListenerHandle, (String, io::Error)> {
            let config = listener.config();
            let fail = |error| (config.address.to_string(), error);
            let socket = server::bind(&config.address, &BindOptions::from(&**config)).map_err(fail)?;
            let handle = ListenerHandle::new(listener.clone(), stats.clone(), Arc::new(Unobserved));
            tokio::spawn(server::serve(socket, handle.clone(), proxy.clone(), TokioExec));
            Ok(handle)
        };
        let mut watch = mesh.watch();
        let listeners = self.gateway.clone();
        follow(&listeners, &mesh.snapshot(), &open).map_err(|(name, address, error)| {
            EmbeddedError::Listen {
                name,
                address,
                error,
            }
        })?;
        self.drivers.spawn(async move {
            loop {
                let snapshot = watch.changed().await;
                if let Err((name, address, error)) = follow(&listeners, &snapshot, &open) {
                    eprintln!("gateway: {name} cannot listen on {address}: {error}");
                }
            }
        });
        Ok(())
    }

    /// The Prometheus text of each mesh.
    pub(super) fn metrics(&self) -> Vec<String> {
        self.meshes
            .iter()
            .map(|mesh| mesh.metrics().render())
            .collect()
    }

    /// What all meshes say of the configuration.
    pub(super) fn config(&self) -> Gathered {
        let mut gathered = Gathered::default();
        for mesh in &self.meshes {
            gathered.embedded(&mesh.status().load());
        }
        gathered
    }

    /// Lets requests in flight end until the deadline, from the gateway inwards.
    pub(super) async fn stop(mut self, deadline: Instant) {
        let handles: Vec<_> = lock(&self.gateway).values().cloned().collect();
        for handle in &handles {
            handle.close();
            handle.drain(Drain::Now);
        }
        for handle in &handles {
            let _ = timeout_at(deadline, handle.idle()).await;
        }
        self.drivers.shutdown().await;
        self.stop.send_replace(true);
        while let Ok(Some(_)) = timeout_at(deadline, self.services.join_next()).await {}
        self.services.shutdown().await;
    }
}

/// Makes the open listeners those of the snapshot.
fn follow<F>(
    listeners: &Listeners,
    snapshot: &Snapshot,
    open: &F,
) -> Result<(), (String, String, io::Error)>
where
    F: Fn(&Arc<mesh_core::snapshot::Listener>) -> Result<ListenerHandle, (String, io::Error)>,
{
    let mut running = lock(listeners);
    running.retain(|name, handle| {
        let stays = snapshot.listeners().contains_key(name.as_str());
        if !stays {
            handle.close();
            handle.drain(Drain::Now);
        }
        stays
    });
    for (name, listener) in snapshot.listeners() {
        if !listener.config().bind_to_port {
            continue;
        }
        match running.get(&**name) {
            Some(handle) => handle.replace(listener.clone()),
            None => {
                let handle = open(listener)
                    .map_err(|(address, error)| (name.to_string(), address, error))?;
                running.insert(name.to_string(), handle);
            }
        }
    }
    Ok(())
}

fn lock(listeners: &Listeners) -> std::sync::MutexGuard<'_, BTreeMap<String, ListenerHandle>> {
    listeners.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls through the mesh inside this process.
struct Meshed<S>(S);

impl<S, B> Caller for Meshed<S>
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>, Error = std::convert::Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    fn call(&self, request: Request<Empty<Bytes>>) -> CallFuture<'_> {
        let mut client = self.0.clone();
        Box::pin(async move {
            // A `MeshClient` is always ready, and its errors are answers.
            let Ok(answer) = client.call(request).await;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER)
                .collect()
                .await
                .map_err(CallError::Failed)?;
            Ok(Response::from_parts(head, body.to_bytes()))
        })
    }
}
