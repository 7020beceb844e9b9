//! The same services in one process: each wrapped by the mesh's layers and calling through a `MeshClient`, no sidecar.
//!
//! Every service still has a mesh of its own, made of the same folder for the same Pod as its sidecar would be, so that
//! the same YAML means the same. The gateway is a listener of this process.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use axum::Router;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use mesh_core::{
    BoxError,
    body::RequestBody,
    model::LogSink,
    pool::Pool,
    server::{self, ListenError, ListenerHandle, Listeners, Socket},
    snapshot::Mesh,
    stack::Proxy,
    telemetry::access_log::LogWriter,
    transport::{TcpConnector, TokioExec},
};
use mesh_xds::istio::{
    index::ProxyKind,
    source::{IstioOptions, IstioSource, ProxySpec},
};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout_at},
};
use tower_layer::Layer as _;
use tower_service::Service;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::{
    Options,
    notes::{Lines, Notes},
    state::Gathered,
};
use crate::{
    caller::{CallFuture, Caller, whole},
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
    /// A service cannot listen.
    #[error("{name} cannot listen on {address}: {error}")]
    Listen {
        /// The workload.
        name: String,
        /// Where.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// The gateway cannot listen.
    #[error("gateway: {0}")]
    Gateway(#[from] ListenError),
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
    stop_gateway: watch::Sender<bool>,
    gateway: Option<JoinHandle<Listeners>>,
    /// Where access logs go instead of standard output and standard error, which are the table's.
    _logs: [LogWriter; 2],
}

impl Embedded {
    /// Starts everything and waits until each mesh has its first configuration.
    pub(super) async fn start(
        world: &World,
        options: &Options,
        notes: &Notes,
        within: Duration,
    ) -> Result<Self, EmbeddedError> {
        let (stop, stopped) = watch::channel(false);
        let mut this = Self {
            meshes: Vec::new(),
            drivers: JoinSet::new(),
            services: JoinSet::new(),
            stop,
            stop_gateway: watch::Sender::new(false),
            gateway: None,
            _logs: redirect_logs(notes, options.access_log),
        };
        log_to(notes.clone());
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
        let stopped = this.stop_gateway.subscribe();
        this.open_gateway(&mesh, stopped, notes.clone())?;
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
        if mesh.ready(within).await.is_err() {
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
    fn open_gateway(
        &mut self,
        mesh: &Mesh,
        mut stopped: watch::Receiver<bool>,
        notes: Notes,
    ) -> Result<(), EmbeddedError> {
        let pool: Pool<TcpConnector, RequestBody<Incoming>> = Pool::new(TcpConnector);
        let clusters = mesh.clusters().clone();
        let proxy = Proxy::new(pool.service(), TcpConnector, clusters, TokioExec);
        let serve = move |socket: Socket, listener: &ListenerHandle| {
            let serving = server::serve(socket, listener.clone(), proxy.clone(), TokioExec);
            tokio::spawn(serving);
            Ok(())
        };
        let mut watch = mesh.watch();
        let mut listeners = Listeners::default();
        if let Some(failed) = listeners.follow(&mesh.snapshot(), &serve).pop() {
            return Err(failed.into());
        }
        self.gateway = Some(tokio::spawn(async move {
            loop {
                let snapshot = tokio::select! {
                    snapshot = watch.changed() => snapshot,
                    _ = stopped.wait_for(|stop| *stop) => return listeners,
                };
                for failed in listeners.follow(&snapshot, &serve) {
                    notes.log("gateway", &failed.to_string());
                }
            }
        }));
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
        self.stop_gateway.send_replace(true);
        if let Some(gateway) = self.gateway.take()
            && let Ok(listeners) = gateway.await
        {
            let left = deadline.saturating_duration_since(Instant::now());
            listeners.finish(left).await;
        }
        self.drivers.shutdown().await;
        self.stop.send_replace(true);
        while let Ok(Some(_)) = timeout_at(deadline, self.services.join_next()).await {}
        self.services.shutdown().await;
    }
}

/// Shows, or hides, as notes what the meshes log of requests.
fn redirect_logs(notes: &Notes, is_shown: bool) -> [LogWriter; 2] {
    let lines = || {
        let notes = notes.clone();
        move |line: &str| notes.show("access log", line)
    };
    let stdout = match is_shown {
        true => LogWriter::redirect(LogSink::Stdout, Lines::new(lines())),
        false => LogWriter::redirect(LogSink::Stdout, io::sink()),
    };
    // As a sidecar's standard error is shown in any case.
    [
        stdout,
        LogWriter::redirect(LogSink::Stderr, Lines::new(lines())),
    ]
}

/// Shows as notes what the meshes say of themselves: the same as sidecars do.
fn log_to(notes: Notes) {
    let writer = move || {
        let notes = notes.clone();
        Lines::new(move |line: &str| notes.log("mesh", line))
    };
    let format = tracing_subscriber::fmt::layer();
    let format = format.with_ansi(false).with_writer(writer);
    let filter = EnvFilter::new("warn,mesh_xds=error,mesh_core::snapshot::driver=error");
    // Whoever logs already in this process goes on.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(format)
        .try_init();
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
            whole(answer).await
        })
    }
}
