//! First pass over a text: which objects it holds. Kind and version may stand after the content that they explain.

use crate::yaml::{Error, Events, Limits, Location, Path, Reader, Token};

/// What an object says about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Head {
    pub(super) location: Location,
    pub(super) api_version: Option<(String, Location)>,
    pub(super) kind: Option<(String, Location)>,
    pub(super) name: String,
    pub(super) namespace: String,
    /// Top-level keys, to name the nearest when one of the two above is missing.
    pub(super) keys: Vec<(String, Location)>,
    /// The objects of a list.
    pub(super) items: Vec<Head>,
}

impl Head {
    /// Whether this is `kind: List` or another list kind with items.
    pub(super) fn is_list(&self) -> bool {
        let kind = self.kind.as_ref().map_or("", |(k, _)| k);
        kind == "List" || (kind.ends_with("List") && self.keys.iter().any(|(k, _)| k == "items"))
    }

    /// Takes from a merged mapping what is not said here.
    fn merge(&mut self, other: Self) {
        self.api_version = self.api_version.take().or(other.api_version);
        self.kind = self.kind.take().or(other.kind);
        // Metadata of one's own stands for itself.
        if !self.keys.iter().any(|(key, _)| key == "metadata") {
            for (own, merged) in [
                (&mut self.name, other.name),
                (&mut self.namespace, other.namespace),
            ] {
                if own.is_empty() {
                    *own = merged;
                }
            }
        }
        self.keys.extend(other.keys);
    }

    /// Checks that a list has each of its own fields once, and no other, and holds no list.
    pub(super) fn check_list(&self) -> Result<(), Error> {
        const FIELDS: [&str; 4] = ["apiVersion", "kind", "metadata", "items"];
        for (place, (key, at)) in self.keys.iter().enumerate() {
            let message = if self.keys[..place].iter().any(|(other, _)| other == key) {
                format!("duplicate key `{key}`")
            } else if FIELDS.contains(&key.as_str()) {
                continue;
            } else {
                format!("unknown field `{key}`")
            };
            let error = Error::syntax(message, *at).with_allowed(key, FIELDS);
            return Err(error.in_field(Path::root().key(key)));
        }
        let items = Path::root().key("items");
        if !self.keys.iter().any(|(key, _)| key == "items") {
            return Err(Error::syntax("items is required", self.location));
        }
        match self.items.iter().position(Self::is_list) {
            Some(index) => Err(
                Error::syntax("a list within a list", self.items[index].location)
                    .in_field(items.index(index)),
            ),
            None => Ok(()),
        }
    }
}

/// The key of YAML's merged mappings.
const MERGE: &str = "<<";

/// The heads of all documents, and the error that ended the text too early.
pub(super) fn scan(text: &str, limits: &Limits) -> Result<Vec<Head>, Error> {
    let mut reader = Reader::new(text, limits);
    let mut heads = Vec::new();
    while reader.next_document()?.is_some() {
        heads.push(head(reader.events(), 0)?);
    }
    Ok(heads)
}

fn head(events: &mut Events<'_>, level: usize) -> Result<Head, Error> {
    let depth = events.depth();
    let (token, location) = events.next()?;
    let mut head = Head {
        location,
        ..Head::default()
    };
    if token != Token::MappingStart {
        events.close_to(depth)?;
        return Ok(head);
    }
    let mut merged = Vec::new();
    while let Some((key, at)) = key(events)? {
        match key.as_str() {
            "apiVersion" => head.api_version = scalar(events)?,
            "kind" => head.kind = scalar(events)?,
            "metadata" => metadata(events, &mut head)?,
            "items" if level == 0 => head.items = items(events)?,
            MERGE => merged.push(self::head(events, level)?),
            _ => events.skip_node()?,
        }
        head.keys.push((key, at));
    }
    for other in merged {
        head.merge(other);
    }
    Ok(head)
}

fn items(events: &mut Events<'_>) -> Result<Vec<Head>, Error> {
    let depth = events.depth();
    let (token, _) = events.next()?;
    let mut items = Vec::new();
    if token == Token::SequenceStart {
        while events.peek()?.0 != Token::SequenceEnd {
            items.push(head(events, 1)?);
        }
    }
    events.close_to(depth)?;
    Ok(items)
}

fn metadata(events: &mut Events<'_>, head: &mut Head) -> Result<(), Error> {
    let depth = events.depth();
    let (token, _) = events.next()?;
    if token != Token::MappingStart {
        return events.close_to(depth);
    }
    let mut merged = Head::default();
    while let Some((key, _)) = key(events)? {
        match key.as_str() {
            "name" => head.name = scalar(events)?.unwrap_or_default().0,
            "namespace" => head.namespace = scalar(events)?.unwrap_or_default().0,
            MERGE => metadata(events, &mut merged)?,
            _ => events.skip_node()?,
        }
    }
    head.merge(merged);
    Ok(())
}

/// The next key of a mapping; `None` once its end is read. Keys that are no words are left to the second pass.
fn key(events: &mut Events<'_>) -> Result<Option<(String, Location)>, Error> {
    loop {
        let depth = events.depth();
        match events.next()? {
            (Token::MappingEnd, _) => return Ok(None),
            (Token::Scalar { text, .. }, location) => {
                return Ok(Some((text.into_owned(), location)));
            }
            _ => {
                events.close_to(depth)?;
                events.skip_node()?;
            }
        }
    }
}

fn scalar(events: &mut Events<'_>) -> Result<Option<(String, Location)>, Error> {
    let depth = events.depth();
    let (token, location) = events.next()?;
    events.close_to(depth)?;
    Ok(match token {
        Token::Scalar { text, .. } => Some((text.into_owned(), location)),
        _ => None,
    })
}
