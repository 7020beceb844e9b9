//! Second pass: one object with its metadata and typed content.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::kinds::{Kind, Role, split};
use super::operator::IstioOperatorSpec;
use crate::istio::api::k8s;
use crate::istio::{Object, Origin, Spec};
use crate::json;

const FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "spec", "status"];

/// Kubernetes' object metadata: the part that is used; other fields that exist are read past.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    labels: Option<BTreeMap<String, Option<String>>>,
    annotations: Option<BTreeMap<String, Option<String>>>,
    creation_timestamp: Option<String>,
    resource_version: Option<String>,
    generate_name: IgnoredAny,
    uid: IgnoredAny,
    generation: IgnoredAny,
    deletion_timestamp: IgnoredAny,
    deletion_grace_period_seconds: IgnoredAny,
    finalizers: IgnoredAny,
    owner_references: IgnoredAny,
    managed_fields: IgnoredAny,
    self_link: IgnoredAny,
    cluster_name: IgnoredAny,
}

/// Reads an object of a known kind.
pub(super) struct ObjectSeed<'k> {
    pub(super) kind: &'k Kind,
    pub(super) api_version: &'k str,
    pub(super) origin: Origin,
    pub(super) default_namespace: &'k Arc<str>,
}

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_> {
    type Value = Object;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Object, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed<'_> {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {}", self.kind.kind)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut metadata = Metadata::default();
        let mut content = Content::default();
        while let Some(key) = map.next_key_seed(KeySeed(self.kind))? {
            match key.as_str() {
                "apiVersion" | "kind" | "status"
                    if !(key == "status" && self.kind.kind == "Pod") =>
                {
                    map.next_value::<IgnoredAny>()?;
                }
                "metadata" => metadata = map.next_value::<Option<_>>()?.unwrap_or_default(),
                _ => content.read(self.kind, &key, &mut map)?,
            }
        }
        self.finish(metadata, content)
    }
}

impl ObjectSeed<'_> {
    fn finish<E: serde::de::Error>(
        self,
        metadata: Metadata,
        content: Content,
    ) -> Result<Object, E> {
        let (group, version) = split(self.api_version);
        let name = metadata.name.unwrap_or_default();
        let namespace: Arc<str> = match metadata.namespace {
            _ if !self.kind.namespaced => "".into(),
            Some(namespace) if !namespace.is_empty() => namespace.into(),
            _ => Arc::clone(self.default_namespace),
        };
        let texts = |map: Option<BTreeMap<String, Option<String>>>| {
            map.unwrap_or_default()
                .into_iter()
                .map(|(k, v)| (k, v.unwrap_or_default()))
                .collect()
        };
        let mut labels: BTreeMap<String, String> = texts(metadata.labels);
        if self.kind.kind == "Endpoints" {
            // As the slice that Kubernetes mirrors it to.
            labels.insert(k8s::SERVICE_NAME.to_owned(), name.clone());
        }
        Ok(Object {
            group: group.into(),
            version: version.into(),
            kind: self.kind.kind.into(),
            name: name.into(),
            namespace,
            labels,
            annotations: texts(metadata.annotations),
            creation_timestamp: timestamp(metadata.creation_timestamp.as_deref())
                .map_err(E::custom)?,
            resource_version: metadata.resource_version.unwrap_or_default().into(),
            origin: self.origin,
            spec: content.into_spec(self.kind),
        })
    }
}

/// A top-level key: one of those that exist, for strict kinds.
struct KeySeed<'k>(&'k Kind);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        let key = String::deserialize(from)?;
        let known: &'static [&'static str] = match (self.0.role, self.0.kind) {
            (Role::Istio, _) | (_, "Service" | "Pod") => FIELDS,
            (_, "EndpointSlice") => &[
                "apiVersion",
                "kind",
                "metadata",
                "addressType",
                "endpoints",
                "ports",
            ],
            (_, "Endpoints") => &["apiVersion", "kind", "metadata", "subsets"],
            (_, "ConfigMap") => &[
                "apiVersion",
                "kind",
                "metadata",
                "data",
                "binaryData",
                "immutable",
            ],
            _ => FIELDS,
        };
        if !known.contains(&key.as_str()) {
            return Err(D::Error::unknown_field(&key, known));
        }
        Ok(key)
    }
}

/// What the object says, before all of its parts are read.
#[derive(Default)]
struct Content {
    spec: Spec,
    pod: k8s::Pod,
    slice: k8s::EndpointSlice,
    data: BTreeMap<String, String>,
}

impl Content {
    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        kind: &Kind,
        key: &str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match (kind.kind, key) {
            (_, "spec") if kind.role == Role::Istio => self.spec = istio_spec(kind.kind, map)?,
            ("Service", "spec") => self.spec = Spec::Service(map.next_value()?),
            ("Pod", "spec") => self.pod.spec = map.next_value::<Option<_>>()?.unwrap_or_default(),
            ("Pod", "status") => {
                self.pod.status = map.next_value::<Option<_>>()?.unwrap_or_default()
            }
            ("Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet", "spec") => {
                self.spec = Spec::Deployment(map.next_value()?);
            }
            ("EndpointSlice", "addressType") => self.slice.address_type = map.next_value()?,
            ("EndpointSlice", "endpoints") => {
                self.slice.endpoints = map.next_value::<Option<_>>()?.unwrap_or_default()
            }
            ("EndpointSlice", "ports") => {
                self.slice.ports = map.next_value::<Option<_>>()?.unwrap_or_default()
            }
            ("Endpoints", "subsets") => self.slice = subsets(map.next_value()?),
            ("ConfigMap", "data") => self.data = map.next_value::<Option<_>>()?.unwrap_or_default(),
            _ => {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn into_spec(self, kind: &Kind) -> Spec {
        match kind.kind {
            "Pod" => Spec::Pod(Box::new(self.pod)),
            "EndpointSlice" | "Endpoints" => Spec::EndpointSlice(Box::new(self.slice)),
            "ConfigMap" => Spec::ConfigMap(Box::new(k8s::ConfigMap { data: self.data })),
            _ => match self.spec {
                Spec::Other if kind.role == Role::Istio => empty_spec(kind.kind),
                spec => spec,
            },
        }
    }
}

/// The content of an Istio kind.
fn istio_spec<'de, A: MapAccess<'de>>(kind: &str, map: &mut A) -> Result<Spec, A::Error> {
    Ok(match kind {
        "VirtualService" => Spec::VirtualService(map.next_value()?),
        "DestinationRule" => Spec::DestinationRule(map.next_value()?),
        "Gateway" => Spec::Gateway(map.next_value()?),
        "ServiceEntry" => Spec::ServiceEntry(map.next_value()?),
        "WorkloadEntry" => Spec::WorkloadEntry(map.next_value()?),
        "WorkloadGroup" => Spec::WorkloadGroup(map.next_value()?),
        "Sidecar" => Spec::Sidecar(map.next_value()?),
        "ProxyConfig" => Spec::ProxyConfig(map.next_value()?),
        "EnvoyFilter" => Spec::EnvoyFilter(map.next_value()?),
        "PeerAuthentication" => Spec::PeerAuthentication(map.next_value()?),
        "RequestAuthentication" => Spec::RequestAuthentication(map.next_value()?),
        "AuthorizationPolicy" => Spec::AuthorizationPolicy(map.next_value()?),
        "Telemetry" => Spec::Telemetry(map.next_value()?),
        "WasmPlugin" => Spec::WasmPlugin(map.next_value()?),
        "TrafficExtension" => Spec::TrafficExtension(map.next_value()?),
        _ => {
            map.next_value::<IstioOperatorSpec>()?;
            Spec::Other
        }
    })
}

/// An object without `spec` has an empty one.
fn empty_spec(kind: &str) -> Spec {
    match kind {
        "VirtualService" => Spec::VirtualService(Box::default()),
        "DestinationRule" => Spec::DestinationRule(Box::default()),
        "Gateway" => Spec::Gateway(Box::default()),
        "ServiceEntry" => Spec::ServiceEntry(Box::default()),
        "WorkloadEntry" => Spec::WorkloadEntry(Box::default()),
        "WorkloadGroup" => Spec::WorkloadGroup(Box::default()),
        "Sidecar" => Spec::Sidecar(Box::default()),
        "ProxyConfig" => Spec::ProxyConfig(Box::default()),
        "EnvoyFilter" => Spec::EnvoyFilter(Box::default()),
        "PeerAuthentication" => Spec::PeerAuthentication(Box::default()),
        "RequestAuthentication" => Spec::RequestAuthentication(Box::default()),
        "AuthorizationPolicy" => Spec::AuthorizationPolicy(Box::default()),
        "Telemetry" => Spec::Telemetry(Box::default()),
        "WasmPlugin" => Spec::WasmPlugin(Box::default()),
        "TrafficExtension" => Spec::TrafficExtension(Box::default()),
        _ => Spec::Other,
    }
}

/// One group of addresses of the older kind Endpoints.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Subset {
    addresses: Vec<SubsetAddress>,
    not_ready_addresses: Vec<SubsetAddress>,
    ports: Vec<k8s::EndpointPort>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SubsetAddress {
    ip: String,
    node_name: Option<String>,
    target_ref: Option<k8s::ObjectReference>,
}

/// Endpoints as one slice; Kubernetes mirrors them to one for each subset, since each has ports of its own.
fn subsets(subsets: Option<Vec<Subset>>) -> k8s::EndpointSlice {
    let mut slice = k8s::EndpointSlice {
        address_type: "IPv4".to_owned(),
        ..Default::default()
    };
    for subset in subsets.unwrap_or_default() {
        let ready = subset.addresses.into_iter().map(|a| (a, true));
        let not_ready = subset.not_ready_addresses.into_iter().map(|a| (a, false));
        for (address, ready) in ready.chain(not_ready) {
            slice.endpoints.push(k8s::Endpoint {
                addresses: vec![address.ip],
                conditions: k8s::EndpointConditions {
                    ready: Some(ready),
                    ..Default::default()
                },
                node_name: address.node_name,
                target_ref: address.target_ref,
                ports: Some(subset.ports.clone()),
                ..k8s::Endpoint::default()
            });
        }
    }
    slice
}

/// Seconds since 1970 of an RFC 3339 time; 0 if not given.
fn timestamp(text: Option<&str>) -> Result<i64, String> {
    let Some(text) = text.filter(|t| !t.is_empty()) else {
        return Ok(0);
    };
    json::timestamp(text)
        .map(|(seconds, _)| seconds)
        .ok_or_else(|| format!("creationTimestamp `{text}` is no time like 2024-01-31T12:00:00Z"))
}

#[cfg(test)]
mod tests {
    use super::timestamp;

    #[test]
    fn timestamps_count_leap_days() {
        assert_eq!(timestamp(None), Ok(0));
        assert_eq!(timestamp(Some("1970-01-01T00:00:00Z")), Ok(0));
        assert_eq!(timestamp(Some("2024-02-29T12:00:00Z")), Ok(1_709_208_000));
        assert_eq!(timestamp(Some("2026-08-22T20:00:18.5Z")), Ok(1_787_428_818));
        for same in ["2024-02-29T14:30:00+02:30", "2024-02-29T04:00:00.25-08:00"] {
            assert_eq!(timestamp(Some(same)), Ok(1_709_208_000), "{same}");
        }
        assert!(timestamp(Some("yesterday")).is_err());
        assert!(timestamp(Some("2024-13-01T00:00:00Z")).is_err());
    }
}
