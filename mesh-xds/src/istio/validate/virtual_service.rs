//! VirtualService.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::check::{At, Check, Severity};
use super::{http, reach, rules};
use crate::istio::api::VirtualService;
use crate::istio::api::json::StringMatch;
use crate::istio::api::virtual_service::{
    Destination, L4MatchAttributes, RouteDestination, TlsMatchAttributes,
};
use crate::istio::index::host;

pub(super) fn check(c: &mut Check, at: &At<'_>, spec: &VirtualService, namespace: &str) {
    let delegate = spec.hosts.is_empty();
    if delegate {
        for (field, set) in [
            ("gateways", !spec.gateways.is_empty()),
            ("tls", !spec.tls.is_empty()),
            ("tcp", !spec.tcp.is_empty()),
        ] {
            if set {
                c.error(
                    &at.key(field),
                    format_args!(
                        "a delegate (a VirtualService without hosts) must have no {field}"
                    ),
                );
            }
        }
    }
    gateways(c, &at.key("gateways"), &spec.gateways);
    let for_gateway = !spec.gateways.is_empty() && !spec.gateways.iter().any(|g| g == "mesh");
    hosts(c, &at.key("hosts"), spec, for_gateway);
    if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
        c.error(at, "one of http, tls and tcp is required");
    }
    for (i, route) in spec.http.iter().enumerate() {
        let at = at.item("http", i);
        if !for_gateway {
            claims(c, &at, route);
        }
        http::route(c, &at, route, delegate);
    }
    for (i, route) in spec.tls.iter().enumerate() {
        let at = at.item("tls", i);
        if route.matches.is_empty() {
            c.error(&at, "a TLS route needs at least one match");
        }
        for (j, matched) in route.matches.iter().enumerate() {
            tls_match(c, &at.item("match", j), matched, spec, for_gateway);
        }
        destinations(c, &at, "TLS", &route.route);
    }
    for (i, route) in spec.tcp.iter().enumerate() {
        let at = at.item("tcp", i);
        for (j, matched) in route.matches.iter().enumerate() {
            tcp_match(c, &at.item("match", j), matched);
        }
        destinations(c, &at, "TCP", &route.route);
    }
    for (i, error) in rules::export_to(namespace, &spec.export_to, false) {
        c.error(&at.item("exportTo", i), error);
    }
    reach::check(c, at, spec);
}

fn hosts(c: &mut Check, at: &At<'_>, spec: &VirtualService, for_gateway: bool) {
    let sni = spec
        .tls
        .iter()
        .flat_map(|t| &t.matches)
        .any(|m| !m.sni_hosts.is_empty());
    let mut valid = true;
    for (i, name) in spec.hosts.iter().enumerate() {
        let result = if for_gateway {
            rules::gateway_domain(sni, name)
        } else {
            rules::wildcard_domain(name)
        };
        let result = if name.parse::<IpAddr>().is_ok() {
            Ok(())
        } else {
            result
        };
        valid &= result.is_ok();
        c.rule(&at.index(i), result);
        if !for_gateway && name == "*" {
            c.error(
                &at.index(i),
                "host `*` is not allowed for sidecars (gateway `mesh`)",
            );
            valid = false;
        }
    }
    if !valid {
        return;
    }
    for (i, j) in host::overlaps(&spec.hosts) {
        let (a, b) = (&spec.hosts[i], &spec.hosts[j]);
        c.error(
            &at.index(j),
            format_args!("duplicate hosts `{a}` and `{b}`: one covers the other"),
        );
    }
}

/// Claims of a JWT are checked at gateways only.
fn claims(c: &mut Check, at: &At<'_>, route: &crate::istio::api::virtual_service::HttpRoute) {
    for (i, matched) in route.matches.iter().enumerate() {
        let conditions: [(&str, &BTreeMap<String, StringMatch>); 2] = [
            ("headers", &matched.headers),
            ("withoutHeaders", &matched.without_headers),
        ];
        for (field, headers) in conditions {
            for name in headers.keys().filter(|name| rules::is_claim(name)) {
                let at = at.item("match", i);
                c.error(
                    &at.key(field).key(name),
                    "routing by claims is supported for gateways only",
                );
            }
        }
    }
}

/// Names of gateways: `name`, `namespace/name`, or the older `name.namespace.svc…`.
pub(super) fn gateways(c: &mut Check, at: &At<'_>, names: &[String]) {
    let mut severity = Severity::Error;
    for (i, name) in names.iter().enumerate() {
        let at = at.index(i);
        let Some((namespace, gateway)) = name.split_once('/') else {
            if let Some((gateway, rest)) = name.split_once('.') {
                let namespace = rest.split('.').next().unwrap_or_default();
                c.warn(
                    &at,
                    format_args!("the form `{name}` is old, write `{namespace}/{gateway}`"),
                );
            }
            if let Err(error) = rules::fqdn(name) {
                c.push(severity, &at, error);
            }
            // Istio looks at no name after one without a namespace.
            severity = Severity::Warning;
            continue;
        };
        if namespace.is_empty() || gateway.is_empty() {
            let message = "namespace and name of a gateway must not be empty";
            c.push(severity, &at, message);
        }
        if !rules::is_dns_label(namespace) {
            c.push(
                severity,
                &at,
                format_args!("invalid namespace `{namespace}`"),
            );
        }
        if !rules::is_dns_label(gateway) {
            c.push(
                severity,
                &at,
                format_args!("invalid gateway name `{gateway}`"),
            );
        }
    }
}

fn tls_match(
    c: &mut Check,
    at: &At<'_>,
    matched: &TlsMatchAttributes,
    spec: &VirtualService,
    for_gateway: bool,
) {
    if matched.sni_hosts.is_empty() {
        c.error(
            &at.key("sniHosts"),
            "a TLS match needs at least one SNI host",
        );
    }
    for (i, name) in matched.sni_hosts.iter().enumerate() {
        sni_host(
            c,
            &at.item("sniHosts", i),
            name,
            spec,
            for_gateway || spec.gateways.is_empty(),
        );
    }
    l4(
        c,
        at,
        &matched.destination_subnets,
        matched.port,
        &matched.source_labels,
        &matched.gateways,
    );
}

fn sni_host(c: &mut Check, at: &At<'_>, name: &str, spec: &VirtualService, generated: bool) {
    let result = if generated {
        rules::gateway_domain(true, name)
    } else {
        rules::wildcard_domain(name)
    };
    if let Err(error) = result {
        if name.parse::<IpAddr>().is_ok() {
            c.warn(
                at,
                format_args!("SNI never carries an IP address like `{name}`"),
            );
        } else {
            c.error(at, error);
        }
    } else if !spec.hosts.iter().any(|h| host::subset_of(name, h)) {
        c.error(
            at,
            format_args!(
                "`{name}` is covered by none of the hosts: {}",
                spec.hosts.join(", ")
            ),
        );
    }
}

fn tcp_match(c: &mut Check, at: &At<'_>, matched: &L4MatchAttributes) {
    l4(
        c,
        at,
        &matched.destination_subnets,
        matched.port,
        &matched.source_labels,
        &matched.gateways,
    );
    if !matched.source_subnet.is_empty() {
        c.inactive(
            &at.key("sourceSubnet"),
            "sourceSubnet has no effect, as in Istio: connections from everywhere match",
        );
    }
}

fn l4(
    c: &mut Check,
    at: &At<'_>,
    subnets: &[String],
    port: u32,
    labels: &BTreeMap<String, String>,
    gateway_names: &[String],
) {
    for (i, subnet) in subnets.iter().enumerate() {
        c.rule(
            &at.item("destinationSubnets", i),
            rules::ip_or_block(subnet),
        );
    }
    if port != 0 {
        c.rule(&at.key("port"), rules::port(port));
    }
    for (key, error) in rules::labels(labels) {
        c.error(&at.key("sourceLabels").key(&key), error);
    }
    gateways(c, &at.key("gateways"), gateway_names);
}

fn destinations(c: &mut Check, at: &At<'_>, what: &str, arms: &[RouteDestination]) {
    let at = at.key("route");
    if arms.is_empty() {
        c.error(&at, format_args!("a {what} route needs a destination"));
    }
    for (i, arm) in arms.iter().enumerate() {
        let at = at.index(i);
        required_destination(c, &at, arm.destination.as_ref());
        weight(c, &at, arm.weight);
    }
    total_weight(c, &at, arms.iter().map(|arm| arm.weight));
}

/// The destination of an arm, which must be there.
pub(super) fn required_destination(c: &mut Check, at: &At<'_>, to: Option<&Destination>) {
    let at = at.key("destination");
    match to {
        Some(to) => destination(c, &at, to),
        None => c.error(&at, "a destination is required"),
    }
}

/// A host, perhaps with subset and port.
pub(super) fn destination(c: &mut Check, at: &At<'_>, to: &Destination) {
    if to.host == "*" {
        c.error(&at.key("host"), "`*` is no destination");
    } else {
        c.rule(&at.key("host"), rules::wildcard_domain(&to.host));
    }
    if !to.subset.is_empty() && !rules::is_dns_label(&to.subset) {
        c.error(
            &at.key("subset"),
            format_args!("invalid subset name `{}`", to.subset),
        );
    }
    if let Some(port) = &to.port {
        c.rule(&at.key("port").key("number"), rules::port(port.number));
    }
}

pub(super) fn weight(c: &mut Check, at: &At<'_>, weight: i32) {
    if weight < 0 {
        c.error(
            &at.key("weight"),
            format_args!("weight {weight} is negative"),
        );
    }
}

/// Of several arms at least one needs a weight.
pub(super) fn total_weight(
    c: &mut Check,
    at: &At<'_>,
    weights: impl ExactSizeIterator<Item = i32>,
) {
    if weights.len() > 1 && weights.map(i64::from).sum::<i64>() == 0 {
        c.error(at, "the weights of several destinations must not all be 0");
    }
}
