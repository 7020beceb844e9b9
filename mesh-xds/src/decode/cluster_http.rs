//! How a cluster speaks HTTP: `HttpProtocolOptions` of the extension options, and the older fields.

use envoy_types::pb::envoy::{
    config::{
        cluster::v3::{Cluster as Proto, cluster::ClusterProtocolSelection},
        core::v3::{
            Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonOptions,
        },
    },
    extensions::{
        filters::network::http_connection_manager::v3::{HttpFilter, http_filter::ConfigType},
        upstreams::http::v3::{
            HttpProtocolOptions,
            http_protocol_options::{
                UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
            },
        },
    },
};
use mesh_core::model::{Cluster, Http1Options, UpstreamProtocol};

use super::{Context, common, filter, protocol, set::ignored};

const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Reads all HTTP settings into `out`. As in Envoy, the extension options replace the older fields as a whole; only the
/// cluster's own `max_requests_per_connection` stands where they say nothing of it.
pub(super) fn options(cx: &mut Context, value: &Proto, out: &mut Cluster) {
    if let Some(limit) = &value.max_requests_per_connection {
        out.max_requests_per_connection = Some(limit.value).filter(|limit| *limit > 0);
    }
    let Proto {
        upstream_http_protocol_options,
        common_http_protocol_options,
        http_protocol_options,
        http2_protocol_options,
        protocol_selection,
        ..
    } = value;
    ignored!(cx; upstream_http_protocol_options);
    if extensions(cx, value, out) {
        ignored!(cx; common_http_protocol_options, http_protocol_options, http2_protocol_options, protocol_selection);
    } else {
        older(cx, value, out);
    }
}

/// Reads the extension options. Returns whether there were some for HTTP.
fn extensions(cx: &mut Context, value: &Proto, out: &mut Cluster) -> bool {
    let mut extensions: Vec<_> = value.typed_extension_protocol_options.iter().collect();
    extensions.sort_by_key(|(name, _)| *name);
    let mut found = false;
    for (name, any) in extensions {
        cx.entry("typed_extension_protocol_options", name, |cx| {
            let Some(typed) = cx.typed(any) else {
                return;
            };
            if typed.name != OPTIONS {
                cx.note(
                    "",
                    format_args!("ignored: {} has no effect here", typed.name),
                );
                return;
            }
            found = true;
            if let Some(message) = cx.message(&typed) {
                extension(cx, &message, out);
            }
        });
    }
    found
}

/// The fields that the extension options replaced.
fn older(cx: &mut Context, value: &Proto, out: &mut Cluster) {
    let downstream = value.protocol_selection() == ClusterProtocolSelection::UseDownstreamProtocol;
    let both = value.http_protocol_options.is_some() && value.http2_protocol_options.is_some();
    if both && !downstream {
        cx.reject(
            "http2_protocol_options",
            "must not be set beside http_protocol_options unless protocol_selection is USE_DOWNSTREAM_PROTOCOL",
        );
    }
    if let Some(options) = &value.common_http_protocol_options {
        cx.field("common_http_protocol_options", |cx| {
            common(cx, options, out)
        });
    }
    if let Some(options) = &value.http_protocol_options {
        out.http1 = cx.field("http_protocol_options", |cx| codec1(cx, options));
    }
    if let Some(options) = &value.http2_protocol_options {
        out.http2 = cx.field("http2_protocol_options", |cx| protocol::http2(cx, options));
        out.protocol = UpstreamProtocol::Http2;
    }
    if downstream {
        out.protocol = UpstreamProtocol::Downstream;
    }
}

fn extension(cx: &mut Context, value: &HttpProtocolOptions, out: &mut Cluster) {
    let HttpProtocolOptions {
        common_http_protocol_options,
        upstream_http_protocol_options,
        http_filters,
        header_validation_config,
        outlier_detection,
        request_mirror_policies,
        hash_policy,
        retry_policy,
        upstream_protocol_options,
    } = value;
    ignored!(cx; upstream_http_protocol_options, header_validation_config, outlier_detection,
        request_mirror_policies, hash_policy, retry_policy);
    filters(cx, http_filters);
    if let Some(options) = common_http_protocol_options {
        cx.field("common_http_protocol_options", |cx| {
            common(cx, options, out)
        });
    }
    match upstream_protocol_options {
        None => {}
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)) => {
            cx.field("explicit_http_config", |cx| {
                explicit(cx, config.protocol_config.as_ref(), out)
            });
        }
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(config)) => {
            cx.field("use_downstream_protocol_config", |cx| {
                let http3_protocol_options = &config.http3_protocol_options;
                ignored!(cx; http3_protocol_options);
                out.protocol = UpstreamProtocol::Downstream;
                versions(
                    cx,
                    config.http_protocol_options.as_ref(),
                    config.http2_protocol_options.as_ref(),
                    out,
                );
            });
        }
        Some(UpstreamProtocolOptions::AutoConfig(config)) => {
            cx.field("auto_config", |cx| {
                let http3_protocol_options = &config.http3_protocol_options;
                let alternate_protocols_cache_options = &config.alternate_protocols_cache_options;
                ignored!(cx; http3_protocol_options, alternate_protocols_cache_options);
                out.protocol = UpstreamProtocol::Auto;
                versions(
                    cx,
                    config.http_protocol_options.as_ref(),
                    config.http2_protocol_options.as_ref(),
                    out,
                );
            });
        }
    }
}

fn explicit(cx: &mut Context, value: Option<&ProtocolConfig>, out: &mut Cluster) {
    match value {
        Some(ProtocolConfig::HttpProtocolOptions(options)) => {
            versions(cx, Some(options), None, out);
            out.protocol = UpstreamProtocol::Http1;
        }
        Some(ProtocolConfig::Http2ProtocolOptions(options)) => {
            versions(cx, None, Some(options), out);
            out.protocol = UpstreamProtocol::Http2;
        }
        Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
            cx.reject("http3_protocol_options", "HTTP/3 is not supported");
        }
        None => cx.reject(
            "",
            "one of http_protocol_options, http2_protocol_options must be set",
        ),
    }
}

fn versions(
    cx: &mut Context,
    http1: Option<&Http1ProtocolOptions>,
    http2: Option<&Http2ProtocolOptions>,
    out: &mut Cluster,
) {
    if let Some(options) = http1 {
        out.http1 = cx.field("http_protocol_options", |cx| codec1(cx, options));
    }
    if let Some(options) = http2 {
        out.http2 = cx.field("http2_protocol_options", |cx| protocol::http2(cx, options));
    }
}

/// HTTP/1 settings; those that only a server has are listed.
fn codec1(cx: &mut Context, value: &Http1ProtocolOptions) -> Http1Options {
    ignored!(cx, value; accept_http_10, default_host_for_http_10, allow_chunked_length,
        allow_absolute_url, allow_custom_methods);
    protocol::http1(cx, value)
}

fn common(cx: &mut Context, value: &CommonOptions, out: &mut Cluster) {
    let CommonOptions {
        idle_timeout,
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    } = value;
    ignored!(cx; max_connection_duration_jitter, max_headers_count, max_response_headers_kb,
        headers_with_underscores_action);
    out.idle_timeout = common::timeout(cx, "idle_timeout", idle_timeout.as_ref(), out.idle_timeout);
    let field = "max_connection_duration";
    out.max_connection_duration =
        common::timeout(cx, field, max_connection_duration.as_ref(), None);
    let field = "max_stream_duration";
    out.max_stream_duration = common::timeout(cx, field, max_stream_duration.as_ref(), None);
    if let Some(limit) = common::u32_of(max_requests_per_connection.as_ref()) {
        out.max_requests_per_connection = Some(limit).filter(|limit| *limit > 0);
    }
}

/// Filters on the way up: the codec is always the last, telemetry is done elsewhere, others are refused.
fn filters(cx: &mut Context, values: &[HttpFilter]) {
    const CODEC: &str = "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec";
    for (index, value) in values.iter().enumerate() {
        cx.item("http_filters", index, |cx| {
            let typed = match &value.config_type {
                Some(ConfigType::TypedConfig(any)) => cx.typed(any),
                _ => None,
            };
            match typed {
                Some(typed) if typed.name == CODEC => {}
                Some(typed)
                    if value.disabled
                        || filter::is_telemetry(&typed.name)
                        || filter::is_harmless(&typed.name) =>
                {
                    cx.note(
                        "",
                        format_args!("ignored: filter {} has no effect here", value.name),
                    );
                }
                _ => cx.reject(
                    "",
                    format_args!("upstream filter {} is not supported", value.name),
                ),
            }
        });
    }
}
