//! HTTP codec settings that listeners and clusters share.

use std::time::Duration;

use envoy_types::pb::envoy::{
    config::core::v3::{
        Http1ProtocolOptions, Http2ProtocolOptions, KeepaliveSettings, TypedExtensionConfig,
        http1_protocol_options::header_key_format::HeaderFormat,
    },
    extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig,
};
use mesh_core::model::{Http1Options, Http2Options};

use super::{
    Context, common,
    set::{ignored, unsupported},
};

/// HTTP/1 settings.
pub(crate) fn http1(cx: &mut Context, value: &Http1ProtocolOptions) -> Http1Options {
    let Http1ProtocolOptions {
        allow_absolute_url,
        accept_http_10,
        default_host_for_http_10,
        header_key_format,
        enable_trailers,
        allow_chunked_length,
        override_stream_error_on_invalid_http_message,
        send_fully_qualified_url,
        use_balsa_parser,
        allow_custom_methods,
        ignore_http_11_upgrade,
    } = value;
    ignored!(cx; use_balsa_parser, ignore_http_11_upgrade,
        override_stream_error_on_invalid_http_message);
    unsupported!(cx; send_fully_qualified_url);
    let format = header_key_format.as_ref();
    let format = format.and_then(|format| format.header_format.as_ref());
    let preserve_case = match format {
        Some(HeaderFormat::StatefulFormatter(formatter)) => {
            let field = "header_key_format.stateful_formatter";
            cx.field(field, |cx| self::preserve_case(cx, formatter))
        }
        Some(HeaderFormat::ProperCaseWords(_)) | None => false,
    };
    Http1Options {
        accept_http_10: *accept_http_10,
        default_host: default_host_for_http_10.as_str().into(),
        preserve_case,
        proper_case: matches!(format, Some(HeaderFormat::ProperCaseWords(_))),
        allow_chunked_length: *allow_chunked_length,
        refuse_absolute_url: !common::bool_of(allow_absolute_url.as_ref(), true),
        allow_custom_methods: *allow_custom_methods,
        enable_trailers: *enable_trailers,
    }
}

/// Whether names keep their case: the one formatter that is known does that.
fn preserve_case(cx: &mut Context, value: &TypedExtensionConfig) -> bool {
    let Some(PreserveCaseFormatterConfig {
        forward_reason_phrase,
        formatter_type_on_envoy_headers,
    }) = &cx.extension("header formatter", value)
    else {
        return false;
    };
    cx.field("typed_config", |cx| {
        ignored!(cx; forward_reason_phrase, formatter_type_on_envoy_headers);
    });
    true
}

/// HTTP/2 settings.
pub(crate) fn http2(cx: &mut Context, value: &Http2ProtocolOptions) -> Http2Options {
    let Http2ProtocolOptions {
        hpack_table_size,
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        allow_metadata,
        max_outbound_frames,
        max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent,
        stream_error_on_invalid_http_messaging,
        override_stream_error_on_invalid_http_message,
        custom_settings_parameters,
        connection_keepalive,
        use_oghttp2_codec,
        max_metadata_size,
        enable_huffman_encoding,
        max_header_field_size_kb,
        disallow_obs_text,
        stream_reset_burst,
        stream_reset_rate,
    } = value;
    ignored!(cx; hpack_table_size, allow_metadata, max_outbound_frames, max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload, max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent, custom_settings_parameters, use_oghttp2_codec,
        max_metadata_size, enable_huffman_encoding, max_header_field_size_kb, disallow_obs_text,
        stream_reset_burst, stream_reset_rate, stream_error_on_invalid_http_messaging,
        override_stream_error_on_invalid_http_message);
    let keepalive = connection_keepalive.as_ref().and_then(|keepalive| {
        cx.field("connection_keepalive", |cx| self::keepalive(cx, keepalive))
    });
    Http2Options {
        max_concurrent_streams: common::u32_of(max_concurrent_streams.as_ref()),
        initial_stream_window_size: common::u32_of(initial_stream_window_size.as_ref()),
        initial_connection_window_size: common::u32_of(initial_connection_window_size.as_ref()),
        allow_connect: *allow_connect,
        keepalive,
    }
}

fn keepalive(cx: &mut Context, value: &KeepaliveSettings) -> Option<(Duration, Duration)> {
    let KeepaliveSettings {
        interval,
        timeout,
        interval_jitter,
        connection_idle_interval,
    } = value;
    ignored!(cx; interval_jitter, connection_idle_interval);
    let interval = common::some_duration(cx, "interval", interval.as_ref())?;
    let timeout = common::some_duration(cx, "timeout", timeout.as_ref())?;
    Some((interval, timeout))
}
