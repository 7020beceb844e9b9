//! The Host headers by which a service may be called.

use std::net::IpAddr;

use super::pb;
use crate::istio::index::{Proxy, Registry, Resolution, Service};

/// The domains of a service, and which of them are short or absolute forms of its names.
pub(super) struct Domains {
    pub(super) all: Vec<String>,
    pub(super) alternative: Vec<String>,
}

/// The domains for `service` as called by `proxy`. Where ports are ignored in host matching, `port` is none and no domain
/// carries one.
pub(super) fn of_service(service: &Service, port: Option<u32>, proxy: &Proxy) -> Domains {
    let mut all = Vec::new();
    let mut alternative = Vec::new();
    for name in std::iter::once(&service.hostname).chain(&service.aliases) {
        let other = alternatives(name, port, &proxy.dns_domain);
        push(&mut all, name, port);
        all.extend(other.iter().cloned());
        alternative.extend(other);
    }
    if service.resolution == Resolution::Passthrough && service.registry == Registry::Kubernetes {
        let below: Vec<_> = all.iter().map(|domain| format!("*.{domain}")).collect();
        all.extend(below);
    }
    for address in addresses(service, proxy) {
        push(&mut all, address, port);
    }
    Domains { all, alternative }
}

/// The service's own addresses: those of Kubernetes that `proxy` can reach by their family, and all that a ServiceEntry names,
/// since they are only names for it.
pub(super) fn addresses<'a>(
    service: &'a Service,
    proxy: &'a Proxy,
) -> impl Iterator<Item = &'a String> {
    service
        .addresses
        .iter()
        .filter(|address| match address.parse::<IpAddr>() {
            Ok(ip) => {
                let reached = service.registry == Registry::External || proxy.supports(ip);
                reached && !ip.is_unspecified()
            }
            Err(_) => true,
        })
}

fn push(domains: &mut Vec<String>, name: &str, port: Option<u32>) {
    domains.push(pb::bracketed(name));
    domains.extend(port.map(|port| pb::host_port(name, port)));
}

/// Other names of `host` for a proxy whose DNS search domain is `proxy_domain`.
fn alternatives(host: &str, port: Option<u32>, proxy_domain: &str) -> Vec<String> {
    let mut found = Vec::new();
    if host.parse::<IpAddr>().is_err() {
        found.push(format!("{host}."));
    }
    found.extend(port.map(|port| pb::host_port(&format!("{host}."), port)));
    match proxy_domain.find(".svc.") {
        Some(at) => {
            let cluster = if at > 0 {
                proxy_domain.get(at..).unwrap_or_default()
            } else {
                proxy_domain
            };
            if host.ends_with(cluster) {
                kubernetes_alternatives(&mut found, host, port, proxy_domain);
            }
        }
        None => shared_suffix_alternatives(&mut found, host, port, proxy_domain),
    }
    found
}

/// `name`, `name.ns.svc` and `name.ns` for a service of the proxy's namespace; without the first for another namespace.
fn kubernetes_alternatives(
    found: &mut Vec<String>,
    host: &str,
    port: Option<u32>,
    proxy_domain: &str,
) {
    let own = proxy_domain.split(".svc.").next().unwrap_or_default();
    let Some((qualified, _)) = host.split_once(".svc.") else {
        return;
    };
    let Some((name, namespace)) = qualified.split_once('.') else {
        return;
    };
    let service = format!("{qualified}.svc");
    if namespace == own {
        push(found, name, port);
        push(found, &service, port);
        push(found, qualified, port);
    } else {
        push(found, qualified, port);
        push(found, &service, port);
    }
}

/// Outside of Kubernetes: the part of `host` that the proxy's domain does not share.
fn shared_suffix_alternatives(
    found: &mut Vec<String>,
    host: &str,
    port: Option<u32>,
    proxy_domain: &str,
) {
    let parts: Vec<&str> = host.split('.').collect();
    let own: Vec<&str> = proxy_domain.split('.').collect();
    let shared = parts
        .iter()
        .rev()
        .zip(own.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    if shared == 0 {
        return;
    }
    let (unique, rest) = parts.split_at(parts.len() - shared);
    let name = unique.join(".");
    push(found, &name, port);
    if let ([_, _], Some(first)) = (unique, rest.first()) {
        push(found, &format!("{name}.{first}"), port);
    }
}

#[cfg(test)]
mod tests {
    use super::alternatives;

    #[test]
    fn services_of_the_own_namespace_have_a_short_name() {
        let found = alternatives(
            "reviews.default.svc.cluster.local",
            None,
            "default.svc.cluster.local",
        );
        let wanted = [
            "reviews.default.svc.cluster.local.",
            "reviews",
            "reviews.default.svc",
            "reviews.default",
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn services_of_other_namespaces_have_none() {
        let found = alternatives(
            "reviews.prod.svc.cluster.local",
            Some(80),
            "default.svc.cluster.local",
        );
        assert!(!found.contains(&"reviews".to_owned()));
        assert!(found.contains(&"reviews.prod:80".to_owned()));
    }

    #[test]
    fn hosts_outside_the_cluster_are_not_shortened() {
        assert_eq!(
            alternatives("foo.com", None, "default.svc.cluster.local"),
            ["foo.com."]
        );
        assert_eq!(
            alternatives("foo.local.campus.net", None, "local.campus.net")[1..],
            ["foo"]
        );
    }
}
