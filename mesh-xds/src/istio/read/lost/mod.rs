//! What an object protects that is refused and has no good version: told from what of it can be read.

mod parts;
mod words;

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::text::{MESH_NAMESPACE, TextOptions};
use crate::istio::api::lost::SECURITY;
use crate::istio::api::security::{Action, MutualTls, MutualTlsMode};
use crate::istio::api::{
    AuthorizationPolicy, Lost, Object, Origin, PeerAuthentication, RequestAuthentication, Spec,
};
use crate::yaml;

pub(super) use words::{of_file, of_text, of_words, part_at};

/// Kinds that protect traffic, wholly or by a part of them.
const PROTECTING: &[&str] = &[
    "AuthorizationPolicy",
    "RequestAuthentication",
    "PeerAuthentication",
    "DestinationRule",
    "Gateway",
    "Sidecar",
];

/// Whether a kind name is that of a protecting kind, or nearly so.
pub(super) fn protecting(kind: &str) -> Option<&'static str> {
    let exact = PROTECTING.iter().find(|own| **own == kind);
    let near = || {
        let name = yaml::nearest(kind, PROTECTING.iter().copied())?;
        PROTECTING.iter().find(|own| **own == name)
    };
    exact.or_else(near).copied()
}

/// Whether a kind protects by a part of it, so that nothing is known of it when that part cannot be read.
pub(super) fn by_part(kind: &str) -> bool {
    matches!(kind, "DestinationRule" | "Gateway" | "Sidecar")
}

/// Whether a kind does nothing but protect.
pub(super) fn only_protects(kind: &str) -> bool {
    PROTECTING.contains(&kind) && !by_part(kind)
}

/// What a refused object protects, by what its head says and `content`, the whole object as far as it can be read. `None`
/// if it protects nothing, or nothing that could be told.
pub(super) fn of_document(
    group: &str,
    kind: Option<&'static str>,
    namespace: Option<Arc<str>>,
    name: &str,
    origin: Origin,
    content: Option<&Value>,
) -> Option<Lost> {
    let lost = Lost {
        kind: None,
        namespace,
        name: name.into(),
        origin,
        spec: None,
    };
    let Some(kind) = kind else {
        return (group == SECURITY).then_some(lost);
    };
    let empty = Map::new();
    let fields = match content.and_then(Value::as_object).map(specification) {
        Some(Some(Value::Object(fields))) => Some(fields),
        Some(None | Some(Value::Null)) => Some(&empty),
        _ => None,
    };
    let told = match fields {
        Some(fields) => of_fields(kind, fields)?,
        None if by_part(kind) => return None,
        None => Told::Nothing,
    };
    Some(Lost {
        kind: Some(kind.into()),
        spec: match told {
            Told::Nothing => None,
            Told::Content(spec) => Some(spec),
        },
        ..lost
    })
}

/// The specification of an object, though its field may be misspelt.
fn specification(object: &Map<String, Value>) -> Option<&Value> {
    const KNOWN: &[&str] = &["apiVersion", "kind", "metadata", "status"];
    let unknown = |(name, _): &(&String, &Value)| !KNOWN.contains(&name.as_str());
    let misspelt = || object.iter().find(unknown).map(|(_, value)| value);
    object.get("spec").or_else(misspelt)
}

/// What a typed object protects that is refused for what it says.
pub(in crate::istio) fn of_object(object: &Object) -> Option<Lost> {
    let spec = match &object.spec {
        Spec::AuthorizationPolicy(_) | Spec::RequestAuthentication(_) => object.spec.clone(),
        Spec::PeerAuthentication(policy) => demanded(policy, true)?,
        Spec::DestinationRule(rule) => parts::originating(rule.as_ref().clone())?,
        Spec::Gateway(gateway) => parts::terminating(gateway.as_ref().clone())?,
        Spec::Sidecar(sidecar) => parts::limiting(sidecar.as_ref().clone())?,
        Spec::MeshConfig(mesh) => parts::settings(mesh.outbound_traffic_policy.as_ref()),
        _ => return None,
    };
    Some(Lost {
        kind: Some(Arc::clone(&object.kind)),
        namespace: Some(Arc::clone(&object.namespace)),
        name: Arc::clone(&object.name),
        origin: object.origin.clone(),
        spec: Some(spec),
    })
}

/// What can be told of the content of an object of a protecting kind.
enum Told {
    /// Nothing, so that everything which its kind can protect is closed.
    Nothing,
    /// The part that says what it protects.
    Content(Spec),
}

/// `None` if nothing is protected, or nothing that could be told.
fn of_fields(kind: &str, fields: &Map<String, Value>) -> Option<Told> {
    const REACH: &[&str] = &["selector", "targetRef", "targetRefs"];
    Some(match kind {
        "AuthorizationPolicy" => match pick::<AuthorizationPolicy>(fields, REACH) {
            Some(reach) => {
                let action = pick::<AuthorizationPolicy>(fields, &["action"]);
                let action = action.map_or(Action::Allow, |policy| policy.action);
                let policy = AuthorizationPolicy { action, ..reach };
                Told::Content(Spec::AuthorizationPolicy(Box::new(policy)))
            }
            None => Told::Nothing,
        },
        "RequestAuthentication" => match pick::<RequestAuthentication>(fields, REACH) {
            Some(reach) => Told::Content(Spec::RequestAuthentication(Box::new(reach))),
            None => Told::Nothing,
        },
        "PeerAuthentication" => match pick::<PeerAuthentication>(fields, &["selector"]) {
            Some(reach) => {
                let whole = whole::<PeerAuthentication>(fields);
                let complete = whole.is_some();
                Told::Content(demanded(&whole.unwrap_or(reach), complete)?)
            }
            None => Told::Nothing,
        },
        "DestinationRule" => Told::Content(parts::originating(parts::rule(fields)?)?),
        "Gateway" => Told::Content(parts::terminating(parts::gateway(fields)?)?),
        _ => Told::Content(parts::limiting(parts::sidecar(fields))?),
    })
}

/// Reads the named fields alone; `None` if one of them is not what the type asks for.
fn pick<T: DeserializeOwned>(fields: &Map<String, Value>, names: &[&str]) -> Option<T> {
    let wanted = fields
        .iter()
        .filter(|(name, _)| names.contains(&name.as_str()));
    let wanted: Map<String, Value> = wanted.map(|(k, v)| (k.clone(), v.clone())).collect();
    serde_json::from_value(Value::Object(wanted)).ok()
}

fn whole<T: DeserializeOwned>(fields: &Map<String, Value>) -> Option<T> {
    serde_json::from_value(Value::Object(fields.clone())).ok()
}

/// A PeerAuthentication that demands mutual TLS on every port, unless all modes were read and none is STRICT.
fn demanded(policy: &PeerAuthentication, complete: bool) -> Option<Spec> {
    let ports = policy.port_level_mtls.values();
    let strict = |mtls: &MutualTls| mtls.mode == MutualTlsMode::Strict;
    if complete && !policy.mtls.iter().chain(ports).any(strict) {
        return None;
    }
    Some(Spec::PeerAuthentication(Box::new(PeerAuthentication {
        selector: policy.selector.clone(),
        mtls: Some(MutualTls {
            mode: MutualTlsMode::Strict,
        }),
        ..PeerAuthentication::default()
    })))
}

/// The settings of the whole mesh that are refused: `text` is what they are written in.
pub(super) fn of_mesh(origin: Origin, text: &str, options: &TextOptions) -> Lost {
    let tree = std::marker::PhantomData::<Map<String, Value>>;
    let policy = match yaml::from_seed(text, tree, &options.limits) {
        Ok(fields) => parts::mesh_policy(&fields),
        Err(_) => text.contains(parts::KNOWN_HOSTS).then(Default::default),
    };
    Lost {
        kind: Some("MeshConfig".into()),
        namespace: Some(MESH_NAMESPACE.into()),
        name: "istio".into(),
        origin,
        spec: Some(parts::settings(policy.as_ref())),
    }
}
