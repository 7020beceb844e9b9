//! Matcher trees: request data leads to a route or a list of routes.

use std::{borrow::Cow, io::Write as _};

use super::{
    hash::ByteMap,
    head::{Field, Head, Headers},
    text::{self, TextMatcher},
};
use crate::model::{MatchInput, MatchNode, MatchPredicate, MatchTree, Name, OnMatch};

/// A compiled tree. A leaf is an index into the virtual host's rule lists.
#[derive(Debug)]
pub(super) struct Tree {
    node: Node,
    on_no_match: Option<Box<Then>>,
}

#[derive(Debug)]
enum Node {
    List(Vec<(Predicate, Then)>),
    Exact(Input, ByteMap<Then>),
    /// Longest first.
    Prefix(Input, Vec<(Box<[u8]>, Then)>),
}

#[derive(Debug)]
enum Then {
    Tree(Box<Tree>),
    Leaf(usize),
}

#[derive(Debug)]
enum Predicate {
    Single(Input, TextMatcher),
    And(Vec<Predicate>),
    Or(Vec<Predicate>),
    Not(Box<Predicate>),
}

#[derive(Debug)]
enum Input {
    Field(Field),
    Query(Name),
    DestinationIp,
    DestinationPort,
    SourceIp,
    SourcePort,
    ServerName,
    FilterState(Name),
}

impl Tree {
    /// Compiles a tree; `leaf` takes in what its ends lead to and says where it is. The error is a field path and a reason.
    pub(super) fn new<'m, E: From<(String, String)>>(
        config: &'m MatchTree,
        leaf: &mut impl FnMut(&'m OnMatch) -> Result<usize, E>,
    ) -> Result<Self, E> {
        let node = match &config.node {
            MatchNode::List(list) => Node::List(
                list.iter()
                    .map(|(predicate, on)| Ok((Predicate::new(predicate)?, then(on, leaf)?)))
                    .collect::<Result<_, E>>()?,
            ),
            MatchNode::Exact(input, map) => {
                let mut values = ByteMap::default();
                for (key, on) in map {
                    values.insert(key.as_bytes().into(), then(on, leaf)?);
                }
                Node::Exact(Input::new(input)?, values)
            }
            MatchNode::Prefix(input, map) => {
                let mut values: Vec<(Box<[u8]>, Then)> = Vec::new();
                for (key, on) in map {
                    values.push((key.as_bytes().into(), then(on, leaf)?));
                }
                values.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
                Node::Prefix(Input::new(input)?, values)
            }
        };
        let on_no_match = match &config.on_no_match {
            Some(on) => Some(Box::new(then(on, leaf)?)),
            None => None,
        };
        Ok(Self { node, on_no_match })
    }

    /// The leaf that the request leads to. A tree below that finds nothing lets the search go on.
    pub(super) fn find<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> Option<usize> {
        let found = match &self.node {
            Node::List(list) => list
                .iter()
                .filter(|(predicate, _)| predicate.holds(head))
                .find_map(|(_, then)| then.find(head)),
            Node::Exact(input, values) => input
                .read(head)
                .and_then(|value| values.get(&*value))
                .and_then(|then| then.find(head)),
            Node::Prefix(input, values) => input.read(head).and_then(|value| {
                values
                    .iter()
                    .filter(|(key, _)| value.starts_with(key))
                    .find_map(|(_, then)| then.find(head))
            }),
        };
        found.or_else(|| self.on_no_match.as_ref()?.find(head))
    }
}

fn then<'m, E: From<(String, String)>>(
    on: &'m OnMatch,
    leaf: &mut impl FnMut(&'m OnMatch) -> Result<usize, E>,
) -> Result<Then, E> {
    match on {
        OnMatch::Tree(tree) => Ok(Then::Tree(Box::new(Tree::new(tree, leaf)?))),
        OnMatch::Route(_) | OnMatch::Routes(_) => Ok(Then::Leaf(leaf(on)?)),
        OnMatch::Chain(name) => {
            let reason = format!("filter chain {name} is no route");
            Err(E::from(("action".to_owned(), reason)))
        }
    }
}

impl Then {
    fn find<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> Option<usize> {
        match self {
            Self::Tree(tree) => tree.find(head),
            Self::Leaf(leaf) => Some(*leaf),
        }
    }
}

impl Predicate {
    fn new(config: &MatchPredicate) -> Result<Self, (String, String)> {
        let all = |list: &[MatchPredicate]| list.iter().map(Self::new).collect::<Result<_, _>>();
        Ok(match config {
            MatchPredicate::Single(input, matcher) => {
                Self::Single(Input::new(input)?, TextMatcher::new(matcher))
            }
            MatchPredicate::And(list) => Self::And(all(list)?),
            MatchPredicate::Or(list) => Self::Or(all(list)?),
            MatchPredicate::Not(one) => Self::Not(Box::new(Self::new(one)?)),
        })
    }

    fn holds<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> bool {
        match self {
            Self::Single(input, text) => input.read(head).is_some_and(|value| text.matches(&value)),
            Self::And(all) => all.iter().all(|one| one.holds(head)),
            Self::Or(all) => all.iter().any(|one| one.holds(head)),
            Self::Not(one) => !one.holds(head),
        }
    }
}

impl Input {
    fn new(config: &MatchInput) -> Result<Self, (String, String)> {
        Ok(match config {
            MatchInput::RequestHeader(name) => {
                Self::Field(Field::parse(name).ok_or_else(|| {
                    let reason = format!("no header can have the name {name:?}");
                    ("header_name".to_owned(), reason)
                })?)
            }
            MatchInput::QueryParameter(name) => Self::Query(name.clone()),
            MatchInput::DestinationIp => Self::DestinationIp,
            MatchInput::DestinationPort => Self::DestinationPort,
            MatchInput::SourceIp => Self::SourceIp,
            MatchInput::SourcePort => Self::SourcePort,
            MatchInput::ServerName => Self::ServerName,
            MatchInput::FilterState(key) => Self::FilterState(key.clone()),
            MatchInput::DirectSourceIp
            | MatchInput::SourceType
            | MatchInput::TransportProtocol
            | MatchInput::ApplicationProtocols => {
                let reason = "is an input of filter chain matchers only".to_owned();
                return Err(("input".to_owned(), reason));
            }
        })
    }

    fn read<'a, H: Headers + ?Sized>(&self, head: &Head<'a, H>) -> Option<Cow<'a, [u8]>> {
        let text = |value: &dyn std::fmt::Display| {
            let mut out = Vec::new();
            write!(out, "{value}").ok()?;
            Some(Cow::Owned(out))
        };
        let facts = head.connection;
        match self {
            Self::Field(field) => head.field(field),
            Self::Query(name) => text::query_value(head.path, name.as_bytes()),
            Self::DestinationIp => text(&facts.destination?.ip()),
            Self::DestinationPort => text(&facts.destination?.port()),
            Self::SourceIp => text(&facts.source?.ip()),
            Self::SourcePort => text(&facts.source?.port()),
            Self::ServerName => Some(facts.server_name.as_ref()?.as_bytes().into()),
            Self::FilterState(key) => {
                let value = head.filter_state?.get(key, &[])?;
                Some(value.as_text()?.as_bytes().into())
            }
        }
    }
}
