//! Listeners by address: where a redirected connection is handed to (`use_original_dst`).

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Mutex, MutexGuard},
};

use super::ListenerHandle;
use crate::{model::Address, sync::lock};

/// The listeners of a program by address, those without a socket of their own included (`bind_to_port: false`).
#[derive(Debug, Default)]
pub(crate) struct Directory {
    listeners: Mutex<HashMap<SocketAddr, ListenerHandle>>,
}

impl Directory {
    /// Takes in a listener with all of its addresses, in place of those that had them.
    pub(super) fn add(&self, listener: &ListenerHandle) {
        let current = listener.current();
        let config = current.config();
        let mut known = self.lock();
        for address in std::iter::once(&config.address).chain(&config.additional_addresses) {
            if let Address::Socket(addr) = address {
                known.insert(*addr, listener.clone());
            }
        }
    }

    /// Forgets a listener.
    pub(super) fn remove(&self, listener: &ListenerHandle) {
        self.lock().retain(|_, known| !known.is(listener));
    }

    /// The listener of `addr`; else the one for any address on its port, as Envoy chooses.
    pub(super) fn find(&self, addr: SocketAddr) -> Option<ListenerHandle> {
        let known = self.lock();
        let any = match addr.ip().to_canonical() {
            IpAddr::V4(_) => [
                Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
                // A socket for any address of IPv6 takes those of IPv4 as well.
                Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
            ],
            IpAddr::V6(_) => [Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), None],
        };
        let wildcards = any.into_iter().flatten();
        let wildcards = wildcards.map(|ip| SocketAddr::new(ip, addr.port()));
        std::iter::once(addr)
            .chain(wildcards)
            .find_map(|addr| known.get(&addr).cloned())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, ListenerHandle>> {
        lock(&self.listeners)
    }
}
