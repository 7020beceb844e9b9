//! One look over the names of a head, so that headers that are absent cost no look-up each.

use http::HeaderMap;

/// Which groups of headers a head has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan(u16);

impl Scan {
    /// `x-envoy-*`.
    pub(crate) const ENVOY: u16 = 1;
    /// Headers of the connection.
    pub(crate) const CONNECTION: u16 = 1 << 1;
    /// `x-forwarded-for`.
    pub(crate) const FORWARDED_FOR: u16 = 1 << 2;
    /// `upgrade`.
    pub(crate) const UPGRADE: u16 = 1 << 3;
    /// `te`.
    pub(crate) const TE: u16 = 1 << 4;
    /// `x-forwarded-client-cert`.
    pub(crate) const CLIENT_CERT: u16 = 1 << 5;
    /// `expect`.
    pub(crate) const EXPECT: u16 = 1 << 6;
    /// `x-forwarded-proto`.
    pub(crate) const FORWARDED_PROTO: u16 = 1 << 7;
    /// `x-request-id`.
    pub(crate) const REQUEST_ID: u16 = 1 << 8;
    /// `grpc-timeout`.
    pub(crate) const GRPC_TIMEOUT: u16 = 1 << 9;
    /// `cookie`.
    pub(crate) const COOKIE: u16 = 1 << 10;
    /// `content-type`.
    pub(crate) const CONTENT_TYPE: u16 = 1 << 11;
    /// `referer`.
    pub(crate) const REFERER: u16 = 1 << 12;
    /// The port of a CONNECT was taken off.
    #[cfg(feature = "net")]
    pub(crate) const CONNECT_PORT: u16 = 1 << 13;

    /// Of a head that was not looked at: it may have everything.
    pub const UNKNOWN: Self = Self(u16::MAX);

    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut bits = 0;
        for name in headers.keys() {
            let name = name.as_str();
            bits |= match name.as_bytes()[0] {
                b'x' if name.starts_with("x-envoy-") => Self::ENVOY,
                b'x' if name == "x-request-id" => Self::REQUEST_ID,
                b'x' if name == "x-forwarded-for" => Self::FORWARDED_FOR,
                b'x' if name == "x-forwarded-proto" => Self::FORWARDED_PROTO,
                b'x' if name == "x-forwarded-client-cert" => Self::CLIENT_CERT,
                b'g' if name == "grpc-timeout" => Self::GRPC_TIMEOUT,
                b'c' if name == "connection" => Self::CONNECTION,
                b'c' if name == "cookie" => Self::COOKIE,
                b'c' if name == "content-type" => Self::CONTENT_TYPE,
                b'e' if name == "expect" => Self::EXPECT,
                b'k' if name == "keep-alive" => Self::CONNECTION,
                b'p' if name == "proxy-connection" => Self::CONNECTION,
                b'r' if name == "referer" => Self::REFERER,
                b't' if name == "transfer-encoding" => Self::CONNECTION,
                b'u' if name == "upgrade" => Self::CONNECTION | Self::UPGRADE,
                b'h' if name == "http2-settings" => Self::CONNECTION,
                b't' if name == "te" => Self::TE,
                _ => 0,
            };
        }
        Self(bits)
    }

    pub(crate) fn add(&mut self, bits: u16) {
        self.0 |= bits;
    }

    pub(crate) fn has(self, bits: u16) -> bool {
        self.0 & bits != 0
    }
}
