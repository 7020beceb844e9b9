//! An embeddable service mesh: routing, resilience and telemetry as tower layers over one compiled snapshot.
//!
//! A [`Mesh`](snapshot::Mesh) is made of a source of configuration and gives out what acts by it: clients, layers, listeners,
//! decisions. Its [`Driver`](snapshot::Driver) follows the source, on whatever runtime or thread it is spawned; a change is in
//! force with the next request, and a bad one leaves what was in force as it is. The sources for Envoy files and for
//! folders of Istio and Kubernetes YAML are in the crate `mesh-xds`; here the program itself is the source:
//!
//! ```
//! # #[cfg(feature = "client")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{sync::Arc, time::Duration};
//!
//! use http::StatusCode;
//! use http_body_util::Empty;
//! use mesh_core::{
//!     config::{Change, MemorySource, Update},
//!     model::{Action, DirectResponse, PathMatch, Route, RouteConfiguration, RouteMatch, RouteRules, VirtualHost},
//!     snapshot::Mesh,
//!     transport::TcpConnector,
//! };
//! use tower_service::Service;
//!
//! let (source, configuration) = MemorySource::new();
//! let (mesh, driver) = Mesh::builder().source(source).build();
//! tokio::spawn(driver.run());
//!
//! // Whoever asks for `reviews`, port 9080, is answered by the mesh itself.
//! let pot = DirectResponse { status: StatusCode::IM_A_TEAPOT, body: "short and stout".into(), format: None };
//! let everything = RouteMatch::path(PathMatch::Prefix("/".into()));
//! let host = VirtualHost {
//!     domains: vec!["reviews:9080".into()],
//!     routes: RouteRules::List(vec![Route::new(everything, Action::DirectResponse(pot))]),
//!     ..VirtualHost::default()
//! };
//! let table = RouteConfiguration {
//!     name: "9080".into(),
//!     virtual_hosts: vec![host],
//!     ..RouteConfiguration::default()
//! };
//! configuration.push(Update { changes: vec![Change::Routes(Arc::new(table))], ..Update::default() });
//!
//! mesh.ready(Duration::from_secs(5)).await?;
//! let mut client = mesh.client(TcpConnector);
//! let request = http::Request::get("http://reviews:9080/").body(Empty::<bytes::Bytes>::new())?;
//! let response = client.call(request).await?;
//! assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "client"))]
//! # fn main() {}
//! ```
//!
//! # Which part to take
//!
//! Each is built on the one before, so the meaning is the same everywhere. The programs are in the repository's `examples`.
//!
//! | you have | take | program |
//! |---|---|---|
//! | a proxy with sockets and a codec of its own | [`decide`]: a chain, a decision, an attempt; no I/O, no runtime | `foreign_proxy` |
//! | a tower stack | single [layers](layer), with a fixed policy or that of the route | |
//! | a program that calls others | [`Mesh::client`](snapshot::Mesh::client), a [`MeshClient`](client::MeshClient) | `axum_app`, `grpc` |
//! | a program that serves | [`Mesh::inbound`](snapshot::Mesh::inbound), a layer around the application | `hyper_service`, `grpc` |
//! | clients that cannot be replaced, or a sidecar to write | [`server::Listeners`] with a [`stack::Proxy`] over a [`pool::Pool`] | `axum_app`, `sidecar` |
//!
//! # Around a request
//!
//! - Errors of the mesh are answers with Envoy's status, body and response flag ([`Kind`] has the table); a
//!   [`MeshClient`](client::MeshClient) is always ready and never fails.
//! - [`Mesh::metrics`](snapshot::Mesh::metrics) renders Istio's standard metrics, and [`Mesh::status`](snapshot::Mesh::status) tells
//!   what of the configuration was refused or has no effect.
//! - Bytes go through a [`transport::Connector`] and a [`transport::Acceptor`]: TLS is theirs to add.
//! - A program brings balancing ([`cluster::Balancer`]), outlier detection ([`cluster::Monitor`]), authorization
//!   ([`snapshot::Stage`]), logs and spans ([`telemetry::record::Sink`]) of its own; [`world`] makes its runs repeat.
//! - Time is tokio's; nothing is spawned but a task for each connection, HTTP/2 stream and mirrored request.
//!
//! # Features
//!
//! | feature | default | gives |
//! |---|---|---|
//! | `client` | yes | pooled upstream connections, [`MeshClient`](client::MeshClient), the outbound [stack] |
//! | `server` | yes | [listeners](server), connection tasks, drain; with `client`, [`stack::Proxy`] |
//! | `regex` | yes | RE2's regular expressions in matchers and rewrites; a configuration that needs them is refused without |
//! | `net` | by `client` and `server` | hyper and tokio underneath; timers, retries, faults, mirrors |
//!
//! Without features, [`decide`] and the layers that need no timer are left, in 32 crates at most.

// docs.rs shows which feature an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests run in the real world")
)]
// Parts that both homes share leave something unused, and links without their target, where only one is built in; nothing
// may be in the default build.
#![cfg_attr(
    not(all(feature = "client", feature = "server")),
    allow(
        dead_code,
        unused_imports,
        unused_variables,
        rustdoc::broken_intra_doc_links
    )
)]

pub mod body;
pub mod client;
pub mod cluster;
pub mod config;
pub mod decide;
mod error;
pub mod layer;
mod match_tree;
pub mod model;
mod names;
#[cfg(feature = "client")]
pub mod pool;
mod recycle;
pub mod route;
mod scratch;
#[cfg(feature = "server")]
pub mod server;
pub mod snapshot;
pub mod stack;
mod sync;
#[cfg(feature = "server")]
mod tcp;
pub mod telemetry;
pub mod transport;
pub mod world;

pub use self::error::{BoxError, Error, Kind, Reply};
