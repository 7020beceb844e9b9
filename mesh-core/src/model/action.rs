//! What a route does with a request: forward, redirect, answer (`config.route.v3.RouteAction` and its like).

use std::time::Duration;

use http::HeaderName;

use super::{
    BodyFormat, Cors, FilterOverride, Format, HashPolicy, HeaderMutations, Metadata, Mirror, Name,
    ProxyProtocolVersion, Regex, RetryPolicy,
};

/// What a route does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Sends the request on.
    Forward(Box<Forward>),
    /// Answers with a redirect.
    Redirect(Box<Redirect>),
    /// Answers by itself.
    DirectResponse(DirectResponse),
    /// Goes on to the wrapped application (`non_forwarding_action`, `filter_action`).
    NonForwarding,
}

/// Sends the request to a cluster (`config.route.v3.RouteAction`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Where to.
    pub cluster: ClusterChoice,
    /// Answer if the cluster is unknown: 503 (default), 404 or 500.
    pub cluster_not_found_status: http::StatusCode,
    /// Change of the path.
    pub path_rewrite: Option<PathRewrite>,
    /// Change of the authority.
    pub host_rewrite: Option<HostRewrite>,
    /// The old authority is appended to `x-forwarded-host` (`append_x_forwarded_host`).
    pub append_x_forwarded_host: bool,
    /// Whole exchange; `None`: 15 s as Envoy; zero: none.
    pub timeout: Option<Duration>,
    /// Nothing moves for so long; `None`: the connection manager's.
    pub idle_timeout: Option<Duration>,
    /// Longest life of a stream, and how the request's `grpc-timeout` counts.
    pub max_stream_duration: Option<MaxStreamDuration>,
    /// The older pair (`max_grpc_timeout`, `grpc_timeout_offset`): the request's `grpc-timeout` replaces `timeout`, at most
    /// this long (zero: any).
    pub max_grpc_timeout: Option<Duration>,
    /// Taken off the request's `grpc-timeout`.
    pub grpc_timeout_offset: Option<Duration>,
    /// Retries; `None`: the virtual host's.
    pub retry: Option<RetryPolicy>,
    /// Mirrors; empty: the virtual host's.
    pub mirrors: Vec<Mirror>,
    /// `high` selects the second set of limits.
    pub priority: Priority,
    /// How the hash for sticky picks is made. Acts with the hashing pickers.
    pub hash: Vec<HashPolicy>,
    /// CORS; `None`: the virtual host's.
    pub cors: Option<Cors>,
    /// Upgrades that this route allows or forbids, by lower-case name: `websocket`, `connect`, …
    pub upgrades: Vec<Upgrade>,
    /// Only endpoints whose metadata in `envoy.lb` hold these.
    pub metadata_match: Metadata,
    /// Redirects of the upstream that the proxy follows itself (`internal_redirect_policy`).
    pub internal_redirect: Option<InternalRedirect>,
}

impl Forward {
    /// Sends requests to `cluster` with Envoy's defaults.
    pub fn to(cluster: ClusterChoice) -> Self {
        Self {
            cluster,
            cluster_not_found_status: http::StatusCode::SERVICE_UNAVAILABLE,
            path_rewrite: None,
            host_rewrite: None,
            append_x_forwarded_host: false,
            timeout: None,
            idle_timeout: None,
            max_stream_duration: None,
            max_grpc_timeout: None,
            grpc_timeout_offset: None,
            retry: None,
            mirrors: Vec::new(),
            priority: Priority::Default,
            hash: Vec::new(),
            cors: None,
            upgrades: Vec::new(),
            metadata_match: Metadata::default(),
            internal_redirect: None,
        }
    }
}

/// The limits of a stream's life (`RouteAction.MaxStreamDuration`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaxStreamDuration {
    /// Longest life; zero: none.
    pub max: Option<Duration>,
    /// The request's `grpc-timeout` counts, at most this long; zero: any.
    pub grpc_timeout_header_max: Option<Duration>,
    /// Taken off the request's `grpc-timeout`.
    pub grpc_timeout_header_offset: Option<Duration>,
}

/// Which redirects of an upstream are followed (`InternalRedirectPolicy`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalRedirect {
    /// How many in a row; default 1.
    pub max: u32,
    /// Which codes; default 302.
    pub codes: Vec<u16>,
    /// From plain HTTP to HTTPS and back too.
    pub cross_scheme: bool,
    /// Each may refuse the target.
    pub predicates: Vec<RedirectPredicate>,
    /// Headers of the redirect that the next request gets, or loses if the redirect has none (`response_headers_to_copy`).
    pub copy_headers: Vec<HeaderName>,
}

/// A condition for the target of an [`InternalRedirect`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedirectPredicate {
    /// The route of the target has one of these names.
    AllowListedRoutes(Vec<Name>),
    /// The present route has not been redirected to the route of the target for this request before.
    PreviousRoutes,
    /// Not from plain HTTP to HTTPS.
    SafeCrossScheme,
}

/// How the cluster is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterChoice {
    /// One cluster.
    Name(Name),
    /// A request header names it.
    Header(HeaderName),
    /// Shares.
    Weighted(WeightedClusters),
}

/// Shares of clusters (`config.route.v3.WeightedCluster`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedClusters {
    /// At least one has a weight over zero.
    pub arms: Vec<WeightedCluster>,
    /// The sum of the weights, ≤ 2^32-1.
    pub total: u32,
    /// Prefix of runtime keys that override weights; empty for none.
    pub runtime_key_prefix: Name,
    /// A header that holds the random value (`header_name`).
    pub random_header: Option<HeaderName>,
    /// The hash policies decide, so that one user stays on one arm (`use_hash_policy`).
    pub use_hash: bool,
}

/// One share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedCluster {
    /// Name of the cluster, or empty if `header` names it.
    pub name: Name,
    /// A request header that names the cluster.
    pub header: Option<HeaderName>,
    /// Share of [`WeightedClusters::total`].
    pub weight: u32,
    /// Changes for requests and responses of this arm.
    pub headers: HeaderMutations,
    /// Authority for this arm.
    pub host_rewrite: Option<Name>,
    /// Only endpoints whose metadata in `envoy.lb` hold these.
    pub metadata_match: Metadata,
    /// Settings of filters by filter name.
    pub filters: Vec<FilterOverride>,
}

/// How the path changes; the query stays.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathRewrite {
    /// The matched prefix or path is replaced (`prefix_rewrite`).
    Prefix(Name),
    /// Each match is replaced; `\1` stands for a group (`regex_rewrite`).
    Regex(Regex, Name),
    /// The path becomes the formatted text (`path_rewrite`, `full_path_rewrite`).
    Full(Format),
    /// URI template rewrite (`path_rewrite_policy`).
    Template(Name),
}

/// How the authority changes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostRewrite {
    /// A fixed text.
    Literal(Name),
    /// The formatted text (`host_rewrite`).
    Format(Format),
    /// The value of a request header.
    Header(HeaderName),
    /// The host name of the endpoint (`auto_host_rewrite`).
    Auto,
    /// A regex over the path, its result is the host (`host_rewrite_path_regex`).
    PathRegex(Regex, Name),
}

/// A redirect (`config.route.v3.RedirectAction`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// New scheme.
    pub scheme: Option<SchemeRedirect>,
    /// New host.
    pub host: Option<Name>,
    /// New port.
    pub port: Option<u32>,
    /// New path.
    pub path: Option<RedirectPath>,
    /// 301, 302, 303, 307 or 308.
    pub code: http::StatusCode,
    /// The query is dropped.
    pub strip_query: bool,
}

/// How a redirect changes the scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchemeRedirect {
    /// To `https`; a port 80 is dropped.
    Https,
    /// To this scheme.
    To(Name),
}

/// How a redirect changes the path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedirectPath {
    /// The whole path; its own query, if it has one, replaces the request's.
    Full(Name),
    /// The matched prefix.
    Prefix(Name),
    /// Each match; `\1` stands for a group.
    Regex(Regex, Name),
    /// The formatted text (`path_rewrite`).
    Format(Format),
}

/// An answer of our own (`config.route.v3.DirectResponseAction`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    /// The status.
    pub status: http::StatusCode,
    /// The body.
    pub body: bytes::Bytes,
    /// The body is a format with `%…%` operators (`body_format`); its text replaces `body`.
    pub format: Option<BodyFormat>,
}

/// Which set of limits a request counts against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Priority {
    /// The first set.
    #[default]
    Default,
    /// The second set.
    High,
}

/// Whether a protocol upgrade is allowed (`UpgradeConfig`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Lower case: `websocket`, `connect`, …
    pub kind: Name,
    /// Allowed.
    pub enabled: bool,
    /// For CONNECT: the proxy ends it and sends the payload on as TCP (`connect_config`).
    pub connect: Option<ConnectConfig>,
}

/// How a CONNECT request ends here (`UpgradeConfig.ConnectConfig`): its payload goes on as raw TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectConfig {
    /// A POST request may end so too.
    pub allow_post: bool,
    /// The upstream connection begins with a PROXY protocol header of this version.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
}
