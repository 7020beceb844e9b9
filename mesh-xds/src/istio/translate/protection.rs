//! What protects traffic and cannot be enforced yet: the workload then refuses traffic, unless the user says otherwise.

use std::collections::{BTreeMap, BTreeSet};

use super::{Env, Note};
use crate::istio::api::security::{Action, MutualTlsMode, PeerAuthentication};
use crate::istio::api::{Lost, MatchLabels, Object, Origin, PolicyTargetReference, Spec};
use crate::istio::index::{Meta, ProxyKind, service_entry};

/// Whether a port takes traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// It does.
    Open,
    /// Every request and connection is refused.
    Refuse,
}

/// What protects one proxy.
#[derive(Debug, Default)]
pub(super) struct Protection {
    /// An AuthorizationPolicy or RequestAuthentication is there, or a refused object that may close every port.
    policies: bool,
    /// Mutual TLS is demanded.
    strict: bool,
    /// Mutual TLS by port.
    strict_ports: BTreeMap<u32, bool>,
    /// Ports to which a refused Sidecar gives TLS.
    tls_ports: BTreeSet<u32>,
}

impl Protection {
    /// Whether that port of the workload takes traffic.
    pub(super) fn of_port(&self, port: u32) -> Guard {
        let strict = self.strict_ports.get(&port).copied().unwrap_or(self.strict);
        if self.policies || strict || self.tls_ports.contains(&port) {
            Guard::Refuse
        } else {
            Guard::Open
        }
    }

    /// Whether the gateway takes traffic: mutual TLS of the mesh does not concern what comes from outside.
    pub(super) fn of_gateway(&self) -> Guard {
        if self.policies {
            Guard::Refuse
        } else {
            Guard::Open
        }
    }
}

/// Kinds whose protection the user may decide not to enforce, as
/// [`IstioOptions::insecure_skip`](crate::istio::IstioOptions::insecure_skip) names them.
pub const SKIPPABLE: &[&str] = &[
    "AuthorizationPolicy",
    "RequestAuthentication",
    "PeerAuthentication",
];

/// The label by which a gateway's workload names its Gateway of the Gateway API.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// A policy that may refuse requests.
struct Policy<'a> {
    kind: &'static str,
    selector: Option<&'a MatchLabels>,
    target: Option<&'a PolicyTargetReference>,
    targets: &'a [PolicyTargetReference],
}

impl<'a> Policy<'a> {
    fn of(spec: &'a Spec) -> Option<Self> {
        match spec {
            Spec::AuthorizationPolicy(policy) if policy.action != Action::Audit => Some(Self {
                kind: "AuthorizationPolicy",
                selector: policy.selector.as_ref(),
                target: policy.target_ref.as_ref(),
                targets: &policy.target_refs,
            }),
            Spec::RequestAuthentication(policy) => Some(Self {
                kind: "RequestAuthentication",
                selector: policy.selector.as_ref(),
                target: policy.target_ref.as_ref(),
                targets: &policy.target_refs,
            }),
            _ => None,
        }
    }

    fn targets(&self) -> impl Iterator<Item = &'a PolicyTargetReference> {
        self.target.into_iter().chain(self.targets)
    }

    fn has_targets(&self) -> bool {
        self.targets().next().is_some()
    }
}

/// Whether verdicts are to be recorded only: `istio.io/dry-run` of an AuthorizationPolicy is on, in a form that Go reads as
/// true.
fn dry_run(object: &Object) -> bool {
    if !matches!(object.spec, Spec::AuthorizationPolicy(_)) {
        return false;
    }
    let value = object.annotations.get("istio.io/dry-run");
    value.is_some_and(|value| matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

impl Env<'_> {
    /// Finds what protects this proxy; `skip` are kinds that the user has decided not to enforce.
    pub(super) fn protection(&self, skip: &BTreeSet<String>, notes: &mut Vec<Note>) -> Protection {
        let mut found = Protection::default();
        for object in &self.context.objects {
            let Some(policy) = Policy::of(&object.spec) else {
                continue;
            };
            let kind = policy.kind;
            if !(self.is_near(&object.namespace) && self.concerned(&policy)) {
                if policy.has_targets() {
                    notes.push(Note::ignored(
                        &object.origin,
                        format!("{kind} {}/{}", object.namespace, object.name),
                        "its targets are gateways of the Gateway API and waypoints, which are not served yet"
                            .to_owned(),
                    ));
                }
                continue;
            }
            let name = format!("{kind} {}/{}", object.namespace, object.name);
            if dry_run(object) {
                notes.push(Note::ignored(
                    &object.origin,
                    name,
                    "its dry run does not act yet: no verdict is recorded".to_owned(),
                ));
            } else if skip.contains(kind) {
                notes.push(Note::ignored(
                    &object.origin,
                    name,
                    "it is not enforced, as --insecure-skip says".to_owned(),
                ));
            } else {
                found.policies = true;
                notes.push(Note::refusing(
                    &object.origin,
                    name,
                    "it cannot be enforced yet, so the workload refuses all traffic".to_owned(),
                ));
            }
        }
        self.add_mutual_tls(&mut found, skip, notes);
        for lost in &self.context.lost {
            self.add_lost(lost, &mut found, skip, notes);
        }
        self.add_lost_sidecars(&mut found, notes);
        found
    }

    /// What a refused Sidecar would limit: ports with TLS are closed, unknown hosts are not reached.
    fn add_lost_sidecars(&self, found: &mut Protection, notes: &mut Vec<Note>) {
        for (lost, spec) in &self.scope.lost {
            let mut note = |text: &str| {
                let text = format!(
                    "it was refused and no good version of it is in force, so {text} until it is corrected"
                );
                notes.push(Note::refusing(&lost.origin, lost.to_string(), text));
            };
            if spec.outbound_traffic_policy.is_some() {
                note("hosts that the mesh does not know are not reached");
            }
            for listener in &spec.ingress {
                match listener.port.as_ref().filter(|port| port.number != 0) {
                    Some(port) => {
                        found.tls_ports.insert(port.number);
                        note(&format!("port {} refuses all traffic", port.number));
                    }
                    None => {
                        found.policies = true;
                        note("the workload refuses all traffic");
                    }
                }
            }
        }
    }

    /// What was refused and has no version in force refuses traffic wherever it may have been meant to protect it.
    fn add_lost(
        &self,
        lost: &Lost,
        found: &mut Protection,
        skip: &BTreeSet<String>,
        notes: &mut Vec<Note>,
    ) {
        let may_be = |kind: &str| lost.kind.as_deref().is_none_or(|own| own == kind);
        let kinds: Vec<&str> = SKIPPABLE
            .iter()
            .copied()
            .filter(|kind| may_be(kind))
            .collect();
        if kinds.is_empty() || !self.may_concern(lost) {
            return;
        }
        let note = |make: fn(&Origin, String, String) -> Note, text: &str| {
            make(&lost.origin, lost.to_string(), text.to_owned())
        };
        let mutual_tls = |kind: &&str| *kind == "PeerAuthentication";
        let (tls, policies): (Vec<&str>, Vec<&str>) = kinds
            .into_iter()
            .filter(|kind| !skip.contains(*kind))
            .partition(mutual_tls);
        if tls.is_empty() && policies.is_empty() {
            let text = "it was refused, and is not enforced, as --insecure-skip says";
            notes.push(note(Note::ignored, text));
            return;
        }
        found.policies |= !policies.is_empty();
        if !tls.is_empty() {
            found.strict = true;
            found.strict_ports.clear();
        }
        // Mutual TLS of the mesh does not concern what comes to a gateway.
        if self.proxy.kind == ProxyKind::Router && policies.is_empty() {
            return;
        }
        let text = "it was refused and no good version of it is in force, so the workload refuses all traffic until it is corrected";
        notes.push(note(Note::refusing, text));
    }

    /// Whether a refused policy may have been meant for this proxy.
    fn may_concern(&self, lost: &Lost) -> bool {
        if lost
            .namespace
            .as_ref()
            .is_some_and(|own| !self.is_near(own))
        {
            return false;
        }
        match &lost.spec {
            None => true,
            Some(Spec::PeerAuthentication(policy)) => self.selected_by(policy.selector.as_ref()),
            Some(spec) => Policy::of(spec).is_some_and(|policy| {
                // One with both a selector and targets may have been meant for either.
                let both = policy.selector.is_some() && policy.has_targets();
                self.concerned(&policy) || (both && self.selected_by(policy.selector))
            }),
        }
    }

    fn is_near(&self, namespace: &str) -> bool {
        *namespace == *self.proxy.namespace || *namespace == *self.context.root_namespace()
    }

    fn selected_by(&self, selector: Option<&MatchLabels>) -> bool {
        selector.is_none_or(|own| service_entry::selects(&own.match_labels, &self.proxy.labels))
    }

    /// Whether a policy of this namespace, or of the mesh, is for this proxy. One with targets is for gateways and
    /// waypoints that they name, never for a sidecar.
    fn concerned(&self, policy: &Policy<'_>) -> bool {
        if policy.has_targets() {
            let own = self.proxy.labels.get(GATEWAY_NAME);
            return self.proxy.kind == ProxyKind::Router
                && policy.targets().any(|target| {
                    target.kind == "GatewayClass"
                        || (target.kind == "Gateway" && own == Some(&target.name))
                });
        }
        self.selected_by(policy.selector)
    }

    fn add_mutual_tls(
        &self,
        found: &mut Protection,
        skip: &BTreeSet<String>,
        notes: &mut Vec<Note>,
    ) {
        let mut mode = MutualTlsMode::Unset;
        let mut reason: Option<Meta> = None;
        for (policy, meta) in self.peer_authentications() {
            let own = policy
                .mtls
                .as_ref()
                .map(|mtls| mtls.mode)
                .unwrap_or_default();
            if mode == MutualTlsMode::Unset && own != MutualTlsMode::Unset {
                mode = own;
                reason = Some(meta.clone());
            }
            if policy.selector.is_some() {
                for (port, mtls) in &policy.port_level_mtls {
                    if let Ok(port) = port.parse::<u32>()
                        && mtls.mode != MutualTlsMode::Unset
                    {
                        found
                            .strict_ports
                            .entry(port)
                            .or_insert(mtls.mode == MutualTlsMode::Strict);
                        reason.get_or_insert_with(|| meta.clone());
                    }
                }
            }
        }
        found.strict = mode == MutualTlsMode::Strict;
        let any = found.strict || found.strict_ports.values().any(|strict| *strict);
        let Some(meta) = reason.filter(|_| any) else {
            return;
        };
        let name = format!("PeerAuthentication {}/{}", meta.namespace, meta.name);
        if skip.contains("PeerAuthentication") {
            found.strict = false;
            found.strict_ports.clear();
            notes.push(Note::ignored(
                &meta.origin,
                name,
                "mutual TLS is not demanded, as --insecure-skip says".to_owned(),
            ));
        } else {
            let text = "mutual TLS cannot be terminated yet, so the ports that demand it refuse all traffic";
            notes.push(Note::refusing(&meta.origin, name, text.to_owned()));
        }
    }

    /// Those that concern this proxy, the closest first: of the workload, of its namespace, of the mesh. One with a
    /// selector in the root namespace does not count, unless the workload is there.
    fn peer_authentications(&self) -> Vec<(&PeerAuthentication, Meta)> {
        let mut found: Vec<(u8, &PeerAuthentication, Meta)> = Vec::new();
        for object in &self.context.objects {
            let Spec::PeerAuthentication(policy) = &object.spec else {
                continue;
            };
            let own = *object.namespace == *self.proxy.namespace;
            let labels = policy
                .selector
                .as_ref()
                .map(|selector| &selector.match_labels)
                .filter(|labels| !labels.is_empty());
            let rank = match labels {
                Some(labels) if own && service_entry::selects(labels, &self.proxy.labels) => 0,
                None if own => 1,
                None if *object.namespace == *self.context.root_namespace() => 2,
                _ => continue,
            };
            found.push((rank, policy, Meta::of(object)));
        }
        found.sort_by(|a, b| (a.0, a.2.age()).cmp(&(b.0, b.2.age())));
        found
            .into_iter()
            .map(|(_, policy, meta)| (policy, meta))
            .collect()
    }
}
