//! Access logs as MeshConfig asks for them.

use core::substitution_format_string::Format;
use envoy_types::pb::envoy::config::accesslog::v3 as log;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::{
    FileAccessLog, file_access_log::AccessLogFormat,
};
use envoy_types::pb::google::protobuf as google;

use super::pb;
use crate::istio::api::MeshConfig;
use crate::istio::api::mesh_config::AccessLogEncoding;

/// Istio's line.
const TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
    %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
    \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
    \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% \
    %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

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

/// The log of a connection manager.
pub(super) fn for_http(mesh: &MeshConfig) -> Vec<log::AccessLog> {
    file(mesh).into_iter().collect()
}

/// The log of a TCP proxy.
pub(super) fn for_tcp(mesh: &MeshConfig) -> Vec<log::AccessLog> {
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
        TEXT.to_owned()
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

/// The user's own object of strings, or Istio's; a format that is no such object counts as none.
fn json_format(own: &str) -> google::Struct {
    let fields: Option<std::collections::BTreeMap<String, String>> = serde_json::from_str(own).ok();
    match fields {
        Some(fields) => pb::structure(
            fields
                .into_iter()
                .map(|(key, value)| (key, pb::text_value(value))),
        ),
        None => pb::structure(
            JSON.iter()
                .map(|(key, value)| ((*key).to_owned(), pb::text_value(*value))),
        ),
    }
}
