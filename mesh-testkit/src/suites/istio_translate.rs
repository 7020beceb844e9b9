//! VirtualService rules and Sidecar scopes against what istiod made of them.
//!
//! Both sides are compared as protobuf: what the case expects is read into messages, and the messages are compared field
//! by field. A field may differ only if [`ALLOWED`] names it.

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::Route;
use mesh_xds::istio::api::{
    DestinationRule, MeshConfig, PeerAuthentication, ServiceEntry, Sidecar, VirtualService,
};
use mesh_xds::istio::index::{
    Catalog, Context, Port, Protocol, Proxy, ProxyKind, Registry, Resolution, Service,
    SidecarScope, VirtualServiceRule,
};
use mesh_xds::istio::translate::route::{self, RouteOptions};
use mesh_xds::istio::{Object, Spec, read, translate};
use mesh_xds::json;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::compare::{Allowed, NAMESPACE, Uses, normalized};
use crate::conformance::{Ctx, SuiteResult};

const ROUTE: &str = "envoy.config.route.v3.Route";
const ROUTE_CONFIGURATION: &str = "envoy.config.route.v3.RouteConfiguration";

/// All differences that are allowed of routes; of Sidecar scopes none are.
const ALLOWED: &[Allowed] = &[
    NAMESPACE,
    Allowed {
        path: ".typed_per_filter_config.envoy.filters.http.stateful_session",
        reason: "made from a label of the service, and services are recorded without labels",
        holds: |expected, seen| !expected.is_null() && seen.is_null(),
    },
    Allowed {
        path: ".route.append_x_forwarded_host",
        reason: "made from `proxyHeaders` of the proxy's configuration, which is not recorded",
        holds: |expected, seen| *expected == Value::Bool(true) && seen.is_null(),
    },
];

/// Plays `istio-virtualservice-routes`.
pub fn virtualservice_routes(ctx: &Ctx) -> SuiteResult {
    let mut result = SuiteResult::new("istio-virtualservice-routes");
    let mut uses = Uses::of(ALLOWED);
    for (name, text) in super::case_files(&ctx.dir(&result.name), &mut result) {
        let outcome = play_rule(&text, &mut uses);
        result.case(name, outcome);
    }
    uses.report(&mut result);
    result
}

/// Plays `istio-sidecar-route-configs`; cases made from Gateway API routes are reported apart.
pub fn sidecar_route_configs(ctx: &Ctx) -> SuiteResult {
    let mut result = SuiteResult::new("istio-sidecar-route-configs");
    let mut uses = Uses::of(&[]);
    let mut apart = (0, Vec::new());
    for (name, text) in super::case_files(&ctx.dir(&result.name), &mut result) {
        let outcome = play_sidecar(&text, &mut uses);
        // Gateway API routes are a kind of their own, and none of the kinds that this suite is required for.
        if text.contains("kind: HTTPRoute") {
            match outcome {
                Ok(()) => apart.0 += 1,
                Err(error) => apart.1.push(format!("{name}: {error}")),
            }
            continue;
        }
        result.case(name, outcome);
    }
    let (passed, failures) = apart;
    result.note(format!(
        "cases with Gateway API routes, reported apart: {passed} passed, {} failed",
        failures.len()
    ));
    for failure in failures {
        result.note(format!("apart: {failure}"));
    }
    result
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleCase {
    #[serde(rename = "id")]
    _id: String,
    #[serde(rename = "source")]
    _source: String,
    #[serde(rename = "test")]
    _test: String,
    virtual_service: CaseObject,
    listen_port: u32,
    gateway_names: Vec<String>,
    is_tls: bool,
    http3: bool,
    node: CaseNode,
    services: BTreeMap<String, Option<CaseService>>,
    #[serde(default)]
    other_config: Vec<CaseObject>,
    mesh_config: Option<Value>,
    routes: Option<Vec<Value>>,
    error: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct CaseObject {
    pub(super) kind: String,
    metadata: CaseMeta,
    pub(super) spec: Value,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CaseMeta {
    name: String,
    namespace: String,
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct CaseNode {
    #[serde(rename = "type")]
    kind: String,
    namespace: String,
    labels: BTreeMap<String, String>,
    metadata: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseService {
    hostname: String,
    ports: Vec<CasePort>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CasePort {
    #[serde(default)]
    pub(super) name: String,
    pub(super) port: u32,
    protocol: String,
}

fn spec<T: DeserializeOwned>(value: &Value) -> Result<Box<T>, String> {
    T::deserialize(value)
        .map(Box::new)
        .map_err(|error| error.to_string())
}

pub(super) fn object(case: &CaseObject) -> Result<Arc<Object>, String> {
    Ok(Arc::new(Object {
        name: case.metadata.name.as_str().into(),
        namespace: case.metadata.namespace.as_str().into(),
        annotations: case.metadata.annotations.clone(),
        spec: match case.kind.as_str() {
            "VirtualService" => Spec::VirtualService(spec::<VirtualService>(&case.spec)?),
            "DestinationRule" => Spec::DestinationRule(spec::<DestinationRule>(&case.spec)?),
            "Sidecar" => Spec::Sidecar(spec::<Sidecar>(&case.spec)?),
            "ServiceEntry" => Spec::ServiceEntry(spec::<ServiceEntry>(&case.spec)?),
            "PeerAuthentication" => {
                Spec::PeerAuthentication(spec::<PeerAuthentication>(&case.spec)?)
            }
            "EnvoyFilter" => Spec::Other,
            other => return Err(format!("kind {other} is not understood")),
        },
        ..Object::default()
    }))
}

/// The object that holds the settings of the mesh.
pub(super) fn mesh_object(mesh: &Value) -> Result<Arc<Object>, String> {
    Ok(Arc::new(Object {
        spec: Spec::MeshConfig(spec::<MeshConfig>(mesh)?),
        ..Object::default()
    }))
}

/// A service of which no more is said.
pub(super) fn plain_service(hostname: &str, ports: &[CasePort]) -> Service {
    let ports = ports.iter().map(|port| Port {
        name: port.name.clone(),
        port: port.port,
        protocol: Protocol::parse(&port.protocol),
    });
    Service {
        hostname: hostname.to_owned(),
        namespace: String::new(),
        name: hostname.to_owned(),
        addresses: Vec::new(),
        ports: ports.collect(),
        resolution: Resolution::ClientSideLb,
        registry: Registry::External,
        mesh_external: false,
        labels: BTreeMap::new(),
        selector: BTreeMap::new(),
        export_to: Default::default(),
        external_name: None,
        aliases: Vec::new(),
        headless: false,
        creation_time: 0,
        subject_alt_names: Vec::new(),
        target_ports: BTreeMap::new(),
        races: false,
        origin: Default::default(),
    }
}

pub(super) fn proxy_kind(name: &str) -> Result<ProxyKind, String> {
    match name {
        "sidecar" => Ok(ProxyKind::Sidecar),
        "router" => Ok(ProxyKind::Router),
        other => Err(format!("proxy type {other} is not understood")),
    }
}

fn play_rule(text: &str, uses: &mut Uses) -> Result<(), String> {
    let case: RuleCase = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let rule_object = object(&case.virtual_service)?;
    let Spec::VirtualService(rule) = &rule_object.spec else {
        return Err("the object is no VirtualService".to_owned());
    };
    let rule = VirtualServiceRule::unresolved(&rule_object, rule);
    let mut objects = case
        .other_config
        .iter()
        .map(object)
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(mesh) = &case.mesh_config {
        objects.push(mesh_object(mesh)?);
    }
    let service = |case: &CaseService| plain_service(&case.hostname, &case.ports);
    let catalog = Catalog {
        services: case.services.values().flatten().map(service).collect(),
        ..Catalog::default()
    };
    let context = Context::with_catalog(&objects, catalog, "cluster.local");
    let proxy = Proxy {
        kind: proxy_kind(&case.node.kind)?,
        namespace: case.node.metadata["NAMESPACE"]
            .as_str()
            .unwrap_or(&case.node.namespace)
            .to_owned(),
        labels: case.node.labels,
        ..Proxy::default()
    };
    let scope = SidecarScope::new(&context, &proxy);
    let gateways: Vec<&str> = case.gateway_names.iter().map(String::as_str).collect();
    let options = RouteOptions {
        proxy: &proxy,
        port: case.listen_port,
        gateways: &gateways,
        tls: case.is_tls,
        http3: case.http3,
        keeps_host: false,
        default_retry: context.mesh.default_http_retry_policy.as_ref(),
        service: &|host| scope.service(host).map(Arc::as_ref),
        hash: &|to| translate::destination_hash(&scope, &proxy, to),
    };
    let routes = route::build(&rule, &options);
    if case.error.is_some() && !routes.is_empty() {
        return Err(format!("expected no route, seen {}", routes.len()));
    }
    same_routes(&routes, &case.routes.unwrap_or_default(), uses)
}

fn same_routes(routes: &[Route], expected: &[Value], uses: &mut Uses) -> Result<(), String> {
    if routes.len() != expected.len() {
        return Err(format!(
            "expected {} routes, seen {}",
            expected.len(),
            routes.len()
        ));
    }
    for (route, expected) in routes.iter().zip(expected) {
        let seen =
            json::to_value(ROUTE, route).map_err(|_| "the route cannot be written as JSON")?;
        uses.compare(&normalized(ROUTE, expected)?, &seen)?;
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SidecarCase {
    #[serde(rename = "id")]
    _id: String,
    #[serde(rename = "source")]
    _source: String,
    kubernetes_yaml: String,
    proxy: CaseProxy,
    route_configs: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseProxy {
    config_namespace: String,
    dns_domain: String,
    ips: Vec<String>,
    #[serde(rename = "metadata")]
    _metadata: Value,
    #[serde(rename = "type")]
    kind: String,
}

fn play_sidecar(text: &str, uses: &mut Uses) -> Result<(), String> {
    let case: SidecarCase = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let parsed = read::parse(
        &Arc::from("case.yaml"),
        &case.kubernetes_yaml,
        &Default::default(),
    );
    if let Some(refused) = parsed.refused.first() {
        let findings: Vec<_> = parsed
            .findings
            .iter()
            .map(|finding| finding.message.clone())
            .collect();
        return Err(format!("{refused:?} was refused: {}", findings.join("; ")));
    }
    let context = Context::new(&parsed.objects, "cluster.local");
    let proxy = Proxy {
        kind: proxy_kind(&case.proxy.kind)?,
        namespace: case.proxy.config_namespace,
        dns_domain: case.proxy.dns_domain,
        addresses: case.proxy.ips,
        ..Proxy::default()
    };
    let scope = SidecarScope::new(&context, &proxy);
    for expected in &case.route_configs {
        let name = expected["name"]
            .as_str()
            .ok_or("a route configuration has no name")?;
        let seen = translate::outbound_route_config(&context, &scope, &proxy, name);
        let seen = json::to_value(ROUTE_CONFIGURATION, &seen)
            .map_err(|_| "it cannot be written as JSON")?;
        uses.compare(&normalized(ROUTE_CONFIGURATION, expected)?, &seen)
            .map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}
