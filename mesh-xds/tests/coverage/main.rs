//! No field is read in silence: each field of each message in rich resources is set in turn, and must change the model,
//! be noted, or be refused.

use std::fmt::Debug;

use mesh_core::config::Rejection;
use mesh_xds::{
    decode::{self, Decoded, Findings},
    file::{FileError, FileSource},
    json,
};
use serde_json::Value;

use walk::play;

mod samples;
mod walk;

const CLUSTER: &str = include_str!("cluster.yaml");
const LISTENER: &str = include_str!("listener.yaml");
const TCP: &str = include_str!("tcp.yaml");
const BOOTSTRAP: &str = include_str!("bootstrap.yaml");
const ROUTES: &str = include_str!("routes.yaml");

/// Fields that may be set without any trace, and why.
const SILENT: [(&str, &str); 36] = [
    (
        "envoy.config.route.v3.RouteConfiguration.max_direct_response_body_size_bytes",
        "acts on tables with a direct response; the tests of decoders have it",
    ),
    ("xds.core.v3.TypedExtensionConfig.name", "the type decides"),
    (
        "envoy.config.route.v3.RouteAction.HashPolicy.terminal",
        "hash policies are listed as a whole",
    ),
    (
        "envoy.config.route.v3.FilterConfig.is_optional",
        "acts on filters that are not known",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.path_with_escaped_slashes_action=KEEP_UNCHANGED",
        "the default",
    ),
    (
        "envoy.config.cluster.v3.CircuitBreakers.Thresholds.priority",
        "says which limits are meant",
    ),
    (
        "envoy.config.cluster.v3.Cluster.circuit_breakers",
        "without limits it says nothing",
    ),
    (
        "envoy.config.cluster.v3.Cluster.round_robin_lb_config",
        "without slow start it says nothing",
    ),
    (
        "envoy.config.endpoint.v3.LocalityLbEndpoints.load_balancer_endpoints",
        "without endpoints it says nothing",
    ),
    (
        "envoy.config.core.v3.KeepaliveSettings.timeout",
        "acts with an interval",
    ),
    (
        "envoy.config.core.v3.Http2ProtocolOptions.connection_keepalive",
        "acts with an interval",
    ),
    (
        "envoy.config.route.v3.HeaderMatcher.present_match",
        "true is the default",
    ),
    (
        "envoy.config.core.v3.TransportSocket.name",
        "the type decides",
    ),
    (
        "envoy.config.core.v3.TypedExtensionConfig.name",
        "the type decides",
    ),
    ("envoy.config.listener.v3.Filter.name", "the type decides"),
    (
        "envoy.config.listener.v3.ListenerFilter.name",
        "the type decides",
    ),
    (
        "envoy.config.accesslog.v3.AccessLog.name",
        "the type decides",
    ),
    (
        "envoy.config.listener.v3.FilterChain.metadata",
        "for control planes",
    ),
    (
        "envoy.config.listener.v3.FilterChain.use_proxy_proto",
        "false is the default",
    ),
    (
        "envoy.config.endpoint.v3.ClusterLoadAssignment.named_endpoints",
        "acts through endpoint_name",
    ),
    (
        "envoy.config.cluster.v3.Cluster.EdsClusterConfig.eds_config",
        "the source decides where endpoints come from",
    ),
    (
        "envoy.config.cluster.v3.Cluster.eds_cluster_config",
        "acts on EDS clusters only",
    ),
    (
        "envoy.config.cluster.v3.Cluster.dns_lookup_family",
        "acts on DNS clusters only",
    ),
    (
        "envoy.config.cluster.v3.Cluster.dns_refresh_rate",
        "acts on DNS clusters only",
    ),
    (
        "envoy.config.cluster.v3.Cluster.respect_dns_ttl",
        "acts on DNS clusters only",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.Rds.config_source",
        "the source decides",
    ),
    (
        "envoy.config.route.v3.VirtualHost.require_tls",
        "none is the default",
    ),
    (
        "envoy.type.matcher.v3.RegexMatcher.google_re2",
        "names the only engine",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig.sds_config",
        "the source decides",
    ),
    (
        "envoy.config.cluster.v3.Cluster.EdsClusterConfig.service_name",
        "acts on EDS clusters only",
    ),
    (
        "envoy.config.listener.v3.Listener.deprecated_v1",
        "true is the default",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter.is_optional",
        "the filter is known",
    ),
    (
        "envoy.config.route.v3.RetryPolicy.RetryHostPredicate.name",
        "the type decides",
    ),
    (
        "envoy.config.route.v3.RouteAction.internal_redirect_action",
        "internal_redirect_policy replaces it",
    ),
    (
        "envoy.config.route.v3.RouteAction.max_internal_redirects",
        "acts with internal_redirect_action",
    ),
    ("envoy.config.core.v3.ConfigSource", "the source decides"),
];

/// Extensions that the decoders know, beside TLS; others are refused by name, or kept as a whole and refuse traffic.
const EXTENSIONS: [&str; 51] = [
    "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
    "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
    "envoy.extensions.clusters.dns.v3.DnsCluster",
    "envoy.extensions.filters.http.compressor.v3.Compressor",
    "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute",
    "envoy.extensions.filters.http.cors.v3.Cors",
    "envoy.extensions.filters.http.cors.v3.CorsPolicy",
    "envoy.extensions.filters.http.fault.v3.HTTPFault",
    "envoy.extensions.filters.http.health_check.v3.HealthCheck",
    "envoy.extensions.filters.http.on_demand.v3.OnDemand",
    "envoy.extensions.filters.http.router.v3.Router",
    "envoy.extensions.filters.http.stateful_session.v3.StatefulSession",
    "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute",
    "envoy.extensions.filters.http.tap.v3.Tap",
    "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
    "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
    "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
    "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    "envoy.extensions.filters.network.direct_response.v3.Config",
    "envoy.extensions.filters.network.echo.v3.Echo",
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    "envoy.extensions.formatter.metadata.v3.Metadata",
    "envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery",
    "envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig",
    "envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig",
    "envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig",
    "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
    "envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig",
    "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
    "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate",
    "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig",
    "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
    "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
    "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided",
    "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
    "envoy.extensions.load_balancing_policies.maglev.v3.Maglev",
    "envoy.extensions.load_balancing_policies.random.v3.Random",
    "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash",
    "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
    "envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality",
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "envoy.config.route.v3.FilterConfig",
    "envoy.config.route.v3.RouteList",
    "envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
    "envoy.type.matcher.v3.HttpRequestQueryParamMatchInput",
];

/// Fields whose messages are not entered, and why.
const CLOSED: [(&str, &str); 7] = [
    (
        "envoy.config.route.v3.FilterAction.action",
        "listed as a whole",
    ),
    (
        "envoy.config.endpoint.v3.ClusterLoadAssignment.named_endpoints",
        "seen where they are named",
    ),
    (
        "envoy.config.listener.v3.FilterChain.metadata",
        "for control planes",
    ),
    (
        "envoy.config.endpoint.v3.ClusterLoadAssignment.Policy.drop_overloads",
        "listed as a whole",
    ),
    (
        "envoy.config.core.v3.Node.user_agent_build_version",
        "for control planes",
    ),
    (
        "envoy.config.core.v3.TransportSocket.typed_config",
        "TLS is kept as a whole and refuses traffic",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3",
        "TLS is kept as a whole and refuses traffic",
    ),
];

/// Fields whose messages cannot be put into the documents, and why.
const UNENTERED: [(&str, &str); 0] = [];

/// What a decoder makes of a document, as text that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    model: String,
    findings: Findings,
}

fn seen<T: Debug>(decoded: Decoded<T>) -> Seen {
    Seen {
        model: format!("{:?}", decoded.value),
        findings: decoded.findings,
    }
}

/// What is seen of a document, or why the schema or the rules of the API refuse it.
type Decode = fn(&str, &Value) -> Result<Seen, String>;

/// Decodes a document as wire bytes.
fn by_wire<T: Debug>(
    message: &str,
    document: &Value,
    decoder: fn(&[u8]) -> Decoded<T>,
) -> Result<Seen, String> {
    let wire = json::to_wire(message, document.clone()).map_err(|error| error.to_string())?;
    json::check(message, &wire).map_err(|violation| violation.to_string())?;
    Ok(seen(decoder(&wire)))
}

/// Reads a document as a bootstrap file.
fn by_file(message: &str, document: &Value) -> Result<Seen, String> {
    let wire = json::to_wire(message, document.clone()).map_err(|error| error.to_string())?;
    json::check(message, &wire).map_err(|violation| violation.to_string())?;
    let source = FileSource::parse("envoy.json", &document.to_string());
    let source = match source {
        Ok(source) => source,
        Err(error) => return Ok(refused(&error)),
    };
    let update = source.first().expect("not taken yet");
    Ok(Seen {
        model: format!("{:?} {:?}", source.bootstrap(), update.changes),
        findings: Findings {
            notes: update.notes.clone(),
            rejections: update.rejections.clone(),
        },
    })
}

fn refused(error: &FileError) -> Seen {
    let rejection = Rejection {
        resource: "file".into(),
        path: error.field.as_str().into(),
        reason: error.reason.as_str().into(),
        location: "".into(),
    };
    Seen {
        model: String::new(),
        findings: Findings {
            notes: Vec::new(),
            rejections: vec![rejection],
        },
    }
}

#[test]
fn every_field_of_a_cluster_is_seen() {
    play(
        "envoy.config.cluster.v3.Cluster",
        CLUSTER,
        |name, document| by_wire(name, document, decode::cluster),
    );
}

#[test]
fn every_field_of_an_http_listener_is_seen() {
    play(
        "envoy.config.listener.v3.Listener",
        LISTENER,
        |name, document| by_wire(name, document, decode::listener),
    );
}

#[test]
fn every_field_of_a_tcp_listener_is_seen() {
    play(
        "envoy.config.listener.v3.Listener",
        TCP,
        |name, document| by_wire(name, document, decode::listener),
    );
}

#[test]
fn every_field_of_a_route_configuration_is_seen() {
    play(
        "envoy.config.route.v3.RouteConfiguration",
        ROUTES,
        |name, document| by_wire(name, document, decode::routes),
    );
}

#[test]
fn every_field_of_a_bootstrap_is_seen() {
    play("envoy.config.bootstrap.v3.Bootstrap", BOOTSTRAP, by_file);
}
