//! The part of a bootstrap that is about the program itself.

#![allow(
    deprecated,
    reason = "fields that Envoy still reads are read, noted or refused"
)]

use std::path::PathBuf;

use envoy_types::pb::envoy::config::{
    bootstrap::v3::{
        Admin, Bootstrap as Proto,
        bootstrap::{DynamicResources, StaticResources},
    },
    core::v3::{ConfigSource, Node as ProtoNode},
};
use mesh_core::model::{AccessLog, Address, Metadata, Name};
use prost::Message;

use super::{BOOTSTRAP, subscribe::path_of};
use crate::{
    decode::{
        Context, Findings, access_log, common,
        set::{ignored, unsupported},
    },
    json,
};

/// Settings of the program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bootstrap {
    /// Where the admin server listens; `None`: nowhere.
    pub admin: Option<Address>,
    /// Logs of requests to the admin server.
    pub admin_access_log: Vec<AccessLog>,
    /// Who this proxy is.
    pub node: Node,
    /// File that listeners come from besides (`dynamic_resources.lds_config`).
    pub lds_path: Option<PathBuf>,
    /// File that clusters come from besides (`dynamic_resources.cds_config`).
    pub cds_path: Option<PathBuf>,
}

/// Who a proxy is (`config.core.v3.Node`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Unique among proxies; may be empty.
    pub id: Name,
    /// The service that it belongs to; may be empty.
    pub cluster: Name,
    /// Region, zone and sub-zone.
    pub locality: mesh_core::model::Locality,
    /// What a control plane is told besides, under the namespace `node`.
    pub metadata: Metadata,
}

/// Reads the bootstrap, which lacks its clusters and listeners.
pub(super) fn bootstrap(value: &Proto) -> (Bootstrap, Findings) {
    let mut cx = Context::new("bootstrap");
    if let Err(violation) = json::check(BOOTSTRAP, &value.encode_to_vec()) {
        cx.reject(&violation.path, &violation.reason);
    }
    let out = settings(&mut cx, value);
    (out, cx.finish())
}

fn settings(cx: &mut Context, value: &Proto) -> Bootstrap {
    let Proto {
        node,
        static_resources,
        dynamic_resources,
        admin,
        ..
    } = value;
    ignored!(cx, value; node_context_params, cluster_manager, flags_path, stats_sinks, deferred_stat_options, stats_config,
        stats_flush_interval, watchdog, watchdogs, tracing, layered_runtime, overload_manager,
        enable_dispatcher_stats, stats_server_version_override, use_tcp_for_dns_lookups, dns_resolution_config,
        typed_dns_resolver_config, bootstrap_extensions, fatal_actions, config_sources, default_config_source,
        certificate_provider_instances, inline_headers, perf_tracing_file_path, default_regex_engine,
        xds_delegate_extension, xds_config_tracker_extension, listener_manager, application_log_config,
        grpc_async_client_manager_config, memory_allocator_manager, enable_worker_cpu_affinity, stats_flush,
        stats_eviction);
    unsupported!(cx, value; hds_config, header_prefix, default_socket_interface);
    if let Some(StaticResources {
        listeners: _,
        clusters: _,
        secrets,
    }) = static_resources
    {
        cx.field("static_resources", |cx| {
            ignored!(cx; secrets);
        });
    }
    contradictions(cx, value);
    let mut out = Bootstrap::default();
    if let Some(resources) = dynamic_resources {
        cx.field("dynamic_resources", |cx| dynamic(cx, resources, &mut out));
    }
    if let Some(value) = admin {
        cx.field("admin", |cx| self::admin(cx, value, &mut out));
    }
    if let Some(value) = node {
        out.node = cx.field("node", |cx| self::node(cx, value));
    }
    out
}

/// Fields that Envoy refuses beside each other, also where they have no effect here.
fn contradictions(cx: &mut Context, value: &Proto) {
    if value.stats_flush_interval.is_some() && value.stats_flush.is_some() {
        cx.reject(
            "stats_flush_interval",
            "must not be set beside stats_flush_on_admin",
        );
    }
    if value.watchdog.is_some() && value.watchdogs.is_some() {
        cx.reject("watchdog", "must not be set beside watchdogs");
    }
}

/// Resources may come from files. Without a control plane there would be no configuration at all, so asking for one is
/// refused.
fn dynamic(cx: &mut Context, value: &DynamicResources, out: &mut Bootstrap) {
    let DynamicResources {
        lds_config,
        lds_resources_locator,
        cds_config,
        cds_resources_locator,
        ads_config,
    } = value;
    unsupported!(cx; lds_resources_locator, cds_resources_locator, ads_config);
    for (name, source, path) in [
        ("lds_config", lds_config, &mut out.lds_path),
        ("cds_config", cds_config, &mut out.cds_path),
    ] {
        if let Some(source) = source {
            *path = cx.field(name, |cx| self::source(cx, source));
        }
    }
}

/// The file that resources come from.
fn source(cx: &mut Context, value: &ConfigSource) -> Option<PathBuf> {
    // A file is there or not, so there is nothing to wait for.
    let ConfigSource {
        authorities,
        initial_fetch_timeout,
        resource_api_version: _,
        config_source_specifier: _,
    } = value;
    ignored!(cx; authorities, initial_fetch_timeout);
    let path = path_of(value);
    if path.is_none() {
        cx.reject(
            "",
            "only path_config_source is supported: resources from a file",
        );
    }
    path
}

fn admin(cx: &mut Context, value: &Admin, out: &mut Bootstrap) {
    let Admin {
        access_log,
        access_log_path,
        profile_path,
        address,
        socket_options,
        ignore_global_conn_limit,
        allow_paths,
    } = value;
    ignored!(cx; access_log_path, profile_path, socket_options, ignore_global_conn_limit);
    unsupported!(cx; allow_paths);
    out.admin_access_log = access_log::logs(cx, "access_log", access_log);
    if let Some(address) = address {
        out.admin = cx.field("address", |cx| common::address(cx, address));
    }
}

fn node(cx: &mut Context, value: &ProtoNode) -> Node {
    let ProtoNode {
        id,
        cluster,
        metadata,
        dynamic_parameters,
        locality,
        user_agent_name,
        extensions,
        client_features,
        listening_addresses,
        user_agent_version_type,
    } = value;
    ignored!(cx; dynamic_parameters, user_agent_name, extensions, client_features, listening_addresses,
        user_agent_version_type);
    let metadata = metadata.as_ref().map(|fields| Metadata {
        namespaces: vec![("node".into(), common::object(fields))],
    });
    Node {
        id: id.as_str().into(),
        cluster: cluster.as_str().into(),
        locality: locality
            .as_ref()
            .map(crate::decode::endpoint::place)
            .unwrap_or_default(),
        metadata: metadata.unwrap_or_default(),
    }
}
