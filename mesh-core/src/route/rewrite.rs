//! New paths and hosts, and where redirects lead.

use std::borrow::Cow;

use super::{
    format::{FormatContext, Formatter},
    head::{Field, Head, Headers},
    host, path,
    regex::{Program, Substitution},
    template::{Template, TemplateRewrite},
};
use crate::model::{
    HostRewrite, PathMatch, PathRewrite, Redirect, RedirectPath, Regex, SchemeRedirect,
};

/// How the path changes, compiled.
#[derive(Clone, Debug)]
pub(crate) enum PathChange {
    /// The first bytes (`None`: the whole path) give way to a text.
    Prefix(Option<usize>, Box<[u8]>),
    Regex(Program, Substitution),
    Full(Formatter),
    Template(Box<TemplateRewrite>),
}

impl PathChange {
    /// Compiles a rewrite for a route of this match; the error is a reason.
    pub(crate) fn new(rewrite: &PathRewrite, matched: &PathMatch) -> Result<Self, String> {
        match rewrite {
            PathRewrite::Prefix(to) => Self::prefix(to, matched),
            PathRewrite::Regex(regex, to) => Self::regex(regex, to),
            PathRewrite::Full(format) => Ok(Self::Full(
                Formatter::new(format).map_err(|error| error.to_string())?,
            )),
            PathRewrite::Template(text) => match matched {
                PathMatch::Template(template) => {
                    let template = Template::parse(&template.text)?;
                    TemplateRewrite::parse(text, &template)
                        .map(|rewrite| Self::Template(Box::new(rewrite)))
                }
                _ => Err("a template rewrite needs a template match".to_owned()),
            },
        }
    }

    /// The matched prefix or path gives way to `to`.
    pub(crate) fn prefix(to: &str, matched: &PathMatch) -> Result<Self, String> {
        let len = match matched {
            PathMatch::Prefix(text) | PathMatch::Exact(text) | PathMatch::SeparatedPrefix(text) => {
                Some(text.len())
            }
            PathMatch::Regex(_) | PathMatch::Connect => None,
            PathMatch::Template(_) => {
                return Err("prefix_rewrite cannot be used with a template match".to_owned());
            }
        };
        Ok(Self::Prefix(len, to.as_bytes().into()))
    }

    /// Each match gives way to `to`.
    pub(crate) fn regex(regex: &Regex, to: &str) -> Result<Self, String> {
        Ok(Self::Regex(
            regex.program().clone(),
            Substitution::parse(to)?,
        ))
    }

    /// Appends the new path with the query of the old one to `out`, which is empty; `false`: the path stays, as it does in
    /// Envoy where an expression would leave nothing of it.
    pub(crate) fn apply<C: FormatContext + ?Sized>(
        &self,
        old: &[u8],
        context: &C,
        out: &mut Vec<u8>,
    ) -> bool {
        let (only, query) = old.split_at(path::without_query(old).len());
        match self {
            Self::Prefix(len, to) => {
                out.extend_from_slice(to);
                out.extend_from_slice(&only[len.unwrap_or(only.len()).min(only.len())..]);
            }
            Self::Regex(program, to) => {
                out.extend_from_slice(&program.replace_all(only, to));
                if out.is_empty() {
                    return false;
                }
            }
            Self::Full(format) => {
                format.write(context, b"", out);
                // An empty result changes nothing.
                if out.is_empty() {
                    out.extend_from_slice(only);
                }
            }
            Self::Template(rewrite) => match rewrite.rewrite(only) {
                Some(path) => out.extend_from_slice(&path),
                None => out.extend_from_slice(only),
            },
        }
        out.extend_from_slice(query);
        true
    }
}

/// How the authority changes, compiled.
#[derive(Clone, Debug)]
pub(crate) enum HostChange {
    Literal(Box<[u8]>),
    Format(Formatter),
    Header(Field),
    PathRegex(Program, Substitution),
}

impl HostChange {
    /// Compiles a rewrite; `None` if the endpoint's host name is used. The error is a reason.
    pub(crate) fn new(rewrite: &HostRewrite) -> Result<Option<Self>, String> {
        Ok(Some(match rewrite {
            HostRewrite::Literal(text) => Self::Literal(text.as_bytes().into()),
            HostRewrite::Format(format) => {
                Self::Format(Formatter::new(format).map_err(|error| error.to_string())?)
            }
            HostRewrite::Header(name) => Self::Header(Field::of(name)),
            HostRewrite::PathRegex(regex, to) => {
                Self::PathRegex(regex.program().clone(), Substitution::parse(to)?)
            }
            HostRewrite::Auto => return Ok(None),
        }))
    }

    /// The new authority; `None` if it stays.
    pub(crate) fn apply<C: FormatContext + ?Sized>(&self, context: &C) -> Option<Vec<u8>> {
        let host = match self {
            Self::Literal(text) => text.to_vec(),
            Self::Format(format) => {
                let mut out = Vec::new();
                format.write(context, b"-", &mut out);
                out
            }
            Self::Header(field) => context.request_header(field)?.into_owned(),
            Self::PathRegex(program, to) => {
                let path = context.request_header(&Field::Path)?;
                program
                    .replace_all(path::without_query(&path), to)
                    .into_owned()
            }
        };
        (!host.is_empty()).then_some(host)
    }
}

/// A redirect, compiled.
#[derive(Clone, Debug)]
pub(crate) struct RedirectTo {
    config: Redirect,
    /// The new path is a text of its own.
    full: Option<FullPath>,
    change: Option<PathChange>,
}

#[derive(Clone, Debug)]
struct FullPath {
    text: Box<[u8]>,
    has_query: bool,
}

impl RedirectTo {
    /// Compiles a redirect for a route of this match; the error is a reason.
    pub(crate) fn new(config: &Redirect, matched: &PathMatch) -> Result<Self, String> {
        let (mut full, mut change) = (None, None);
        match &config.path {
            None => {}
            Some(RedirectPath::Full(text)) => {
                full = Some(FullPath {
                    text: text.as_bytes().into(),
                    has_query: text.contains('?'),
                });
            }
            Some(RedirectPath::Prefix(to)) => change = Some(PathChange::prefix(to, matched)?),
            Some(RedirectPath::Regex(regex, to)) => change = Some(PathChange::regex(regex, to)?),
            Some(RedirectPath::Format(format)) => {
                let format = Formatter::new(format).map_err(|error| error.to_string())?;
                change = Some(PathChange::Full(format));
            }
        }
        Ok(Self {
            config: config.clone(),
            full,
            change,
        })
    }

    /// The status.
    pub(crate) fn status(&self) -> http::StatusCode {
        self.config.code
    }

    /// The `location`, as Envoy builds it.
    pub(crate) fn location<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> Vec<u8> {
        let scheme = match &self.config.scheme {
            Some(SchemeRedirect::Https) => &b"https"[..],
            Some(SchemeRedirect::To(scheme)) => scheme.as_bytes(),
            None => head.scheme(),
        };
        let host = match &self.config.host {
            Some(host) => host.as_bytes(),
            None => request_host(head, scheme, self.config.port.is_some()),
        };
        let mut out = Vec::with_capacity(scheme.len() + 3 + host.len() + head.path.len() + 16);
        out.extend_from_slice(scheme);
        out.extend_from_slice(b"://");
        out.extend_from_slice(host);
        if let Some(port) = self.config.port {
            out.push(b':');
            out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
        }
        let path = self.path(head);
        push_slash(&path, &mut out);
        let keep_query =
            !self.config.strip_query || self.full.as_ref().is_some_and(|full| full.has_query);
        let end = match memchr::memchr(b'?', &path) {
            Some(at) if !keep_query => at,
            _ => path.len(),
        };
        out.extend_from_slice(&path[..end]);
        out
    }

    /// The request's path with its prefix or a match replaced, and its query; `None` if nothing is replaced.
    pub(crate) fn rewritten<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> Option<Vec<u8>> {
        let change = self.change.as_ref()?;
        let mut path = Vec::with_capacity(head.path.len());
        change
            .apply(head.path, &HeadContext(*head), &mut path)
            .then_some(path)
    }

    fn path<'a, H: Headers + ?Sized>(&'a self, head: &Head<'a, H>) -> Cow<'a, [u8]> {
        if let Some(full) = &self.full {
            return match memchr::memchr(b'?', head.path) {
                Some(at) if !full.has_query => Cow::Owned([&full.text, &head.path[at..]].concat()),
                _ => Cow::Borrowed(&full.text),
            };
        }
        match self.rewritten(head) {
            Some(path) => Cow::Owned(path),
            None => Cow::Borrowed(head.path),
        }
    }
}

/// The location of a direct response that is no redirect: the request's own URI, as Envoy reports it.
pub(crate) fn own_uri<H: Headers + ?Sized>(head: &Head<'_, H>) -> Vec<u8> {
    let host = request_host(head, head.scheme(), false);
    let mut out = [head.scheme(), b"://", host].concat();
    push_slash(head.path, &mut out);
    out.extend_from_slice(head.path);
    out
}

/// The slash that a path without one gets behind a host.
fn push_slash(path: &[u8], out: &mut Vec<u8>) {
    if path.first() != Some(&b'/') {
        out.push(b'/');
    }
}

/// `https://` and what was asked for.
pub(crate) fn tls_location<H: Headers + ?Sized>(head: &Head<'_, H>) -> Vec<u8> {
    [b"https://", head.authority, head.path].concat()
}

/// The request's host. Its port is dropped if there is a new one, or if it is the default of the scheme that is left.
fn request_host<'a, H: Headers + ?Sized>(
    head: &Head<'a, H>,
    new_scheme: &[u8],
    new_port: bool,
) -> &'a [u8] {
    let Some(colon) = host::port_start(head.authority) else {
        return head.authority;
    };
    let (name, port) = head.authority.split_at(colon);
    let proto = head.forwarded_proto();
    let default = (proto == b"https" && port == b":443") || (proto == b"http" && port == b":80");
    if new_port || (new_scheme != proto && default) {
        name
    } else {
        head.authority
    }
}

/// A context that knows the request head alone.
pub struct HeadContext<'a, H: ?Sized>(pub Head<'a, H>);

impl<H: Headers + ?Sized> FormatContext for HeadContext<'_, H> {
    fn request_header(&self, field: &super::head::Field) -> Option<Cow<'_, [u8]>> {
        match field {
            super::head::Field::Header(name) => super::mutate::formatted(self.0.headers, name),
            other => self.0.field(other),
        }
    }

    fn item(&self, item: super::format::Item, out: &mut Vec<u8>) -> bool {
        super::facts::write(item, self.0.connection, out)
    }

    fn metadata(
        &self,
        source: super::format::MetadataSource,
        namespace: &str,
        path: &[crate::model::Name],
    ) -> Option<Cow<'_, crate::model::Value>> {
        match source {
            super::format::MetadataSource::Dynamic => {
                self.0.metadata?.get(namespace, path).map(Cow::Borrowed)
            }
            _ => None,
        }
    }

    fn filter_state(&self, key: &str) -> Option<Cow<'_, [u8]>> {
        let value = self.0.filter_state?.get(key, &[])?;
        value.as_text().map(|text| text.as_bytes().into())
    }
}

#[cfg(all(test, feature = "regex"))]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn location(path: RedirectPath, request: &str) -> String {
        let config = Redirect {
            scheme: None,
            host: None,
            port: None,
            path: Some(path),
            code: StatusCode::FOUND,
            strip_query: false,
        };
        let to = RedirectTo::new(&config, &PathMatch::Prefix("/".into())).expect("a redirect");
        let headers = HeaderMap::new();
        let head = Head::new(b"GET", b"http", b"h", request.as_bytes(), &headers);
        String::from_utf8(to.location(&head)).expect("text")
    }

    /// Measured with Envoy 1.40.
    #[test]
    fn a_path_of_which_an_expression_would_leave_nothing_stays() {
        for (pattern, changed) in [(".", false), ("a", true)] {
            let regex = Regex::parse(pattern).expect("an expression");
            let change = PathChange::regex(&regex, "").expect("a rewrite");
            let mut out = Vec::new();
            assert_eq!(change.apply(b"/a?q", &(), &mut out), changed, "{pattern}");
        }
    }

    #[test]
    fn a_redirect_has_a_path_whatever_an_expression_leaves() {
        let regex = |pattern: &str, to: &str| {
            RedirectPath::Regex(Regex::parse(pattern).expect("an expression"), to.into())
        };
        for (path, request, wanted) in [
            (regex("^/a(.*)$", "\\1"), "/ab?q", "http://h/b?q"),
            (regex("^/.*$", ""), "/a?q", "http://h/a?q"),
            (regex("b", "\\0c"), "/a", "http://h/a"),
            (RedirectPath::Prefix("new".into()), "/?q", "http://h/new?q"),
            (RedirectPath::Full("p".into()), "/a", "http://h/p"),
        ] {
            assert_eq!(location(path, request), wanted, "{request}");
        }
        let headers = HeaderMap::new();
        let head = Head::new(b"GET", b"http", b"h:80", b"", &headers);
        assert_eq!(own_uri(&head), b"http://h:80/");
    }
}
