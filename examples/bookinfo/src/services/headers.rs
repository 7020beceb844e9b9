//! Which headers a service hands on, so that its calls belong to the request that caused them.

use http::HeaderMap;

/// Trace contexts of all kinds, and what belongs to user and session.
const HANDED_ON: [&str; 21] = [
    "x-request-id",
    "x-ot-span-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "traceparent",
    "tracestate",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "sw8",
    "end-user",
    "user-agent",
    "cookie",
    "authorization",
    "jwt",
];

/// The headers of `from` that go on to the next service.
pub(super) fn handed_on(from: &HeaderMap) -> HeaderMap {
    let mut to = HeaderMap::new();
    for name in HANDED_ON {
        for value in from.get_all(name) {
            to.append(name, value.clone());
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn trace_and_session_go_on_and_nothing_else() {
        let mut from = HeaderMap::new();
        for name in [
            "traceparent",
            "end-user",
            "cookie",
            "accept",
            "host",
            "x-forwarded-for",
        ] {
            from.insert(name, HeaderValue::from_static("1"));
        }
        from.append("cookie", HeaderValue::from_static("2"));
        let to = handed_on(&from);
        let mut names: Vec<_> = to.keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["cookie", "end-user", "traceparent"]);
        assert_eq!(to.get_all("cookie").iter().count(), 2);
    }
}
