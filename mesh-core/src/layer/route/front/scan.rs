//! One look over the names of a head, so that headers that are absent cost no look-up each.

use http::HeaderMap;

/// Which groups of headers a head has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scan(u8);

impl Scan {
    /// `x-envoy-*`.
    pub(super) const ENVOY: u8 = 1;
    /// Headers of the connection.
    pub(super) const CONNECTION: u8 = 1 << 1;
    /// A name with `_`.
    pub(super) const UNDERSCORE: u8 = 1 << 2;
    /// `upgrade`.
    pub(super) const UPGRADE: u8 = 1 << 3;
    /// `te`.
    pub(super) const TE: u8 = 1 << 4;
    /// `x-forwarded-client-cert`.
    pub(super) const CLIENT_CERT: u8 = 1 << 5;
    /// `expect`.
    pub(super) const EXPECT: u8 = 1 << 6;

    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut bits = 0;
        for name in headers.keys() {
            let name = name.as_str();
            bits |= match name.as_bytes()[0] {
                b'x' if name.starts_with("x-envoy-") => Self::ENVOY,
                b'x' if name == "x-forwarded-client-cert" => Self::CLIENT_CERT,
                b'c' if name == "connection" => Self::CONNECTION,
                b'e' if name == "expect" => Self::EXPECT,
                b'k' if name == "keep-alive" => Self::CONNECTION,
                b'p' if name == "proxy-connection" => Self::CONNECTION,
                b't' if name == "transfer-encoding" => Self::CONNECTION,
                b'u' if name == "upgrade" => Self::CONNECTION | Self::UPGRADE,
                b'h' if name == "http2-settings" => Self::CONNECTION,
                b't' if name == "te" => Self::TE,
                _ => 0,
            };
            if memchr::memchr(b'_', name.as_bytes()).is_some() {
                bits |= Self::UNDERSCORE;
            }
        }
        Self(bits)
    }

    pub(super) fn has(self, bits: u8) -> bool {
        self.0 & bits != 0
    }
}
