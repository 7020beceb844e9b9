//! The services that a proxy imports, each host once.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Registry, Service};

/// Services by host, in the order in which they were added.
#[derive(Default)]
pub(super) struct Imported {
    pub(super) services: Vec<Arc<Service>>,
    /// Places in `services`.
    pub(super) by_host: HashMap<String, usize>,
}

impl Imported {
    /// Adds a service, or its ports to the same service with other ports.
    pub(super) fn add(&mut self, service: &Arc<Service>) {
        let Some(place) = self.by_host.get(&service.hostname) else {
            self.by_host
                .insert(service.hostname.clone(), self.services.len());
            self.services.push(service.clone());
            return;
        };
        let known = &mut self.services[*place];
        let kube = |service: &Service| service.registry == Registry::Kubernetes;
        if !kube(known) && kube(service) {
            *known = service.clone();
            return;
        }
        let same = kube(known) == kube(service)
            && known.namespace == service.namespace
            && known.resolution == service.resolution
            && known.labels == service.labels
            && known.selector == service.selector
            && known.export_to == service.export_to;
        if !same || known.ports == service.ports {
            return;
        }
        let merged = Arc::make_mut(known);
        for port in &service.ports {
            if merged.port(port.port).is_none() {
                merged.ports.push(port.clone());
            }
        }
    }
}
