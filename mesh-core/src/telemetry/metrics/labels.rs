//! The labels of Istio's standard metrics, and where they come from.

use std::fmt::Write as _;

use super::Reporter;
use crate::{
    cluster::{Cluster, Endpoint},
    model::{Metadata, Name, Value},
};

/// A workload as metrics name it. Empty values are written as `unknown`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Workload {
    /// Name of the workload, for example of its Deployment.
    pub name: Name,
    /// Its namespace.
    pub namespace: Name,
    /// Identity, `spiffe://…`.
    pub principal: Name,
    /// Label `app`.
    pub app: Name,
    /// Label `version`.
    pub version: Name,
    /// Canonical service.
    pub canonical_service: Name,
    /// Canonical revision; empty: `latest`.
    pub canonical_revision: Name,
    /// Id of the Kubernetes cluster.
    pub cluster: Name,
}

impl Workload {
    /// A workload from what istiod tells of an endpoint: `name;namespace;service;revision;cluster`.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.split(';').map(Name::from);
        let mut next = || parts.next().unwrap_or_default();
        let (name, namespace, service, revision, cluster) =
            (next(), next(), next(), next(), next());
        Self {
            name,
            namespace,
            principal: Name::default(),
            app: service.clone(),
            version: revision.clone(),
            canonical_service: service,
            canonical_revision: revision,
            cluster,
        }
    }

    /// A workload as its labels name it, by Istio's rules for canonical service and revision.
    pub fn labelled<'a>(
        name: &str,
        namespace: &str,
        label: impl Fn(&'static str) -> Option<&'a str>,
    ) -> Self {
        let first = |names: [&'static str; 3]| {
            let mut values = names.into_iter().filter_map(&label);
            values.find(|value| !value.is_empty())
        };
        let [service, revision] = [
            [
                "service.istio.io/canonical-name",
                "app.kubernetes.io/name",
                "app",
            ],
            [
                "service.istio.io/canonical-revision",
                "app.kubernetes.io/version",
                "version",
            ],
        ]
        .map(first);
        Self {
            name: name.into(),
            namespace: namespace.into(),
            principal: Name::default(),
            app: label("app").unwrap_or_default().into(),
            version: label("version").unwrap_or_default().into(),
            canonical_service: service.unwrap_or(name).into(),
            canonical_revision: revision.unwrap_or_default().into(),
            cluster: Name::default(),
        }
    }

    /// The workload behind an endpoint, as far as its metadata tell.
    pub fn of_endpoint(endpoint: &Endpoint) -> Self {
        text(endpoint.metadata(), "workload").map_or_else(Self::default, Self::parse)
    }
}

fn text<'a>(metadata: &'a Metadata, key: &str) -> Option<&'a str> {
    metadata.get("istio", &[key.into()])?.as_text()
}

/// Clusters that stand for no service; they name themselves, as in Istio.
const NO_SERVICE: [&str; 5] = [
    "BlackHoleCluster",
    "PassthroughCluster",
    "InboundPassthroughCluster",
    "InboundPassthroughClusterIpv4",
    "InboundPassthroughClusterIpv6",
];

/// The service that requests are meant for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) host: Name,
    pub(super) name: Name,
    pub(super) namespace: Name,
}

impl Service {
    /// None, under the name of a cluster.
    pub(super) fn none(cluster: impl Into<Name>) -> Self {
        Self {
            name: cluster.into(),
            ..Self::default()
        }
    }

    /// From istiod's metadata of the cluster, else from its name (`outbound|80|subset|host`).
    pub(super) fn of(cluster: &Cluster) -> Self {
        let config = cluster.config();
        if NO_SERVICE.contains(&&*config.name) {
            return Self::none(config.name.clone());
        }
        if let Some(Value::List(services)) = config.metadata.get("istio", &["services".into()])
            && let Some(service) = services.first()
        {
            let field = |key| service.get(key)?.as_text();
            let host = field("host").unwrap_or_default();
            return Self {
                host: host.into(),
                name: field("name").unwrap_or(first_label(host)).into(),
                namespace: field("namespace").unwrap_or_default().into(),
            };
        }
        Self::by_name(&config.name)
    }

    /// From the name of a cluster, as istiod makes it.
    pub(super) fn by_name(cluster: &str) -> Self {
        let mut parts = cluster.split('|');
        let host = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("outbound" | "inbound"), Some(_), Some(_), Some(host)) => host,
            _ => cluster,
        };
        let mut labels = host.split('.').skip(1);
        let namespace = match (labels.next(), labels.next()) {
            (Some(namespace), Some("svc")) => namespace,
            _ => "",
        };
        Self {
            host: host.into(),
            name: first_label(host).into(),
            namespace: namespace.into(),
        }
    }

    /// The same as the server's side names it: what nobody says is that of the workload.
    pub(super) fn served_by(self, own: &Workload) -> Self {
        let or_own = |said: Name| match said.is_empty() {
            true => own.canonical_service.clone(),
            false => said,
        };
        Self {
            host: or_own(self.host),
            name: or_own(self.name),
            namespace: own.namespace.clone(),
        }
    }

    /// The same as the client's side names it, which sends to `destination`.
    pub(super) fn at(mut self, destination: &Workload) -> Self {
        if self.namespace.is_empty() {
            self.namespace = destination.namespace.clone();
        }
        self
    }
}

fn first_label(host: &str) -> &str {
    host.split('.').next().unwrap_or_default()
}

/// How many labels say who talks to whom.
const ENDS: usize = 20;

/// The labels of one series, in Istio's order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Vec<(&'static str, Name)>);

impl Labels {
    /// The labels that say who talks to whom.
    pub(super) fn ends(
        reporter: Reporter,
        source: &Workload,
        destination: &Workload,
        service: &Service,
    ) -> Self {
        let mut this = Self(Vec::with_capacity(26));
        this.push("reporter", &reporter.as_str().into());
        let ends: [_; ENDS - 1] = [
            ("source_workload", &source.name),
            ("source_canonical_service", &source.canonical_service),
            ("source_canonical_revision", &source.canonical_revision),
            ("source_workload_namespace", &source.namespace),
            ("source_principal", &source.principal),
            ("source_app", &source.app),
            ("source_version", &source.version),
            ("source_cluster", &source.cluster),
            ("destination_workload", &destination.name),
            ("destination_workload_namespace", &destination.namespace),
            ("destination_principal", &destination.principal),
            ("destination_app", &destination.app),
            ("destination_version", &destination.version),
            ("destination_service", &service.host),
            (
                "destination_canonical_service",
                &destination.canonical_service,
            ),
            (
                "destination_canonical_revision",
                &destination.canonical_revision,
            ),
            ("destination_service_name", &service.name),
            ("destination_service_namespace", &service.namespace),
            ("destination_cluster", &destination.cluster),
        ];
        for (name, value) in ends {
            this.push(name, value);
        }
        this
    }

    /// Only those that say who talks to whom.
    pub(super) fn of_the_ends(&self) -> Self {
        let ends = self.0.iter();
        Self(ends.take(ENDS).cloned().collect())
    }

    /// Adds a label; an empty value is `unknown`, or `latest` for a revision.
    pub(super) fn push(&mut self, name: &'static str, value: &Name) {
        let value = match &**value {
            "" if name.ends_with("_revision") => "latest".into(),
            "" => "unknown".into(),
            _ => value.clone(),
        };
        self.0.push((name, value));
    }

    /// Adds a label as it is, empty or not.
    pub(super) fn push_raw(&mut self, name: &'static str, value: impl Into<Name>) {
        self.0.push((name, value.into()));
    }

    /// The value of a label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| &**value)
    }

    /// All labels.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, &**value))
    }

    /// In Prometheus' text format, without braces.
    pub(super) fn render(&self) -> String {
        let mut out = String::new();
        for (index, (name, value)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let _ = write!(out, "{separator}{name}=\"");
            for character in value.chars() {
                match character {
                    '\\' => out.push_str("\\\\"),
                    '"' => out.push_str("\\\""),
                    '\n' => out.push_str("\\n"),
                    other => out.push(other),
                }
            }
            out.push('"');
        }
        out
    }
}
