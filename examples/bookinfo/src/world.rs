//! What is to be started: the workloads and the gateway that the mesh folder describes.
//!
//! Only names and addresses are read here, once, at the start. What the mesh *does* is read by the sidecars.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use mesh_xds::istio::{
    Object, Spec,
    api::{Gateway as GatewaySpec, Sidecar, gateway::Port, k8s},
    read::{Finding, Folder, FolderOptions, Level},
};

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
    /// A file cannot be read, or is not YAML. (An object that is refused does not hold the start up: the table tells of it.)
    #[error("{0}")]
    File(Box<Finding>),
    /// An object does not say what it should.
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
    #[error("{}: no Pod with the label {label} in this folder{}", folder.display(), because(refused))]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// The label.
        label: &'static str,
        /// What of the folder is refused, which may be why.
        refused: Vec<Finding>,
    },
}

fn because(refused: &[Finding]) -> String {
    let lines = refused.iter().map(|one| format!("\n  refused: {one}"));
    lines.collect()
}

impl World {
    /// Reads the folder as the sidecars do.
    ///
    /// # Errors
    /// [`WorldError`], when a file cannot be read or the objects do not say where everything listens.
    pub fn read(folder: &Path) -> Result<Self, WorldError> {
        fs::read_dir(folder).map_err(io_error(folder))?;
        let scan = Folder::new(folder, FolderOptions::default()).scan();
        let mut refused = scan.findings;
        refused.retain(|finding| finding.level == Level::Refused);
        if let Some(file) = refused.iter().find(|finding| finding.resource.is_none()) {
            return Err(WorldError::File(Box::new(file.clone())));
        }
        let mut objects = scan.objects;
        objects.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        let objects = Objects(objects);
        let (mut workloads, mut gateway) = (Vec::new(), None);
        for (object, pod) in objects.pods() {
            let label = |name| object.labels.get(name).map(String::as_str);
            if label("istio") == Some("ingressgateway") {
                gateway = Some(objects.gateway(object, pod)?);
            } else if let Some(app) = label("app") {
                workloads.push(objects.workload(object, pod, app)?);
            }
        }
        let missing = |label| WorldError::Missing {
            folder: folder.to_owned(),
            label,
            refused,
        };
        match gateway {
            _ if workloads.is_empty() => Err(missing("app")),
            None => Err(missing("istio: ingressgateway")),
            Some(gateway) => Ok(Self { workloads, gateway }),
        }
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> WorldError {
    move |error| WorldError::Io {
        path: path.to_owned(),
        error,
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

/// Copies the files of a mesh folder to a new or empty one and moves them to another block of addresses: `127.10.…` becomes
/// `127.BLOCK.…`, and the gateway `127.BLOCK.0.250`. So two demos can run side by side.
///
/// # Errors
/// [`WorldError::Io`], when a file cannot be read or written, or `to` holds something already.
pub fn copy_to_block(from: &Path, to: &Path, block: u8) -> Result<(), WorldError> {
    let files = files(from).map_err(io_error(from))?;
    fs::create_dir_all(to).map_err(io_error(to))?;
    if fs::read_dir(to).map_err(io_error(to))?.next().is_some() {
        return Err(io_error(to)(io::ErrorKind::DirectoryNotEmpty.into()));
    }
    for file in files {
        let text = fs::read_to_string(&file).map_err(io_error(&file))?;
        let moved = text
            .replace("127.10.", &format!("127.{block}."))
            .replace("127.0.0.1", &format!("127.{block}.0.250"));
        let target = to.join(file.file_name().expect("a file of a folder has a name"));
        fs::write(&target, moved).map_err(io_error(&target))?;
    }
    Ok(())
}

/// The YAML files that lie directly in the folder.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?;
    let paths = entries.map(|entry| Ok(entry?.path()));
    let is_yaml = |path: &PathBuf| path.extension().is_some_and(|end| end == "yaml");
    paths
        .filter(|path| path.as_ref().map_or(true, is_yaml))
        .collect()
}

/// The folder's objects in the order of namespace and name.
struct Objects(Vec<Arc<Object>>);

impl Objects {
    fn pods(&self) -> impl Iterator<Item = (&Object, &k8s::Pod)> {
        self.0.iter().filter_map(|object| match &object.spec {
            Spec::Pod(pod) => Some((&**object, &**pod)),
            _ => None,
        })
    }

    /// The Sidecar that selects a Pod by its labels.
    fn sidecar(&self, pod: &Object) -> Option<&Sidecar> {
        self.0.iter().find_map(|object| match &object.spec {
            Spec::Sidecar(sidecar) if object.namespace == pod.namespace => {
                let selector = &sidecar.workload_selector.as_ref()?.labels;
                let selects = !selector.is_empty() && contains(&pod.labels, selector);
                selects.then_some(&**sidecar)
            }
            _ => None,
        })
    }

    fn gateways(&self) -> impl Iterator<Item = &GatewaySpec> {
        self.0.iter().filter_map(|object| match &object.spec {
            Spec::Gateway(gateway) => Some(&**gateway),
            _ => None,
        })
    }

    fn workload(&self, object: &Object, pod: &k8s::Pod, app: &str) -> Result<Workload, WorldError> {
        let wrong = |what: &str| wrong(object, what);
        let version = object.labels.get("version").map_or("", String::as_str);
        let service = Service::from_labels(app, version).map_err(|error| WorldError::Service {
            pod: full_name(object),
            error,
        })?;
        let ip = address(pod).ok_or_else(|| wrong(NO_ADDRESS))?;
        let sidecar = self.sidecar(object).ok_or_else(|| {
            wrong("no Sidecar selects it, so nothing says where its sidecar listens")
        })?;
        let ingress = sidecar.ingress.first();
        let ingress = ingress.ok_or_else(|| wrong("its Sidecar has no ingress"))?;
        let inbound = ingress.port.as_ref().and_then(number);
        let mut egress = sidecar.egress.iter();
        let outbound = egress.find_map(|listener| {
            let port = listener.port.as_ref().filter(|port| is_http(port))?;
            Some(SocketAddr::new(listener.bind.parse().ok()?, number(port)?))
        });
        Ok(Workload {
            namespace: object.namespace.to_string(),
            pod: object.name.to_string(),
            service,
            application: endpoint(&ingress.default_endpoint, ip).ok_or_else(|| {
                wrong("its Sidecar's ingress has no defaultEndpoint of the form ADDRESS:PORT")
            })?,
            outbound: outbound.ok_or_else(|| {
                wrong(
                    "its Sidecar has no egress with an address as bind and a port of protocol HTTP",
                )
            })?,
            inbound: SocketAddr::new(
                ingress.bind.parse().unwrap_or(ip),
                inbound.ok_or_else(|| wrong("its Sidecar's ingress has no port"))?,
            ),
        })
    }

    fn gateway(&self, object: &Object, pod: &k8s::Pod) -> Result<Gateway, WorldError> {
        let ip = address(pod).ok_or_else(|| wrong(object, NO_ADDRESS))?;
        let mut ports = self
            .gateways()
            .filter(|gateway| contains(&object.labels, &gateway.selector))
            .flat_map(|gateway| &gateway.servers)
            .filter_map(|server| server.port.as_ref().filter(|port| is_http(port)));
        let port = ports.find_map(|port| number(port).filter(|port| *port >= 1024));
        let port = port.ok_or_else(|| {
            wrong(
                object,
                "no Gateway that selects it has an HTTP server on a port from 1024",
            )
        })?;
        Ok(Gateway {
            namespace: object.namespace.to_string(),
            pod: object.name.to_string(),
            address: SocketAddr::new(ip, port),
        })
    }
}

const NO_ADDRESS: &str = "status.podIP is missing or no address";

fn wrong(pod: &Object, what: &str) -> WorldError {
    WorldError::Object {
        kind: "Pod",
        name: full_name(pod),
        what: what.to_owned(),
    }
}

fn full_name(object: &Object) -> String {
    format!("{}/{}", object.namespace, object.name)
}

fn address(pod: &k8s::Pod) -> Option<IpAddr> {
    pod.status.pod_ip.parse().ok()
}

fn is_http(port: &Port) -> bool {
    port.protocol.eq_ignore_ascii_case("http")
}

fn number(port: &Port) -> Option<u16> {
    u16::try_from(port.number).ok().filter(|number| *number > 0)
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

    /// What is said about a folder with this one file.
    fn refused(test: &str, file: &str, text: &str) -> String {
        let folder = std::env::temp_dir().join(format!("bookinfo-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a writable temporary folder");
        fs::write(folder.join(file), text).expect("a writable folder");
        let read = World::read(&folder);
        fs::remove_dir_all(&folder).expect("the folder made above");
        let error = read.expect_err("that is no bookinfo").to_string();
        error.replace(&*folder.to_string_lossy(), "DIR")
    }

    #[test]
    fn a_folder_without_workloads_is_named_with_what_is_refused_in_it() {
        let empty = "DIR: no Pod with the label app in this folder";
        assert_eq!(refused("empty", "notes.txt", "hello"), empty);
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {nam: a}\n";
        let text = refused("typo", "pod.yaml", pod);
        let reason = format!("{empty}\n  refused: DIR/pod.yaml:3:12: Pod default/(no name): ");
        assert!(text.starts_with(&reason), "{text}");
    }

    #[test]
    fn a_file_that_is_no_yaml_is_named_with_its_place() {
        let text = refused("broken", "broken.yaml", "a: 1\n b: 2\n");
        assert!(text.starts_with("DIR/broken.yaml:2:"), "{text}");
    }

    #[test]
    fn a_copy_goes_to_a_new_or_empty_folder_only() {
        let refused = copy_to_block(&shipped(), &shipped(), 77).map_err(|error| error.to_string());
        let reason = format!("{}: directory not empty", shipped().display());
        assert_eq!(refused, Err(reason));
    }
}
