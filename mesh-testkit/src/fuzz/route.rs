//! Route tables: any authority, any head.

use std::sync::LazyLock;

use mesh_core::model::{
    Action, HeaderMatcher, HeaderValueMatcher, Name, PathMatch, Regex, Route, RouteConfiguration,
    RouteMatch, RouteRules, StripPort, VirtualHost,
};
use mesh_core::route::host::{strip_port, strip_trailing_dot};
use mesh_core::route::{Decision, Head, RouteTable};
use mesh_core::snapshot::Clusters;

/// Domains of every form, some within others.
const DOMAINS: [&str; 12] = [
    "*",
    "a",
    "a.b",
    "*.b",
    "*.a.b",
    "*-x.b",
    "a.*",
    "a.b.*",
    "a:80",
    "*.b:80",
    "[::1]",
    "xn--bcher-kva.example",
];

static HOSTS: LazyLock<RouteTable> = LazyLock::new(|| {
    let virtual_hosts = DOMAINS.iter().map(|domain| VirtualHost {
        name: Name::from(*domain),
        domains: vec![Name::from(*domain)],
        ..VirtualHost::default()
    });
    table(virtual_hosts.collect())
});

static ROUTES: LazyLock<RouteTable> = LazyLock::new(|| {
    let header = |name: &str, value| HeaderMatcher {
        name: name.into(),
        value,
        invert: false,
        missing_as_empty: false,
    };
    let mut routes: Vec<Route> = [
        PathMatch::Exact("/a".into()),
        PathMatch::Prefix("/a/b".into()),
        PathMatch::SeparatedPrefix("/a".into()),
        PathMatch::Regex(Regex::parse("/[a-c]+/([0-9]+)?").expect("the expression is valid")),
        PathMatch::Connect,
        PathMatch::Prefix("/".into()),
    ]
    .into_iter()
    .map(route)
    .collect();
    routes[1].matches.headers = vec![header("x", HeaderValueMatcher::Present(true))];
    routes[2].matches.case_sensitive = false;
    routes[5].matches.headers = vec![header(":method", HeaderValueMatcher::Present(true))];
    table(vec![VirtualHost {
        name: "all".into(),
        domains: vec!["*".into()],
        routes: RouteRules::List(routes),
        ..VirtualHost::default()
    }])
});

/// Looks an authority up among domains of every form: the one that a plain reading of Envoy's rules finds.
pub fn host(data: &[u8]) {
    let headers: [(&[u8], &[u8]); 0] = [];
    let found = HOSTS.host(&Head::new(b"GET", b"http", data, b"/", headers.as_slice()));
    let found = found.map(|entry| entry.name().to_string());
    assert_eq!(found.as_deref(), Some(plain(data)), "for {data:?}");
    for strip in [StripPort::No, StripPort::Matching, StripPort::Any] {
        assert!(
            data.starts_with(strip_port(data, strip, Some(80))),
            "a port is only cut off: {data:?}"
        );
    }
    assert!(strip_trailing_dot(data).len() <= data.len());
}

/// Exact, then the longest `*suffix`, then the longest `prefix*`, then `*`; a wildcard stands for at least one character.
fn plain(authority: &[u8]) -> &'static str {
    let authority = authority.to_ascii_lowercase();
    let longest =
        |candidates: Vec<&'static str>| candidates.into_iter().max_by_key(|domain| domain.len());
    let exact = DOMAINS
        .iter()
        .copied()
        .find(|domain| !domain.contains('*') && domain.as_bytes() == authority);
    let fits = |rest: &str| authority.len() > rest.len();
    let suffix = DOMAINS.iter().copied().filter(|domain| {
        let rest = domain.strip_prefix('*').filter(|rest| !rest.is_empty());
        rest.is_some_and(|rest| fits(rest) && authority.ends_with(rest.as_bytes()))
    });
    let prefix = DOMAINS.iter().copied().filter(|domain| {
        let rest = domain.strip_suffix('*').filter(|rest| !rest.is_empty());
        rest.is_some_and(|rest| fits(rest) && authority.starts_with(rest.as_bytes()))
    });
    exact
        .or_else(|| longest(suffix.collect()))
        .or_else(|| longest(prefix.collect()))
        .unwrap_or("*")
}

/// Routes a head made of lines: method, authority, path, then headers as `name:value`. The same head is routed the same way, and a
/// path that the first rule names exactly by that rule.
pub fn head(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let (method, authority, path) = (next(), next(), next());
    let headers: Vec<(&[u8], &[u8])> = lines
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            Some((&line[..colon], &line[colon + 1..]))
        })
        .collect();
    let head = Head::new(method, b"http", authority, path, &headers);
    let index = |decision: &Decision| decision.route().map(|route| route.name().to_string());
    let first = ROUTES.decide(&head);
    assert_eq!(
        index(&first),
        index(&ROUTES.decide(&head)),
        "{data:?} is routed in two ways"
    );
    if path == b"/a" && method != b"CONNECT" {
        assert_eq!(index(&first).as_deref(), Some("Exact(\"/a\")"), "{data:?}");
    }
}

fn table(virtual_hosts: Vec<VirtualHost>) -> RouteTable {
    let config = RouteConfiguration {
        name: "fuzz".into(),
        virtual_hosts,
        ..RouteConfiguration::default()
    };
    RouteTable::compile(&config, &Clusters::default()).expect("the table is valid")
}

fn route(path: PathMatch) -> Route {
    Route {
        name: format!("{path:?}").into(),
        ..Route::new(RouteMatch::path(path), Action::NonForwarding)
    }
}
