//! Sessions that stick to an endpoint, asked for by labels of a service.

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::filters::http::stateful_session::v3::{
    StatefulSession, StatefulSessionPerRoute, stateful_session_per_route::Override,
};
use envoy_types::pb::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use envoy_types::pb::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use envoy_types::pb::envoy::r#type::http::v3::Cookie;
use envoy_types::pb::google::protobuf::Any;

use super::pb;
use super::route::RouteOptions;
use crate::istio::api::virtual_service::HttpRoute;
use crate::istio::index::Service;

/// Name of the filter that the settings are for.
pub(super) const FILTER: &str = "envoy.filters.http.stateful_session";

/// The settings of a route with one service that asks for sessions. As in istiod a service without sessions behind it takes
/// them away from the route, and the first of two counts.
pub(super) fn for_destinations(
    http: &HttpRoute,
    options: &RouteOptions<'_>,
) -> Option<(String, Any)> {
    let arms = http
        .route
        .iter()
        .filter(|arm| http.route.len() == 1 || arm.weight != 0);
    let mut config = None;
    for arm in arms {
        let host = arm.destination.as_ref().map(|to| to.host.as_str());
        let own = host.and_then(options.service).and_then(for_service);
        if own.is_some() && config.is_some() {
            break;
        }
        config = own;
    }
    Some((FILTER.to_owned(), config?))
}

/// The settings of a service.
pub(super) fn for_service(service: &Service) -> Option<Any> {
    let label = |name: &str| service.labels.get(name).filter(|value| !value.is_empty());
    let state = if let Some(cookie) = label("istio.io/persistent-session") {
        let (name, path) = cookie.split_once(':').unwrap_or((cookie, "/"));
        TypedExtensionConfig {
            name: "envoy.http.stateful_session.cookie".to_owned(),
            typed_config: Some(pb::any(&CookieBasedSessionState {
                cookie: Some(Cookie {
                    name: name.to_owned(),
                    path: path.to_owned(),
                    ..Cookie::default()
                }),
            })),
        }
    } else {
        let name = label("istio.io/persistent-session-header")?.clone();
        TypedExtensionConfig {
            name: "envoy.http.stateful_session.header".to_owned(),
            typed_config: Some(pb::any(&HeaderBasedSessionState { name })),
        }
    };
    let session = StatefulSession {
        session_state: Some(state),
        ..StatefulSession::default()
    };
    Some(pb::any(&StatefulSessionPerRoute {
        r#override: Some(Override::StatefulSession(session)),
    }))
}
