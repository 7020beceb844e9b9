//! The HTTP connection manager (`extensions.filters.network.http_connection_manager.v3`).

use std::{sync::Arc, time::Duration};

use envoy_types::pb::envoy::{
    config::core::v3::{
        HttpProtocolOptions as CommonOptions, SchemeHeaderTransformation,
        http_protocol_options::HeadersWithUnderscoresAction,
        scheme_header_transformation::Transformation,
    },
    extensions::{
        filters::network::http_connection_manager::v3::{
            HttpConnectionManager as Proto, LocalReplyConfig, RequestIdExtension, ResponseMapper,
            http_connection_manager::{
                self as manager, CodecType as ProtoCodec, ForwardClientCertDetails,
                PathWithEscapedSlashesAction, RouteSpecifier, ServerHeaderTransformation,
                StripPortMode,
            },
        },
        request_id::uuid::v3::UuidRequestIdConfig,
    },
};
use mesh_core::model::{
    CodecType, EscapedSlashes, ForwardClientCert, HttpConnectionManager, LocalReply, Name,
    ReplyMapper, RouteSource, ServerHeader, StripPort, Tracing, UnderscoresAction, Upgrade,
};

use super::{
    Context, access_log, common, filter, format, header, protocol, route,
    set::{ignored, unsupported},
};

/// The connection manager.
pub(super) fn manager(cx: &mut Context, value: &Proto) -> Option<HttpConnectionManager> {
    let Proto {
        stat_prefix,
        http_filters,
        tracing,
        server_name,
        max_request_headers_kb,
        access_log,
        via,
        upgrade_configs,
        local_reply_config,
        strip_trailing_host_dot,
        append_x_forwarded_port,
        proxy_100_continue,
        ..
    } = value;
    unused(cx, value);
    let mut out = HttpConnectionManager {
        stat_prefix: stat_prefix.as_str().into(),
        via: via.as_str().into(),
        strip_trailing_host_dot: *strip_trailing_host_dot,
        append_x_forwarded_port: *append_x_forwarded_port,
        proxy_100_continue: *proxy_100_continue,
        ..HttpConnectionManager::default()
    };
    let (filters, router) = filter::chain(cx, "http_filters", http_filters);
    out.filters = filters;
    out.suppress_envoy_headers = router.suppress_envoy_headers;
    out.respect_expected_rq_timeout = router.respect_expected_rq_timeout;
    if !server_name.is_empty() {
        let name = format::header_value(cx, "server_name", server_name);
        out.server_name = name.unwrap_or(out.server_name);
    }
    if let Some(limit) = common::u32_of(max_request_headers_kb.as_ref()) {
        out.max_request_headers_bytes = limit.saturating_mul(1024);
    }
    codec(cx, value, &mut out);
    timeouts(cx, value, &mut out);
    addresses(cx, value, &mut out);
    request_id(cx, value, &mut out);
    paths(cx, value, &mut out);
    out.upgrades = cx.each("upgrade_configs", upgrade_configs, upgrade);
    route::distinct_upgrades(cx, &out.upgrades);
    if let Some(value) = local_reply_config {
        out.local_reply = cx.field("local_reply_config", |cx| local_reply(cx, value));
    }
    out.access_log = access_log::logs(cx, "access_log", access_log);
    out.tracing = tracing
        .as_ref()
        .map(|value| cx.field("tracing", |cx| self::tracing(cx, value)));
    out.routes = routes(cx, value)?;
    Some(out)
}

/// Fields without effect, and those that ask for what is not there.
fn unused(cx: &mut Context, value: &Proto) {
    ignored!(cx, value; add_user_agent, http1_safe_max_connection_duration, http3_protocol_options, stream_flush_timeout,
        drain_timeout_jitter, access_log_flush_interval, flush_access_log_on_new_request, access_log_options,
        set_current_client_cert_details, represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        path_normalization_options, proxy_status_config, typed_header_validation_config, append_local_overload,
        add_proxy_protocol_connection_state, forward_proto_config, stream_error_on_invalid_http_message);
    unsupported!(cx, value; original_ip_detection_extensions, early_header_mutation_extensions,
        forward_client_cert_matcher);
}

fn routes(cx: &mut Context, value: &Proto) -> Option<RouteSource> {
    match &value.route_specifier {
        Some(RouteSpecifier::RouteConfig(table)) => {
            // The default differs: clusters of an inline table must exist.
            let validate = common::bool_of(table.validate_clusters.as_ref(), true);
            let mut table = cx.field("route_config", |cx| route::table(cx, table));
            table.validate_clusters = validate;
            Some(RouteSource::Inline(Arc::new(table)))
        }
        // Where it comes from is the source's business: each has one stream of route tables.
        Some(RouteSpecifier::Rds(rds)) => {
            if rds.config_source.is_none() && !rds.route_config_name.starts_with("xdstp:") {
                cx.reject("rds.config_source", "must be set");
            }
            Some(RouteSource::Named(rds.route_config_name.as_str().into()))
        }
        Some(RouteSpecifier::ScopedRoutes(_)) => {
            cx.reject("scoped_routes", "not supported");
            None
        }
        None => {
            cx.reject("", "one of rds, route_config must be set");
            None
        }
    }
}

fn codec(cx: &mut Context, value: &Proto, out: &mut HttpConnectionManager) {
    out.codec = match value.codec_type() {
        ProtoCodec::Auto => CodecType::Auto,
        ProtoCodec::Http1 => CodecType::Http1,
        ProtoCodec::Http2 => CodecType::Http2,
        ProtoCodec::Http3 => {
            cx.reject("codec_type", "HTTP/3 is not supported");
            CodecType::Auto
        }
    };
    if let Some(options) = &value.http_protocol_options {
        out.http1 = cx.field("http_protocol_options", |cx| protocol::http1(cx, options));
        if out.http1.enable_trailers {
            let reason =
                "to an HTTP/1 upstream only trailers that the header `trailer` declares pass";
            cx.note("http_protocol_options.enable_trailers", reason);
        }
    }
    if let Some(options) = &value.http2_protocol_options {
        out.http2 = cx.field("http2_protocol_options", |cx| protocol::http2(cx, options));
        let largest = common::u32_of(options.max_header_field_size_kb.as_ref());
        if largest.is_some_and(|size| size.saturating_mul(1024) > out.max_request_headers_bytes) {
            cx.reject(
                "http2_protocol_options.max_header_field_size_kb",
                "must not exceed max_request_headers_kb",
            );
        }
    }
    out.server_header = match value.server_header_transformation() {
        ServerHeaderTransformation::Overwrite => ServerHeader::Overwrite,
        ServerHeaderTransformation::AppendIfAbsent => ServerHeader::AppendIfAbsent,
        ServerHeaderTransformation::PassThrough => ServerHeader::PassThrough,
    };
    if let Some(value) = &value.scheme_header_transformation {
        cx.field("scheme_header_transformation", |cx| {
            let SchemeHeaderTransformation {
                match_upstream,
                transformation,
            } = value;
            ignored!(cx; match_upstream);
            if let Some(Transformation::SchemeToOverwrite(scheme)) = transformation {
                out.scheme = Some(scheme.as_str().into());
            }
        });
    }
}

fn timeouts(cx: &mut Context, value: &Proto, out: &mut HttpConnectionManager) {
    let limit = |cx: &mut Context, field, value: &Option<_>, default| {
        common::timeout(cx, field, value.as_ref(), default)
    };
    out.stream_idle_timeout = limit(
        cx,
        "stream_idle_timeout",
        &value.stream_idle_timeout,
        out.stream_idle_timeout,
    );
    out.request_timeout = limit(cx, "request_timeout", &value.request_timeout, None);
    let field = "request_headers_timeout";
    out.request_headers_timeout = limit(cx, field, &value.request_headers_timeout, None);
    let time = |cx: &mut Context, field, value: &Option<_>, default: Duration| {
        common::some_duration(cx, field, value.as_ref()).unwrap_or(default)
    };
    out.drain_timeout = time(cx, "drain_timeout", &value.drain_timeout, out.drain_timeout);
    let field = "delayed_close_timeout";
    let default = out.delayed_close_timeout;
    out.delayed_close_timeout = time(cx, field, &value.delayed_close_timeout, default);
    let Some(options) = &value.common_http_protocol_options else {
        return;
    };
    let CommonOptions {
        idle_timeout,
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action: _,
        max_requests_per_connection,
    } = options;
    cx.field("common_http_protocol_options", |cx| {
        ignored!(cx; max_connection_duration_jitter);
        if max_response_headers_kb.is_some() {
            cx.reject("max_response_headers_kb", "is for clusters");
        }
        out.idle_timeout = limit(cx, "idle_timeout", idle_timeout, out.idle_timeout);
        let field = "max_connection_duration";
        out.max_connection_duration = limit(cx, field, max_connection_duration, None);
        out.max_stream_duration = limit(cx, "max_stream_duration", max_stream_duration, None);
    });
    if let Some(count) = common::u32_of(max_headers_count.as_ref()) {
        out.max_headers_count = count;
    }
    let count = common::u32_of(max_requests_per_connection.as_ref());
    out.max_requests_per_connection = count.filter(|count| *count > 0);
    out.underscores = match options.headers_with_underscores_action() {
        HeadersWithUnderscoresAction::Allow => UnderscoresAction::Allow,
        HeadersWithUnderscoresAction::RejectRequest => UnderscoresAction::RejectRequest,
        HeadersWithUnderscoresAction::DropHeader => UnderscoresAction::DropHeader,
    };
}

fn addresses(cx: &mut Context, value: &Proto, out: &mut HttpConnectionManager) {
    out.use_remote_address = common::bool_of(value.use_remote_address.as_ref(), false);
    out.xff_num_trusted_hops = value.xff_num_trusted_hops;
    out.skip_xff_append = value.skip_xff_append;
    if let Some(config) = &value.internal_address_config {
        let manager::InternalAddressConfig {
            unix_sockets,
            cidr_ranges,
        } = config;
        out.internal_addresses = cx.field("internal_address_config", |cx| {
            ignored!(cx; unix_sockets);
            cx.each("cidr_ranges", cidr_ranges, common::cidr)
        });
    }
    out.forward_client_cert = match value.forward_client_cert_details() {
        ForwardClientCertDetails::Sanitize => ForwardClientCert::Sanitize,
        ForwardClientCertDetails::ForwardOnly => ForwardClientCert::ForwardOnly,
        ForwardClientCertDetails::AppendForward => ForwardClientCert::AppendForward,
        ForwardClientCertDetails::SanitizeSet => ForwardClientCert::SanitizeSet,
        ForwardClientCertDetails::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
    };
}

fn request_id(cx: &mut Context, value: &Proto, out: &mut HttpConnectionManager) {
    out.generate_request_id = common::bool_of(value.generate_request_id.as_ref(), true);
    out.preserve_external_request_id = value.preserve_external_request_id;
    out.always_set_request_id_in_response = value.always_set_request_id_in_response;
    let Some(RequestIdExtension {
        typed_config: Some(any),
    }) = &value.request_id_extension
    else {
        return;
    };
    cx.field("request_id_extension.typed_config", |cx| {
        let Some(typed) = cx.typed(any) else {
            return;
        };
        if typed.name != "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig" {
            cx.reject(
                "",
                format_args!("request id extension {} is not supported", typed.name),
            );
            return;
        }
        let Some(UuidRequestIdConfig {
            pack_trace_reason,
            use_request_id_for_trace_sampling,
        }) = &cx.message(&typed)
        else {
            return;
        };
        ignored!(cx; use_request_id_for_trace_sampling);
        out.pack_trace_reason = common::bool_of(pack_trace_reason.as_ref(), true);
    });
}

fn paths(cx: &mut Context, value: &Proto, out: &mut HttpConnectionManager) {
    out.normalize_path = common::bool_of(value.normalize_path.as_ref(), false);
    out.merge_slashes = value.merge_slashes;
    out.escaped_slashes = match value.path_with_escaped_slashes_action() {
        PathWithEscapedSlashesAction::ImplementationSpecificDefault
        | PathWithEscapedSlashesAction::KeepUnchanged => EscapedSlashes::KeepUnchanged,
        PathWithEscapedSlashesAction::RejectRequest => EscapedSlashes::RejectRequest,
        PathWithEscapedSlashesAction::UnescapeAndRedirect => EscapedSlashes::UnescapeAndRedirect,
        PathWithEscapedSlashesAction::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
    };
    let any = value.strip_port_mode == Some(StripPortMode::StripAnyHostPort(true));
    out.strip_port = match (any, value.strip_matching_host_port) {
        (true, false) => StripPort::Any,
        (false, true) => StripPort::Matching,
        (false, false) => StripPort::No,
        (true, true) => {
            let reason = "must not be set beside strip_matching_host_port";
            cx.reject("strip_any_host_port", reason);
            StripPort::Any
        }
    };
}

fn upgrade(cx: &mut Context, value: &manager::UpgradeConfig) -> Option<Upgrade> {
    let manager::UpgradeConfig {
        upgrade_type,
        filters,
        enabled,
    } = value;
    unsupported!(cx; filters);
    Some(Upgrade {
        kind: Name::from(upgrade_type.to_ascii_lowercase()),
        enabled: common::bool_of(enabled.as_ref(), true),
        connect: None,
    })
}

fn local_reply(cx: &mut Context, value: &LocalReplyConfig) -> LocalReply {
    let LocalReplyConfig {
        mappers,
        body_format,
    } = value;
    LocalReply {
        mappers: cx.each("mappers", mappers, mapper),
        body: body_format
            .as_ref()
            .and_then(|value| cx.field("body_format", |cx| format::body(cx, value))),
    }
}

fn mapper(cx: &mut Context, value: &ResponseMapper) -> Option<ReplyMapper> {
    let ResponseMapper {
        filter,
        status_code,
        body,
        body_format_override,
        headers_to_add,
    } = value;
    let Some(filter) = filter else {
        cx.reject("filter", "must be set");
        return None;
    };
    let filter = cx.field("filter", |cx| access_log::log_filter(cx, filter))?;
    let status = match status_code {
        None => None,
        Some(code) => {
            let status = u16::try_from(code.value).ok();
            let status = status.and_then(|code| http::StatusCode::from_u16(code).ok());
            if status.is_none() {
                cx.reject("status_code", format_args!("{} is no status", code.value));
            }
            Some(status?)
        }
    };
    let body = match body {
        None => None,
        Some(source) => {
            let bytes = cx.field("body", |cx| format::data_source(cx, source))?;
            let Ok(text) = std::str::from_utf8(&bytes) else {
                cx.reject("body", "not UTF-8");
                return None;
            };
            Some(Name::from(text))
        }
    };
    let body_format = match body_format_override {
        None => None,
        Some(value) => Some(cx.field("body_format_override", |cx| format::body(cx, value))?),
    };
    Some(ReplyMapper {
        filter,
        status,
        body,
        body_format,
        headers: header::additions(cx, "headers_to_add", headers_to_add),
    })
}

fn tracing(cx: &mut Context, value: &manager::Tracing) -> Tracing {
    let manager::Tracing {
        client_sampling,
        random_sampling,
        overall_sampling,
        verbose,
        max_path_tag_length,
        custom_tags,
        provider,
        spawn_upstream_span,
        operation,
        upstream_operation,
        no_context_propagation,
    } = value;
    ignored!(cx; verbose, max_path_tag_length, custom_tags, provider, spawn_upstream_span, operation,
        upstream_operation, no_context_propagation);
    let share = |cx: &mut Context, field, value: &Option<_>| {
        let points = value
            .as_ref()
            .and_then(|value| common::basis_points(cx, field, value));
        points.unwrap_or(10_000)
    };
    Tracing {
        random_sampling: share(cx, "random_sampling", random_sampling),
        client_sampling: share(cx, "client_sampling", client_sampling),
        overall_sampling: share(cx, "overall_sampling", overall_sampling),
    }
}
