//! Headers that proxies add by themselves, as `proxyHeaders` of ProxyConfig asks for them.

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use hcm::http_connection_manager::ServerHeaderTransformation;

use super::pb;
use crate::istio::api::mesh_config::{Disabled, Enabled, ProxyHeaders};

/// Applies what concerns a connection manager; `named`: it says by itself that it is Istio's.
pub(super) fn on_manager(
    manager: &mut hcm::HttpConnectionManager,
    headers: Option<&ProxyHeaders>,
    named: bool,
) {
    if named {
        "istio-envoy".clone_into(&mut manager.server_name);
    }
    let Some(headers) = headers else { return };
    if let Some(server) = &headers.server {
        if server.disabled == Some(true) {
            manager.server_name.clear();
            manager.server_header_transformation = ServerHeaderTransformation::PassThrough.into();
        } else if !server.value.is_empty() {
            manager.server_name.clone_from(&server.value);
        }
    }
    if is_off(headers.request_id.as_ref()) {
        manager.generate_request_id = Some(pb::boolean(false));
    }
    manager.append_x_forwarded_port = is_on(headers.x_forwarded_port.as_ref());
}

/// Whether Envoy's own headers are left out.
pub(super) fn suppresses_debug_headers(headers: Option<&ProxyHeaders>) -> bool {
    headers.is_some_and(|headers| is_off(headers.envoy_debug_headers.as_ref()))
}

/// Whether a rewritten host is kept in `x-forwarded-host`.
pub(super) fn keeps_host(headers: Option<&ProxyHeaders>) -> bool {
    headers.is_some_and(|headers| is_on(headers.x_forwarded_host.as_ref()))
}

/// Applies what concerns virtual hosts.
pub(super) fn on_hosts(configs: &mut [route::RouteConfiguration], headers: Option<&ProxyHeaders>) {
    let Some(headers) = headers else { return };
    let count = !is_off(headers.attempt_count.as_ref());
    for host in configs
        .iter_mut()
        .flat_map(|config| &mut config.virtual_hosts)
    {
        host.include_request_attempt_count &= count;
    }
}

fn is_off(setting: Option<&Disabled>) -> bool {
    setting.is_some_and(|setting| setting.disabled == Some(true))
}

fn is_on(setting: Option<&Enabled>) -> bool {
    setting.is_some_and(|setting| setting.enabled == Some(true))
}
