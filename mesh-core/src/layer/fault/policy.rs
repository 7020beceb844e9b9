//! Which fault a request meets.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};

use crate::{
    Error, Kind,
    model::{AbortWith, Fault, Fraction},
    route::{FaultRules, Head},
    telemetry::{metrics::FaultStats, record::Record},
};

const DELAY: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request");
const DELAY_SHARE: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request-percentage");
const ABORT: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request");
const ABORT_GRPC: HeaderName = HeaderName::from_static("x-envoy-fault-abort-grpc-request");
const ABORT_SHARE: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request-percentage");
const THROUGHPUT: HeaderName = HeaderName::from_static("x-envoy-fault-throughput-response");
const THROUGHPUT_SHARE: HeaderName =
    HeaderName::from_static("x-envoy-fault-throughput-response-percentage");
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

/// How many faults act now, and acted so far, for the filters that share statistics. Cloning shares.
#[derive(Clone, Debug, Default)]
pub struct ActiveFaults(Arc<FaultStats>);

/// A request with a fault that acts; it counts as one, whatever it meets.
#[derive(Debug)]
pub(crate) struct Active(Arc<FaultStats>);

impl ActiveFaults {
    /// Counts in `stats`.
    pub fn new(stats: Arc<FaultStats>) -> Self {
        Self(stats)
    }

    /// What is counted.
    pub fn stats(&self) -> &FaultStats {
        &self.0
    }

    /// Whether a fault may act; the request then counts in `active`. The limit is as fuzzy as Envoy's.
    fn begin(&self, active: &mut Option<Active>, most: Option<u32>) -> bool {
        if active.is_some() {
            return true;
        }
        let now = self.0.active_faults.get();
        if most.is_some_and(|most| now >= u64::from(most)) {
            self.0.faults_overflow.add(1);
            return false;
        }
        self.0.active_faults.add(1);
        *active = Some(Active(self.0.clone()));
        true
    }
}

impl Active {
    pub(super) fn stats(&self) -> &FaultStats {
        &self.0
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active_faults.sub(1);
    }
}

/// What a request meets.
#[derive(Debug)]
pub(crate) struct Meeting {
    pub(crate) delay: Option<Duration>,
    pub(super) abort: Option<Error>,
    /// KiB of the response a second.
    pub(super) rate: Option<u64>,
    /// It counts as active until the request ends, rather than until its delay ends.
    pub(super) lasts: bool,
    pub(super) active: Active,
}

impl Meeting {
    /// What follows the delay of a request that goes no further: the fault's answer, or a limit for the speed of the other.
    pub(crate) fn reply(self, record: Option<&Record>) -> Result<(), Error> {
        let Self {
            abort,
            rate,
            lasts,
            active,
            ..
        } = self;
        if let Some(error) = abort {
            active.stats().aborts_injected.add(1);
            return Err(error);
        }
        if let Some(record) = record.filter(|_| lasts) {
            record.late().on_reply().pace = Some((rate, active));
        }
        Ok(())
    }
}

/// The fault that `request` meets; `None` most often.
pub(crate) fn meet<B>(
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
    draw(config, headers, faults)
}

/// Which faults act: response rate, delay, abort, in this order.
fn draw(config: &Fault, headers: &HeaderMap, faults: &ActiveFaults) -> Option<Meeting> {
    let (most, mut active) = (config.max_active_faults, None);
    let rate = config.response_rate_limit.as_ref().and_then(|limit| {
        let rate = match limit.kibps {
            Some(fixed) => Some(fixed),
            None => number(headers, THROUGHPUT).filter(|rate| *rate > 0),
        };
        let by_header = limit.kibps.is_none();
        let share = lowered(limit.percentage, headers, THROUGHPUT_SHARE, by_header);
        rate.filter(|_| share.hit(crate::world::random()) && faults.begin(&mut active, most))
    });
    let delay = config.delay.as_ref().and_then(|delay| {
        let wait = match delay.fixed {
            Some(fixed) => Some(fixed),
            None => number(headers, DELAY).map(Duration::from_millis),
        };
        let by_header = delay.fixed.is_none();
        let share = lowered(delay.percentage, headers, DELAY_SHARE, by_header);
        wait.filter(|wait| {
            !wait.is_zero() && share.hit(crate::world::random()) && faults.begin(&mut active, most)
        })
    });
    let abort = config.abort.as_ref().and_then(|abort| {
        let by_header = abort.with == AbortWith::Header;
        let share = lowered(abort.percentage, headers, ABORT_SHARE, by_header);
        abort_with(&abort.with, headers)
            .filter(|_| share.hit(crate::world::random()) && faults.begin(&mut active, most))
    });
    let active = active?;
    let stats = active.stats();
    stats.response_rl_injected.add(u64::from(rate.is_some()));
    stats.delays_injected.add(u64::from(delay.is_some()));
    Some(Meeting {
        delay,
        abort,
        rate,
        // Envoy asks whether there is a limit, not whether it acts on this request.
        lasts: config.response_rate_limit.is_some(),
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
                .filter(|status| (200..600).contains(&status.as_u16()));
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
