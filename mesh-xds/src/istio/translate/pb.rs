//! Small builders of protobuf messages.

use std::collections::HashMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use envoy_types::pb::google::protobuf as google;
use prost::{Message, Name};

use crate::istio::api::json::StringMatch;
use crate::istio::index::Meta;

/// Packs a message.
pub(super) fn any<M: Message + Name>(message: &M) -> google::Any {
    google::Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}

pub(super) fn duration(value: Duration) -> google::Duration {
    google::Duration {
        seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(value.subsec_nanos()).unwrap_or_default(),
    }
}

pub(super) fn boolean(value: bool) -> google::BoolValue {
    google::BoolValue { value }
}

pub(super) fn uint(value: u32) -> google::UInt32Value {
    google::UInt32Value { value }
}

pub(super) fn text_value(text: impl Into<String>) -> google::Value {
    google::Value {
        kind: Some(google::value::Kind::StringValue(text.into())),
    }
}

pub(super) fn structure(
    fields: impl IntoIterator<Item = (String, google::Value)>,
) -> google::Struct {
    google::Struct {
        fields: fields.into_iter().collect(),
    }
}

/// Percentage in millionths, as Istio's `Percent` is written.
pub(super) fn percent(value: f64) -> FractionalPercent {
    FractionalPercent {
        numerator: (value * 10_000.0) as u32,
        denominator: DenominatorType::Million.into(),
    }
}

/// Percentage in whole percents.
pub(super) fn whole_percent(value: u32) -> FractionalPercent {
    FractionalPercent {
        numerator: value,
        denominator: DenominatorType::Hundred.into(),
    }
}

pub(super) fn runtime(value: FractionalPercent) -> core::RuntimeFractionalPercent {
    core::RuntimeFractionalPercent {
        default_value: Some(value),
        runtime_key: String::new(),
    }
}

pub(super) fn regex(regex: &str) -> matcher::RegexMatcher {
    matcher::RegexMatcher {
        regex: regex.to_owned(),
        engine_type: None,
    }
}

/// A matcher of the whole text; nothing when no condition is given.
pub(super) fn string_match(condition: &StringMatch) -> Option<matcher::StringMatcher> {
    use matcher::string_matcher::MatchPattern;
    let pattern = match condition {
        StringMatch::Unset => return None,
        StringMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        StringMatch::Prefix(text) => MatchPattern::Prefix(text.clone()),
        StringMatch::Regex(text) => MatchPattern::SafeRegex(regex(text)),
    };
    Some(matcher::StringMatcher {
        ignore_case: false,
        match_pattern: Some(pattern),
    })
}

/// The name of an Istio networking object, in the form that istiod writes into `metadata.filter_metadata.istio.config`.
#[must_use]
pub fn config_name(kind: &str, meta: &Meta) -> String {
    format!(
        "/apis/networking.istio.io/v1/namespaces/{}/{kind}/{}",
        meta.namespace, meta.name
    )
}

/// Metadata that names the object which a resource was made from.
pub(super) fn config_metadata(kind: &str, meta: &Meta) -> core::Metadata {
    istio_metadata([("config".to_owned(), text_value(config_name(kind, meta)))])
}

/// The name of the object that metadata names; empty when it names none.
pub(super) fn config_of(metadata: Option<&core::Metadata>) -> String {
    let istio = metadata.and_then(|metadata| metadata.filter_metadata.get("istio"));
    match istio.and_then(|istio| istio.fields.get("config")?.kind.as_ref()) {
        Some(google::value::Kind::StringValue(name)) => name.clone(),
        _ => String::new(),
    }
}

pub(super) fn istio_metadata(
    fields: impl IntoIterator<Item = (String, google::Value)>,
) -> core::Metadata {
    core::Metadata {
        filter_metadata: HashMap::from([("istio".to_owned(), structure(fields))]),
        typed_filter_metadata: HashMap::new(),
    }
}

/// Adds the name of an object to metadata that may have other entries.
pub(super) fn add_config(metadata: &mut Option<core::Metadata>, kind: &str, meta: &Meta) {
    let metadata = metadata.get_or_insert_default();
    let istio = metadata
        .filter_metadata
        .entry("istio".to_owned())
        .or_default();
    istio
        .fields
        .insert("config".to_owned(), text_value(config_name(kind, meta)));
}

/// `host:port`, with brackets around an IPv6 address.
pub(super) fn host_port(host: &str, port: u32) -> String {
    format!("{}:{port}", bracketed(host))
}

/// The host with brackets if it is an IPv6 address.
pub(super) fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

pub(super) fn socket_address(address: &str, port: u32) -> core::Address {
    use core::socket_address::PortSpecifier;
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: address.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(port)),
            ..core::SocketAddress::default()
        })),
    }
}

pub(super) fn pipe(path: &str) -> core::Address {
    core::Address {
        address: Some(core::address::Address::Pipe(core::Pipe {
            path: path.to_owned(),
            mode: 0,
        })),
    }
}

/// The name of an outbound cluster: direction, port, subset and host.
#[must_use]
pub fn subset_key(direction: &str, subset: &str, host: &str, port: u32) -> String {
    format!("{direction}|{port}|{subset}|{host}")
}
