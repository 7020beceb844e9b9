//! Which copies are made of a request.

use std::{sync::Arc, time::Duration};

use http::{Method, Request};

use crate::{
    cluster::Cluster,
    layer::{CONSUMED, Carrier, Routed, route::copied},
    model::Fraction,
    names::ATTEMPT_COUNT,
    route::{Field, Head, HeadMut},
    telemetry::{context::RecordContext, small_number},
};

/// The head of a copy, and where it goes.
#[derive(Clone, Debug)]
pub struct Shadow {
    /// The cluster; `None` outside a stack.
    pub cluster: Option<Arc<Cluster>>,
    /// The copy gives up after this.
    pub timeout: Option<Duration>,
    pub(super) head: Request<()>,
}

/// Says which copies are made.
pub trait MirrorsOf<R> {
    /// The copies; empty most often, and then without allocation.
    fn shadows(&self, request: &R) -> Vec<Shadow>;
}

/// A share of all requests is copied once, unchanged but for `-shadow` after the host.
#[derive(Clone, Copy, Debug)]
pub struct FixedMirrors {
    /// The share.
    pub share: Fraction,
    /// The copy gives up after this.
    pub timeout: Option<Duration>,
}

impl<R: Carrier> MirrorsOf<R> for FixedMirrors {
    fn shadows(&self, request: &R) -> Vec<Shadow> {
        if !self.share.hit(crate::world::random()) {
            return Vec::new();
        }
        let mut head = copy(request.request());
        append_shadow(&mut head);
        vec![Shadow {
            cluster: None,
            timeout: self.timeout,
            head,
        }]
    }
}

/// The mirrors of the request's route.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteMirrors {
    /// No `x-envoy-*` header of our own is added (`suppress_envoy_headers`).
    pub quiet: bool,
}

impl<B: 'static> MirrorsOf<Routed<B>> for RouteMirrors {
    fn shadows(&self, routed: &Routed<B>) -> Vec<Shadow> {
        let forward = routed.forwarding.forward();
        let mut shadows = Vec::new();
        // Nor are there copies of what has nowhere to go itself.
        let nowhere = || routed.cluster.endpoints().all().is_empty();
        if *routed.request.method() == Method::CONNECT || forward.mirrors().is_empty() || nowhere()
        {
            return shadows;
        }
        for mirror in forward.mirrors() {
            let mut head = Head::of(&*routed.request);
            head.random = crate::world::random();
            if !mirror.applies(&head) {
                continue;
            }
            let Some(cluster) = mirror.cluster(&head) else {
                continue;
            };
            // Each copy is what the upstream would see of the request, then what its own rule changes.
            let mut copy = self.sent(routed);
            let late = routed.record.late();
            let context = RecordContext::new(&routed.record, &late);
            mirror
                .request_mutations()
                .apply_request(&mut copy, &context);
            drop(late);
            let config = mirror.config();
            match &config.host_rewrite {
                Some(host) => copy.set_authority(host.as_bytes()),
                None if !config.keep_host => append_shadow(&mut copy),
                None => {}
            }
            let connection = routed.record.connection();
            copied(copy.headers_mut(), connection.map(|known| &**known));
            shadows.push(Shadow {
                cluster: Some(cluster),
                timeout: routed.forwarding.policies().timeouts().route,
                head: copy,
            });
        }
        shadows
    }
}

impl RouteMirrors {
    /// The head that the upstream will see.
    fn sent<B: 'static>(&self, routed: &Routed<B>) -> Request<()> {
        let forwarding = &routed.forwarding;
        let mut head = copy(&routed.request);
        let headers = head.headers_mut();
        let timeouts = forwarding.policies().timeouts();
        timeouts.tell_copy(headers, routed.scan, self.quiet);
        let host = forwarding.route().host().config();
        if host.include_request_attempt_count {
            headers.insert(ATTEMPT_COUNT, small_number(routed.attempt.into()));
        }
        let late = routed.record.late();
        let context = RecordContext::new(&routed.record, &late).before(routed.attempt);
        forwarding.finalize_request(&mut head, &context, !self.quiet);
        for name in &CONSUMED {
            head.headers_mut().remove(name);
        }
        head
    }
}

fn copy<B>(request: &Request<B>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.version_mut() = request.version();
    *head.headers_mut() = request.headers().clone();
    head
}

/// `host:port` becomes `host-shadow:port`.
fn append_shadow(head: &mut Request<()>) {
    let Some(authority) = head.field(&Field::Authority) else {
        return;
    };
    let at = crate::route::host::port_start(&authority).unwrap_or(authority.len());
    let shadow = [&authority[..at], b"-shadow", &authority[at..]].concat();
    head.set_authority(&shadow);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shadow_goes_between_host_and_port() {
        for (host, wanted) in [("a", "a-shadow"), ("a:80", "a-shadow:80")] {
            let mut head = Request::get("/")
                .header("host", host)
                .body(())
                .expect("a request");
            append_shadow(&mut head);
            assert_eq!(head.headers()["host"], wanted);
        }
    }
}
