//! What a table decided about a request, and what follows for its head and its response.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION},
};

use super::{
    counted::Counted,
    entry::{
        Arm, CorsPolicy, FilterSetting, ForwardEntry, HostEntry, RouteEntry, direct_body,
        find_filter,
    },
    format::FormatContext,
    head::{Field, Head, Headers},
    mutate::{HeadMut, LiveRequest},
    rewrite,
};
use crate::{
    cluster::Cluster,
    model::{Action, Name},
    names::ORIGINAL_PATH,
    scratch,
    telemetry::record::Wants,
};

/// What to do with a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Decision {
    /// Send it to a cluster.
    Forward(Forwarding),
    /// Answer with a redirect.
    Redirect(Redirection),
    /// Answer as the route says.
    DirectResponse(Arc<RouteEntry>),
    /// Go on to the wrapped application.
    NonForwarding(Arc<RouteEntry>),
    /// No route matches: 404. The virtual host, if one was found.
    NotFound(Option<Arc<HostEntry>>),
}

impl Decision {
    /// The route, if one matched.
    pub fn route(&self) -> Option<&Arc<RouteEntry>> {
        match self {
            Self::Forward(forwarding) => Some(&forwarding.route),
            Self::Redirect(redirection) => redirection.route.as_ref(),
            Self::DirectResponse(route) | Self::NonForwarding(route) => Some(route),
            Self::NotFound(_) => None,
        }
    }

    /// The virtual host, if one was found.
    pub fn host(&self) -> Option<&Arc<HostEntry>> {
        match self {
            Self::Redirect(redirection) => Some(&redirection.host),
            Self::NotFound(host) => host.as_ref(),
            _ => self.route().map(|route| &route.host),
        }
    }
}

/// A route and the arm of it that a request takes.
#[derive(Clone, Debug)]
pub struct Forwarding {
    pub(super) route: Arc<RouteEntry>,
    pub(super) arm: u32,
    /// What a header named, and whether there is such a cluster.
    pub(super) named: Option<Box<(Name, Option<Arc<Cluster>>)>>,
}

impl Forwarding {
    /// The route.
    pub fn route(&self) -> &Arc<RouteEntry> {
        &self.route
    }

    /// What the layers compile of the route.
    pub fn policies(&self) -> &crate::layer::RoutePolicies {
        self.forward()
            .policies
            .get_or_init(|| crate::layer::RoutePolicies::new(self))
    }

    /// How the route sends requests on.
    pub fn forward(&self) -> &ForwardEntry {
        self.route
            .forward()
            .expect("only routes that forward make a forwarding")
    }

    /// The arm.
    pub fn arm(&self) -> &Arm {
        &self.forward().arms[self.arm as usize]
    }

    /// The arm's place among the arms.
    pub fn arm_index(&self) -> usize {
        self.arm as usize
    }

    /// Name of the cluster, whether there is one or not.
    pub fn cluster_name(&self) -> &Name {
        match &self.named {
            Some(named) => &named.0,
            None => &self.arm().name,
        }
    }

    /// The cluster; `None`: answer with [`ForwardEntry::config`]`().cluster_not_found_status`.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        match &self.named {
            Some(named) => named.1.as_ref(),
            None => self.arm().cluster.as_ref(),
        }
    }

    /// The statistics of its own that a request counts in, if there are any.
    pub(crate) fn counted<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> Option<Box<Counted>> {
        Counted::new(&self.route, head)
    }

    /// Settings of the filter `name`: the arm's, else the route's, the virtual host's, the table's.
    pub fn filter(&self, name: &str) -> Option<&FilterSetting> {
        find_filter(&self.arm().filters, name).or_else(|| self.route.filter(name))
    }

    /// CORS, as the arm, the route, its virtual host and the table say it together.
    pub fn cors(&self) -> Option<&Arc<CorsPolicy>> {
        self.arm().cors.as_ref()
    }

    /// Whether [`Forwarding::finalize_request`] would change nothing, so that it need not be called.
    pub fn is_plain(&self) -> bool {
        self.arm().plain
    }

    /// Makes the head that the upstream sees, as Envoy's router does: headers, then host, then path.
    ///
    /// With `keep_original` the old path and host are kept in `x-envoy-original-path` and `x-envoy-original-host`
    /// (Envoy: unless `suppress_envoy_headers`).
    pub fn finalize_request<T: HeadMut, C: FormatContext + ?Sized>(
        &self,
        head: &mut T,
        context: &C,
        keep_original: bool,
    ) {
        let arm = self.arm();
        if arm.plain {
            return;
        }
        arm.request.apply_request(head, context);
        self.change_host(head, context, keep_original);
        if let Some(change) = &self.forward().path {
            let old = scratch::bytes(&head.field(&Field::Path).unwrap_or_default());
            let changed = scratch::with_buffer(|new| {
                let live = LiveRequest {
                    head,
                    rest: context,
                };
                let changed = change.apply(&old, &live, new);
                if changed {
                    head.set_path(new);
                }
                changed
            });
            if changed
                && keep_original
                && let Ok(value) = HeaderValue::from_maybe_shared(old)
            {
                head.set(ORIGINAL_PATH, value);
            }
        }
    }

    /// The arm's host comes first and is not kept as original; then the route's, which finds the arm's.
    fn change_host<T: HeadMut, C: FormatContext + ?Sized>(
        &self,
        head: &mut T,
        context: &C,
        keep_original: bool,
    ) {
        if let Some(host) = &self.arm().host {
            head.set_authority(host);
        }
        let forward = self.forward();
        let Some(change) = &forward.host else {
            return;
        };
        let live = LiveRequest {
            head,
            rest: context,
        };
        if let Some(host) = change.apply(&live) {
            set_authority(
                head,
                &host,
                forward.config.append_x_forwarded_host,
                keep_original,
            );
        }
    }

    /// Makes the endpoint's host name the authority, if the route asks for it (`auto_host_rewrite`).
    pub fn rewrite_host_for_endpoint<T: HeadMut>(
        &self,
        head: &mut T,
        hostname: &str,
        keep_original: bool,
    ) {
        let forward = self.forward();
        if forward.auto_host_rewrite() && !hostname.is_empty() {
            let append = forward.config.append_x_forwarded_host;
            set_authority(head, hostname.as_bytes(), append, keep_original);
        }
    }

    /// Changes the headers of the response on its way down.
    pub fn finalize_response<C: FormatContext + ?Sized>(
        &self,
        headers: &mut HeaderMap,
        context: &C,
    ) {
        self.arm().response.apply_response(headers, context);
    }

    /// What [`Forwarding::finalize_response`] reads of the request's head.
    pub(crate) fn response_reads(&self) -> Option<&Arc<Wants>> {
        self.arm().response.reads()
    }

    /// Whether [`Forwarding::finalize_response`] would change nothing.
    pub fn is_response_plain(&self) -> bool {
        self.arm().response.is_empty()
    }
}

/// Sets the authority and keeps the old one where it is asked for.
fn set_authority<T: HeadMut>(head: &mut T, new: &[u8], append_forwarded: bool, keep: bool) {
    let old = scratch::bytes(&head.field(&Field::Authority).unwrap_or_default());
    if append_forwarded && !old.is_empty() {
        let known = head.field(&Field::Header(X_FORWARDED_HOST));
        let known = known.unwrap_or_default().into_owned();
        let last = known
            .rsplit(|byte| *byte == b',')
            .find(|host| !host.is_empty());
        if last != Some(&old[..]) {
            let value = scratch::with_buffer(|all| {
                all.extend_from_slice(&known);
                if !known.is_empty() {
                    all.push(b',');
                }
                all.extend_from_slice(&old);
                scratch::header_value(all)
            });
            if let Some(value) = value {
                head.set(X_FORWARDED_HOST, value);
            }
        }
    }
    if keep && let Ok(value) = HeaderValue::from_maybe_shared(old) {
        head.set(X_ENVOY_ORIGINAL_HOST, value);
    }
    head.set_authority(new);
}

/// An answer that sends the client elsewhere.
#[derive(Clone, Debug)]
pub struct Redirection {
    pub(super) route: Option<Arc<RouteEntry>>,
    pub(super) host: Arc<HostEntry>,
    pub(super) status: StatusCode,
    pub(super) location: Vec<u8>,
    pub(super) path: Option<Vec<u8>>,
}

impl Redirection {
    /// The route that redirects; `None` where the virtual host does (`require_tls`).
    pub fn route(&self) -> Option<&Arc<RouteEntry>> {
        self.route.as_ref()
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Where to.
    pub fn location(&self) -> &[u8] {
        &self.location
    }

    /// The path in the place of the request's, which formats and logs read: Envoy rewrites it where the redirect rewrites one.
    pub(crate) fn path(&self) -> Option<&[u8]> {
        self.path.as_deref()
    }

    /// The response. A location that no header can hold is left out.
    pub fn response<C: FormatContext + ?Sized>(&self, context: &C) -> Response<Bytes> {
        let mut response = match &self.route {
            Some(route) => route.unchanged_response(context, false),
            None => Response::default(),
        };
        *response.status_mut() = self.status;
        if let Ok(location) = HeaderValue::from_bytes(&self.location) {
            response.headers_mut().insert(LOCATION, location);
        }
        if let Some(route) = &self.route {
            route
                .response
                .apply_response(response.headers_mut(), context);
        }
        response
    }
}

impl RouteEntry {
    /// The response of a route that answers by itself; 404 if it does not.
    ///
    /// A type that the route appends joins the body's own, as Envoy's route checks want it; a running Envoy sends the route's
    /// alone.
    pub fn direct_response<C: FormatContext + ?Sized>(&self, context: &C) -> Response<Bytes> {
        let mut response = self.unchanged_response(context, true);
        if matches!(self.config.action, Action::DirectResponse(_)) {
            self.response
                .apply_response(response.headers_mut(), context);
        }
        response
    }

    /// The response of a route that answers by itself, before the route's changes; `typed`: with its body's type.
    fn unchanged_response<C: FormatContext + ?Sized>(
        &self,
        context: &C,
        typed: bool,
    ) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        let Action::DirectResponse(config) = &self.config.action else {
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        };
        let (body, content_type) = direct_body(self, config, context);
        *response.status_mut() = config.status;
        let headers = response.headers_mut();
        if !body.is_empty() {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            if typed || self.body_format().is_some() {
                // Ahead of what the route adds, which therefore joins it.
                headers.insert(CONTENT_TYPE, content_type);
            }
        }
        *response.body_mut() = body;
        response
    }

    /// The URI that a direct response has in place of a redirect's location (Envoy's `newUri`).
    pub fn own_uri<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> Vec<u8> {
        rewrite::own_uri(head)
    }
}

const X_ENVOY_ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
