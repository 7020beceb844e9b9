//! Which fault a request meets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};

use crate::{
    Error, Kind,
    model::{AbortWith, Fraction},
    route::{FaultRules, Head},
};

const DELAY: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request");
const DELAY_SHARE: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request-percentage");
const ABORT: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request");
const ABORT_GRPC: HeaderName = HeaderName::from_static("x-envoy-fault-abort-grpc-request");
const ABORT_SHARE: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request-percentage");
const NODE: HeaderName = HeaderName::from_static("x-envoy-downstream-service-node");

/// Finds the fault for a request.
pub trait FaultOf<R> {
    /// The rules, if there are any.
    fn rules<'a>(&'a self, request: &'a R) -> Option<&'a FaultRules>;

    /// Name of the request's cluster, for rules that hold for one only.
    fn cluster<'a>(&'a self, _request: &'a R) -> Option<&'a str> {
        None
    }
}

/// How many faults act now, process-wide for one filter. Cloning shares.
#[derive(Clone, Debug, Default)]
pub struct ActiveFaults(Arc<AtomicU32>);

/// One that acts.
#[derive(Debug)]
pub(super) struct Active(ActiveFaults);

impl ActiveFaults {
    fn begin(&self, most: Option<u32>) -> Option<Active> {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        let active = Active(self.clone());
        most.is_none_or(|most| before < most).then_some(active)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a request meets.
#[derive(Debug)]
pub(super) struct Meeting {
    pub(super) delay: Option<Duration>,
    pub(super) abort: Option<Error>,
    pub(super) active: Active,
}

/// The fault that `request` meets; `None` most often.
pub(super) fn meet<B>(
    rules: &FaultRules,
    request: &Request<B>,
    cluster: Option<&str>,
    faults: &ActiveFaults,
) -> Option<Meeting> {
    let config = &rules.config;
    if !config.upstream_cluster.is_empty() && cluster != Some(&config.upstream_cluster) {
        return None;
    }
    let headers = request.headers();
    let nodes = &config.downstream_nodes;
    if !nodes.is_empty() {
        let node = headers.get(NODE).map(HeaderValue::as_bytes);
        if !nodes.iter().any(|wanted| Some(wanted.as_bytes()) == node) {
            return None;
        }
    }
    if !rules.headers.is_empty() {
        let head = Head::of(request);
        if !rules.headers.iter().all(|test| test.matches(&head)) {
            return None;
        }
    }
    let delay = config.delay.as_ref().and_then(|delay| {
        let wait = match delay.fixed {
            Some(fixed) => Some(fixed),
            None => number(headers, DELAY).map(Duration::from_millis),
        };
        let share = lowered(
            delay.percentage,
            headers,
            DELAY_SHARE,
            delay.fixed.is_none(),
        );
        wait.filter(|wait| !wait.is_zero() && share.hit(rand::random()))
    });
    let abort = config.abort.as_ref().and_then(|abort| {
        let by_header = abort.with == AbortWith::Header;
        let share = lowered(abort.percentage, headers, ABORT_SHARE, by_header);
        abort_with(&abort.with, headers).filter(|_| share.hit(rand::random()))
    });
    if delay.is_none() && abort.is_none() {
        return None;
    }
    // Over the limit the fault is not injected, as in Envoy.
    let active = faults.begin(config.max_active_faults)?;
    Some(Meeting {
        delay,
        abort,
        active,
    })
}

fn abort_with(with: &AbortWith, headers: &HeaderMap) -> Option<Error> {
    let error = Error::new(Kind::FaultAbort);
    Some(match with {
        AbortWith::Http(status) => error.with_status(*status),
        AbortWith::Grpc(code) => grpc(error, *code),
        AbortWith::Header => {
            let status = number(headers, ABORT)
                .and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok())
                .filter(|status| status.as_u16() >= 200);
            match status {
                Some(status) => error.with_status(status),
                None => grpc(error, u32::try_from(number(headers, ABORT_GRPC)?).ok()?),
            }
        }
    })
}

fn grpc(error: Error, code: u32) -> Error {
    error
        .with_status(StatusCode::OK)
        .with_grpc(u8::try_from(code).unwrap_or(u8::MAX))
}

/// A share that a header may lower, where the fault is driven by headers.
fn lowered(share: Fraction, headers: &HeaderMap, name: HeaderName, by_header: bool) -> Fraction {
    let asked = by_header.then(|| number(headers, name)).flatten();
    match asked.and_then(|asked| u32::try_from(asked).ok()) {
        Some(numerator) => Fraction {
            numerator: numerator.min(share.numerator),
            ..share
        },
        None => share,
    }
}

fn number(headers: &HeaderMap, name: HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}
