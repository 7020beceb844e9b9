//! HTTP filters: those that act here, those whose work is done elsewhere, and those that only a stage understands.

pub(super) mod cors;
mod fault;
mod health_check;
mod router;

use envoy_types::pb::{
    envoy::{
        config::route::v3::FilterConfig as RouteFilterConfig,
        extensions::filters::network::http_connection_manager::v3::{
            HttpFilter as ProtoFilter, http_filter::ConfigType,
        },
    },
    google::protobuf::Any,
};
use mesh_core::model::{FilterConfig, FilterOverride, HttpFilter, HttpFilterKind};

pub(crate) use self::router::RouterSettings;
use super::{Context, context::Typed};

/// Filters of Istio and Envoy whose work is telemetry or bookkeeping that this proxy does by itself.
const TELEMETRY: [&str; 5] = [
    "stats.PluginConfig",
    "io.istio.http.peer_metadata.Config",
    "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
    "envoy.tcp.metadataexchange.config.MetadataExchange",
    "istio.telemetry.stackdriver.v1.PluginConfig",
];

/// Filters without which requests are neither less safe nor answered differently in kind: they are listed, not refused.
const HARMLESS: [&str; 7] = [
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "envoy.extensions.filters.http.stateful_session.v3.StatefulSession",
    "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute",
    "envoy.extensions.filters.http.on_demand.v3.OnDemand",
    "envoy.extensions.filters.http.tap.v3.Tap",
    "envoy.extensions.filters.http.compressor.v3.Compressor",
    "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute",
];

const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const FAULT: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
const CORS: &str = "envoy.extensions.filters.http.cors.v3.Cors";
const CORS_POLICY: &str = "envoy.extensions.filters.http.cors.v3.CorsPolicy";
const HEALTH_CHECK: &str = "envoy.extensions.filters.http.health_check.v3.HealthCheck";
const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";

/// Whether this message is telemetry that is done elsewhere.
pub(crate) fn is_telemetry(name: &str) -> bool {
    TELEMETRY.contains(&name)
}

/// Whether requests are the same in kind without this filter.
pub(crate) fn is_harmless(name: &str) -> bool {
    HARMLESS.contains(&name)
}

/// The filters of a chain, and what the router at its end says. Refuses a chain without a router at its end.
pub(crate) fn chain(
    cx: &mut Context,
    field: &str,
    values: &[ProtoFilter],
) -> (Vec<HttpFilter>, RouterSettings) {
    let mut settings = RouterSettings::default();
    let mut behind_router = false;
    let filters = cx.each(field, values, |cx, value| {
        if behind_router {
            cx.reject(
                "",
                "stands behind the router, which must be the last filter",
            );
        }
        let filter = filter(cx, value, &mut settings);
        behind_router |= filter
            .as_ref()
            .is_some_and(|filter| filter.kind == HttpFilterKind::Router);
        filter
    });
    if !cx.is_rejected() && !behind_router {
        cx.reject(field, "the last filter must be envoy.filters.http.router");
    }
    (filters, settings)
}

fn filter(
    cx: &mut Context,
    value: &ProtoFilter,
    settings: &mut RouterSettings,
) -> Option<HttpFilter> {
    let ProtoFilter {
        name,
        is_optional,
        disabled,
        config_type,
    } = value;
    let typed = configuration(cx, name, config_type.as_ref())?;
    if is_harmless(&typed.name) {
        cx.note(
            "",
            format_args!("ignored: filter {name} ({}) has no effect here", typed.name),
        );
        return None;
    }
    let kind = cx.field("typed_config", |cx| kind(cx, &typed, settings))?;
    if kind == HttpFilterKind::Router && *disabled {
        cx.reject("disabled", "the router cannot be off");
    }
    if let HttpFilterKind::Opaque(..) = &kind {
        if *is_optional {
            cx.note(
                "",
                format_args!(
                    "ignored: optional filter {name} ({}) is not supported",
                    typed.name
                ),
            );
            return None;
        }
        let effect = if *disabled {
            "routes that turn it on refuse"
        } else {
            "all requests are refused"
        };
        cx.note(
            "",
            format_args!("filter {name} ({}) is not supported: {effect}", typed.name),
        );
    }
    Some(HttpFilter {
        name: name.as_str().into(),
        kind,
        disabled: *disabled,
    })
}

fn configuration(cx: &mut Context, name: &str, value: Option<&ConfigType>) -> Option<Typed> {
    match value {
        Some(ConfigType::TypedConfig(any)) => cx.field("typed_config", |cx| cx.typed(any)),
        Some(ConfigType::ConfigDiscovery(_)) => {
            cx.reject(
                "config_discovery",
                "filters from a control plane are not supported",
            );
            None
        }
        None => {
            cx.reject(
                "typed_config",
                format_args!("filter {name} has no configuration"),
            );
            None
        }
    }
}

fn kind(cx: &mut Context, typed: &Typed, settings: &mut RouterSettings) -> Option<HttpFilterKind> {
    Some(match typed.name.as_str() {
        ROUTER => {
            let message = cx.message(typed)?;
            *settings = router::router(cx, &message);
            HttpFilterKind::Router
        }
        FAULT => {
            let message = cx.message(typed)?;
            HttpFilterKind::Fault(Box::new(fault::fault(cx, &message)?))
        }
        CORS => HttpFilterKind::Cors,
        HEALTH_CHECK => {
            let message = cx.message(typed)?;
            health_check::health_check(cx, &message)?
        }
        name if is_telemetry(name) => HttpFilterKind::Telemetry(name.into()),
        _ => HttpFilterKind::Opaque(typed.url(), typed.bytes.clone()),
    })
}

/// `typed_per_filter_config` of a route, virtual host, table or arm.
pub(crate) fn overrides<'a>(
    cx: &mut Context,
    field: &str,
    values: impl IntoIterator<Item = (&'a String, &'a Any)>,
) -> Vec<FilterOverride> {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by_key(|(name, _)| *name);
    let mut out = Vec::new();
    for (name, any) in values {
        let config = cx.entry(field, name, |cx| override_config(cx, name, any));
        out.extend(config.map(|config| FilterOverride::new(name.as_str().into(), config)));
    }
    out
}

fn override_config(cx: &mut Context, name: &str, any: &Any) -> Option<FilterConfig> {
    let typed = cx.typed(any)?;
    match typed.name.as_str() {
        "" => {
            cx.reject(
                "",
                "a filter that is off cannot be turned on here without settings of its own",
            );
            None
        }
        FILTER_CONFIG => {
            let RouteFilterConfig {
                config,
                is_optional,
                disabled,
            } = cx.message(&typed)?;
            if disabled {
                return Some(FilterConfig::Disabled);
            }
            let Some(inner) = config else {
                cx.reject("config", "must be set where the filter is not disabled");
                return None;
            };
            let inner = cx.field("config", |cx| override_config(cx, name, &inner))?;
            if is_optional && let FilterConfig::Opaque(url, _) = &inner {
                cx.note(
                    "",
                    format_args!("ignored: optional override of {name} ({url}) is not supported"),
                );
                return None;
            }
            Some(inner)
        }
        FAULT => {
            let message = cx.message(&typed)?;
            Some(FilterConfig::Fault(fault::fault(cx, &message)?))
        }
        CORS_POLICY => {
            let message = cx.message(&typed)?;
            Some(FilterConfig::Cors(cors::policy(cx, &message)))
        }
        kind if is_telemetry(kind) || is_harmless(kind) => {
            cx.note(
                "",
                format_args!("ignored: override of {name} ({kind}) has no effect here"),
            );
            None
        }
        _ => {
            cx.note(
                "",
                format_args!(
                    "override of filter {name} ({}) is not supported: its requests are refused",
                    typed.name
                ),
            );
            Some(FilterConfig::Opaque(typed.url(), typed.bytes))
        }
    }
}
