//! Sidecar and ProxyConfig.

use std::collections::{BTreeMap, BTreeSet};

use super::check::{At, Check};
use super::destination_rule::connection_pool;
use super::gateway::tls_options;
use super::rules::{self, Protocol};
use super::selector;
use super::virtual_service::destination;
use crate::istio::api::destination_rule::{ConnectionPoolSettings, H2UpgradePolicy};
use crate::istio::api::gateway::{Port, ServerTlsMode, ServerTlsSettings};
use crate::istio::api::sidecar::{
    CaptureMode, IstioEgressListener, IstioIngressListener, OutboundMode, OutboundTrafficPolicy,
};
use crate::istio::api::{ProxyConfig, Sidecar};

pub(super) fn check(c: &mut Check, at: &At<'_>, sidecar: &Sidecar, namespace: &str) {
    selector::workload_selector(c, at, sidecar.workload_selector.as_ref());
    let empty = sidecar.egress.is_empty() && sidecar.ingress.is_empty();
    if empty
        && sidecar.outbound_traffic_policy.is_none()
        && sidecar.inbound_connection_pool.is_none()
    {
        return c.error(
            at,
            "one of ingress, egress, outboundTrafficPolicy and inboundConnectionPool is required",
        );
    }
    let mut ports = BTreeSet::new();
    for (i, listener) in sidecar.ingress.iter().enumerate() {
        ingress(c, &at.item("ingress", i), listener, &mut ports);
    }
    connection_pool(
        c,
        &at.key("inboundConnectionPool"),
        sidecar.inbound_connection_pool.as_ref(),
    );
    no_upgrade(
        c,
        &at.key("inboundConnectionPool"),
        sidecar.inbound_connection_pool.as_ref(),
    );
    let mut binds = BTreeSet::new();
    for (i, listener) in sidecar.egress.iter().enumerate() {
        let at = at.item("egress", i);
        not_captured(c, &at, listener.capture_mode);
        match &listener.port {
            None if i + 1 == sidecar.egress.len() => {}
            None => c.error(&at, "the listener without a port must be the last one"),
            Some(port) => egress(c, &at, listener, port, &mut binds),
        }
        egress_hosts(c, &at.key("hosts"), &listener.hosts, namespace);
    }
    if let Some(policy) = &sidecar.outbound_traffic_policy {
        outbound_policy(c, &at.key("outboundTrafficPolicy"), policy);
    }
}

/// Nothing upgrades connections to the application, as in Istio.
fn no_upgrade(c: &mut Check, at: &At<'_>, pool: Option<&ConnectionPoolSettings>) {
    let http = pool.and_then(|pool| pool.http.as_ref());
    if http.is_some_and(|http| http.h2_upgrade_policy == H2UpgradePolicy::Upgrade) {
        c.inactive(
            &at.key("http").key("h2UpgradePolicy"),
            "connections to the application are not upgraded",
        );
    }
}

/// Nothing intercepts traffic yet: listeners bind their ports.
fn not_captured(c: &mut Check, at: &At<'_>, mode: CaptureMode) {
    if mode == CaptureMode::Iptables {
        c.inactive(
            &at.key("captureMode"),
            "traffic is not intercepted yet: the listener binds its port",
        );
    }
}

fn ingress(c: &mut Check, at: &At<'_>, listener: &IstioIngressListener, ports: &mut BTreeSet<u32>) {
    let at_port = at.key("port");
    let Some(port) = &listener.port else {
        return c.error(&at_port, "a port is required");
    };
    port_fields(c, &at_port, port);
    c.rule(&at_port.key("number"), rules::port(port.number));
    if !listener.bind.is_empty() {
        c.rule(&at.key("bind"), rules::ip(&listener.bind));
    }
    if !ports.insert(port.number) {
        c.error(
            &at_port.key("number"),
            format_args!("duplicate port {}", port.number),
        );
    }
    if !listener.default_endpoint.is_empty() {
        c.rule(
            &at.key("defaultEndpoint"),
            default_endpoint(&listener.default_endpoint),
        );
    }
    if let Some(tls) = &listener.tls {
        ingress_tls(c, &at.key("tls"), tls, port);
    }
    connection_pool(
        c,
        &at.key("connectionPool"),
        listener.connection_pool.as_ref(),
    );
    no_upgrade(
        c,
        &at.key("connectionPool"),
        listener.connection_pool.as_ref(),
    );
    not_captured(c, at, listener.capture_mode);
    let http = listener
        .connection_pool
        .as_ref()
        .is_some_and(|p| p.http.is_some());
    if http && rules::protocol(&port.protocol) != Some(Protocol::Http) {
        c.warn(
            &at.key("connectionPool").key("http"),
            format_args!("has no effect on a port of protocol {}", port.protocol),
        );
    }
}

/// What both kinds of listener ask of a port.
fn port_fields(c: &mut Check, at: &At<'_>, port: &Port) {
    if port.target_port > 0 {
        c.error(
            &at.key("targetPort"),
            "targetPort has no effect on sidecars",
        );
    }
    if !port.name.is_empty() {
        c.rule(&at.key("name"), rules::port_name(&port.name));
    }
    if !port.protocol.is_empty() && rules::protocol(&port.protocol).is_none() {
        c.not_one_of(
            &at.key("protocol"),
            "protocol",
            &port.protocol,
            rules::PROTOCOLS,
        );
    }
}

/// `127.0.0.1:PORT`, `0.0.0.0:PORT`, `[::1]:PORT`, `[::]:PORT`, `:PORT` or `unix://PATH`.
fn default_endpoint(endpoint: &str) -> Result<(), String> {
    if let Some(path) = endpoint.strip_prefix("unix://") {
        return rules::unix_path(path);
    }
    let form =
        "must be of the form 127.0.0.1:PORT, 0.0.0.0:PORT, [::1]:PORT, [::]:PORT or unix://PATH";
    let Some((host, port)) = endpoint.rsplit_once(':') else {
        return Err(format!("`{endpoint}` {form}"));
    };
    if !matches!(host, "" | "127.0.0.1" | "0.0.0.0" | "[::1]" | "[::]") {
        return Err(format!("`{endpoint}` {form}"));
    }
    let port: u32 = port
        .parse()
        .map_err(|_| format!("`{port}` is not a port number"))?;
    rules::port(port)
}

fn ingress_tls(c: &mut Check, at: &At<'_>, tls: &ServerTlsSettings, port: &Port) {
    for (field, set) in [
        ("subjectAltNames", !tls.subject_alt_names.is_empty()),
        ("httpsRedirect", tls.https_redirect),
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
    ] {
        if set {
            c.error(
                &at.key(field),
                format_args!("{field} is not supported in sidecars"),
            );
        }
    }
    if matches!(
        tls.mode,
        ServerTlsMode::IstioMutual | ServerTlsMode::AutoPassthrough
    ) {
        c.error(
            &at.key("mode"),
            format_args!("mode {} is not supported in sidecars", tls.mode.as_str()),
        );
    }
    if rules::protocol(&port.protocol) != Some(Protocol::Tls) {
        c.error(at, "only HTTPS and TLS ports can have TLS settings");
    }
    tls_options(c, at, tls);
}

fn egress<'l>(
    c: &mut Check,
    at: &At<'_>,
    listener: &'l IstioEgressListener,
    port: &Port,
    binds: &mut BTreeSet<(u32, &'l str)>,
) {
    let at_port = at.key("port");
    port_fields(c, &at_port, port);
    if port.number == 0 {
        match listener.bind.strip_prefix("unix://") {
            Some(path) => c.rule(&at.key("bind"), rules::unix_path(path)),
            None => c.error(&at.key("bind"), "port 0 needs a Unix socket to bind to"),
        }
        if listener.capture_mode == CaptureMode::Iptables {
            c.error(
                &at.key("captureMode"),
                "a Unix socket can be captured by DEFAULT and NONE only",
            );
        }
        if !binds.insert((0, &listener.bind)) {
            c.error(&at.key("bind"), "duplicate Unix socket");
        }
        return;
    }
    c.rule(&at_port.key("number"), rules::port(port.number));
    if !listener.bind.is_empty() {
        c.rule(&at.key("bind"), rules::ip(&listener.bind));
    }
    if !binds.insert((port.number, "")) {
        c.error(
            &at_port.key("number"),
            format_args!("duplicate port {}", port.number),
        );
    }
}

fn egress_hosts(c: &mut Check, at: &At<'_>, hosts: &[String], namespace: &str) {
    if hosts.is_empty() {
        c.error(at, "at least one host is required");
    }
    let mut seen: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (i, host) in hosts.iter().enumerate() {
        let at = at.index(i);
        if let Some((owner, name)) = host
            .split_once('/')
            .filter(|(owner, _)| !owner.starts_with('~'))
        {
            let owner = if owner == "." { namespace } else { owner };
            let names = seen.entry(owner).or_default();
            let covered = if name == "*" {
                !names.is_empty()
            } else {
                names.contains(name) || names.contains("*")
            };
            if covered {
                c.warn(&at, format_args!("duplicate host `{host}`"));
            }
            names.insert(name);
        }
        for error in rules::namespaced_host(host, false) {
            c.error(&at, error);
        }
    }
    if seen.len() > 1 && seen.get("*").is_some_and(|names| names.contains("*")) {
        c.warn(at, "`*/*` covers all other hosts");
    }
}

fn outbound_policy(c: &mut Check, at: &At<'_>, policy: &OutboundTrafficPolicy) {
    if policy.mode == OutboundMode::AllowAnyDynamicDns {
        return c.error(
            &at.key("mode"),
            "ALLOW_ANY_DYNAMIC_DNS is for MeshConfig only",
        );
    }
    let Some(proxy) = &policy.egress_proxy else {
        return;
    };
    let at_proxy = at.key("egressProxy");
    if policy.mode != OutboundMode::AllowAny {
        return c.error(&at_proxy, "egressProxy needs mode ALLOW_ANY");
    }
    c.rule(&at_proxy.key("host"), rules::fqdn(&proxy.host));
    match proxy.port {
        None => c.error(&at_proxy.key("port"), "a port is required"),
        Some(_) => destination(c, &at_proxy, proxy),
    }
}

pub(super) fn proxy_config(c: &mut Check, at: &At<'_>, config: &ProxyConfig) {
    selector::match_labels(c, at, config.selector.as_ref());
    if config.concurrency.is_some_and(|n| n < 0) {
        c.error(&at.key("concurrency"), "concurrency must not be negative");
    }
    let injected = "it has no effect: nothing is injected here";
    if !config.environment_variables.is_empty() {
        c.inactive(&at.key("environmentVariables"), injected);
    }
    if config.image.is_some() {
        c.inactive(&at.key("image"), injected);
    }
}
