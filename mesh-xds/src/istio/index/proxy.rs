//! The proxy that configuration is made for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Context, Workload};
use crate::istio::api::mesh_config::MeshProxyConfig;

/// Role of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ProxyKind {
    /// Beside one workload.
    #[default]
    Sidecar,
    /// At the edge.
    Router,
}

/// How traffic comes to a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Interception {
    /// The network redirects it.
    #[default]
    Redirect,
    /// The network redirects it and keeps the addresses.
    Tproxy,
    /// Nothing does: every listener binds its own address and port.
    None,
}

/// The proxy that configuration is made for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proxy {
    /// Role.
    pub kind: ProxyKind,
    /// Name of the workload.
    pub name: String,
    /// Namespace, which decides what is visible.
    pub namespace: String,
    /// DNS domain of its namespace, `NAMESPACE.svc.cluster.local`.
    pub dns_domain: String,
    /// Addresses, the main one first.
    pub addresses: Vec<String>,
    /// Labels of the workload.
    pub labels: BTreeMap<String, String>,
    /// Service account of the workload.
    pub service_account: String,
    /// Locality, `region/zone/subzone`.
    pub locality: String,
    /// What the annotation of the workload says of its proxy.
    pub annotated: Option<Box<MeshProxyConfig>>,
    /// How traffic comes to it.
    pub interception: Interception,
    /// Address that listeners bind for which nothing else is said: in place of the loopback address for outbound listeners
    /// of a sidecar, so that several sidecars on one machine each have their own, and in place of `0.0.0.0` for a gateway.
    pub bind: Option<String>,
    /// Address at which the application listens, in place of the loopback address (`127.0.0.1`).
    pub application_address: Option<String>,
}

impl Proxy {
    /// The sidecar of `workload`, without interception.
    #[must_use]
    pub fn sidecar(workload: &Workload, context: &Context) -> Self {
        Self {
            interception: Interception::None,
            ..Self::of(ProxyKind::Sidecar, workload, context)
        }
    }

    /// A gateway that runs as `workload`.
    #[must_use]
    pub fn router(workload: &Workload, context: &Context) -> Self {
        Self::of(ProxyKind::Router, workload, context)
    }

    fn of(kind: ProxyKind, workload: &Workload, context: &Context) -> Self {
        Self {
            kind,
            name: workload.name.clone(),
            namespace: workload.namespace.clone(),
            dns_domain: format!("{}.svc.{}", workload.namespace, context.domain),
            addresses: workload.addresses.clone(),
            labels: workload.labels.clone(),
            service_account: workload.service_account.clone(),
            locality: workload.locality.clone(),
            annotated: workload.proxy_config.clone(),
            ..Self::default()
        }
    }

    /// Whether it has an address of that family.
    #[must_use]
    pub fn supports(&self, address: IpAddr) -> bool {
        let same = |own: &String| {
            own.parse()
                .is_ok_and(|own: IpAddr| own.is_ipv4() == address.is_ipv4())
        };
        self.addresses.is_empty() || self.addresses.iter().any(same)
    }

    /// Its first address of one family.
    #[must_use]
    pub fn address_of(&self, ipv4: bool) -> Option<&str> {
        let of_family = |own: &&str| own.parse().is_ok_and(|ip: IpAddr| ip.is_ipv4() == ipv4);
        self.addresses.iter().map(String::as_str).find(of_family)
    }

    /// Whether all that it has are IPv6 addresses.
    fn is_ipv6(&self) -> bool {
        self.address_of(false).is_some() && self.address_of(true).is_none()
    }

    /// The loopback address by which it and its application reach each other.
    #[must_use]
    pub fn loopback(&self) -> &'static str {
        if self.is_ipv6() { "::1" } else { "127.0.0.1" }
    }

    /// The address that stands for all of its addresses.
    #[must_use]
    pub fn wildcard(&self) -> &'static str {
        if self.is_ipv6() { "::" } else { "0.0.0.0" }
    }

    /// The main address.
    #[must_use]
    pub fn address(&self) -> &str {
        self.addresses.first().map_or("127.0.0.1", String::as_str)
    }
}
