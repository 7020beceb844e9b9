//! Opens the source of configuration that the command line names.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use mesh_xds::{
    file::{FileError, FileOptions, FileSource},
    graph::Dump,
    istio::{
        index::{ProcessSettings, ProxyKind},
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
    pub(crate) dump: Dump,
    /// Which kinds of resources may come and go.
    pub(crate) dynamic: Dynamic,
    /// What a folder asks of the process, there with the first configuration.
    pub(crate) settings: Option<Arc<OnceLock<ProcessSettings>>>,
}

/// Which kinds of resources may come and go; the others are those of the start file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dynamic {
    pub(crate) clusters: bool,
    pub(crate) listeners: bool,
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
        dump: source.dump(),
        dynamic: Dynamic {
            clusters: source.bootstrap().cds_path.is_some(),
            listeners: source.bootstrap().lds_path.is_some(),
        },
        settings: None,
    };
    Ok(Opened::File(source, facts))
}

fn folder(args: &FolderArgs, gateway: bool) -> Result<Opened, Failure> {
    let (namespace, name) = args.workload.clone();
    let spec = ProxySpec {
        kind: if gateway {
            ProxyKind::Router
        } else {
            ProxyKind::Sidecar
        },
        namespace,
        name,
        bind: args.bind.map(|ip| ip.to_string()),
        application_address: args.application.map(|ip| ip.to_string()),
        ..ProxySpec::default()
    };
    let mut istio = IstioOptions::new(&args.config, spec);
    istio.strict = args.strict;
    istio.insecure_skip = args.insecure_skip.iter().cloned().collect();
    let source = IstioSource::new(istio).map_err(|error| Failure::Source(error.reason))?;
    let facts = Facts {
        admin: None,
        strict_start: false,
        dump: source.dump(),
        dynamic: Dynamic {
            clusters: true,
            listeners: true,
        },
        settings: Some(source.settings()),
    };
    Ok(Opened::Folder(source, facts))
}
