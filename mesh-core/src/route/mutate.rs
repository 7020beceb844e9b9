//! Changes of headers, compiled, over heads of any kind.

use std::{borrow::Cow, sync::Arc};

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Uri, header,
    uri::{Authority, PathAndQuery},
};

use super::{
    format::{FormatContext, FormatError, Formatter, Item, MetadataSource, TimePoint},
    head::{Field, Head, Headers},
    path,
};
use crate::{
    model::{AppendAction, HeaderAddition, Name, Value},
    scratch,
    telemetry::{access_log::want, record::Wants},
};

/// Headers that can be changed.
pub trait HeadersMut {
    /// All values of `name`, joined by `,`.
    fn value(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>>;
    /// What formats read of `name`, as Envoy's do: the first value, or all of a header that stands in one line.
    fn formatted(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>>;
    /// Removes all values of `name`.
    fn remove(&mut self, name: &HeaderName);
    /// Adds a value.
    fn append(&mut self, name: HeaderName, value: HeaderValue);
    /// Replaces all values.
    fn set(&mut self, name: HeaderName, value: HeaderValue);
}

impl HeadersMut for HeaderMap {
    fn value(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        self.joined(name)
    }

    fn formatted(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        formatted(self, name)
    }

    fn remove(&mut self, name: &HeaderName) {
        HeaderMap::remove(self, name);
    }

    fn append(&mut self, name: HeaderName, value: HeaderValue) {
        HeaderMap::append(self, name, value);
    }

    fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.insert(name, value);
    }
}

/// A request head that can be changed on its way to the upstream.
pub trait HeadMut: HeadersMut {
    /// The value of a header or pseudo header; several values are joined by `,`.
    fn field(&self, field: &Field) -> Option<Cow<'_, [u8]>>;
    /// Sets path and query. What a path cannot hold is escaped, and one without a slash gets it.
    fn set_path(&mut self, path: &[u8]);
    /// Sets the authority. One that cannot be sent leaves the old one.
    fn set_authority(&mut self, authority: &[u8]);
}

/// The authority is the header `host`, and the URI's if it has one.
impl<B> HeadersMut for Request<B> {
    fn value(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        self.headers().joined(name)
    }

    fn formatted(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        formatted(self.headers(), name)
    }

    fn remove(&mut self, name: &HeaderName) {
        self.headers_mut().remove(name);
    }

    fn append(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers_mut().append(name, value);
    }

    fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers_mut().insert(name, value);
    }
}

impl<B> HeadMut for Request<B> {
    fn field(&self, field: &Field) -> Option<Cow<'_, [u8]>> {
        Head::of(self).field(field)
    }

    fn set_path(&mut self, path: &[u8]) {
        let parsed = match path.first() {
            Some(b'/') => PathAndQuery::from_maybe_shared(scratch::bytes(path)).ok(),
            _ => None,
        };
        // The upstream must not see the old path because no URI can hold the new one as it is.
        let path = parsed.or_else(|| {
            let path = path::sendable(path);
            PathAndQuery::from_maybe_shared(scratch::bytes(&path)).ok()
        });
        let Some(path) = path else {
            return;
        };
        let mut parts = std::mem::take(self.uri_mut()).into_parts();
        parts.path_and_query = Some(path);
        // A URI with authority and path needs a scheme; a request that came without one is sent on over HTTP.
        if parts.authority.is_some() && parts.scheme.is_none() {
            parts.scheme = Some(http::uri::Scheme::HTTP);
        }
        *self.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    }

    fn set_authority(&mut self, authority: &[u8]) {
        let text = scratch::bytes(authority);
        let value = HeaderValue::from_maybe_shared(text.clone());
        let (authority, value) = match (Authority::from_maybe_shared(text), value) {
            (Ok(authority), Ok(value)) => (authority, value),
            (Err(_), Ok(value)) if *self.method() != http::Method::CONNECT => {
                return set_odd_host(self, value);
            }
            _ => return,
        };
        let in_uri = self.uri().authority().is_some();
        if in_uri {
            let mut parts = std::mem::take(self.uri_mut()).into_parts();
            parts.authority = Some(authority);
            *self.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        }
        if !in_uri || self.headers().contains_key(header::HOST) {
            self.headers_mut().insert(header::HOST, value);
        }
    }
}

/// Sets a host that no URI can hold. As in Envoy the upstream sees it all the same, if it speaks HTTP/1.
fn set_odd_host<B>(request: &mut Request<B>, host: HeaderValue) {
    let parts = std::mem::take(request.uri_mut()).into_parts();
    *request.uri_mut() = parts.path_and_query.map(Uri::from).unwrap_or_default();
    request.headers_mut().insert(header::HOST, host);
}

/// An owned head, for tests and for proxies that have no type of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadBuf {
    /// `GET`, …
    pub method: Vec<u8>,
    /// `http` or `https`.
    pub scheme: Vec<u8>,
    /// Host and port.
    pub authority: Vec<u8>,
    /// Path with query.
    pub path: Vec<u8>,
    /// The other headers.
    pub headers: HeaderMap,
}

impl HeadBuf {
    /// The head, borrowed.
    pub fn head(&self) -> Head<'_, HeaderMap> {
        Head::new(
            &self.method,
            &self.scheme,
            &self.authority,
            &self.path,
            &self.headers,
        )
    }
}

impl HeadersMut for HeadBuf {
    fn value(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        self.headers.joined(name)
    }

    fn formatted(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        formatted(&self.headers, name)
    }

    fn remove(&mut self, name: &HeaderName) {
        self.headers.remove(name);
    }

    fn append(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.append(name, value);
    }

    fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.insert(name, value);
    }
}

impl HeadMut for HeadBuf {
    fn field(&self, field: &Field) -> Option<Cow<'_, [u8]>> {
        self.head().field(field)
    }

    fn set_path(&mut self, path: &[u8]) {
        self.path = path.to_vec();
    }

    fn set_authority(&mut self, authority: &[u8]) {
        self.authority = authority.to_vec();
    }
}

/// Compiled changes of several levels, in the order in which they apply.
#[derive(Clone, Debug, Default)]
pub struct Mutations {
    levels: Box<[Level]>,
    /// What their values read of the request's head, if they read anything of it.
    reads: Option<Arc<Wants>>,
}

/// One level: the table, the virtual host, the route or the arm.
#[derive(Clone, Debug, Default)]
struct Level {
    remove: Box<[HeaderName]>,
    /// Those that replace come first, as in Envoy.
    add: Box<[Addition]>,
    /// All values are constant and nothing depends on what is there.
    simple: bool,
}

#[derive(Clone, Debug)]
struct Addition {
    name: HeaderName,
    value: Text,
    action: AppendAction,
    keep_empty: bool,
    one_line: bool,
}

#[derive(Clone, Debug)]
enum Text {
    Constant(HeaderValue),
    Format(Formatter),
}

/// Headers that stand in one line: as Envoy does with those that it knows by name, a further value goes on behind a comma.
pub(crate) fn stands_in_one_line(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "content-type"
            | "date"
            | "expect"
            | "grpc-message"
            | "grpc-status"
            | "grpc-timeout"
            | "location"
            | "server"
            | "te"
            | "user-agent"
            | "via"
            | "x-client-trace-id"
            | "x-envoy-decorator-operation"
            | "x-envoy-downstream-service-cluster"
            | "x-envoy-downstream-service-node"
            | "x-envoy-external-address"
            | "x-envoy-ip-tags"
            | "x-envoy-original-path"
            | "x-envoy-retriable-header-names"
            | "x-envoy-retriable-status-codes"
            | "x-envoy-retry-grpc-on"
            | "x-envoy-retry-on"
            | "x-forwarded-client-cert"
            | "x-forwarded-for"
            | "x-forwarded-host"
            | "x-forwarded-port"
            | "x-forwarded-proto"
            | "x-request-id"
    )
}

/// As [`HeadersMut::formatted`].
pub(super) fn formatted<'a, H: Headers + ?Sized>(
    headers: &'a H,
    name: &HeaderName,
) -> Option<Cow<'a, [u8]>> {
    if stands_in_one_line(name) {
        headers.joined(name)
    } else {
        headers.first_value(name).map(Cow::Borrowed)
    }
}

/// Additions of one level whose values need no allocation of a list.
const INLINE: usize = 8;

impl Mutations {
    /// Compiles levels of `(remove, add)`.
    ///
    /// # Errors
    ///
    /// Index of the level, index of the addition and what is wrong with it.
    pub fn new(
        levels: &[(&[HeaderName], &[HeaderAddition])],
    ) -> Result<Self, (usize, usize, FormatError)> {
        let mut compiled = Vec::new();
        for (index, (remove, add)) in levels.iter().enumerate() {
            if remove.is_empty() && add.is_empty() {
                continue;
            }
            compiled.push(Level::new(remove, add).map_err(|(at, error)| (index, at, error))?);
        }
        let mut this = Self {
            levels: compiled.into(),
            reads: None,
        };
        let mut wants = Wants::default();
        let additions = this.levels.iter().flat_map(|level| &level.add);
        for addition in additions {
            if let Text::Format(format) = &addition.value {
                format
                    .operators()
                    .for_each(|operator| want(operator, &mut wants));
            }
        }
        this.read_also(&wants);
        Ok(this)
    }

    /// What the values read of the request's head; `None`: nothing. For changes of a response, which come when it is gone.
    pub(crate) fn reads(&self) -> Option<&Arc<Wants>> {
        self.reads.as_ref()
    }

    /// Whoever applies them reads this as well.
    pub(crate) fn read_also(&mut self, wants: &Wants) {
        if wants.head || !wants.request.is_empty() {
            let mut all = self.reads.as_deref().cloned().unwrap_or_default();
            all.merge(wants);
            self.reads = Some(Arc::new(all));
        }
    }

    /// Whether a header is added for whose name `of_name` says so.
    pub(super) fn adds_any(&self, of_name: impl Fn(&HeaderName) -> bool) -> bool {
        let mut additions = self.levels.iter().flat_map(|level| &level.add);
        additions.any(|addition| of_name(&addition.name))
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// Changes a request. `%REQ(…)%` reads `target`, the rest comes from `context`.
    pub fn apply_request<T: HeadMut, C: FormatContext + ?Sized>(
        &self,
        target: &mut T,
        context: &C,
    ) {
        for level in &self.levels {
            level.apply(target, |target, format, out| {
                let context = LiveRequest {
                    head: target,
                    rest: context,
                };
                format.write(&context, b"", out);
            });
        }
    }

    /// Changes the headers of a response. `%RESP(…)%` reads `target`, the rest comes from `context`.
    pub fn apply_response<C: FormatContext + ?Sized>(&self, target: &mut HeaderMap, context: &C) {
        for level in &self.levels {
            level.apply(target, |target, format, out| {
                let context = LiveResponse {
                    headers: target,
                    rest: context,
                };
                format.write(&context, b"", out);
            });
        }
    }
}

impl Level {
    fn new(remove: &[HeaderName], add: &[HeaderAddition]) -> Result<Self, (usize, FormatError)> {
        let mut additions = Vec::with_capacity(add.len());
        for (index, addition) in add.iter().enumerate() {
            additions.push(Addition::new(addition).map_err(|error| (index, error))?);
        }
        let overwrites = |action| {
            matches!(
                action,
                AppendAction::OverwriteIfExists | AppendAction::OverwriteIfExistsOrAdd
            )
        };
        additions.sort_by_key(|addition| !overwrites(addition.action));
        let simple = additions.iter().all(|addition| {
            matches!(addition.value, Text::Constant(_))
                && matches!(
                    addition.action,
                    AppendAction::AppendIfExistsOrAdd | AppendAction::OverwriteIfExistsOrAdd
                )
        });
        Ok(Self {
            remove: remove.into(),
            add: additions.into(),
            simple,
        })
    }

    /// Removes, then makes all values from what is there, then replaces, then adds.
    fn apply<T: HeadersMut>(&self, target: &mut T, render: impl Fn(&T, &Formatter, &mut Vec<u8>)) {
        for name in &self.remove {
            target.remove(name);
        }
        if self.simple {
            for addition in &self.add {
                if let Text::Constant(value) = &addition.value {
                    addition.apply(target, value.clone());
                }
            }
            return;
        }
        let mut inline = [const { None }; INLINE];
        let mut more = Vec::new();
        for (index, addition) in self.add.iter().enumerate() {
            let value = addition.value(target, |format, out| render(target, format, out));
            match inline.get_mut(index) {
                Some(slot) => *slot = value,
                None => more.push(value),
            }
        }
        for (addition, value) in self.add.iter().zip(inline.into_iter().chain(more)) {
            if let Some(value) = value {
                addition.apply(target, value);
            }
        }
    }
}

impl Addition {
    fn new(config: &HeaderAddition) -> Result<Self, FormatError> {
        let format = Formatter::new(&config.value)?;
        let value = match format.constant() {
            Some(text) => {
                Text::Constant(HeaderValue::from_bytes(text).map_err(|_| FormatError {
                    text: config.value.text.to_string(),
                    reason: "no header can have this value".to_owned(),
                })?)
            }
            None => Text::Format(format),
        };
        Ok(Self {
            one_line: stands_in_one_line(&config.name),
            name: config.name.clone(),
            value,
            action: config.action,
            keep_empty: config.keep_empty,
        })
    }

    /// The value, unless the addition does not apply or its value is empty.
    fn value<T: HeadersMut>(
        &self,
        target: &T,
        render: impl Fn(&Formatter, &mut Vec<u8>),
    ) -> Option<HeaderValue> {
        let applies = match self.action {
            AppendAction::AddIfAbsent => target.value(&self.name).is_none(),
            AppendAction::OverwriteIfExists => target.value(&self.name).is_some(),
            AppendAction::AppendIfExistsOrAdd | AppendAction::OverwriteIfExistsOrAdd => true,
        };
        if !applies {
            return None;
        }
        let value = match &self.value {
            Text::Constant(value) => value.clone(),
            Text::Format(format) => scratch::with_buffer(|buffer| {
                render(format, buffer);
                scratch::header_value(buffer)
            })?,
        };
        (self.keep_empty || !value.is_empty()).then_some(value)
    }

    /// A header of one line that is there already goes on behind a comma.
    fn joined_with<T: HeadersMut>(&self, target: &T, value: &HeaderValue) -> Option<HeaderValue> {
        if !self.one_line {
            return None;
        }
        let known = target.value(&self.name)?;
        let comma: &[u8] = match known.is_empty() || value.is_empty() {
            true => b"",
            false => b",",
        };
        scratch::with_buffer(|buffer| {
            for part in [&*known, comma, value.as_bytes()] {
                buffer.extend_from_slice(part);
            }
            scratch::header_value(buffer)
        })
    }

    fn apply<T: HeadersMut>(&self, target: &mut T, value: HeaderValue) {
        if value.is_empty() && !self.keep_empty {
            return;
        }
        match self.action {
            AppendAction::AppendIfExistsOrAdd | AppendAction::AddIfAbsent => {
                match self.joined_with(target, &value) {
                    Some(all) => target.set(self.name.clone(), all),
                    None => target.append(self.name.clone(), value),
                }
            }
            AppendAction::OverwriteIfExistsOrAdd | AppendAction::OverwriteIfExists => {
                target.set(self.name.clone(), value);
            }
        }
    }
}

/// The request as it is changed right now, and a context for the rest.
pub(super) struct LiveRequest<'a, T, C: ?Sized> {
    pub(super) head: &'a T,
    pub(super) rest: &'a C,
}

struct LiveResponse<'a, C: ?Sized> {
    headers: &'a HeaderMap,
    rest: &'a C,
}

/// Everything but the header that is live comes from `rest`.
macro_rules! delegate {
    () => {
        fn response_trailer(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
            self.rest.response_trailer(name)
        }
        fn item(&self, item: Item, out: &mut Vec<u8>) -> bool {
            self.rest.item(item, out)
        }
        fn metadata(
            &self,
            source: MetadataSource,
            namespace: &str,
            path: &[Name],
        ) -> Option<Cow<'_, Value>> {
            self.rest.metadata(source, namespace, path)
        }
        fn filter_state(&self, key: &str) -> Option<Cow<'_, [u8]>> {
            self.rest.filter_state(key)
        }
        fn start_time(&self) -> Option<std::time::SystemTime> {
            self.rest.start_time()
        }
        fn moment(&self, point: TimePoint) -> Option<std::time::Instant> {
            self.rest.moment(point)
        }
    };
}

impl<T: HeadMut, C: FormatContext + ?Sized> FormatContext for LiveRequest<'_, T, C> {
    fn request_header(&self, field: &Field) -> Option<Cow<'_, [u8]>> {
        match field {
            Field::Header(name) => self.head.formatted(name),
            other => self.head.field(other),
        }
    }
    fn response_header(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        self.rest.response_header(name)
    }
    delegate!();
}

impl<C: FormatContext + ?Sized> FormatContext for LiveResponse<'_, C> {
    fn request_header(&self, field: &Field) -> Option<Cow<'_, [u8]>> {
        self.rest.request_header(field)
    }
    fn response_header(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        formatted(self.headers, name)
    }
    delegate!();
}

#[cfg(test)]
mod tests;
