use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};

use super::*;
use crate::{
    config::Rejection,
    model::{
        Action, AppendAction, ClusterChoice, Cors, FilterConfig, FilterOverride, Format, Forward,
        Fraction, HeaderAddition, HeaderMatcher, HeaderMutations, HeaderValueMatcher, HostRewrite,
        MatchInput, MatchNode, MatchPredicate, MatchTree, Metadata, OnMatch, PathMatch,
        PathRewrite, Redirect, RedirectPath, RequireTls, Route, RouteConfiguration, RouteMatch,
        RouteRules, SchemeRedirect, StringMatcher, StringPattern, Value, VirtualHost,
        WeightedCluster, WeightedClusters,
    },
    snapshot::Clusters,
};

fn matches(path: PathMatch) -> RouteMatch {
    RouteMatch::path(path)
}

fn route(path: PathMatch, action: Action) -> Route {
    Route {
        name: "r".into(),
        ..Route::new(matches(path), action)
    }
}

fn prefix(text: &str) -> PathMatch {
    PathMatch::Prefix(text.into())
}

fn to(cluster: &str) -> Forward {
    Forward::to(ClusterChoice::Name(cluster.into()))
}

fn config(routes: Vec<Route>) -> RouteConfiguration {
    RouteConfiguration {
        name: "t".into(),
        virtual_hosts: vec![VirtualHost {
            name: "v".into(),
            domains: vec!["*".into()],
            routes: RouteRules::List(routes),
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    }
}

fn compile(config: &RouteConfiguration) -> RouteTable {
    RouteTable::compile(config, &Clusters::default()).expect("the table compiles")
}

fn refused(config: &RouteConfiguration) -> Vec<Rejection> {
    RouteTable::compile(config, &Clusters::default()).expect_err("the table is refused")
}

fn request(path: &str) -> HeadBuf {
    HeadBuf {
        method: b"GET".to_vec(),
        scheme: b"http".to_vec(),
        authority: b"host.example:80".to_vec(),
        path: path.as_bytes().to_vec(),
        headers: HeaderMap::new(),
    }
}

fn forwarded(table: &RouteTable, head: &HeadBuf) -> Forwarding {
    match table.decide(&head.head()) {
        Decision::Forward(forwarding) => forwarding,
        other => panic!("forwards: {other:?}"),
    }
}

fn finalized(table: &RouteTable, head: &HeadBuf) -> HeadBuf {
    let mut upstream = head.clone();
    let context = HeadContext(head.head());
    forwarded(table, head).finalize_request(&mut upstream, &context, true);
    upstream
}

fn append(name: &'static str, value: &str) -> HeaderAddition {
    HeaderAddition {
        name: HeaderName::from_static(name),
        value: Format { text: value.into() },
        action: AppendAction::AppendIfExistsOrAdd,
        keep_empty: false,
    }
}

fn adding(value: &str) -> HeaderMutations {
    HeaderMutations {
        request_add: vec![append("x-level", value)],
        response_add: vec![append("x-level", value)],
        ..HeaderMutations::default()
    }
}

fn weighted(arms: &[(&str, u32)]) -> WeightedClusters {
    let arm = |(name, weight): &(&str, u32)| WeightedCluster {
        name: (*name).into(),
        header: None,
        weight: *weight,
        headers: adding("arm"),
        host_rewrite: None,
        metadata_match: Default::default(),
        filters: Vec::new(),
    };
    WeightedClusters {
        arms: arms.iter().map(arm).collect(),
        total: arms.iter().map(|(_, weight)| weight).sum(),
        runtime_key_prefix: "".into(),
        random_header: None,
        use_hash: false,
    }
}

fn levels(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all("x-level").iter();
    values.map(|value| value.to_str().expect("text")).collect()
}

#[test]
fn levels_apply_from_the_arm_outwards_or_the_other_way_round() {
    let choice = ClusterChoice::Weighted(weighted(&[("a", 1)]));
    let mut one = route(prefix("/"), Action::Forward(Box::new(Forward::to(choice))));
    one.headers = adding("route");
    let mut table = config(vec![one]);
    table.headers = adding("table");
    table.virtual_hosts[0].headers = adding("host");
    for (most_specific, wanted) in [
        (false, ["arm", "route", "host", "table"]),
        (true, ["arm", "table", "host", "route"]),
    ] {
        table.most_specific_header_mutations_wins = most_specific;
        let compiled = compile(&table);
        let head = request("/");
        assert_eq!(levels(&finalized(&compiled, &head).headers), wanted);
        let mut response = HeaderMap::new();
        forwarded(&compiled, &head).finalize_response(&mut response, &());
        assert_eq!(levels(&response), wanted);
    }
}

#[test]
fn a_route_without_changes_is_plain() {
    let table = compile(&config(vec![route(
        prefix("/"),
        Action::Forward(Box::new(to("a"))),
    )]));
    let forwarding = forwarded(&table, &request("/"));
    assert!(forwarding.is_plain() && forwarding.is_response_plain());
    assert_eq!(&**forwarding.cluster_name(), "a");
    assert!(forwarding.cluster().is_none(), "no such cluster");
    assert_eq!(
        forwarding.pick(&Default::default()).err(),
        Some(crate::Kind::NoCluster)
    );
}

struct Weights([u64; 3]);

impl Runtime for Weights {
    fn fraction(&self, _key: &str, default: Fraction) -> Fraction {
        default
    }

    fn integer(&self, key: &str, default: u64) -> u64 {
        match key {
            "w.a" => self.0[0],
            "w.b" => self.0[1],
            "w.c" => self.0[2],
            _ => default,
        }
    }
}

#[test]
fn weights_follow_the_runtime_and_a_header_may_be_the_dice() {
    let mut clusters = weighted(&[("a", 30), ("b", 30), ("c", 40)]);
    clusters.runtime_key_prefix = "w".into();
    clusters.random_header = Some(HeaderName::from_static("x-dice"));
    let choice = ClusterChoice::Weighted(clusters);
    let split = || Action::Forward(Box::new(Forward::to(choice.clone())));
    let table = compile(&config(vec![
        route(prefix("/"), split()),
        route(
            PathMatch::Exact("/other".into()),
            Action::Forward(Box::new(to("other"))),
        ),
        route(
            PathMatch::Exact("/".into()),
            Action::Forward(Box::new(to("next"))),
        ),
    ]));
    let mut head = request("/");
    let arm = |head: &HeadBuf, random, runtime: Option<&dyn Runtime>| {
        let head = Head {
            random,
            runtime,
            ..head.head()
        };
        match table.decide(&head) {
            Decision::Forward(forwarding) => forwarding.cluster_name().to_string(),
            Decision::NotFound(Some(_)) => "none".to_owned(),
            other => panic!("forwards: {other:?}"),
        }
    };
    for (random, wanted) in [(115, "a"), (445, "b"), (560, "c"), (99, "c")] {
        assert_eq!(arm(&head, random, None), wanted, "{random}");
    }
    // Envoy's own unit test has these runtime values.
    let valid = Weights([80, 10, 10]);
    for (random, wanted) in [(45, "a"), (82, "b"), (92, "c")] {
        assert_eq!(arm(&head, random, Some(&valid)), wanted, "{random}");
    }
    // As in Envoy, the route is passed over where no arm has a share.
    let nothing = Weights([0, 0, 0]);
    assert_eq!(arm(&head, 45, Some(&nothing)), "next");
    head.path = "/only".into();
    assert_eq!(arm(&head, 45, Some(&nothing)), "none");
    head.path = "/".into();
    head.headers
        .insert("x-dice", HeaderValue::from_static("61"));
    assert_eq!(arm(&head, 0, None), "c");
    head.headers
        .insert("x-dice", HeaderValue::from_static("none"));
    assert_eq!(arm(&head, 0, None), "a");
}

#[test]
fn rewrites_keep_the_query_and_the_originals() {
    let mut rewriting = to("a");
    rewriting.path_rewrite = Some(PathRewrite::Prefix("/new".into()));
    rewriting.host_rewrite = Some(HostRewrite::Literal("new.example".into()));
    rewriting.append_x_forwarded_host = true;
    let table = compile(&config(vec![route(
        prefix("/old"),
        Action::Forward(Box::new(rewriting)),
    )]));
    let mut head = request("/old/x?y=/old");
    head.headers
        .insert("x-forwarded-host", HeaderValue::from_static("first"));
    let upstream = finalized(&table, &head);
    assert_eq!(upstream.path, b"/new/x?y=/old");
    assert_eq!(upstream.authority, b"new.example");
    assert_eq!(upstream.headers["x-envoy-original-path"], "/old/x?y=/old");
    assert_eq!(upstream.headers["x-envoy-original-host"], "host.example:80");
    assert_eq!(
        upstream.headers["x-forwarded-host"],
        "first,host.example:80"
    );
    // A host that is the last one already is not said again.
    head.headers.insert(
        "x-forwarded-host",
        HeaderValue::from_static("first,host.example:80"),
    );
    assert_eq!(
        finalized(&table, &head).headers["x-forwarded-host"],
        "first,host.example:80"
    );

    let mut bare = Request::builder()
        .uri("/old?q")
        .header("host", "h")
        .body(())
        .expect("a request");
    let head = request("/old?q");
    forwarded(&table, &head).finalize_request(&mut bare, &(), false);
    assert_eq!(
        (bare.uri().to_string().as_str(), &bare.headers()["host"]),
        ("/new?q", &HeaderValue::from_static("new.example"))
    );
    assert!(!bare.headers().contains_key("x-envoy-original-path"));
}

fn location(redirect: Redirect, head: &HeadBuf) -> String {
    let table = compile(&config(vec![route(
        prefix("/a"),
        Action::Redirect(Box::new(redirect)),
    )]));
    match table.decide(&head.head()) {
        Decision::Redirect(redirection) => {
            String::from_utf8(redirection.location().to_vec()).expect("UTF-8")
        }
        other => panic!("redirects: {other:?}"),
    }
}

#[test]
fn redirects_drop_the_port_of_the_scheme_that_is_left() {
    let nothing = || Redirect {
        scheme: None,
        host: None,
        port: None,
        path: None,
        code: StatusCode::FOUND,
        strip_query: false,
    };
    let head = request("/a/b?c");
    let https = || Redirect {
        scheme: Some(SchemeRedirect::Https),
        ..nothing()
    };
    for (redirect, wanted) in [
        (nothing(), "http://host.example:80/a/b?c"),
        (https(), "https://host.example/a/b?c"),
        (
            Redirect {
                port: Some(8443),
                ..https()
            },
            "https://host.example:8443/a/b?c",
        ),
        (
            Redirect {
                host: Some("h".into()),
                ..nothing()
            },
            "http://h/a/b?c",
        ),
        (
            Redirect {
                path: Some(RedirectPath::Prefix("/z".into())),
                ..nothing()
            },
            "http://host.example:80/z/b?c",
        ),
        (
            Redirect {
                path: Some(RedirectPath::Full("/z".into())),
                strip_query: true,
                ..nothing()
            },
            "http://host.example:80/z",
        ),
        (
            Redirect {
                path: Some(RedirectPath::Full("/z?q".into())),
                strip_query: true,
                ..nothing()
            },
            "http://host.example:80/z?q",
        ),
    ] {
        assert_eq!(location(redirect, &head), wanted);
    }
}

#[test]
fn plain_requests_are_sent_to_tls_where_it_is_required() {
    let mut table = config(vec![route(prefix("/"), Action::Forward(Box::new(to("a"))))]);
    for (require, internal, proto, wanted) in [
        (RequireTls::All, false, "http", true),
        (RequireTls::All, true, "http", true),
        (RequireTls::All, false, "https", false),
        (RequireTls::ExternalOnly, true, "http", false),
        (RequireTls::ExternalOnly, false, "http", true),
        (RequireTls::None, false, "http", false),
    ] {
        table.virtual_hosts[0].require_tls = require;
        let mut head = request("/x?y");
        head.headers
            .insert("x-forwarded-proto", HeaderValue::from_static(proto));
        if internal {
            head.headers
                .insert("x-envoy-internal", HeaderValue::from_static("true"));
        }
        match compile(&table).decide(&head.head()) {
            Decision::Redirect(redirection) if wanted => {
                assert_eq!(redirection.status(), StatusCode::MOVED_PERMANENTLY);
                assert_eq!(redirection.location(), b"https://host.example:80/x?y");
            }
            Decision::Forward(_) if !wanted => {}
            other => panic!("{require:?} {internal} {proto}: {other:?}"),
        }
    }
}

#[test]
fn the_most_specific_filter_setting_counts() {
    let setting = |config| FilterOverride::new("f".into(), config);
    let mut one = route(prefix("/a"), Action::Forward(Box::new(to("a"))));
    one.filters = vec![setting(FilterConfig::Disabled)];
    let two = route(prefix("/b"), Action::Forward(Box::new(to("a"))));
    let mut table = config(vec![one, two]);
    table.filters = vec![setting(FilterConfig::Cors(Cors {
        allow_credentials: Some(true),
        ..Cors::default()
    }))];
    let compiled = compile(&table);
    let first = forwarded(&compiled, &request("/a"));
    assert!(matches!(first.filter("f"), Some(FilterSetting::Disabled)));
    let second = forwarded(&compiled, &request("/b"));
    assert!(
        matches!(second.filter("f"), Some(FilterSetting::Cors(policy)) if policy.config.allow_credentials == Some(true))
    );
    assert!(first.cors().is_none() && second.cors().is_some() && second.filter("g").is_none());
}

/// A filter that is off for a listener and on for a route may protect that route, so nothing passes where it cannot act.
#[test]
fn a_route_with_settings_of_a_filter_that_cannot_act_refuses() {
    let opaque = || {
        let config = FilterConfig::Opaque("type.googleapis.com/x".into(), Bytes::new());
        vec![FilterOverride::new("f".into(), config)]
    };
    let mut free = route(prefix("/free"), Action::Forward(Box::new(to("a"))));
    free.filters = vec![FilterOverride::new("f".into(), FilterConfig::Disabled)];
    let guarded = route(prefix("/"), Action::Forward(Box::new(to("a"))));
    let mut table = config(vec![free, guarded]);
    table.filters = opaque();
    let compiled = compile(&table);
    let asked = |path: &str| match compiled.decide(&request(path).head()) {
        Decision::DirectResponse(route) => Some(route.direct_response(&()).status()),
        Decision::Forward(_) => None,
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!(asked("/"), Some(StatusCode::FORBIDDEN));
    assert_eq!(asked("/free"), None);

    let mut arms = weighted(&[("a", 1), ("b", 1)]);
    arms.arms[1].filters = opaque();
    let mut split = to("a");
    split.cluster = ClusterChoice::Weighted(arms);
    let table = compile(&config(vec![route(
        prefix("/"),
        Action::Forward(Box::new(split)),
    )]));
    let decision = table.decide(&request("/").head());
    assert!(
        matches!(decision, Decision::DirectResponse(_)),
        "{decision:?}"
    );
}

#[test]
fn cors_is_what_all_levels_say_together() {
    let value = |text| Some(http::HeaderValue::from_static(text));
    let setting = |config| vec![FilterOverride::new("f".into(), FilterConfig::Cors(config))];
    let mut forward = to("a");
    forward.cors = Some(Cors {
        max_age: value("1"),
        ..Cors::default()
    });
    let mut of_filter = route(prefix("/a"), Action::Forward(Box::new(forward.clone())));
    of_filter.filters = setting(Cors {
        allow_methods: value("GET"),
        allow_credentials: Some(false),
        ..Cors::default()
    });
    let of_field = route(prefix("/b"), Action::Forward(Box::new(forward)));
    let mut table = config(vec![of_filter, of_field]);
    table.virtual_hosts[0].cors = Some(Cors {
        allow_headers: value("x-host"),
        max_age: value("2"),
        ..Cors::default()
    });
    let fields = compile(&table);
    let found = forwarded(&fields, &request("/b"));
    let found = &found.cors().expect("a policy").config;
    assert_eq!(
        (&found.max_age, &found.allow_headers),
        (&value("1"), &value("x-host"))
    );
    table.virtual_hosts[0].filters = setting(Cors {
        allow_methods: value("PUT"),
        allow_credentials: Some(true),
        expose_headers: value("x-shown"),
        ..Cors::default()
    });
    let compiled = compile(&table);
    let found = forwarded(&compiled, &request("/a"));
    let found = &found.cors().expect("a policy").config;
    assert_eq!(found.allow_methods, value("GET"));
    assert_eq!(found.expose_headers, value("x-shown"));
    assert_eq!(found.allow_credentials, Some(false));
    // The fields of routes and hosts count only where there are no settings.
    assert_eq!((&found.max_age, &found.allow_headers), (&None, &None));
    let found = forwarded(&compiled, &request("/b"));
    assert_eq!(found.cors().expect("a policy").config.max_age, None);
}

#[test]
fn a_tree_leads_to_the_longest_prefix_that_matches() {
    let leaf = |path: &str, cluster: &str| {
        OnMatch::Route(Box::new(route(
            prefix(path),
            Action::Forward(Box::new(to(cluster))),
        )))
    };
    let header = |name: &str| MatchInput::RequestHeader(name.into());
    let inner = MatchTree {
        node: MatchNode::Exact(header("x-a"), vec![("1".into(), leaf("/", "inner"))]),
        on_no_match: None,
    };
    let tree = MatchTree {
        node: MatchNode::Prefix(
            header(":path"),
            vec![
                ("/a".into(), leaf("/", "short")),
                ("/a/b".into(), OnMatch::Tree(Box::new(inner))),
                ("/c".into(), leaf("/other", "never")),
            ],
        ),
        on_no_match: Some(leaf("/", "rest")),
    };
    let mut table = config(Vec::new());
    table.virtual_hosts[0].routes = RouteRules::Tree(Box::new(tree));
    let table = compile(&table);
    let mut head = request("/a/b");
    assert_eq!(&**forwarded(&table, &head).cluster_name(), "short");
    head.headers.insert("x-a", HeaderValue::from_static("1"));
    assert_eq!(&**forwarded(&table, &head).cluster_name(), "inner");
    assert_eq!(&**forwarded(&table, &request("/z")).cluster_name(), "rest");
    // A route that is reached must match by itself; there is no way back.
    assert!(matches!(
        table.decide(&request("/c").head()),
        Decision::NotFound(Some(_))
    ));
}

/// A table that asks one thing after another, each of which leads to a cluster of its name.
fn table_of_a_list() -> RouteTable {
    let leaf = |cluster: &str| {
        let route = route(prefix("/"), Action::Forward(Box::new(to(cluster))));
        OnMatch::Routes(vec![route])
    };
    let is = |input, text: &str| {
        let pattern = StringPattern::Exact(text.into());
        let matcher = StringMatcher {
            pattern,
            ignore_case: false,
        };
        MatchPredicate::Single(input, matcher)
    };
    let header = |text| is(MatchInput::RequestHeader("x-a".into()), text);
    let query = |text| is(MatchInput::QueryParameter("q".into()), text);
    let state = || MatchInput::FilterState("s".into());
    let nothing = OnMatch::Tree(Box::new(MatchTree {
        node: MatchNode::Exact(state(), vec![("1".into(), leaf("state"))]),
        on_no_match: None,
    }));
    let list = vec![
        (
            MatchPredicate::And(vec![header("1"), query("1")]),
            leaf("and"),
        ),
        // Finds nothing, unless the state is there: the search goes on.
        (header("1"), nothing),
        (
            MatchPredicate::Or(vec![header("1"), query("2")]),
            leaf("or"),
        ),
        (
            MatchPredicate::Not(Box::new(is(MatchInput::DestinationPort, "80"))),
            leaf("not"),
        ),
        (is(MatchInput::SourceIp, "10.0.0.9"), leaf("source")),
        (is(MatchInput::ServerName, "n.test"), leaf("name")),
    ];
    let mut table = config(Vec::new());
    table.virtual_hosts[0].routes = RouteRules::Tree(Box::new(MatchTree {
        node: MatchNode::List(list),
        on_no_match: Some(leaf("rest")),
    }));
    compile(&table)
}

#[test]
fn a_list_of_matchers_leads_where_the_first_predicate_that_holds_says() {
    let table = table_of_a_list();
    let states = Metadata {
        namespaces: vec![("s".into(), Value::String("1".into()))],
    };
    let to_80 = ConnectionFacts {
        destination: Some(([10, 0, 0, 1], 80).into()),
        ..ConnectionFacts::default()
    };
    let source = ConnectionFacts {
        source: Some(([10, 0, 0, 9], 4).into()),
        ..to_80.clone()
    };
    let name = ConnectionFacts {
        server_name: Some("n.test".into()),
        ..to_80.clone()
    };
    for (path, value, connection, state, wanted) in [
        ("/?q=%31", "1", &to_80, false, "and"),
        ("/?q=2", "1", &to_80, false, "or"),
        ("/", "1", &to_80, true, "state"),
        ("/?q=2", "", &to_80, true, "or"),
        ("/", "", &ConnectionFacts::default(), false, "not"),
        ("/", "", &source, false, "source"),
        ("/", "", &name, false, "name"),
        ("/", "", &to_80, false, "rest"),
    ] {
        let mut head = request(path);
        head.headers.insert("x-a", HeaderValue::from_static(value));
        let head = Head {
            connection,
            filter_state: state.then_some(&states),
            ..head.head()
        };
        match table.decide(&head) {
            Decision::Forward(seen) => assert_eq!(&**seen.cluster_name(), wanted, "{path} {value}"),
            other => panic!("forwards: {other:?}"),
        }
    }
}

#[test]
fn every_fault_of_a_table_is_told_with_its_path() {
    let mut bad = route(prefix("/"), Action::NonForwarding);
    bad.headers.response_add = vec![append("x", "%NO%")];
    let mut worse = route(prefix("/"), Action::Forward(Box::new(to("unknown"))));
    worse.matches.headers = vec![HeaderMatcher {
        name: "a b".into(),
        value: HeaderValueMatcher::Present(true),
        invert: false,
        missing_as_empty: false,
    }];
    let mut table = config(vec![
        bad,
        worse,
        route(prefix("/"), Action::Forward(Box::new(to("unknown")))),
    ]);
    table.validate_clusters = true;
    table.virtual_hosts[0].domains.push("*".into());
    let found = refused(&table);
    let paths: Vec<&str> = found.iter().map(|rejection| &*rejection.path).collect();
    assert_eq!(
        paths,
        [
            "virtual_hosts[0].domains[1]",
            "virtual_hosts[0].routes[0].response_headers_to_add[0].header.value",
            "virtual_hosts[0].routes[1].match.headers[0].name",
            "virtual_hosts[0].routes[2].route.cluster",
        ]
    );
    assert_eq!(&*found[0].resource, "route configuration t");
}
