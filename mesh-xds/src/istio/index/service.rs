//! Services, their ports and the endpoints behind them: one form for Kubernetes Services and ServiceEntry objects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_core::telemetry::metrics::Workload as Identity;

use crate::istio::api::Origin;
use crate::istio::api::mesh_config::MeshProxyConfig;

/// What a port carries, as declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 without TLS.
    Http2,
    /// gRPC.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
    /// A port on which every HTTP host can be asked for; only in a Sidecar.
    HttpProxy,
    /// HTTP inside TLS.
    Https,
    /// TLS.
    Tls,
    /// Any bytes.
    Tcp,
    /// MongoDB.
    Mongo,
    /// Redis.
    Redis,
    /// MySQL.
    MySql,
    /// UDP, which the mesh leaves alone.
    Udp,
    /// Nothing was declared: the first bytes decide.
    Unsupported,
}

impl Protocol {
    /// Reads a protocol's name, in any case.
    #[must_use]
    pub fn parse(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "http" => Self::Http,
            "http2" => Self::Http2,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "http_proxy" => Self::HttpProxy,
            "https" => Self::Https,
            "tls" => Self::Tls,
            "tcp" => Self::Tcp,
            "mongo" => Self::Mongo,
            "redis" => Self::Redis,
            "mysql" => Self::MySql,
            "udp" => Self::Udp,
            _ => Self::Unsupported,
        }
    }

    /// Whether HTTP without TLS was declared.
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(
            self,
            Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb | Self::HttpProxy
        )
    }

    /// Whether HTTP was declared or may turn out.
    #[must_use]
    pub fn is_http_or_sniffed(self) -> bool {
        self.is_http() || self == Self::Unsupported
    }

    /// Whether the transport is HTTP/2.
    #[must_use]
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Whether gRPC was declared.
    #[must_use]
    pub fn is_grpc(self) -> bool {
        matches!(self, Self::Grpc | Self::GrpcWeb)
    }

    /// Whether connections are carried as bytes.
    #[must_use]
    pub fn is_tcp(self) -> bool {
        matches!(
            self,
            Self::Tcp | Self::Https | Self::Tls | Self::Mongo | Self::Redis | Self::MySql
        )
    }

    /// Whether clients begin with a TLS handshake.
    #[must_use]
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Name, by which endpoints refer to it.
    pub name: String,
    /// Number that callers use.
    pub port: u32,
    /// What it carries.
    pub protocol: Protocol,
}

/// How the addresses of a service are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resolution {
    /// Endpoints are known (Kubernetes; STATIC).
    ClientSideLb,
    /// Host names, resolved to all their addresses (DNS).
    DnsLb,
    /// A host name, one address at a time (DNS_ROUND_ROBIN, ExternalName).
    DnsRoundRobinLb,
    /// Wherever the connection went (NONE, headless).
    Passthrough,
    /// The host that the request names (DYNAMIC_DNS).
    DynamicDns,
    /// Another name of a service (ExternalName): callers are sent to that service.
    Alias,
}

/// Where a service was declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Registry {
    /// A Kubernetes Service.
    Kubernetes,
    /// A ServiceEntry.
    External,
}

/// The namespaces that may see an object: names, `.` its own, `*` all, `~` none; empty stands for the mesh's default.
pub type ExportTo = BTreeSet<String>;

/// A service of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Full host name, in lower case.
    pub hostname: String,
    /// Namespace of the object that declared it.
    pub namespace: String,
    /// Name of that object.
    pub name: String,
    /// Addresses that stand for the service as a whole (cluster IPs, ServiceEntry addresses); empty when there is none.
    pub addresses: Vec<String>,
    /// Ports.
    pub ports: Vec<Port>,
    /// How addresses are found.
    pub resolution: Resolution,
    /// Where it was declared.
    pub registry: Registry,
    /// Whether it lies outside of the mesh.
    pub mesh_external: bool,
    /// Labels of the object.
    pub labels: BTreeMap<String, String>,
    /// Labels of the workloads behind it; empty when endpoints are listed.
    pub selector: BTreeMap<String, String>,
    /// Who may see it.
    pub export_to: ExportTo,
    /// Host that an [`Resolution::Alias`] stands for.
    pub external_name: Option<String>,
    /// Other hosts that lead to this service.
    pub aliases: Vec<String>,
    /// Whether a client of Kubernetes sees the endpoints' own addresses (`clusterIP: None`).
    pub headless: bool,
    /// Seconds since 1970; of two services with one host the older one counts.
    pub creation_time: i64,
    /// `subjectAltNames` of a ServiceEntry.
    pub subject_alt_names: Vec<String>,
    /// Ports that differ from the service's own where connections go on to the address they were made to, by the
    /// service's port.
    pub target_ports: BTreeMap<u32, u32>,
    /// Whether connections to all addresses of the name are tried and the first that stands is taken.
    pub races: bool,
    /// Where the object was read.
    pub origin: Origin,
}

impl Service {
    /// Its name as istiod has it: one that is declared outside of Kubernetes is called by its host.
    #[must_use]
    pub fn public_name(&self) -> &str {
        match self.registry {
            Registry::Kubernetes => &self.name,
            Registry::External => &self.hostname,
        }
    }

    /// The key by which services are put in order of age.
    pub(super) fn age(&self) -> (i64, &str, &str) {
        (self.creation_time, self.public_name(), &self.namespace)
    }

    /// The port of that number.
    #[must_use]
    pub fn port(&self, number: u32) -> Option<&Port> {
        self.ports.iter().find(|port| port.port == number)
    }

    /// The name under which the endpoints of this service are kept.
    #[must_use]
    pub fn key(&self) -> ServiceKey {
        ServiceKey {
            namespace: self.namespace.clone(),
            hostname: self.hostname.clone(),
        }
    }

    /// A copy with one port only.
    #[must_use]
    pub fn with_port(&self, port: &Port) -> Self {
        Self {
            ports: vec![port.clone()],
            ..self.clone()
        }
    }
}

/// Namespace and host of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Namespace.
    pub namespace: String,
    /// Host.
    pub hostname: String,
}

/// A process group that serves or calls: a Pod or a WorkloadEntry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Workload {
    /// Name of the Pod or WorkloadEntry.
    pub name: String,
    /// Name of the Deployment it belongs to, else the same as `name`.
    pub workload_name: String,
    /// Namespace.
    pub namespace: String,
    /// Addresses, the main one first.
    pub addresses: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Service account.
    pub service_account: String,
    /// Node.
    pub node: String,
    /// Locality, `region/zone/subzone`.
    pub locality: String,
    /// Network.
    pub network: String,
    /// Whether Kubernetes says that it is not ready.
    pub not_ready: bool,
    /// What its annotation `proxy.istio.io/config` says of its proxy.
    pub proxy_config: Option<Box<MeshProxyConfig>>,
    /// Where the object was read.
    pub origin: Origin,
}

impl Workload {
    /// The cluster that everything in the folder is in, by Istio's default name.
    const CLUSTER: &str = "Kubernetes";

    /// The workload as metrics name it.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let label = |name: &'static str| self.labels.get(name).map(String::as_str);
        Identity {
            cluster: Self::CLUSTER.into(),
            ..Identity::labelled(&self.workload_name, &self.namespace, label)
        }
    }
}

/// One endpoint of one port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Name of the service's port.
    pub port_name: String,
    /// Number of the service's port, where it is known.
    pub service_port: Option<u32>,
    /// IP address, host name, or path of a Unix socket (`unix:///...`).
    pub address: String,
    /// Port on that address; 0 for a Unix socket.
    pub port: u32,
    /// Share of the load; 0 when not given.
    pub weight: u32,
    /// Whether it may be picked.
    pub health: Health,
    /// The workload behind it.
    pub workload: Arc<Workload>,
}

/// What Kubernetes says about an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Health {
    /// Ready.
    #[default]
    Healthy,
    /// Not ready.
    Unhealthy,
    /// Terminating, but still serving.
    Draining,
}

/// All services, with their endpoints, and all workloads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalog {
    /// Services.
    pub services: Vec<Service>,
    /// Endpoints by service.
    pub instances: BTreeMap<ServiceKey, Vec<Instance>>,
    /// Workloads.
    pub workloads: Vec<Arc<Workload>>,
}

impl Catalog {
    /// Adds what another source found.
    pub fn extend(&mut self, other: Self) {
        self.services.extend(other.services);
        for (key, instances) in other.instances {
            self.instances.entry(key).or_default().extend(instances);
        }
        self.workloads.extend(other.workloads);
    }
}
