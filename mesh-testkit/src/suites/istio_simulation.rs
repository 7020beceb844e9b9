//! Istio's traffic simulation: where calls go by what istiod made of a configuration, and by what we make of it.
//!
//! Each call is played on the resources that istiod recorded for its case, which judges the decoder and the compiled
//! snapshot. Calls to gateways are played a second time on our own translation of the case's configuration. Sidecars are
//! left out there: the recorded ones stand behind redirected traffic, which is not served yet.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use mesh_xds::istio::index::{Context, Proxy, ProxyKind};
use mesh_xds::istio::{Object, read, translate};
use mesh_xds::json;
use serde::Deserialize;
use serde_json::Value;

use crate::conformance::{Ctx, SuiteResult};
use crate::simulation::{Call, Found, Mode, Resources, World};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(rename = "id")]
    _id: String,
    #[serde(rename = "test")]
    _test: String,
    proxy: CaseProxy,
    #[serde(default)]
    config_yaml: String,
    #[serde(default)]
    kubernetes_yaml: String,
    /// What istiod made of the case's other objects.
    #[serde(default)]
    config_objects: Vec<Value>,
    mesh_config: Option<Value>,
    #[serde(default)]
    feature_overrides: BTreeMap<String, Value>,
    calls: Vec<CaseCall>,
}

#[derive(Deserialize)]
struct CaseProxy {
    #[serde(rename = "type")]
    kind: String,
    config_namespace: String,
    dns_domain: String,
    ips: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseCall {
    name: String,
    call: Call,
    expect: Expect,
    /// Everything that istiod's simulation found; what is asserted of it stands in `expect`.
    #[serde(rename = "observed")]
    _observed: Value,
    #[serde(default, rename = "note")]
    _note: String,
}

/// What is asserted; `None`: nothing.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Expect {
    listener: Option<String>,
    filter_chain: Option<String>,
    route_config: Option<String>,
    virtual_host: Option<String>,
    route: Option<String>,
    cluster: Option<String>,
    error: Option<String>,
    /// What is not asserted is empty.
    strict: bool,
}

impl Expect {
    /// The listener that the call is expected to come to; empty if none is named.
    pub(super) fn listener(&self) -> &str {
        self.listener.as_deref().unwrap_or_default()
    }

    pub(super) fn judge(&self, seen: &Found) -> Result<(), String> {
        let fields = [
            ("listener", &self.listener, &seen.listener),
            ("filter chain", &self.filter_chain, &seen.filter_chain),
            (
                "route configuration",
                &self.route_config,
                &seen.route_config,
            ),
            ("virtual host", &self.virtual_host, &seen.virtual_host),
            ("route", &self.route, &seen.route),
            ("cluster", &self.cluster, &seen.cluster),
        ];
        let error = self.error.as_deref().unwrap_or_default();
        if seen.error != error {
            return Err(format!("expected error {error:?}, seen {:?}", seen.error));
        }
        for (what, wanted, seen) in fields {
            let wanted = match (wanted, self.strict) {
                (Some(wanted), _) => wanted.as_str(),
                (None, true) => "",
                (None, false) => continue,
            };
            if wanted != seen {
                return Err(format!("expected {what} {wanted:?}, seen {seen:?}"));
            }
        }
        Ok(())
    }
}

/// Plays `istio-traffic-simulation`.
pub fn run(ctx: &Ctx) -> SuiteResult {
    let mut result = SuiteResult::new("istio-traffic-simulation");
    let dir = ctx.dir(&result.name);
    let mut left_out: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, text) in super::case_files(&dir.join("cases"), &mut result) {
        let case: Case = match serde_json::from_str(&text) {
            Ok(case) => case,
            Err(error) => {
                result.fail(name, error);
                continue;
            }
        };
        let recorded = recorded(&dir.join("xds").join(format!("{name}.json")));
        let apart = not_translated(&case, recorded.as_ref().ok());
        play(&mut result, &name, &case, recorded);
        match apart {
            Some(why) => *left_out.entry(why).or_default() += case.calls.len(),
            None => play(
                &mut result,
                &format!("{name} (translated)"),
                &case,
                translated(&case),
            ),
        }
    }
    for (why, calls) in left_out {
        result.note(format!(
            "{calls} calls were not played on our own translation: {why}"
        ));
    }
    result
}

fn play(result: &mut SuiteResult, name: &str, case: &Case, world: Result<World, String>) {
    // Calls to a sidecar that say nothing else come from its application.
    let mode = match case.proxy.kind.as_str() {
        "sidecar" => Mode::Outbound,
        _ => Mode::Gateway,
    };
    for call in &case.calls {
        let sent = Call {
            mode: call.call.mode.or(Some(mode)),
            ..call.call.clone()
        };
        let outcome = match &world {
            Ok(world) => call.expect.judge(&world.call(&sent)),
            Err(why) => Err(why.clone()),
        };
        result.case(format!("{name}: {}", call.name), outcome);
    }
}

/// What istiod made, as it was recorded.
fn recorded(file: &Path) -> Result<World, String> {
    let recorded: Value = super::read_json(file)?;
    let wires = |key: &str, kind: &str| -> Result<Vec<Vec<u8>>, String> {
        let list = recorded[key].as_array().map_or(&[][..], Vec::as_slice);
        let wire = |value: &Value| {
            let text = value.to_string();
            json::to_wire(kind, &mut serde_json::Deserializer::from_str(&text))
                .map_err(|error| format!("{key}: {error}"))
        };
        list.iter().map(wire).collect()
    };
    Ok(World::new(&Resources {
        listeners: wires("listeners", "envoy.config.listener.v3.Listener")?,
        routes: wires("routes", "envoy.config.route.v3.RouteConfiguration")?,
        clusters: wires("clusters", "envoy.config.cluster.v3.Cluster")?,
    }))
}

/// Why a case's configuration is not for our translation.
fn not_translated(case: &Case, recorded: Option<&World>) -> Option<&'static str> {
    if case.proxy.kind != "router" {
        return Some("the sidecar stands behind redirected traffic, which is not served yet");
    }
    if !case.kubernetes_yaml.is_empty() {
        return Some("Ingress objects are not served");
    }
    // Istiod marks what it makes of Gateway API objects by annotations that are for nobody else.
    if case.config_yaml.contains("internal.istio.io/") || !case.config_objects.is_empty() {
        return Some("it is made from objects of the Gateway API");
    }
    let clash = |call: &CaseCall| {
        recorded.is_some_and(|world| world.has_overlapping_chains(call.call.port))
    };
    if case.calls.iter().any(clash) {
        return Some(
            "two servers for one name: istiod makes a listener that Envoy refuses, we serve the older one",
        );
    }
    (!case.feature_overrides.is_empty()).then_some("switches of istiod are set")
}

/// What we make of the case's configuration.
fn translated(case: &Case) -> Result<World, String> {
    let objects = objects(case)?;
    // The upstream test runs in a cluster without a DNS domain.
    let context = Context::new(&objects, "");
    let proxy = Proxy {
        kind: ProxyKind::Router,
        namespace: case.proxy.config_namespace.clone(),
        dns_domain: case.proxy.dns_domain.clone(),
        addresses: case.proxy.ips.clone(),
        labels: case.proxy.labels.clone(),
        ..Proxy::default()
    };
    let made = translate::translate(&context, &proxy, &translate::Options::default());
    Ok(World::new(&Resources::from(&made)))
}

fn objects(case: &Case) -> Result<Vec<Arc<Object>>, String> {
    let mut text = case.config_yaml.clone();
    if let Some(mesh) = &case.mesh_config {
        let map = serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"},
            "data": {"mesh": mesh.to_string()},
        });
        text = format!("{text}\n---\n{map}");
    }
    let parsed = read::parse(&Arc::from("case.yaml"), &text, &Default::default());
    if parsed.broken {
        let findings = parsed.findings.iter().map(ToString::to_string);
        return Err(findings.collect::<Vec<_>>().join("; "));
    }
    Ok(parsed.objects)
}
