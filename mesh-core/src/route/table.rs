//! The compiled form of a route configuration and the decision that it makes.

use std::sync::Arc;

use http::StatusCode;

use super::{
    decision::{Decision, Forwarding, Redirection},
    entry::{Choice, EntryAction, ForwardEntry, HostEntry, RouteEntry},
    head::{Field, Head, Headers},
    host::HostTable,
    index::RuleSet,
    rewrite,
    tree::Tree,
};
use crate::{
    config::Rejection,
    model::{Action, Name, RequireTls, RouteConfiguration},
    snapshot::{Clusters, Stage},
};

/// A compiled route configuration.
#[derive(Debug, Default)]
pub struct RouteTable {
    pub(super) name: Name,
    pub(super) hosts: HostTable,
    pub(super) entries: Box<[Host]>,
    pub(super) ignore_port: bool,
    /// Selects the virtual host in the place of the authority.
    pub(super) host_field: Option<Field>,
    pub(super) internal_only: Box<[http::HeaderName]>,
}

/// A virtual host with its rules.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) entry: Arc<HostEntry>,
    pub(super) require_tls: RequireTls,
    pub(super) rules: Rules,
}

#[derive(Debug)]
pub(super) enum Rules {
    List(List),
    Tree(Tree, Vec<List>),
}

/// Rules and, at the same places, their routes.
#[derive(Debug)]
pub(super) struct List {
    pub(super) set: RuleSet,
    pub(super) routes: Box<[Arc<RouteEntry>]>,
}

impl List {
    fn decide<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> Option<Decision> {
        let mut from = 0;
        loop {
            let index = self.set.find(head, from)?;
            let decision = decide_route(&self.routes[index], head);
            if decision.is_some() {
                return decision;
            }
            // As in Envoy, a route whose arms have no share is passed over.
            from = index + 1;
        }
    }
}

impl RouteTable {
    /// A table without a route.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Compiles a route configuration; clusters are found in `clusters`, now or at run time.
    ///
    /// # Errors
    ///
    /// Every reason for which it is refused.
    pub fn compile(
        config: &RouteConfiguration,
        clusters: &Clusters,
    ) -> Result<Self, Vec<Rejection>> {
        super::compile::table(config, clusters, &[])
    }

    /// The same, where `stages` may understand settings of filters for which routes are else refused.
    pub(crate) fn staged(
        config: &RouteConfiguration,
        clusters: &Clusters,
        stages: &[Arc<dyn Stage>],
    ) -> Result<Self, Vec<Rejection>> {
        super::compile::table(config, clusters, stages)
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Headers that no one outside may set.
    pub fn internal_only_headers(&self) -> &[http::HeaderName] {
        &self.internal_only
    }

    /// All virtual hosts, in the order of the configuration.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<HostEntry>> {
        self.entries.iter().map(|host| &host.entry)
    }

    /// All routes, in the order of the configuration.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<RouteEntry>> {
        self.entries.iter().flat_map(|host| {
            let lists = match &host.rules {
                Rules::List(list) => std::slice::from_ref(list),
                Rules::Tree(_, lists) => lists,
            };
            lists.iter().flat_map(|list| &list.routes)
        })
    }

    /// The virtual host of a request.
    pub fn host<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> Option<&Arc<HostEntry>> {
        self.find_host(head).map(|host| &host.entry)
    }

    /// What to do with a request. A plain request costs no allocation.
    pub fn decide<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> Decision {
        let Some(host) = self.find_host(head) else {
            return Decision::NotFound(None);
        };
        if host.wants_tls(head) {
            return Decision::Redirect(Redirection {
                route: None,
                host: host.entry.clone(),
                status: StatusCode::MOVED_PERMANENTLY,
                location: rewrite::tls_location(head),
                path: None,
            });
        }
        host.decide(head)
            .unwrap_or_else(|| Decision::NotFound(Some(host.entry.clone())))
    }

    fn find_host<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> Option<&Host> {
        let index = match &self.host_field {
            None => self.hosts.find(head.authority, self.ignore_port),
            Some(field) => {
                let value = head.first(field).filter(|value| !value.is_empty());
                match value {
                    Some(value) => self.hosts.find(value, self.ignore_port),
                    None => self.hosts.find_none(),
                }
            }
        }?;
        self.entries.get(index as usize)
    }
}

impl Host {
    fn wants_tls<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> bool {
        match self.require_tls {
            RequireTls::None => false,
            RequireTls::All => head.forwarded_proto() != b"https",
            RequireTls::ExternalOnly => head.forwarded_proto() != b"https" && !head.is_internal(),
        }
    }

    fn decide<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> Option<Decision> {
        match &self.rules {
            Rules::List(list) => list.decide(head),
            Rules::Tree(tree, lists) => lists[tree.find(head)?].decide(head),
        }
    }
}

/// `None`: the runtime leaves no arm a share.
fn decide_route<H: Headers + ?Sized>(
    route: &Arc<RouteEntry>,
    head: &Head<'_, H>,
) -> Option<Decision> {
    Some(match &route.action {
        EntryAction::Forward(forward) => Decision::Forward(forward_to(route, forward, head)?),
        EntryAction::Redirect(to) => Decision::Redirect(Redirection {
            route: Some(route.clone()),
            host: route.host.clone(),
            status: to.status(),
            location: to.location(head),
            path: to.rewritten(head),
        }),
        EntryAction::Direct(_) => match &route.config.action {
            // Such an answer leads to the request's own URI.
            Action::DirectResponse(direct) if leads(direct.status) => {
                Decision::Redirect(Redirection {
                    route: Some(route.clone()),
                    host: route.host.clone(),
                    status: direct.status,
                    location: rewrite::own_uri(head),
                    path: None,
                })
            }
            _ => Decision::DirectResponse(route.clone()),
        },
        EntryAction::NonForwarding => Decision::NonForwarding(route.clone()),
    })
}

/// Whether an answer of this status has a `location`.
fn leads(status: StatusCode) -> bool {
    status.is_redirection() || status == StatusCode::CREATED
}

/// `None`: the runtime leaves no arm a share.
fn forward_to<H: Headers + ?Sized>(
    route: &Arc<RouteEntry>,
    forward: &ForwardEntry,
    head: &Head<'_, H>,
) -> Option<Forwarding> {
    let (arm, header) = match &forward.choice {
        Choice::Single => (0, None),
        Choice::Header(name, clusters) => (0, Some((name, clusters))),
        Choice::Weighted { clusters, .. } => {
            let arm = weighted(forward, head)?;
            let header = forward.arms[arm].header.as_ref();
            (arm, header.map(|name| (name, clusters)))
        }
    };
    let named = header.map(|(name, clusters)| {
        let value = head.first(name).unwrap_or_default();
        let name = String::from_utf8_lossy(value);
        let cluster = clusters.get(&name);
        Box::new((Name::from(name), cluster))
    });
    Some(Forwarding {
        route: route.clone(),
        arm: arm as u32,
        named,
    })
}

/// The arm whose share the random value falls into, if any has one.
fn weighted<H: Headers + ?Sized>(forward: &ForwardEntry, head: &Head<'_, H>) -> Option<usize> {
    let Choice::Weighted {
        total,
        runtime_prefix,
        random_header,
        ..
    } = &forward.choice
    else {
        return Some(0);
    };
    // Several values are none, for which to take would be chance.
    let from_header = random_header.as_ref().and_then(|name| {
        let value = head.headers.joined(name)?;
        std::str::from_utf8(&value).ok()?.trim_ascii().parse().ok()
    });
    let random: u64 = from_header.unwrap_or(head.random);
    let runtime = head.runtime.filter(|_| !runtime_prefix.is_empty());
    let weight = |index: usize| {
        let arm = &forward.arms[index];
        let configured = u64::from(arm.weight);
        runtime.map_or(configured, |runtime| {
            runtime.integer(&format!("{runtime_prefix}.{}", arm.name), configured)
        })
    };
    let total = match runtime {
        None => *total,
        Some(_) => (0..forward.arms.len()).map(weight).sum(),
    };
    let mut left = random.checked_rem(total)?;
    (0..forward.arms.len()).find(|index| {
        let share = weight(*index);
        let hit = left < share;
        left = left.saturating_sub(share);
        hit
    })
}
