//! Clusters against those that istiod made of the same services and rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_xds::istio::index::{
    Catalog, Context, Health, Instance, Interception, Proxy, Registry, Resolution, Service,
    Workload, service_entry,
};
use mesh_xds::istio::{Object, translate};
use mesh_xds::json;
use serde::Deserialize;
use serde_json::Value;

use super::compare::{Allowed, METADATA_EXCHANGE, NAMESPACE, Uses, normalized};
use super::istio_translate::{
    CaseObject, CasePort, mesh_object, object, plain_service, proxy_kind,
};
use crate::conformance::{Ctx, SuiteResult};

const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";

/// Where the application listens in these cases.
const APPLICATION: &str = "127.0.0.1";

/// The mode of an endpoint that would get automatic mutual TLS.
pub(super) const TLS_MODE: Allowed = Allowed {
    path: ".metadata.filter_metadata.envoy.transport_socket_match",
    reason: AUTO_TLS,
    holds: |expected, seen| expected["tlsMode"] == "istio" && seen.is_null(),
};

/// What the metadata say of TLS's choice of a protocol.
pub(super) const ALPN_OVERRIDE: Allowed = Allowed {
    path: ".metadata.filter_metadata.istio.alpn_override",
    reason: NO_TLS,
    holds: |expected, seen| expected == "false" && seen.is_null(),
};

/// The name that TLS would ask for.
const AUTO_SNI: Allowed = Allowed {
    path: ".upstream_http_protocol_options",
    reason: NO_TLS,
    holds: |expected, seen| expected["auto_sni"] == true && seen.is_null(),
};

pub(super) const DNS_JITTER: Allowed = Allowed {
    path: ".dns_jitter",
    reason: "the decoder has no effect for it: it would be listed with each cluster",
    holds: |expected, seen| expected == "0.100s" && seen.is_null(),
};

pub(super) const DNS_RESOLVER: Allowed = Allowed {
    path: ".typed_dns_resolver_config",
    reason: "settings of Envoy's own resolver",
    holds: |expected, seen| {
        expected["name"] == "envoy.network.dns_resolver.cares" && seen.is_null()
    },
};

/// All allowed differences.
const ALLOWED: &[Allowed] = &[
    TLS_MODE,
    ALPN_OVERRIDE,
    AUTO_SNI,
    DNS_JITTER,
    DNS_RESOLVER,
    Allowed {
        path: ".dns_refresh_rate",
        reason: "Istio's default, which the mesh configuration of the upstream test lacks",
        holds: |expected, seen| expected.is_null() && seen == "60s",
    },
    Allowed {
        path: ".metadata.filter_metadata.istio.workload",
        reason: "the upstream test names no cluster for its endpoints, a folder is the cluster `Kubernetes`",
        holds: |expected, seen| {
            let named = expected.as_str().map(|text| format!("{text}Kubernetes"));
            named.as_deref() == seen.as_str()
        },
    },
    Allowed {
        path: ".lb_policy",
        reason: "made for Redis by a switch of istiod, which is not recorded",
        holds: |expected, seen| expected == "MAGLEV" && seen == "LEAST_REQUEST",
    },
    METADATA_EXCHANGE,
    NAMESPACE,
];

/// Fields that automatic mutual TLS makes.
pub(super) const AUTO_FIELDS: [&str; 2] = ["transport_socket", "transport_socket_matches"];

/// Why mutual TLS that nobody asked for is not there.
pub(super) const AUTO_TLS: &str =
    "automatic mutual TLS is not served: endpoints that would get it are listed";

/// Why the content of a transport socket is not compared.
pub(super) const NO_TLS: &str =
    "TLS to upstreams cannot be originated yet: that it is asked for is what counts";

/// Why what takes redirected traffic looks otherwise.
const REDIRECTED: &str = "of redirected traffic: here the application is called at its own address";

/// What is otherwise in its inbound clusters.
const OF_REDIRECTED: &[&str] = &[
    "type",
    "lb_policy",
    "load_assignment",
    "cleanup_interval",
    "upstream_bind_config",
];

/// Plays `istio-clusters`; cases about what does not act yet are reported apart.
pub fn run(ctx: &Ctx) -> SuiteResult {
    let mut result = SuiteResult::new("istio-clusters");
    let mut uses = Uses::of(ALLOWED);
    for (name, text) in super::case_files(&ctx.dir(&result.name), &mut result) {
        let case = match Case::read(&text) {
            Ok(case) => case,
            Err(error) => {
                result.fail(name, error);
                continue;
            }
        };
        let outcome = play(&case, &mut uses);
        match case.not_served() {
            None => result.case(name, outcome),
            Some(why) => {
                let outcome = outcome.map_or_else(|error| error, |()| "equal".to_owned());
                result.note(format!("apart: {name}: {why}: {outcome}"));
            }
        }
    }
    uses.report(&mut result);
    result
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(rename = "id")]
    _id: String,
    #[serde(rename = "source")]
    _source: String,
    #[serde(rename = "test")]
    _test: String,
    proxy: CaseProxy,
    #[serde(default)]
    services: Vec<CaseService>,
    #[serde(default)]
    instances: Vec<CaseInstance>,
    #[serde(default)]
    config_objects: Vec<CaseObject>,
    mesh_config: Option<Value>,
    clusters: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseProxy {
    #[serde(rename = "type")]
    kind: String,
    config_namespace: String,
    dns_domain: String,
    ips: Vec<String>,
    #[serde(default)]
    locality: Value,
    metadata: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseService {
    address: String,
    hostname: String,
    mesh_external: bool,
    name: String,
    namespace: String,
    ports: Vec<CasePort>,
    /// Who declared it; the upstream tests say nothing.
    #[serde(rename = "registry")]
    _registry: String,
    resolution: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseInstance {
    addresses: Vec<String>,
    endpoint_port: u32,
    hostname: String,
    labels: Option<BTreeMap<String, String>>,
    lb_weight: u32,
    locality: String,
    service_account: String,
    service_port: u32,
    /// Whether it takes mutual TLS of the mesh.
    tls_mode: String,
}

/// What stands behind a host without a dot, here and in the copy of the case.
const DOT: &str = ".test";

/// Gives a dot to `host`, where it stands alone or at the end of a cluster's name: istiod holds full names, and one without a
/// dot is full there, while in a rule it is the short name of a Kubernetes Service.
fn with_dot(value: &mut Value, host: &str) {
    match value {
        Value::String(text) => {
            let name = text.trim_end_matches(';');
            if name == host || name.ends_with(&format!("|{host}")) {
                text.insert_str(name.len(), DOT);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| with_dot(item, host)),
        Value::Object(fields) => fields.values_mut().for_each(|field| with_dot(field, host)),
        _ => {}
    }
}

impl Case {
    fn read(text: &str) -> Result<Self, String> {
        let mut case: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let services = case["services"].as_array().into_iter().flatten();
        let hosts = services.filter_map(|service| service["hostname"].as_str());
        let short: Vec<String> = hosts
            .filter(|host| !host.contains('.'))
            .map(str::to_owned)
            .collect();
        for host in &short {
            with_dot(&mut case, host);
        }
        Self::deserialize(case).map_err(|error| error.to_string())
    }

    /// What the case is about, if that does not act yet.
    fn not_served(&self) -> Option<&'static str> {
        let has = |kind: &str| self.config_objects.iter().any(|object| object.kind == kind);
        let dynamic = |object: &CaseObject| object.spec["resolution"] == "DYNAMIC_DNS";
        let mesh = self.mesh_config.as_ref();
        let setting = |name: &str| mesh.is_some_and(|mesh| mesh.get(name).is_some());
        let wanted = |name: &str| {
            let mut names = self.clusters.iter().filter_map(|c| c["name"].as_str());
            names.any(|own| own.starts_with(name))
        };
        let without_cluster = self.services.iter().any(|service| {
            let cluster = |port: &CasePort| format!("outbound|{}||{}", port.port, service.hostname);
            let has = |port: &CasePort| wanted(&cluster(port));
            service.ports.iter().any(has) && !service.ports.iter().all(has)
        });
        if has("EnvoyFilter") {
            Some("EnvoyFilter")
        } else if wanted("sds-external") {
            Some("a socket beside istiod's own files")
        } else if wanted("inbound|") && self.config_objects.is_empty() && self.instances.is_empty()
        {
            Some("the object that asks for its inbound cluster is not recorded")
        } else if without_cluster {
            Some("what takes a port away from its service (an InferencePool) is not recorded")
        } else if self.config_objects.iter().any(dynamic) {
            Some("resolution DYNAMIC_DNS")
        } else if setting("localityLbSetting") {
            Some("failover between localities")
        } else {
            self.proxy
                .metadata
                .get("TLS_CLIENT_CERT_CHAIN")
                .map(|_| "certificates of the node's metadata")
        }
    }

    /// Whether istiod asks for mutual TLS by itself, as it does unless told otherwise.
    fn has_auto_mutual_tls(&self) -> bool {
        let mesh = self.mesh_config.as_ref();
        mesh.is_none_or(|mesh| mesh["enableAutoMtls"] != false)
    }

    fn intercepted(&self) -> bool {
        self.proxy.kind == "sidecar" && self.proxy.metadata["INTERCEPTION_MODE"] != "NONE"
    }

    fn objects(&self) -> Result<Vec<Arc<Object>>, String> {
        let mut objects: Vec<_> = self
            .config_objects
            .iter()
            .map(object)
            .collect::<Result<_, _>>()?;
        if let Some(mesh) = &self.mesh_config {
            objects.push(mesh_object(mesh)?);
        }
        Ok(objects)
    }

    fn catalog(&self, objects: &[Arc<Object>]) -> Catalog {
        let mut catalog = service_entry::collect(objects, &[]);
        for case in &self.services {
            let service = case.service();
            let own = self
                .instances
                .iter()
                .filter(|i| i.hostname == case.hostname);
            let instances = own.map(|instance| instance.of(case)).collect();
            catalog.instances.insert(service.key(), instances);
            catalog.services.push(service);
        }
        catalog
    }

    fn proxy(&self) -> Result<Proxy, String> {
        let part = |name: &str| self.proxy.locality[name].as_str().unwrap_or_default();
        let locality = [part("region"), part("zone"), part("subZone")];
        Ok(Proxy {
            kind: proxy_kind(&self.proxy.kind)?,
            namespace: self.proxy.config_namespace.clone(),
            dns_domain: self.proxy.dns_domain.clone(),
            addresses: self.proxy.ips.clone(),
            locality: locality.join("/").trim_end_matches('/').to_owned(),
            interception: if self.intercepted() {
                Interception::Redirect
            } else {
                Interception::None
            },
            application_address: self.intercepted().then(|| APPLICATION.to_owned()),
            ..Proxy::default()
        })
    }
}

impl CaseService {
    fn service(&self) -> Service {
        let addresses = std::iter::once(&self.address).filter(|address| !address.is_empty());
        Service {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            addresses: addresses.cloned().collect(),
            resolution: match self.resolution.as_str() {
                "DNS" => Resolution::DnsLb,
                "Passthrough" => Resolution::Passthrough,
                _ => Resolution::ClientSideLb,
            },
            registry: Registry::Kubernetes,
            mesh_external: self.mesh_external,
            ..plain_service(&self.hostname, &self.ports)
        }
    }
}

impl CaseInstance {
    fn of(&self, service: &CaseService) -> Instance {
        let port = service
            .ports
            .iter()
            .find(|port| port.port == self.service_port);
        let mut labels = self.labels.clone().unwrap_or_default();
        if !self.tls_mode.is_empty() {
            let tls_mode = "security.istio.io/tlsMode".to_owned();
            labels.insert(tls_mode, self.tls_mode.clone());
        }
        Instance {
            port_name: port.map(|port| port.name.clone()).unwrap_or_default(),
            service_port: Some(self.service_port),
            address: self.addresses.first().cloned().unwrap_or_default(),
            port: self.endpoint_port,
            weight: self.lb_weight,
            health: Health::Healthy,
            workload: Arc::new(Workload {
                addresses: self.addresses.clone(),
                labels,
                locality: self.locality.clone(),
                service_account: self.service_account.clone(),
                ..Workload::default()
            }),
        }
    }
}

fn play(case: &Case, uses: &mut Uses) -> Result<(), String> {
    let objects = case.objects()?;
    let context = Context::with_catalog(&objects, case.catalog(&objects), "cluster.local");
    let made = translate::translate(&context, &case.proxy()?, &translate::Options::default());
    let mut seen = BTreeMap::new();
    for cluster in &made.clusters {
        let json = json::to_value(CLUSTER, cluster).map_err(|_| "it cannot be written as JSON")?;
        seen.insert(cluster.name.as_str(), json);
    }
    for expected in &case.clusters {
        let mut expected = normalized(CLUSTER, expected)?;
        let name = expected["name"].as_str().unwrap_or_default().to_owned();
        // What takes redirected traffic for nobody in particular.
        const FOR_NOBODY: &str = "InboundPassthroughCluster";
        if name == FOR_NOBODY {
            uses.count(FOR_NOBODY, REDIRECTED);
            continue;
        }
        let mut seen = seen
            .remove(name.as_str())
            .ok_or_else(|| format!("no cluster {name}"))?;
        uses.set_aside("transport_socket", NO_TLS, (&mut expected, &mut seen));
        if case.has_auto_mutual_tls() {
            uses.excuse(&AUTO_FIELDS, AUTO_TLS, (&mut expected, &seen));
        }
        if case.intercepted() && name.starts_with("inbound|") {
            uses.leave_out(OF_REDIRECTED, REDIRECTED, (&mut expected, &mut seen));
        }
        uses.compare(&expected, &seen)
            .map_err(|error| format!("{name}: {error}"))?;
    }
    match seen.keys().next() {
        Some(name) => Err(format!("cluster {name} is not expected")),
        None => Ok(()),
    }
}
