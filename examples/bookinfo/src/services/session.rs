//! Who is signed in: the cookie `session` holds the user's name, percent-encoded.
//!
//! Anybody may sign in as anybody, as in Istio's sample, so the cookie is not signed.

use http::{HeaderMap, HeaderValue, header};

const COOKIE: &str = "session";

/// The user of the request's session; none for an empty name.
pub(super) fn user(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .and_then(|(_, value)| decode(value))
        .filter(|user| !user.is_empty())
}

/// The `Set-Cookie` that signs a user in.
pub(super) fn sign_in(user: &str) -> HeaderValue {
    HeaderValue::try_from(format!("{COOKIE}={}; HttpOnly; Path=/", encode(user)))
        .expect("percent-encoded text is a header value")
}

/// The `Set-Cookie` that signs out.
pub(super) fn sign_out() -> HeaderValue {
    HeaderValue::from_static(
        "session=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; HttpOnly; Path=/",
    )
}

fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                write!(out, "%{byte:02X}").expect("writing to a String cannot fail");
            }
            out
        })
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::COOKIE,
            HeaderValue::try_from(value).expect("a header value"),
        );
        headers
    }

    #[test]
    fn a_name_comes_back_as_it_was() {
        for name in ["jason", "Zoë; Path=/x", "a=b%"] {
            let set = sign_in(name);
            let pair = set
                .to_str()
                .expect("visible ASCII")
                .split("; ")
                .next()
                .expect("a first part")
                .to_owned();
            assert_eq!(
                user(&cookies(&format!("a=1; {pair}"))).as_deref(),
                Some(name)
            );
        }
    }

    #[test]
    fn nobody_is_signed_in_by_a_broken_or_empty_cookie() {
        for value in [
            "session=",
            "session=%zz",
            "session=%",
            "session=%ff",
            "sessions=jason",
            "session",
        ] {
            assert_eq!(user(&cookies(value)), None, "{value}");
        }
    }
}
