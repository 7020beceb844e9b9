//! What is kept of a request for further attempts.

use std::{cell::RefCell, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

use crate::{
    body::RequestBody,
    cluster::{Cluster, Endpoint},
    layer::Carrier,
    model::Priority,
};

/// A request that can be made again.
pub trait Repeat: Carrier + Sized {
    /// What belongs to it besides the `http` request.
    type Rest;

    /// That.
    fn rest(&self) -> Self::Rest;

    /// The request for attempt number `attempt` (2 is the first retry), which avoids `tried`.
    fn again(
        rest: &Self::Rest,
        request: Request<Self::Body>,
        attempt: u32,
        tried: &[Arc<Endpoint>],
    ) -> Self;

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

    fn again(_rest: &(), request: Self, _attempt: u32, _tried: &[Arc<Endpoint>]) -> Self {
        request
    }
}

/// Heads that a thread keeps for further requests.
const POOLED: usize = 256;

/// Boxes are what goes in and out, so that futures hold one word.
mod pool_type {
    pub(super) type Pool = std::cell::RefCell<Vec<Box<super::Parts>>>;
}

thread_local! {
    static POOL: pool_type::Pool = const { RefCell::new(Vec::new()) };
}

/// A copy of a request head. The block is pooled by thread, so that a request allocates none.
#[derive(Debug)]
pub(super) struct SavedHead(Option<Box<Parts>>);

#[derive(Debug, Default)]
struct Parts {
    method: Method,
    uri: Uri,
    version: Version,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl SavedHead {
    /// Copies the head of `request`: references, no text.
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let mut parts = POOL.with_borrow_mut(Vec::pop).unwrap_or_default();
        parts.method = request.method().clone();
        parts.uri = request.uri().clone();
        parts.version = request.version();
        let headers = request.headers().iter();
        parts
            .headers
            .extend(headers.map(|(name, value)| (name.clone(), value.clone())));
        Self(Some(parts))
    }

    /// The head again, around `body`.
    pub(super) fn request<B>(&self, body: B) -> Request<B> {
        let mut request = Request::new(body);
        if let Some(parts) = &self.0 {
            *request.method_mut() = parts.method.clone();
            *request.uri_mut() = parts.uri.clone();
            *request.version_mut() = parts.version;
            let mut headers = HeaderMap::with_capacity(parts.headers.len());
            for (name, value) in &parts.headers {
                headers.append(name.clone(), value.clone());
            }
            *request.headers_mut() = headers;
        }
        request
    }
}

impl Drop for SavedHead {
    fn drop(&mut self) {
        if let Some(mut parts) = self.0.take() {
            parts.headers.clear();
            parts.uri = Uri::default();
            POOL.with_borrow_mut(|pool| {
                if pool.len() < POOLED {
                    pool.push(parts);
                }
            });
        }
    }
}
