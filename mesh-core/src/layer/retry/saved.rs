//! What is kept of a request for further attempts.

use std::{cell::RefCell, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

use crate::{
    body::RequestBody,
    cluster::{Cluster, Endpoint},
    layer::Carrier,
    model::Priority,
    telemetry::record::Record,
};

/// A request that can be made again.
pub trait Repeat: Carrier + Sized {
    /// What belongs to it besides the `http` request: route, record, cluster.
    type Rest;

    /// What belongs to this one, kept for the further attempts.
    fn rest(&self) -> Self::Rest;

    /// The record among what was kept; `None` outside a stack.
    fn record_of(_rest: &Self::Rest) -> Option<&Arc<Record>> {
        None
    }

    /// The request for the `next` attempt; `None`: there is nothing that it could go to.
    fn again(rest: &Self::Rest, request: Request<Self::Body>, next: &Next<'_>) -> Option<Self>;

    /// The limit of all attempts together, as its route and its headers have it.
    fn route_limit(&self) -> Option<Duration> {
        None
    }

    /// Its attempts have limits of their own, which begin when there is a connection.
    fn timed(&mut self) {}

    /// Whose limit or budget a retry counts against.
    fn budget(_rest: &Self::Rest) -> Option<(Arc<Cluster>, Priority)> {
        None
    }

    /// Whether its headers may ask for retries.
    fn asks(&self) -> bool {
        true
    }

    /// How often another endpoint is looked for to avoid one that was tried.
    fn avoid(&mut self, _host_attempts: u32) {}
}

impl<B> Repeat for Request<RequestBody<B>> {
    type Rest = ();

    fn rest(&self) {}

    fn again(_rest: &(), request: Self, _next: &Next<'_>) -> Option<Self> {
        Some(request)
    }
}

/// A further attempt.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Next<'a> {
    /// Its number; 2 is the first retry.
    pub attempt: u32,
    /// Endpoints to avoid.
    pub tried: &'a [Arc<Endpoint>],
    /// Its own limit.
    pub per_try: Option<Duration>,
    /// The attempt before took longer than it may.
    pub timed_out: bool,
}

/// Heads that a thread keeps for further requests.
const POOLED: usize = 256;
/// Bytes of text that such a head may have room for: a larger one does not stay.
const ROOM: usize = 16 << 10;

/// Boxes are what goes in and out, so that futures hold one word.
type Heads = RefCell<Vec<Box<Parts>>>;

thread_local! {
    static POOL: Heads = const { RefCell::new(Vec::new()) };
}

/// Longest value whose text is copied: below it a copy costs less than counting a reference twice.
const SHORT: usize = 256;

/// Why a part of a kept head is valid.
const BEFORE: &str = "it stood in the head before";

/// A copy of a request head. The block is pooled by thread, so that a request allocates none.
#[derive(Debug)]
pub(super) struct SavedHead(Option<Box<Parts>>);

#[derive(Debug, Default)]
struct Parts {
    method: Method,
    uri: Uri,
    version: Version,
    fields: Vec<Field>,
    /// The names and the short values, one after the other.
    text: Vec<u8>,
    /// The long values.
    long: Vec<HeaderValue>,
}

/// How long the next name and its value are in the text. Names are text too: their clones would have to be dropped one by one.
#[derive(Clone, Copy, Debug)]
struct Field {
    name: usize,
    /// `None`: the value is the next long one.
    value: Option<usize>,
    sensitive: bool,
}

impl SavedHead {
    /// Copies the head of `request`.
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let mut parts = POOL.with_borrow_mut(Vec::pop).unwrap_or_default();
        parts.method = request.method().clone();
        parts.uri = request.uri().clone();
        parts.version = request.version();
        for (name, value) in request.headers() {
            let name = name.as_str();
            parts.text.extend_from_slice(name.as_bytes());
            let short = value.len() <= SHORT;
            if short {
                parts.text.extend_from_slice(value.as_bytes());
            } else {
                parts.long.push(value.clone());
            }
            parts.fields.push(Field {
                name: name.len(),
                value: short.then_some(value.len()),
                sensitive: value.is_sensitive(),
            });
        }
        Self(Some(parts))
    }

    /// The head again, around `body`.
    pub(super) fn request<B>(&self, body: B) -> Request<B> {
        let mut request = Request::new(body);
        if let Some(parts) = &self.0 {
            *request.method_mut() = parts.method.clone();
            *request.uri_mut() = parts.uri.clone();
            *request.version_mut() = parts.version;
            *request.headers_mut() = parts.headers();
        }
        request
    }
}

impl Parts {
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(self.fields.len());
        let mut text = Bytes::copy_from_slice(&self.text);
        let mut long = self.long.iter();
        for field in &self.fields {
            let name = HeaderName::from_bytes(&text.split_to(field.name)).expect(BEFORE);
            let mut value = match field.value {
                Some(len) => HeaderValue::from_maybe_shared(text.split_to(len)).expect(BEFORE),
                None => long.next().expect(BEFORE).clone(),
            };
            value.set_sensitive(field.sensitive);
            headers.append(name, value);
        }
        headers
    }
}

impl Drop for SavedHead {
    fn drop(&mut self) {
        if let Some(mut parts) = self.0.take() {
            parts.fields.clear();
            parts.text.clear();
            parts.long.clear();
            parts.uri = Uri::default();
            // A thread that ends keeps nothing any more.
            let _ = POOL.try_with(|pool| {
                let mut pool = pool.borrow_mut();
                if pool.len() < POOLED && parts.text.capacity() <= ROOM {
                    pool.push(parts);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_head_gives_the_same_head_again() {
        let long = "l".repeat(SHORT + 1);
        let mut secret = HeaderValue::from_static("s");
        secret.set_sensitive(true);
        let mut request = Request::new(());
        *request.method_mut() = Method::PUT;
        *request.uri_mut() = Uri::from_static("http://a.test/x?y");
        for (name, value) in [
            ("x-two", HeaderValue::from_static("1")),
            (
                "cookie",
                HeaderValue::from_str(&long).expect("a valid value"),
            ),
            ("x-two", HeaderValue::from_static("2")),
            ("x-empty", HeaderValue::from_static("")),
            ("authorization", secret),
            (
                "x-latin",
                HeaderValue::from_bytes(b"\xe9").expect("a valid value"),
            ),
        ] {
            request.headers_mut().append(name, value);
        }
        // The second one is in the block of the first, of which nothing is left.
        for turn in ["a", "bc"] {
            let value = HeaderValue::from_static(turn);
            request.headers_mut().insert("x-turn", value);
            let saved = SavedHead::of(&request);
            for _ in 0..2 {
                let again = saved.request(());
                assert_eq!(again.method(), request.method());
                assert_eq!(again.uri(), request.uri());
                assert_eq!(again.headers(), request.headers());
                assert!(again.headers()["authorization"].is_sensitive());
            }
        }
    }
}
