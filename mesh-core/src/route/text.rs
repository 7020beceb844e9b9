//! Compiled predicates over text, headers, query parameters and metadata.

use std::{borrow::Cow, net::IpAddr, str};

use memchr::memmem;

use http::HeaderName;

use super::{
    head::{Field, Head, Headers},
    mutate::stands_in_one_line,
};
use crate::model::{
    HeaderMatcher, HeaderValueMatcher, Metadata, MetadataMatcher, QueryMatcher, Regex,
    StringMatcher, StringPattern, Value, ValueMatcher,
};

/// A compiled [`StringMatcher`].
#[derive(Clone, Debug)]
pub struct TextMatcher {
    pattern: Pattern,
    fold: bool,
}

#[derive(Clone, Debug)]
enum Pattern {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Contains(Box<memmem::Finder<'static>>),
    Regex(Regex),
}

impl TextMatcher {
    /// Compiles `matcher`.
    pub fn new(matcher: &StringMatcher) -> Self {
        let fold = matcher.ignore_case;
        let bytes = |text: &str| -> Box<[u8]> {
            if fold {
                text.to_ascii_lowercase().into_bytes().into()
            } else {
                text.as_bytes().into()
            }
        };
        let pattern = match &matcher.pattern {
            StringPattern::Exact(text) => Pattern::Exact(bytes(text)),
            StringPattern::Prefix(text) => Pattern::Prefix(bytes(text)),
            StringPattern::Suffix(text) => Pattern::Suffix(bytes(text)),
            StringPattern::Contains(text) => {
                Pattern::Contains(Box::new(memmem::Finder::new(&bytes(text)).into_owned()))
            }
            StringPattern::Regex(regex) => Pattern::Regex(regex.clone()),
        };
        Self { pattern, fold }
    }

    /// Whether `text` matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        let same = |a: &[u8], b: &[u8]| {
            if self.fold {
                a.eq_ignore_ascii_case(b)
            } else {
                a == b
            }
        };
        match &self.pattern {
            Pattern::Exact(wanted) => same(text, wanted),
            Pattern::Prefix(wanted) => text
                .get(..wanted.len())
                .is_some_and(|start| same(start, wanted)),
            Pattern::Suffix(wanted) => text
                .len()
                .checked_sub(wanted.len())
                .is_some_and(|at| same(&text[at..], wanted)),
            Pattern::Contains(finder) if self.fold => {
                finder.find(&text.to_ascii_lowercase()).is_some()
            }
            Pattern::Contains(finder) => finder.find(text).is_some(),
            Pattern::Regex(regex) => regex.is_match(text),
        }
    }

    /// The text that alone matches, byte for byte.
    pub(crate) fn exact(&self) -> Option<&[u8]> {
        match &self.pattern {
            Pattern::Exact(text) if !self.fold => Some(text),
            _ => None,
        }
    }
}

/// A compiled [`HeaderMatcher`].
#[derive(Clone, Debug)]
pub struct HeaderTest {
    field: Field,
    test: ValueTest,
    invert: bool,
    missing_as_empty: bool,
    /// Several lines of the header are one text.
    one_line: bool,
}

#[derive(Clone, Debug)]
enum ValueTest {
    Present(bool),
    Text(TextMatcher),
    Range(i64, i64),
}

impl HeaderTest {
    /// Compiles `matcher`; `None` if no header can have its name.
    pub fn new(matcher: &HeaderMatcher) -> Option<Self> {
        let test = match &matcher.value {
            HeaderValueMatcher::Present(present) => ValueTest::Present(*present),
            HeaderValueMatcher::String(text) => ValueTest::Text(TextMatcher::new(text)),
            HeaderValueMatcher::Range { start, end } => ValueTest::Range(*start, *end),
        };
        let field = Field::parse(&matcher.name)?;
        Some(Self {
            one_line: matches!(&field, Field::Header(name) if stands_in_one_line(name)),
            field,
            test,
            invert: matcher.invert,
            missing_as_empty: matcher.missing_as_empty,
        })
    }

    /// The field that is read.
    pub fn field(&self) -> &Field {
        &self.field
    }

    /// Whether the request matches.
    pub fn matches<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> bool {
        match &self.field {
            Field::Header(name) => self.matches_header(name, head.headers),
            field => self.matches_value(head.first(field)),
        }
    }

    /// Whether the lines of the header `name` match. As in Envoy one of several lines is enough, and an inverted test asks that
    /// none fits; a header that stands in one line is one text.
    pub(crate) fn matches_header<H: Headers + ?Sized>(
        &self,
        name: &HeaderName,
        headers: &H,
    ) -> bool {
        if self.one_line {
            return self.matches_value(headers.joined(name).as_deref());
        }
        match headers.any(name, &mut |value| self.fits(value)) {
            Some(found) => found != self.invert,
            None => self.matches_value(None),
        }
    }

    /// Whether a header of this value (`None`: absent) matches.
    pub fn matches_value(&self, value: Option<&[u8]>) -> bool {
        let value = match value {
            Some(value) => value,
            None if self.missing_as_empty => b"",
            // An absent header matches a test of its absence only, and an inverted test of its presence.
            None => {
                return matches!(self.test, ValueTest::Present(present) if present == self.invert);
            }
        };
        self.fits(value) != self.invert
    }

    fn fits(&self, value: &[u8]) -> bool {
        match &self.test {
            ValueTest::Present(present) => *present,
            ValueTest::Text(text) => text.matches(value),
            ValueTest::Range(start, end) => {
                parse_integer(value).is_some_and(|number| (*start..*end).contains(&number))
            }
        }
    }

    /// The value that alone matches, if this is a plain comparison.
    pub(crate) fn exact(&self) -> Option<(&Field, &[u8])> {
        match &self.test {
            ValueTest::Text(text) if !self.invert && !self.missing_as_empty => {
                Some((&self.field, text.exact()?))
            }
            _ => None,
        }
    }
}

/// Compiles all of `matchers`; the error is a name that no header can have.
pub fn header_tests(matchers: &[HeaderMatcher]) -> Result<Box<[HeaderTest]>, crate::model::Name> {
    matchers
        .iter()
        .map(|matcher| HeaderTest::new(matcher).ok_or_else(|| matcher.name.clone()))
        .collect()
}

fn parse_integer(value: &[u8]) -> Option<i64> {
    str::from_utf8(value).ok()?.trim_ascii().parse().ok()
}

/// A compiled [`QueryMatcher`].
#[derive(Clone, Debug)]
pub(crate) struct QueryTest {
    name: Box<[u8]>,
    value: Option<TextMatcher>,
    present: bool,
}

impl QueryTest {
    pub(crate) fn new(matcher: &QueryMatcher) -> Self {
        Self {
            name: matcher.name.as_bytes().into(),
            value: matcher.value.as_ref().map(TextMatcher::new),
            present: matcher.present.unwrap_or(true),
        }
    }

    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        // As in Envoy, a route compares the parameter as sent; only matcher trees decode it.
        let found = query_pairs(path).find(|(name, _)| *name == &*self.name);
        match (&self.value, found) {
            (Some(text), Some((_, value))) => text.matches(value),
            (Some(_), None) => false,
            (None, found) => found.is_some() == self.present,
        }
    }
}

/// The parameters of the query of `path`, as sent.
fn query_pairs(path: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let query = memchr::memchr(b'?', path).map(|at| &path[at + 1..]);
    query.into_iter().flat_map(|query| {
        query
            .split(|byte| *byte == b'&')
            .map(|pair| match memchr::memchr(b'=', pair) {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &b""[..]),
            })
    })
}

/// The first value of the query parameter `name`, both percent-decoded.
pub(crate) fn query_value<'a>(path: &'a [u8], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    query_pairs(path)
        .find(|(key, _)| *percent_decoded(key) == *name)
        .map(|(_, value)| percent_decoded(value))
}

/// `%XX` becomes its byte; anything else stays.
pub(crate) fn percent_decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', text).is_none() {
        return Cow::Borrowed(text);
    }
    let digit = |byte: u8| (byte as char).to_digit(16);
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let decoded = match (byte, tail) {
            (b'%', [high, low, ..]) => digit(*high).zip(digit(*low)),
            _ => None,
        };
        match decoded {
            Some((high, low)) => {
                out.push((high * 16 + low) as u8);
                rest = &tail[2..];
            }
            None => out.push(byte),
        }
    }
    Cow::Owned(out)
}

/// A compiled [`MetadataMatcher`].
#[derive(Clone, Debug)]
pub(crate) struct MetadataTest {
    matcher: MetadataMatcher,
    value: ValueNode,
}

#[derive(Clone, Debug)]
enum ValueNode {
    Null,
    Number(f64),
    NumberRange(f64, f64),
    Text(TextMatcher),
    Bool(bool),
    Present(bool),
    List(Box<ValueNode>),
    Or(Vec<ValueNode>),
    Address(Vec<crate::model::Cidr>, bool),
}

impl MetadataTest {
    pub(crate) fn new(matcher: &MetadataMatcher) -> Self {
        Self {
            value: ValueNode::new(&matcher.value),
            matcher: matcher.clone(),
        }
    }

    pub(crate) fn matches(&self, metadata: Option<&Metadata>) -> bool {
        self.value.matches(self.find(metadata)) != self.matcher.invert
    }

    /// Whether the value is as wanted, which as in Envoy's filter of access logs is not turned round; `None`: there is none.
    pub(crate) fn value(&self, metadata: Option<&Metadata>) -> Option<bool> {
        let value = self.find(metadata)?;
        Some(self.value.matches(Some(value)))
    }

    fn find<'a>(&self, metadata: Option<&'a Metadata>) -> Option<&'a Value> {
        metadata?.get(&self.matcher.namespace, &self.matcher.path)
    }
}

impl ValueNode {
    fn new(matcher: &ValueMatcher) -> Self {
        let number = |text: &str| text.parse().unwrap_or(f64::NAN);
        match matcher {
            ValueMatcher::Null => Self::Null,
            ValueMatcher::Number(text) => Self::Number(number(text)),
            ValueMatcher::NumberRange(start, end) => Self::NumberRange(number(start), number(end)),
            ValueMatcher::String(text) => Self::Text(TextMatcher::new(text)),
            ValueMatcher::Bool(value) => Self::Bool(*value),
            ValueMatcher::Present(present) => Self::Present(*present),
            ValueMatcher::List(one) => Self::List(Box::new(Self::new(one))),
            ValueMatcher::Or(all) => Self::Or(all.iter().map(Self::new).collect()),
            ValueMatcher::Address(blocks, invert) => Self::Address(blocks.clone(), *invert),
        }
    }

    fn matches(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            // As in Envoy, asking for absence never holds; what is inverted asks for it.
            (Self::Present(wanted), value) => *wanted && value.is_some(),
            (Self::Or(all), value) => all.iter().any(|one| one.matches(value)),
            (_, None) => false,
            (Self::Null, Some(value)) => *value == Value::Null,
            (Self::Number(wanted), Some(Value::Number(text))) => text.parse() == Ok(*wanted),
            (Self::NumberRange(start, end), Some(Value::Number(text))) => text
                .parse::<f64>()
                .is_ok_and(|number| (*start..*end).contains(&number)),
            (Self::Text(text), Some(Value::String(value))) => text.matches(value.as_bytes()),
            (Self::Bool(wanted), Some(Value::Bool(value))) => wanted == value,
            (Self::List(one), Some(Value::List(values))) => {
                values.iter().any(|value| one.matches(Some(value)))
            }
            (Self::Address(blocks, invert), Some(Value::String(text))) => text
                .parse::<IpAddr>()
                .is_ok_and(|ip| blocks.iter().any(|block| block.contains(ip)) != *invert),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn header(value: HeaderValueMatcher, invert: bool, missing_as_empty: bool) -> HeaderTest {
        HeaderTest::new(&HeaderMatcher {
            name: "x-test".into(),
            value,
            invert,
            missing_as_empty,
        })
        .expect("a header name")
    }

    fn exact(text: &str) -> HeaderValueMatcher {
        HeaderValueMatcher::String(StringMatcher {
            pattern: StringPattern::Exact(text.into()),
            ignore_case: false,
        })
    }

    #[test]
    fn absent_header_matches_only_absence() {
        for (test, present, absent) in [
            (
                header(HeaderValueMatcher::Present(true), false, false),
                true,
                false,
            ),
            (
                header(HeaderValueMatcher::Present(true), true, false),
                false,
                true,
            ),
            (
                header(HeaderValueMatcher::Present(false), false, false),
                false,
                true,
            ),
            (
                header(HeaderValueMatcher::Present(false), true, false),
                true,
                false,
            ),
            (header(exact("v"), false, false), true, false),
            (header(exact("v"), true, false), false, false),
            (header(exact("v"), true, true), false, true),
            (header(exact(""), false, true), false, true),
        ] {
            assert_eq!(test.matches_value(Some(b"v")), present, "{test:?}");
            assert_eq!(test.matches_value(None), absent, "{test:?}");
        }
    }

    #[test]
    fn metadata_that_is_asked_to_be_absent_never_matches() {
        let metadata = Metadata {
            namespaces: vec![("n".into(), Value::Bool(false))],
        };
        for (wanted, invert, there, absent) in [
            (true, false, true, false),
            (true, true, false, true),
            (false, false, false, false),
            (false, true, true, true),
        ] {
            let test = MetadataTest::new(&MetadataMatcher {
                namespace: "n".into(),
                path: Vec::new(),
                value: ValueMatcher::Present(wanted),
                invert,
            });
            assert_eq!(test.matches(Some(&metadata)), there, "{wanted} {invert}");
            assert_eq!(test.matches(None), absent, "{wanted} {invert}");
        }
    }

    #[test]
    fn range_is_half_open() {
        let test = header(
            HeaderValueMatcher::Range { start: -10, end: 0 },
            false,
            false,
        );
        for (value, matched) in [
            ("-10", true),
            ("-1", true),
            ("0", false),
            ("-1x", false),
            ("", false),
        ] {
            assert_eq!(
                test.matches_value(Some(value.as_bytes())),
                matched,
                "{value}"
            );
        }
    }

    #[test]
    /// Measured with Envoy 1.40.
    fn one_of_several_lines_is_enough() {
        let mut headers = HeaderMap::new();
        for name in ["x-test", "content-type"] {
            headers.append(name, "a".parse().expect("a value"));
            headers.append(name, "b".parse().expect("a value"));
        }
        let head = Head::new(b"GET", b"http", b"", b"/", &headers);
        for (text, invert, lines, one) in [
            ("a", false, true, false),
            ("b", false, true, false),
            ("a,b", false, false, true),
            ("a", true, false, true),
            ("c", true, true, true),
            ("a,b", true, true, false),
        ] {
            let mut test = header(exact(text), invert, false);
            assert_eq!(test.matches(&head), lines, "{text} {invert}");
            (test.field, test.one_line) = (Field::Header(http::header::CONTENT_TYPE), true);
            assert_eq!(test.matches(&head), one, "{text} {invert}, one line");
        }
    }

    #[test]
    fn query_parameters_are_decoded() {
        assert_eq!(
            query_value(b"/a?b=%31%zz&c", b"b").as_deref(),
            Some(&b"1%zz"[..])
        );
        assert_eq!(query_value(b"/a?b=1&c", b"c").as_deref(), Some(&b""[..]));
        assert_eq!(query_value(b"/a", b"c"), None);
    }

    #[test]
    fn text_patterns_fold_ascii_case() {
        let matches = |pattern, ignore_case, text: &str| {
            TextMatcher::new(&StringMatcher {
                pattern,
                ignore_case,
            })
            .matches(text.as_bytes())
        };
        assert!(matches(
            StringPattern::Contains("aBc".into()),
            true,
            "xxABcx"
        ));
        assert!(!matches(
            StringPattern::Contains("aBc".into()),
            false,
            "xxABcx"
        ));
        assert!(matches(StringPattern::Suffix("Z".into()), true, "az"));
        assert!(matches(StringPattern::Prefix("A".into()), true, "az"));
        assert!(!matches(StringPattern::Prefix("az".into()), true, "a"));
    }
}
