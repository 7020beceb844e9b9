//! Route configurations: virtual hosts, matches and what applies to them (`config.route.v3`).

use http::{HeaderName, HeaderValue};

use super::{
    Action, Cidr, CookieMatcher, Cors, Fault, HeaderMatcher, Metadata, MetadataMatcher, Mirror,
    Name, Origin, PathTemplate, QueryMatcher, Regex, RetryPolicy, RuntimeFraction, StringMatcher,
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
    /// Further attempts say in `x-envoy-is-timeout-retry` whether the one before took too long
    /// (`include_is_timeout_retry_header`).
    pub include_is_timeout_retry: bool,
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

impl MatchNode {
    /// What the node leads to, in the order of the configuration.
    pub fn children(&self) -> impl Iterator<Item = &OnMatch> {
        let (list, map): (&[_], &[_]) = match self {
            Self::List(list) => (list, &[]),
            Self::Exact(_, map) | Self::Prefix(_, map) => (&[], map),
        };
        let of_list = list.iter().map(|(_, on)| on);
        of_list.chain(map.iter().map(|(_, on)| on))
    }
}

/// A predicate in a [`MatchNode::List`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MatchPredicate {
    /// One input against one matcher.
    Single(MatchInput, StringMatcher),
    /// The input is an address in one of these blocks (`matching.input_matchers.ip.v3.Ip`).
    Ip(MatchInput, Vec<Cidr>),
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

impl Route {
    /// A rule that only says what is done, and when.
    pub fn new(matches: RouteMatch, action: Action) -> Self {
        Self {
            name: "".into(),
            matches,
            action,
            headers: HeaderMutations::default(),
            decorator: None,
            filters: Vec::new(),
            per_request_buffer_limit: None,
            stat_prefix: None,
            metadata: Metadata::default(),
            origin: Origin::default(),
        }
    }
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
    /// Cookies.
    pub cookies: Vec<CookieMatcher>,
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

impl RouteMatch {
    /// By the path alone, in the case in which it is written.
    pub fn path(path: PathMatch) -> Self {
        Self {
            path,
            case_sensitive: true,
            headers: Vec::new(),
            query: Vec::new(),
            cookies: Vec::new(),
            grpc: false,
            runtime_fraction: None,
            metadata: Vec::new(),
            filter_state: Vec::new(),
            tls: None,
        }
    }
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
#[non_exhaustive]
pub enum FormatKind {
    /// One line of text.
    Text(Format),
    /// An object whose string leaves are formats.
    Json(Vec<(Name, JsonFormat)>),
}

/// A value of a JSON format.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
    /// A message that only a stage understands: type URL and bytes. Without a stage its routes answer 403.
    Opaque(Name, bytes::Bytes),
}
