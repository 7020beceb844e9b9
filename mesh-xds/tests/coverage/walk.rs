//! Visits every message that a document can hold, and sets each of its fields.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

use mesh_core::model::Note;
use mesh_xds::json::schema::{Field, Kind, Message};
use serde_json::{Value, json};

use super::{
    CLOSED, Decode, EXTENSIONS, SILENT, Seen, UNENTERED,
    samples::{least, samples},
};

/// A document in which a message stands, and what is seen of it.
struct Place {
    document: Rc<Value>,
    base: Rc<Seen>,
    pointer: String,
    message: Message,
}

/// Sets every field of every message that the document holds, and of those that can be put into it: each is visited once for
/// each field that can hold it.
pub(super) fn play(name: &str, text: &str, decode: Decode) {
    let root: Value = mesh_xds::yaml::from_str(text).expect("well-formed");
    let base = decode(name, &root).expect("accepted by the schema");
    assert_eq!(
        base.findings.rejections,
        [],
        "the base document is accepted"
    );
    let mut walk = Walk {
        name,
        decode,
        places: VecDeque::new(),
        held: BTreeSet::new(),
        visited: BTreeSet::new(),
        shut: BTreeMap::new(),
        known: BTreeSet::new(),
        silent: BTreeSet::new(),
        unplayed: BTreeSet::new(),
        unnamed: BTreeSet::new(),
        played: 0,
        extensions: extensions(),
    };
    let message = Message::find(name).expect("known");
    walk.collect(&Rc::new(root), &Rc::new(base), message);
    while let Some(place) = walk.places.pop_front() {
        walk.visit(&place);
    }
    walk.judge();
}

struct Walk<'w> {
    name: &'w str,
    decode: Decode,
    places: VecDeque<Place>,
    /// Fields whose messages were visited, or are seen as a whole.
    held: BTreeSet<String>,
    /// Messages that were visited, wherever they stand.
    visited: BTreeSet<&'static str>,
    /// Fields whose messages could not be put in: the message, and why.
    shut: BTreeMap<String, (&'static str, String)>,
    /// Fields whose messages were put in already.
    known: BTreeSet<String>,
    silent: BTreeSet<String>,
    /// Fields for which no value keeps the rules of the API.
    unplayed: BTreeSet<String>,
    /// Extensions that nobody names.
    unnamed: BTreeSet<String>,
    played: usize,
    extensions: Vec<Message>,
}

impl Walk<'_> {
    fn judge(mut self) {
        println!(
            "{}: {} fields were played, {} messages put in",
            self.name,
            self.played,
            self.known.len()
        );
        assert!(self.played > 40, "{} fields were played", self.played);
        assert_eq!(self.silent, BTreeSet::new(), "read in silence");
        assert_eq!(self.unplayed, BTreeSet::new(), "without a value");
        assert_eq!(self.unnamed, BTreeSet::new(), "extensions without a word");
        let excused = |full: &str| UNENTERED.iter().any(|(name, _)| full.starts_with(name));
        self.shut.retain(|full, (message, _)| {
            !self.held.contains(full) && !self.visited.contains(message) && !excused(full)
        });
        // What the smallest message is refused for: such messages are visited where a document holds them.
        for (full, (_, why)) in &self.shut {
            println!("    not entered: {full}: {why}");
        }
    }

    fn decode(&self, document: &Value) -> Result<Seen, String> {
        (self.decode)(self.name, document)
    }

    fn visit(&mut self, place: &Place) {
        self.visited.insert(place.message.name());
        for field in place.message.fields() {
            let full = format!("{}.{}", place.message.name(), field.name);
            let excused = |word: &str| SILENT.iter().any(|(name, _)| *name == word);
            if excused(place.message.name()) {
                continue;
            }
            self.enter(place, &field, &full);
            if !excused(&full) {
                self.set(place, &field, &full);
            }
        }
    }

    /// Sets the field. What the schema or the rules of the API refuse says nothing.
    fn set(&mut self, place: &Place, field: &Field, full: &str) {
        let documents = with(&place.document, &place.pointer, place.message, field);
        if documents.is_empty() {
            return;
        }
        self.played += 1;
        let outcomes: Vec<(Value, bool)> = documents
            .into_iter()
            .filter_map(|(value, document)| {
                let seen = self.decode(&document).ok()?;
                Some((value, seen != *place.base))
            })
            .collect();
        if outcomes.is_empty() {
            self.unplayed.insert(full.to_owned());
            return;
        }
        let at = &place.pointer;
        let path = format!("{}.{}", path_of(at), field.name);
        let mut notes = place.base.findings.notes.iter();
        // It is listed whatever it is.
        if notes.any(|note| *note.path == *path) {
            return;
        }
        // Each value of an enum means something else.
        if let Kind::Enum(Some(target)) = field.kind
            && !field.repeated
        {
            for (value, changed) in &outcomes {
                let name = value.as_str().unwrap_or_default();
                let word = format!("{full}={name}");
                let excused = SILENT.iter().any(|(name, _)| *name == word);
                if !changed && !excused && target.number(name) != Some(0) {
                    self.silent.insert(format!("{word} at {at}"));
                }
            }
        } else if outcomes.iter().all(|(_, changed)| !changed) {
            self.silent.insert(format!("{full} at {at}"));
        }
    }

    /// Puts the messages that the field can hold into the document, one at a time; those that are taken, and are not ignored as
    /// a whole, are places to visit.
    fn enter(&mut self, place: &Place, field: &Field, full: &str) {
        let Some(inner) = held(field) else {
            return;
        };
        let any = inner.name() == "google.protobuf.Any";
        let closed = |(name, _): &(&str, &str)| full.starts_with(name);
        if CLOSED.iter().any(closed) || (inner.name().starts_with("google.protobuf.") && !any) {
            return;
        }
        // What a configuration of an extension is depends on the list that it stands in.
        let steps = place.pointer.rsplit('/');
        let named = steps.filter(|step| step.parse::<u32>().is_err());
        let shape: Vec<&str> = named.take(2).collect();
        let key = match any {
            true => format!("{shape:?} {full}"),
            false => full.to_owned(),
        };
        if !self.known.insert(key.clone()) {
            return;
        }
        if !any {
            self.put_in(place, field, full, full, inner, false);
            return;
        }
        for message in self.extensions.clone() {
            let one = format!("{full} <- {}", message.name());
            if EXTENSIONS.contains(&message.name()) {
                self.put_in(place, field, full, &one, message, true);
            } else if !self.named(place, field, message) {
                self.unnamed.insert(format!("{one} at {}", place.pointer));
            }
        }
    }

    fn put_in(
        &mut self,
        place: &Place,
        field: &Field,
        full: &str,
        key: &str,
        inner: Message,
        any: bool,
    ) {
        let mut why = "its rules cannot be kept".to_owned();
        let mut by_name = false;
        let around = path_of(&place.pointer);
        for (document, step) in put(place, field, inner, any) {
            let Ok(seen) = self.decode(&document) else {
                continue;
            };
            if let Some(rejection) = seen.findings.rejections.first() {
                why = rejection.to_string();
                let here = any || last_field(&rejection.path) == field.name;
                by_name = here && rejection.reason.contains("not supported");
                continue;
            }
            self.held.insert(key.to_owned());
            let whole = |note: &Note| {
                let named = any && note.reason.contains(inner.name());
                // With it, a message around it may be ignored as a whole.
                let rest = around.strip_prefix(&*note.path);
                let around = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                    && note.reason.starts_with("ignored");
                let about = named || around || last_field(&note.path) == field.name;
                about && !place.base.findings.notes.contains(note)
            };
            if !seen.findings.notes.iter().any(whole) {
                self.places.push_back(Place {
                    document: Rc::new(document),
                    base: Rc::new(seen),
                    pointer: format!("{}/{}{step}", place.pointer, field.name),
                    message: inner,
                });
            }
            return;
        }
        if !by_name {
            let why = format!("{full}: {why}");
            self.shut.insert(key.to_owned(), (inner.name(), why));
        }
    }

    /// Whether an extension that is not known at this place is spoken of.
    fn named(&self, place: &Place, field: &Field, message: Message) -> bool {
        let mut seen = put(place, field, message, true)
            .into_iter()
            .filter_map(|(document, _)| self.decode(&document).ok())
            .peekable();
        // Where its rules cannot be kept, they speak.
        if seen.peek().is_none() {
            return true;
        }
        let speaks = |path: &str, reason: &str| {
            !path.is_empty()
                && ["not supported", "ignored", message.name()]
                    .iter()
                    .any(|word| reason.contains(word))
        };
        seen.all(|seen| {
            let findings = seen.findings;
            if findings.rejections.is_empty() {
                let new = |note: &&Note| !place.base.findings.notes.contains(note);
                let mut notes = findings.notes.iter().filter(new);
                return notes.any(|note| speaks(&note.path, &note.reason));
            }
            let mut all = findings.rejections.iter();
            all.any(|one| speaks(&one.path, &one.reason))
        })
    }

    /// All messages in the document are places.
    fn collect(&mut self, document: &Rc<Value>, base: &Rc<Seen>, message: Message) {
        let mut found = Vec::new();
        let mut finder = Finder {
            held: &mut self.held,
            out: &mut found,
        };
        finder.find(document, message, "", "");
        for (pointer, message) in found {
            self.places.push_back(Place {
                document: Rc::clone(document),
                base: Rc::clone(base),
                pointer,
                message,
            });
        }
    }
}

/// The path in findings of what a JSON pointer leads to; keys of maps are taken for fields.
fn path_of(pointer: &str) -> String {
    let mut path = String::new();
    for step in pointer.split('/').skip(1) {
        match step.parse::<usize>() {
            Ok(index) => path.push_str(&format!("[{index}]")),
            Err(_) if path.is_empty() => path.push_str(step),
            Err(_) => path.push_str(&format!(".{step}")),
        }
    }
    path
}

/// The name of the last field of a path, without index or key.
fn last_field(path: &str) -> &str {
    let end = path.rsplit('.').next().unwrap_or(path);
    end.split('[').next().unwrap_or(end)
}

/// The message that a field holds, also as item of a list or value of a map.
fn held(field: &Field) -> Option<Message> {
    let Kind::Message(Some(inner)) = field.kind else {
        return None;
    };
    if !field.map {
        return Some(inner);
    }
    match inner.field("value")?.kind {
        Kind::Message(inner) => inner,
        _ => None,
    }
}

/// The extensions that the decoders know, and the first of each kind that they do not: messages that are not part of another.
fn extensions() -> Vec<Message> {
    let mut kinds = BTreeSet::new();
    let wanted = |message: &Message| {
        let name = message.name();
        let mut parts = name.rsplit('.').skip(1);
        let alone = parts.next().is_some_and(|part| part.starts_with('v'));
        let kind: Vec<&str> = name.split('.').take(4).collect();
        EXTENSIONS.contains(&name)
            || alone && name.starts_with("envoy.extensions.") && kinds.insert(kind)
    };
    Message::all().filter(wanted).collect()
}

/// Documents with the field set to that message: alone, and before what is there already. With the steps to it.
fn put(place: &Place, field: &Field, inner: Message, any: bool) -> Vec<(Value, &'static str)> {
    let Some(Value::Object(mut content)) = least(inner, 1) else {
        return Vec::new();
    };
    if any {
        let url = format!("type.googleapis.com/{}", inner.name());
        content.insert("@type".into(), url.into());
    }
    let value = Value::Object(content);
    let mut document = (*place.document).clone();
    let Some(Value::Object(fields)) = document.pointer_mut(&place.pointer) else {
        return Vec::new();
    };
    if let Some(oneof) = field.oneof {
        let members = place.message.fields();
        for other in members.filter(|other| other.oneof == Some(oneof)) {
            fields.remove(other.name);
        }
    }
    let old = fields.remove(field.name);
    let mut values = Vec::new();
    let step = match (field.map, field.repeated) {
        (true, _) => {
            values.push(json!({ "a": value }));
            "/a"
        }
        (false, true) => {
            if let Some(Value::Array(old)) = old {
                values.push([vec![value.clone()], old].concat().into());
            }
            values.insert(0, json!([value]));
            "/0"
        }
        (false, false) => {
            values.push(value);
            ""
        }
    };
    let with = |value: Value| {
        let mut document = document.clone();
        document.pointer_mut(&place.pointer)?[field.name] = value;
        Some((document, step))
    };
    values.into_iter().filter_map(with).collect()
}

/// Finds the messages of a document.
struct Finder<'f> {
    held: &'f mut BTreeSet<String>,
    out: &'f mut Vec<(String, Message)>,
}

impl Finder<'_> {
    /// `by` is the field that holds the value.
    fn find(&mut self, value: &Value, message: Message, pointer: &str, by: &str) {
        let message = match (message.name(), value.get("@type").and_then(Value::as_str)) {
            ("google.protobuf.Any", Some(url)) => {
                let message = Message::of_url(url).expect("a known type");
                self.held.insert(format!("{by} <- {}", message.name()));
                message
            }
            (name, _) if name.starts_with("google.protobuf.") => return,
            _ => message,
        };
        let Value::Object(fields) = value else {
            return;
        };
        self.held.insert(by.to_owned());
        self.out.push((pointer.to_owned(), message));
        for (key, value) in fields {
            let Some((field, inner)) = message
                .field(key)
                .and_then(|field| Some((field, held(&field)?)))
            else {
                continue;
            };
            let by = format!("{}.{}", message.name(), field.name);
            let at = format!("{pointer}/{key}");
            match value {
                Value::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        self.find(item, inner, &format!("{at}/{index}"), &by);
                    }
                }
                Value::Object(entries) if field.map => {
                    for (key, item) in entries {
                        let step = key.replace('/', "~1");
                        self.find(item, inner, &format!("{at}/{step}"), &by);
                    }
                }
                item => self.find(item, inner, &at, &by),
            }
        }
    }
}

/// Values for the field, and the documents with them; none where it is set and has fields of its own.
fn with(root: &Value, pointer: &str, message: Message, field: &Field) -> Vec<(Value, Value)> {
    let Some(Value::Object(fields)) = root.pointer(pointer) else {
        return Vec::new();
    };
    let old = fields.get(field.name);
    if matches!(old, Some(Value::Object(_) | Value::Array(_))) {
        return Vec::new();
    }
    let mut out = Vec::new();
    for new in samples(field, old) {
        let mut document = root.clone();
        let Some(Value::Object(fields)) = document.pointer_mut(pointer) else {
            continue;
        };
        if let Some(oneof) = field.oneof {
            for other in message.fields().filter(|other| other.oneof == Some(oneof)) {
                fields.remove(other.name);
            }
        }
        fields.insert(field.name.to_owned(), new.clone());
        out.push((new, document));
    }
    out
}
