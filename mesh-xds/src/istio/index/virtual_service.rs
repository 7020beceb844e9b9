//! VirtualService rules: names made full, delegates merged into the rules that refer to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{MESH_GATEWAY, Meta, Problem, default_export, host};
use crate::istio::api::json::StringMatch;
use crate::istio::api::virtual_service::{
    Destination, HttpMatchRequest, HttpRoute, VirtualService,
};
use crate::istio::api::{MeshConfig, Object, Spec};

/// Whose rules a VirtualService follows: it may have been made from another kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Semantics {
    /// Istio's own.
    #[default]
    VirtualService,
    /// Made from a Kubernetes Ingress.
    Ingress,
    /// Made from a Gateway API route.
    Gateway,
}

/// A VirtualService, ready for use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VirtualServiceRule {
    /// Name, namespace and source.
    pub meta: Meta,
    /// Content with full host and gateway names.
    pub spec: VirtualService,
    /// Whose rules it follows.
    pub semantics: Semantics,
    /// Namespaces that may see it; `*` is all.
    pub export_to: BTreeSet<String>,
}

impl VirtualServiceRule {
    /// A rule as it stands in `object`, without any name made full.
    #[must_use]
    pub fn unresolved(object: &Object, spec: &VirtualService) -> Self {
        let semantics = match object
            .annotations
            .get("internal.istio.io/route-semantics")
            .map(String::as_str)
        {
            Some("gateway") => Semantics::Gateway,
            Some("ingress") => Semantics::Ingress,
            _ => Semantics::VirtualService,
        };
        Self {
            meta: Meta::of(object),
            spec: spec.clone(),
            semantics,
            export_to: BTreeSet::new(),
        }
    }

    /// The gateways that it is bound to; all sidecars when none is named.
    pub fn gateways(&self) -> impl Iterator<Item = &str> {
        let mesh = self.spec.gateways.is_empty().then_some(MESH_GATEWAY);
        mesh.into_iter()
            .chain(self.spec.gateways.iter().map(String::as_str))
    }

    /// Every destination, with the ports that are asked for; 0 stands for all of them.
    ///
    /// Rules that are for other source namespaces than `namespace` are left out.
    #[must_use]
    pub fn destinations(&self, namespace: &str) -> BTreeMap<&str, BTreeSet<u32>> {
        let mut found: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
        let mut list: Vec<&Destination> = Vec::new();
        for rule in self
            .spec
            .http
            .iter()
            .filter(|rule| applies_to(rule, namespace))
        {
            list.extend(rule.route.iter().filter_map(|arm| arm.destination.as_ref()));
            list.extend(&rule.mirror);
            list.extend(
                rule.mirrors
                    .iter()
                    .filter_map(|mirror| mirror.destination.as_ref()),
            );
        }
        let tcp = self.spec.tcp.iter().flat_map(|rule| &rule.route);
        let tls = self.spec.tls.iter().flat_map(|rule| &rule.route);
        list.extend(tcp.chain(tls).filter_map(|arm| arm.destination.as_ref()));
        for destination in list {
            let port = destination.port.as_ref().map_or(0, |port| port.number);
            found.entry(&destination.host).or_default().insert(port);
        }
        found
    }
}

fn applies_to(rule: &HttpRoute, namespace: &str) -> bool {
    let named: Vec<_> = rule
        .matches
        .iter()
        .map(|m| m.source_namespace.as_str())
        .filter(|name| !name.is_empty())
        .collect();
    named.is_empty() || named.contains(&namespace)
}

/// Rules without hosts, which others delegate to, by namespace and name.
type Delegates = BTreeMap<(String, String), VirtualServiceRule>;

/// All rules with hosts, the oldest first.
pub(super) fn collect(
    objects: &[Arc<Object>],
    mesh: &MeshConfig,
    domain: &str,
    problems: &mut Vec<Problem>,
) -> Vec<Arc<VirtualServiceRule>> {
    let all = objects.iter().filter_map(|object| match &object.spec {
        Spec::VirtualService(spec) => Some(resolve(object, spec, mesh, domain)),
        _ => None,
    });
    let (parts, roots): (Vec<_>, Vec<_>) = all.partition(|rule| rule.spec.hosts.is_empty());
    let named = |rule: &VirtualServiceRule| (rule.meta.namespace.clone(), rule.meta.name.clone());
    let delegates: Delegates = parts.into_iter().map(|rule| (named(&rule), rule)).collect();
    let mut rules: Vec<_> = roots
        .into_iter()
        .map(|rule| Arc::new(merge_delegates(rule, &delegates, problems)))
        .collect();
    rules.sort_by(|a, b| a.meta.age().cmp(&b.meta.age()));
    rules
}

fn resolve(
    object: &Object,
    spec: &VirtualService,
    mesh: &MeshConfig,
    domain: &str,
) -> VirtualServiceRule {
    let mut rule = VirtualServiceRule::unresolved(object, spec);
    rule.export_to = if spec.export_to.is_empty() {
        default_export(&mesh.default_virtual_service_export_to)
    } else {
        spec.export_to.iter().cloned().collect()
    };
    if rule.export_to.remove(".") {
        rule.export_to.insert(rule.meta.namespace.clone());
    }
    if rule.semantics != Semantics::Gateway {
        resolve_names(&mut rule.spec, &rule.meta.namespace, domain);
    }
    rule
}

fn resolve_names(spec: &mut VirtualService, namespace: &str, domain: &str) {
    let full = |name: &mut String| *name = host::resolve(name, namespace, domain);
    let gateways = |names: &mut Vec<String>| {
        for name in names {
            *name = resolve_gateway(name, namespace);
        }
    };
    spec.hosts.iter_mut().for_each(full);
    gateways(&mut spec.gateways);
    for rule in &mut spec.http {
        rule.matches
            .iter_mut()
            .for_each(|m| gateways(&mut m.gateways));
        let arms = rule
            .route
            .iter_mut()
            .filter_map(|arm| arm.destination.as_mut());
        let mirrors = rule
            .mirrors
            .iter_mut()
            .filter_map(|mirror| mirror.destination.as_mut());
        arms.chain(mirrors)
            .chain(&mut rule.mirror)
            .for_each(|to| full(&mut to.host));
    }
    for rule in &mut spec.tcp {
        rule.matches
            .iter_mut()
            .for_each(|m| gateways(&mut m.gateways));
        rule.route
            .iter_mut()
            .filter_map(|arm| arm.destination.as_mut())
            .for_each(|to| full(&mut to.host));
    }
    for rule in &mut spec.tls {
        rule.matches
            .iter_mut()
            .for_each(|m| gateways(&mut m.gateways));
        rule.route
            .iter_mut()
            .filter_map(|arm| arm.destination.as_mut())
            .for_each(|to| full(&mut to.host));
    }
}

/// `namespace/name` of a gateway that is named as `name`, `namespace/name`, `./name` or `name.namespace.svc...`.
pub(crate) fn resolve_gateway(name: &str, namespace: &str) -> String {
    if name == MESH_GATEWAY {
        return name.to_owned();
    }
    match (name.split_once('/'), name.split_once('.')) {
        (Some((".", gateway)), _) => format!("{namespace}/{gateway}"),
        (Some(_), _) => name.to_owned(),
        (None, None) => format!("{namespace}/{name}"),
        (None, Some((gateway, rest))) => {
            let namespace = rest.split('.').next().unwrap_or_default();
            format!("{namespace}/{gateway}")
        }
    }
}

fn merge_delegates(
    mut root: VirtualServiceRule,
    delegates: &Delegates,
    problems: &mut Vec<Problem>,
) -> VirtualServiceRule {
    if root.semantics != Semantics::VirtualService
        || root.spec.http.iter().all(|rule| rule.delegate.is_none())
    {
        return root;
    }
    let mut http = Vec::new();
    for rule in std::mem::take(&mut root.spec.http) {
        let Some(delegate) = &rule.delegate else {
            http.push(rule);
            continue;
        };
        let namespace = if delegate.namespace.is_empty() {
            &root.meta.namespace
        } else {
            &delegate.namespace
        };
        let mut problem = |text: String| {
            problems.push(Problem {
                object: format!("VirtualService {}/{}", root.meta.namespace, root.meta.name),
                origin: root.meta.origin.clone(),
                text,
            });
        };
        let Some(found) = delegates.get(&(namespace.clone(), delegate.name.clone())) else {
            problem(format!(
                "delegate {namespace}/{} does not exist: the rule is left out",
                delegate.name
            ));
            continue;
        };
        if !found.export_to.contains("*") && !found.export_to.contains(&root.meta.namespace) {
            problem(format!(
                "delegate {namespace}/{} is not exported to {}: the rule is left out",
                delegate.name, root.meta.namespace
            ));
            continue;
        }
        for sub in &found.spec.http {
            match merge_route(&rule, sub) {
                Some(merged) => http.push(merged),
                None => problem(format!(
                    "a rule of delegate {namespace}/{} is no subset of the rule that refers to it: it is left out",
                    delegate.name
                )),
            }
        }
    }
    root.spec.http = http;
    root
}

/// The delegate's rule, completed by the root's; nothing when their conditions conflict.
fn merge_route(root: &HttpRoute, delegate: &HttpRoute) -> Option<HttpRoute> {
    let mut out = delegate.clone();
    out.matches = merge_matches(&root.matches, &delegate.matches)?;
    out.name = join_names(&root.name, &delegate.name);
    out.rewrite = out.rewrite.or_else(|| root.rewrite.clone());
    out.direct_response = out.direct_response.or_else(|| root.direct_response.clone());
    out.timeout = out.timeout.or(root.timeout);
    out.retries = out.retries.or_else(|| root.retries.clone());
    out.fault = out.fault.or_else(|| root.fault.clone());
    out.mirror = out.mirror.or_else(|| root.mirror.clone());
    out.mirror_percent = out.mirror_percent.or(root.mirror_percent);
    out.mirror_percentage = out
        .mirror_percentage
        .or_else(|| root.mirror_percentage.clone());
    out.cors_policy = out.cors_policy.or_else(|| root.cors_policy.clone());
    if out.mirrors.is_empty() {
        out.mirrors.clone_from(&root.mirrors);
    }
    out.headers = out.headers.or_else(|| root.headers.clone());
    Some(out)
}

fn join_names(root: &str, delegate: &str) -> String {
    match (root.is_empty(), delegate.is_empty()) {
        (_, true) => root.to_owned(),
        (true, false) => delegate.to_owned(),
        (false, false) => format!("{root}-{delegate}"),
    }
}

fn merge_matches(
    root: &[HttpMatchRequest],
    delegate: &[HttpMatchRequest],
) -> Option<Vec<HttpMatchRequest>> {
    if root.is_empty() {
        return Some(delegate.to_vec());
    }
    if delegate.is_empty() {
        return Some(root.to_vec());
    }
    let mut out = Vec::new();
    for sub in delegate {
        let before = out.len();
        out.extend(
            root.iter()
                .filter(|root| !conflict(root, sub))
                .map(|root| merge_match(root, sub)),
        );
        if out.len() == before {
            return None;
        }
    }
    Some(out)
}

fn merge_match(root: &HttpMatchRequest, delegate: &HttpMatchRequest) -> HttpMatchRequest {
    fn join<V: Clone>(
        root: &BTreeMap<String, V>,
        delegate: &BTreeMap<String, V>,
    ) -> BTreeMap<String, V> {
        let mut out = root.clone();
        out.extend(
            delegate
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        );
        out
    }
    let either = |own: &String, other: &String| {
        if own.is_empty() {
            other.clone()
        } else {
            own.clone()
        }
    };
    HttpMatchRequest {
        name: join_names(&root.name, &delegate.name),
        uri: delegate.uri.clone().or_else(|| root.uri.clone()),
        scheme: delegate.scheme.clone().or_else(|| root.scheme.clone()),
        method: delegate.method.clone().or_else(|| root.method.clone()),
        authority: delegate
            .authority
            .clone()
            .or_else(|| root.authority.clone()),
        headers: join(&root.headers, &delegate.headers),
        without_headers: join(&root.without_headers, &delegate.without_headers),
        query_params: join(&root.query_params, &delegate.query_params),
        port: if delegate.port == 0 {
            root.port
        } else {
            delegate.port
        },
        source_labels: join(&root.source_labels, &delegate.source_labels),
        source_namespace: either(&delegate.source_namespace, &root.source_namespace),
        gateways: if delegate.gateways.is_empty() {
            root.gateways.clone()
        } else {
            delegate.gateways.clone()
        },
        stat_prefix: either(&delegate.stat_prefix, &root.stat_prefix),
        ignore_uri_case: delegate.ignore_uri_case,
    }
}

/// Whether a delegate's condition is no subset of the root's.
fn conflict(root: &HttpMatchRequest, leaf: &HttpMatchRequest) -> bool {
    let fields = [
        (&root.uri, &leaf.uri),
        (&root.scheme, &leaf.scheme),
        (&root.method, &leaf.method),
        (&root.authority, &leaf.authority),
    ];
    let maps = [
        (&root.headers, &leaf.headers),
        (&root.without_headers, &leaf.without_headers),
        (&root.query_params, &leaf.query_params),
    ];
    let in_map = |(root, leaf): &(
        &BTreeMap<String, StringMatch>,
        &BTreeMap<String, StringMatch>,
    )| {
        leaf.iter()
            .any(|(key, value)| text_conflict(root.get(key), Some(value)))
    };
    let labels = leaf
        .source_labels
        .iter()
        .any(|(key, value)| root.source_labels.get(key).is_some_and(|own| own != value));
    let gateways = !root.gateways.is_empty()
        && !leaf.gateways.is_empty()
        && (root.gateways.len() < leaf.gateways.len()
            || leaf
                .gateways
                .iter()
                .any(|name| !root.gateways.contains(name)));
    fields
        .iter()
        .any(|(root, leaf)| text_conflict(root.as_ref(), leaf.as_ref()))
        || maps.iter().any(in_map)
        || root.ignore_uri_case != leaf.ignore_uri_case
        || (root.port > 0 && leaf.port > 0 && root.port != leaf.port)
        || (!root.source_namespace.is_empty() && root.source_namespace != leaf.source_namespace)
        || labels
        || gateways
}

fn text_conflict(root: Option<&StringMatch>, leaf: Option<&StringMatch>) -> bool {
    use StringMatch::{Exact, Prefix};
    match (root, leaf) {
        (None, _) | (_, None) => false,
        (Some(Exact(root)), Some(Exact(leaf))) => root != leaf,
        (Some(Prefix(root)), Some(Prefix(leaf) | Exact(leaf))) => !leaf.starts_with(root.as_str()),
        _ => true,
    }
}
