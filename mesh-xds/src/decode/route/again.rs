//! A route configuration of which a part changed: virtual hosts whose bytes stay are taken over as they were decoded.

use std::collections::{HashMap, HashSet};

use bytes::Buf;
use envoy_types::pb::envoy::config::route::v3 as proto;
use mesh_core::model::{Name, Note, RouteConfiguration, VirtualHost};
use prost::{
    Message, Name as _,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use super::{max_body, virtual_host};
use crate::{
    decode::{Context, Decoded},
    json,
};

/// The number of the field `virtual_hosts`.
const HOSTS: u32 = 2;

/// The field as it stands in paths.
const FIELD: &str = "virtual_hosts";

/// A route configuration in force.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before<'b> {
    /// Its wire form.
    pub(crate) wire: &'b [u8],
    /// What that was decoded to.
    pub(crate) model: &'b RouteConfiguration,
    /// What there was to say of it.
    pub(crate) notes: &'b [Note],
}

/// The wire form of a route configuration, taken apart.
pub(crate) struct Parts<'w> {
    /// All but the virtual hosts.
    pub(crate) head: Vec<u8>,
    /// The wire form of each virtual host.
    pub(crate) hosts: Vec<&'w [u8]>,
}

impl<'w> Parts<'w> {
    /// `None` if the bytes are malformed.
    pub(crate) fn of(wire: &'w [u8]) -> Option<Self> {
        let (mut head, mut hosts) = (Vec::new(), Vec::new());
        let mut rest = wire;
        while rest.has_remaining() {
            let item = rest;
            let (number, kind) = decode_key(&mut rest).ok()?;
            if number == HOSTS && kind == WireType::LengthDelimited {
                let len = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                let (host, behind) = rest.split_at_checked(len)?;
                hosts.push(host);
                rest = behind;
            } else {
                skip_field(kind, number, &mut rest, DecodeContext::default()).ok()?;
                head.extend_from_slice(&item[..item.len() - rest.len()]);
            }
        }
        Some(Self { head, hosts })
    }

    /// The route configuration without its virtual hosts; `None` if it breaks the rules of the API.
    fn read_head(&self) -> Option<proto::RouteConfiguration> {
        json::check(&proto::RouteConfiguration::full_name(), &self.head).ok()?;
        proto::RouteConfiguration::decode(self.head.as_slice()).ok()
    }

    /// Appends a virtual host to the wire form of a route configuration.
    #[cfg(feature = "istio")]
    pub(crate) fn push(wire: &mut Vec<u8>, host: &[u8]) {
        prost::encoding::encode_key(HOSTS, WireType::LengthDelimited, wire);
        prost::encoding::encode_varint(host.len() as u64, wire);
        wire.extend_from_slice(host);
    }
}

/// Decodes what of `wire` is not as before. `None` if something is wrong, or may be now, so that the whole has to be decoded.
pub(crate) fn changed(wire: &[u8], before: Before<'_>) -> Option<Decoded<RouteConfiguration>> {
    let (old, new) = (Parts::of(before.wire)?, Parts::of(wire)?);
    let limit = max_body(&old.read_head()?);
    let head = new.read_head()?;
    // Bodies that were short enough may be too long now.
    if max_body(&head) != limit || old.hosts.len() != before.model.virtual_hosts.len() {
        return None;
    }
    // A note tells the place of its host, which may be another now.
    let noted: HashSet<&str> = before.notes.iter().filter_map(host_of).collect();
    let hosts = old.hosts.iter().zip(&before.model.virtual_hosts);
    let known: HashMap<&[u8], &VirtualHost> = (0..)
        .zip(hosts)
        .filter(|(index, _): &(usize, _)| {
            noted.is_empty() || !noted.contains(index.to_string().as_str())
        })
        .map(|(_, (wire, host))| (*wire, host))
        .collect();
    let name = Name::from(head.name.as_str());
    let mut cx = Context::new(format!("route configuration {name}"));
    let mut value = super::table(&mut cx, &head);
    value.virtual_hosts = cx.each(FIELD, &new.hosts, |cx, wire| match known.get(*wire) {
        Some(host) => Some((*host).clone()),
        None => host(cx, wire, limit),
    });
    let findings = cx.finish();
    let complete = value.virtual_hosts.len() == new.hosts.len();
    (complete && findings.rejections.is_empty()).then_some(Decoded {
        name,
        value: Some(value),
        findings,
    })
}

/// A virtual host by itself; `None` if it is wrong, which the decoder of the whole tells better.
fn host(cx: &mut Context, wire: &[u8], max_body: u32) -> Option<VirtualHost> {
    json::check(&proto::VirtualHost::full_name(), wire).ok()?;
    let value = proto::VirtualHost::decode(wire).ok()?;
    Some(virtual_host(cx, &value, max_body))
}

/// The index of the virtual host that a note is about.
fn host_of(note: &Note) -> Option<&str> {
    let below = note.path.strip_prefix(FIELD)?.strip_prefix('[')?;
    below.split_once(']').map(|(index, _)| index)
}
