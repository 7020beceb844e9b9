//! Compiled matcher trees (`xds.type.matcher.v3.Matcher`): over requests they lead to routes, over connections to filter
//! chains.

use std::borrow::Cow;

use crate::{
    model::{Cidr, MatchInput, MatchNode, MatchPredicate, MatchTree, OnMatch},
    route::{ByteMap, TextMatcher},
};

/// A compiled tree. `I` says what is read, and `L` is what the tree leads to.
#[derive(Clone, Debug)]
pub(crate) struct Tree<I, L> {
    node: Node<I, L>,
    on_no_match: Option<Box<Then<I, L>>>,
}

#[derive(Clone, Debug)]
enum Node<I, L> {
    List(Branches<Predicate<I>, I, L>),
    Exact(I, ByteMap<Then<I, L>>),
    /// Longest first.
    Prefix(I, Branches<Box<[u8]>, I, L>),
}

type Branches<K, I, L> = Vec<(K, Then<I, L>)>;

#[derive(Clone, Debug)]
enum Then<I, L> {
    Tree(Box<Tree<I, L>>),
    Leaf(L),
}

#[derive(Clone, Debug)]
enum Predicate<I> {
    Single(I, TextMatcher),
    Ip(I, Box<[Cidr]>),
    And(Vec<Predicate<I>>),
    Or(Vec<Predicate<I>>),
    Not(Box<Predicate<I>>),
}

impl<I, L: Copy> Tree<I, L> {
    /// Compiles a tree; `input` takes in what it reads, `leaf` what its ends lead to.
    pub(crate) fn new<'m, E>(
        config: &'m MatchTree,
        input: fn(&'m MatchInput) -> Result<I, E>,
        leaf: &mut impl FnMut(&'m OnMatch) -> Result<L, E>,
    ) -> Result<Self, E> {
        let node = match &config.node {
            MatchNode::List(list) => Node::List(
                list.iter()
                    .map(|(test, on)| Ok((Predicate::new(test, input)?, then(on, input, leaf)?)))
                    .collect::<Result<_, E>>()?,
            ),
            MatchNode::Exact(from, map) => {
                let mut values = ByteMap::default();
                for (key, on) in map {
                    values.insert(key.as_bytes().into(), then(on, input, leaf)?);
                }
                Node::Exact(input(from)?, values)
            }
            MatchNode::Prefix(from, map) => {
                let mut values: Branches<Box<[u8]>, _, _> = Vec::new();
                for (key, on) in map {
                    values.push((key.as_bytes().into(), then(on, input, leaf)?));
                }
                values.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
                Node::Prefix(input(from)?, values)
            }
        };
        let on_no_match = match &config.on_no_match {
            Some(on) => Some(Box::new(then(on, input, leaf)?)),
            None => None,
        };
        Ok(Self { node, on_no_match })
    }

    /// What the tree leads to, by what `read` finds for its inputs. A tree below that finds nothing lets the search go on.
    pub(crate) fn find<'a>(&self, read: &impl Fn(&I) -> Option<Cow<'a, [u8]>>) -> Option<L> {
        let found = match &self.node {
            Node::List(list) => list
                .iter()
                .filter(|(test, _)| test.holds(read))
                .find_map(|(_, then)| then.find(read)),
            Node::Exact(input, values) => read(input)
                .and_then(|value| values.get(&*value))
                .and_then(|then| then.find(read)),
            Node::Prefix(input, values) => read(input).and_then(|value| {
                values
                    .iter()
                    .filter(|(key, _)| value.starts_with(key))
                    .find_map(|(_, then)| then.find(read))
            }),
        };
        found.or_else(|| self.on_no_match.as_ref()?.find(read))
    }
}

fn then<'m, I, L: Copy, E>(
    on: &'m OnMatch,
    input: fn(&'m MatchInput) -> Result<I, E>,
    leaf: &mut impl FnMut(&'m OnMatch) -> Result<L, E>,
) -> Result<Then<I, L>, E> {
    match on {
        OnMatch::Tree(tree) => Ok(Then::Tree(Box::new(Tree::new(tree, input, leaf)?))),
        end => leaf(end).map(Then::Leaf),
    }
}

impl<I, L: Copy> Then<I, L> {
    fn find<'a>(&self, read: &impl Fn(&I) -> Option<Cow<'a, [u8]>>) -> Option<L> {
        match self {
            Self::Tree(tree) => tree.find(read),
            Self::Leaf(leaf) => Some(*leaf),
        }
    }
}

impl<I> Predicate<I> {
    fn new<'m, E>(
        config: &'m MatchPredicate,
        input: fn(&'m MatchInput) -> Result<I, E>,
    ) -> Result<Self, E> {
        let all = |list: &'m [MatchPredicate]| -> Result<Vec<Self>, E> {
            list.iter().map(|one| Self::new(one, input)).collect()
        };
        Ok(match config {
            MatchPredicate::Single(from, text) => {
                Self::Single(input(from)?, TextMatcher::new(text))
            }
            MatchPredicate::Ip(from, blocks) => Self::Ip(input(from)?, blocks.as_slice().into()),
            MatchPredicate::And(list) => Self::And(all(list)?),
            MatchPredicate::Or(list) => Self::Or(all(list)?),
            MatchPredicate::Not(one) => Self::Not(Box::new(Self::new(one, input)?)),
        })
    }

    fn holds<'a>(&self, read: &impl Fn(&I) -> Option<Cow<'a, [u8]>>) -> bool {
        match self {
            Self::Single(input, text) => read(input).is_some_and(|value| text.matches(&value)),
            Self::Ip(input, blocks) => read(input)
                .and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok())
                .is_some_and(|ip| blocks.iter().any(|block| block.contains(ip))),
            Self::And(all) => all.iter().all(|one| one.holds(read)),
            Self::Or(all) => all.iter().any(|one| one.holds(read)),
            Self::Not(one) => !one.holds(read),
        }
    }
}
