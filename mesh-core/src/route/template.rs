//! URI templates: `/v1/{shelf}/books/{rest=**}` as match, `/{rest}` as rewrite (`extensions.path.*.uri_template.v3`).
//!
//! A match becomes an expression with one group for each variable, so that the one engine decides both.

use super::regex::Program;
use crate::model::Regex;

/// One character that `*` stands for.
const SEGMENT: &str = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=*]";
/// The same and `/`, for `**`.
const SEGMENTS: &str = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=*/]";
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
        builder.pattern.push('/');
        builder.segments(rest)?;
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

/// Whether a template may hold it as it is.
fn is_literal(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-._~%!$&'()+,;:@=*".contains(character)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[derive(Default)]
struct Builder {
    pattern: String,
    variables: Vec<Box<str>>,
    /// `**` was there: nothing but literal text may follow.
    ended: bool,
}

impl Builder {
    /// A segment is a text, an operator, behind the last of which a text may stand, or a variable with a text before and
    /// behind it.
    fn segments(&mut self, mut rest: &str) -> Result<(), String> {
        while !rest.is_empty() {
            rest = self.segment(rest)?;
            if let Some(after) = rest.strip_prefix('/') {
                self.pattern.push('/');
                rest = after;
            }
        }
        Ok(())
    }

    /// Takes in what stands before the next slash and returns the rest.
    fn segment<'t>(&mut self, text: &'t str) -> Result<&'t str, String> {
        if text.starts_with('*') {
            let stars = if text.starts_with("**") { 2 } else { 1 };
            self.glob(stars == 2)?;
            let (suffix, rest) = until_slash(&text[stars..]);
            if suffix.is_empty() {
                return Ok(rest);
            }
            self.literal(suffix)?;
            return match rest {
                "" => Ok(rest),
                _ => Err(format!("{rest:?} follows the text {suffix:?} behind a *")),
            };
        }
        let (piece, rest) = until_slash(text);
        let at = match piece.find('{') {
            Some(at) if at == 0 || piece.contains('}') => at,
            _ => return self.literal(piece).map(|()| rest),
        };
        if at > 0 {
            self.literal(&text[..at])?;
        }
        let (variable, rest) = text[at + 1..].split_once('}').ok_or("{ without }")?;
        self.variable(variable)?;
        let (suffix, rest) = until_slash(rest);
        if !suffix.is_empty() {
            self.literal(suffix)?;
        }
        Ok(rest)
    }

    fn variable(&mut self, text: &str) -> Result<(), String> {
        let (name, inner) = match text.split_once('=') {
            Some((name, inner)) => (name, inner),
            None => (text, "*"),
        };
        if name.len() > 16 || !is_name(name) {
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
                other if other.starts_with('*') => {
                    return Err(format!("{other:?} in variable {name:?}"));
                }
                literal => self.literal(literal)?,
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

    /// A `*` in it repeats the character before it, as in Envoy, which escapes all others.
    fn literal(&mut self, text: &str) -> Result<(), String> {
        if text.is_empty() {
            return Err("an empty segment".to_owned());
        }
        for character in text.chars() {
            if !is_literal(character) {
                return Err(format!("{character:?} is not allowed in a path"));
            }
            if !character.is_ascii_alphanumeric() && character != '*' {
                self.pattern.push('\\');
            }
            self.pattern.push(character);
        }
        Ok(())
    }
}

fn until_slash(text: &str) -> (&str, &str) {
    text.split_at(text.find('/').unwrap_or(text.len()))
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

impl Part {
    fn literal(text: &str) -> Result<Self, String> {
        match text.chars().find(|c| *c != '/' && !is_literal(*c)) {
            Some(character) => Err(format!("{character:?} is not allowed in a path")),
            None => Ok(Self::Literal(text.into())),
        }
    }
}

impl TemplateRewrite {
    /// Compiles `text` against the match that it belongs to; the error is a reason.
    pub(crate) fn parse(text: &str, template: &Template) -> Result<Self, String> {
        if !text.starts_with('/') || text.contains("//") {
            return Err("a rewrite template begins with / and holds no //".to_owned());
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
            parts.push(Part::literal(literal)?);
            parts.push(Part::Variable(index));
            rest = after;
        }
        parts.push(Part::literal(rest)?);
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
            "//a",
            "/a//b",
            "/a//",
            "/v{a=b/*}",
            "/{a}v{b}",
            "/v{a}{b}",
            "/{a}{b}/c",
            "/v}a",
            "/v{a",
            "/*.ts/b",
            "/**.ts/",
            "/{a=}",
            "/{a=/b}",
            "/{a=b/}",
            "/{a=*b}",
            "/{a=***}",
            "/{a}?b",
            "/***",
            "/b/a**",
            "/{a12345678901234567}",
            "/{a}/{b}/{c}/{d}/{e}/{f}",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bad_rewrites_are_refused() {
        let template = Template::parse("/{a}/{b}").expect("a template");
        for text in [
            "", "{a}", "a/{b}", "//{a}", "/{a}//x", "/{c}", "/{}", "/{{a}}", "/}{a}", "/{a",
            "/a b", "/{a}?b", "/{a}#b",
        ] {
            assert!(TemplateRewrite::parse(text, &template).is_err(), "{text}");
        }
        for text in ["/", "/{b}{a}", "/{a}-{a}/", "/x*y/{b}", "/%20{a}=b"] {
            assert!(TemplateRewrite::parse(text, &template).is_ok(), "{text}");
        }
    }

    /// Envoy takes a star in a text for the expression's own. Measured with Envoy 1.40.
    #[test]
    fn a_star_stands_for_stars_and_within_a_text_for_repetition() {
        for (template, path, matched) in [
            ("/*", "/a*b", true),
            ("/*", "/*", true),
            ("/**", "/a/*/b", true),
            ("/ab*c", "/abbc", true),
            ("/ab*c", "/ac", true),
            ("/ab*c", "/ab*c", false),
            ("/", "/", true),
            ("/", "/a", false),
            ("/a/", "/a/", true),
            ("/a/", "/a", false),
            ("/*/", "/b/", true),
            ("/*_end", "/b_end", true),
            ("/a.b", "/axb", false),
            ("/{x=a/*/b}.ts", "/a/1/b.ts", true),
            ("/{x=a/*}w/b", "/a/1w/b", true),
            ("/v{x}/b", "/v1/b", true),
            ("/v{x}/b", "/1/b", false),
            ("/v{x}.t/{y}", "/v1.t/2", true),
            ("/v{x=**}w", "/v/1/2w", true),
        ] {
            let seen = Template::parse(template).expect("a template");
            assert_eq!(seen.matches(path.as_bytes()), matched, "{template} {path}");
        }
    }
}
