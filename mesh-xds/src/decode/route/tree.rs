//! Matcher trees whose leaves are routes or lists of routes (`xds.type.matcher.v3.Matcher`).

use envoy_types::pb::{
    envoy::{
        config::route::v3::{Route as ProtoRoute, RouteList},
        extensions::matching::{
            common_inputs::network::v3::FilterStateInput, input_matchers::ip::v3::Ip,
        },
        r#type::matcher::v3::{HttpRequestHeaderMatchInput, StringMatcher as EnvoyString},
    },
    xds::{
        core::v3::TypedExtensionConfig,
        r#type::matcher::v3::{
            Matcher, StringMatcher as XdsString,
            matcher::{
                MatcherType, OnMatch as ProtoOnMatch,
                matcher_list::{
                    Predicate,
                    predicate::{MatchType, SinglePredicate, single_predicate},
                },
                matcher_tree::{MatchMap, TreeType},
                on_match,
            },
        },
    },
};
use mesh_core::model::{
    Cidr, MatchInput, MatchNode, MatchPredicate, MatchTree, Name, OnMatch, StringMatcher,
};
use prost::Message as _;

use super::route;
use crate::decode::{Context, common, context::Typed, matcher};

const ROUTE: &str = "envoy.config.route.v3.Route";
const ROUTE_LIST: &str = "envoy.config.route.v3.RouteList";
const CHAIN_NAME: &str = "google.protobuf.StringValue";
const HEADER: &str = "envoy.type.matcher.v3.HttpRequestHeaderMatchInput";
const IP: &str = "envoy.extensions.matching.input_matchers.ip.v3.Ip";
const NETWORK: &str = "envoy.extensions.matching.common_inputs.network.v3.";

const FILTER_STATE: &str = "envoy.extensions.matching.common_inputs.network.v3.FilterStateInput";

/// Deeper trees are refused.
const MAX_DEPTH: usize = 32;

pub(super) fn tree(cx: &mut Context, value: &Matcher, max_body: u32) -> Option<MatchTree> {
    let leaves = Leaves::Routes { max_body };
    Decoder { leaves, depth: 0 }.tree(cx, value)
}

/// A listener's tree: its leaves are names of filter chains.
pub(crate) fn chain_tree(cx: &mut Context, value: &Matcher) -> Option<MatchTree> {
    let leaves = Leaves::Chains;
    Decoder { leaves, depth: 0 }.tree(cx, value)
}

struct Decoder {
    leaves: Leaves,
    depth: usize,
}

/// What a tree leads to.
#[derive(Clone, Copy)]
enum Leaves {
    Routes { max_body: u32 },
    Chains,
}

impl Decoder {
    fn tree(&mut self, cx: &mut Context, value: &Matcher) -> Option<MatchTree> {
        let Matcher {
            on_no_match,
            matcher_type,
        } = value;
        if self.depth == MAX_DEPTH {
            cx.reject("", format_args!("deeper than {MAX_DEPTH} matchers"));
            return None;
        }
        self.depth += 1;
        let node = self.node(cx, matcher_type.as_ref());
        let on_no_match = on_no_match
            .as_ref()
            .and_then(|on| cx.field("on_no_match", |cx| self.on_match(cx, on)));
        self.depth -= 1;
        Some(MatchTree {
            node: node?,
            on_no_match,
        })
    }

    fn node(&mut self, cx: &mut Context, value: Option<&MatcherType>) -> Option<MatchNode> {
        match value {
            Some(MatcherType::MatcherList(list)) => cx.field("matcher_list", |cx| {
                let list = cx.each("matchers", &list.matchers, |cx, value| {
                    let (Some(predicate), Some(on)) = (&value.predicate, &value.on_match) else {
                        cx.reject("", "predicate and on_match must be set");
                        return None;
                    };
                    let predicate = cx.field("predicate", |cx| {
                        self::predicate(cx, self.leaves, predicate)
                    });
                    let on = cx.field("on_match", |cx| self.on_match(cx, on));
                    Some((predicate?, on?))
                });
                Some(MatchNode::List(list))
            }),
            Some(MatcherType::MatcherTree(tree)) => cx.field("matcher_tree", |cx| {
                let input = cx.field("input", |cx| input(cx, self.leaves, tree.input.as_ref()));
                let node = match &tree.tree_type {
                    Some(TreeType::ExactMatchMap(map)) => {
                        let map = self.map(cx, "exact_match_map", map);
                        MatchNode::Exact(input?, map)
                    }
                    Some(TreeType::PrefixMatchMap(map)) => {
                        let map = self.map(cx, "prefix_match_map", map);
                        MatchNode::Prefix(input?, map)
                    }
                    Some(TreeType::CustomMatch(custom)) => {
                        cx.reject(
                            "custom_match",
                            format_args!("matcher {} is not supported", custom.name),
                        );
                        return None;
                    }
                    None => {
                        cx.reject("", "one of exact_match_map, prefix_match_map must be set");
                        return None;
                    }
                };
                Some(node)
            }),
            // As in Envoy nothing matches then.
            None => Some(MatchNode::List(Vec::new())),
        }
    }

    fn map(&mut self, cx: &mut Context, field: &str, value: &MatchMap) -> Vec<(Name, OnMatch)> {
        let mut entries: Vec<_> = value.map.iter().collect();
        entries.sort_by_key(|(key, _)| *key);
        let mut out = Vec::with_capacity(entries.len());
        for (key, on) in entries {
            let on = cx.field(field, |cx| cx.entry("map", key, |cx| self.on_match(cx, on)));
            out.extend(on.map(|on| (Name::from(key.as_str()), on)));
        }
        out
    }

    fn on_match(&mut self, cx: &mut Context, value: &ProtoOnMatch) -> Option<OnMatch> {
        cx.unsupported("keep_matching", value.keep_matching);
        match &value.on_match {
            Some(on_match::OnMatch::Matcher(inner)) => cx
                .field("matcher", |cx| self.tree(cx, inner))
                .map(|tree| OnMatch::Tree(Box::new(tree))),
            Some(on_match::OnMatch::Action(action)) => {
                cx.field("action", |cx| self.action(cx, action))
            }
            None => {
                cx.reject("", "one of matcher, action must be set");
                None
            }
        }
    }

    fn action(&mut self, cx: &mut Context, value: &TypedExtensionConfig) -> Option<OnMatch> {
        let typed = typed(cx, value)?;
        let max_body = match self.leaves {
            Leaves::Routes { max_body } => max_body,
            Leaves::Chains => return cx.field("typed_config", |cx| chain_name(cx, &typed)),
        };
        cx.field("typed_config", |cx| match typed.name.as_str() {
            ROUTE => {
                let message: ProtoRoute = cx.message(&typed)?;
                route(cx, &message, max_body).map(|route| OnMatch::Route(Box::new(route)))
            }
            ROUTE_LIST => {
                let message: RouteList = cx.message(&typed)?;
                Some(OnMatch::Routes(cx.each(
                    "routes",
                    &message.routes,
                    |cx, value| route(cx, value, max_body),
                )))
            }
            other => {
                cx.reject(
                    "",
                    format_args!(
                        "action {other:?} is not supported: {ROUTE} or {ROUTE_LIST} is allowed"
                    ),
                );
                None
            }
        })
    }
}

/// An action of a listener's tree: the name of a filter chain.
fn chain_name(cx: &mut Context, typed: &Typed) -> Option<OnMatch> {
    if typed.name != CHAIN_NAME {
        let other = &typed.name;
        cx.reject(
            "",
            format_args!("action {other:?} is not supported: {CHAIN_NAME} is allowed"),
        );
        return None;
    }
    let name: String = cx.message(typed)?;
    Some(OnMatch::Chain(name.into()))
}

fn typed(cx: &mut Context, value: &TypedExtensionConfig) -> Option<Typed> {
    cx.field("typed_config", |cx| {
        cx.typed(value.typed_config.as_ref().unwrap_or(&Default::default()))
    })
}

fn input(
    cx: &mut Context,
    leaves: Leaves,
    value: Option<&TypedExtensionConfig>,
) -> Option<MatchInput> {
    let Some(value) = value else {
        cx.reject("", "must be set");
        return None;
    };
    let typed = typed(cx, value)?;
    let of_routes = matches!(leaves, Leaves::Routes { .. });
    if of_routes && ![HEADER, FILTER_STATE].contains(&typed.name.as_str()) {
        let name = &typed.name;
        cx.reject(
            "",
            format_args!("input {name:?}: routes can only be chosen by request headers"),
        );
        return None;
    }
    match typed.name.as_str() {
        HEADER if of_routes => {
            let message: HttpRequestHeaderMatchInput = cx.message(&typed)?;
            Some(MatchInput::RequestHeader(
                message.header_name.to_ascii_lowercase().into(),
            ))
        }
        name => match name.strip_prefix(NETWORK) {
            Some("DestinationIPInput") => Some(MatchInput::DestinationIp),
            Some("DestinationPortInput") => Some(MatchInput::DestinationPort),
            Some("SourceIPInput") => Some(MatchInput::SourceIp),
            Some("SourcePortInput") => Some(MatchInput::SourcePort),
            Some("DirectSourceIPInput") => Some(MatchInput::DirectSourceIp),
            Some("SourceTypeInput") => Some(MatchInput::SourceType),
            Some("TransportProtocolInput") => Some(MatchInput::TransportProtocol),
            Some("ApplicationProtocolInput") => Some(MatchInput::ApplicationProtocols),
            Some("ServerNameInput") => Some(MatchInput::ServerName),
            Some("FilterStateInput") => {
                let message: FilterStateInput = cx.message(&typed)?;
                if message.key.is_empty() {
                    cx.reject("key", "must be set");
                }
                Some(MatchInput::FilterState(message.key.into()))
            }
            _ => {
                cx.reject("", format_args!("input {name:?} is not supported"));
                None
            }
        },
    }
}

fn predicate(cx: &mut Context, leaves: Leaves, value: &Predicate) -> Option<MatchPredicate> {
    match &value.match_type {
        Some(MatchType::SinglePredicate(single)) => cx.field("single_predicate", |cx| {
            single_predicate(cx, leaves, single)
        }),
        Some(MatchType::OrMatcher(list)) => cx.field("or_matcher", |cx| {
            Some(MatchPredicate::Or(cx.each(
                "predicate",
                &list.predicate,
                |cx, value| predicate(cx, leaves, value),
            )))
        }),
        Some(MatchType::AndMatcher(list)) => cx.field("and_matcher", |cx| {
            Some(MatchPredicate::And(cx.each(
                "predicate",
                &list.predicate,
                |cx, value| predicate(cx, leaves, value),
            )))
        }),
        Some(MatchType::NotMatcher(inner)) => cx
            .field("not_matcher", |cx| predicate(cx, leaves, inner))
            .map(|inner| MatchPredicate::Not(Box::new(inner))),
        None => {
            cx.reject(
                "",
                "one of single_predicate, or_matcher, and_matcher, not_matcher must be set",
            );
            None
        }
    }
}

fn single_predicate(
    cx: &mut Context,
    leaves: Leaves,
    value: &SinglePredicate,
) -> Option<MatchPredicate> {
    let SinglePredicate { input, matcher } = value;
    let input = cx.field("input", |cx| self::input(cx, leaves, input.as_ref()));
    match matcher {
        Some(single_predicate::Matcher::ValueMatch(text)) => {
            let text = cx.field("value_match", |cx| string(cx, text));
            Some(MatchPredicate::Single(input?, text?))
        }
        Some(single_predicate::Matcher::CustomMatch(custom)) => {
            let blocks = cx.field("custom_match", |cx| ip_blocks(cx, custom));
            Some(MatchPredicate::Ip(input?, blocks?))
        }
        None => {
            cx.reject("", "one of value_match, custom_match must be set");
            None
        }
    }
}

/// The blocks of a matcher of addresses, the one kind beside texts.
fn ip_blocks(cx: &mut Context, value: &TypedExtensionConfig) -> Option<Vec<Cidr>> {
    let typed = typed(cx, value)?;
    cx.field("typed_config", |cx| {
        if typed.name != IP {
            let other = &typed.name;
            cx.reject(
                "",
                format_args!("matcher {other:?} is not supported: {IP} is allowed"),
            );
            return None;
        }
        let Ip {
            cidr_ranges,
            stat_prefix,
        } = cx.message(&typed)?;
        cx.ignored("stat_prefix", !stat_prefix.is_empty());
        Some(cx.each("cidr_ranges", &cidr_ranges, common::cidr))
    })
}

/// The same message as Envoy's own string matcher, field by field, in xDS' package.
fn string(cx: &mut Context, value: &XdsString) -> Option<StringMatcher> {
    match EnvoyString::decode(value.encode_to_vec().as_slice()) {
        Ok(same) => matcher::string(cx, &same),
        Err(error) => {
            cx.reject("", error);
            None
        }
    }
}
