//! `filter_chain_matcher`: a matcher tree over what is known of a connection, whose leaves name filter chains.

use std::{borrow::Cow, collections::HashMap};

use super::listener::{ConnFacts, is_same_host};
use crate::{
    model::{MatchInput, MatchNode, MatchPredicate, MatchTree, Name, OnMatch},
    route::TextMatcher,
};

/// A compiled tree. A leaf is a chain by index; `None`: a chain that the listener does not have.
#[derive(Clone, Debug)]
pub(super) struct ChainTree {
    node: Node,
    on_no_match: Option<Box<Then>>,
}

#[derive(Clone, Debug)]
enum Node {
    List(Vec<(Predicate, Then)>),
    Exact(MatchInput, HashMap<Name, Then>),
    /// Longest first.
    Prefix(MatchInput, Vec<(Name, Then)>),
}

#[derive(Clone, Debug)]
enum Then {
    Tree(Box<ChainTree>),
    Leaf(Option<usize>),
}

#[derive(Clone, Debug)]
enum Predicate {
    Single(MatchInput, TextMatcher),
    And(Vec<Predicate>),
    Or(Vec<Predicate>),
    Not(Box<Predicate>),
}

impl ChainTree {
    /// Compiles a tree over chains with these names. The error is a reason.
    pub(super) fn new(config: &MatchTree, chains: &HashMap<Name, usize>) -> Result<Self, String> {
        let node = match &config.node {
            MatchNode::List(list) => Node::List(
                list.iter()
                    .map(|(test, on)| Ok((predicate(test)?, then(on, chains)?)))
                    .collect::<Result<_, String>>()?,
            ),
            MatchNode::Exact(input, map) => Node::Exact(
                known(input)?,
                map.iter()
                    .map(|(key, on)| Ok((key.clone(), then(on, chains)?)))
                    .collect::<Result<_, String>>()?,
            ),
            MatchNode::Prefix(input, map) => {
                let mut values = map
                    .iter()
                    .map(|(key, on)| Ok((key.clone(), then(on, chains)?)))
                    .collect::<Result<Vec<_>, String>>()?;
                values.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
                Node::Prefix(known(input)?, values)
            }
        };
        let on_no_match = match &config.on_no_match {
            Some(on) => Some(Box::new(then(on, chains)?)),
            None => None,
        };
        Ok(Self { node, on_no_match })
    }

    /// The leaf for a connection; `None`: nothing matches. A tree below that finds nothing lets the search go on.
    pub(super) fn find(&self, facts: &ConnFacts<'_>) -> Option<Option<usize>> {
        let found = match &self.node {
            Node::List(list) => list
                .iter()
                .filter(|(test, _)| test.holds(facts))
                .find_map(|(_, then)| then.find(facts)),
            Node::Exact(input, values) => read(input, facts)
                .and_then(|value| values.get(&*value))
                .and_then(|then| then.find(facts)),
            Node::Prefix(input, values) => read(input, facts).and_then(|value| {
                let fitting = values.iter().filter(|(key, _)| value.starts_with(&**key));
                fitting
                    .map(|(_, then)| then)
                    .find_map(|then| then.find(facts))
            }),
        };
        found.or_else(|| self.on_no_match.as_ref()?.find(facts))
    }
}

impl Then {
    fn find(&self, facts: &ConnFacts<'_>) -> Option<Option<usize>> {
        match self {
            Self::Tree(tree) => tree.find(facts),
            Self::Leaf(leaf) => Some(*leaf),
        }
    }
}

impl Predicate {
    fn holds(&self, facts: &ConnFacts<'_>) -> bool {
        match self {
            Self::Single(input, text) => {
                read(input, facts).is_some_and(|value| text.matches(value.as_bytes()))
            }
            Self::And(all) => all.iter().all(|one| one.holds(facts)),
            Self::Or(all) => all.iter().any(|one| one.holds(facts)),
            Self::Not(one) => !one.holds(facts),
        }
    }
}

fn then(on: &OnMatch, chains: &HashMap<Name, usize>) -> Result<Then, String> {
    match on {
        OnMatch::Tree(tree) => Ok(Then::Tree(Box::new(ChainTree::new(tree, chains)?))),
        OnMatch::Chain(name) => Ok(Then::Leaf(chains.get(name).copied())),
        OnMatch::Route(_) | OnMatch::Routes(_) => {
            Err("an action must name a filter chain".to_owned())
        }
    }
}

fn predicate(config: &MatchPredicate) -> Result<Predicate, String> {
    let all = |list: &[MatchPredicate]| list.iter().map(predicate).collect::<Result<_, _>>();
    Ok(match config {
        MatchPredicate::Single(input, text) => {
            Predicate::Single(known(input)?, TextMatcher::new(text))
        }
        MatchPredicate::And(list) => Predicate::And(all(list)?),
        MatchPredicate::Or(list) => Predicate::Or(all(list)?),
        MatchPredicate::Not(one) => Predicate::Not(Box::new(predicate(one)?)),
    })
}

/// An input that a connection has.
fn known(input: &MatchInput) -> Result<MatchInput, String> {
    match input {
        MatchInput::RequestHeader(_) | MatchInput::QueryParameter(_) => {
            Err("a connection has no headers and no query".to_owned())
        }
        MatchInput::FilterState(_) => Err("filter state is not known of connections".to_owned()),
        input => Ok(input.clone()),
    }
}

/// What a connection has for an input, as Envoy writes it; `None`: nothing.
fn read<'a>(input: &MatchInput, facts: &ConnFacts<'a>) -> Option<Cow<'a, str>> {
    let ip = |address: &crate::model::Address| {
        let ip = address.socket()?.ip().to_canonical();
        Some(ip.to_string().into())
    };
    let port = |address: &crate::model::Address| Some(address.socket()?.port().to_string().into());
    let set = |text: &'a str| (!text.is_empty()).then_some(Cow::Borrowed(text));
    match input {
        MatchInput::DestinationIp => ip(facts.destination),
        MatchInput::DestinationPort => port(facts.destination),
        MatchInput::SourceIp => ip(facts.source),
        MatchInput::SourcePort => port(facts.source),
        MatchInput::DirectSourceIp => ip(facts.direct_source),
        MatchInput::SourceType => is_same_host(facts).then_some("local".into()),
        MatchInput::ServerName => set(facts.server_name),
        MatchInput::TransportProtocol => set(facts.transport_protocol),
        MatchInput::ApplicationProtocols => {
            let names = facts.application_protocols;
            let quoted = names.iter().map(|name| format!("'{name}'"));
            let text = quoted.collect::<Vec<_>>().join(",");
            (!text.is_empty()).then_some(text.into())
        }
        MatchInput::RequestHeader(_)
        | MatchInput::QueryParameter(_)
        | MatchInput::FilterState(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Address, StringMatcher, StringPattern};

    fn chain(name: &str) -> OnMatch {
        OnMatch::Chain(name.into())
    }

    fn find(
        tree: &ChainTree,
        destination: &str,
        source: &str,
        name: &str,
        alpn: &[Name],
    ) -> Option<Option<usize>> {
        let address = |text: &str| Address::Socket(text.parse().expect("an address"));
        let (destination, source) = (address(destination), address(source));
        tree.find(&ConnFacts {
            destination: &destination,
            source: &source,
            direct_source: &source,
            server_name: name,
            transport_protocol: if name.is_empty() { "raw_buffer" } else { "tls" },
            application_protocols: alpn,
        })
    }

    fn compile(config: &MatchTree) -> Result<ChainTree, String> {
        let chains = ["a", "b", "c"].into_iter().zip(0..);
        ChainTree::new(
            config,
            &chains.map(|(name, at)| (name.into(), at)).collect(),
        )
    }

    #[test]
    fn ports_names_protocols_and_sources_lead_to_chains() {
        let exact = |text: &str| StringMatcher {
            pattern: StringPattern::Exact(text.into()),
            ignore_case: false,
        };
        let by_name = MatchTree {
            node: MatchNode::List(vec![
                (
                    MatchPredicate::Single(
                        MatchInput::ApplicationProtocols,
                        exact("'h2','http/1.1'"),
                    ),
                    chain("b"),
                ),
                (
                    MatchPredicate::And(vec![
                        MatchPredicate::Single(MatchInput::ServerName, exact("x.test")),
                        MatchPredicate::Not(Box::new(MatchPredicate::Single(
                            MatchInput::SourceType,
                            exact("local"),
                        ))),
                    ]),
                    chain("c"),
                ),
            ]),
            on_no_match: None,
        };
        let tree = MatchTree {
            node: MatchNode::Exact(
                MatchInput::DestinationPort,
                vec![
                    ("80".into(), chain("a")),
                    ("443".into(), OnMatch::Tree(Box::new(by_name))),
                    ("444".into(), chain("nobody")),
                ],
            ),
            on_no_match: Some(OnMatch::Tree(Box::new(MatchTree {
                node: MatchNode::Prefix(
                    MatchInput::DestinationIp,
                    vec![("10.".into(), chain("a")), ("10.1.".into(), chain("b"))],
                ),
                on_no_match: None,
            }))),
        };
        let tree = compile(&tree).expect("it compiles");
        let alpn: [Name; 2] = ["h2".into(), "http/1.1".into()];
        let far = "9.9.9.9:1";
        assert_eq!(find(&tree, "1.1.1.1:80", far, "", &[]), Some(Some(0)));
        assert_eq!(find(&tree, "1.1.1.1:443", far, "y", &alpn), Some(Some(1)));
        assert_eq!(
            find(&tree, "1.1.1.1:443", far, "x.test", &[]),
            Some(Some(2))
        );
        assert_eq!(
            find(&tree, "1.1.1.1:443", "127.0.0.1:1", "x.test", &[]),
            None
        );
        assert_eq!(find(&tree, "1.1.1.1:444", far, "", &[]), Some(None));
        assert_eq!(find(&tree, "10.1.2.3:9", far, "", &[]), Some(Some(1)));
        assert_eq!(find(&tree, "10.2.2.3:443", far, "", &[]), Some(Some(0)));
        assert_eq!(find(&tree, "11.2.2.3:9", far, "", &[]), None);
    }

    #[test]
    fn what_connections_do_not_have_is_refused() {
        for (input, on) in [
            (MatchInput::RequestHeader("a".into()), chain("a")),
            (MatchInput::FilterState("a".into()), chain("a")),
            (MatchInput::ServerName, OnMatch::Routes(Vec::new())),
        ] {
            let tree = MatchTree {
                node: MatchNode::Exact(input, vec![("x".into(), on)]),
                on_no_match: None,
            };
            compile(&tree).expect_err("refused");
        }
    }
}
