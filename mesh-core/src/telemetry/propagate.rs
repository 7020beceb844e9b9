//! Trace context of requests: W3C `traceparent` and Zipkin's B3, read and written.
//!
//! Without a tracer the mesh leaves the headers as they are, which is what keeps a trace together; these functions serve
//! programs that make spans, and clients that begin traces.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::scratch;

/// W3C trace context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// W3C trace state, passed on as it is.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// B3 in one header.
pub const B3: HeaderName = HeaderName::from_static("b3");
/// B3, trace id.
pub const X_B3_TRACEID: HeaderName = HeaderName::from_static("x-b3-traceid");
/// B3, span id.
pub const X_B3_SPANID: HeaderName = HeaderName::from_static("x-b3-spanid");
/// B3, parent.
pub const X_B3_PARENTSPANID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
/// B3, decision.
pub const X_B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
/// B3, debug.
pub const X_B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// Headers that an application passes on from the request that it serves to those that it makes, as Istio asks it to.
pub const PROPAGATED: [HeaderName; 11] = [
    HeaderName::from_static("x-request-id"),
    TRACEPARENT,
    TRACESTATE,
    B3,
    X_B3_TRACEID,
    X_B3_SPANID,
    X_B3_PARENTSPANID,
    X_B3_SAMPLED,
    X_B3_FLAGS,
    HeaderName::from_static("x-ot-span-context"),
    HeaderName::from_static("x-cloud-trace-context"),
];

/// Where a request stands in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace, never zero.
    pub trace: u128,
    /// The span that made the request, never zero.
    pub span: u64,
    /// Whether it is recorded; `None`: not decided (B3 only).
    pub sampled: Option<bool>,
}

impl TraceContext {
    /// A new trace.
    pub fn begin(sampled: bool) -> Self {
        Self {
            trace: crate::world::random::<u128>().max(1),
            span: crate::world::random::<u64>().max(1),
            sampled: Some(sampled),
        }
    }

    /// A span below this one.
    #[must_use]
    pub fn child(self) -> Self {
        Self {
            span: crate::world::random::<u64>().max(1),
            ..self
        }
    }

    /// Reads `traceparent`, else `b3`, else `x-b3-*`. What is malformed counts as absent.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        Self::read_w3c(headers)
            .or_else(|| Self::read_b3(headers))
            .or_else(|| Self::read_b3_multi(headers))
    }

    fn read_w3c(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(TRACEPARENT)?.to_str().ok()?;
        let mut parts = text.split('-');
        let version = digits(parts.next()?, 2)?;
        let trace = digits(parts.next()?, 32)?;
        let span = digits(parts.next()?, 16)? as u64;
        let flags = digits(parts.next()?, 2)?;
        // Version 0 has four parts; a later one may have more. 255 is forbidden.
        let known = version == 0 && parts.next().is_none() || (1..255).contains(&version);
        (known && trace != 0 && span != 0).then_some(Self {
            trace,
            span,
            sampled: Some(flags & 1 == 1),
        })
    }

    fn read_b3(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(B3)?.to_str().ok()?;
        let mut parts = text.split('-');
        let trace = trace_id(parts.next()?)?;
        let span = digits(parts.next()?, 16)? as u64;
        let sampled = match parts.next() {
            Some("1" | "d") => Some(true),
            Some("0") => Some(false),
            _ => None,
        };
        (span != 0).then_some(Self {
            trace,
            span,
            sampled,
        })
    }

    fn read_b3_multi(headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name)?.to_str().ok();
        let trace = trace_id(text(X_B3_TRACEID)?)?;
        let span = digits(text(X_B3_SPANID)?, 16)? as u64;
        let sampled = match (text(X_B3_FLAGS), text(X_B3_SAMPLED)) {
            (Some("1"), _) | (_, Some("1" | "true")) => Some(true),
            (_, Some("0" | "false")) => Some(false),
            _ => None,
        };
        (span != 0).then_some(Self {
            trace,
            span,
            sampled,
        })
    }

    /// Writes `traceparent`.
    pub fn write_w3c(&self, headers: &mut HeaderMap) {
        let flags = u8::from(self.sampled == Some(true));
        let text = format_args!("00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span);
        if let Some(value) = scratch::display_value(text) {
            headers.insert(TRACEPARENT, value);
        }
    }

    /// Writes `b3`.
    pub fn write_b3_single(&self, headers: &mut HeaderMap) {
        let sampled = match self.sampled {
            Some(true) => "-1",
            Some(false) => "-0",
            None => "",
        };
        let text = format!("{:032x}-{:016x}{sampled}", self.trace, self.span);
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(B3, value);
        }
    }

    /// Writes `x-b3-*`.
    pub fn write_b3(&self, headers: &mut HeaderMap) {
        for (name, text) in [
            (X_B3_TRACEID, format_args!("{:032x}", self.trace)),
            (X_B3_SPANID, format_args!("{:016x}", self.span)),
        ] {
            if let Some(value) = scratch::display_value(text) {
                headers.insert(name, value);
            }
        }
        if let Some(sampled) = self.sampled {
            let value = if sampled { "1" } else { "0" };
            headers.insert(X_B3_SAMPLED, HeaderValue::from_static(value));
        }
    }
}

/// Exactly `length` lower-case hexadecimal digits.
fn digits(text: &str, length: usize) -> Option<u128> {
    let lower = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    (text.len() == length && lower)
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
}

/// 64 or 128 bits, not zero.
fn trace_id(text: &str) -> Option<u128> {
    digits(text, 32)
        .or_else(|| digits(text, 16))
        .filter(|trace| *trace != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn w3c_is_read_and_written() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = TraceContext::read(&headers(&[("traceparent", text)])).expect("valid");
        assert_eq!(context.sampled, Some(true));
        let mut out = HeaderMap::new();
        context.write_w3c(&mut out);
        assert_eq!(out[TRACEPARENT], text);
        for bad in [
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-é",
        ] {
            let mut map = HeaderMap::new();
            map.insert(
                TRACEPARENT,
                HeaderValue::from_bytes(bad.as_bytes()).expect("bytes"),
            );
            assert_eq!(TraceContext::read(&map), None, "{bad}");
        }
    }

    #[test]
    fn b3_is_read_in_both_forms() {
        let one = TraceContext::read(&headers(&[("b3", "80f198ee56343ba8-e457b5a2e4d86bd1-d")]));
        let many = TraceContext::read(&headers(&[
            ("x-b3-traceid", "80f198ee56343ba8"),
            ("x-b3-spanid", "e457b5a2e4d86bd1"),
            ("x-b3-sampled", "1"),
        ]));
        assert_eq!(one, many);
        let mut out = HeaderMap::new();
        one.expect("valid").write_b3(&mut out);
        assert_eq!(out[X_B3_SPANID], "e457b5a2e4d86bd1");
    }

    #[test]
    fn what_is_written_is_read_again_in_every_form() {
        for sampled in [Some(true), Some(false), None] {
            let context = TraceContext {
                sampled,
                ..TraceContext::begin(true)
            };
            let mut single = HeaderMap::new();
            context.write_b3_single(&mut single);
            assert_eq!(single.len(), 1);
            let mut multi = HeaderMap::new();
            context.write_b3(&mut multi);
            for headers in [single, multi] {
                assert_eq!(TraceContext::read(&headers), Some(context), "{headers:?}");
            }
        }
    }
}
