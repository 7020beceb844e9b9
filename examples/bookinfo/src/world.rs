//! What is to be started: the workloads and the gateway that the mesh folder describes.
//!
//! Only names and addresses are read here, once, at the start. What the mesh *does* is read by the sidecars.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::services::{Service, UnknownService};

/// The port of a sidecar's or gateway's admin interface, on an address of its own.
pub const ADMIN_PORT: u16 = 15000;

/// A service in one version, with the addresses of its application and its sidecar.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Workload {
    /// The Pod's namespace.
    pub namespace: String,
    /// The Pod's name.
    pub pod: String,
    /// What it runs, by its labels `app` and `version`.
    pub service: Service,
    /// Where the application listens: what `defaultEndpoint` of its Sidecar says.
    pub application: SocketAddr,
    /// Where the application finds the mesh: the HTTP port of its Sidecar's egress.
    pub outbound: SocketAddr,
    /// Where others find it: `bind` and port of its Sidecar's ingress.
    pub inbound: SocketAddr,
}

/// The ingress gateway.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Gateway {
    /// The Pod's namespace.
    pub namespace: String,
    /// The Pod's name.
    pub pod: String,
    /// Where it listens: the Pod's address, and the port of the first HTTP server of a Gateway that selects it.
    pub address: SocketAddr,
}

/// All that is to be started.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct World {
    /// One for each Pod with the label `app` of a bookinfo service, in the order of their names.
    pub workloads: Vec<Workload>,
    /// The Pod with the label `istio: ingressgateway`.
    pub gateway: Gateway,
}

/// Why a folder does not describe a bookinfo that could be started.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The folder or a file in it cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file is not YAML.
    #[error("{}: {error}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Line, column and what is wrong there.
        error: String,
    },
    /// An object lacks a field, or has one of the wrong form.
    #[error("{kind} {name}: {what}")]
    Object {
        /// The object's kind.
        kind: &'static str,
        /// The object's namespace and name.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// A Pod's labels name a service that bookinfo does not have.
    #[error("Pod {pod}: {error}")]
    Service {
        /// The Pod's namespace and name.
        pod: String,
        /// The labels, and what there is.
        error: UnknownService,
    },
    /// No Pod of that sort.
    #[error("no Pod with the label {0} in the folder")]
    Missing(&'static str),
}

impl World {
    /// Reads every `.yaml`, `.yml` and `.json` file of the folder.
    ///
    /// # Errors
    /// [`WorldError`], when a file cannot be read or the objects do not say where everything listens.
    pub fn read(folder: &Path) -> Result<Self, WorldError> {
        let objects = Objects::read(folder)?;
        let mut workloads = Vec::new();
        let mut gateway = None;
        for pod in objects.of::<PodSpec, PodStatus>("Pod")? {
            if pod
                .meta
                .labels
                .get("istio")
                .is_some_and(|label| label == "ingressgateway")
            {
                gateway = Some(objects.gateway(&pod)?);
            } else if let Some(app) = pod.meta.labels.get("app") {
                workloads.push(objects.workload(&pod, app)?);
            }
        }
        if workloads.is_empty() {
            return Err(WorldError::Missing("app"));
        }
        Ok(Self {
            workloads,
            gateway: gateway.ok_or(WorldError::Missing("istio: ingressgateway"))?,
        })
    }
}

impl Workload {
    /// Where the sidecar's admin interface listens.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        SocketAddr::new(self.outbound.ip(), ADMIN_PORT)
    }

    /// The order in which a request passes the services; what comes first must end first.
    #[must_use]
    pub fn depth(&self) -> u8 {
        match self.service {
            Service::Productpage => 0,
            Service::Details | Service::Reviews(_) => 1,
            Service::Ratings(_) => 2,
        }
    }
}

impl Gateway {
    /// Where the gateway's admin interface listens.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        SocketAddr::new(self.address.ip(), ADMIN_PORT)
    }
}

/// Copies a mesh folder and moves it to another block of addresses: `127.10.…` becomes `127.BLOCK.…`, and the gateway
/// `127.BLOCK.0.250`. So two demos can run side by side.
///
/// # Errors
/// [`WorldError::Io`], when a file cannot be read or written.
pub fn copy_to_block(from: &Path, to: &Path, block: u8) -> Result<(), WorldError> {
    fs::create_dir_all(to).map_err(|error| WorldError::Io {
        path: to.to_owned(),
        error,
    })?;
    for (_, file) in files(from)? {
        let text = fs::read_to_string(&file).map_err(|error| WorldError::Io {
            path: file.clone(),
            error,
        })?;
        let moved = text
            .replace("127.10.", &format!("127.{block}."))
            .replace("127.0.0.1", &format!("127.{block}.0.250"));
        let target = to.join(file.file_name().expect("a file of a folder has a name"));
        fs::write(&target, moved).map_err(|error| WorldError::Io {
            path: target,
            error,
        })?;
    }
    Ok(())
}

/// The folder's configuration files, the one changed last at the end.
fn files(folder: &Path) -> Result<Vec<(SystemTime, PathBuf)>, WorldError> {
    let fail = |error| WorldError::Io {
        path: folder.to_owned(),
        error,
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path
            .extension()
            .is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known))
        {
            let changed = path
                .metadata()
                .and_then(|meta| meta.modified())
                .unwrap_or(SystemTime::UNIX_EPOCH);
            files.push((changed, path));
        }
    }
    files.sort();
    Ok(files)
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Meta {
    name: String,
    namespace: Option<String>,
    labels: BTreeMap<String, String>,
}

impl Meta {
    fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }
}

struct Object<S, T> {
    meta: Meta,
    spec: S,
    status: T,
}

#[derive(Default, Deserialize)]
struct PodSpec {}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodStatus {
    #[serde(rename = "podIP")]
    pod_ip: Option<IpAddr>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SidecarSpec {
    workload_selector: Labels,
    ingress: Vec<SidecarListener>,
    egress: Vec<SidecarListener>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Labels {
    labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SidecarListener {
    port: Port,
    bind: Option<IpAddr>,
    default_endpoint: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Port {
    number: u16,
    protocol: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GatewaySpec {
    selector: BTreeMap<String, String>,
    servers: Vec<Server>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Server {
    port: Port,
}

#[derive(Default, Deserialize)]
struct NoStatus {}

/// The folder's objects by kind, namespace and name; of two with the same name, the one in the file changed last.
struct Objects(BTreeMap<(String, String, String), Value>);

impl Objects {
    fn read(folder: &Path) -> Result<Self, WorldError> {
        let mut objects = BTreeMap::new();
        for (_, path) in files(folder)? {
            let text = fs::read_to_string(&path).map_err(|error| WorldError::Io {
                path: path.clone(),
                error,
            })?;
            let documents: Vec<Value> =
                serde_saphyr::from_multiple(&text).map_err(|error| WorldError::Yaml {
                    path: path.clone(),
                    error: error.to_string(),
                })?;
            for document in documents {
                let text = |pointer| {
                    document
                        .pointer(pointer)
                        .and_then(Value::as_str)
                        .map(str::to_owned)
                };
                if let (Some(kind), Some(name)) = (text("/kind"), text("/metadata/name")) {
                    let namespace =
                        text("/metadata/namespace").unwrap_or_else(|| "default".to_owned());
                    objects.insert((kind, namespace, name), document);
                }
            }
        }
        Ok(Self(objects))
    }

    /// All objects of a kind, in the order of namespace and name.
    fn of<S, T>(&self, kind: &'static str) -> Result<Vec<Object<S, T>>, WorldError>
    where
        S: DeserializeOwned + Default,
        T: DeserializeOwned + Default,
    {
        let objects = self.0.iter().filter(|((of, ..), _)| of == kind);
        objects
            .map(|((_, namespace, name), value)| {
                let name = format!("{namespace}/{name}");
                Ok(Object {
                    meta: part(value, "metadata", kind, &name)?,
                    spec: part(value, "spec", kind, &name)?,
                    status: part(value, "status", kind, &name)?,
                })
            })
            .collect()
    }

    fn workload(
        &self,
        pod: &Object<PodSpec, PodStatus>,
        app: &str,
    ) -> Result<Workload, WorldError> {
        let name = format!("{}/{}", pod.meta.namespace(), pod.meta.name);
        let wrong = |what: &str| WorldError::Object {
            kind: "Pod",
            name: name.clone(),
            what: what.to_owned(),
        };
        let version = pod.meta.labels.get("version").map_or("", String::as_str);
        let service = Service::from_labels(app, version).map_err(|error| WorldError::Service {
            pod: name.clone(),
            error,
        })?;
        let ip = pod
            .status
            .pod_ip
            .ok_or_else(|| wrong("status.podIP is missing"))?;
        let sidecar = self
            .of::<SidecarSpec, NoStatus>("Sidecar")?
            .into_iter()
            .filter(|sidecar| !sidecar.spec.workload_selector.labels.is_empty())
            .find(|sidecar| {
                sidecar.meta.namespace() == pod.meta.namespace()
                    && contains(&pod.meta.labels, &sidecar.spec.workload_selector.labels)
            })
            .ok_or_else(|| {
                wrong("no Sidecar selects it, so nothing says where its sidecar listens")
            })?;
        let ingress = sidecar
            .spec
            .ingress
            .first()
            .ok_or_else(|| wrong("its Sidecar has no ingress"))?;
        let egress = sidecar
            .spec
            .egress
            .iter()
            .find(|listener| listener.port.protocol.eq_ignore_ascii_case("http"))
            .ok_or_else(|| wrong("its Sidecar has no egress with a port of protocol HTTP"))?;
        Ok(Workload {
            namespace: pod.meta.namespace().to_owned(),
            pod: pod.meta.name.clone(),
            service,
            application: endpoint(&ingress.default_endpoint, ip).ok_or_else(|| {
                wrong("its Sidecar's ingress has no defaultEndpoint of the form ADDRESS:PORT")
            })?,
            outbound: SocketAddr::new(
                egress
                    .bind
                    .ok_or_else(|| wrong("its Sidecar's egress has no bind"))?,
                egress.port.number,
            ),
            inbound: SocketAddr::new(ingress.bind.unwrap_or(ip), ingress.port.number),
        })
    }

    fn gateway(&self, pod: &Object<PodSpec, PodStatus>) -> Result<Gateway, WorldError> {
        let name = format!("{}/{}", pod.meta.namespace(), pod.meta.name);
        let wrong = |what: &str| WorldError::Object {
            kind: "Pod",
            name: name.clone(),
            what: what.to_owned(),
        };
        let ip = pod
            .status
            .pod_ip
            .ok_or_else(|| wrong("status.podIP is missing"))?;
        let gateways = self.of::<GatewaySpec, NoStatus>("Gateway")?;
        let port = gateways
            .iter()
            .filter(|gateway| contains(&pod.meta.labels, &gateway.spec.selector))
            .flat_map(|gateway| &gateway.spec.servers)
            .find(|server| {
                server.port.number >= 1024 && server.port.protocol.eq_ignore_ascii_case("http")
            })
            .map(|server| server.port.number)
            .ok_or_else(|| {
                wrong("no Gateway that selects it has an HTTP server on a port from 1024")
            })?;
        Ok(Gateway {
            namespace: pod.meta.namespace().to_owned(),
            pod: pod.meta.name.clone(),
            address: SocketAddr::new(ip, port),
        })
    }
}

fn part<T: DeserializeOwned + Default>(
    value: &Value,
    field: &str,
    kind: &'static str,
    name: &str,
) -> Result<T, WorldError> {
    match value.get(field) {
        None | Some(Value::Null) => Ok(T::default()),
        Some(value) => T::deserialize(value).map_err(|error| WorldError::Object {
            kind,
            name: name.to_owned(),
            what: format!("{field}: {error}"),
        }),
    }
}

fn contains(labels: &BTreeMap<String, String>, selector: &BTreeMap<String, String>) -> bool {
    selector
        .iter()
        .all(|(name, value)| labels.get(name) == Some(value))
}

/// An address as Sidecar writes it: the unspecified one means the workload's own.
fn endpoint(text: &str, own: IpAddr) -> Option<SocketAddr> {
    let mut address: SocketAddr = text.parse().ok()?;
    if address.ip().is_unspecified() {
        address.set_ip(own);
    }
    Some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("mesh")
    }

    #[test]
    fn the_shipped_folder_is_the_whole_of_bookinfo() {
        let world = World::read(&shipped()).expect("the shipped folder is whole");
        let services: Vec<_> = world
            .workloads
            .iter()
            .map(|workload| workload.service.to_string())
            .collect();
        assert_eq!(
            services,
            [
                "details v1",
                "productpage v1",
                "ratings v1",
                "ratings v2",
                "reviews v1",
                "reviews v2",
                "reviews v3"
            ]
        );
        assert_eq!(
            world.gateway.address,
            "127.0.0.1:8080".parse().expect("an address")
        );
        let mut addresses: Vec<_> = world
            .workloads
            .iter()
            .flat_map(|w| [w.application, w.inbound, w.outbound])
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), 21, "no two things listen on one address");
        let page = &world.workloads[1];
        assert_eq!(
            page.application,
            "127.10.0.1:9081".parse().expect("an address")
        );
        assert_eq!(
            page.outbound,
            "127.10.1.1:9080".parse().expect("an address")
        );
    }

    #[test]
    fn a_copy_lives_in_its_own_block() {
        let folder = std::env::temp_dir().join(format!("bookinfo-world-{}", std::process::id()));
        copy_to_block(&shipped(), &folder, 77).expect("a writable temporary folder");
        let world = World::read(&folder);
        fs::remove_dir_all(&folder).expect("the folder made above");
        let world = world.expect("a moved folder is whole");
        assert_eq!(
            world.gateway.address,
            "127.77.0.250:8080".parse().expect("an address")
        );
        assert!(
            world
                .workloads
                .iter()
                .all(|w| w.application.ip().to_string().starts_with("127.77.0."))
        );
    }

    #[test]
    fn an_empty_folder_is_refused() {
        let folder = std::env::temp_dir().join(format!("bookinfo-empty-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a writable temporary folder");
        let refused = World::read(&folder).map_err(|error| error.to_string());
        fs::remove_dir_all(&folder).expect("the folder made above");
        assert_eq!(
            refused,
            Err("no Pod with the label app in the folder".to_owned())
        );
    }
}
