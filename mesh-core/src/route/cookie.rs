//! Predicates over single cookies.

use http::header;

use super::{
    head::{Head, Headers},
    text::TextMatcher,
};
use crate::model::CookieMatcher;

/// A compiled [`CookieMatcher`].
#[derive(Clone, Debug)]
pub(crate) struct CookieTest {
    name: Box<[u8]>,
    value: TextMatcher,
    invert: bool,
}

impl CookieTest {
    pub(crate) fn new(matcher: &CookieMatcher) -> Self {
        Self {
            name: matcher.name.as_bytes().into(),
            value: TextMatcher::new(&matcher.value),
            invert: matcher.invert,
        }
    }

    /// Whether the first cookie of the name has such a value.
    pub(crate) fn matches<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> bool {
        let mut fits = false;
        head.headers
            .any(&header::COOKIE, &mut |line| match self.value_in(line) {
                Some(value) => {
                    fits = self.value.matches(value);
                    true
                }
                None => false,
            });
        fits != self.invert
    }

    /// The value in a line, without the quotes around it.
    fn value_in<'a>(&self, line: &'a [u8]) -> Option<&'a [u8]> {
        let value = line.split(|byte| *byte == b';').find_map(|pair| {
            let rest = pair.trim_ascii_start().strip_prefix(&*self.name)?;
            rest.strip_prefix(b"=")
        })?;
        let inner = value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\""));
        Some(inner.unwrap_or(value))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::{
        model::{
            Action, PathMatch, Route, RouteConfiguration, RouteMatch, RouteRules, StringMatcher,
            StringPattern, VirtualHost,
        },
        route::{Decision, RouteTable},
        snapshot::Clusters,
    };

    fn matcher(text: &str, invert: bool) -> CookieMatcher {
        CookieMatcher {
            name: "a".into(),
            value: StringMatcher {
                pattern: StringPattern::Exact(text.into()),
                ignore_case: false,
            },
            invert,
        }
    }

    #[test]
    fn a_route_asks_for_all_its_cookies() {
        let matches = RouteMatch {
            cookies: vec![matcher("1", false), matcher("2", true)],
            ..RouteMatch::path(PathMatch::Prefix("/".into()))
        };
        let config = RouteConfiguration {
            virtual_hosts: vec![VirtualHost {
                domains: vec!["*".into()],
                routes: RouteRules::List(vec![Route::new(matches, Action::NonForwarding)]),
                ..VirtualHost::default()
            }],
            ..RouteConfiguration::default()
        };
        let table = RouteTable::compile(&config, &Clusters::default()).expect("a table");
        for (line, found) in [("a=1", true), ("a=2", false), ("b=1", false)] {
            let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(line))]);
            let decision = table.decide(&Head::new(b"GET", b"http", b"h", b"/", &headers));
            assert_eq!(
                matches!(decision, Decision::NonForwarding(_)),
                found,
                "{line}"
            );
        }
    }

    /// Measured with Envoy 1.40.
    #[test]
    fn the_first_cookie_of_a_name_counts() {
        let test = |text: &str, invert| CookieTest::new(&matcher(text, invert));
        for (lines, one, empty) in [
            (&[][..], false, false),
            (&["a=1"], true, false),
            (&["b=2;a=1"], true, false),
            (&["a=2; a=1"], false, false),
            (&["a=2", "a=1"], false, false),
            (&["b=2", "a=1"], true, false),
            (&["a=\"1\""], true, false),
            (&["a=\"1"], false, false),
            (&["a=\"\""], false, true),
            (&["a="], false, true),
            (&["a; a=1"], true, false),
            (&["a =1"], false, false),
            (&["a= 1"], false, false),
            (&["a=1=2"], false, false),
            (&["A=1; xa=1"], false, false),
            (&["b=x;;\ta=1;"], true, false),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, HeaderValue::from_static(line));
            }
            let head = Head::new(b"GET", b"http", b"h", b"/", &headers);
            assert_eq!(test("1", false).matches(&head), one, "{lines:?}");
            assert_eq!(test("1", true).matches(&head), !one, "{lines:?}");
            assert_eq!(test("", false).matches(&head), empty, "{lines:?}");
        }
    }
}
