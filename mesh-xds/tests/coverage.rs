//! No field is read in silence: each field of each message in rich resources is set in turn, and must change the model,
//! be noted, or be refused.

use std::{collections::BTreeSet, fmt::Debug};

use mesh_xds::{
    decode::{self, Decoded, Findings},
    file::FileSource,
    json::{
        self,
        schema::{Check, Field, Kind, Message},
    },
};
use serde_json::{Map, Value, json};

const CLUSTER: &str = include_str!("coverage/cluster.yaml");
const LISTENER: &str = include_str!("coverage/listener.yaml");
const TCP: &str = include_str!("coverage/tcp.yaml");
const BOOTSTRAP: &str = include_str!("coverage/bootstrap.yaml");
const ROUTES: &str = include_str!("coverage/routes.yaml");

/// Fields that may be set without any trace, and why.
const SILENT: [(&str, &str); 27] = [
    (
        "envoy.config.core.v3.TransportSocket.name",
        "the type decides",
    ),
    (
        "envoy.config.core.v3.TypedExtensionConfig.name",
        "the type decides",
    ),
    ("envoy.config.listener.v3.Filter.name", "the type decides"),
    (
        "envoy.config.listener.v3.ListenerFilter.name",
        "the type decides",
    ),
    (
        "envoy.config.accesslog.v3.AccessLog.name",
        "the type decides",
    ),
    (
        "envoy.config.listener.v3.FilterChain.metadata",
        "for control planes",
    ),
    (
        "envoy.config.listener.v3.FilterChain.use_proxy_proto",
        "false is the default",
    ),
    (
        "envoy.config.endpoint.v3.ClusterLoadAssignment.named_endpoints",
        "acts through endpoint_name",
    ),
    (
        "envoy.config.cluster.v3.Cluster.EdsClusterConfig.eds_config",
        "the source decides where endpoints come from",
    ),
    (
        "envoy.config.cluster.v3.Cluster.eds_cluster_config",
        "acts on EDS clusters only",
    ),
    (
        "envoy.config.cluster.v3.Cluster.dns_lookup_family",
        "acts on DNS clusters only",
    ),
    (
        "envoy.config.cluster.v3.Cluster.dns_refresh_rate",
        "acts on DNS clusters only",
    ),
    (
        "envoy.config.cluster.v3.Cluster.respect_dns_ttl",
        "acts on DNS clusters only",
    ),
    (
        "envoy.config.cluster.v3.Cluster.http2_protocol_options",
        "overridden by the extension options",
    ),
    (
        "envoy.config.cluster.v3.Cluster.protocol_selection",
        "overridden by the extension options",
    ),
    (
        "envoy.config.core.v3.HttpProtocolOptions.max_requests_per_connection",
        "overridden by the extension options",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.Rds.config_source",
        "the source decides",
    ),
    (
        "envoy.config.route.v3.VirtualHost.require_tls",
        "none is the default",
    ),
    (
        "envoy.type.matcher.v3.RegexMatcher.google_re2",
        "names the only engine",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig.sds_config",
        "the source decides",
    ),
    (
        "envoy.config.cluster.v3.Cluster.EdsClusterConfig.service_name",
        "acts on EDS clusters only",
    ),
    (
        "envoy.config.listener.v3.Listener.deprecated_v1",
        "true is the default",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter.is_optional",
        "the filter is known",
    ),
    (
        "envoy.config.route.v3.RetryPolicy.RetryHostPredicate.name",
        "the type decides",
    ),
    (
        "envoy.config.route.v3.RouteAction.internal_redirect_action",
        "internal_redirect_policy replaces it",
    ),
    (
        "envoy.config.route.v3.RouteAction.max_internal_redirects",
        "acts with internal_redirect_action",
    ),
    ("envoy.config.core.v3.ConfigSource", "the source decides"),
];

/// What a decoder makes of a document, as text that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    model: String,
    findings: Findings,
}

fn seen<T: Debug>(decoded: Decoded<T>) -> Seen {
    Seen {
        model: format!("{:?}", decoded.value),
        findings: decoded.findings,
    }
}

type Decode = fn(&str, &Value) -> Result<Seen, String>;

/// Decodes a document as wire bytes.
fn by_wire<T: Debug>(
    message: &str,
    document: &Value,
    decoder: fn(&[u8]) -> Decoded<T>,
) -> Result<Seen, String> {
    match json::to_wire(message, document.clone()) {
        Ok(wire) => Ok(seen(decoder(&wire))),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads a document as a bootstrap file.
fn by_file(_: &str, document: &Value) -> Result<Seen, String> {
    let source = FileSource::parse("envoy.json", &document.to_string());
    let source = source.map_err(|error| error.to_string())?;
    let update = source.first().expect("not taken yet");
    Ok(Seen {
        model: format!("{:?} {:?}", source.bootstrap(), update.changes),
        findings: Findings {
            notes: update.notes.clone(),
            rejections: update.rejections.clone(),
        },
    })
}

#[test]
fn every_field_of_a_cluster_is_seen() {
    play(
        "envoy.config.cluster.v3.Cluster",
        CLUSTER,
        |name, document| by_wire(name, document, decode::cluster),
    );
}

#[test]
fn every_field_of_an_http_listener_is_seen() {
    play(
        "envoy.config.listener.v3.Listener",
        LISTENER,
        |name, document| by_wire(name, document, decode::listener),
    );
}

#[test]
fn every_field_of_a_tcp_listener_is_seen() {
    play(
        "envoy.config.listener.v3.Listener",
        TCP,
        |name, document| by_wire(name, document, decode::listener),
    );
}

#[test]
fn every_field_of_a_route_configuration_is_seen() {
    play(
        "envoy.config.route.v3.RouteConfiguration",
        ROUTES,
        |name, document| by_wire(name, document, decode::routes),
    );
}

#[test]
fn every_field_of_a_bootstrap_is_seen() {
    play("envoy.config.bootstrap.v3.Bootstrap", BOOTSTRAP, by_file);
}

fn play(name: &str, text: &str, decode: Decode) {
    let root: Value = mesh_xds::yaml::from_str(text).expect("well-formed");
    let base = decode(name, &root).expect("accepted by the schema");
    assert_eq!(
        base.findings.rejections,
        [],
        "the base document is accepted"
    );
    let message = Message::find(name).expect("known");
    let mut probes = Vec::new();
    collect(&root, message, &mut String::new(), &mut probes);
    let (mut silent, mut played) = (BTreeSet::new(), 0);
    for (pointer, message) in probes {
        for field in message.fields() {
            let full = format!("{}.{}", message.name(), field.name);
            let excused = |(name, _): &(&str, &str)| *name == full || *name == message.name();
            if SILENT.iter().any(excused) {
                continue;
            }
            let documents = with(&root, &pointer, message, &field);
            if documents.is_empty() {
                continue;
            }
            played += 1;
            // One that the schema or the rules of the API refuse was seen as well.
            let changed = documents
                .into_iter()
                .any(|document| decode(name, &document).map_or(true, |outcome| outcome != base));
            if !changed {
                silent.insert(format!("{full} at {pointer}"));
            }
        }
    }
    assert!(played > 40, "{played} fields were played");
    assert_eq!(silent, BTreeSet::new(), "read in silence");
}

/// JSON pointers and types of all messages in the document.
fn collect(
    value: &Value,
    message: Message,
    pointer: &mut String,
    out: &mut Vec<(String, Message)>,
) {
    let message = match (message.name(), value.get("@type").and_then(Value::as_str)) {
        ("google.protobuf.Any", Some(url)) => Message::of_url(url).expect("a known type"),
        (name, _) if name.starts_with("google.protobuf.") => return,
        _ => message,
    };
    let Value::Object(fields) = value else {
        return;
    };
    out.push((pointer.clone(), message));
    for (key, value) in fields {
        let Some(field) = message.field(key) else {
            continue;
        };
        let Kind::Message(Some(inner)) = field.kind else {
            continue;
        };
        let len = pointer.len();
        pointer.push_str(&format!("/{key}"));
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let len = pointer.len();
                    pointer.push_str(&format!("/{index}"));
                    collect(item, inner, pointer, out);
                    pointer.truncate(len);
                }
            }
            Value::Object(entries) if field.map => {
                let Some(Kind::Message(Some(inner))) = inner.field("value").map(|field| field.kind)
                else {
                    continue;
                };
                for (key, item) in entries {
                    let len = pointer.len();
                    pointer.push_str(&format!("/{}", key.replace('/', "~1")));
                    collect(item, inner, pointer, out);
                    pointer.truncate(len);
                }
            }
            item => collect(item, inner, pointer, out),
        }
        pointer.truncate(len);
    }
}

/// The document with the field set to other values; none where it is set and has fields of its own.
fn with(root: &Value, pointer: &str, message: Message, field: &Field) -> Vec<Value> {
    let Some(Value::Object(fields)) = root.pointer(pointer) else {
        return Vec::new();
    };
    let old = fields.get(field.name);
    if matches!(old, Some(Value::Object(_) | Value::Array(_))) {
        return Vec::new();
    }
    let mut out = Vec::new();
    for new in samples(field, old) {
        let mut document = root.clone();
        let Some(Value::Object(fields)) = document.pointer_mut(pointer) else {
            continue;
        };
        if let Some(oneof) = field.oneof {
            for other in message.fields().filter(|other| other.oneof == Some(oneof)) {
                fields.remove(other.name);
            }
        }
        fields.insert(field.name.to_owned(), new);
        out.push(document);
    }
    out
}

/// Values to try: what is the default of one field is another's change.
fn samples(field: &Field, old: Option<&Value>) -> Vec<Value> {
    let mut out: Vec<Value> = sample(field, old, 0).into_iter().collect();
    match field.kind {
        _ if field.repeated => {}
        Kind::Enum(Some(target)) => out.extend(target.values().map(|(name, _)| json!(name))),
        Kind::Message(None) | Kind::Enum(None) => {}
        Kind::Message(Some(message)) => match message.name() {
            "google.protobuf.BoolValue" => out.extend([json!(true), json!(false)]),
            name if name.starts_with("google.protobuf.") && name.ends_with("Value") => {
                out.extend([json!(7), json!(50)]);
            }
            "envoy.config.core.v3.Metadata" => {
                out.push(json!({"filter_metadata": {"envoy.lb": {"a": "b"}}}));
            }
            name if name.starts_with("google.protobuf.") => {}
            _ => out.extend(full(message)),
        },
        Kind::Bool | Kind::String | Kind::Bytes | Kind::Double | Kind::Float => {}
        _ => out.push(json!(7)),
    }
    out.retain(|value| Some(value) != old);
    out
}

/// The smallest message with every scalar field set besides.
fn full(message: Message) -> Option<Value> {
    let Some(Value::Object(mut fields)) = least(message, 1) else {
        return None;
    };
    for field in message
        .fields()
        .filter(|field| field.oneof.is_none() && !field.repeated)
    {
        let plain = match field.kind {
            Kind::Message(Some(inner)) => {
                inner.name().starts_with("google.protobuf.") && inner.name().ends_with("Value")
            }
            Kind::Message(None) => false,
            _ => true,
        };
        if plain && let Some(value) = single(&field, None, 1) {
            fields.insert(field.name.to_owned(), value);
        }
    }
    Some(Value::Object(fields))
}

/// A value that differs from the default and from `old`, and keeps the rules of the API.
fn sample(field: &Field, old: Option<&Value>, depth: u32) -> Option<Value> {
    let one = single(field, old, depth)?;
    Some(match (field.map, field.repeated) {
        (true, _) => {
            let Kind::Message(Some(entry)) = field.kind else {
                return None;
            };
            let value = entry.field("value")?;
            json!({ "1": single(&value, None, depth + 1)? })
        }
        (false, true) => {
            let least = field.rules().find_map(|rule| match rule.check {
                Check::MinItems(least) => usize::try_from(least).ok(),
                _ => None,
            });
            Value::Array(vec![one; least.unwrap_or(1).max(1)])
        }
        (false, false) => one,
    })
}

fn single(field: &Field, old: Option<&Value>, depth: u32) -> Option<Value> {
    if depth > 6 {
        return None;
    }
    Some(match field.kind {
        Kind::Bool => json!(old != Some(&json!(true))),
        Kind::String => text(field, old),
        Kind::Bytes => json!("AQID"),
        Kind::Enum(Some(target)) => {
            let fits = |name: &&str| old.and_then(Value::as_str) != Some(*name);
            let other = target.values().filter(|(_, number)| *number != 0);
            json!(other.map(|(name, _)| name).find(fits)?)
        }
        Kind::Message(Some(message)) => return message_value(field, message, old, depth),
        Kind::Message(None) | Kind::Enum(None) => return None,
        Kind::Double | Kind::Float => json!(1.5),
        _ => json!(number(field, old)),
    })
}

fn text(field: &Field, old: Option<&Value>) -> Value {
    let least = field.rules().find_map(|rule| match rule.check {
        Check::MinLen(least) => usize::try_from(least).ok(),
        _ => None,
    });
    let one = "1".repeat(least.unwrap_or(1).max(1));
    match old {
        Some(Value::String(old)) if *old == one => json!(format!("{one}1")),
        _ => json!(one),
    }
}

/// A number that keeps the rules; durations are in nanoseconds.
fn number(field: &Field, old: Option<&Value>) -> i64 {
    let (mut low, mut high) = (1, i64::MAX);
    for rule in field.rules() {
        match rule.check {
            Check::Above(limit) => low = low.max(limit + 1),
            Check::AtLeast(limit) => low = low.max(limit),
            Check::Below(limit) => high = high.min(limit - 1),
            Check::AtMost(limit) => high = high.min(limit),
            _ => {}
        }
    }
    let value = low.min(high);
    match old.and_then(Value::as_i64) {
        Some(old) if old == value && value < high => value + 1,
        _ => value,
    }
}

fn message_value(
    field: &Field,
    message: Message,
    old: Option<&Value>,
    depth: u32,
) -> Option<Value> {
    Some(match message.name() {
        "google.protobuf.Duration" => match old {
            Some(old) if old == "77s" => json!("78s"),
            _ => json!(format!(
                "{}s",
                (number(field, None) + 999_999_999) / 1_000_000_000 + 76
            )),
        },
        "google.protobuf.Timestamp" => json!("2020-01-01T00:00:00Z"),
        "google.protobuf.FieldMask" => json!("a"),
        "google.protobuf.Struct" => json!({"a": "b"}),
        "google.protobuf.Value" => json!("a"),
        "google.protobuf.ListValue" => json!(["a"]),
        "google.protobuf.Any" => json!({"@type": "type.googleapis.com/google.protobuf.Empty"}),
        "google.protobuf.BoolValue" => json!(old != Some(&json!(true))),
        "google.protobuf.StringValue" => text(field, old),
        "google.protobuf.DoubleValue" | "google.protobuf.FloatValue" => json!(1.5),
        name if name.starts_with("google.protobuf.") && name.ends_with("Value") => {
            json!(number(field, old))
        }
        _ => least(message, depth + 1)?,
    })
}

/// The smallest message that keeps the rules.
fn least(message: Message, depth: u32) -> Option<Value> {
    let mut fields = Map::new();
    let mut oneofs = message.required_oneofs();
    for field in message.fields() {
        let needed = field.rules().any(|rule| {
            !rule.items
                && match rule.check {
                    Check::Required => true,
                    Check::MinLen(least) | Check::MinItems(least) => least > 0,
                    Check::Above(limit) => limit >= 0 && !field.presence,
                    Check::AtLeast(limit) => limit > 0 && !field.presence,
                    _ => false,
                }
        });
        let member = field.oneof.is_some_and(|oneof| oneofs & 1 << oneof != 0);
        if (needed && field.oneof.is_none()) || member {
            let Some(value) = sample(&field, None, depth) else {
                continue;
            };
            if let Some(oneof) = field.oneof {
                oneofs &= !(1 << oneof);
            }
            fields.insert(field.name.to_owned(), value);
        }
    }
    Some(Value::Object(fields))
}
