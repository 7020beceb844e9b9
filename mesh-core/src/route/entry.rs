//! A route as requests use it: everything that its table, virtual host and arm add, resolved once.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use http::HeaderValue;

use super::{
    counted::VirtualCluster,
    format::{BodyFormatter, FormatContext},
    head::{Field, Head, Headers},
    mutate::Mutations,
    rewrite::{HostChange, PathChange, RedirectTo},
    text::{HeaderTest, TextMatcher},
};
use crate::{
    cluster::Cluster,
    model::{self, Name},
    snapshot::Clusters,
    telemetry::metrics::RouteStats,
};

/// A virtual host: what its routes have in common.
#[derive(Debug)]
pub struct HostEntry {
    pub(super) table: Name,
    pub(super) config: Arc<model::VirtualHost>,
    pub(super) virtual_clusters: Vec<VirtualCluster>,
}

impl HostEntry {
    /// Its name.
    pub fn name(&self) -> &Name {
        &self.config.name
    }

    /// Name of the route configuration.
    pub fn table(&self) -> &Name {
        &self.table
    }

    /// Its configuration, without the routes.
    pub fn config(&self) -> &model::VirtualHost {
        &self.config
    }

    /// The virtual cluster of a request: the first that matches, `other` if none does, nothing if there are none.
    pub fn virtual_cluster<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> Option<&str> {
        let mut clusters = self.virtual_clusters.iter();
        let found = clusters.find(|cluster| cluster.matches(head))?;
        Some(&found.name)
    }
}

/// A compiled route.
#[derive(Debug)]
pub struct RouteEntry {
    pub(super) host: Arc<HostEntry>,
    pub(super) config: model::Route,
    pub(super) action: EntryAction,
    /// For direct responses and redirects, which have no arm.
    pub(super) response: Mutations,
    pub(super) filters: Vec<FilterPolicy>,
    /// Of its `stat_prefix`, found by the first request that counts.
    pub(super) stats: OnceLock<Arc<RouteStats>>,
}

/// What a route does, compiled.
#[derive(Debug)]
pub(super) enum EntryAction {
    Forward(Box<ForwardEntry>),
    Redirect(Box<RedirectTo>),
    Direct(Option<BodyFormatter>),
    NonForwarding,
}

impl RouteEntry {
    /// Its virtual host.
    pub fn host(&self) -> &Arc<HostEntry> {
        &self.host
    }

    /// Its configuration.
    pub fn config(&self) -> &model::Route {
        &self.config
    }

    /// Its name, for logs; may be empty.
    pub fn name(&self) -> &Name {
        &self.config.name
    }

    /// Whether it is the one by which istiod refuses hosts that it does not know.
    pub(crate) fn is_block_all(&self) -> bool {
        &*self.config.name == "block_all"
    }

    /// How it sends requests on, if it does.
    pub fn forward(&self) -> Option<&ForwardEntry> {
        match &self.action {
            EntryAction::Forward(forward) => Some(forward),
            _ => None,
        }
    }

    /// Settings of the filter `name` for this route, the most specific level first; an arm may override them.
    pub fn filter(&self, name: &str) -> Option<&FilterSetting> {
        find_filter(&self.filters, name)
    }

    /// Changes of the response's headers, where no arm is chosen.
    pub fn response_mutations(&self) -> &Mutations {
        &self.response
    }

    /// What changes in responses over the arm at this place, of which a route that does not forward has none.
    pub(crate) fn changes(&self, arm: u32) -> &Mutations {
        let arms = self.forward().map_or(&[][..], |forward| &forward.arms);
        arms.get(arm as usize)
            .map_or(&self.response, |arm| &arm.response)
    }

    /// Format of a direct response's body, if it has one.
    pub(super) fn body_format(&self) -> Option<&BodyFormatter> {
        match &self.action {
            EntryAction::Direct(format) => format.as_ref(),
            _ => None,
        }
    }
}

pub(super) fn find_filter<'a>(
    filters: &'a [FilterPolicy],
    name: &str,
) -> Option<&'a FilterSetting> {
    filters
        .iter()
        .find(|filter| *filter.name == *name)
        .map(|filter| &filter.setting)
}

/// How a route sends requests on.
pub struct ForwardEntry {
    pub(super) config: model::Forward,
    pub(super) choice: Choice,
    pub(super) arms: Box<[Arm]>,
    pub(super) path: Option<PathChange>,
    pub(super) host: Option<HostChange>,
    pub(super) retry: Option<Arc<RetryRules>>,
    pub(super) mirrors: Box<[MirrorEntry]>,
    /// What the layers compile of it, made by the first request.
    pub(super) policies: std::sync::OnceLock<crate::layer::RoutePolicies>,
}

/// How the cluster is chosen.
#[derive(Clone, Debug)]
pub(super) enum Choice {
    /// The only arm.
    Single,
    /// The only arm, whose cluster a header names.
    Header(Field, Clusters),
    /// By weight.
    Weighted {
        total: u64,
        runtime_prefix: Name,
        random_header: Option<http::HeaderName>,
        /// For arms whose cluster a header names.
        clusters: Clusters,
    },
}

impl fmt::Debug for ForwardEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForwardEntry")
            .field("choice", &self.choice)
            .field("arms", &self.arms)
            .finish_non_exhaustive()
    }
}

impl ForwardEntry {
    /// The configuration: timeouts, priority, upgrades, …
    pub fn config(&self) -> &model::Forward {
        &self.config
    }

    /// The arms: one, or as many as there are weighted clusters.
    pub fn arms(&self) -> &[Arm] {
        &self.arms
    }

    /// Retries, from the route or its virtual host.
    pub fn retry(&self) -> Option<&Arc<RetryRules>> {
        self.retry.as_ref()
    }

    /// Mirrors, from the route, its virtual host or its table.
    pub fn mirrors(&self) -> &[MirrorEntry] {
        &self.mirrors
    }

    /// Whether the endpoint's host name becomes the authority (`auto_host_rewrite`).
    pub fn auto_host_rewrite(&self) -> bool {
        matches!(self.config.host_rewrite, Some(model::HostRewrite::Auto))
    }
}

/// One cluster of a route.
#[derive(Debug)]
pub struct Arm {
    pub(super) name: Name,
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) header: Option<Field>,
    pub(super) weight: u32,
    pub(super) request: Mutations,
    pub(super) response: Mutations,
    pub(super) host: Option<Box<[u8]>>,
    pub(super) filters: Vec<FilterPolicy>,
    pub(super) cors: Option<Arc<CorsPolicy>>,
    /// Nothing about the request changes: no header, no path, no host.
    pub(super) plain: bool,
    /// Headers that are added may ask for retries.
    pub(crate) asks: bool,
}

impl Arm {
    /// Name of the cluster; empty if a header names it.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The cluster; `None` if there is none of that name.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }
}

/// Settings of one filter.
#[derive(Clone, Debug)]
pub struct FilterPolicy {
    /// Name of the filter in the chain.
    pub name: Name,
    /// What is set.
    pub setting: FilterSetting,
}

/// The settings of a filter for a route, compiled.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum FilterSetting {
    /// The filter is skipped.
    Disabled,
    /// Fault injection.
    Fault(Arc<FaultRules>),
    /// CORS.
    Cors(Arc<CorsPolicy>),
    /// Only a stage understands it: type URL and bytes.
    Opaque(Name, bytes::Bytes),
}

/// A fault and the requests that it meets.
#[derive(Clone, Debug)]
pub struct FaultRules {
    /// The configuration.
    pub config: model::Fault,
    /// All must hold.
    pub headers: Box<[HeaderTest]>,
}

/// CORS with compiled origins.
#[derive(Clone, Debug)]
pub struct CorsPolicy {
    /// The configuration.
    pub config: model::Cors,
    origins: Box<[TextMatcher]>,
    any_origin: bool,
    /// From settings of the filter, not from a route's own field.
    by_filter: bool,
}

impl CorsPolicy {
    /// Compiles settings of the filter.
    pub fn new(config: model::Cors) -> Self {
        let origins: Box<[_]> = config.allow_origins.iter().map(TextMatcher::new).collect();
        Self {
            any_origin: origins.iter().any(|origin| origin.matches(b"*")),
            origins,
            config,
            by_filter: true,
        }
    }

    pub(super) fn of_field(mut self) -> Self {
        self.by_filter = false;
        self
    }

    /// Whether an origin is allowed. A matcher that takes `*` takes all.
    pub fn allows(&self, origin: &[u8]) -> bool {
        self.any_origin || self.origins.iter().any(|known| known.matches(origin))
    }

    /// Whether it acts though the listener's filter is disabled.
    pub(crate) fn enables(&self) -> bool {
        self.by_filter
    }
}

/// Retries with compiled conditions.
#[derive(Clone, Debug)]
pub struct RetryRules {
    /// The configuration.
    pub config: model::RetryPolicy,
    /// One must match the response, for `retriable-headers`.
    pub headers: Box<[HeaderTest]>,
    /// One must match the request, if there are any.
    pub request_headers: Box<[HeaderTest]>,
}

/// A mirror with its cluster.
#[derive(Debug)]
pub struct MirrorEntry {
    pub(super) config: model::Mirror,
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) clusters: Clusters,
    pub(super) request: Mutations,
}

impl MirrorEntry {
    /// The configuration.
    pub fn config(&self) -> &model::Mirror {
        &self.config
    }

    /// Whether this request is mirrored.
    pub fn applies<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> bool {
        head.hit(&self.config.fraction)
    }

    /// The cluster for this request; `None` if there is none.
    pub fn cluster<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> Option<Arc<Cluster>> {
        match &self.config.cluster {
            model::ClusterChoice::Header(name) => {
                let field = Field::of(name);
                let name = std::str::from_utf8(head.first(&field)?).ok()?;
                self.clusters.get(name)
            }
            _ => self.cluster.clone(),
        }
    }

    /// Changes of the copy's headers.
    pub fn request_mutations(&self) -> &Mutations {
        &self.request
    }
}

/// A body that a direct response has, and its `content-type`.
pub(super) fn direct_body<C: FormatContext + ?Sized>(
    entry: &RouteEntry,
    config: &model::DirectResponse,
    context: &C,
) -> (bytes::Bytes, HeaderValue) {
    match entry.body_format() {
        Some(format) => {
            let mut out = Vec::new();
            format.write(context, &mut out);
            (out.into(), format.content_type.clone())
        }
        None => (config.body.clone(), HeaderValue::from_static("text/plain")),
    }
}
