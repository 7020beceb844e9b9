//! Access logs as MeshConfig asks for them.

use core::substitution_format_string::Format;
use envoy_types::pb::envoy::config::accesslog::v3 as log;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::{
    FileAccessLog, file_access_log::AccessLogFormat,
};
use envoy_types::pb::google::protobuf as google;

use mesh_core::telemetry::access_log::ISTIO_TEXT;

use super::pb;
use crate::istio::api::MeshConfig;
use crate::istio::api::mesh_config::AccessLogEncoding;

/// Istio's JSON fields.
const JSON: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    (
        "connection_termination_details",
        "%CONNECTION_TERMINATION_DETAILS%",
    ),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    (
        "upstream_service_time",
        "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    ),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    (
        "upstream_transport_failure_reason",
        "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    ),
];

/// The logs of a connection manager or a TCP proxy.
pub(super) fn of(mesh: &MeshConfig) -> Vec<log::AccessLog> {
    file(mesh).into_iter().collect()
}

fn file(mesh: &MeshConfig) -> Option<log::AccessLog> {
    if mesh.access_log_file.is_empty() {
        return None;
    }
    let format = match mesh.access_log_encoding {
        AccessLogEncoding::Text => text_format(&mesh.access_log_format),
        AccessLogEncoding::Json => Format::JsonFormat(json_format(&mesh.access_log_format)),
    };
    let config = FileAccessLog {
        path: mesh.access_log_file.clone(),
        access_log_format: Some(AccessLogFormat::LogFormat(core::SubstitutionFormatString {
            format: Some(format),
            ..core::SubstitutionFormatString::default()
        })),
    };
    Some(log::AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        filter: None,
        config_type: Some(log::access_log::ConfigType::TypedConfig(pb::any(&config))),
    })
}

fn text_format(own: &str) -> Format {
    let mut line = if own.is_empty() {
        ISTIO_TEXT.to_owned()
    } else {
        own.to_owned()
    };
    if !line.ends_with('\n') {
        line.push('\n');
    }
    Format::TextFormatSource(core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineString(line)),
        ..core::DataSource::default()
    })
}

/// The user's own object, or Istio's; a format that is no object counts as none.
fn json_format(own: &str) -> google::Struct {
    match serde_json::from_str(own) {
        Ok(serde_json::Value::Object(fields)) => json_struct(fields),
        _ => {
            let fields = JSON.iter();
            pb::structure(fields.map(|(key, value)| ((*key).to_owned(), pb::text_value(*value))))
        }
    }
}

fn json_struct(fields: serde_json::Map<String, serde_json::Value>) -> google::Struct {
    let fields = fields.into_iter();
    pb::structure(fields.map(|(key, value)| (key, json_value(value))))
}

fn json_value(value: serde_json::Value) -> google::Value {
    use google::value::Kind;
    use serde_json::Value;

    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Value::String(value) => Kind::StringValue(value),
        Value::Array(list) => Kind::ListValue(google::ListValue {
            values: list.into_iter().map(json_value).collect(),
        }),
        Value::Object(fields) => Kind::StructValue(json_struct(fields)),
    };
    google::Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_json_format_may_nest_and_what_is_none_gives_way_to_istios() {
        let own = json_format(r#"{"request": {"path": "%PATH%", "tries": [1, true]}, "v": null}"#);
        let text = format!("{:?}", own.fields["request"]);
        for part in ["%PATH%", "NumberValue(1.0)", "BoolValue(true)"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(own.fields.len(), 2);
        for none in ["", "[]", "%START_TIME%", "{"] {
            assert_eq!(json_format(none).fields.len(), JSON.len(), "{none}");
        }
    }
}
