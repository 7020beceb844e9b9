//! Listeners that are right by themselves and wrong beside the other resources.

use std::collections::HashMap;

use mesh_core::{
    config::{Change, Rejection},
    model::{Address, Listener, Name, RouteSource},
};

use super::{Kind, Round, references};

impl Round<'_> {
    /// Two listeners cannot be bound to one address: of those that are new or changed, the later is refused.
    pub(super) fn listeners_at_one_address(&mut self) {
        let changed: HashMap<&Name, usize> = self
            .changes
            .iter()
            .enumerate()
            .filter_map(|(index, change)| match change {
                Change::Listener(listener) => Some((&listener.name, index)),
                _ => None,
            })
            .collect();
        let mut all: Vec<&Listener> = self
            .state
            .listeners
            .entries
            .values()
            .filter(|entry| entry.seen && entry.model.bind_to_port)
            .map(|entry| &*entry.model)
            .collect();
        all.sort_by_key(|listener| changed.get(&listener.name).map_or(0, |index| index + 1));
        let mut bound: HashMap<&Address, &Name> = HashMap::new();
        let mut refused = Vec::new();
        for listener in all {
            let any_port =
                |address: &Address| matches!(address, Address::Socket(addr) if addr.port() == 0);
            let addresses =
                std::iter::once(&listener.address).chain(&listener.additional_addresses);
            for address in addresses.filter(|address| !any_port(address)) {
                let other = *bound.entry(address).or_insert(&listener.name);
                if *other != listener.name && changed.contains_key(&listener.name) {
                    refused.push((listener.name.clone(), address.clone(), other.clone()));
                    break;
                }
            }
        }
        for (name, address, other) in refused {
            let reason = format!("{address} is the address of listener {other:?} too");
            self.take_back(&name, "address", &reason);
        }
    }

    /// Refuses a listener after it was decoded; what it replaced is in force again. Each of its mistakes may ask for that.
    fn take_back(&mut self, name: &Name, path: &str, reason: &str) {
        let own = |change: &Change| matches!(change, Change::Listener(one) if one.name == *name);
        if let Some(index) = self.changes.iter().position(own) {
            self.changes.remove(index);
            self.state.listeners.restore(name);
        }
        let place = self.places.iter().find(|(one, _)| one == name);
        let place = place.map_or_else(String::new, |(_, place)| place.clone());
        let rejection = Rejection {
            resource: format!("listener {name}").into(),
            path: path.into(),
            reason: reason.into(),
            location: Name::from(""),
        };
        self.rejections.push((place, rejection));
    }

    /// An inline table that asks for it (`validate_clusters`) may name only clusters that exist; a listener that does
    /// not is refused, and what was in force before it stays. A cluster that was refused itself counts as existing: one
    /// mistake is one rejection.
    pub(super) fn listeners_with_unknown_clusters(&mut self) {
        let clusters = &self.state.clusters.entries;
        let exists = |name: &Name| {
            clusters.get(name).is_some_and(|entry| entry.seen)
                || self.refused.contains(&(Kind::Cluster, name.clone()))
        };
        let mut refused = Vec::new();
        for change in &self.changes {
            let Change::Listener(listener) = change else {
                continue;
            };
            for (chain, manager) in references::managers(listener) {
                let table = match &manager.routes {
                    RouteSource::Inline(table) if table.validate_clusters => table,
                    _ => continue,
                };
                let missing = references::validated(table, |name| !exists(name));
                if let Some((path, name)) = missing.into_iter().next() {
                    let manager = self.state.listeners.terminal(&listener.name, &chain);
                    let path = format!("{manager}.route_config.{path}");
                    refused.push((listener.name.clone(), path, name.clone()));
                }
            }
        }
        for (listener, path, cluster) in refused {
            self.take_back(&listener, &path, &format!("unknown cluster {cluster:?}"));
        }
    }
}
