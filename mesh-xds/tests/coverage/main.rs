//! No field is read in silence: each field of each message in rich resources is set in turn, and must change the model,
//! be noted, or be refused.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt::Debug,
    rc::Rc,
};

use mesh_core::model::Note;
use mesh_xds::{
    decode::{self, Decoded, Findings},
    file::FileSource,
    json::{
        self,
        schema::{Field, Kind, Message},
    },
};
use serde_json::{Value, json};

use samples::{least, samples};

mod samples;

const CLUSTER: &str = include_str!("cluster.yaml");
const LISTENER: &str = include_str!("listener.yaml");
const TCP: &str = include_str!("tcp.yaml");
const BOOTSTRAP: &str = include_str!("bootstrap.yaml");
const ROUTES: &str = include_str!("routes.yaml");

/// Fields that may be set without any trace, and why.
const SILENT: [(&str, &str); 31] = [
    (
        "envoy.config.cluster.v3.CircuitBreakers.Thresholds.priority",
        "says which limits are meant",
    ),
    (
        "envoy.config.cluster.v3.Cluster.circuit_breakers",
        "without limits it says nothing",
    ),
    (
        "envoy.config.cluster.v3.Cluster.round_robin_lb_config",
        "without slow start it says nothing",
    ),
    (
        "envoy.config.endpoint.v3.LocalityLbEndpoints.load_balancer_endpoints",
        "without endpoints it says nothing",
    ),
    (
        "envoy.config.core.v3.KeepaliveSettings.timeout",
        "acts with an interval",
    ),
    (
        "envoy.config.core.v3.Http2ProtocolOptions.connection_keepalive",
        "acts with an interval",
    ),
    (
        "envoy.config.route.v3.HeaderMatcher.present_match",
        "true is the default",
    ),
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

/// Extensions that the decoders know, beside TLS; others are refused by name, or kept as a whole and refuse traffic.
const EXTENSIONS: [&str; 49] = [
    "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
    "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
    "envoy.extensions.clusters.dns.v3.DnsCluster",
    "envoy.extensions.filters.http.compressor.v3.Compressor",
    "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute",
    "envoy.extensions.filters.http.cors.v3.Cors",
    "envoy.extensions.filters.http.cors.v3.CorsPolicy",
    "envoy.extensions.filters.http.fault.v3.HTTPFault",
    "envoy.extensions.filters.http.health_check.v3.HealthCheck",
    "envoy.extensions.filters.http.on_demand.v3.OnDemand",
    "envoy.extensions.filters.http.router.v3.Router",
    "envoy.extensions.filters.http.stateful_session.v3.StatefulSession",
    "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute",
    "envoy.extensions.filters.http.tap.v3.Tap",
    "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
    "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
    "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
    "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    "envoy.extensions.formatter.metadata.v3.Metadata",
    "envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery",
    "envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig",
    "envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig",
    "envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig",
    "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
    "envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig",
    "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
    "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate",
    "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig",
    "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
    "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
    "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided",
    "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
    "envoy.extensions.load_balancing_policies.maglev.v3.Maglev",
    "envoy.extensions.load_balancing_policies.random.v3.Random",
    "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash",
    "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
    "envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality",
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "envoy.config.route.v3.FilterConfig",
    "envoy.config.route.v3.RouteList",
    "envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
    "envoy.type.matcher.v3.HttpRequestQueryParamMatchInput",
];

/// Fields whose messages are not entered, and why.
const CLOSED: [(&str, &str); 4] = [
    (
        "envoy.config.endpoint.v3.ClusterLoadAssignment.Policy.drop_overloads",
        "listed as a whole",
    ),
    (
        "envoy.config.core.v3.Node.user_agent_build_version",
        "for control planes",
    ),
    (
        "envoy.config.core.v3.TransportSocket.typed_config",
        "TLS is kept as a whole and refuses traffic",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3",
        "TLS is kept as a whole and refuses traffic",
    ),
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
        Enter::WhatFits,
        |name, document| by_wire(name, document, decode::cluster),
    );
}

#[test]
fn every_field_of_an_http_listener_is_seen() {
    play(
        "envoy.config.listener.v3.Listener",
        LISTENER,
        Enter::WhatIsThere,
        |name, document| by_wire(name, document, decode::listener),
    );
}

#[test]
fn every_field_of_a_tcp_listener_is_seen() {
    play(
        "envoy.config.listener.v3.Listener",
        TCP,
        Enter::WhatFits,
        |name, document| by_wire(name, document, decode::listener),
    );
}

#[test]
fn every_field_of_a_route_configuration_is_seen() {
    play(
        "envoy.config.route.v3.RouteConfiguration",
        ROUTES,
        Enter::WhatIsThere,
        |name, document| by_wire(name, document, decode::routes),
    );
}

#[test]
fn every_field_of_a_bootstrap_is_seen() {
    play(
        "envoy.config.bootstrap.v3.Bootstrap",
        BOOTSTRAP,
        Enter::WhatFits,
        by_file,
    );
}

/// Which messages are visited.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Enter {
    /// Those that the document holds: it is rich, and all that would fit beside is too much for a test.
    WhatIsThere,
    /// Those too that can be put into it.
    WhatFits,
}

/// A document in which a message stands, and what is seen of it.
struct Place {
    document: Rc<Value>,
    base: Rc<Seen>,
    pointer: String,
    message: Message,
}

/// Sets every field of every message that the document holds, and of those that can be put into it where `enter` says so: each is
/// visited once for each field that can hold it.
fn play(name: &str, text: &str, enter: Enter, decode: Decode) {
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
    let (document, base) = (Rc::new(root), Rc::new(base));
    let place = |(pointer, message)| Place {
        document: Rc::clone(&document),
        base: Rc::clone(&base),
        pointer,
        message,
    };
    let mut places: VecDeque<Place> = probes.into_iter().map(place).collect();
    let mut known: BTreeSet<String> = BTreeSet::new();
    let (mut silent, mut played) = (BTreeSet::new(), 0);
    while let Some(place) = places.pop_front() {
        for field in place.message.fields() {
            let full = format!("{}.{}", place.message.name(), field.name);
            let excused = |(name, _): &(&str, &str)| *name == full || *name == place.message.name();
            if SILENT.iter().any(excused) {
                continue;
            }
            if enter == Enter::WhatFits {
                deeper(name, &place, &field, &full, decode, &mut known, &mut places);
            }
            let documents = with(&place.document, &place.pointer, place.message, &field);
            if documents.is_empty() {
                continue;
            }
            played += 1;
            // One that the schema or the rules of the API refuse was seen as well.
            let changed = documents.into_iter().any(|document| {
                decode(name, &document).map_or(true, |outcome| outcome != *place.base)
            });
            if !changed {
                silent.insert(format!("{full} at {}", place.pointer));
            }
        }
    }
    assert!(played > 40, "{played} fields were played");
    println!(
        "{name}: {played} fields were played, {} messages put in",
        known.len()
    );
    assert_eq!(silent, BTreeSet::new(), "read in silence");
}

/// Puts the messages that the field can hold into the document, one at a time; those that are taken, and are not ignored as
/// a whole, are places to visit.
fn deeper(
    name: &str,
    place: &Place,
    field: &Field,
    full: &str,
    decode: Decode,
    known: &mut BTreeSet<String>,
    places: &mut VecDeque<Place>,
) {
    let Kind::Message(Some(inner)) = field.kind else {
        return;
    };
    let any = inner.name() == "google.protobuf.Any";
    let closed = |(name, _): &(&str, &str)| full.starts_with(name);
    if CLOSED.iter().any(closed)
        || field.map
        || (inner.name().starts_with("google.protobuf.") && !any)
    {
        return;
    }
    // What a configuration of an extension is depends on the list that it stands in.
    let steps = place.pointer.rsplit('/');
    let named = steps.filter(|step| step.parse::<u32>().is_err());
    let shape: Vec<&str> = named.take(2).collect();
    let key = if any {
        format!("{shape:?} {full}")
    } else {
        full.to_owned()
    };
    if !known.insert(key.clone()) {
        return;
    }
    let types: Vec<Message> = if any {
        EXTENSIONS
            .iter()
            .filter_map(|name| Message::find(name))
            .collect()
    } else {
        vec![inner]
    };
    for inner in types {
        let Some(Value::Object(mut content)) = least(inner, 1) else {
            continue;
        };
        if any {
            content.insert(
                "@type".into(),
                json!(format!("type.googleapis.com/{}", inner.name())),
            );
        }
        let value = Value::Object(content);
        let Some(document) = put(place, field, value) else {
            continue;
        };
        let Ok(seen) = decode(name, &document) else {
            continue;
        };
        let whole = |note: &Note| {
            let end = note.path.trim_end_matches("[0]");
            !place.base.findings.notes.contains(note)
                && (end == field.name || end.ends_with(&format!(".{}", field.name)))
        };
        if !seen.findings.rejections.is_empty() || seen.findings.notes.iter().any(whole) {
            continue;
        }
        let index = if field.repeated { "/0" } else { "" };
        places.push_back(Place {
            document: Rc::new(document),
            base: Rc::new(seen),
            pointer: format!("{}/{}{index}", place.pointer, field.name),
            message: inner,
        });
    }
}

/// The document with the field set to that message alone.
fn put(place: &Place, field: &Field, value: Value) -> Option<Value> {
    let mut document = (*place.document).clone();
    let fields = document.pointer_mut(&place.pointer)?.as_object_mut()?;
    if let Some(oneof) = field.oneof {
        let members = place.message.fields();
        for other in members.filter(|other| other.oneof == Some(oneof)) {
            fields.remove(other.name);
        }
    }
    let value = if field.repeated {
        json!([value])
    } else {
        value
    };
    fields.insert(field.name.to_owned(), value);
    Some(document)
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
