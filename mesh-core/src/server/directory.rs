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
                let addr = match config.ipv4_compat {
                    true => SocketAddr::new(addr.ip().to_canonical(), addr.port()),
                    false => *addr,
                };
                known.insert(addr, listener.clone());
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
        let get = |ip: IpAddr| known.get(&SocketAddr::new(ip, addr.port()));
        let (v4, v6) = (Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into());
        let ip = addr.ip().to_canonical();
        let found = match ip {
            // A socket for any address of IPv6 may take those of IPv4 as well.
            IpAddr::V4(_) => get(ip)
                .or_else(|| get(v4))
                .or_else(|| get(v6).filter(|listener| listener.current().config().ipv4_compat)),
            IpAddr::V6(_) => get(ip).or_else(|| get(v6)),
        };
        found.cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, ListenerHandle>> {
        lock(&self.listeners)
    }
}
