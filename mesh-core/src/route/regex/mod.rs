//! Regular expressions with RE2's meaning.

#[cfg(feature = "regex")]
mod class;
#[cfg(feature = "regex")]
mod translate;

use std::borrow::Cow;

use crate::model::RegexError;

/// A compiled expression: whole-match over bytes, groups for substitution.
#[derive(Clone, Debug)]
pub struct Program {
    #[cfg(feature = "regex")]
    inner: std::sync::Arc<engine::Inner>,
    #[cfg(not(feature = "regex"))]
    never: std::convert::Infallible,
}

/// A parsed substitution: text with `\0` (the match), `\1` … `\9` (its groups) and `\\`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Substitution {
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<[u8]>),
    Group(usize),
}

impl Substitution {
    /// Parses `text`.
    ///
    /// # Errors
    ///
    /// A reason, if a `\` is followed by anything but a digit or `\`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            if byte != b'\\' {
                literal.push(byte);
                continue;
            }
            match bytes.next() {
                Some(b'\\') => literal.push(b'\\'),
                Some(digit @ b'0'..=b'9') => {
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal).into()));
                    }
                    parts.push(Part::Group(usize::from(digit - b'0')));
                }
                _ => {
                    return Err(format!(
                        "invalid substitution {text:?}: after \\ only a digit or \\ is allowed"
                    ));
                }
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(Self {
            parts: parts.into(),
        })
    }

    /// The highest group that is named.
    pub fn groups(&self) -> usize {
        let group = |part: &Part| match part {
            Part::Group(group) => *group,
            Part::Literal(_) => 0,
        };
        self.parts.iter().map(group).max().unwrap_or(0)
    }

    #[cfg(feature = "regex")]
    fn write<'t>(&self, group: impl Fn(usize) -> &'t [u8], out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text),
                Part::Group(index) => out.extend_from_slice(group(*index)),
            }
        }
    }
}

#[cfg(feature = "regex")]
mod engine {
    use std::sync::OnceLock;

    use super::*;
    use regex_automata::{
        Input,
        meta::{Config, Regex},
    };
    use regex_syntax::hir::{Hir, Look};

    /// Most bytes of an automaton. RE2 with its own default refuses at about the same complexity.
    const SIZE_LIMIT: usize = 10 << 20;
    /// Deepest nesting of groups. RE2 takes 1,000; the compiler recurses, and a thread's stack must hold that.
    const DEPTH_LIMIT: u32 = 200;

    #[derive(Debug)]
    pub(super) struct Inner {
        hir: Hir,
        whole: Regex,
        /// Only substitutions search.
        search: OnceLock<Option<Regex>>,
    }

    fn build(hir: &Hir) -> Result<Regex, String> {
        let config = Config::new().nfa_size_limit(Some(SIZE_LIMIT)).dfa(false);
        Regex::builder()
            .configure(config)
            .build_from_hir(hir)
            .map_err(|error| match error.size_limit() {
                Some(limit) => format!("pattern too large - compile failed (over {limit} bytes)"),
                None => error.to_string(),
            })
    }

    impl Inner {
        pub(super) fn compile(pattern: &str) -> Result<Self, String> {
            let hir = regex_syntax::ParserBuilder::new()
                .utf8(false)
                .nest_limit(DEPTH_LIMIT)
                .build()
                .parse(&translate::translate(pattern)?)
                .map_err(|error| reason(&error))?;
            let whole = Hir::concat(vec![
                Hir::look(Look::Start),
                hir.clone(),
                Hir::look(Look::End),
            ]);
            Ok(Self {
                hir,
                whole: build(&whole)?,
                search: OnceLock::new(),
            })
        }

        pub(super) fn is_match(&self, text: &[u8]) -> bool {
            self.whole.is_match(Input::new(text))
        }

        pub(super) fn groups(&self) -> usize {
            self.whole.captures_len() - 1
        }

        pub(super) fn captures<'t>(&self, text: &'t [u8]) -> Option<Vec<&'t [u8]>> {
            let mut captures = self.whole.create_captures();
            self.whole.captures(text, &mut captures);
            captures.is_match().then(|| {
                captures
                    .iter()
                    .map(|span| span.map_or(&b""[..], |span| &text[span.range()]))
                    .collect()
            })
        }

        pub(super) fn replace_all<'t>(&self, text: &'t [u8], with: &Substitution) -> Cow<'t, [u8]> {
            let Some(search) = self.search.get_or_init(|| build(&self.hir).ok()) else {
                return Cow::Borrowed(text);
            };
            if with.groups() > self.groups() {
                return Cow::Borrowed(text);
            }
            let mut out = Vec::new();
            let mut last = 0;
            for captures in search.captures_iter(text) {
                let Some(found) = captures.get_match() else {
                    continue;
                };
                out.extend_from_slice(&text[last..found.start()]);
                let group = |index| {
                    captures
                        .get_group(index)
                        .map_or(&b""[..], |span| &text[span.range()])
                };
                with.write(group, &mut out);
                last = found.end();
            }
            if last == 0 && out.is_empty() {
                return Cow::Borrowed(text);
            }
            out.extend_from_slice(&text[last..]);
            Cow::Owned(out)
        }
    }

    /// The parser's error without the pattern, which was translated and would confuse.
    fn reason(error: &regex_syntax::Error) -> String {
        match error {
            regex_syntax::Error::Parse(error) => error.kind().to_string(),
            regex_syntax::Error::Translate(error) => error.kind().to_string(),
            other => other.to_string(),
        }
    }
}

#[cfg(feature = "regex")]
impl Program {
    /// Compiles `pattern`.
    ///
    /// # Errors
    ///
    /// [`RegexError`] with the reason.
    pub fn compile(pattern: &str) -> Result<Self, RegexError> {
        let inner = engine::Inner::compile(pattern).map_err(|reason| RegexError {
            pattern: pattern.to_owned(),
            reason,
        })?;
        Ok(Self {
            inner: inner.into(),
        })
    }

    /// Whether all of `text` matches.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.inner.is_match(text)
    }

    /// How many groups the expression has.
    pub fn groups(&self) -> usize {
        self.inner.groups()
    }

    /// The match of all of `text` and its groups, if it matches.
    pub fn captures<'t>(&self, text: &'t [u8]) -> Option<Vec<&'t [u8]>> {
        self.inner.captures(text)
    }

    /// Replaces each match. As RE2 does, a substitution that names a group which does not exist changes nothing.
    pub fn replace_all<'t>(&self, text: &'t [u8], with: &Substitution) -> Cow<'t, [u8]> {
        self.inner.replace_all(text, with)
    }
}

#[cfg(not(feature = "regex"))]
impl Program {
    /// Compiles `pattern`.
    ///
    /// # Errors
    ///
    /// Always: the feature `regex` is absent.
    pub fn compile(pattern: &str) -> Result<Self, RegexError> {
        Err(RegexError {
            pattern: pattern.to_owned(),
            reason: "needs the feature `regex` of mesh-core".to_owned(),
        })
    }

    /// Whether all of `text` matches.
    pub fn is_match(&self, _text: &[u8]) -> bool {
        match self.never {}
    }

    /// How many groups the expression has.
    pub fn groups(&self) -> usize {
        match self.never {}
    }

    /// The match of all of `text` and its groups, if it matches.
    pub fn captures<'t>(&self, _text: &'t [u8]) -> Option<Vec<&'t [u8]>> {
        match self.never {}
    }

    /// Replaces each match.
    pub fn replace_all<'t>(&self, _text: &'t [u8], _with: &Substitution) -> Cow<'t, [u8]> {
        match self.never {}
    }
}

#[cfg(all(test, feature = "regex"))]
mod tests;
