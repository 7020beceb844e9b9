//! Random tables and requests over few values, so that they meet.

use http::StatusCode;
use mesh_core::model::{
    Action, Cidr, DirectResponse, Fraction, HeaderMatcher, HeaderValueMatcher, MatchInput,
    MatchNode, MatchPredicate, MatchTree, MetadataMatcher, Name, OnMatch, PathMatch, PathTemplate,
    QueryMatcher, Regex, RequireTls, Route, RouteConfiguration, RouteMatch, RouteRules,
    RuntimeFraction, StringMatcher, StringPattern, Value, ValueMatcher, VirtualHost,
};
use proptest::{collection::vec, prelude::*, sample::select};

use super::{KEY, REQUESTS, Request};

const DOMAINS: &[&str] = &[
    "*",
    "a.com",
    "*.a.com",
    "*-x.a.com",
    "b.*",
    "b.a.*",
    "b.a.com",
    "A.org:80",
    "*.org",
    "*.org:80",
];
const HOSTS: &[&str] = &[
    "a.com",
    "b.a.com",
    "c.a.com",
    "c-x.a.com",
    "C.A.com",
    "b.net",
    "a.org:80",
    "x.org",
    "x.org:80",
    ".a.com",
    "",
];
const PATTERNS: &[&str] = &[
    "", "/", "/a", "/a/", "/a/b", "/A/b", "/ab", "/b", "/a/b/c", "/abc/d",
];
const PATHS: &[&str] = &[
    "/",
    "/a",
    "/a/",
    "/a/b",
    "/a/b?x=1",
    "/a/b/c?y",
    "/A/B",
    "/ab",
    "/abc/d",
    "/abc/d;v=1",
    "/b#f",
    "/ab?x=2&y=1",
    "/ab?x=%31&y",
    "/z",
    "",
];
const EXPRESSIONS: &[&str] = &["/a.*", ".*", "/a/[bc]", "/[^/]+", "(?i)/A/B"];
/// Each in another language: the oracle reads the second.
pub(crate) const TEMPLATES: &[(&str, &str)] = &[
    ("/a/*", "/a/[^/]+"),
    ("/{x}/b", "/[^/]+/b"),
    ("/a/{rest=**}", "/a/.*"),
    ("/{x=a/*}/c", "/a/[^/]+/c"),
    ("/abc/d", "/abc/d"),
];
const VALUES: &[&str] = &["", "v0", "v1", "v2", "v3", "v4", "V1", "7", "-3", "4"];
const NAMES: &[&str] = &[
    "x-one",
    "x-two",
    ":method",
    ":path",
    ":scheme",
    ":authority",
];

/// Types of gRPC, and some that only begin like them.
const TYPES: &[&str] = &[
    "application/grpc",
    "application/grpc+proto",
    "application/grpc-web",
    "application/grpcx",
];

pub(crate) fn requests() -> impl Strategy<Value = Vec<Request>> {
    let headers = vec(
        (
            select(&["x-one", "x-two", "content-type", "x-host"][..]),
            select(VALUES),
        ),
        0..3,
    );
    let proto = prop::option::of(select(
        &[
            ("x-forwarded-proto", "https"),
            ("x-forwarded-proto", "http"),
            ("x-envoy-internal", "true"),
            ("x-host", "a.com"),
            ("x-host", "x.org"),
        ][..],
    ));
    let head = (
        select(&["GET", "POST", "CONNECT"][..]),
        select(&["", "http", "https"][..]),
        select(HOSTS),
        select(PATHS),
        headers,
        (prop::option::of(select(TYPES)), proto),
    );
    let metadata = prop::option::of(select((0..6).map(index_value).collect::<Vec<_>>()));
    let rest = (
        any::<u64>(),
        prop::option::of(0_u32..100),
        metadata,
        prop::option::of(select(&["v0", "v1", "10.0.0.9", "11.0.0.9"][..])),
        any::<(bool, bool)>(),
        (select(&[1_u16, 2][..]), select(&[80_u16, 81][..])),
        prop::option::of(select(&["a.com", "v0"][..])),
    );
    let request = (head, rest).prop_map(|(head, rest)| {
        let (method, scheme, host, path, mut headers, (grpc, more)) = head;
        headers.extend(grpc.map(|kind| ("content-type", kind)));
        headers.extend(more);
        let (random, runtime, metadata, state, certificate, ports, server_name) = rest;
        Request {
            method,
            scheme,
            host,
            path,
            headers,
            random,
            runtime,
            metadata,
            state,
            certificate,
            ports,
            server_name,
        }
    });
    vec(request, REQUESTS)
}

/// The values that dynamic metadata have.
fn index_value(index: usize) -> Value {
    match index {
        0 => Value::Null,
        1 => Value::Bool(true),
        2 => Value::Number("3".into()),
        3 => Value::String("v1".into()),
        4 => Value::List(vec![Value::String("v0".into()), Value::Number("7".into())]),
        _ => Value::Object(vec![("deep".into(), Value::String("v0".into()))]),
    }
}

fn text(regex: &'static [&'static str]) -> impl Strategy<Value = StringMatcher> {
    let pattern = prop_oneof![
        4 => select(VALUES).prop_map(|text| StringPattern::Exact(text.into())),
        1 => select(VALUES).prop_map(|text| StringPattern::Prefix(text.into())),
        1 => select(VALUES).prop_map(|text| StringPattern::Suffix(text.into())),
        1 => select(VALUES).prop_map(|text| StringPattern::Contains(text.into())),
        1 => select(regex).prop_map(|text| StringPattern::Regex(expression(text))),
    ];
    (pattern, prop::bool::weighted(0.2)).prop_map(|(pattern, ignore_case)| StringMatcher {
        pattern,
        ignore_case,
    })
}

fn expression(text: &str) -> Regex {
    Regex::parse(text).expect("a regular expression")
}

fn header() -> impl Strategy<Value = HeaderMatcher> {
    let text = text(&["v[0-9]", ".*"]).prop_map(HeaderValueMatcher::String);
    let present = any::<bool>().prop_map(HeaderValueMatcher::Present);
    let range =
        (-5_i64..5, 0_i64..10).prop_map(|(start, end)| HeaderValueMatcher::Range { start, end });
    // Numbers stand in ordinary headers only.
    let test = prop_oneof![
        6 => (select(NAMES), text).boxed(),
        1 => (select(NAMES), present).boxed(),
        1 => (select(&NAMES[..2]), range).boxed(),
    ];
    let flags = (prop::bool::weighted(0.15), prop::bool::weighted(0.15));
    (test, flags).prop_map(
        |((name, value), (invert, missing_as_empty))| HeaderMatcher {
            name: name.into(),
            value,
            invert,
            missing_as_empty,
        },
    )
}

fn query() -> impl Strategy<Value = QueryMatcher> {
    let value = prop::option::of(text(&["[0-9]"]));
    (
        select(&["x", "y"][..]),
        value,
        prop::option::of(any::<bool>()),
    )
        .prop_map(|(name, value, present)| QueryMatcher {
            name: name.into(),
            value,
            present,
        })
}

fn value() -> impl Strategy<Value = ValueMatcher> {
    let leaf = prop_oneof![
        Just(ValueMatcher::Null),
        any::<bool>().prop_map(ValueMatcher::Bool),
        any::<bool>().prop_map(ValueMatcher::Present),
        select(&["3", "7"][..]).prop_map(|text| ValueMatcher::Number(text.into())),
        Just(ValueMatcher::NumberRange("3".into(), "7".into())),
        text(&["v[0-9]"]).prop_map(ValueMatcher::String),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            inner
                .clone()
                .prop_map(|one| ValueMatcher::List(Box::new(one))),
            vec(inner, 1..3).prop_map(ValueMatcher::Or),
        ]
    })
}

fn metadata() -> impl Strategy<Value = MetadataMatcher> {
    let path = select(vec![&["k"][..], &["k", "deep"], &["none"]]);
    let namespace = prop_oneof![6 => Just("n"), 1 => Just("other")];
    (namespace, path, value(), any::<bool>()).prop_map(|(namespace, path, value, invert)| {
        MetadataMatcher {
            namespace: namespace.into(),
            path: path.iter().map(|key| Name::from(*key)).collect(),
            value,
            invert,
        }
    })
}

fn filter_state() -> impl Strategy<Value = MetadataMatcher> {
    let block = Cidr::new([10, 0, 0, 0].into(), 8).expect("a block");
    let value = prop_oneof![
        text(&["v[0-9]"]).prop_map(ValueMatcher::String),
        any::<bool>().prop_map(move |invert| ValueMatcher::Address(vec![block], invert)),
    ];
    value.prop_map(|value| MetadataMatcher {
        namespace: "s".into(),
        path: Vec::new(),
        value,
        invert: false,
    })
}

fn path() -> impl Strategy<Value = PathMatch> {
    // One path is frequent, so that runs on one header come about under it.
    prop_oneof![
        12 => Just(PathMatch::Prefix("/".into())),
        10 => select(PATTERNS).prop_map(|text| PathMatch::Prefix(text.into())),
        6 => select(PATTERNS).prop_map(|text| PathMatch::Exact(text.into())),
        4 => select(PATTERNS).prop_map(|text| PathMatch::SeparatedPrefix(text.into())),
        2 => select(EXPRESSIONS).prop_map(|text| PathMatch::Regex(expression(text))),
        2 => select(TEMPLATES).prop_map(|(text, _)| PathMatch::Template(PathTemplate { text: text.into() })),
        2 => Just(PathMatch::Connect),
    ]
}

fn headers() -> impl Strategy<Value = Vec<HeaderMatcher>> {
    prop_oneof![
        3 => vec(header(), 0..2),
        1 => vec(header(), 2..4),
        9 => select(VALUES).prop_map(|value| vec![HeaderMatcher {
            name: "x-one".into(),
            value: HeaderValueMatcher::String(StringMatcher {
                pattern: StringPattern::Exact(value.into()),
                ignore_case: false,
            }),
            invert: false,
            missing_as_empty: false,
        }]),
    ]
}

fn share() -> impl Strategy<Value = Option<RuntimeFraction>> {
    let share = (0_u32..100, select(&["", KEY, "other"][..])).prop_map(|(numerator, key)| {
        RuntimeFraction {
            default: Fraction {
                numerator,
                denominator: 100,
            },
            key: key.into(),
        }
    });
    prop::option::weighted(0.1, share)
}

fn route_match() -> impl Strategy<Value = RouteMatch> {
    fn rare<T: std::fmt::Debug + Clone>(
        one: impl Strategy<Value = T>,
    ) -> impl Strategy<Value = Vec<T>> {
        prop_oneof![14 => Just(Vec::new()), 1 => vec(one, 1..3)]
    }
    let query = prop_oneof![8 => Just(Vec::new()), 1 => vec(query(), 1..3)];
    let flags = (prop::bool::weighted(0.8), prop::bool::weighted(0.1));
    let tls = prop::option::weighted(0.07, any::<(Option<bool>, Option<bool>)>());
    let state = (rare(metadata()), rare(filter_state()));
    (path(), headers(), query, flags, share(), state, tls).prop_map(
        |(path, headers, query, (case_sensitive, grpc), share, (metadata, filter_state), tls)| {
            RouteMatch {
                path,
                case_sensitive,
                headers,
                query,
                cookies: Vec::new(),
                grpc,
                runtime_fraction: share,
                metadata,
                filter_state,
                tls,
            }
        },
    )
}

fn input() -> impl Strategy<Value = MatchInput> {
    prop_oneof![
        6 => select(NAMES).prop_map(|name| MatchInput::RequestHeader(name.into())),
        2 => select(&["x", "y"][..]).prop_map(|name| MatchInput::QueryParameter(name.into())),
        1 => Just(MatchInput::DestinationIp),
        1 => Just(MatchInput::DestinationPort),
        1 => Just(MatchInput::SourceIp),
        1 => Just(MatchInput::SourcePort),
        1 => Just(MatchInput::ServerName),
        2 => Just(MatchInput::FilterState("s".into())),
    ]
}

/// Texts that some input has.
const KEYS: &[&str] = &[
    "", "v", "v0", "v1", "1", "2", "80", "81", "10.0.0.1", "10.0.0.9", "GET", "http", "/a", "/a/b",
    "a.com",
];

fn predicate() -> impl Strategy<Value = MatchPredicate> {
    let pattern = prop_oneof![
        select(KEYS).prop_map(|text| StringPattern::Exact(text.into())),
        select(KEYS).prop_map(|text| StringPattern::Prefix(text.into())),
    ];
    let single = (input(), pattern).prop_map(|(input, pattern)| {
        let ignore_case = false;
        MatchPredicate::Single(
            input,
            StringMatcher {
                pattern,
                ignore_case,
            },
        )
    });
    let block = (select(&["10.0.0.0", "10.0.0.8", "::"][..]), 0u8..=32).prop_map(|(ip, bits)| {
        let ip = ip.parse().expect("an address");
        Cidr::new(ip, bits).expect("few bits")
    });
    let in_blocks = (input(), vec(block, 1..3));
    let in_blocks = in_blocks.prop_map(|(input, blocks)| MatchPredicate::Ip(input, blocks));
    let single = prop_oneof![4 => single, 1 => in_blocks];
    single.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 1..3).prop_map(MatchPredicate::And),
            vec(inner.clone(), 1..3).prop_map(MatchPredicate::Or),
            inner.prop_map(|one| MatchPredicate::Not(Box::new(one))),
        ]
    })
}

fn tree() -> impl Strategy<Value = MatchTree> {
    fn node(on: BoxedStrategy<OnMatch>) -> impl Strategy<Value = MatchTree> {
        let map = || {
            let keys = prop::sample::subsequence(KEYS, 1..6);
            (keys, vec(on.clone(), 6)).prop_map(|(keys, on)| {
                let keys = keys.into_iter().map(Name::from);
                keys.zip(on).collect::<Vec<_>>()
            })
        };
        let node = prop_oneof![
            vec((predicate(), on.clone()), 1..5).prop_map(MatchNode::List),
            (input(), map()).prop_map(|(input, map)| MatchNode::Exact(input, map)),
            (input(), map()).prop_map(|(input, map)| MatchNode::Prefix(input, map)),
        ];
        (node, prop::option::of(on.clone()))
            .prop_map(|(node, on_no_match)| MatchTree { node, on_no_match })
    }
    let one = || route_match().prop_map(|matches| route(String::new(), matches));
    let leaf = prop_oneof![
        one().prop_map(|route| OnMatch::Route(Box::new(route))),
        vec(one(), 1..4).prop_map(OnMatch::Routes),
    ];
    let below = leaf.prop_recursive(2, 8, 3, |inner| {
        node(inner.boxed()).prop_map(|tree| OnMatch::Tree(Box::new(tree)))
    });
    node(below.boxed())
}

fn rules() -> impl Strategy<Value = RouteRules> {
    let list = vec(route_match(), 1..60).prop_map(|matches| {
        let routes = matches.into_iter();
        RouteRules::List(routes.map(|one| route(String::new(), one)).collect())
    });
    prop_oneof![
        3 => list,
        1 => tree().prop_map(|tree| RouteRules::Tree(Box::new(tree))),
    ]
}

pub(crate) fn table() -> impl Strategy<Value = RouteConfiguration> {
    let tls = prop_oneof![
        8 => Just(RequireTls::None),
        1 => Just(RequireTls::All),
        1 => Just(RequireTls::ExternalOnly),
    ];
    let hosts = vec((rules(), tls), 1..4);
    let domains = prop::sample::subsequence(DOMAINS, 1..=DOMAINS.len()).prop_shuffle();
    let flags = any::<(bool, bool)>();
    (hosts, domains, flags, prop::bool::weighted(0.1)).prop_map(
        |(hosts, domains, (ignore_port_in_host, ignore_path_parameters), by_header)| {
            let count = hosts.len();
            let mut named = 0;
            let virtual_hosts = hosts.into_iter().enumerate();
            let virtual_hosts = virtual_hosts.map(|(index, (mut routes, require_tls))| {
                name_all(&mut routes, &mut named);
                let own = domains.iter().enumerate();
                let own = own.filter(|(at, _)| at % count == index);
                VirtualHost {
                    name: format!("h{index}").into(),
                    domains: own.map(|(_, domain)| (*domain).into()).collect(),
                    routes,
                    require_tls,
                    ..VirtualHost::default()
                }
            });
            RouteConfiguration {
                virtual_hosts: virtual_hosts.collect(),
                ignore_port_in_host,
                ignore_path_parameters,
                vhost_header: by_header.then(|| "x-host".into()),
                ..RouteConfiguration::default()
            }
        },
    )
}

/// Gives each route a name of its own.
fn name_all(rules: &mut RouteRules, named: &mut usize) {
    match rules {
        RouteRules::List(routes) => routes.iter_mut().for_each(|route| name(route, named)),
        RouteRules::Tree(tree) => name_tree(tree, named),
    }
}

fn name_tree(tree: &mut MatchTree, named: &mut usize) {
    let children: Vec<&mut OnMatch> = match &mut tree.node {
        MatchNode::List(list) => list.iter_mut().map(|(_, on)| on).collect(),
        MatchNode::Exact(_, map) | MatchNode::Prefix(_, map) => {
            map.iter_mut().map(|(_, on)| on).collect()
        }
    };
    for on in children.into_iter().chain(&mut tree.on_no_match) {
        match on {
            OnMatch::Tree(tree) => name_tree(tree, named),
            OnMatch::Route(route) => name(route, named),
            OnMatch::Routes(routes) => routes.iter_mut().for_each(|route| name(route, named)),
            OnMatch::Chain(_) => {}
        }
    }
}

fn name(route: &mut Route, named: &mut usize) {
    route.name = format!("r{named}").into();
    *named += 1;
}

fn route(name: String, matches: RouteMatch) -> Route {
    Route {
        name: name.into(),
        matches,
        action: Action::DirectResponse(DirectResponse {
            status: StatusCode::OK,
            body: bytes::Bytes::new(),
            format: None,
        }),
        headers: Default::default(),
        decorator: None,
        filters: Vec::new(),
        per_request_buffer_limit: None,
        stat_prefix: None,
        metadata: Default::default(),
        origin: Default::default(),
    }
}
