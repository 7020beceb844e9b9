//! Opens the source of configuration that the command line names.

use std::{net::SocketAddr, sync::Arc};

use mesh_xds::{
    file::{FileError, FileOptions, FileSource},
    graph::{Dump, DumpOptions},
    istio::{
        index::ProxyKind,
        source::{IstioOptions, IstioSource, ProxySpec},
    },
};

use crate::{
    Failure,
    cli::{FolderArgs, Options, Source},
};

/// An opened source.
#[allow(
    clippy::large_enum_variant,
    reason = "one exists, and it is moved twice"
)]
pub(crate) enum Opened {
    /// Envoy's bootstrap.
    File(FileSource, Facts),
    /// A folder of Istio YAML.
    Folder(IstioSource, Facts),
}

/// What a source tells beside its updates.
pub(crate) struct Facts {
    /// Address of the admin server in the bootstrap.
    pub(crate) admin: Option<SocketAddr>,
    /// A refusal in the first configuration ends the program, as with Envoy's static file.
    pub(crate) strict_start: bool,
    /// The resources as they were sent.
    pub(crate) dump: Arc<dyn Fn(bool) -> Vec<serde_json::Value> + Send + Sync>,
}

impl Opened {
    pub(crate) fn open(options: &Options) -> Result<Self, Failure> {
        match &options.source {
            Source::File(path, overlay) => {
                file(FileSource::open_with(path, file_options(options, overlay)))
            }
            Source::Text(text) => {
                let completed = file_options(options, &None);
                file(FileSource::parse_with("--config-yaml", text, completed))
            }
            Source::Folder(args, gateway) => folder(args, *gateway),
        }
    }
}

fn file_options(options: &Options, overlay: &Option<String>) -> FileOptions {
    FileOptions {
        overlay: overlay.clone(),
        node_id: options.node.id.clone(),
        node_cluster: options.node.cluster.clone(),
        node_zone: options.node.zone.clone(),
    }
}

fn file(source: Result<FileSource, FileError>) -> Result<Opened, Failure> {
    let source = source.map_err(|error| Failure::Source(error.to_string()))?;
    let admin = source
        .bootstrap()
        .admin
        .as_ref()
        .and_then(|address| address.socket());
    let facts = Facts {
        admin,
        strict_start: true,
        dump: dump(source.dump()),
    };
    Ok(Opened::File(source, facts))
}

fn folder(args: &FolderArgs, gateway: bool) -> Result<Opened, Failure> {
    let (namespace, name) = args.workload.split_once('/').ok_or_else(|| {
        Failure::Source(format!(
            "--workload {:?} is not NAMESPACE/NAME",
            args.workload
        ))
    })?;
    let spec = ProxySpec {
        kind: if gateway {
            ProxyKind::Router
        } else {
            ProxyKind::Sidecar
        },
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        bind: args.bind.map(|ip| ip.to_string()),
        application_address: args.application.map(|ip| ip.to_string()),
        ..ProxySpec::default()
    };
    let mut istio = IstioOptions::new(&args.config, spec);
    istio.strict = args.strict;
    istio.insecure_skip = args.insecure_skip.iter().cloned().collect();
    let source = IstioSource::new(istio).map_err(|error| Failure::Source(error.to_string()))?;
    let facts = Facts {
        admin: None,
        strict_start: false,
        dump: dump(source.dump()),
    };
    Ok(Opened::Folder(source, facts))
}

fn dump(dump: Dump) -> Arc<dyn Fn(bool) -> Vec<serde_json::Value> + Send + Sync> {
    Arc::new(move |include_eds| {
        let value = dump.to_value(DumpOptions { include_eds });
        value
            .get("configs")
            .and_then(serde_json::Value::as_array)
            .cloned()
            .unwrap_or_default()
    })
}
