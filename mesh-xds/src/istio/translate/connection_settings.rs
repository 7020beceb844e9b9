//! Limits and times of client connections, as `connectionSettings` of ProxyConfig asks for them.

use std::borrow::Cow;
use std::time::Duration;

use core::http_protocol_options::HeadersWithUnderscoresAction;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::google::protobuf::UInt32Value;
use hcm::http_connection_manager::PathWithEscapedSlashesAction;

use super::pb;
use crate::istio::api::mesh_config::{
    ConnectionProfile, ConnectionSettings, EscapedSlashesAction, MeshProxyConfig, UnderscoresAction,
};
use crate::istio::index::{Proxy, ProxyKind};

/// The settings of a proxy, with the defaults of their profile, which are for gateways alone.
pub(super) fn of<'c>(
    config: &'c MeshProxyConfig,
    proxy: &Proxy,
) -> Option<Cow<'c, ConnectionSettings>> {
    let settings = config.connection_settings.as_ref()?;
    let gateway = proxy.kind == ProxyKind::Router;
    Some(match settings.profile {
        ConnectionProfile::Edge if gateway => Cow::Owned(at_the_edge(settings.clone())),
        _ => Cow::Borrowed(settings),
    })
}

/// Fills in what Envoy recommends for the edge.
fn at_the_edge(mut settings: ConnectionSettings) -> ConnectionSettings {
    for (number, default) in [
        (
            &mut settings.listener_per_connection_buffer_limit_bytes,
            32 << 10,
        ),
        (&mut settings.http_max_concurrent_streams, 100),
        (&mut settings.http2_initial_stream_window_size, 64 << 10),
        (&mut settings.http2_initial_connection_window_size, 1 << 20),
    ] {
        number.get_or_insert(default);
    }
    for (time, seconds) in [
        (&mut settings.http_idle_timeout, 3600),
        (&mut settings.http_stream_idle_timeout, 300),
        (&mut settings.http_request_timeout, 300),
        (&mut settings.http_request_headers_timeout, 60),
    ] {
        time.get_or_insert(Duration::from_secs(seconds));
    }
    settings.http_merge_slashes.get_or_insert(true);
    if settings.http_headers_with_underscores_action == UnderscoresAction::Unspecified {
        settings.http_headers_with_underscores_action = UnderscoresAction::RejectRequest;
    }
    if settings.http_path_with_escaped_slashes_action == EscapedSlashesAction::Unspecified {
        settings.http_path_with_escaped_slashes_action = EscapedSlashesAction::UnescapeAndRedirect;
    }
    settings
}

/// Applies what concerns a gateway's listener.
pub(super) fn on_listener(listener: &mut listener::Listener, settings: &ConnectionSettings) {
    let limit = settings.listener_per_connection_buffer_limit_bytes;
    listener.per_connection_buffer_limit_bytes = number(limit);
}

/// Applies what concerns a connection manager, ahead of what the mesh says of paths.
pub(super) fn on_manager(manager: &mut hcm::HttpConnectionManager, settings: &ConnectionSettings) {
    for (field, time) in [
        (
            &mut manager.stream_idle_timeout,
            settings.http_stream_idle_timeout,
        ),
        (&mut manager.request_timeout, settings.http_request_timeout),
        (
            &mut manager.request_headers_timeout,
            settings.http_request_headers_timeout,
        ),
        (&mut manager.drain_timeout, settings.http_drain_timeout),
    ] {
        if let Some(time) = time {
            *field = Some(pb::duration(time));
        }
    }
    let common = core::HttpProtocolOptions {
        idle_timeout: settings.http_idle_timeout.map(pb::duration),
        max_connection_duration: settings.http_max_connection_duration.map(pb::duration),
        max_stream_duration: settings.http_max_stream_duration.map(pb::duration),
        headers_with_underscores_action: underscores(settings).into(),
        ..core::HttpProtocolOptions::default()
    };
    manager.common_http_protocol_options =
        Some(common).filter(|common| *common != core::HttpProtocolOptions::default());
    let http2 = core::Http2ProtocolOptions {
        max_concurrent_streams: number(settings.http_max_concurrent_streams),
        initial_stream_window_size: number(settings.http2_initial_stream_window_size),
        initial_connection_window_size: number(settings.http2_initial_connection_window_size),
        ..core::Http2ProtocolOptions::default()
    };
    manager.http2_protocol_options =
        Some(http2).filter(|http2| *http2 != core::Http2ProtocolOptions::default());
    if let Some(merge) = settings.http_merge_slashes {
        manager.merge_slashes = merge;
    }
    if let Some(action) = slashes(settings) {
        manager.path_with_escaped_slashes_action = action.into();
    }
}

fn number(value: Option<i32>) -> Option<UInt32Value> {
    let value = value.and_then(|value| u32::try_from(value).ok());
    value.map(pb::uint)
}

fn underscores(settings: &ConnectionSettings) -> HeadersWithUnderscoresAction {
    match settings.http_headers_with_underscores_action {
        UnderscoresAction::Unspecified | UnderscoresAction::Allow => {
            HeadersWithUnderscoresAction::Allow
        }
        UnderscoresAction::RejectRequest => HeadersWithUnderscoresAction::RejectRequest,
        UnderscoresAction::DropHeader => HeadersWithUnderscoresAction::DropHeader,
    }
}

fn slashes(settings: &ConnectionSettings) -> Option<PathWithEscapedSlashesAction> {
    Some(match settings.http_path_with_escaped_slashes_action {
        EscapedSlashesAction::Unspecified => return None,
        EscapedSlashesAction::KeepUnchanged => PathWithEscapedSlashesAction::KeepUnchanged,
        EscapedSlashesAction::RejectRequest => PathWithEscapedSlashesAction::RejectRequest,
        EscapedSlashesAction::UnescapeAndRedirect => {
            PathWithEscapedSlashesAction::UnescapeAndRedirect
        }
        EscapedSlashesAction::UnescapeAndForward => {
            PathWithEscapedSlashesAction::UnescapeAndForward
        }
    })
}
