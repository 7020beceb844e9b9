//! Which requests a log or a reply mapper takes.

use crate::{
    model::{Comparison, Fraction, LogFilter, LogType, Name},
    route::{HeaderTest, MetadataTest, format::FormatContext},
    telemetry::{
        context::RecordContext,
        record::{Late, Wants},
    },
};

/// A compiled [`LogFilter`].
#[derive(Debug)]
pub(crate) enum FilterRules {
    NotHealthCheck,
    Status(Comparison, u32),
    Duration(Comparison, u32),
    Share(Fraction),
    Header(HeaderTest),
    Flags(Vec<Name>),
    Grpc(Vec<u32>, bool),
    Type(Vec<LogType>, bool),
    /// What passes where there is no such metadata, besides the test.
    Metadata(Option<Box<MetadataTest>>, bool),
    And(Vec<FilterRules>),
    Or(Vec<FilterRules>),
    Traced,
}

impl FilterRules {
    /// Compiles a filter; the error is a name that no header can have.
    pub(crate) fn new(filter: &LogFilter) -> Result<Self, Name> {
        let all =
            |filters: &[LogFilter]| filters.iter().map(Self::new).collect::<Result<Vec<_>, _>>();
        Ok(match filter {
            LogFilter::Status(comparison, value) => Self::Status(*comparison, *value),
            LogFilter::Duration(comparison, value) => Self::Duration(*comparison, *value),
            LogFilter::NotHealthCheck => Self::NotHealthCheck,
            LogFilter::Traceable => Self::Traced,
            LogFilter::Runtime(share) => Self::Share(share.default),
            LogFilter::Header(matcher) => {
                Self::Header(HeaderTest::new(matcher).ok_or_else(|| matcher.name.clone())?)
            }
            LogFilter::ResponseFlag(names) => Self::Flags(names.clone()),
            LogFilter::GrpcStatus(codes, exclude) => Self::Grpc(codes.clone(), *exclude),
            LogFilter::Type(types, exclude) => Self::Type(types.clone(), *exclude),
            LogFilter::Metadata(matcher, absent) => {
                let test = matcher.as_deref().map(MetadataTest::new);
                Self::Metadata(test.map(Box::new), *absent)
            }
            LogFilter::And(filters) => Self::And(all(filters)?),
            LogFilter::Or(filters) => Self::Or(all(filters)?),
        })
    }

    /// Adds what the filter reads.
    pub(crate) fn add_wants(&self, wants: &mut Wants) {
        match self {
            Self::Header(test) => match test.field() {
                crate::route::Field::Header(name) => super::add(&mut wants.request, name),
                _ => wants.head = true,
            },
            Self::And(all) | Self::Or(all) => all.iter().for_each(|one| one.add_wants(wants)),
            Self::Traced => super::add(
                &mut wants.request,
                &crate::telemetry::request_id::X_REQUEST_ID,
            ),
            _ => {}
        }
    }

    /// Whether a request passes.
    pub(crate) fn passes(&self, context: &RecordContext<'_>, late: &Late) -> bool {
        match self {
            Self::NotHealthCheck => !late.is_health_check(),
            Self::Status(comparison, value) => compare(*comparison, late.status.into(), *value),
            Self::Duration(comparison, value) => {
                let millis = u32::try_from(late.duration.as_millis()).unwrap_or(u32::MAX);
                compare(*comparison, millis, *value)
            }
            Self::Share(share) => share.hit(crate::world::random()),
            Self::Header(test) => context.passes(test),
            Self::Flags(names) if names.is_empty() => !late.flags.is_empty(),
            Self::Flags(names) => late
                .flags
                .iter()
                .any(|flag| names.iter().any(|name| **name == *flag.short())),
            Self::Grpc(codes, exclude) => {
                let status = late
                    .grpc_status
                    .unwrap_or_else(|| from_http(late.status).into());
                codes.contains(&status) != *exclude
            }
            Self::Type(types, exclude) => types.contains(&late.log_type) != *exclude,
            Self::Metadata(test, absent) => test
                .as_ref()
                .and_then(|test| test.value(late.dynamic.as_deref()))
                .unwrap_or(*absent),
            Self::And(all) => all.iter().all(|one| one.passes(context, late)),
            Self::Or(any) => any.iter().any(|one| one.passes(context, late)),
            Self::Traced => {
                let name = crate::telemetry::request_id::X_REQUEST_ID;
                let id = context.request_header(&crate::route::Field::Header(name));
                // The version digit tells why; `4` means that it is not traced.
                id.is_some_and(|id| matches!(id.get(14), Some(b'9' | b'a' | b'b')))
            }
        }
    }
}

fn compare(comparison: Comparison, value: u32, with: u32) -> bool {
    match comparison {
        Comparison::Eq => value == with,
        Comparison::Ge => value >= with,
        Comparison::Le => value <= with,
        Comparison::Ne => value != with,
    }
}

/// The gRPC status that an HTTP status stands for (gRPC's own table). One that says nothing of gRPC is unknown, also 200.
pub(crate) fn from_http(status: u16) -> u8 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}
