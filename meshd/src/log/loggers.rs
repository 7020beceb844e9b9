//! Envoy's loggers, which command lines and `istioctl proxy-config log` name, and the parts of this program that they are.

/// Loggers with parts of this program behind them: the parts' targets in the log.
const PARTS: &[(&str, &[&str])] = &[
    ("admin", &["meshd::admin"]),
    ("config", &["mesh_xds", "mesh_core::snapshot::driver"]),
    ("conn_handler", &["mesh_core::server"]),
    ("connection", &["mesh_core::transport"]),
    ("dns", &["mesh_core::snapshot::dns"]),
    ("filter", &["mesh_core::tcp"]),
    ("http", &["mesh_core::layer::route"]),
    ("http2", &["h2"]),
    ("main", &["meshd"]),
    ("pool", &["mesh_core::pool"]),
    ("router", &["mesh_core::layer"]),
    ("upstream", &["mesh_core::cluster"]),
];

/// Envoy's other loggers: nothing here writes under their names.
const SILENT: &[&str] = &[
    "a2a",
    "ai_protocol_manager",
    "alternate_protocols_cache",
    "assert",
    "aws",
    "backtrace",
    "basic_auth",
    "cache_filter",
    "client",
    "compression",
    "credential_injector",
    "decompression",
    "dubbo",
    "dynamic_modules",
    "envoy_bug",
    "ext_authz",
    "ext_proc",
    "file",
    "forward_proxy",
    "geolocation",
    "golang",
    "grpc",
    "happy_eyeballs",
    "hc",
    "health_checker",
    "hystrix",
    "init",
    "io",
    "ip_tagging",
    "json_rpc",
    "jwt",
    "kafka",
    "key_value_store",
    "local_rate_limit",
    "lua",
    "matcher",
    "mcp",
    "misc",
    "mongo",
    "multi_connection",
    "notification",
    "oauth2",
    "quic",
    "quic_stream",
    "rate_limit_quota",
    "rbac",
    "rds",
    "redis",
    "rocketmq",
    "runtime",
    "secret",
    "sse",
    "stats",
    "stats_sinks",
    "tap",
    "testing",
    "thrift",
    "tracing",
    "udp",
    "wasm",
    "websocket",
];

/// A logger and its parts; none behind those that are silent.
pub(super) type Logger = (&'static str, &'static [&'static str]);

/// Every logger, sorted.
pub(super) fn all() -> Vec<Logger> {
    let silent = SILENT.iter().map(|name| (*name, &[] as &[_]));
    let mut all: Vec<_> = PARTS.iter().copied().chain(silent).collect();
    all.sort_unstable();
    all
}

/// The logger of this name.
pub(super) fn find(name: &str) -> Option<Logger> {
    all().into_iter().find(|(known, _)| *known == name)
}
