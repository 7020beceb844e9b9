//! Listeners and filter chains (`config.listener.v3`).

use std::net::IpAddr;

use envoy_types::pb::envoy::{
    config::{
        core::v3::{Address as ProtoAddress, TrafficDirection, address, proxy_protocol_config},
        listener::v3::{
            AdditionalAddress, Filter, FilterChain as ProtoChain, FilterChainMatch as ProtoMatch,
            Listener as Proto, ListenerFilter as ProtoListenerFilter,
            ListenerFilterChainMatchPredicate, filter::ConfigType,
            filter_chain_match::ConnectionSourceType, listener_filter,
            listener_filter_chain_match_predicate,
        },
    },
    extensions::filters::{
        listener::{proxy_protocol::v3::ProxyProtocol, tls_inspector::v3::TlsInspector},
        network::direct_response::v3::Config as DirectResponse,
    },
};
use mesh_core::model::{
    Address, ClusterChoice, Direction, FilterChain, FilterChainMatch, Listener, ListenerFilter,
    MatchTree, Name, Network, NetworkAnswer, OnMatch, PortMatch, ProxyProtocolVersion, SourceType,
    TcpProxy,
};

use super::{
    Context, access_log, common,
    context::Typed,
    filter, format, http,
    route::chain_tree,
    set::{ignored, unsupported},
    tcp, transport,
};

/// A listener. What was found decides whether it may be used.
pub(crate) fn listener(cx: &mut Context, value: &Proto) -> Option<Listener> {
    let Proto {
        name,
        address,
        additional_addresses,
        metadata,
        listener_filters,
        listener_filters_timeout,
        continue_on_listener_filters_timeout,
        access_log,
        listener_specifier,
        ..
    } = value;
    unused(cx, value);
    if listener_specifier.is_some() {
        // It has no address.
        cx.reject("internal_listener", "not supported");
        return None;
    }
    let Some(address) = address else {
        cx.reject("address", "must be set");
        return None;
    };
    let address = cx.field("address", |cx| bound(cx, address))?;
    let mut out = match name.as_str() {
        "" => Listener::new(address.to_string(), address),
        name => Listener::new(name, address),
    };
    out.additional_addresses = cx.each("additional_addresses", additional_addresses, additional);
    socket(value, &mut out);
    chains(cx, value, &mut out);
    out.listener_filters = cx.each("listener_filters", listener_filters, listener_filter);
    old_proxy_protocol(value, &mut out.listener_filters);
    // As in Envoy, whoever hands connections over looks for where they go.
    if out.use_original_dst && !out.listener_filters.contains(&ListenerFilter::OriginalDst) {
        out.listener_filters.insert(0, ListenerFilter::OriginalDst);
    }
    let field = "listener_filters_timeout";
    let limit = common::some_duration(cx, field, listener_filters_timeout.as_ref());
    out.listener_filters_timeout = limit.unwrap_or(out.listener_filters_timeout);
    out.continue_on_listener_filters_timeout = *continue_on_listener_filters_timeout;
    out.access_log = access_log::logs(cx, "access_log", access_log);
    out.metadata = common::metadata(cx, "metadata", metadata.as_ref());
    out.origin = common::origin(&out.metadata);
    Some(out)
}

/// What is done with connections, and how it is chosen.
fn chains(cx: &mut Context, value: &Proto, out: &mut Listener) {
    out.filter_chains = cx.each("filter_chains", &value.filter_chains, chain);
    match &value.filter_chain_matcher {
        Some(tree) => cx.field("filter_chain_matcher", |cx| {
            let tree = chain_tree(cx, tree);
            if let Some(tree) = &tree {
                unknown_chains(cx, tree, out);
            }
            out.filter_chain_matcher = tree;
        }),
        None => distinct(cx, &out.filter_chains),
    }
    if let Some(default) = &value.default_filter_chain {
        out.default_filter_chain = cx.field("default_filter_chain", |cx| chain(cx, default));
    } else if value.filter_chains.is_empty() && !cx.is_rejected() {
        cx.reject("filter_chains", "no filter chain is given");
    }
}

/// Notes chains that the tree leads to and the listener does not have. As in Envoy their connections are closed.
fn unknown_chains(cx: &mut Context, tree: &MatchTree, listener: &Listener) {
    for on in tree.node.children().chain(&tree.on_no_match) {
        match on {
            OnMatch::Tree(inner) => unknown_chains(cx, inner, listener),
            OnMatch::Chain(name) => {
                let mut names = listener.filter_chains.iter().map(|chain| &chain.name);
                if !names.any(|known| known == name) {
                    cx.note(
                        "",
                        format_args!(
                            "no filter chain is named {name:?}: connections that come to it are closed"
                        ),
                    );
                }
            }
            OnMatch::Route(_) | OnMatch::Routes(_) => {}
        }
    }
}

/// How the socket is opened, and whose connections it takes.
fn socket(value: &Proto, out: &mut Listener) {
    let old = value.deprecated_v1.as_ref();
    let old = old.and_then(|old| old.bind_to_port.as_ref());
    out.bind_to_port = common::bool_of(value.bind_to_port.as_ref().or(old), true);
    out.direction = match value.traffic_direction() {
        TrafficDirection::Unspecified => Direction::Unspecified,
        TrafficDirection::Inbound => Direction::Inbound,
        TrafficDirection::Outbound => Direction::Outbound,
    };
    out.use_original_dst = common::bool_of(value.use_original_dst.as_ref(), false);
    out.enable_reuse_port = common::bool_of(value.enable_reuse_port.as_ref(), true);
    out.transparent = common::bool_of(value.transparent.as_ref(), false);
    let additional = value.additional_addresses.iter();
    let additional = additional.filter_map(|additional| additional.address.as_ref());
    out.ipv4_compat = value.address.iter().chain(additional).any(is_compat);
    if let Some(bytes) = common::u32_of(value.per_connection_buffer_limit_bytes.as_ref()) {
        out.per_connection_buffer_limit = bytes;
    }
    out.tcp_backlog = common::u32_of(value.tcp_backlog_size.as_ref());
    out.tcp_keepalive = value.tcp_keepalive.as_ref().map(common::keepalive);
}

/// Fields without effect, and those that ask for what is not there.
fn unused(cx: &mut Context, value: &Proto) {
    let is_pipe =
        |address: &ProtoAddress| matches!(address.address, Some(address::Address::Pipe(_)));
    if value.enable_mptcp && value.address.as_ref().is_some_and(is_pipe) {
        cx.reject("enable_mptcp", "is for IP addresses only");
    }
    ignored!(cx, value; stat_prefix, stats_matcher, per_connection_buffer_high_watermark_timeout, drain_type, freebind,
        socket_options, tcp_fast_open_queue_length, connection_balance_config, reuse_port,
        max_connections_to_accept_per_socket_event, enable_mptcp, ignore_global_conn_limit,
        bypass_overload_manager);
    unsupported!(cx, value; fcds_config, udp_listener_config, api_listener);
}

/// Whether a socket takes connections over IPv4 too.
fn is_compat(value: &ProtoAddress) -> bool {
    matches!(&value.address, Some(address::Address::SocketAddress(socket)) if socket.ipv4_compat)
}

/// An address that a socket can be bound to.
fn bound(cx: &mut Context, value: &ProtoAddress) -> Option<Address> {
    if is_compat(value)
        && let Some(address::Address::SocketAddress(socket)) = &value.address
        && let Ok(ip) = socket.address.parse::<IpAddr>()
    {
        let fits = match ip {
            IpAddr::V4(_) => false,
            IpAddr::V6(ip) => ip.is_unspecified() || ip.to_ipv4_mapped().is_some(),
        };
        if !fits {
            cx.reject(
                "socket_address.ipv4_compat",
                format_args!("{ip} is neither :: nor an IPv4-mapped address"),
            );
        }
    }
    let mut value = value.clone();
    if let Some(address::Address::SocketAddress(socket)) = &mut value.address {
        // It acts for the whole listener.
        socket.ipv4_compat = false;
    }
    match common::address(cx, &value)? {
        Address::Host(host, _) => {
            cx.reject(
                "socket_address.address",
                format_args!("{host:?} is no IP address"),
            );
            None
        }
        address => Some(address),
    }
}

fn additional(cx: &mut Context, value: &AdditionalAddress) -> Option<Address> {
    let AdditionalAddress {
        address,
        socket_options,
        tcp_keepalive,
    } = value;
    ignored!(cx; socket_options, tcp_keepalive);
    let Some(address) = address else {
        cx.reject("address", "must be set");
        return None;
    };
    cx.field("address", |cx| bound(cx, address))
}

/// Two chains that a connection can belong to with equal right could not be told apart.
fn distinct(cx: &mut Context, chains: &[FilterChain]) {
    for (index, chain) in chains.iter().enumerate() {
        let mut before = chains[..index].iter();
        if let Some(other) = before.position(|other| overlap(&other.matches, &chain.matches)) {
            cx.reject(
                &format!("filter_chains[{index}].filter_chain_match"),
                format_args!("overlaps with that of filter_chains[{other}]"),
            );
        }
    }
}

/// Whether each criterion of both says nothing, or has a value of the other.
fn overlap(a: &FilterChainMatch, b: &FilterChainMatch) -> bool {
    fn share<T: PartialEq>(a: &[T], b: &[T]) -> bool {
        (a.is_empty() && b.is_empty()) || a.iter().any(|value| b.contains(value))
    }
    a.destination_port == b.destination_port
        && a.transport_protocol == b.transport_protocol
        && a.source_type == b.source_type
        && share(&a.destination, &b.destination)
        && share(&a.server_names, &b.server_names)
        && share(&a.application_protocols, &b.application_protocols)
        && share(&a.direct_source, &b.direct_source)
        && share(&a.source, &b.source)
        && share(&a.source_ports, &b.source_ports)
}

fn chain(cx: &mut Context, value: &ProtoChain) -> Option<FilterChain> {
    let ProtoChain {
        filter_chain_match,
        filters,
        use_proxy_proto: _,
        metadata,
        transport_socket,
        transport_socket_connect_timeout,
        name,
    } = value;
    // Istio names objects and services here, for its own use.
    let _ = metadata;
    let matches = match filter_chain_match {
        None => FilterChainMatch::default(),
        Some(value) => cx.field("filter_chain_match", |cx| chain_match(cx, value)),
    };
    let transport = transport::socket(cx, "transport_socket", transport_socket.as_ref());
    let field = "transport_socket_connect_timeout";
    let limit = transport_socket_connect_timeout.as_ref();
    let transport_connect_timeout = common::timeout(cx, field, limit, None);
    let (network, refuse) = match filters.is_empty() {
        // As in Envoy, where nobody would read what comes.
        true => nothing(cx),
        false => network(cx, filters)?,
    };
    Some(FilterChain {
        name: name.as_str().into(),
        matches,
        transport,
        transport_connect_timeout,
        network,
        refuse,
    })
}

fn chain_match(cx: &mut Context, value: &ProtoMatch) -> FilterChainMatch {
    let ProtoMatch {
        destination_port,
        prefix_ranges,
        address_suffix,
        suffix_len,
        direct_source_prefix_ranges,
        source_type: _,
        source_prefix_ranges,
        source_ports,
        server_names,
        transport_protocol,
        application_protocols,
    } = value;
    unsupported!(cx; address_suffix, suffix_len);
    let port = destination_port.as_ref();
    FilterChainMatch {
        destination_port: port.and_then(|port| common::port(cx, "destination_port", port.value)),
        destination: cx.each("prefix_ranges", prefix_ranges, common::cidr),
        server_names: cx.each("server_names", server_names, server_name),
        transport_protocol: transport_protocol.as_str().into(),
        application_protocols: names(application_protocols),
        direct_source: cx.each(
            "direct_source_prefix_ranges",
            direct_source_prefix_ranges,
            common::cidr,
        ),
        source_type: match value.source_type() {
            ConnectionSourceType::Any => SourceType::Any,
            ConnectionSourceType::SameIpOrLoopback => SourceType::SameIpOrLoopback,
            ConnectionSourceType::External => SourceType::External,
        },
        source: cx.each("source_prefix_ranges", source_prefix_ranges, common::cidr),
        source_ports: cx.each("source_ports", source_ports, |cx, port| {
            common::port(cx, "", *port)
        }),
    }
}

fn names(values: &[String]) -> Vec<Name> {
    values.iter().map(|value| value.as_str().into()).collect()
}

/// A server name: exact, or `*.` and a suffix. As in Envoy not `*` alone: a list that is left out matches all.
fn server_name(cx: &mut Context, name: &String) -> Option<Name> {
    let suffix = name.strip_prefix("*.").unwrap_or(name);
    if suffix.contains('*') {
        cx.reject(
            "",
            format_args!("{name:?}: a wildcard may only be the first of several labels"),
        );
        return None;
    }
    Some(name.to_ascii_lowercase().into())
}

/// A chain without filters closes its connections.
fn nothing(cx: &mut Context) -> (Network, Option<Name>) {
    let reason = "there is no network filter";
    cx.note("filters", format_args!("{reason}: connections are closed"));
    let proxy = TcpProxy::new("none", ClusterChoice::Name("".into()));
    (Network::Tcp(Box::new(proxy)), Some(reason.into()))
}

/// The terminal network filter, and why the chain must refuse connections.
fn network(cx: &mut Context, filters: &[Filter]) -> Option<(Network, Option<Name>)> {
    let mut refuse = None;
    let mut terminal = None;
    for (index, value) in filters.iter().enumerate() {
        let found = cx.item("filters", index, |cx| {
            if terminal.is_some() {
                cx.reject(
                    "",
                    format_args!("filter {} stands after a terminal filter", value.name),
                );
                return None;
            }
            network_filter(cx, value, &mut refuse)
        });
        terminal = terminal.or(found);
    }
    if terminal.is_none() && !cx.is_rejected() {
        let why = refuse.as_deref().map(|reason| format!("{reason}; "));
        cx.reject(
            "filters",
            format_args!(
                "{}the last filter must be an HTTP connection manager, a TCP proxy, direct_response or echo",
                why.unwrap_or_default()
            ),
        );
    }
    Some((terminal?, refuse))
}

fn network_filter(cx: &mut Context, value: &Filter, refuse: &mut Option<Name>) -> Option<Network> {
    let Filter { name, config_type } = value;
    let typed = match config_type {
        Some(ConfigType::TypedConfig(any)) => cx.field("typed_config", |cx| cx.typed(any))?,
        Some(ConfigType::ConfigDiscovery(_)) => {
            cx.reject(
                "config_discovery",
                "filters from a control plane are not supported",
            );
            return None;
        }
        None => {
            cx.reject(
                "typed_config",
                format_args!("filter {name} has no configuration"),
            );
            return None;
        }
    };
    cx.field("typed_config", |cx| match typed.name.as_str() {
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
            let message = cx.message(&typed)?;
            Some(Network::Http(Box::new(http::manager(cx, &message)?)))
        }
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" => {
            let message = cx.message(&typed)?;
            Some(Network::Tcp(Box::new(tcp::proxy(cx, &message)?)))
        }
        "envoy.extensions.filters.network.direct_response.v3.Config" => {
            let direct: DirectResponse = cx.message(&typed)?;
            let text = match &direct.response {
                Some(source) if source.specifier.is_some() => {
                    cx.field("response", |cx| format::data_source(cx, source))?
                }
                // One that says nothing closes at once.
                source => {
                    let watched = source
                        .as_ref()
                        .and_then(|source| source.watched_directory.as_ref());
                    cx.ignored("response.watched_directory", watched.is_some());
                    bytes::Bytes::new()
                }
            };
            Some(Network::Answer(NetworkAnswer::Direct(text)))
        }
        "envoy.extensions.filters.network.echo.v3.Echo" => {
            Some(Network::Answer(NetworkAnswer::Echo))
        }
        kind if filter::is_telemetry(kind) => None,
        kind => {
            let reason = format!("network filter {name} ({kind}) is not supported");
            cx.note("", format_args!("{reason}: connections are closed"));
            refuse.get_or_insert_with(|| reason.into());
            None
        }
    })
}

/// The older way to ask for the PROXY protocol: as in Envoy the first chain speaks for all, the default chain where there is
/// no other.
fn old_proxy_protocol(value: &Proto, filters: &mut Vec<ListenerFilter>) {
    let first = value.filter_chains.first();
    let chain = first.or(value.default_filter_chain.as_ref());
    let asked = chain.and_then(|chain| chain.use_proxy_proto.as_ref());
    let is_proxy = |filter: &ListenerFilter| matches!(filter, ListenerFilter::ProxyProtocol { .. });
    if common::bool_of(asked, false) && !filters.iter().any(is_proxy) {
        let filter = ListenerFilter::ProxyProtocol {
            allow_without: false,
            disallowed: None,
            stat_prefix: "".into(),
        };
        filters.insert(0, filter);
    }
}

fn listener_filter(cx: &mut Context, value: &ProtoListenerFilter) -> Option<ListenerFilter> {
    let ProtoListenerFilter {
        name,
        filter_disabled,
        config_type,
    } = value;
    let except = match filter_disabled {
        Some(value) => Some(cx.field("filter_disabled", |cx| ports(cx, value))?),
        None => None,
    };
    let typed = match config_type {
        Some(listener_filter::ConfigType::TypedConfig(any)) => {
            cx.field("typed_config", |cx| cx.typed(any))?
        }
        Some(listener_filter::ConfigType::ConfigDiscovery(_)) => {
            cx.reject(
                "config_discovery",
                "filters from a control plane are not supported",
            );
            return None;
        }
        None => {
            cx.reject(
                "typed_config",
                format_args!("listener filter {name} has no configuration"),
            );
            return None;
        }
    };
    let filter = cx.field("typed_config", |cx| inspector(cx, name, &typed))?;
    Some(match except {
        Some(ports) => ListenerFilter::Except(ports, Box::new(filter)),
        None => filter,
    })
}

/// For which ports a listener filter is left out.
fn ports(cx: &mut Context, value: &ListenerFilterChainMatchPredicate) -> Option<PortMatch> {
    use listener_filter_chain_match_predicate::{MatchSet, Rule};
    let all = |cx: &mut Context, field, set: &MatchSet| {
        cx.field(field, |cx| cx.each("rules", &set.rules, ports))
    };
    Some(match &value.rule {
        Some(Rule::AnyMatch(_)) => PortMatch::Any,
        Some(Rule::DestinationPortRange(range)) => PortMatch::Range(range.start, range.end),
        Some(Rule::OrMatch(set)) => PortMatch::Or(all(cx, "or_match", set)),
        Some(Rule::AndMatch(set)) => PortMatch::And(all(cx, "and_match", set)),
        Some(Rule::NotMatch(inner)) => {
            let inner = cx.field("not_match", |cx| ports(cx, inner))?;
            PortMatch::Not(Box::new(inner))
        }
        None => {
            cx.reject("rule", "one of or_match, and_match, not_match, any_match and destination_port_range is required");
            return None;
        }
    })
}

fn inspector(cx: &mut Context, name: &str, typed: &Typed) -> Option<ListenerFilter> {
    match typed.name.as_str() {
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" => {
            let TlsInspector {
                enable_ja3_fingerprinting,
                enable_ja4_fingerprinting,
                initial_read_buffer_size,
                close_connection_on_client_hello_parsing_errors,
                max_client_hello_size,
            } = &cx.message(typed)?;
            ignored!(cx; enable_ja3_fingerprinting, enable_ja4_fingerprinting, initial_read_buffer_size,
                close_connection_on_client_hello_parsing_errors, max_client_hello_size);
            Some(ListenerFilter::TlsInspector)
        }
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector" => {
            Some(ListenerFilter::HttpInspector)
        }
        "envoy.extensions.filters.listener.original_dst.v3.OriginalDst" => {
            Some(ListenerFilter::OriginalDst)
        }
        "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol" => {
            let ProxyProtocol {
                rules,
                allow_requests_without_proxy_protocol,
                pass_through_tlvs,
                disallowed_versions,
                stat_prefix,
                tlv_location,
            } = &cx.message(typed)?;
            ignored!(cx; rules, pass_through_tlvs, tlv_location);
            let v1 = proxy_protocol_config::Version::V1 as i32;
            let [v1, v2] = [true, false].map(|first| {
                let mut versions = disallowed_versions.iter();
                versions.any(|version| (*version == v1) == first)
            });
            if v1 && v2 {
                cx.reject("disallowed_versions", "all versions are disallowed");
            }
            let disallowed = v1.then_some(ProxyProtocolVersion::V1);
            Some(ListenerFilter::ProxyProtocol {
                allow_without: *allow_requests_without_proxy_protocol,
                disallowed: disallowed.or(v2.then_some(ProxyProtocolVersion::V2)),
                stat_prefix: stat_prefix.as_str().into(),
            })
        }
        kind => {
            cx.reject(
                "",
                format_args!("listener filter {name} ({kind}) is not supported"),
            );
            None
        }
    }
}
