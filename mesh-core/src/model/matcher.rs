//! Matchers of text, headers, query parameters and metadata.

use super::{Cidr, Name, Regex};

/// A predicate over text (`type.matcher.v3.StringMatcher`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StringMatcher {
    /// What is compared.
    pub pattern: StringPattern,
    /// ASCII case is ignored (`ignore_case`; no effect on a regex).
    pub ignore_case: bool,
}

/// The forms of a [`StringMatcher`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StringPattern {
    /// The whole text.
    Exact(Name),
    /// A start.
    Prefix(Name),
    /// An end.
    Suffix(Name),
    /// A part.
    Contains(Name),
    /// The whole text matches the expression.
    Regex(Regex),
}

/// A predicate over one request header (`config.route.v3.HeaderMatcher`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatcher {
    /// Lower case; may be a pseudo header such as `:method`.
    pub name: Name,
    /// What the value must be.
    pub value: HeaderValueMatcher,
    /// The result is turned round (`invert_match`).
    pub invert: bool,
    /// An absent header counts as an empty value (`treat_missing_header_as_empty`).
    pub missing_as_empty: bool,
}

/// The forms of a [`HeaderMatcher`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderValueMatcher {
    /// Presence (`true`) or absence (`false`).
    Present(bool),
    /// Several values of one header are joined by `,` first.
    String(StringMatcher),
    /// A base-10 integer in `[start, end)`.
    Range {
        /// First value that matches.
        start: i64,
        /// First value after those that match.
        end: i64,
    },
}

/// A predicate over a query parameter (`config.route.v3.QueryParameterMatcher`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryMatcher {
    /// Name of the parameter, case-sensitive.
    pub name: Name,
    /// `None`: the parameter is present.
    pub value: Option<StringMatcher>,
    /// Instead of `value`: whether the parameter must be present.
    pub present: Option<bool>,
}

/// A predicate over the first cookie of a name (`config.route.v3.CookieMatcher`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieMatcher {
    /// Name of the cookie, case-sensitive.
    pub name: Name,
    /// Its value, without the quotes around it.
    pub value: StringMatcher,
    /// Matches where the value does not, or where there is no such cookie (`invert_match`).
    pub invert: bool,
}

/// A predicate over dynamic metadata or filter state (`type.matcher.v3.MetadataMatcher`, `FilterStateMatcher`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataMatcher {
    /// Filter namespace, or the key of the filter state.
    pub namespace: Name,
    /// Path of keys below it.
    pub path: Vec<Name>,
    /// What the value must be.
    pub value: ValueMatcher,
    /// The result is turned round.
    pub invert: bool,
}

/// A predicate over a [`super::Value`] (`type.matcher.v3.ValueMatcher`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueMatcher {
    /// JSON null.
    Null,
    /// A number, exact: its shortest decimal text.
    Number(Name),
    /// A number in `[start, end)`, as decimal texts.
    NumberRange(Name, Name),
    /// Text.
    String(StringMatcher),
    /// A boolean.
    Bool(bool),
    /// Any value, or none.
    Present(bool),
    /// One element of the list matches.
    List(Box<ValueMatcher>),
    /// One of these matches.
    Or(Vec<ValueMatcher>),
    /// An IP address in one of the blocks (`AddressMatcher`); turned round if the flag is set.
    Address(Vec<Cidr>, bool),
}

/// A path template such as `/v1/{name=shelves/*}/books` (`extensions.path.match.uri_template.v3`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    /// As configured; parsed by the route compiler.
    pub text: Name,
}
