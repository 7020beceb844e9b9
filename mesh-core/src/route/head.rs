//! The request as routing sees it: borrowed bytes, so that a foreign head need not fit `http::Uri`.

use std::{borrow::Cow, net::SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Request, header};

use crate::{
    model::{Fraction, Metadata, Name},
    names::{FORWARDED_PROTO, INTERNAL},
};

/// Request headers by name. Pseudo headers are not among them.
pub trait Headers {
    /// The first value of `name`.
    fn first_value(&self, name: &HeaderName) -> Option<&[u8]>;

    /// All values of `name`, joined by `,` if there are several. Borrows if there is one.
    fn joined(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>>;

    /// Whether `test` holds for one of the values of `name`; `None`: there is none.
    fn any(&self, name: &HeaderName, test: &mut dyn FnMut(&[u8]) -> bool) -> Option<bool>;
}

/// Whether `test` holds for one of `values`; `None`: there is none.
fn any<'a>(
    values: impl Iterator<Item = &'a [u8]>,
    test: &mut dyn FnMut(&[u8]) -> bool,
) -> Option<bool> {
    let mut values = values.peekable();
    values.peek()?;
    Some(values.any(test))
}

impl Headers for HeaderMap {
    fn first_value(&self, name: &HeaderName) -> Option<&[u8]> {
        self.get(name).map(|value| value.as_bytes())
    }

    fn joined(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        join(self.get_all(name).iter().map(|value| value.as_bytes()))
    }

    fn any(&self, name: &HeaderName, test: &mut dyn FnMut(&[u8]) -> bool) -> Option<bool> {
        any(self.get_all(name).iter().map(HeaderValue::as_bytes), test)
    }
}

impl<H: Headers + ?Sized> Headers for &H {
    fn first_value(&self, name: &HeaderName) -> Option<&[u8]> {
        (**self).first_value(name)
    }

    fn joined(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        (**self).joined(name)
    }

    fn any(&self, name: &HeaderName, test: &mut dyn FnMut(&[u8]) -> bool) -> Option<bool> {
        (**self).any(name, test)
    }
}

/// Names are compared without case.
impl<N: AsRef<[u8]>, V: AsRef<[u8]>> Headers for [(N, V)] {
    fn first_value(&self, name: &HeaderName) -> Option<&[u8]> {
        let wanted = name.as_str().as_bytes();
        self.iter()
            .find(|(name, _)| name.as_ref().eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.as_ref())
    }

    fn joined(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        let wanted = name.as_str().as_bytes();
        join(
            self.iter()
                .filter(|(name, _)| name.as_ref().eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value.as_ref()),
        )
    }

    fn any(&self, name: &HeaderName, test: &mut dyn FnMut(&[u8]) -> bool) -> Option<bool> {
        let wanted = name.as_str().as_bytes();
        let own = self
            .iter()
            .filter(|(name, _)| name.as_ref().eq_ignore_ascii_case(wanted));
        any(own.map(|(_, value)| value.as_ref()), test)
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> Headers for Vec<(N, V)> {
    fn first_value(&self, name: &HeaderName) -> Option<&[u8]> {
        self.as_slice().first_value(name)
    }

    fn joined(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        self.as_slice().joined(name)
    }

    fn any(&self, name: &HeaderName, test: &mut dyn FnMut(&[u8]) -> bool) -> Option<bool> {
        self.as_slice().any(name, test)
    }
}

fn join<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<Cow<'a, [u8]>> {
    let first = values.next()?;
    let Some(second) = values.next() else {
        return Some(Cow::Borrowed(first));
    };
    let mut all = first.to_vec();
    for value in std::iter::once(second).chain(values) {
        all.push(b',');
        all.extend_from_slice(value);
    }
    Some(Cow::Owned(all))
}

/// A header or pseudo header that a matcher or a formatter reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Field {
    /// `:method`.
    Method,
    /// `:scheme`.
    Scheme,
    /// `:authority`, also written `host`.
    Authority,
    /// `:path`, with the query.
    Path,
    /// `:protocol` of an extended CONNECT.
    Protocol,
    /// An ordinary header.
    Header(HeaderName),
    /// A pseudo header that no request has.
    Unknown(Name),
}

impl Field {
    /// Parses a name in any case; `None` if no header can have it.
    pub fn parse(name: &str) -> Option<Self> {
        if name.starts_with(':') {
            let name = name.to_ascii_lowercase();
            return Some(match name.as_str() {
                ":method" => Self::Method,
                ":scheme" => Self::Scheme,
                ":authority" => Self::Authority,
                ":path" => Self::Path,
                ":protocol" => Self::Protocol,
                _ => Self::Unknown(name.into()),
            });
        }
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some(Self::of(&name))
    }

    /// The field of an ordinary header; `host` is the authority.
    pub fn of(name: &HeaderName) -> Self {
        if *name == header::HOST {
            Self::Authority
        } else {
            Self::Header(name.clone())
        }
    }
}

/// What is known of the connection that a request came over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionFacts {
    /// The peer's address, as trusted (after PROXY protocol and `x-forwarded-for`).
    pub source: Option<SocketAddr>,
    /// The address that the connection itself came from.
    pub direct_source: Option<SocketAddr>,
    /// The address that it was made to.
    pub destination: Option<SocketAddr>,
    /// It came over TLS.
    pub tls: bool,
    /// TLS server name.
    pub server_name: Option<Name>,
    /// The peer showed a certificate.
    pub peer_certificate_presented: bool,
    /// The peer's certificate was verified.
    pub peer_certificate_validated: bool,
    /// The identity in it.
    pub peer_identity: Option<Name>,
}

impl ConnectionFacts {
    /// Nothing is known.
    pub const NONE: &'static Self = &Self {
        source: None,
        direct_source: None,
        destination: None,
        tls: false,
        server_name: None,
        peer_certificate_presented: false,
        peer_certificate_validated: false,
        peer_identity: None,
    };
}

/// Values that an operator may change while the program runs (Envoy's runtime).
pub trait Runtime: Send + Sync {
    /// The share under `key`, or `default`.
    fn fraction(&self, key: &str, default: Fraction) -> Fraction;

    /// The number under `key`, or `default`.
    fn integer(&self, key: &str, default: u64) -> u64;
}

/// A request head, borrowed.
pub struct Head<'a, H: ?Sized> {
    /// `GET`, …
    pub method: &'a [u8],
    /// `http` or `https`; empty if the request did not say, see [`Head::scheme`].
    pub scheme: &'a [u8],
    /// Host and port as sent; empty if there is none.
    pub authority: &'a [u8],
    /// Path with query; empty for a plain CONNECT.
    pub path: &'a [u8],
    /// `:protocol` of an extended CONNECT.
    pub protocol: Option<&'a [u8]>,
    /// The other headers.
    pub headers: &'a H,
    /// The connection.
    pub connection: &'a ConnectionFacts,
    /// Dynamic metadata of the request.
    pub metadata: Option<&'a Metadata>,
    /// Filter state of the request, by key.
    pub filter_state: Option<&'a Metadata>,
    /// Runtime values; `None`: the configured defaults.
    pub runtime: Option<&'a dyn Runtime>,
    /// The random value that decides shares.
    pub random: u64,
}

impl<'a, H: Headers + ?Sized> Head<'a, H> {
    /// A head without facts on its connection and with the random value 0.
    pub fn new(
        method: &'a [u8],
        scheme: &'a [u8],
        authority: &'a [u8],
        path: &'a [u8],
        headers: &'a H,
    ) -> Self {
        Self {
            method,
            scheme,
            authority,
            path,
            protocol: None,
            headers,
            connection: ConnectionFacts::NONE,
            metadata: None,
            filter_state: None,
            runtime: None,
            random: 0,
        }
    }

    /// The same head with its headers in another form.
    pub(crate) fn with_headers<'b, G: ?Sized>(&self, headers: &'b G) -> Head<'b, G>
    where
        'a: 'b,
    {
        Head {
            method: self.method,
            scheme: self.scheme,
            authority: self.authority,
            path: self.path,
            protocol: self.protocol,
            headers,
            connection: self.connection,
            metadata: self.metadata,
            filter_state: self.filter_state,
            runtime: self.runtime,
            random: self.random,
        }
    }

    /// The value of `field`; several values of a header are joined by `,`.
    pub fn field(&self, field: &Field) -> Option<Cow<'a, [u8]>> {
        match field {
            Field::Header(name) => self.headers.joined(name),
            _ => self.pseudo(field).map(Cow::Borrowed),
        }
    }

    /// The first value of `field`.
    pub fn first(&self, field: &Field) -> Option<&'a [u8]> {
        match field {
            Field::Header(name) => self.headers.first_value(name),
            _ => self.pseudo(field),
        }
    }

    fn pseudo(&self, field: &Field) -> Option<&'a [u8]> {
        let present = |value: &'a [u8]| (!value.is_empty()).then_some(value);
        match field {
            Field::Method => present(self.method),
            Field::Scheme => present(self.scheme()),
            Field::Authority => present(self.authority),
            Field::Path => present(self.path),
            Field::Protocol => self.protocol,
            Field::Header(_) | Field::Unknown(_) => None,
        }
    }

    /// The scheme; where the request did not say, as in HTTP/1, a valid `x-forwarded-proto`, else `http`.
    pub fn scheme(&self) -> &'a [u8] {
        if !self.scheme.is_empty() {
            return self.scheme;
        }
        match self.sent_proto() {
            Some(proto) if proto.eq_ignore_ascii_case(b"https") => b"https",
            _ => b"http",
        }
    }

    /// `x-forwarded-proto`, of which several are nothing that anybody could trust.
    fn sent_proto(&self) -> Option<&'a [u8]> {
        match self.headers.joined(&FORWARDED_PROTO)? {
            Cow::Borrowed(proto) => Some(proto),
            Cow::Owned(_) => Some(b""),
        }
    }

    /// The scheme that the client used, as far as it is trusted: `x-forwarded-proto`, else the scheme.
    pub fn forwarded_proto(&self) -> &'a [u8] {
        self.sent_proto().unwrap_or(self.scheme())
    }

    /// Whether the request comes from inside (`x-envoy-internal: true`).
    pub fn is_internal(&self) -> bool {
        self.headers.first_value(&INTERNAL) == Some(b"true")
    }

    /// Whether this is CONNECT, plain or extended.
    pub fn is_connect(&self) -> bool {
        self.method == b"CONNECT"
    }

    /// Whether there is no path at all, which only a plain CONNECT may have.
    pub fn is_pathless(&self) -> bool {
        self.path.is_empty() && self.is_connect()
    }

    /// The path up to the query or the fragment.
    pub fn path_only(&self) -> &'a [u8] {
        super::path::without_query(self.path)
    }

    /// A share, as the runtime has it.
    pub(crate) fn hit(&self, share: &crate::model::RuntimeFraction) -> bool {
        let fraction = match self.runtime {
            Some(runtime) if !share.key.is_empty() => runtime.fraction(&share.key, share.default),
            _ => share.default,
        };
        fraction.hit(self.random)
    }
}

impl<'a> Head<'a, HeaderMap> {
    /// The head of an `http` request. The authority is the URI's, else the header `host`.
    pub fn of<B>(request: &'a Request<B>) -> Self {
        let uri = request.uri();
        let authority = match uri.authority() {
            Some(authority) => authority.as_str().as_bytes(),
            None => request
                .headers()
                .first_value(&header::HOST)
                .unwrap_or_default(),
        };
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        Self::new(
            request.method().as_str().as_bytes(),
            uri.scheme_str().unwrap_or_default().as_bytes(),
            authority,
            path.as_bytes(),
            request.headers(),
        )
    }
}

impl<H: ?Sized> Clone for Head<'_, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H: ?Sized> Copy for Head<'_, H> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_values_are_joined_and_names_have_no_case() {
        let list = [("Accept", "a"), ("x", "1"), ("accept", "b")];
        assert_eq!(list[..].first_value(&header::ACCEPT), Some(&b"a"[..]));
        assert_eq!(
            list[..].joined(&header::ACCEPT).as_deref(),
            Some(&b"a,b"[..])
        );
        assert_eq!(list[..].joined(&header::HOST), None);
    }

    #[test]
    fn several_forwarded_schemes_are_none() {
        let mut headers = HeaderMap::new();
        let append = |headers: &mut HeaderMap| {
            headers.append(FORWARDED_PROTO, HeaderValue::from_static("https"));
        };
        append(&mut headers);
        let head = Head::new(b"GET", b"", b"a", b"/", &headers);
        assert_eq!(
            (head.scheme(), head.forwarded_proto()),
            (&b"https"[..], &b"https"[..])
        );
        let mut headers = headers.clone();
        append(&mut headers);
        let head = Head::new(b"GET", b"", b"a", b"/", &headers);
        assert_eq!(
            (head.scheme(), head.forwarded_proto()),
            (&b"http"[..], &b""[..])
        );
    }

    #[test]
    fn host_is_the_authority() {
        assert_eq!(Field::parse("Host"), Some(Field::Authority));
        assert_eq!(Field::parse(":PATH"), Some(Field::Path));
        assert_eq!(
            Field::parse(":cookie"),
            Some(Field::Unknown(":cookie".into()))
        );
        assert_eq!(Field::parse("a b"), None);
    }
}
