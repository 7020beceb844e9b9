//! Where and why a YAML document was refused.

use std::fmt;

use serde::de::{self, Unexpected};

/// A place in a text, as an editor counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// Line, the first is 1.
    pub line: u32,
    /// Column in characters, the first is 1.
    pub column: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// One step of a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// A key of a mapping.
    Key(String),
    /// An index of a sequence, the first is 0.
    Index(usize),
}

/// The way from a document's root to a field, for example `spec.http[0].match[1].uri`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(Vec<Segment>);

impl Path {
    /// The root.
    pub fn root() -> Self {
        Self::default()
    }

    /// The steps from the root.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// This path and one key more.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let mut segments = self.0.clone();
        segments.push(Segment::Key(key.to_owned()));
        Self(segments)
    }

    /// This path and one index more.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let mut segments = self.0.clone();
        segments.push(Segment::Index(index));
        Self(segments)
    }

    /// This path below `prefix`.
    #[must_use]
    pub fn below(&self, prefix: &Self) -> Self {
        Self(prefix.0.iter().chain(&self.0).cloned().collect())
    }
}

impl FromIterator<Segment> for Path {
    fn from_iter<I: IntoIterator<Item = Segment>>(segments: I) -> Self {
        Self(segments.into_iter().collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) if needs_quotes(key) => write!(f, "[{key:?}]")?,
                Segment::Key(key) if i == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

fn needs_quotes(key: &str) -> bool {
    key.is_empty() || key.contains(['.', '[', ']', ' ', '"'])
}

/// A refused text: what, where, in which field, and what would have been allowed.
///
/// [`Display`](fmt::Display) prints all of it on one line except the file, which the caller knows.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Box<Inner>);

#[derive(Clone, PartialEq, Eq, Default)]
struct Inner {
    message: String,
    location: Option<Location>,
    path: Option<Path>,
    allowed: Vec<String>,
    nearest: Option<String>,
    syntax: bool,
}

impl Error {
    /// An error with a text only.
    pub fn new(message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            message: message.into(),
            ..Inner::default()
        }))
    }

    /// An error of the text itself (not YAML, over a limit), after which nothing more can be read from it.
    pub(crate) fn syntax(message: impl Into<String>, location: Location) -> Self {
        let mut error = Self::new(message);
        error.0.location = Some(location);
        error.0.syntax = true;
        error
    }

    /// What is wrong, without place and path.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Where it is wrong, if known.
    pub fn location(&self) -> Option<Location> {
        self.0.location
    }

    /// The field concerned; the root when the whole document is.
    pub fn path(&self) -> Path {
        self.0.path.clone().unwrap_or_default()
    }

    /// The names or values that are allowed at this place; empty when they are not a short list.
    pub fn allowed(&self) -> &[String] {
        &self.0.allowed
    }

    /// The allowed name that looks most like the refused one.
    pub fn nearest(&self) -> Option<&str> {
        self.0.nearest.as_deref()
    }

    /// Whether the text itself is broken, so that nothing after this place could be read.
    pub fn is_syntax(&self) -> bool {
        self.0.syntax
    }

    /// Sets the names that are allowed instead of `word`, and the nearest of them. Where a name is allowed in camel case and
    /// with underscores (protobuf's two spellings), only the first is listed.
    #[must_use]
    pub fn with_allowed<'n>(
        mut self,
        word: &str,
        allowed: impl IntoIterator<Item = &'n str>,
    ) -> Self {
        let names: Vec<&str> = allowed.into_iter().collect();
        let twice = |name: &str| name.contains('_') && names.contains(&camel_case(name).as_str());
        self.0.allowed = names
            .iter()
            .filter(|n| !twice(n))
            .map(|n| (*n).to_owned())
            .collect();
        self.0.nearest =
            nearest(word, self.0.allowed.iter().map(String::as_str)).map(str::to_owned);
        self
    }

    /// Adds place and path unless a deeper level has set them already.
    #[must_use]
    pub fn or_at(mut self, location: Location, path: impl FnOnce() -> Path) -> Self {
        self.0.location.get_or_insert(location);
        self.0.path.get_or_insert_with(path);
        self
    }

    /// Replaces the location.
    #[must_use]
    pub fn at(mut self, location: Location) -> Self {
        self.0.location = Some(location);
        self
    }

    /// Replaces the path.
    #[must_use]
    pub fn in_field(mut self, path: Path) -> Self {
        self.0.path = Some(path);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = self.0.location {
            write!(f, "{location}: ")?;
        }
        if let Some(path) = self.0.path.as_ref().filter(|p| !p.is_root()) {
            write!(f, "{path}: ")?;
        }
        f.write_str(&self.0.message)?;
        if let Some(nearest) = &self.0.nearest {
            write!(f, "; did you mean `{nearest}`?")?;
        }
        if !self.0.allowed.is_empty() {
            write!(f, "; allowed: {}", self.0.allowed.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "yaml::Error({self})")
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match found {
            Unexpected::Map => "mapping".to_owned(),
            Unexpected::Seq => "list".to_owned(),
            Unexpected::Unit => "null".to_owned(),
            other => other.to_string(),
        };
        let expected = expected.to_string();
        // What derived code says of a type of ours, whose name tells the user nothing.
        let expected = match expected.as_str() {
            "a sequence" => "a list",
            name if name.starts_with("struct ") || name == "a map" => "a mapping",
            other => other,
        };
        Self::new(format!("invalid type: {found}, expected {expected}"))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown field `{field}`")).with_allowed(field, expected.iter().copied())
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown value `{variant}`"))
            .with_allowed(variant, expected.iter().copied())
    }
}

fn camel_case(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    for part in name.split('_') {
        match part.chars().next() {
            Some(first) if !camel.is_empty() => {
                camel.push(first.to_ascii_uppercase());
                camel.push_str(&part[first.len_utf8()..]);
            }
            _ => camel.push_str(part),
        }
    }
    camel
}

/// The candidate that looks most like `word`: fewest edits (insert, delete, replace, swap of neighbours), letter case
/// not counted, and at most a third of the word's length (at least one, at most four).
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // A name longer than any that exists cannot be near one; the bound keeps hostile input cheap.
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    let length = lower.chars().count();
    let limit = (length / 3).clamp(1, 4);
    candidates
        .into_iter()
        .filter(|c| c.chars().count().abs_diff(length) <= limit)
        .map(|c| (edit_distance(&lower, &c.to_lowercase()), c))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

/// Edit distance with swaps of neighbours (optimal string alignment).
fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let width = b.len() + 1;
    let mut table: Vec<usize> = (0..width).collect();
    for i in 1..=a.len() {
        table.push(i);
        for j in 1..=b.len() {
            let above = table[(i - 1) * width + j] + 1;
            let left = table[i * width + j - 1] + 1;
            let diagonal = table[(i - 1) * width + j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = above.min(left).min(diagonal);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(table[(i - 2) * width + j - 2] + 1);
            }
            table.push(best);
        }
    }
    table[a.len() * width + b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_swaps_case_and_gives_up_on_far_words() {
        assert_eq!(nearest("uir", ["uri", "scheme"]), Some("uri"));
        assert_eq!(
            nearest("prefixrewrite", ["prefixRewrite"]),
            Some("prefixRewrite")
        );
        assert_eq!(
            nearest("destnation", ["destination", "weight"]),
            Some("destination")
        );
        assert_eq!(nearest("xyz", ["destination", "weight"]), None);
    }

    #[test]
    fn path_quotes_keys_that_hold_separators() {
        let path = Path::root().key("spec").key("http").index(0).key("a.b");
        assert_eq!(path.to_string(), "spec.http[0][\"a.b\"]");
    }
}
