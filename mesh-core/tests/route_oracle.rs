//! The compiled table against an oracle that asks each rule in order, over random tables and requests.

#![cfg(feature = "regex")]

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use mesh_core::{
    model::{
        Action, DirectResponse, Fraction, HeaderMatcher, HeaderValueMatcher, PathMatch,
        QueryMatcher, Regex, Route, RouteConfiguration, RouteMatch, RouteRules, RuntimeFraction,
        StringMatcher, StringPattern, VirtualHost,
    },
    route::{Decision, Head, RouteTable},
    snapshot::Clusters,
};
use proptest::{collection::vec, prelude::*, sample::select};

/// Requests for each table; with the number of tables more than 100,000 in all.
const REQUESTS: usize = 500;
const TABLES: u32 = 256;

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
    "/z",
    "",
];
const EXPRESSIONS: &[&str] = &["/a.*", ".*", "/a/[bc]", "/[^/]+", "(?i)/A/B"];
const VALUES: &[&str] = &["", "v0", "v1", "v2", "v3", "v4", "V1", "7", "-3"];
const NAMES: &[&str] = &["x-one", "x-two", ":method", ":path"];

#[derive(Clone, Debug)]
struct Request {
    method: &'static str,
    host: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    random: u64,
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let headers = vec(
        (
            select(&["x-one", "x-two", "content-type"][..]),
            select(VALUES),
        ),
        0..3,
    );
    let request = (
        select(&["GET", "POST", "CONNECT"][..]),
        select(HOSTS),
        select(PATHS),
        headers,
        any::<bool>(),
        any::<u64>(),
    );
    let request = request.prop_map(|(method, host, path, mut headers, grpc, random)| {
        if grpc {
            headers.push(("content-type", "application/grpc+proto"));
        }
        Request {
            method,
            host,
            path,
            headers,
            random,
        }
    });
    vec(request, REQUESTS)
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
    let value = prop_oneof![
        6 => text(&["v[0-9]", ".*"]).prop_map(HeaderValueMatcher::String),
        1 => any::<bool>().prop_map(HeaderValueMatcher::Present),
        1 => (-5_i64..5, 0_i64..10).prop_map(|(start, end)| HeaderValueMatcher::Range { start, end }),
    ];
    let flags = (prop::bool::weighted(0.15), prop::bool::weighted(0.15));
    (select(NAMES), value, flags).prop_map(|(name, value, (invert, missing_as_empty))| {
        HeaderMatcher {
            name: name.into(),
            value,
            invert,
            missing_as_empty,
        }
    })
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

fn route_match() -> impl Strategy<Value = RouteMatch> {
    // One path is frequent, so that runs on one header come about under it.
    let path = prop_oneof![
        6 => Just(PathMatch::Prefix("/".into())),
        5 => select(PATTERNS).prop_map(|text| PathMatch::Prefix(text.into())),
        3 => select(PATTERNS).prop_map(|text| PathMatch::Exact(text.into())),
        2 => select(PATTERNS).prop_map(|text| PathMatch::SeparatedPrefix(text.into())),
        1 => select(EXPRESSIONS).prop_map(|text| PathMatch::Regex(expression(text))),
        1 => Just(PathMatch::Connect),
    ];
    let headers = prop_oneof![
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
    ];
    let share = prop::option::weighted(0.1, 0_u32..100);
    let query = prop_oneof![8 => Just(Vec::new()), 1 => vec(query(), 1..3)];
    let flags = (prop::bool::weighted(0.8), prop::bool::weighted(0.1));
    (path, headers, query, flags, share).prop_map(
        |(path, headers, query, (case_sensitive, grpc), share)| RouteMatch {
            path,
            case_sensitive,
            headers,
            query,
            grpc,
            runtime_fraction: share.map(|numerator| RuntimeFraction {
                default: Fraction {
                    numerator,
                    denominator: 100,
                },
                key: "".into(),
            }),
            metadata: Vec::new(),
            filter_state: Vec::new(),
            tls: None,
        },
    )
}

fn table() -> impl Strategy<Value = RouteConfiguration> {
    let hosts = vec(vec(route_match(), 1..60), 1..4);
    let domains = prop::sample::subsequence(DOMAINS, 1..=DOMAINS.len()).prop_shuffle();
    (hosts, domains, any::<bool>(), any::<bool>()).prop_map(
        |(hosts, domains, ignore_port_in_host, ignore_path_parameters)| {
            let count = hosts.len();
            let virtual_hosts = hosts
                .into_iter()
                .enumerate()
                .map(|(index, matches)| VirtualHost {
                    name: format!("h{index}").into(),
                    domains: domains
                        .iter()
                        .enumerate()
                        .filter(|(at, _)| at % count == index)
                        .map(|(_, domain)| (*domain).into())
                        .collect(),
                    routes: RouteRules::List(
                        matches
                            .into_iter()
                            .enumerate()
                            .map(|(at, matches)| route(format!("h{index}r{at}"), matches))
                            .collect(),
                    ),
                    ..VirtualHost::default()
                });
            RouteConfiguration {
                virtual_hosts: virtual_hosts.collect(),
                ignore_port_in_host,
                ignore_path_parameters,
                ..RouteConfiguration::default()
            }
        },
    )
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

/// The oracle: the name of the first rule that matches.
fn first_match(table: &RouteConfiguration, request: &Request) -> Option<String> {
    let host = find_host(table, request.host)?;
    let RouteRules::List(routes) = &host.routes else {
        return None;
    };
    routes
        .iter()
        .find(|route| matches(table, &route.matches, request))
        .map(|route| route.name.to_string())
}

/// Every domain that fits, ranked: exact, then the longest suffix, then the longest prefix, then `*`.
fn find_host<'t>(table: &'t RouteConfiguration, host: &str) -> Option<&'t VirtualHost> {
    let only_default = table
        .virtual_hosts
        .iter()
        .flat_map(|host| &host.domains)
        .all(|domain| &**domain == "*");
    let host = match host.rsplit_once(':') {
        Some((name, _)) if table.ignore_port_in_host => name,
        _ => host,
    };
    let host = host.to_lowercase();
    let rank = |domain: &str| {
        let domain = domain.to_lowercase();
        if domain == "*" {
            return (!host.is_empty() || only_default).then_some((0, 0));
        }
        if let Some(suffix) = domain.strip_prefix('*') {
            let fits = host.len() > suffix.len() && host.ends_with(suffix);
            return fits.then_some((2, suffix.len()));
        }
        if let Some(prefix) = domain.strip_suffix('*') {
            let fits = host.len() > prefix.len() && host.starts_with(prefix);
            return fits.then_some((1, prefix.len()));
        }
        (domain == host).then_some((3, 0))
    };
    let ranked = table.virtual_hosts.iter().flat_map(|entry| {
        let best = entry.domains.iter().filter_map(|domain| rank(domain)).max();
        best.map(|best| (best, entry))
    });
    ranked.max_by_key(|(best, _)| *best).map(|(_, entry)| entry)
}

fn matches(table: &RouteConfiguration, rule: &RouteMatch, request: &Request) -> bool {
    let value = |name: &str| -> Option<String> {
        match name {
            ":method" => Some(request.method.to_owned()),
            ":path" => (!request.path.is_empty()).then(|| request.path.to_owned()),
            _ => {
                let all: Vec<&str> = request
                    .headers
                    .iter()
                    .filter(|(known, _)| *known == name)
                    .map(|(_, value)| *value)
                    .collect();
                (!all.is_empty()).then(|| all.join(","))
            }
        }
    };
    let kind = request
        .headers
        .iter()
        .find(|(name, _)| *name == "content-type");
    let grpc = kind.is_some_and(|(_, value)| value.starts_with("application/grpc"));
    path_matches(table, rule, request)
        && (!rule.grpc || grpc)
        && rule
            .headers
            .iter()
            .all(|matcher| header_matches(matcher, value(&matcher.name).as_deref()))
        && rule
            .query
            .iter()
            .all(|matcher| query_matches(matcher, request.path))
        && rule
            .runtime_fraction
            .as_ref()
            .is_none_or(|share| request.random % 100 < u64::from(share.default.numerator))
}

fn path_matches(table: &RouteConfiguration, rule: &RouteMatch, request: &Request) -> bool {
    let connect = request.method == "CONNECT";
    if rule.path == PathMatch::Connect {
        return connect;
    }
    if connect && request.path.is_empty() {
        return false;
    }
    let mut path = request.path.split(['?', '#']).next().unwrap_or("");
    if table.ignore_path_parameters {
        path = path.split(';').next().unwrap_or("");
    }
    let fold = |text: &str| {
        if rule.case_sensitive {
            text.to_owned()
        } else {
            text.to_lowercase()
        }
    };
    match &rule.path {
        PathMatch::Prefix(text) => fold(path).starts_with(&fold(text)),
        PathMatch::Exact(text) => fold(path) == fold(text),
        PathMatch::SeparatedPrefix(text) => {
            let (path, text) = (fold(path), fold(text));
            path == text || path.starts_with(&(text + "/"))
        }
        PathMatch::Regex(regex) => regex.is_match(path.as_bytes()),
        _ => false,
    }
}

fn header_matches(matcher: &HeaderMatcher, value: Option<&str>) -> bool {
    let value = if matcher.missing_as_empty {
        value.or(Some(""))
    } else {
        value
    };
    match (&matcher.value, value) {
        (HeaderValueMatcher::Present(wanted), value) => {
            (value.is_some() == *wanted) != matcher.invert
        }
        (_, None) => false,
        (HeaderValueMatcher::String(text), Some(value)) => {
            text_matches(text, value) != matcher.invert
        }
        (HeaderValueMatcher::Range { start, end }, Some(value)) => {
            let inside = value
                .parse::<i64>()
                .is_ok_and(|number| *start <= number && number < *end);
            inside != matcher.invert
        }
        _ => unreachable!("no other form is generated"),
    }
}

fn query_matches(matcher: &QueryMatcher, path: &str) -> bool {
    let query = path.split_once('?').map(|(_, query)| query);
    let found = query.and_then(|query| {
        query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .find(|(name, _)| *name == &*matcher.name)
    });
    match &matcher.value {
        Some(text) => found.is_some_and(|(_, value)| text_matches(text, value)),
        None => found.is_some() == matcher.present.unwrap_or(true),
    }
}

fn text_matches(matcher: &StringMatcher, text: &str) -> bool {
    let fold = |text: &str| {
        if matcher.ignore_case {
            text.to_lowercase()
        } else {
            text.to_owned()
        }
    };
    match &matcher.pattern {
        StringPattern::Exact(wanted) => fold(text) == fold(wanted),
        StringPattern::Prefix(wanted) => fold(text).starts_with(&fold(wanted)),
        StringPattern::Suffix(wanted) => fold(text).ends_with(&fold(wanted)),
        StringPattern::Contains(wanted) => fold(text).contains(&fold(wanted)),
        StringPattern::Regex(regex) => regex.is_match(text.as_bytes()),
        _ => unreachable!("no other form is generated"),
    }
}

fn decided(table: &RouteTable, request: &Request) -> Option<String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    let head = Head {
        random: request.random,
        ..Head::new(
            request.method.as_bytes(),
            b"http",
            request.host.as_bytes(),
            request.path.as_bytes(),
            &headers,
        )
    };
    match table.decide(&head) {
        Decision::DirectResponse(route) => Some(route.name().to_string()),
        Decision::NotFound(_) => None,
        other => panic!("a decision that no rule asks for: {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: TABLES, failure_persistence: None, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn compiled_table_decides_like_the_oracle(config in table(), requests in requests()) {
        let table = RouteTable::compile(&config, &Clusters::default()).expect("the table compiles");
        for request in &requests {
            prop_assert_eq!(decided(&table, request), first_match(&config, request), "{:?}", request);
        }
    }
}
