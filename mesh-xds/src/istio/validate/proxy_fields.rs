//! What Istio refuses in those fields of ProxyConfig that have no effect here (`ValidateMeshConfigProxyConfig`).

use serde_json::Value;

use super::{
    check::{At, Check},
    rules,
};
use crate::istio::api::mesh_config::ConnectionSettings;

/// Judges one field by its value.
pub(super) fn judged(c: &mut Check, at: &At<'_>, field: &str, value: &Value) {
    match field.replace('_', "").to_lowercase().as_str() {
        "configpath" | "binarypath" | "servicecluster" if value.as_str() == Some("") => {
            c.error(at, format_args!("{field} must not be empty"));
        }
        "discoveryaddress" => address(c, at, value),
        "statsdudpaddress" | "envoymetricsserviceaddress" => set_address(c, at, value),
        "envoymetricsservice" | "envoyaccesslogservice" => {
            if let Some(value) = value.get("address") {
                set_address(c, &at.key("address"), value);
            }
        }
        "tracing" => tracing(c, at, value),
        "controlplaneauthpolicy" => {
            let known = [Value::from("NONE"), "MUTUAL_TLS".into(), 0.into(), 1.into()];
            if !known.contains(value) {
                c.error(at, format_args!("{value} is no NONE or MUTUAL_TLS"));
            }
        }
        "privatekeyprovider" => private_key_provider(c, at, value),
        _ => {}
    }
}

/// A host name or IP address, and a port.
fn address(c: &mut Check, at: &At<'_>, value: &Value) {
    let text = value.as_str().unwrap_or_default();
    let parts = text.rsplit_once(':').map(|(host, port)| {
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        (bare.unwrap_or(host), bare.is_some(), port)
    });
    let Some((host, _, port)) = parts.filter(|(host, bare, _)| *bare || !host.contains(':')) else {
        c.error(at, format_args!("`{text}` is no HOST:PORT"));
        return;
    };
    match port.parse::<i64>() {
        Ok(port) => c.rule(at, rules::port(port)),
        Err(_) => c.error(at, format_args!("port `{port}` is no number")),
    }
    if rules::fqdn(host).is_err() && rules::ip(host).is_err() {
        c.error(at, format_args!("`{host}` is no host name or IP address"));
    }
}

/// The same, where empty means none.
fn set_address(c: &mut Check, at: &At<'_>, value: &Value) {
    if value.as_str() != Some("") {
        address(c, at, value);
    }
}

fn tracing(c: &mut Check, at: &At<'_>, value: &Value) {
    for collector in ["zipkin", "datadog", "lightstep"] {
        let Some(settings) = value.get(collector) else {
            continue;
        };
        let at = at.key(collector);
        let text = settings["address"].as_str().unwrap_or_default();
        let text = match collector {
            "lightstep" => text.to_owned(),
            _ => text.replacen("$(HOST_IP)", "127.0.0.1", 1),
        };
        address(c, &at.key("address"), &text.into());
        let token = settings.get("accessToken").or(settings.get("access_token"));
        if collector == "lightstep" && token.and_then(Value::as_str).is_none_or(str::is_empty) {
            c.error(&at.key("accessToken"), "accessToken must be set");
        }
    }
}

fn private_key_provider(c: &mut Check, at: &At<'_>, value: &Value) {
    let kinds = ["cryptomb", "qat"];
    let Some((kind, settings)) = kinds
        .iter()
        .find_map(|kind| Some((*kind, value.get(kind)?)))
    else {
        c.error(at, "one of cryptomb, qat must be set");
        return;
    };
    let delay = settings.get("pollDelay").or(settings.get("poll_delay"));
    if delay.and_then(seconds).is_none_or(|delay| delay == 0.0) {
        c.error(
            &at.key(kind).key("pollDelay"),
            "pollDelay must be set and not zero",
        );
    }
}

/// Judges the limits of client connections.
pub(super) fn connection_settings(c: &mut Check, at: &At<'_>, settings: &ConnectionSettings) {
    for (field, value, least) in [
        (
            "listenerPerConnectionBufferLimitBytes",
            settings.listener_per_connection_buffer_limit_bytes,
            0,
        ),
        (
            "httpMaxConcurrentStreams",
            settings.http_max_concurrent_streams,
            1,
        ),
        (
            "http2InitialStreamWindowSize",
            settings.http2_initial_stream_window_size,
            65535,
        ),
        (
            "http2InitialConnectionWindowSize",
            settings.http2_initial_connection_window_size,
            65535,
        ),
    ] {
        if value.is_some_and(|value| value < least) {
            c.error(
                &at.key(field),
                format_args!("{field} must be at least {least}"),
            );
        }
    }
    for (field, value) in &settings.ignored {
        let name = field.replace('_', "").to_lowercase();
        let least = match name.as_str() {
            "clusterperconnectionbufferlimitbytes" => 0,
            "listenerconnectionlimit" | "globaldownstreamconnectionlimit" => 1,
            _ => continue,
        };
        if value.as_i64().is_some_and(|value| value < least) {
            c.error(
                &at.key(field),
                format_args!("{field} must be at least {least}"),
            );
        }
    }
}

/// A duration in protobuf's JSON, `1.5s`, in seconds.
fn seconds(value: &Value) -> Option<f64> {
    value.as_str()?.strip_suffix('s')?.parse().ok()
}
