//! Route configurations: virtual hosts, matches and actions (`config.route.v3`).

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::{
    Cors, Fault, HashPolicy, HeaderMatcher, Metadata, MetadataMatcher, Mirror, Name, Origin,
    PathTemplate, ProxyProtocolVersion, QueryMatcher, Regex, RetryPolicy, RuntimeFraction,
    StringMatcher,
};

/// A table of virtual hosts (`config.route.v3.RouteConfiguration`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteConfiguration {
    /// Unique among route configurations; RDS asks by it.
    pub name: Name,
    /// In the order of the configuration.
    pub virtual_hosts: Vec<VirtualHost>,
    /// Changes for every request and response that the table routes.
    pub headers: HeaderMutations,
    /// Headers that no one outside may set (`internal_only_headers`), removed from edge requests.
    pub internal_only_headers: Vec<HeaderName>,
    /// The port in the authority is ignored when a host is matched (`ignore_port_in_host_matching`).
    pub ignore_port_in_host: bool,
    /// Header mutations apply from the most general level to the most specific (`most_specific_header_mutations_wins`);
    /// by default it is the other way round.
    pub most_specific_header_mutations_wins: bool,
    /// Path parameters after `;` are ignored (`ignore_path_parameters_in_path_matching`).
    pub ignore_path_parameters: bool,
    /// Limit of a direct response body in bytes; default 4,096.
    pub max_direct_response_body_bytes: u32,
    /// A missing cluster is an error of the configuration (`validate_clusters`); else its requests answer 503 (or 404).
    pub validate_clusters: bool,
    /// Mirrors of every route that has none of its own.
    pub mirrors: Vec<Mirror>,
    /// Settings of filters by filter name.
    pub filters: Vec<FilterOverride>,
    /// The name of a header that selects the virtual host in the place of the authority (`vhost_header`); `None`: `:authority`.
    pub vhost_header: Option<Name>,
    /// Metadata for other mechanisms.
    pub metadata: Metadata,
    /// The configuration object that it was made of.
    pub origin: Origin,
}

/// Routes for a set of domains (`config.route.v3.VirtualHost`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualHost {
    /// Unique in the table.
    pub name: Name,
    /// Exact, `*.suffix`, `prefix.*` or `*`, as configured.
    pub domains: Vec<Name>,
    /// First match wins.
    pub routes: RouteRules,
    /// Which requests must come over TLS; the others are redirected.
    pub require_tls: RequireTls,
    /// Named groups of requests, for statistics only.
    pub virtual_clusters: Vec<VirtualCluster>,
    /// Changes for requests and responses.
    pub headers: HeaderMutations,
    /// Used by routes without their own.
    pub cors: Option<Cors>,
    /// Used by routes without their own.
    pub retry: Option<RetryPolicy>,
    /// Used by routes without their own.
    pub mirrors: Vec<Mirror>,
    /// `x-envoy-attempt-count` is added to the upstream request.
    pub include_request_attempt_count: bool,
    /// `x-envoy-attempt-count` is added to the response.
    pub include_attempt_count_in_response: bool,
    /// Bytes of a request body that a retry may keep; default: the listener's buffer limit.
    pub per_request_buffer_limit: Option<u64>,
    /// Settings of filters by filter name.
    pub filters: Vec<FilterOverride>,
    /// Metadata for other mechanisms.
    pub metadata: Metadata,
    /// The configuration object that it was made of.
    pub origin: Origin,
}

/// How a virtual host finds its route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteRules {
    /// A list, first match wins (`routes`).
    List(Vec<Route>),
    /// A matcher tree whose leaves are routes or lists of routes (`matcher`, `xds.type.matcher.v3.Matcher`).
    Tree(Box<MatchTree>),
}

impl Default for RouteRules {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

/// A matcher tree over request data, or over what is known of a connection (`xds.type.matcher.v3.Matcher`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchTree {
    /// How a child is found.
    pub node: MatchNode,
    /// What happens when no child matches (`on_no_match`).
    pub on_no_match: Option<OnMatch>,
}

/// The forms of a node in a [`MatchTree`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MatchNode {
    /// Predicates tried in order (`matcher_list`).
    List(Vec<(MatchPredicate, OnMatch)>),
    /// The input equals a key (`exact_match_map`).
    Exact(MatchInput, Vec<(Name, OnMatch)>),
    /// The longest key that is a prefix of the input (`prefix_match_map`).
    Prefix(MatchInput, Vec<(Name, OnMatch)>),
}

/// A predicate in a [`MatchNode::List`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MatchPredicate {
    /// One input against one matcher.
    Single(MatchInput, StringMatcher),
    /// All hold.
    And(Vec<MatchPredicate>),
    /// One holds.
    Or(Vec<MatchPredicate>),
    /// It does not hold.
    Not(Box<MatchPredicate>),
}

/// What a matcher tree reads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MatchInput {
    /// A request header, lower case, pseudo headers included (`HttpRequestHeaderMatchInput`).
    RequestHeader(Name),
    /// A query parameter (`HttpRequestQueryParamMatchInput`).
    QueryParameter(Name),
    /// The address that the connection was made to, as text without port (`DestinationIPInput`).
    DestinationIp,
    /// Its port (`DestinationPortInput`).
    DestinationPort,
    /// The peer's address (`SourceIPInput`).
    SourceIp,
    /// The socket's peer, whatever a PROXY protocol header says (`DirectSourceIPInput`).
    DirectSourceIp,
    /// `local` for a peer on the same host (`SourceTypeInput`).
    SourceType,
    /// `tls` or `raw_buffer` (`TransportProtocolInput`).
    TransportProtocol,
    /// `'h2','http/1.1'`: what the peer offered (`ApplicationProtocolInput`).
    ApplicationProtocols,
    /// The peer's port (`SourcePortInput`).
    SourcePort,
    /// TLS server name (`ServerNameInput`).
    ServerName,
    /// Filter state under a key, as text (`FilterStateInput`).
    FilterState(Name),
}

/// What a match leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnMatch {
    /// Another tree.
    Tree(Box<MatchTree>),
    /// A route; its own match must hold too.
    Route(Box<Route>),
    /// Routes, first match wins (`RouteList`).
    Routes(Vec<Route>),
    /// A filter chain by name, in the tree of a listener.
    Chain(Name),
}

/// Which requests of a virtual host must come over TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequireTls {
    /// None.
    #[default]
    None,
    /// Those from outside.
    ExternalOnly,
    /// All.
    All,
}

/// A named group of requests, counted apart (`config.route.v3.VirtualCluster`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualCluster {
    /// Name in statistics.
    pub name: Name,
    /// All must hold; pseudo headers allowed.
    pub headers: Vec<HeaderMatcher>,
}

/// One rule (`config.route.v3.Route`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// For logs and explanations; may be empty.
    pub name: Name,
    /// When it applies.
    pub matches: RouteMatch,
    /// What is done.
    pub action: Action,
    /// Changes for requests and responses.
    pub headers: HeaderMutations,
    /// Name of the span (`decorator.operation`).
    pub decorator: Option<Name>,
    /// Settings of filters by filter name.
    pub filters: Vec<FilterOverride>,
    /// Bytes of a request body that a retry may keep.
    pub per_request_buffer_limit: Option<u64>,
    /// Statistics of this route are kept apart under the prefix (`stat_prefix`).
    pub stat_prefix: Option<Name>,
    /// Metadata for other mechanisms.
    pub metadata: Metadata,
    /// The configuration object that it was made of.
    pub origin: Origin,
}

/// When a route applies (`config.route.v3.RouteMatch`); all parts hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    /// The path is compared by case (`case_sensitive`, default true).
    pub case_sensitive: bool,
    /// Request headers.
    pub headers: Vec<HeaderMatcher>,
    /// Query parameters.
    pub query: Vec<QueryMatcher>,
    /// Only requests with `content-type: application/grpc…` (`grpc`).
    pub grpc: bool,
    /// Only this share of requests.
    pub runtime_fraction: Option<RuntimeFraction>,
    /// Dynamic metadata of the request.
    pub metadata: Vec<MetadataMatcher>,
    /// Filter state of the request.
    pub filter_state: Vec<MetadataMatcher>,
    /// TLS client certificate: `(presented, validated)` as wanted.
    pub tls: Option<(Option<bool>, Option<bool>)>,
}

/// The forms of a path match.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathMatch {
    /// Path begins with it; the query is not part of it.
    Prefix(Name),
    /// Path equals it.
    Exact(Name),
    /// Path equals it or goes on with `/` (`path_separated_prefix`).
    SeparatedPrefix(Name),
    /// Whole path without query.
    Regex(Regex),
    /// URI template.
    Template(PathTemplate),
    /// A CONNECT request (`connect_matcher`); also extended CONNECT.
    Connect,
}

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
    pub port: Option<u16>,
    /// New path.
    pub path: Option<RedirectPath>,
    /// 301, 302, 303, 307 or 308.
    pub code: http::StatusCode,
    /// The query is dropped.
    pub strip_query: bool,
}

/// How a redirect changes the scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemeRedirect {
    /// To `https`; a port 80 is dropped.
    Https,
    /// To this scheme.
    To(Name),
}

/// How a redirect changes the path.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// How a local body is made (`config.core.v3.SubstitutionFormatString`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyFormat {
    /// The text, or the JSON template rendered as text.
    pub format: FormatKind,
    /// `content-type`; default `text/plain`, for JSON `application/json`.
    pub content_type: Option<HeaderValue>,
}

/// Text or JSON format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatKind {
    /// One line of text.
    Text(Format),
    /// An object whose string leaves are formats.
    Json(Vec<(Name, JsonFormat)>),
}

/// A value of a JSON format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonFormat {
    /// A leaf; a single operator keeps its type.
    Leaf(Format),
    /// A constant that is not text.
    Constant(super::Value),
    /// An object.
    Object(Vec<(Name, JsonFormat)>),
    /// A list.
    List(Vec<JsonFormat>),
}

/// Text with Envoy's `%COMMAND(args):length%` operators, kept as written; the route compiler parses it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Format {
    /// As configured; known to parse.
    pub text: Name,
}

/// Changes of headers (`request_headers_to_add`, …).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderMutations {
    /// For the request on its way up, in order.
    pub request_add: Vec<HeaderAddition>,
    /// Removed from the request, before the additions.
    pub request_remove: Vec<HeaderName>,
    /// For the response on its way down, in order.
    pub response_add: Vec<HeaderAddition>,
    /// Removed from the response, before the additions.
    pub response_remove: Vec<HeaderName>,
}

impl HeaderMutations {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.request_add.is_empty()
            && self.request_remove.is_empty()
            && self.response_add.is_empty()
            && self.response_remove.is_empty()
    }
}

/// One header that is set or added (`config.core.v3.HeaderValueOption`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderAddition {
    /// Its name; `:path`, `:method` and `:authority`/`host` are refused by the decoder where Envoy refuses them.
    pub name: HeaderName,
    /// Its value.
    pub value: Format,
    /// What happens if it exists.
    pub action: AppendAction,
    /// It is kept even when its value turns out empty (`keep_empty_value`).
    pub keep_empty: bool,
}

/// What an addition does if the header exists (`HeaderAppendAction`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppendAction {
    /// One more value.
    #[default]
    AppendIfExistsOrAdd,
    /// Only if it is absent.
    AddIfAbsent,
    /// Replaces all values, or adds.
    OverwriteIfExistsOrAdd,
    /// Replaces only if it exists.
    OverwriteIfExists,
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

/// A filter's settings for one route, virtual host, table or arm (`typed_per_filter_config`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilterOverride {
    /// Name of the filter in the chain.
    pub filter: Name,
    /// What is set.
    pub config: FilterConfig,
}

impl FilterOverride {
    /// Settings of `filter`.
    pub fn new(filter: Name, config: FilterConfig) -> Self {
        Self { filter, config }
    }
}

/// The settings that mesh-core itself understands; others are claimed by stages.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FilterConfig {
    /// The filter is skipped (`FilterConfig.disabled`).
    Disabled,
    /// Fault injection.
    Fault(Fault),
    /// CORS.
    Cors(Cors),
    /// A message that only a stage understands: type URL and bytes. Without a stage the resource fails closed.
    Opaque(Name, bytes::Bytes),
}
