//! Fault injection (`extensions.filters.http.fault.v3.HTTPFault`).

use envoy_types::pb::envoy::{
    extensions::filters::{
        common::fault::v3::{
            FaultDelay as ProtoDelay, FaultRateLimit as ProtoLimit,
            fault_delay::FaultDelaySecifier, fault_rate_limit::LimitType,
        },
        http::fault::v3::{FaultAbort as ProtoAbort, HttpFault, fault_abort::ErrorType},
    },
    r#type::v3::FractionalPercent,
};
use http::StatusCode;
use mesh_core::model::{AbortWith, Fault, FaultAbort, FaultDelay, FaultRateLimit, Fraction};

use crate::decode::{Context, common, matcher, set::ignored};

/// The faults of a filter or an override.
pub(super) fn fault(cx: &mut Context, value: &HttpFault) -> Option<Fault> {
    let HttpFault {
        delay,
        abort,
        upstream_cluster,
        headers,
        downstream_nodes,
        max_active_faults,
        response_rate_limit,
        delay_percent_runtime,
        abort_percent_runtime,
        delay_duration_runtime,
        abort_http_status_runtime,
        max_active_faults_runtime,
        response_rate_limit_percent_runtime,
        abort_grpc_status_runtime,
        disable_downstream_cluster_stats,
        filter_metadata,
    } = value;
    ignored!(cx; delay_percent_runtime, abort_percent_runtime, delay_duration_runtime, abort_http_status_runtime,
        max_active_faults_runtime, response_rate_limit_percent_runtime, abort_grpc_status_runtime,
        disable_downstream_cluster_stats, filter_metadata);
    Some(Fault {
        delay: match delay {
            Some(delay) => Some(cx.field("delay", |cx| self::delay(cx, delay))?),
            None => None,
        },
        abort: match abort {
            Some(abort) => Some(cx.field("abort", |cx| self::abort(cx, abort))?),
            None => None,
        },
        headers: cx.each("headers", headers, matcher::header),
        upstream_cluster: upstream_cluster.as_str().into(),
        downstream_nodes: downstream_nodes
            .iter()
            .map(|node| node.as_str().into())
            .collect(),
        max_active_faults: common::u32_of(max_active_faults.as_ref()),
        response_rate_limit: match response_rate_limit {
            Some(limit) => Some(cx.field("response_rate_limit", |cx| rate_limit(cx, limit))?),
            None => None,
        },
    })
}

/// Without a percentage nothing is hit, as in Envoy.
fn percentage(value: Option<&FractionalPercent>) -> Fraction {
    value.map_or(Fraction::NEVER, common::fraction)
}

fn delay(cx: &mut Context, value: &ProtoDelay) -> Option<FaultDelay> {
    let fixed = match &value.fault_delay_secifier {
        Some(FaultDelaySecifier::FixedDelay(delay)) => {
            Some(common::duration(cx, "fixed_delay", delay)?)
        }
        Some(FaultDelaySecifier::HeaderDelay(_)) => None,
        None => {
            cx.reject("", "one of fixed_delay, header_delay must be set");
            return None;
        }
    };
    Some(FaultDelay {
        fixed,
        percentage: percentage(value.percentage.as_ref()),
    })
}

fn abort(cx: &mut Context, value: &ProtoAbort) -> Option<FaultAbort> {
    let ProtoAbort {
        percentage,
        response_body,
        error_type,
    } = value;
    ignored!(cx; response_body);
    let with = match error_type {
        Some(ErrorType::HttpStatus(code)) => {
            let status = u16::try_from(*code).ok();
            let status = status.and_then(|code| StatusCode::from_u16(code).ok());
            match status.filter(|status| status.as_u16() >= 200 && status.as_u16() < 600) {
                Some(status) => AbortWith::Http(status),
                None => {
                    cx.reject("http_status", format_args!("{code} is not in 200 to 599"));
                    return None;
                }
            }
        }
        Some(ErrorType::GrpcStatus(code)) => AbortWith::Grpc(*code),
        Some(ErrorType::HeaderAbort(_)) => AbortWith::Header,
        None => {
            cx.reject(
                "",
                "one of http_status, grpc_status, header_abort must be set",
            );
            return None;
        }
    };
    Some(FaultAbort {
        with,
        percentage: self::percentage(percentage.as_ref()),
    })
}

fn rate_limit(cx: &mut Context, value: &ProtoLimit) -> Option<FaultRateLimit> {
    let kibps = match &value.limit_type {
        Some(LimitType::FixedLimit(limit)) if limit.limit_kbps == 0 => {
            cx.reject("fixed_limit.limit_kbps", "must be at least 1");
            return None;
        }
        Some(LimitType::FixedLimit(limit)) => Some(limit.limit_kbps),
        Some(LimitType::HeaderLimit(_)) => None,
        None => {
            cx.reject("", "one of fixed_limit, header_limit must be set");
            return None;
        }
    };
    Some(FaultRateLimit {
        kibps,
        percentage: percentage(value.percentage.as_ref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Findings;

    fn decode(text: &str) -> (Option<Fault>, Findings) {
        let name = "envoy.extensions.filters.http.fault.v3.HTTPFault";
        let message: HttpFault = crate::json::from_str(name, text).expect("a fault");
        let mut cx = Context::new("filter fault");
        (fault(&mut cx, &message), cx.finish())
    }

    #[test]
    fn a_rate_limit_acts_and_needs_a_rate() {
        let (fault, findings) = decode(
            r#"{"max_active_faults":3,"response_rate_limit":{"fixed_limit":{"limit_kbps":8},"percentage":{"numerator":50}}}"#,
        );
        assert_eq!(findings, Findings::default());
        let fault = fault.expect("accepted");
        assert_eq!(fault.max_active_faults, Some(3));
        let limit = fault.response_rate_limit.expect("a limit");
        assert_eq!((limit.kibps, limit.percentage.numerator), (Some(8), 50));
        let (fault, findings) =
            decode(r#"{"response_rate_limit":{"header_limit":{},"percentage":{"numerator":50}}}"#);
        assert_eq!(findings, Findings::default());
        let limit = fault.expect("accepted").response_rate_limit;
        assert_eq!(limit.expect("a limit").kibps, None);
        let (_, findings) = decode(r#"{"response_rate_limit":{"fixed_limit":{"limit_kbps":0}}}"#);
        assert_eq!(
            &*findings.rejections[0].path,
            "response_rate_limit.fixed_limit.limit_kbps"
        );
    }

    #[test]
    fn what_does_not_act_is_listed() {
        let (_, findings) = decode(
            r#"{"delay_percent_runtime":"x","abort":{"http_status":500,"response_body":"x"}}"#,
        );
        let paths: Vec<&str> = findings.notes.iter().map(|note| &*note.path).collect();
        assert_eq!(paths, ["delay_percent_runtime", "abort.response_body"]);
    }
}
