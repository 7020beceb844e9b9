//! From a route configuration to its table.

use std::sync::Arc;

use http::HeaderName;

use super::{
    counted::VirtualCluster,
    entry::{
        Arm, Choice, CorsPolicy, EntryAction, FaultRules, FilterPolicy, FilterSetting,
        ForwardEntry, HostEntry, MirrorEntry, RetryRules, RouteEntry,
    },
    format::{BodyFormatter, FormatError},
    head::Field,
    host::HostTable,
    index::{Conditions, RuleSet},
    mutate::Mutations,
    rewrite::{HostChange, PathChange, RedirectTo},
    table::{Host, List, RouteTable, Rules},
    text::header_tests,
    tree::Tree,
};
use crate::{
    config::Rejection,
    model::{
        self, Action, ClusterChoice, FilterConfig, FilterOverride, HeaderMutations, Name, OnMatch,
        Route, RouteConfiguration, RouteRules, VirtualHost, WeightedCluster,
    },
    snapshot::{Clusters, Stage},
};

/// A field path, and what is wrong there.
type Fault = (String, String);
type Result<T, E = Fault> = std::result::Result<T, E>;

/// Puts a fault under `path`.
fn under<'p>(path: impl Fn() -> String + 'p) -> impl Fn(Fault) -> Fault + 'p {
    move |(inner, reason)| match (path(), inner) {
        (path, inner) if inner.is_empty() => (path, reason),
        (path, inner) if path.is_empty() => (inner, reason),
        (path, inner) => (format!("{path}.{inner}"), reason),
    }
}

fn at(path: &'static str) -> impl Fn(String) -> Fault {
    move |reason| (path.to_owned(), reason)
}

/// Compiles a table, or says everything that is wrong with it.
pub(super) fn table(
    config: &RouteConfiguration,
    clusters: &Clusters,
    stages: &[Arc<dyn Stage>],
) -> Result<RouteTable, Vec<Rejection>> {
    let mut faults = Vec::new();
    let mut hosts = HostTable::default();
    let mut entries = Vec::with_capacity(config.virtual_hosts.len());
    let compiler = Compiler {
        table: config,
        clusters,
        stages,
        validates: config.validate_clusters,
    };
    for (index, host) in config.virtual_hosts.iter().enumerate() {
        for (at, domain) in host.domains.iter().enumerate() {
            if !hosts.insert(domain, index as u32) {
                faults.push((
                    format!("virtual_hosts[{index}].domains[{at}]"),
                    format!("domain {domain:?} stands twice; domains are unique in a route configuration"),
                ));
            }
        }
        let found = compiler.host(host, &mut |fault| {
            faults.push(under(|| format!("virtual_hosts[{index}]"))(fault));
        });
        entries.extend(found);
    }
    let host_field = match &config.vhost_header {
        None => None,
        Some(name) => {
            let field = Field::parse(name);
            if field.is_none() {
                faults.push((
                    "vhost_header".to_owned(),
                    format!("no header can have the name {name:?}"),
                ));
            }
            field
        }
    };
    if faults.is_empty() {
        return Ok(RouteTable {
            name: config.name.clone(),
            hosts,
            entries: entries.into(),
            ignore_port: config.ignore_port_in_host,
            host_field,
            internal_only: config.internal_only_headers.clone().into(),
        });
    }
    let rejection = |(path, reason): Fault| Rejection {
        resource: format!("route configuration {}", config.name).into(),
        path: path.into(),
        reason: reason.into(),
        location: "".into(),
    };
    Err(faults.into_iter().map(rejection).collect())
}

#[derive(Clone, Copy)]
struct Compiler<'a> {
    table: &'a RouteConfiguration,
    clusters: &'a Clusters,
    /// Who understands settings of further filters.
    stages: &'a [Arc<dyn Stage>],
    /// An unknown cluster is a fault.
    validates: bool,
}

impl Compiler<'_> {
    fn host(&self, config: &VirtualHost, fault: &mut impl FnMut(Fault)) -> Option<Host> {
        let mut virtual_clusters = Vec::new();
        for (index, cluster) in config.virtual_clusters.iter().enumerate() {
            match header_tests(&cluster.headers) {
                Ok(tests) => {
                    virtual_clusters.push(VirtualCluster::new(cluster.name.clone(), tests));
                }
                Err(name) => fault((
                    format!("virtual_clusters[{index}].headers"),
                    format!("no header can have the name {name:?}"),
                )),
            }
        }
        if !virtual_clusters.is_empty() {
            // What fits none of them is counted under this name.
            virtual_clusters.push(VirtualCluster::new("other".into(), Box::default()));
        }
        let entry = Arc::new(HostEntry {
            table: self.table.name.clone(),
            config: Arc::new(VirtualHost {
                routes: RouteRules::default(),
                ..config.clone()
            }),
            virtual_clusters,
        });
        let rules = match &config.routes {
            RouteRules::List(routes) => self
                .list(&entry, &mut routes.iter(), &mut |at, found| {
                    fault(under(|| format!("routes[{at}]"))(found));
                })
                .map(Rules::List),
            RouteRules::Tree(tree) => match self.tree(&entry, tree) {
                Ok(rules) => Some(rules),
                Err(found) => {
                    fault(under(|| "matcher".to_owned())(found));
                    None
                }
            },
        };
        Some(Host {
            entry,
            require_tls: config.require_tls,
            rules: rules?,
        })
    }

    fn list(
        &self,
        host: &Arc<HostEntry>,
        routes: &mut dyn Iterator<Item = &Route>,
        fault: &mut dyn FnMut(usize, Fault),
    ) -> Option<List> {
        let mut rules = Vec::new();
        let mut entries = Vec::new();
        let mut sound = true;
        for (index, route) in routes.enumerate() {
            let conditions = Conditions::new(&route.matches).map_err(under(|| "match".to_owned()));
            match conditions.and_then(|conditions| Ok((conditions, self.route(host, route)?))) {
                Ok((conditions, entry)) => {
                    rules.push((conditions, &route.matches));
                    entries.push(Arc::new(entry));
                }
                Err(found) => {
                    sound = false;
                    fault(index, found);
                }
            }
        }
        sound.then(|| List {
            set: RuleSet::new(rules, self.table.ignore_path_parameters),
            routes: entries.into(),
        })
    }

    fn tree(&self, host: &Arc<HostEntry>, config: &model::MatchTree) -> Result<Rules> {
        // As in Envoy the clusters of a tree may come later.
        let leaf = Self {
            validates: false,
            ..*self
        };
        let mut lists = Vec::new();
        let tree = Tree::new(config, &mut |on: &OnMatch| {
            let mut first = None;
            let mut keep = |index: usize, found: Fault| {
                first.get_or_insert_with(|| under(|| format!("action.routes[{index}]"))(found));
            };
            let list = match on {
                OnMatch::Route(route) => leaf.list(host, &mut std::iter::once(&**route), &mut keep),
                OnMatch::Routes(routes) => leaf.list(host, &mut routes.iter(), &mut keep),
                OnMatch::Tree(_) | OnMatch::Chain(_) => None,
            };
            match (list, first) {
                (Some(list), _) => {
                    lists.push(list);
                    Ok(lists.len() - 1)
                }
                (None, first) => Err(first.unwrap_or_default()),
            }
        })?;
        Ok(Rules::Tree(tree, lists))
    }

    /// The filter that a route, or an arm of it, has settings of which nobody here understands.
    fn cannot_act<'a>(&self, route: &'a Route, filters: &'a [FilterPolicy]) -> Option<&'a Name> {
        let knows = |kind: &Name| self.stages.iter().any(|stage| stage.knows(kind));
        let of_route = filters.iter().find_map(|policy| match &policy.setting {
            FilterSetting::Opaque(kind, _) if !knows(kind) => Some(&policy.name),
            _ => None,
        });
        let arms = match &route.action {
            Action::Forward(forward) => match &forward.cluster {
                ClusterChoice::Weighted(weighted) => weighted.arms.as_slice(),
                _ => &[],
            },
            _ => &[],
        };
        let mut of_arms = arms.iter().flat_map(|arm| &arm.filters);
        of_route.or_else(|| {
            of_arms.find_map(|own| match &own.config {
                FilterConfig::Opaque(kind, _) if !knows(kind) => Some(&own.filter),
                _ => None,
            })
        })
    }

    fn route(&self, host: &Arc<HostEntry>, config: &Route) -> Result<RouteEntry> {
        let filters = filters(&[&config.filters, &host.config.filters, &self.table.filters])?;
        let absent = self.cannot_act(config, &filters);
        let refusing = absent.map(|filter| refusing(config, filter));
        let config = refusing.as_ref().unwrap_or(config);
        let mut response =
            self.mutations(&host.config.headers, &config.headers, None, Side::Response)?;
        let matched = &config.matches.path;
        let action = match &config.action {
            Action::Forward(forward) => {
                EntryAction::Forward(Box::new(self.forward(host, config, forward)?))
            }
            Action::Redirect(redirect) => EntryAction::Redirect(Box::new(
                RedirectTo::new(redirect, matched).map_err(at("redirect"))?,
            )),
            Action::DirectResponse(direct) => EntryAction::Direct(
                direct
                    .format
                    .as_ref()
                    .map(BodyFormatter::new)
                    .transpose()
                    .map_err(|error| {
                        ("direct_response.body_format".to_owned(), error.to_string())
                    })?,
            ),
            Action::NonForwarding => EntryAction::NonForwarding,
        };
        if let EntryAction::Direct(Some(format)) = &action {
            response.read_also(format.wants());
        }
        Ok(RouteEntry {
            host: host.clone(),
            config: config.clone(),
            action,
            response,
            filters,
            stats: std::sync::OnceLock::new(),
        })
    }

    fn forward(
        &self,
        host: &Arc<HostEntry>,
        route: &Route,
        config: &model::Forward,
    ) -> Result<ForwardEntry> {
        let path = config
            .path_rewrite
            .as_ref()
            .map(|rewrite| PathChange::new(rewrite, &route.matches.path))
            .transpose()
            .map_err(at("route.path_rewrite"))?;
        let host_change = match &config.host_rewrite {
            Some(rewrite) => HostChange::new(rewrite).map_err(at("route.host_rewrite"))?,
            None => None,
        };
        let rewrites = path.is_some() || host_change.is_some();
        let (choice, arms) = self.arms(host, route, &config.cluster, rewrites)?;
        let retry = config.retry.as_ref().or(host.config.retry.as_ref());
        let mirrors = [&config.mirrors, &host.config.mirrors, &self.table.mirrors]
            .into_iter()
            .find(|mirrors| !mirrors.is_empty())
            .map_or(&[][..], |mirrors| mirrors);
        Ok(ForwardEntry {
            config: config.clone(),
            choice,
            arms: arms.into(),
            path,
            host: host_change,
            retry: retry.map(retry_rules).transpose()?.map(Arc::new),
            policies: std::sync::OnceLock::new(),
            mirrors: mirrors
                .iter()
                .map(|mirror| self.mirror(mirror))
                .collect::<Result<_>>()?,
        })
    }

    fn arms(
        &self,
        host: &Arc<HostEntry>,
        route: &Route,
        choice: &ClusterChoice,
        rewrites: bool,
    ) -> Result<(Choice, Vec<Arm>)> {
        let single = |name: &Name| WeightedCluster {
            name: name.clone(),
            header: None,
            weight: 1,
            headers: HeaderMutations::default(),
            host_rewrite: None,
            metadata_match: model::Metadata::default(),
            filters: Vec::new(),
        };
        match choice {
            ClusterChoice::Name(name) => {
                let arm = self.arm(host, route, &single(name), rewrites)?;
                Ok((Choice::Single, vec![arm]))
            }
            ClusterChoice::Header(header) => {
                let arm = self.arm(host, route, &single(&"".into()), rewrites)?;
                let choice = Choice::Header(Field::of(header), self.clusters.clone());
                Ok((choice, vec![arm]))
            }
            ClusterChoice::Weighted(weighted) => {
                let mut arms = Vec::with_capacity(weighted.arms.len());
                for (index, arm) in weighted.arms.iter().enumerate() {
                    let path = || format!("route.weighted_clusters.clusters[{index}]");
                    arms.push(self.arm(host, route, arm, rewrites).map_err(under(path))?);
                }
                let total = arms.iter().map(|arm| u64::from(arm.weight)).sum();
                if total == 0 {
                    return Err(at("route.weighted_clusters")(
                        "the sum of the weights must be over 0".to_owned(),
                    ));
                }
                let choice = Choice::Weighted {
                    total,
                    runtime_prefix: weighted.runtime_key_prefix.clone(),
                    random_header: weighted.random_header.clone(),
                    clusters: self.clusters.clone(),
                };
                Ok((choice, arms))
            }
        }
    }

    fn arm(
        &self,
        host: &Arc<HostEntry>,
        route: &Route,
        config: &WeightedCluster,
        rewrites: bool,
    ) -> Result<Arm> {
        let cluster = match &config.header {
            None if config.name.is_empty() => None,
            None => self.cluster(&config.name)?,
            Some(_) => None,
        };
        let (vhost, own) = (&host.config.headers, &route.headers);
        let request = self.mutations(vhost, own, Some(&config.headers), Side::Request)?;
        let asks = request.adds_any(|name| name.as_str().starts_with("x-envoy-"));
        let plain = !rewrites && request.is_empty() && config.host_rewrite.is_none();
        Ok(Arm {
            name: config.name.clone(),
            cluster,
            header: config.header.as_ref().map(Field::of),
            weight: config.weight,
            request,
            response: self.mutations(vhost, own, Some(&config.headers), Side::Response)?,
            host: config
                .host_rewrite
                .as_ref()
                .map(|host| host.as_bytes().into()),
            filters: filters(&[&config.filters])?,
            cors: self.cors(host, route, &config.filters),
            plain,
            asks,
        })
    }

    /// What all levels say of CORS, the most specific first. The fields of routes and virtual hosts count where no settings of
    /// the filter do.
    fn cors(
        &self,
        host: &HostEntry,
        route: &Route,
        arm: &[FilterOverride],
    ) -> Option<Arc<CorsPolicy>> {
        let merged = |all: &mut dyn Iterator<Item = &model::Cors>| {
            let first = all.next()?.clone();
            Some(CorsPolicy::new(all.fold(first, model::Cors::or)))
        };
        let levels = [
            arm,
            &route.filters,
            &host.config.filters,
            &self.table.filters,
        ];
        let all = levels.into_iter().flatten();
        let is_cors = |setting: &&FilterOverride| matches!(setting.config, FilterConfig::Cors(_));
        let policy = match all.clone().find(is_cors) {
            Some(FilterOverride { filter, .. }) => {
                let mut own = all.filter(|setting| setting.filter == *filter).peekable();
                // It is off where the most specific level says so.
                own.peek().filter(|first| is_cors(first))?;
                merged(&mut own.filter_map(|setting| match &setting.config {
                    FilterConfig::Cors(config) => Some(config),
                    _ => None,
                }))?
            }
            None => {
                let field = match &route.action {
                    Action::Forward(forward) => forward.cors.as_ref(),
                    _ => None,
                };
                let mut fields = field.into_iter().chain(&host.config.cors);
                merged(&mut fields)?.of_field()
            }
        };
        Some(Arc::new(policy))
    }

    fn cluster(&self, name: &Name) -> Result<Option<Arc<crate::cluster::Cluster>>> {
        match self.clusters.get(name) {
            None if self.validates => Err(at("route.cluster")(format!("unknown cluster {name:?}"))),
            found => Ok(found),
        }
    }

    fn mirror(&self, config: &model::Mirror) -> Result<MirrorEntry> {
        let cluster = match &config.cluster {
            ClusterChoice::Name(name) => self.cluster(name)?,
            ClusterChoice::Header(_) | ClusterChoice::Weighted(_) => None,
        };
        let changes = config.headers.iter();
        let levels: Vec<_> = changes
            .map(|headers| side(headers, Side::Request))
            .collect();
        Ok(MirrorEntry {
            config: config.clone(),
            cluster,
            clusters: self.clusters.clone(),
            request: Mutations::new(&levels)
                .map_err(|(_, _, error)| at("request_mirror_policies")(error.to_string()))?,
        })
    }

    /// The arm's changes come first. Then from the route to the table, or the other way round.
    fn mutations(
        &self,
        host: &HeaderMutations,
        route: &HeaderMutations,
        arm: Option<&HeaderMutations>,
        which: Side,
    ) -> Result<Mutations> {
        let mut levels = [
            ("", side(route, which)),
            ("virtual host: ", side(host, which)),
            ("route configuration: ", side(&self.table.headers, which)),
        ];
        if self.table.most_specific_header_mutations_wins {
            levels.reverse();
        }
        let own = arm.map_or((&[][..], &[][..]), |arm| side(arm, which));
        let [first, second, third] = levels;
        let lists = [own, first.1, second.1, third.1];
        Mutations::new(&lists).map_err(|(level, index, error): (usize, usize, FormatError)| {
            let field = match which {
                Side::Request => "request_headers_to_add",
                Side::Response => "response_headers_to_add",
            };
            let of = ["weighted cluster: ", first.0, second.0, third.0][level];
            let path = format!("{field}[{index}].header.value");
            (path, format!("{of}{error}"))
        })
    }
}

#[derive(Clone, Copy)]
enum Side {
    Request,
    Response,
}

fn side(headers: &HeaderMutations, side: Side) -> (&[HeaderName], &[model::HeaderAddition]) {
    match side {
        Side::Request => (&headers.request_remove, &headers.request_add),
        Side::Response => (&headers.response_remove, &headers.response_add),
    }
}

/// The settings of each filter, of the first level that has any.
fn filters(levels: &[&Vec<FilterOverride>]) -> Result<Vec<FilterPolicy>> {
    let mut out: Vec<FilterPolicy> = Vec::new();
    for filter in levels.iter().copied().flatten() {
        if out.iter().any(|known| known.name == filter.filter) {
            continue;
        }
        let setting = match &filter.config {
            FilterConfig::Disabled => FilterSetting::Disabled,
            FilterConfig::Fault(config) => FilterSetting::Fault(Arc::new(FaultRules {
                config: config.clone(),
                headers: tests("typed_per_filter_config", &config.headers)?,
            })),
            FilterConfig::Cors(config) => {
                FilterSetting::Cors(Arc::new(CorsPolicy::new(config.clone())))
            }
            FilterConfig::Opaque(kind, bytes) => FilterSetting::Opaque(kind.clone(), bytes.clone()),
        };
        out.push(FilterPolicy {
            name: filter.filter.clone(),
            setting,
        });
    }
    Ok(out)
}

/// The route with an answer that refuses in place of its action: what would protect it cannot act.
fn refusing(route: &Route, filter: &Name) -> Route {
    Route {
        action: Action::DirectResponse(model::DirectResponse {
            status: http::StatusCode::FORBIDDEN,
            body: format!("HTTP filter {filter} cannot act here").into(),
            format: None,
        }),
        ..route.clone()
    }
}

fn retry_rules(config: &model::RetryPolicy) -> Result<RetryRules> {
    Ok(RetryRules {
        config: config.clone(),
        headers: tests("retry_policy.retriable_headers", &config.headers)?,
        request_headers: tests(
            "retry_policy.retriable_request_headers",
            &config.request_headers,
        )?,
    })
}

fn tests(
    path: &'static str,
    matchers: &[model::HeaderMatcher],
) -> Result<Box<[super::text::HeaderTest]>> {
    header_tests(matchers).map_err(|name| at(path)(format!("no header can have the name {name:?}")))
}
