//! Finds the first rule of a list that matches, without asking them all.
//!
//! Literal paths stand in a trie, so that a request meets only the rules whose path fits, and those in the order of the
//! configuration. A run of rules that ask for one header's exact value is a hash table from the value. Regexes and templates
//! are tried when no rule before them matched.

use std::borrow::Cow;

use super::{
    cookie::CookieTest,
    hash::ByteMap,
    head::{Field, Head, Headers},
    path,
    template::Template,
    text::{HeaderTest, MetadataTest, QueryTest},
};
use crate::model::{PathMatch, Regex, RouteMatch, RuntimeFraction};

/// The conditions of a rule apart from a literal path.
#[derive(Debug)]
pub(super) struct Conditions {
    path: ScannedPath,
    headers: Box<[HeaderTest]>,
    query: Box<[QueryTest]>,
    cookies: Box<[CookieTest]>,
    metadata: Box<[MetadataTest]>,
    filter_state: Box<[MetadataTest]>,
    runtime: Option<RuntimeFraction>,
    tls: Option<(Option<bool>, Option<bool>)>,
    grpc: bool,
    /// There is none.
    none: bool,
}

/// The path conditions that no trie holds.
#[derive(Debug)]
enum ScannedPath {
    /// The trie has decided.
    Literal,
    Regex(Regex),
    Template(Box<Template>),
    Connect,
}

impl Conditions {
    /// Compiles a match; the error is a field path and a reason.
    pub(super) fn new(config: &RouteMatch) -> Result<Self, (String, String)> {
        let mut headers = Vec::with_capacity(config.headers.len());
        for (index, matcher) in config.headers.iter().enumerate() {
            headers.push(HeaderTest::new(matcher).ok_or_else(|| {
                let reason = format!("no header can have the name {:?}", matcher.name);
                (format!("headers[{index}].name"), reason)
            })?);
        }
        let path = match &config.path {
            PathMatch::Prefix(_) | PathMatch::Exact(_) | PathMatch::SeparatedPrefix(_) => {
                ScannedPath::Literal
            }
            PathMatch::Regex(regex) => ScannedPath::Regex(regex.clone()),
            PathMatch::Template(template) => ScannedPath::Template(Box::new(
                Template::parse(&template.text)
                    .map_err(|reason| ("path_match_policy".to_owned(), reason))?,
            )),
            PathMatch::Connect => ScannedPath::Connect,
        };
        let mut this = Self {
            path,
            headers: headers.into(),
            query: config.query.iter().map(QueryTest::new).collect(),
            cookies: config.cookies.iter().map(CookieTest::new).collect(),
            metadata: config.metadata.iter().map(MetadataTest::new).collect(),
            filter_state: config.filter_state.iter().map(MetadataTest::new).collect(),
            runtime: config.runtime_fraction.clone(),
            tls: config.tls,
            grpc: config.grpc,
            none: false,
        };
        this.none = matches!(this.path, ScannedPath::Literal)
            && this.headers.is_empty()
            && this.query.is_empty()
            && this.cookies.is_empty()
            && this.metadata.is_empty()
            && this.filter_state.is_empty()
            && this.runtime.is_none()
            && this.tls.is_none()
            && !this.grpc;
        Ok(this)
    }

    fn hold<H: Headers + ?Sized>(&self, head: &Head<'_, H>, path: &[u8]) -> bool {
        self.none || self.others_hold(head) && self.path_holds(head, path)
    }

    fn others_hold<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> bool {
        self.runtime.as_ref().is_none_or(|share| head.hit(share))
            && (!self.grpc || is_grpc(head))
            && self.headers.iter().all(|test| test.matches(head))
            && self.query.iter().all(|test| test.matches(head.path))
            && self.cookies.iter().all(|test| test.matches(head))
            && self.tls_holds(head)
            && self.metadata.iter().all(|test| test.matches(head.metadata))
            && self
                .filter_state
                .iter()
                .all(|test| test.matches(head.filter_state))
    }

    fn tls_holds<H: ?Sized>(&self, head: &Head<'_, H>) -> bool {
        let Some((presented, validated)) = self.tls else {
            return true;
        };
        let facts = head.connection;
        presented.is_none_or(|wanted| wanted == facts.peer_certificate_presented)
            && validated.is_none_or(|wanted| wanted == facts.peer_certificate_validated)
    }

    fn path_holds<H: Headers + ?Sized>(&self, head: &Head<'_, H>, path: &[u8]) -> bool {
        match &self.path {
            ScannedPath::Literal => true,
            ScannedPath::Connect => head.is_connect(),
            // Without a path only CONNECT matches.
            _ if head.is_pathless() => false,
            ScannedPath::Regex(regex) => regex.is_match(path),
            ScannedPath::Template(template) => template.matches(head.path_only()),
        }
    }
}

/// `content-type` is `application/grpc`, alone or with a suffix. Several types are one, with commas.
fn is_grpc<H: Headers + ?Sized>(head: &Head<'_, H>) -> bool {
    let kind = head
        .headers
        .joined(&http::header::CONTENT_TYPE)
        .unwrap_or_default();
    kind.strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The rules of a virtual host, or of a leaf in a matcher tree.
#[derive(Debug)]
pub(super) struct RuleSet {
    rules: Box<[Conditions]>,
    literal: Trie,
    /// Patterns that ignore case, in lower case.
    folded: Option<Trie>,
    scanned: Box<[Segment]>,
    ignore_parameters: bool,
    /// The first rule is for every path, so that nothing need be looked up where its other conditions hold.
    all: bool,
}

type Id = u32;

/// Some rules of one place in the index, in order.
#[derive(Debug)]
enum Segment {
    Plain(Box<[Id]>),
    /// All ask for one field's exact value.
    Hashed {
        first: Id,
        field: Field,
        values: ByteMap<Vec<Id>>,
        /// For requests that have several values.
        all: Box<[Id]>,
    },
}

/// A shorter run is asked one by one.
const MIN_RUN: usize = 4;

fn segments(ids: &[Id], rules: &[Conditions]) -> Box<[Segment]> {
    let field_of = |id: Id| {
        let mut exact = rules[id as usize]
            .headers
            .iter()
            .filter_map(HeaderTest::exact);
        exact.next().map(|(field, _)| field)
    };
    let mut out = Vec::new();
    let mut plain = Vec::new();
    let mut rest = ids;
    while let Some(&first) = rest.first() {
        let run = field_of(first).map_or(1, |field| {
            let same = |id: &&Id| value_of(&rules[**id as usize], field).is_some();
            rest.iter().take_while(same).count()
        });
        let (ids, tail) = rest.split_at(run);
        rest = tail;
        match field_of(first).filter(|_| run >= MIN_RUN) {
            None => plain.extend_from_slice(ids),
            Some(field) => {
                if !plain.is_empty() {
                    out.push(Segment::Plain(std::mem::take(&mut plain).into()));
                }
                let mut values = ByteMap::<Vec<Id>>::default();
                for &id in ids {
                    let value = value_of(&rules[id as usize], field).unwrap_or_default();
                    values.entry(value.into()).or_default().push(id);
                }
                out.push(Segment::Hashed {
                    first,
                    field: field.clone(),
                    values,
                    all: ids.into(),
                });
            }
        }
    }
    if !plain.is_empty() {
        out.push(Segment::Plain(plain.into()));
    }
    out.into()
}

/// The exact value that a rule asks of `field`.
fn value_of<'a>(rule: &'a Conditions, field: &Field) -> Option<&'a [u8]> {
    rule.headers
        .iter()
        .filter_map(HeaderTest::exact)
        .find(|(known, _)| *known == field)
        .map(|(_, value)| value)
}

impl RuleSet {
    /// Builds the index; the rules keep their order.
    pub(super) fn new(rules: Vec<(Conditions, &RouteMatch)>, ignore_parameters: bool) -> Self {
        let (mut literal, mut folded) = (Builder::default(), Builder::default());
        let mut scanned = Vec::new();
        let mut conditions = Vec::with_capacity(rules.len());
        let all =
            |config: &RouteMatch| matches!(&config.path, PathMatch::Prefix(text) if **text == *"/");
        let all = rules.first().is_some_and(|(_, config)| all(config));
        for (index, (rule, config)) in rules.into_iter().enumerate() {
            let id = index as Id;
            let (text, kind) = match &config.path {
                PathMatch::Prefix(text) => (text, Kind::Prefix),
                PathMatch::Exact(text) => (text, Kind::Exact),
                PathMatch::SeparatedPrefix(text) => (text, Kind::Separated),
                PathMatch::Regex(_) | PathMatch::Template(_) | PathMatch::Connect => {
                    scanned.push(id);
                    conditions.push(rule);
                    continue;
                }
            };
            if config.case_sensitive {
                literal.insert(text.as_bytes(), kind, id);
            } else {
                folded.insert(text.to_ascii_lowercase().as_bytes(), kind, id);
            }
            conditions.push(rule);
        }
        let folded = (!folded.is_empty()).then(|| folded.build(&conditions));
        Self {
            literal: literal.build(&conditions),
            folded,
            scanned: segments(&scanned, &conditions),
            rules: conditions.into(),
            ignore_parameters,
            all,
        }
    }

    /// Index of the first rule that matches, of those at `from` and behind it.
    pub(super) fn find<H: Headers + ?Sized>(
        &self,
        head: &Head<'_, H>,
        from: usize,
    ) -> Option<usize> {
        let stripped;
        let mut path = head.path_only();
        if self.ignore_parameters {
            stripped = path::without_parameters(path);
            path = &stripped;
        }
        if self.all
            && from == 0
            && path.first() == Some(&b'/')
            && !head.is_pathless()
            && self.rules[0].hold(head, path)
        {
            return Some(0);
        }
        let mut cursors = Cursors::default();
        cursors.push(&self.scanned);
        if !head.is_pathless() {
            self.literal.walk(path, false, &mut cursors);
            if let Some(folded) = &self.folded {
                folded.walk(path, true, &mut cursors);
            }
        }
        while let Some(id) = cursors.next(head) {
            if id as usize >= from && self.rules[id as usize].hold(head, path) {
                return Some(id as usize);
            }
        }
        None
    }
}

/// Places in the index whose rules are merged by their order.
#[derive(Default)]
struct Cursors<'a> {
    inline: [Cursor<'a>; INLINE],
    len: usize,
    more: Vec<Cursor<'a>>,
}

/// More literal patterns on one path need a list.
const INLINE: usize = 8;

#[derive(Clone, Copy, Default)]
struct Cursor<'a> {
    ids: &'a [Id],
    segments: &'a [Segment],
}

impl<'a> Cursor<'a> {
    /// No rule before this one is left. What it is exactly is known when a hashed segment has been looked into.
    fn bound(&self) -> Id {
        match (self.ids.first(), self.segments.first()) {
            (Some(id), _) => *id,
            (None, Some(Segment::Plain(ids))) => ids.first().copied().unwrap_or(Id::MAX),
            (None, Some(Segment::Hashed { first, .. })) => *first,
            (None, None) => Id::MAX,
        }
    }

    fn open<H: Headers + ?Sized>(&mut self, head: &Head<'_, H>) {
        let Some((segment, rest)) = self.segments.split_first() else {
            return;
        };
        self.segments = rest;
        self.ids = match segment {
            Segment::Plain(ids) => ids,
            Segment::Hashed {
                field, values, all, ..
            } => match head.field(field) {
                Some(Cow::Owned(_)) => all,
                Some(Cow::Borrowed(value)) => values.get(value).map_or(&[], |ids| ids),
                None => &[],
            },
        };
    }
}

impl<'a> Cursors<'a> {
    fn push(&mut self, segments: &'a [Segment]) {
        if segments.is_empty() {
            return;
        }
        let cursor = Cursor { ids: &[], segments };
        match self.inline.get_mut(self.len) {
            Some(slot) => *slot = cursor,
            None => self.more.push(cursor),
        }
        self.len += 1;
    }

    /// The next rule of all in order.
    fn next<H: Headers + ?Sized>(&mut self, head: &Head<'_, H>) -> Option<Id> {
        let inline = self.len.min(INLINE);
        loop {
            let cursor = self.inline[..inline]
                .iter_mut()
                .chain(&mut self.more)
                .min_by_key(|cursor| cursor.bound())?;
            if let Some((id, rest)) = cursor.ids.split_first() {
                cursor.ids = rest;
                return Some(*id);
            }
            if cursor.segments.is_empty() {
                return None;
            }
            cursor.open(head);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Prefix,
    Exact,
    Separated,
}

/// Literal patterns by their bytes; a node's label holds all bytes that its patterns share.
#[derive(Debug)]
struct Trie {
    nodes: Box<[Node]>,
}

#[derive(Debug)]
struct Node {
    label: Box<[u8]>,
    prefix: Box<[Segment]>,
    exact: Box<[Segment]>,
    separated: Box<[Segment]>,
    /// First bytes of the children's labels, and the children.
    firsts: Box<[u8]>,
    children: Box<[u32]>,
}

impl Trie {
    /// Collects the places of all patterns that `path` fits.
    fn walk<'a>(&'a self, path: &[u8], fold: bool, out: &mut Cursors<'a>) {
        let byte = |at: usize| {
            let byte = path[at];
            if fold {
                byte.to_ascii_lowercase()
            } else {
                byte
            }
        };
        let mut at = 0;
        let Some(mut node) = self.nodes.first() else {
            return;
        };
        loop {
            out.push(&node.prefix);
            if at == path.len() {
                out.push(&node.exact);
                out.push(&node.separated);
                return;
            }
            let next = byte(at);
            if next == b'/' {
                out.push(&node.separated);
            }
            let Some(child) = memchr::memchr(next, &node.firsts) else {
                return;
            };
            node = &self.nodes[node.children[child] as usize];
            let Some(part) = path.get(at..at + node.label.len()) else {
                return;
            };
            let fits = if fold {
                part.eq_ignore_ascii_case(&node.label)
            } else {
                *part == *node.label
            };
            if !fits {
                return;
            }
            at += node.label.len();
        }
    }
}

/// A trie while it grows. The first node is the root, whose label is empty.
#[derive(Default)]
struct Builder {
    nodes: Vec<BuilderNode>,
}

#[derive(Default)]
struct BuilderNode {
    label: Vec<u8>,
    ids: [Vec<Id>; 3],
    children: Vec<usize>,
}

impl Builder {
    fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn insert(&mut self, text: &[u8], kind: Kind, id: Id) {
        if self.nodes.is_empty() {
            self.nodes.push(BuilderNode::default());
        }
        let node = self.descend(text);
        self.nodes[node].ids[kind as usize].push(id);
    }

    /// The node of `text`, made if it is not there.
    fn descend(&mut self, text: &[u8]) -> usize {
        let (mut node, mut rest) = (0, text);
        while let Some(first) = rest.first() {
            let children = &self.nodes[node].children;
            let found = children
                .iter()
                .copied()
                .find(|child| self.nodes[*child].label.first() == Some(first));
            let Some(child) = found else {
                let leaf = self.nodes.len();
                self.nodes.push(BuilderNode {
                    label: rest.to_vec(),
                    ..BuilderNode::default()
                });
                self.nodes[node].children.push(leaf);
                return leaf;
            };
            let label = &self.nodes[child].label;
            let shared = label.iter().zip(rest).take_while(|(a, b)| a == b).count();
            if shared < label.len() {
                self.split(child, shared);
            }
            node = child;
            rest = &rest[shared..];
        }
        node
    }

    /// Moves everything of `node` below its first `at` bytes into a new child.
    fn split(&mut self, node: usize, at: usize) {
        let lower = self.nodes.len();
        let upper = &mut self.nodes[node];
        let label = upper.label.split_off(at);
        let moved = BuilderNode {
            label,
            ids: std::mem::take(&mut upper.ids),
            children: std::mem::replace(&mut upper.children, vec![lower]),
        };
        self.nodes.push(moved);
    }

    fn build(self, rules: &[Conditions]) -> Trie {
        let labels: Vec<u8> = self
            .nodes
            .iter()
            .map(|node| node.label.first().copied().unwrap_or_default())
            .collect();
        let node = |node: BuilderNode| {
            let [prefix, exact, separated] = node.ids.map(|ids| segments(&ids, rules));
            Node {
                label: node.label.into(),
                prefix,
                exact,
                separated,
                firsts: node.children.iter().map(|child| labels[*child]).collect(),
                children: node.children.iter().map(|child| *child as u32).collect(),
            }
        };
        Trie {
            nodes: self.nodes.into_iter().map(node).collect(),
        }
    }
}
