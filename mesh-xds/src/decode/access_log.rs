//! Access logs and their filters (`config.accesslog.v3`).

use std::fmt::Display;

use envoy_types::pb::envoy::{
    config::accesslog::v3::{
        self as proto, AccessLogFilter, ComparisonFilter, MetadataFilter, RuntimeFilter,
        access_log::ConfigType, access_log_filter::FilterSpecifier, comparison_filter::Op,
    },
    data::accesslog::v3::AccessLogType,
    extensions::access_loggers::{
        file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
        stream::v3::{StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log},
    },
};
use mesh_core::model::{
    AccessLog, Comparison, FormatKind, Fraction, LogFilter, LogSink, LogType, RuntimeFraction,
};

use super::{Context, common, context::Typed, format, matcher};

/// The logs in the list `field`.
pub(crate) fn logs(cx: &mut Context, field: &str, values: &[proto::AccessLog]) -> Vec<AccessLog> {
    cx.each(field, values, log)
}

fn log(cx: &mut Context, value: &proto::AccessLog) -> Option<AccessLog> {
    let proto::AccessLog {
        name,
        filter,
        config_type,
    } = value;
    let Some(ConfigType::TypedConfig(any)) = config_type else {
        cx.reject(
            "typed_config",
            format_args!("access log {name} has no configuration"),
        );
        return None;
    };
    let (sink, format, omit_empty) = cx.field("typed_config", |cx| {
        let typed = cx.typed(any)?;
        logger(cx, name, &typed)
    })?;
    if let Some(part) = filter.as_ref().and_then(not_served) {
        // As of a log that is not supported; written without its filter, it would say more than was asked.
        cx.note(
            "filter",
            format_args!(
                "ignored: access log {name} is not written, since {part} is not supported"
            ),
        );
        return None;
    }
    let filter = match filter {
        None => None,
        Some(filter) => Some(cx.field("filter", |cx| log_filter(cx, filter))?),
    };
    Some(AccessLog {
        sink,
        format,
        filter,
        omit_empty,
    })
}

/// The part of a log's filter that cannot be asked.
fn not_served(filter: &AccessLogFilter) -> Option<String> {
    match filter.filter_specifier.as_ref()? {
        FilterSpecifier::AndFilter(all) => all.filters.iter().find_map(not_served),
        FilterSpecifier::OrFilter(any) => any.filters.iter().find_map(not_served),
        FilterSpecifier::ExtensionFilter(filter) => Some(format!("filter {}", filter.name)),
        _ => None,
    }
}

type Logger = (LogSink, Option<FormatKind>, bool);

fn logger(cx: &mut Context, name: &str, typed: &Typed) -> Option<Logger> {
    match typed.name.as_str() {
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => {
            let FileAccessLog {
                path,
                access_log_format,
            } = cx.message(typed)?;
            let (format, omit) = file_format(cx, access_log_format)?;
            Some((sink(&path), format, omit))
        }
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog" => {
            let StdoutAccessLog { access_log_format } = cx.message(typed)?;
            let format = access_log_format
                .map(|stdout_access_log::AccessLogFormat::LogFormat(format)| format);
            stream(cx, LogSink::Stdout, format)
        }
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog" => {
            let StderrAccessLog { access_log_format } = cx.message(typed)?;
            let format = access_log_format
                .map(|stderr_access_log::AccessLogFormat::LogFormat(format)| format);
            stream(cx, LogSink::Stderr, format)
        }
        kind => {
            // A log that is not written harms no traffic: it is listed, not refused.
            cx.note(
                "",
                format_args!("ignored: access log {name} ({kind}) is not supported"),
            );
            None
        }
    }
}

fn sink(path: &str) -> LogSink {
    match path {
        "/dev/stdout" => LogSink::Stdout,
        "/dev/stderr" => LogSink::Stderr,
        path => LogSink::File(path.into()),
    }
}

fn stream(
    cx: &mut Context,
    sink: LogSink,
    format: Option<envoy_types::pb::envoy::config::core::v3::SubstitutionFormatString>,
) -> Option<Logger> {
    let Some(format) = format else {
        return Some((sink, None, false));
    };
    let format = cx.field("log_format", |cx| format::substitution(cx, &format))?;
    cx.ignored("log_format.content_type", format.content_type.is_some());
    Some((sink, Some(format.kind), format.omit_empty))
}

fn file_format(
    cx: &mut Context,
    value: Option<AccessLogFormat>,
) -> Option<(Option<FormatKind>, bool)> {
    Some(match value {
        None => (None, false),
        // An empty text means the default format.
        Some(AccessLogFormat::Format(text)) if text.is_empty() => (None, false),
        Some(AccessLogFormat::Format(text)) => (
            Some(FormatKind::Text(format::text(cx, "format", &text)?)),
            false,
        ),
        Some(AccessLogFormat::JsonFormat(template)) => (
            Some(cx.field("json_format", |cx| format::json(cx, &template))?),
            false,
        ),
        Some(AccessLogFormat::TypedJsonFormat(template)) => (
            Some(cx.field("typed_json_format", |cx| format::json(cx, &template))?),
            false,
        ),
        Some(AccessLogFormat::LogFormat(value)) => {
            let format = cx.field("log_format", |cx| format::substitution(cx, &value))?;
            cx.ignored("log_format.content_type", format.content_type.is_some());
            (Some(format.kind), format.omit_empty)
        }
    })
}

/// Which requests are logged, or get a reply of their own.
pub(crate) fn log_filter(cx: &mut Context, value: &AccessLogFilter) -> Option<LogFilter> {
    Some(match value.filter_specifier.as_ref() {
        Some(FilterSpecifier::StatusCodeFilter(filter)) => {
            let (op, value) = comparison(cx, "status_code_filter", filter.comparison.as_ref())?;
            LogFilter::Status(op, value)
        }
        Some(FilterSpecifier::DurationFilter(filter)) => {
            let (op, value) = comparison(cx, "duration_filter", filter.comparison.as_ref())?;
            LogFilter::Duration(op, value)
        }
        Some(FilterSpecifier::NotHealthCheckFilter(_)) => LogFilter::NotHealthCheck,
        Some(FilterSpecifier::TraceableFilter(_)) => LogFilter::Traceable,
        Some(FilterSpecifier::RuntimeFilter(filter)) => runtime(cx, filter),
        Some(FilterSpecifier::AndFilter(all)) => LogFilter::And(cx.field("and_filter", |cx| {
            cx.each("filters", &all.filters, log_filter)
        })),
        Some(FilterSpecifier::OrFilter(any)) => LogFilter::Or(cx.field("or_filter", |cx| {
            cx.each("filters", &any.filters, log_filter)
        })),
        Some(FilterSpecifier::HeaderFilter(filter)) => {
            let Some(header) = &filter.header else {
                return refused(cx, "header_filter.header", "must be set");
            };
            LogFilter::Header(cx.field("header_filter.header", |cx| matcher::header(cx, header))?)
        }
        Some(FilterSpecifier::ResponseFlagFilter(filter)) => LogFilter::ResponseFlag(
            filter
                .flags
                .iter()
                .map(|flag| flag.as_str().into())
                .collect(),
        ),
        Some(FilterSpecifier::GrpcStatusFilter(filter)) => LogFilter::GrpcStatus(
            filter
                .statuses
                .iter()
                .filter_map(|status| u32::try_from(*status).ok())
                .collect(),
            filter.exclude,
        ),
        Some(FilterSpecifier::ExtensionFilter(filter)) => {
            let reason = format_args!("filter {} is not supported", filter.name);
            return refused(cx, "extension_filter", reason);
        }
        Some(FilterSpecifier::MetadataFilter(filter)) => {
            cx.field("metadata_filter", |cx| metadata(cx, filter))
        }
        Some(FilterSpecifier::LogTypeFilter(filter)) => {
            let types = filter.types.iter();
            LogFilter::Type(
                types.filter_map(|value| log_type(*value)).collect(),
                filter.exclude,
            )
        }
        None => return refused(cx, "", "a filter must be set"),
    })
}

/// A condition on dynamic metadata, which only stages of a program set yet.
fn metadata(cx: &mut Context, value: &MetadataFilter) -> LogFilter {
    let MetadataFilter {
        matcher,
        match_if_key_not_found,
    } = value;
    let absent = common::bool_of(match_if_key_not_found.as_ref(), true);
    let written = if absent { "passes" } else { "passes not" };
    cx.note(
        "matcher",
        format_args!("no filter that is built in gives a request metadata: without a stage that does every request {written}, as match_if_key_not_found says"),
    );
    let matcher = matcher.as_ref();
    let matcher = matcher.and_then(|value| cx.field("matcher", |cx| matcher::metadata(cx, value)));
    LogFilter::Metadata(matcher.map(Box::new), absent)
}

fn log_type(value: i32) -> Option<LogType> {
    Some(match AccessLogType::try_from(value).ok()? {
        AccessLogType::NotSet => LogType::NotSet,
        AccessLogType::TcpUpstreamConnected => LogType::TcpUpstreamConnected,
        AccessLogType::TcpPeriodic => LogType::TcpPeriodic,
        AccessLogType::TcpConnectionStart => LogType::TcpConnectionStart,
        AccessLogType::TcpConnectionEnd => LogType::TcpConnectionEnd,
        AccessLogType::DownstreamStart => LogType::DownstreamStart,
        AccessLogType::DownstreamPeriodic => LogType::DownstreamPeriodic,
        AccessLogType::DownstreamEnd => LogType::DownstreamEnd,
        AccessLogType::UpstreamPoolReady => LogType::UpstreamPoolReady,
        AccessLogType::UpstreamPeriodic => LogType::UpstreamPeriodic,
        AccessLogType::UpstreamEnd => LogType::UpstreamEnd,
        AccessLogType::DownstreamTunnelSuccessfullyEstablished => {
            LogType::DownstreamTunnelSuccessfullyEstablished
        }
        AccessLogType::UdpTunnelUpstreamConnected => LogType::UdpTunnelUpstreamConnected,
        AccessLogType::UdpPeriodic => LogType::UdpPeriodic,
        AccessLogType::UdpSessionEnd => LogType::UdpSessionEnd,
    })
}

fn refused(cx: &mut Context, field: &str, reason: impl Display) -> Option<LogFilter> {
    cx.reject(field, reason);
    None
}

fn runtime(cx: &mut Context, filter: &RuntimeFilter) -> LogFilter {
    cx.field("runtime_filter", |cx| {
        cx.ignored(
            "use_independent_randomness",
            filter.use_independent_randomness,
        );
    });
    let percent = filter.percent_sampled.as_ref();
    LogFilter::Runtime(RuntimeFraction {
        default: percent.map_or(Fraction::NEVER, common::fraction),
        key: filter.runtime_key.as_str().into(),
    })
}

fn comparison(
    cx: &mut Context,
    field: &str,
    value: Option<&ComparisonFilter>,
) -> Option<(Comparison, u32)> {
    cx.field(field, |cx| {
        let Some(value) = value else {
            cx.reject("comparison", "must be set");
            return None;
        };
        let op = match value.op() {
            Op::Eq => Comparison::Eq,
            Op::Ge => Comparison::Ge,
            Op::Le => Comparison::Le,
            Op::Ne => Comparison::Ne,
        };
        let limit = value.value.as_ref();
        let key = limit.is_some_and(|limit| !limit.runtime_key.is_empty());
        cx.ignored("comparison.value.runtime_key", key);
        Some((op, limit.map_or(0, |limit| limit.default_value)))
    })
}
