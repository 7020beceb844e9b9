//! Matcher trees: request data leads to a route or a list of routes.

use std::{borrow::Cow, io::Write as _};

use super::{
    head::{Field, Head, Headers},
    text,
};
use crate::{
    match_tree,
    model::{MatchInput, MatchTree, Name, OnMatch},
};

/// A compiled tree. A leaf is an index into the virtual host's rule lists.
#[derive(Debug)]
pub(super) struct Tree(match_tree::Tree<Input, usize>);

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
        let mut route = |on: &'m OnMatch| match on {
            OnMatch::Chain(name) => {
                let reason = format!("filter chain {name} is no route");
                Err(E::from(("action".to_owned(), reason)))
            }
            on => leaf(on),
        };
        let input = |input: &'m MatchInput| Ok(Input::new(input)?);
        match_tree::Tree::new(config, input, &mut route).map(Self)
    }

    /// The leaf that the request leads to.
    pub(super) fn find<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> Option<usize> {
        self.0.find(&|input: &Input| input.read(head))
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
