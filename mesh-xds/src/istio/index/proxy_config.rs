//! Settings of the proxy itself, which the mesh, namespaces and workloads may set.

use std::time::Duration;

use super::{Context, Proxy, service_entry};
use crate::istio::api::mesh_config::MeshProxyConfig;
use crate::istio::api::{Object, ProxyConfig, Spec};
use crate::yaml;

/// The annotation of a Pod that sets up its proxy, in YAML.
pub const ANNOTATION: &str = "proxy.istio.io/config";

/// What the process needs to know before it serves: nothing of it changes while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProcessSettings {
    /// `concurrency`: worker threads, 0 for one a core. `None`: nobody says.
    pub concurrency: Option<u32>,
    /// `proxyAdminPort`: port of the admin server.
    pub admin_port: Option<u16>,
    /// `drainDuration`: how long a drain of listeners may take while the process goes on.
    pub drain_duration: Option<Duration>,
    /// `terminationDrainDuration`: longest wait for what is in flight when the process is told to end.
    pub termination_drain_duration: Option<Duration>,
}

impl ProcessSettings {
    /// Those of `config`.
    #[must_use]
    pub fn of(config: &MeshProxyConfig) -> Self {
        Self {
            concurrency: config.concurrency.and_then(|n| u32::try_from(n).ok()),
            admin_port: u16::try_from(config.proxy_admin_port)
                .ok()
                .filter(|port| *port > 0),
            drain_duration: config.drain_duration,
            termination_drain_duration: config.termination_drain_duration,
        }
    }
}

/// Reads the annotation's text.
///
/// # Errors
/// It is not YAML, or not the settings of a proxy.
pub fn parse_annotation(text: &str) -> Result<MeshProxyConfig, yaml::Error> {
    Ok(yaml::from_str::<Option<MeshProxyConfig>>(text)?.unwrap_or_default())
}

/// The settings that count for `proxy`. Each is taken from the first of these that sets it: ProxyConfig objects that select the
/// workload, its annotation, those of its namespace, those of the root namespace, `defaultConfig` of the mesh. Of several
/// objects at one level only the oldest counts.
#[must_use]
pub fn effective(context: &Context, proxy: &Proxy) -> MeshProxyConfig {
    let mut levels: [Option<&ProxyConfig>; 3] = [None; 3];
    for (_, config, level) in ranked(context, proxy) {
        levels[level].get_or_insert(config);
    }
    let [workload, namespace, root] = levels.map(|config| config.and_then(|c| c.concurrency));
    let annotation = proxy.annotated.clone().unwrap_or_default();
    let mesh = context.mesh.default_config.clone().unwrap_or_default();
    let port = |own: i32, other: i32| if own == 0 { other } else { own };
    MeshProxyConfig {
        concurrency: workload
            .or(annotation.concurrency)
            .or(namespace)
            .or(root)
            .or(mesh.concurrency),
        proxy_admin_port: port(annotation.proxy_admin_port, mesh.proxy_admin_port),
        status_port: port(annotation.status_port, mesh.status_port),
        drain_duration: annotation.drain_duration.or(mesh.drain_duration),
        termination_drain_duration: annotation
            .termination_drain_duration
            .or(mesh.termination_drain_duration),
        gateway_topology: annotation.gateway_topology.or(mesh.gateway_topology),
        proxy_headers: annotation.proxy_headers.or(mesh.proxy_headers),
        connection_settings: annotation.connection_settings.or(mesh.connection_settings),
        ignored: Default::default(),
    }
}

/// The ProxyConfig objects for `proxy`, each with its level (0 the workload, 1 its namespace, 2 the mesh), the oldest first.
fn ranked<'c>(context: &'c Context, proxy: &Proxy) -> Vec<(&'c Object, &'c ProxyConfig, usize)> {
    let mut found: Vec<_> = context
        .objects
        .iter()
        .filter_map(|object| {
            let Spec::ProxyConfig(config) = &object.spec else {
                return None;
            };
            let own = *object.namespace == *proxy.namespace;
            let root = *object.namespace == *context.root_namespace();
            let labels = config.selector.as_ref().map(|s| &s.match_labels);
            let level = match labels.filter(|labels| !labels.is_empty()) {
                Some(labels) => (own && service_entry::selects(labels, &proxy.labels)).then_some(0),
                None if root => Some(2),
                None => own.then_some(1),
            }?;
            Some((&**object, &**config, level))
        })
        .collect();
    found.sort_by(|(a, ..), (b, ..)| {
        (a.creation_timestamp, &a.name).cmp(&(b.creation_timestamp, &b.name))
    });
    found
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::istio::read::{TextOptions, parse};

    const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: x, namespace: a, labels: {app: x}, annotations: {proxy.istio.io/config: 'ANNOTATION'}}
---
";

    fn object(name: &str, namespace: &str, spec: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
        )
    }

    fn mesh(config: &str) -> String {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata: {{mesh: 'defaultConfig: {config}'}}\n---\n"
        )
    }

    fn settings(annotation: &str, rest: &[String]) -> ProcessSettings {
        let text = POD.replace("ANNOTATION", annotation) + &rest.concat();
        let parsed = parse(&Arc::from("a.yaml"), &text, &TextOptions::default());
        assert_eq!(parsed.refused, [], "{:?}", parsed.findings);
        let context = Context::new(&parsed.objects, "cluster.local");
        let workload = context.workload("a", "x").expect("the Pod is there");
        let proxy = Proxy::sidecar(workload, &context);
        ProcessSettings::of(&effective(&context, &proxy))
    }

    #[test]
    fn the_closest_setting_counts() {
        let mut objects = vec![
            object(
                "own",
                "a",
                "{selector: {matchLabels: {app: x}}, concurrency: 1}",
            ),
            object("ns", "a", "{concurrency: 3}"),
            object("root", "istio-system", "{concurrency: 4}"),
            object("else", "b", "{concurrency: 7}"),
            object(
                "not",
                "a",
                "{selector: {matchLabels: {app: y}}, concurrency: 8}",
            ),
            // A selector in the root namespace is for workloads that are there.
            object(
                "r",
                "istio-system",
                "{selector: {matchLabels: {app: x}}, concurrency: 9}",
            ),
            mesh("{concurrency: 5}"),
        ];
        let mut seen = Vec::new();
        for annotation in ["{concurrency: 2}", "{concurrency: 2}", ""] {
            seen.push(settings(annotation, &objects).concurrency);
            if seen.len() == 1 {
                objects.remove(0);
            }
        }
        for _ in 0..2 {
            objects.remove(0);
            seen.push(settings("", &objects).concurrency);
        }
        objects.pop();
        seen.push(settings("", &objects).concurrency);
        assert_eq!(seen, [Some(1), Some(2), Some(3), Some(4), Some(5), None]);
    }

    #[test]
    fn none_set_is_not_zero() {
        assert_eq!(
            settings("{concurrency: 0}", &[mesh("{concurrency: 5}")]).concurrency,
            Some(0)
        );
        let objects = [
            object(
                "own",
                "a",
                "{selector: {matchLabels: {app: x}}, environmentVariables: {A: b}}",
            ),
            object("ns", "a", "{concurrency: 0}"),
        ];
        assert_eq!(settings("", &objects).concurrency, Some(0));
    }

    #[test]
    fn of_two_at_one_level_the_first_counts() {
        let later = object("a", "a", "{concurrency: 1}").replace(
            "{name: a,",
            "{name: a, creationTimestamp: '2024-01-02T00:00:00Z',",
        );
        let first = object("b", "a", "{concurrency: 2}").replace(
            "{name: b,",
            "{name: b, creationTimestamp: '2024-01-01T00:00:00Z',",
        );
        assert_eq!(settings("", &[later, first]).concurrency, Some(2));
    }

    #[test]
    fn drains_and_the_admin_port() {
        let mesh =
            mesh("{drainDuration: 30s, terminationDrainDuration: 7s, proxyAdminPort: 15099}");
        assert_eq!(
            settings("{terminationDrainDuration: 9s}", &[mesh]),
            ProcessSettings {
                concurrency: None,
                admin_port: Some(15099),
                drain_duration: Some(Duration::from_secs(30)),
                termination_drain_duration: Some(Duration::from_secs(9)),
            }
        );
    }

    #[test]
    fn an_annotation_is_checked_as_the_mesh_is() {
        let findings = |annotation: &str| {
            let text = POD.replace("ANNOTATION", annotation);
            let parsed = parse(&Arc::from("a.yaml"), &text, &TextOptions::default());
            let texts = parsed.findings.iter().map(ToString::to_string);
            (parsed.refused.len(), texts.collect::<Vec<_>>().join("; "))
        };
        for (annotation, part) in [
            ("{concurrency: x}", "concurrency"),
            ("{concurrency: -1}", "concurrency"),
            ("{concurency: 1}", "did you mean `concurrency`"),
            ("[", "proxy.istio.io/config"),
        ] {
            let (refused, text) = findings(annotation);
            assert_eq!(refused, 1, "{annotation}: {text}");
            assert!(text.contains(part), "{annotation}: {text}");
        }
        let (refused, text) = findings("{concurrency: 1, holdApplicationUntilProxyStarts: true}");
        assert_eq!(refused, 0);
        assert!(
            text.contains("holdApplicationUntilProxyStarts has no effect"),
            "{text}"
        );
    }
}
