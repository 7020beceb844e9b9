//! `filter_chain_matcher`: a matcher tree over what is known of a connection, whose leaves name filter chains.

use std::{borrow::Cow, collections::HashMap};

use super::listener::{ConnFacts, is_same_host};
use crate::{
    match_tree::Tree,
    model::{MatchInput, MatchTree, Name, OnMatch},
};

/// A compiled tree. A leaf is a chain by index; `None`: a chain that the listener does not have.
#[derive(Clone, Debug)]
pub(super) struct ChainTree(Tree<MatchInput, Option<usize>>);

impl ChainTree {
    /// Compiles a tree over chains with these names. The error is a reason.
    pub(super) fn new(config: &MatchTree, chains: &HashMap<Name, usize>) -> Result<Self, String> {
        let mut leaf = |on: &OnMatch| match on {
            OnMatch::Chain(name) => Ok(chains.get(name).copied()),
            _ => Err("an action must name a filter chain".to_owned()),
        };
        Tree::new(config, known, &mut leaf).map(Self)
    }

    /// The leaf for a connection; `None`: nothing matches.
    pub(super) fn find(&self, facts: &ConnFacts<'_>) -> Option<Option<usize>> {
        self.0.find(&|input: &MatchInput| {
            read(input, facts).map(|text| match text {
                Cow::Borrowed(text) => text.as_bytes().into(),
                Cow::Owned(text) => text.into_bytes().into(),
            })
        })
    }
}

/// An input that a connection has.
fn known(input: &MatchInput) -> Result<MatchInput, String> {
    match input {
        MatchInput::RequestHeader(_) | MatchInput::QueryParameter(_) => {
            Err("a connection has no headers and no query".to_owned())
        }
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
    use crate::model::{Address, Cidr, MatchNode, MatchPredicate, StringMatcher, StringPattern};

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

    /// By protocols, else by the name that a client from elsewhere asks for.
    fn by_name() -> MatchTree {
        let exact = |text: &str| StringMatcher {
            pattern: StringPattern::Exact(text.into()),
            ignore_case: false,
        };
        MatchTree {
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
        }
    }

    #[test]
    fn ports_names_protocols_and_sources_lead_to_chains() {
        let tree = MatchTree {
            node: MatchNode::Exact(
                MatchInput::DestinationPort,
                vec![
                    ("80".into(), chain("a")),
                    ("443".into(), OnMatch::Tree(Box::new(by_name()))),
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
    fn an_address_may_be_looked_for_in_blocks() {
        let block = |text: &str, bits| Cidr::new(text.parse().expect("an address"), bits);
        let blocks = [block("10.1.0.0", 16), block("2001:db8::", 32)];
        let blocks = blocks.into_iter().flatten().collect();
        let tree = MatchTree {
            node: MatchNode::List(vec![(
                MatchPredicate::Ip(MatchInput::SourceIp, blocks),
                chain("b"),
            )]),
            on_no_match: Some(chain("a")),
        };
        let tree = compile(&tree).expect("it compiles");
        for (source, expected) in [
            ("10.1.2.3:1", 1),
            ("[::ffff:10.1.2.3]:1", 1),
            ("[2001:db8::1]:1", 1),
            ("10.2.0.1:1", 0),
            ("[2001:db9::1]:1", 0),
        ] {
            let found = find(&tree, "9.9.9.9:1", source, "", &[]);
            assert_eq!(found, Some(Some(expected)), "{source}");
        }
    }

    #[test]
    fn what_connections_do_not_have_is_refused() {
        for (input, on) in [
            (MatchInput::RequestHeader("a".into()), chain("a")),
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
