//! URI templates: `/v1/{shelf}/books/{rest=**}` as match, `/{rest}` as rewrite (`extensions.path.*.uri_template.v3`).
//!
//! A match becomes an expression with one group for each variable, so that the one engine decides both.

use std::fmt::Write as _;

use super::regex::Program;
use crate::model::Regex;

/// One character that `*` stands for: those of a path segment but `*` itself.
const SEGMENT: &str = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=]";
/// The same and `/`, for `**`.
const SEGMENTS: &str = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=/]";
/// Most variables in one template, as in Envoy.
const MAX_VARIABLES: usize = 5;

/// A compiled match template.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    program: Program,
    variables: Vec<Box<str>>,
}

impl Template {
    /// Compiles `text`; the error is a reason.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut builder = Builder::default();
        let rest = text
            .strip_prefix('/')
            .ok_or_else(|| "a template begins with /".to_owned())?;
        let segments = split(rest)?;
        for segment in &segments {
            builder.pattern.push('/');
            builder.segment(segment)?;
        }
        let regex = Regex::parse(&builder.pattern).map_err(|error| error.to_string())?;
        Ok(Self {
            program: regex.program().clone(),
            variables: builder.variables,
        })
    }

    /// Whether the path, without its query, matches.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        self.program.is_match(path)
    }

    /// The values of the variables.
    fn values<'t>(&self, path: &'t [u8]) -> Option<Vec<&'t [u8]>> {
        let mut groups = self.program.captures(path)?;
        groups.remove(0);
        Some(groups)
    }
}

/// Splits at `/` outside braces.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let mut segments = Vec::new();
    let (mut start, mut inside) = (0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' if inside => return Err("a variable inside a variable".to_owned()),
            b'{' => inside = true,
            b'}' if !inside => return Err("} without {".to_owned()),
            b'}' => inside = false,
            b'/' if !inside => {
                segments.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err("{ without }".to_owned());
    }
    segments.push(&text[start..]);
    Ok(segments)
}

#[derive(Default)]
struct Builder {
    pattern: String,
    variables: Vec<Box<str>>,
    /// `**` was there: nothing but literal text may follow.
    ended: bool,
}

impl Builder {
    fn segment(&mut self, text: &str) -> Result<(), String> {
        let mut rest = text;
        let mut operators = 0;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('{') {
                let (variable, after) = after.split_once('}').ok_or("{ without }")?;
                self.variable(variable)?;
                operators += 1;
                rest = after;
            } else if rest.starts_with('*') {
                let stars = if rest.starts_with("**") { 2 } else { 1 };
                self.glob(stars == 2)?;
                operators += 1;
                rest = &rest[stars..];
            } else {
                let end = rest.find(['{', '*']).unwrap_or(rest.len());
                self.literal(&rest[..end])?;
                rest = &rest[end..];
            }
        }
        if operators > 1 {
            return Err(format!("more than one variable or * in {text:?}"));
        }
        Ok(())
    }

    fn variable(&mut self, text: &str) -> Result<(), String> {
        let (name, inner) = match text.split_once('=') {
            Some((name, inner)) => (name, inner),
            None => (text, "*"),
        };
        let valid = name.len() <= 16
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !valid {
            return Err(format!("{name:?} is no name of a variable"));
        }
        if self.variables.iter().any(|known| **known == *name) {
            return Err(format!("variable {name:?} stands twice"));
        }
        if self.variables.len() == MAX_VARIABLES {
            return Err(format!("more than {MAX_VARIABLES} variables"));
        }
        self.variables.push(name.into());
        self.pattern.push('(');
        for (index, segment) in inner.split('/').enumerate() {
            if index > 0 {
                self.pattern.push('/');
            }
            match segment {
                "*" => self.glob(false)?,
                "**" => self.glob(true)?,
                "" => return Err(format!("an empty segment in variable {name:?}")),
                literal if !literal.contains('*') => self.literal(literal)?,
                other => return Err(format!("{other:?} in variable {name:?}")),
            }
        }
        self.pattern.push(')');
        Ok(())
    }

    fn glob(&mut self, many: bool) -> Result<(), String> {
        if self.ended {
            return Err("** must be the last".to_owned());
        }
        self.ended = many;
        self.pattern.push_str(if many { SEGMENTS } else { SEGMENT });
        self.pattern.push(if many { '*' } else { '+' });
        Ok(())
    }

    fn literal(&mut self, text: &str) -> Result<(), String> {
        for character in text.chars() {
            let allowed =
                character.is_ascii_alphanumeric() || "-._~%!$&'()+,;:@=".contains(character);
            if !allowed {
                return Err(format!("{character:?} is not allowed in a path"));
            }
            if !character.is_ascii_alphanumeric() {
                self.pattern.push('\\');
            }
            self.pattern.push(character);
        }
        Ok(())
    }
}

/// A compiled rewrite template.
#[derive(Clone, Debug)]
pub(crate) struct TemplateRewrite {
    template: Template,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(Box<str>),
    Variable(usize),
}

impl TemplateRewrite {
    /// Compiles `text` against the match that it belongs to; the error is a reason.
    pub(crate) fn parse(text: &str, template: &Template) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err("a rewrite template begins with /".to_owned());
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or("{ without }")?;
            let index = template
                .variables
                .iter()
                .position(|known| **known == *name)
                .ok_or_else(|| format!("the match has no variable {name:?}"))?;
            parts.push(Part::Literal(literal.into()));
            parts.push(Part::Variable(index));
            rest = after;
        }
        parts.push(Part::Literal(rest.into()));
        if text.contains('*') || text.contains("//") {
            let mut reason = String::from("* and // are not allowed in a rewrite");
            // Writing to a `String` cannot fail.
            let _ = write!(reason, " ({text:?})");
            return Err(reason);
        }
        Ok(Self {
            template: template.clone(),
            parts,
        })
    }

    /// The new path; `None` if `path` does not match.
    pub(crate) fn rewrite(&self, path: &[u8]) -> Option<Vec<u8>> {
        let values = self.template.values(path)?;
        let mut out = Vec::with_capacity(path.len());
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Variable(index) => out.extend_from_slice(values.get(*index)?),
            }
        }
        Some(out)
    }
}

#[cfg(all(test, feature = "regex"))]
mod tests {
    use super::*;

    fn rewrite(template: &str, to: &str, path: &str) -> Option<String> {
        let template = Template::parse(template).expect("a template");
        let rewrite = TemplateRewrite::parse(to, &template).expect("a rewrite");
        rewrite
            .rewrite(path.as_bytes())
            .map(|path| String::from_utf8(path).expect("UTF-8"))
    }

    #[test]
    fn variables_move_into_the_rewrite() {
        for (template, to, path, wanted) in [
            (
                "/rest/{one}/{two}",
                "/{two}/{one}",
                "/rest/a/b",
                Some("/b/a"),
            ),
            ("/rest/{one}/{two}", "/{two}/{one}", "/rest/a", None),
            ("/a/{x=**}", "/{x}", "/a/b/c", Some("/b/c")),
            (
                "/a/{x=videos/*}/end",
                "/{x}",
                "/a/videos/z/end",
                Some("/videos/z"),
            ),
            ("/a/{x}.m3u8", "/{x}", "/a/song.m3u8", Some("/song")),
            ("/a/*/{x}", "/{x}", "/a/b/c", Some("/c")),
            ("/**.mpd", "/x", "/a/b.mpd", Some("/x")),
        ] {
            assert_eq!(
                rewrite(template, to, path).as_deref(),
                wanted,
                "{template} {path}"
            );
        }
    }

    #[test]
    fn bad_templates_are_refused() {
        for text in [
            "a",
            "/{",
            "/}",
            "/{a}/{a}",
            "/{a{b}}",
            "/**/*",
            "/{1}",
            "/*{a}",
            "/a b",
            "/{a=**}/{b}",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
