//! CORS and faults for requests that go no further than the routing: redirects, direct responses, no route, no cluster.
//!
//! Envoy's filters stand ahead of its router, so they meet every request. What goes on meets them as layers; what is answered
//! here meets them in this file. CORS acts for routes that send requests on only, as in Envoy.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Response};

use super::{Answer, Front};
use crate::{
    Error, Kind,
    layer::{
        Exchange,
        cors::{Acts, Marks, Verdict, judge},
        fault::{ActiveFaults, Meeting, RouteFaults, meet},
    },
    route::{Forwarding, RouteEntry},
    telemetry::{clock, flags::Flag, metrics::CorsStats, record::Record},
    transport::Deadline,
};

/// The filters ahead of the router.
#[derive(Debug)]
pub(crate) struct Ahead {
    pub(crate) cors: Acts,
    pub(crate) cors_stats: Option<Arc<CorsStats>>,
    pub(crate) faults: RouteFaults,
    pub(crate) active: ActiveFaults,
}

/// What a request would have met behind the filters.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// A route to a cluster that is not there.
    Forward(&'a Forwarding),
    /// An answer of the route's own, or no route.
    Own(Option<&'a RouteEntry>),
}

/// What a request met of the filters.
pub(super) enum Met {
    /// Its preflight is answered.
    Preflight(HeaderMap),
    /// It goes on.
    Past {
        marks: Option<Marks>,
        meeting: Option<Meeting>,
    },
}

/// What follows for a request that goes no further.
pub(super) enum Own {
    /// This answer.
    Answer(Answer),
    /// This answer of a filter, which no `local_reply_config` changes.
    Preflight(Box<Response<Bytes>>),
    /// An answer, once a fault lets it go.
    Held(Box<Held>),
}

/// An answer that a fault holds back.
pub(super) struct Held {
    until: Option<Deadline>,
    meeting: Meeting,
    answer: Answer,
    record: Arc<Record>,
}

impl Front {
    /// What a request that is answered here meets of the filters; `None`: the listener has none that could act.
    pub(super) fn meet<B: 'static>(&self, exchange: &Exchange<B>, place: Place<'_>) -> Option<Met> {
        let ahead = self.ahead()?;
        let request = &exchange.request;
        let (route, cluster) = match place {
            Place::Forward(forwarding) => (Some(&**forwarding.route()), Some(forwarding)),
            Place::Own(route) => (route, None),
        };
        let policy = cluster.and_then(|forwarding| forwarding.cors());
        let policy = policy.filter(|policy| ahead.cors.on(policy));
        let judge = |policy: &Arc<_>| judge(policy, request, ahead.cors_stats.as_deref());
        let marks = match policy.map_or(Verdict::Pass, judge) {
            Verdict::Pass => None,
            Verdict::Mark(marks) => Some(marks),
            Verdict::Preflight(headers) => return Some(Met::Preflight(headers)),
        };
        let rules = match cluster {
            Some(forwarding) => ahead.faults.rules(|name| forwarding.filter(name)),
            None => ahead
                .faults
                .rules(|name| route.and_then(|route| route.filter(name))),
        };
        let cluster = cluster.map(|forwarding| &**forwarding.cluster_name());
        let meeting = rules.and_then(|rules| meet(rules, request, cluster, &ahead.active));
        Some(Met::Past { marks, meeting })
    }
}

impl Own {
    /// What follows for a request whose answer is `answer`, after what it met of the filters.
    pub(super) fn new(record: &Arc<Record>, met: Option<Met>, answer: Answer) -> Self {
        match met {
            None => Self::Answer(answer),
            Some(Met::Preflight(headers)) => {
                record.late().details = Some("cors_response".into());
                let mut response = Response::new(Bytes::new());
                *response.headers_mut() = headers;
                Self::Preflight(Box::new(response))
            }
            Some(Met::Past { marks, meeting }) => {
                if let Some(marks) = marks {
                    record.late().on_reply().marks = Some(Box::new(marks));
                }
                match meeting {
                    None => Self::Answer(answer),
                    Some(meeting) => Self::held(record, meeting, answer),
                }
            }
        }
    }

    fn held(record: &Arc<Record>, meeting: Meeting, answer: Answer) -> Self {
        if meeting.delay.is_some() {
            record.flag(Flag::DelayInjected);
        }
        Self::Held(Box::new(Held {
            until: meeting
                .delay
                .map(|delay| record.deadline(clock::after(clock::now(), delay))),
            meeting,
            answer,
            record: record.clone(),
        }))
    }
}

impl Held {
    /// Ready after the delay, with what follows.
    pub(super) fn poll(
        held: &mut Option<Box<Self>>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(Arc<Record>, Answer), Error>> {
        if let Some(until) = held.as_mut().and_then(|held| held.until.as_mut()) {
            ready!(Pin::new(until).poll(context));
        }
        Poll::Ready(match held.take() {
            Some(held) => held.go_on(),
            None => Err(Kind::Internal.into()),
        })
    }

    /// What follows the delay.
    fn go_on(self) -> Result<(Arc<Record>, Answer), Error> {
        let Self {
            meeting,
            answer,
            record,
            ..
        } = self;
        meeting.reply(Some(&record))?;
        Ok((record, answer))
    }
}
