//! The outbound route table of a call.

use std::sync::Arc;

use http::Request;

use crate::{
    Kind,
    layer::route::{CellTable, TableOf},
    model::Direction,
    route::{Head, RouteTable},
    snapshot::{Reader, RouteCell, Snapshot},
};

/// Finds the table as a sidecar without interception would: by the port that is called.
///
/// istiod names outbound tables by port (`9080`), or `host:port` where a host has one of its own. Without such a table those
/// of outbound listeners on the port count, at last all that are not inbound.
#[derive(Clone, Debug)]
pub struct PortTables {
    reader: Reader,
    generation: u64,
    ports: Vec<(u16, Vec<CellTable>)>,
}

/// Most ports that are remembered; beyond it the memory is begun anew.
const MAX_PORTS: usize = 64;

impl PortTables {
    /// Tables of the newest snapshot.
    pub fn new(reader: Reader) -> Self {
        Self {
            reader,
            generation: 0,
            ports: Vec::new(),
        }
    }
}

impl TableOf for PortTables {
    fn table<B>(&mut self, request: &Request<B>) -> Result<&Arc<RouteTable>, Kind> {
        let snapshot = self.reader.load();
        if snapshot.generation() == 0 {
            return Err(Kind::NotReady);
        }
        if snapshot.generation() != self.generation {
            self.generation = snapshot.generation();
            self.ports.clear();
        }
        let port = port(request);
        let index = match self.ports.iter().position(|(known, _)| *known == port) {
            Some(index) => index,
            None => {
                // Whoever names the hosts may name all ports there are.
                if self.ports.len() >= MAX_PORTS {
                    self.ports.clear();
                }
                let tables = candidates(snapshot, port).into_iter().map(CellTable::new);
                self.ports.push((port, tables.collect()));
                self.ports.len() - 1
            }
        };
        let tables = &mut self.ports[index].1;
        let chosen = if tables.len() > 1 {
            let head = Head::of(request);
            tables
                .iter_mut()
                .position(|table| table.load().host(&head).is_some())
                .unwrap_or(0)
        } else {
            0
        };
        let table = tables.get_mut(chosen).ok_or(Kind::NoRoute)?;
        Ok(table.load())
    }
}

/// The port that a request is for; without one, that of its scheme.
fn port<B>(request: &Request<B>) -> u16 {
    let uri = request.uri();
    let host = || {
        let host = request.headers().get(http::header::HOST)?.as_bytes();
        let colon = crate::route::host::port_start(host)?;
        str::from_utf8(&host[colon + 1..]).ok()?.parse().ok()
    };
    let scheme = if uri.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    uri.port_u16()
        .or_else(|| uri.authority().is_none().then(host)?)
        .unwrap_or(scheme)
}

fn candidates(snapshot: &Snapshot, port: u16) -> Vec<Arc<RouteCell>> {
    let name = port.to_string();
    let suffix = format!(":{port}");
    let routes = snapshot.routes();
    let mut found: Vec<_> = routes
        .iter()
        .filter(|(known, _)| known.ends_with(&suffix))
        .map(|(_, cell)| cell.clone())
        .collect();
    found.extend(routes.get(&*name).cloned());
    if found.is_empty() {
        found = of_listeners(snapshot, Some(port));
    }
    if found.is_empty() {
        let named = routes
            .iter()
            .filter(|(name, _)| !name.starts_with("inbound"));
        found = named.map(|(_, cell)| cell.clone()).collect();
        found.extend(of_listeners(snapshot, None));
    }
    found
}

fn of_listeners(snapshot: &Snapshot, port: Option<u16>) -> Vec<Arc<RouteCell>> {
    let outbound = snapshot.listeners().values().filter(|listener| {
        let config = listener.config();
        let own = config.address.socket().map(|address| address.port());
        config.direction != Direction::Inbound && (port.is_none() || own == port)
    });
    outbound
        .flat_map(|listener| listener.chains())
        .filter_map(|(_, http)| Some(http?.routes().clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{MemorySource, Update},
        snapshot::Mesh,
    };

    #[test]
    fn a_caller_of_all_ports_is_remembered_in_a_few() {
        let (source, _handle) = MemorySource::new();
        let (mesh, mut driver) = Mesh::builder().source(source).build();
        driver.apply(Update::default());
        let mut tables = PortTables::new(mesh.reader());
        for port in 1..1000 {
            let uri = format!("http://host:{port}/");
            let request = Request::get(uri).body(()).expect("a request");
            assert!(matches!(tables.table(&request), Err(Kind::NoRoute)));
            assert_eq!(tables.ports.last().map(|(known, _)| *known), Some(port));
            assert!(tables.ports.len() <= MAX_PORTS);
        }
    }
}
