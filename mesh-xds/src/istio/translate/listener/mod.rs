//! Listeners, and the parts that outbound, inbound and gateway listeners share.

use std::time::Duration;

use core::TrafficDirection;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3::Cors;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use mesh_core::model::Cidr;
use serde_json::json;

use hcm::http_connection_manager::{PathWithEscapedSlashesAction, RouteSpecifier, UpgradeConfig};
use tcp::tcp_proxy::{ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight};

use super::{Env, access_log, cluster, connection_settings, pb, proxy_headers};
use crate::istio::api::mesh_config::NormalizationType;
use crate::istio::api::virtual_service::RouteDestination;
use crate::istio::index::{Meta, ProxyKind};
use crate::json::typed_struct;

mod inbound;
mod outbound;

/// How clients announce plain HTTP, as the HTTP inspector says it.
const PLAIN_HTTP: [&str; 2] = ["http/1.1", "h2c"];

/// One filter chain while it is built.
#[derive(Default, Clone)]
pub(super) struct Chain {
    pub(super) name: String,
    /// Server names of the TLS handshake.
    pub(super) sni: Vec<String>,
    /// Destination networks.
    pub(super) networks: Vec<String>,
    /// Only connections that turn out to be plain HTTP.
    pub(super) plain_http: bool,
    /// The route configuration that its requests follow, where it is one by name.
    pub(super) routes: Option<String>,
    pub(super) filters: Vec<listener::Filter>,
    pub(super) tls: Option<core::TransportSocket>,
    /// The object that it was made from.
    pub(super) metadata: Option<core::Metadata>,
}

impl Chain {
    /// The server names that it is for, none where one of them stands for all.
    fn names(&self) -> &[String] {
        if self.sni.iter().any(|name| name == "*") {
            return &[];
        }
        &self.sni
    }

    pub(super) fn matches_all(&self) -> bool {
        self.names().is_empty() && self.networks.is_empty() && !self.plain_http
    }

    /// Whether a connection could belong to both chains with equal right.
    pub(super) fn conflicts_with(&self, other: &Self) -> bool {
        fn overlap<T: PartialEq>(a: &[T], b: &[T]) -> bool {
            (a.is_empty() && b.is_empty()) || a.iter().any(|x| b.contains(x))
        }
        let networks = |chain: &Self| -> Vec<_> {
            let given = chain.networks.iter();
            given.filter_map(|network| masked(network)).collect()
        };
        self.plain_http == other.plain_http
            && overlap(self.names(), other.names())
            && overlap(&networks(self), &networks(other))
    }

    fn build(self) -> listener::FilterChain {
        let mut condition = listener::FilterChainMatch {
            server_names: self.names().to_vec(),
            prefix_ranges: self
                .networks
                .iter()
                .filter_map(|network| range(network))
                .collect(),
            ..listener::FilterChainMatch::default()
        };
        if self.plain_http {
            "raw_buffer".clone_into(&mut condition.transport_protocol);
            condition.application_protocols = PLAIN_HTTP.map(str::to_owned).into();
        }
        let all = condition == listener::FilterChainMatch::default();
        listener::FilterChain {
            filter_chain_match: (!all).then_some(condition),
            filters: self.filters,
            transport_socket: self.tls,
            metadata: self.metadata,
            name: self.name,
            ..listener::FilterChain::default()
        }
    }
}

/// A network without the bits that do not count: 1.2.3.4/8 is 1.0.0.0/8.
fn masked(network: &str) -> Option<Cidr> {
    let range = range(network)?;
    let bits = u8::try_from(range.prefix_len?.value).ok()?;
    Cidr::new(range.address_prefix.parse().ok()?, bits)
}

fn range(network: &str) -> Option<core::CidrRange> {
    let (address, length) = match network.split_once('/') {
        Some((address, length)) => (address, length.parse().ok()?),
        None => (network, if network.contains(':') { 128 } else { 32 }),
    };
    Some(core::CidrRange {
        address_prefix: address.to_owned(),
        prefix_len: Some(pb::uint(length)),
    })
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bind {
    /// IP address, or `unix://` and a path.
    pub(super) address: String,
    pub(super) port: u32,
}

impl Bind {
    pub(super) fn name(&self) -> String {
        format!("{}_{}", self.address, self.port)
    }

    fn address(&self) -> core::Address {
        match self.address.strip_prefix("unix://") {
            Some(path) => pb::pipe(path),
            None => pb::socket_address(&self.address, self.port),
        }
    }
}

/// Where the routes of a connection manager come from.
pub(super) enum Routes {
    /// A route configuration by name.
    Named(String),
    /// This one.
    Inline(Box<RouteConfiguration>),
}

/// The side of a proxy that a connection manager is on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Outbound,
    Inbound,
    Gateway,
}

impl Env<'_> {
    /// A listener with those chains. Chains that match everything come last, so that the first match is the closest.
    pub(super) fn listener(
        &self,
        bind: &Bind,
        chains: Vec<Chain>,
        direction: TrafficDirection,
    ) -> listener::Listener {
        let sni = chains.iter().any(|chain| !chain.sni.is_empty());
        let http = chains.iter().any(|chain| chain.plain_http);
        let mut inspectors = Vec::new();
        if sni {
            inspectors.push(inspector(
                "envoy.filters.listener.tls_inspector",
                pb::any(&TlsInspector::default()),
            ));
        }
        if http {
            inspectors.push(inspector(
                "envoy.filters.listener.http_inspector",
                pb::any(&HttpInspector::default()),
            ));
        }
        // A gateway keeps Envoy's own rules: no chain stands apart, and a client that stays silent is cut off.
        let sidecar = self.proxy.kind == ProxyKind::Sidecar;
        let (general, mut special): (Vec<_>, Vec<_>) = chains
            .into_iter()
            .partition(|chain| sidecar && chain.matches_all());
        let mut general = general.into_iter();
        let mut default = None;
        if special.is_empty() {
            special.extend(general.next());
        } else {
            default = general.next().map(Chain::build);
        }
        // On the way out only HTTP is waited for.
        let detects = http || direction == TrafficDirection::Inbound;
        let timeout = self.context.mesh.protocol_detection_timeout;
        let timeout = timeout.filter(|_| detects).unwrap_or(Duration::ZERO);
        listener::Listener {
            name: bind.name(),
            address: Some(bind.address()),
            filter_chains: special.into_iter().map(Chain::build).collect(),
            default_filter_chain: default,
            listener_filters: inspectors,
            listener_filters_timeout: sidecar.then(|| pb::duration(timeout)),
            continue_on_listener_filters_timeout: sidecar,
            traffic_direction: direction.into(),
            ..listener::Listener::default()
        }
    }

    /// An HTTP connection manager.
    pub(super) fn http_filter(
        &self,
        stat_prefix: String,
        routes: Routes,
        side: Side,
    ) -> listener::Filter {
        let mut manager = hcm::HttpConnectionManager {
            stat_prefix,
            route_specifier: Some(match routes {
                Routes::Inline(config) => RouteSpecifier::RouteConfig(*config),
                Routes::Named(name) => RouteSpecifier::Rds(hcm::Rds {
                    config_source: Some(cluster::ads()),
                    route_config_name: name,
                }),
            }),
            http_filters: self.http_filters(side),
            access_log: access_log::of(&self.context.mesh),
            use_remote_address: Some(pb::boolean(side == Side::Gateway)),
            proxy_100_continue: true,
            upgrade_configs: vec![UpgradeConfig {
                upgrade_type: "websocket".to_owned(),
                ..UpgradeConfig::default()
            }],
            stream_idle_timeout: Some(pb::duration(Duration::ZERO)),
            ..hcm::HttpConnectionManager::default()
        };
        let headers = self.config.proxy_headers.as_ref();
        proxy_headers::on_manager(&mut manager, headers, side != Side::Outbound);
        if side == Side::Gateway {
            let topology = self.config.gateway_topology.as_ref();
            manager.xff_num_trusted_hops =
                topology.map_or(0, |topology| topology.num_trusted_proxies);
        }
        self.normalize_paths(&mut manager);
        if let Some(settings) = connection_settings::of(self.config, self.proxy) {
            connection_settings::on_manager(&mut manager, &settings);
        }
        network_filter("envoy.filters.network.http_connection_manager", &manager)
    }

    fn http_filters(&self, side: Side) -> Vec<hcm::HttpFilter> {
        let headers = self.config.proxy_headers.as_ref();
        let router = Router {
            suppress_envoy_headers: proxy_headers::suppresses_debug_headers(headers),
            ..Router::default()
        };
        vec![
            http_filter("istio.metadata_exchange", peer_metadata(side)),
            http_filter("envoy.filters.http.fault", pb::any(&HttpFault::default())),
            http_filter("envoy.filters.http.cors", pb::any(&Cors::default())),
            http_filter("envoy.filters.http.router", pb::any(&router)),
        ]
    }

    fn normalize_paths(&self, manager: &mut hcm::HttpConnectionManager) {
        let normalization = self
            .context
            .mesh
            .path_normalization
            .as_ref()
            .map(|path| path.normalization);
        let mut slashes = PathWithEscapedSlashesAction::KeepUnchanged;
        match normalization.unwrap_or_default() {
            NormalizationType::None => {}
            NormalizationType::Default | NormalizationType::Base => {
                manager.normalize_path = Some(pb::boolean(true));
            }
            NormalizationType::MergeSlashes => {
                manager.normalize_path = Some(pb::boolean(true));
                manager.merge_slashes = true;
            }
            NormalizationType::DecodeAndMergeSlashes => {
                manager.normalize_path = Some(pb::boolean(true));
                manager.merge_slashes = true;
                slashes = PathWithEscapedSlashesAction::UnescapeAndForward;
            }
        }
        manager.path_with_escaped_slashes_action = slashes.into();
    }

    /// A TCP proxy to one cluster.
    pub(super) fn tcp_filter(&self, cluster: &str, rule_host: Option<&str>) -> listener::Filter {
        let mut proxy = tcp::TcpProxy {
            stat_prefix: cluster.to_owned(),
            cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
            access_log: access_log::of(&self.context.mesh),
            ..tcp::TcpProxy::default()
        };
        self.set_timeouts(&mut proxy, rule_host);
        network_filter("envoy.filters.network.tcp_proxy", &proxy)
    }

    /// A TCP proxy to the destinations of a rule.
    pub(super) fn tcp_route_filter(
        &self,
        arms: &[RouteDestination],
        port: u32,
        rule: &Meta,
    ) -> Option<listener::Filter> {
        let cluster = |arm: &RouteDestination| {
            let to = arm.destination.as_ref()?;
            let service = self.scope.service(&to.host).map(AsRef::as_ref);
            Some(super::route::destination_cluster(to, service, port))
        };
        let host = arms.first()?.destination.as_ref().map(|to| to.host.clone());
        if let [only] = arms {
            return Some(self.tcp_filter(&cluster(only)?, host.as_deref()));
        }
        let clusters = arms.iter().filter(|arm| arm.weight > 0).filter_map(|arm| {
            Some(ClusterWeight {
                name: cluster(arm)?,
                weight: u32::try_from(arm.weight).ok()?,
                metadata_match: None,
            })
        });
        let mut proxy = tcp::TcpProxy {
            stat_prefix: format!("{}.{}", rule.name, rule.namespace),
            cluster_specifier: Some(ClusterSpecifier::WeightedClusters(WeightedCluster {
                clusters: clusters.collect(),
            })),
            access_log: access_log::of(&self.context.mesh),
            ..tcp::TcpProxy::default()
        };
        self.set_timeouts(&mut proxy, host.as_deref());
        Some(network_filter("envoy.filters.network.tcp_proxy", &proxy))
    }

    fn set_timeouts(&self, proxy: &mut tcp::TcpProxy, host: Option<&str>) {
        let rule = host.and_then(|host| self.scope.destination_rule(self.proxy, host));
        let policy = rule.and_then(|rule| rule.spec.traffic_policy.as_ref());
        let Some(settings) =
            policy.and_then(|policy| policy.connection_pool.as_ref()?.tcp.as_ref())
        else {
            return;
        };
        proxy.idle_timeout = settings.idle_timeout.map(pb::duration);
        proxy.max_downstream_connection_duration =
            settings.max_connection_duration.map(pb::duration);
    }
}

fn network_filter<M: prost::Message + prost::Name>(name: &str, config: &M) -> listener::Filter {
    listener::Filter {
        name: name.to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(pb::any(config))),
    }
}

fn inspector(
    name: &str,
    config: envoy_types::pb::google::protobuf::Any,
) -> listener::ListenerFilter {
    listener::ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener::listener_filter::ConfigType::TypedConfig(config)),
        ..listener::ListenerFilter::default()
    }
}

/// Istio's exchange of metadata, by which the receiver of a request names its sender in metrics.
fn peer_metadata(side: Side) -> envoy_types::pb::google::protobuf::Any {
    let headers = json!([{ "istio_headers": {} }]);
    let value = match side {
        Side::Inbound => {
            json!({ "downstream_discovery": headers, "downstream_propagation": headers })
        }
        Side::Outbound | Side::Gateway => {
            json!({ "upstream_discovery": headers, "upstream_propagation": [
            { "istio_headers": { "skip_external_clusters": true } }
        ] })
        }
    };
    // The value is an object, which every JSON value of that kind can be.
    typed_struct(
        "type.googleapis.com/io.istio.http.peer_metadata.Config",
        value,
    )
    .unwrap_or_default()
}

fn http_filter(name: &str, config: envoy_types::pb::google::protobuf::Any) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(config)),
        ..hcm::HttpFilter::default()
    }
}
