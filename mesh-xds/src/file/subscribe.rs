//! Resources in files of their own, which are watched: what `path_config_source` names, in the bootstrap
//! (`dynamic_resources`), in listeners (`rds`) and in clusters (`eds_config`).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::Cluster,
            core::v3::{ConfigSource, config_source::ConfigSourceSpecifier},
            listener::v3::{FilterChain, Listener, filter::ConfigType},
        },
        extensions::filters::network::http_connection_manager::v3::{
            HttpConnectionManager, http_connection_manager::RouteSpecifier,
        },
        service::discovery::v3::{DiscoveryResponse, Resource as Wrapped},
    },
    google::protobuf::Any,
};
use mesh_core::config::Rejection;
use prost::{Message, Name as _};

use super::{Bootstrap, FileError, place, read_again, watch::Watch};
use crate::{
    graph::{Kind, Round},
    json, yaml,
};

/// The form of such a file.
const RESPONSE: &str = "envoy.service.discovery.v3.DiscoveryResponse";

/// The files that resources come from.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    files: BTreeMap<(Kind, PathBuf), Subscribed>,
}

/// A file, as it was when it could last be read.
#[derive(Debug)]
struct Subscribed {
    watch: Watch,
    text: String,
    wires: Vec<Vec<u8>>,
    /// Why the file as it is now cannot be used.
    broken: Option<Rejection>,
    /// Whether something in force names it.
    named: bool,
    /// Whether it has changed since it was read.
    stale: bool,
}

impl Subscriptions {
    /// Whether a file has changed, and has then stayed the same for a while.
    pub(super) fn changed(&mut self) -> bool {
        let mut changed = false;
        for file in self.files.values_mut() {
            if file.watch.look() {
                file.stale = true;
                changed = true;
            }
        }
        changed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Offers all resources of all files: first clusters and listeners, then what those name.
    ///
    /// # Errors
    ///
    /// At `start`, a file that the bootstrap names and that cannot be read. Later on its last good version counts.
    pub(super) fn offer(
        &mut self,
        round: &mut Round<'_>,
        bootstrap: &Bootstrap,
        start: bool,
    ) -> Result<(), FileError> {
        for file in self.files.values_mut() {
            file.named = false;
        }
        let own = [
            (Kind::Cluster, &bootstrap.cds_path),
            (Kind::Listener, &bootstrap.lds_path),
        ];
        for (kind, path) in own {
            if let Some(path) = path {
                if start {
                    read_again(path)?;
                }
                self.offer_file(round, kind, path);
            }
        }
        let clusters = round.offered(Kind::Cluster);
        let listeners = round.offered(Kind::Listener);
        let endpoints = clusters.iter().filter_map(|wire| endpoints_path(wire));
        let routes = listeners.iter().flat_map(|wire| routes_paths(wire));
        let mut named: Vec<(Kind, PathBuf)> =
            endpoints.map(|path| (Kind::Endpoints, path)).collect();
        named.extend(routes.map(|path| (Kind::Routes, path)));
        named.sort();
        named.dedup();
        for (kind, path) in named {
            self.offer_file(round, kind, &path);
        }
        self.files.retain(|_, file| file.named);
        Ok(())
    }

    fn offer_file(&mut self, round: &mut Round<'_>, kind: Kind, path: &Path) {
        let key = (kind, path.to_owned());
        let file = self
            .files
            .entry(key)
            .or_insert_with(|| Subscribed::read(kind, path));
        file.named = true;
        if file.stale {
            file.refresh(kind, path);
        }
        for (index, wire) in file.wires.iter().enumerate() {
            round.wire(kind, wire, &Place::path(kind, path, index));
        }
        if let Some(rejection) = &file.broken {
            round.reject(rejection.clone());
        }
    }

    /// The file, its text, and the path in it, of a resource's field in one of the files.
    pub(super) fn text_of<'s>(&'s self, path: &'s str) -> Option<(String, &'s str, &'s str)> {
        let (mark, field) = path.strip_prefix(Place::MARK)?.split_once(Place::MARK)?;
        let ((_, path), file) = self
            .files
            .iter()
            .find(|((kind, path), _)| Place::name(*kind, path) == mark)?;
        Some((path.display().to_string(), &file.text, field))
    }
}

/// A field path that says which file it is in.
struct Place;

impl Place {
    /// Does not occur in field paths or file names.
    const MARK: char = '\u{1}';

    fn path(kind: Kind, path: &Path, index: usize) -> String {
        let mark = Self::MARK;
        format!("{mark}{}{mark}resources[{index}]", Self::name(kind, path))
    }

    fn name(kind: Kind, path: &Path) -> String {
        format!("{} {}", kind.word(), path.display())
    }
}

impl Subscribed {
    fn read(kind: Kind, path: &Path) -> Self {
        let mut file = Self {
            watch: Watch::new(path.to_owned()),
            text: String::new(),
            wires: Vec::new(),
            broken: None,
            named: true,
            stale: false,
        };
        file.refresh(kind, path);
        file
    }

    /// Reads the file; its last good version stays if that fails.
    fn refresh(&mut self, kind: Kind, path: &Path) {
        self.stale = false;
        self.watch.seen();
        let result = read_again(path).and_then(|text| {
            let wires = resources(kind, &text).map_err(|error| FileError::new(path, &error))?;
            Ok((text, wires))
        });
        self.broken = match result {
            Ok((text, wires)) => {
                (self.text, self.wires) = (text, wires);
                None
            }
            Err(error) => Some(error.rejection()),
        };
    }
}

/// The resources in the text of a file, as wire bytes.
fn resources(kind: Kind, text: &str) -> Result<Vec<Vec<u8>>, yaml::Error> {
    let response: DiscoveryResponse = json::from_yaml(RESPONSE, text)?;
    let wanted = format!("type.googleapis.com/{}", kind.message());
    let unwrapped =
        response
            .resources
            .into_iter()
            .map(|any| match any.type_url == Wrapped::type_url() {
                true => Wrapped::decode(&*any.value)
                    .ok()
                    .and_then(|wrapped| wrapped.resource)
                    .unwrap_or_default(),
                false => any,
            });
    let all = unwrapped.enumerate().map(|(index, any): (usize, Any)| {
        if any.type_url == wanted {
            return Ok(any.value);
        }
        let path = format!("resources[{index}][\"@type\"]");
        let mut error = yaml::Error::new(format!("{:?} where {wanted} is expected", any.type_url));
        if let Some(at) = place::locate(text, &path) {
            error = error.at(at);
        }
        Err(error.in_field(place::segments(&path)))
    });
    all.collect()
}

/// The file that a source of configuration names, if it is one.
pub(super) fn path_of(source: &ConfigSource) -> Option<PathBuf> {
    #[allow(deprecated, reason = "Envoy still reads the older form")]
    let path = match source.config_source_specifier.as_ref()? {
        ConfigSourceSpecifier::PathConfigSource(source) => &source.path,
        ConfigSourceSpecifier::Path(path) => path,
        _ => return None,
    };
    (!path.is_empty()).then(|| PathBuf::from(path))
}

fn endpoints_path(wire: &[u8]) -> Option<PathBuf> {
    let cluster = Cluster::decode(wire).ok()?;
    path_of(cluster.eds_cluster_config?.eds_config.as_ref()?)
}

fn routes_paths(wire: &[u8]) -> Vec<PathBuf> {
    let listener = Listener::decode(wire).unwrap_or_default();
    let chains = listener
        .filter_chains
        .iter()
        .chain(&listener.default_filter_chain);
    chains.flat_map(routes_of_chain).collect()
}

fn routes_of_chain(chain: &FilterChain) -> Vec<PathBuf> {
    let managers = chain.filters.iter().filter_map(|filter| {
        let Some(ConfigType::TypedConfig(any)) = &filter.config_type else {
            return None;
        };
        let (name, bytes) = json::resolve_any(&any.type_url, &any.value).ok()?;
        (name == HttpConnectionManager::full_name())
            .then(|| HttpConnectionManager::decode(&*bytes).ok())?
    });
    managers
        .filter_map(|manager| match manager.route_specifier? {
            RouteSpecifier::Rds(rds) => path_of(rds.config_source.as_ref()?),
            _ => None,
        })
        .collect()
}
