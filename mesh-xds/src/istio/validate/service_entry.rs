//! ServiceEntry, WorkloadEntry, WorkloadGroup.

use std::collections::BTreeSet;

use super::check::{At, Check};
use super::rules::{self, Protocol};
use super::selector;
use crate::istio::Object;
use crate::istio::api::service_entry::{Location, ReadinessProbe, Resolution, ServicePort};
use crate::istio::api::{ServiceEntry, WorkloadEntry, WorkloadGroup};

pub(super) fn check(c: &mut Check, at: &At<'_>, entry: &ServiceEntry, object: &Object) {
    selector::workload_selector(c, at, entry.workload_selector.as_ref());
    if entry.workload_selector.is_some() && !entry.endpoints.is_empty() {
        c.error(at, "only one of endpoints and workloadSelector can be set");
    }
    hosts(c, &at.key("hosts"), entry);
    for (i, address) in entry.addresses.iter().enumerate() {
        c.rule(&at.item("addresses", i), rules::ip_or_block(address));
    }
    let block = entry.addresses.iter().any(|a| a.contains('/'));
    if block && !matches!(entry.resolution, Resolution::None | Resolution::Static) {
        c.error(
            &at.key("addresses"),
            "CIDR blocks are allowed for resolution NONE and STATIC only",
        );
    }
    ports(c, at, entry, object);
    resolution(c, at, entry, object);
    if !entry.subject_alt_names.is_empty() {
        c.inactive(
            &at.key("subjectAltNames"),
            "names of servers are not verified yet, since TLS is not originated",
        );
    }
    let plain = |p: &ServicePort| {
        !matches!(
            rules::protocol(&p.protocol),
            Some(Protocol::Http | Protocol::Tls)
        )
    };
    if entry.resolution != Resolution::None
        && entry.hosts.len() > 1
        && entry.ports.iter().any(plain)
    {
        c.error(
            &at.key("hosts"),
            "several hosts cannot share a port that is neither HTTP nor TLS",
        );
    }
    for (i, error) in rules::export_to(&object.namespace, &entry.export_to, true) {
        c.error(&at.item("exportTo", i), error);
    }
}

fn hosts(c: &mut Check, at: &At<'_>, entry: &ServiceEntry) {
    if entry.hosts.is_empty() {
        c.error(at, "at least one host is required");
    }
    for (i, host) in entry.hosts.iter().enumerate() {
        let at = at.index(i);
        if host == "*" {
            c.error(&at, "host `*` is not allowed");
            continue;
        }
        c.rule(&at, rules::wildcard_domain(host));
        if entry.resolution != Resolution::DynamicDns
            && let Err(warning) = rules::partial_wildcard(host)
        {
            c.warn(&at, warning);
        }
    }
}

fn ports(c: &mut Check, at: &At<'_>, entry: &ServiceEntry, object: &Object) {
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    for (i, port) in entry.ports.iter().enumerate() {
        let at = at.item("ports", i);
        if !names.insert(&port.name) {
            c.error(
                &at.key("name"),
                format_args!("duplicate port name `{}`", port.name),
            );
        }
        if !numbers.insert(port.number) {
            c.error(
                &at.key("number"),
                format_args!("duplicate port {}", port.number),
            );
        }
        if port.target_port != 0 {
            c.rule(&at.key("targetPort"), rules::port(port.target_port));
        }
        let tcp = matches!(port.protocol.as_str(), "" | "TCP");
        if tcp && entry.addresses.is_empty() && !gets_address(entry, object) {
            c.warn(
                &at,
                "a TCP port without addresses catches the traffic of every address on this port",
            );
        }
        c.rule(&at.key("name"), rules::port_name(&port.name));
        if !port.protocol.is_empty() && rules::protocol(&port.protocol).is_none() {
            c.not_one_of(
                &at.key("protocol"),
                "protocol",
                &port.protocol,
                rules::PROTOCOLS,
            );
        }
        c.rule(&at.key("number"), rules::port(port.number));
    }
}

/// Whether Istio would give the entry an address of its own.
fn gets_address(entry: &ServiceEntry, object: &Object) -> bool {
    let switched_off = object
        .labels
        .get("networking.istio.io/enable-autoallocate-ip")
        .is_some_and(|v| v.eq_ignore_ascii_case("false"));
    let wildcard = entry.hosts.iter().any(|h| h.starts_with('*'));
    !switched_off && entry.resolution != Resolution::None && !wildcard
}

fn resolution(c: &mut Check, at: &At<'_>, entry: &ServiceEntry, object: &Object) {
    let names: BTreeSet<&str> = entry.ports.iter().map(|p| p.name.as_str()).collect();
    match entry.resolution {
        Resolution::None => {
            if !entry.endpoints.is_empty() {
                c.error(&at.key("endpoints"), "resolution NONE takes no endpoints");
            }
            if entry.workload_selector.is_some() {
                c.warn(
                    &at.key("workloadSelector"),
                    "has no effect with resolution NONE",
                );
            }
        }
        Resolution::Static => {
            for (i, endpoint) in entry.endpoints.iter().enumerate() {
                workload_entry(c, &at.item("endpoints", i), endpoint, Some(&names), false);
            }
        }
        Resolution::Dns | Resolution::DnsRoundRobin => dns(c, at, entry, &names),
        Resolution::DynamicDns => dynamic_dns(c, at, entry, object),
    }
}

fn dns(c: &mut Check, at: &At<'_>, entry: &ServiceEntry, names: &BTreeSet<&str>) {
    let resolution = entry.resolution.as_str();
    if entry.endpoints.is_empty() {
        for (i, host) in entry.hosts.iter().enumerate() {
            if let Err(error) = rules::fqdn(host) {
                c.error(
                    &at.item("hosts", i),
                    format_args!(
                        "resolution {resolution} without endpoints needs full names: {error}"
                    ),
                );
            }
        }
    }
    if entry.resolution == Resolution::DnsRoundRobin && entry.endpoints.len() > 1 {
        c.error(
            &at.key("endpoints"),
            "resolution DNS_ROUND_ROBIN takes at most one endpoint",
        );
    }
    for (i, endpoint) in entry.endpoints.iter().enumerate() {
        let at = at.item("endpoints", i);
        if rules::ip(&endpoint.address).is_err() && rules::fqdn(&endpoint.address).is_err() {
            c.error(
                &at.key("address"),
                format_args!(
                    "`{}` is neither a full name nor an IP address",
                    endpoint.address
                ),
            );
        }
        endpoint_ports(c, &at, endpoint, Some(names));
    }
    let tcp = |p: &ServicePort| {
        matches!(
            rules::protocol(&p.protocol),
            Some(Protocol::Tcp | Protocol::Tls)
        )
    };
    if !entry.addresses.is_empty() && entry.hosts.len() > 1 && entry.ports.iter().any(tcp) {
        c.warn(
            &at.key("hosts"),
            "several hosts with addresses and a TCP port cannot be told apart",
        );
    }
}

fn dynamic_dns(c: &mut Check, at: &At<'_>, entry: &ServiceEntry, object: &Object) {
    for (i, host) in entry
        .hosts
        .iter()
        .enumerate()
        .filter(|(_, h)| !h.starts_with('*'))
    {
        c.error(
            &at.item("hosts", i),
            format_args!("resolution DYNAMIC_DNS needs wildcard hosts, `{host}` is none"),
        );
    }
    for (field, set) in [
        ("addresses", !entry.addresses.is_empty()),
        ("endpoints", !entry.endpoints.is_empty()),
    ] {
        if set {
            c.error(
                &at.key(field),
                format_args!("resolution DYNAMIC_DNS takes no {field}"),
            );
        }
    }
    for (i, port) in entry.ports.iter().enumerate() {
        let allowed = ["HTTP", "TLS", "GRPC", "HTTP2"];
        if !allowed.contains(&port.protocol.to_ascii_uppercase().as_str()) {
            c.not_one_of(
                &at.item("ports", i).key("protocol"),
                "protocol for DYNAMIC_DNS",
                &port.protocol,
                &allowed,
            );
        }
    }
    let waypoint = object
        .labels
        .get("istio.io/use-waypoint")
        .is_some_and(|w| !w.is_empty() && !w.eq_ignore_ascii_case("none"));
    if waypoint && entry.location == Location::MeshInternal {
        c.error(
            &at.key("location"),
            "MESH_INTERNAL with DYNAMIC_DNS is not supported with a waypoint",
        );
    }
}

/// One workload; `ports` are the names that the service declares, if it is known.
pub(super) fn workload_entry(
    c: &mut Check,
    at: &At<'_>,
    entry: &WorkloadEntry,
    ports: Option<&BTreeSet<&str>>,
    allow_name: bool,
) {
    let address = entry.address.as_str();
    let at_address = at.key("address");
    if address.is_empty() {
        if entry.network.is_empty() {
            return c.error(&at_address, "an address is required");
        }
        c.warn(
            &at_address,
            format_args!(
                "no address: reached through the gateway of network `{}`",
                entry.network
            ),
        );
    }
    if let Some(path) = address.strip_prefix("unix://") {
        c.rule(&at_address, rules::unix_path(path));
        if !entry.ports.is_empty() {
            c.error(&at.key("ports"), "a Unix socket takes no ports");
        }
        if ports.is_some_and(|ports| ports.len() != 1) {
            c.error(
                &at_address,
                "a Unix socket needs a service with exactly one port",
            );
        }
    } else if !address.is_empty() && rules::ip(address).is_err() {
        if !allow_name {
            c.error(
                &at_address,
                format_args!("`{address}` is not an IP address"),
            );
        } else if rules::fqdn(address).is_err() {
            c.error(
                &at_address,
                format_args!("`{address}` is neither a full name nor an IP address"),
            );
        }
    }
    endpoint_ports(c, at, entry, ports);
    if !entry.network.is_empty() {
        c.inactive(
            &at.key("network"),
            "networks do not count yet: the address is used as it is",
        );
    }
    if !entry.service_account.is_empty() {
        c.inactive(
            &at.key("serviceAccount"),
            "identities of endpoints are not verified yet, since TLS is not originated",
        );
    }
}

fn endpoint_ports(
    c: &mut Check,
    at: &At<'_>,
    entry: &WorkloadEntry,
    ports: Option<&BTreeSet<&str>>,
) {
    for (name, port) in &entry.ports {
        let at = at.key("ports");
        let at = at.key(name);
        if ports.is_some_and(|ports| !ports.contains(name.as_str())) {
            c.error(&at, format_args!("the service has no port `{name}`"));
        }
        c.rule(&at, rules::port_name(name));
        c.rule(&at, rules::port(*port));
    }
    for (key, error) in rules::labels(&entry.labels) {
        c.error(&at.key("labels").key(&key), error);
    }
}

pub(super) fn workload_group(c: &mut Check, at: &At<'_>, group: &WorkloadGroup) {
    if group.template.is_none() {
        return c.error(&at.key("template"), "a template is required");
    }
    if let Some(metadata) = &group.metadata {
        for (key, error) in rules::labels(&metadata.labels) {
            c.error(&at.key("metadata").key("labels").key(&key), error);
        }
    }
    if let Some(probe) = &group.probe {
        readiness(c, &at.key("probe"), probe);
    }
}

fn readiness(c: &mut Check, at: &At<'_>, probe: &ReadinessProbe) {
    for (field, value) in [
        ("periodSeconds", probe.period_seconds),
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        if value < 0 {
            c.error(&at.key(field), format_args!("{field} must not be negative"));
        }
    }
    if let Some(http) = &probe.http_get {
        let at = at.key("httpGet");
        c.rule(&at.key("port"), rules::port(http.port));
        if !matches!(http.scheme.as_str(), "" | "HTTP" | "HTTPS") {
            c.not_one_of(
                &at.key("scheme"),
                "scheme",
                &http.scheme,
                &["HTTP", "HTTPS"],
            );
        }
        for (i, header) in http.http_headers.iter().enumerate() {
            let dashed = header
                .name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-');
            if header.name.is_empty() || !dashed {
                c.error(
                    &at.item("httpHeaders", i),
                    format_args!("`{}` is not a valid header name", header.name),
                );
            }
        }
    } else if let Some(tcp) = &probe.tcp_socket {
        c.rule(&at.key("tcpSocket").key("port"), rules::port(tcp.port));
    } else if let Some(exec) = &probe.exec {
        if exec.command.is_empty() {
            c.error(&at.key("exec").key("command"), "a command is required");
        }
    } else {
        let message = if probe.grpc.is_some() {
            "a probe by grpc is not supported"
        } else {
            "one of httpGet, tcpSocket and exec is required"
        };
        c.error(at, message);
    }
}
