//! What a routing decision costs: one plain route, and the last of 1,000 (500 by prefix, 499 by header).

use std::{hint::black_box, time::Instant};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use mesh_core::{
    model::{
        Action, ClusterChoice, DirectResponse, Forward, HeaderMatcher, HeaderValueMatcher,
        PathMatch, Route, RouteConfiguration, RouteMatch, RouteRules, StringMatcher, StringPattern,
        VirtualHost,
    },
    route::{Head, RouteTable},
    snapshot::Clusters,
};

const ROUNDS: u32 = 7;
const DECISIONS: u32 = 1_000_000;

fn main() {
    let headers = request_headers();
    let plain = compile(vec![forward("/")]);
    let mut many: Vec<Route> = (0..500)
        .map(|index| direct(format!("/svc-{index}/"), None))
        .collect();
    many.extend((0..499).map(|index| direct("/".to_owned(), Some(format!("r{index}")))));
    many.push(forward("/last/"));
    let many = compile(many);
    for (name, table, path) in [
        ("plain", &plain, "/last/x"),
        ("routes-1000", &many, "/last/x"),
        ("routes-1000, no match", &many, "/none"),
    ] {
        println!(
            "{name}: {:.1} ns a decision",
            measure(table, path, &headers)
        );
    }
}

/// The fastest round, in nanoseconds a decision.
fn measure(table: &RouteTable, path: &str, headers: &HeaderMap) -> f64 {
    let round = |_| {
        let start = Instant::now();
        for random in 0..DECISIONS {
            let head = Head {
                random: u64::from(random),
                ..Head::new(
                    b"GET",
                    b"http",
                    b"app.example:8080",
                    path.as_bytes(),
                    headers,
                )
            };
            black_box(table.decide(black_box(&head)));
        }
        start.elapsed().as_nanos() as f64 / f64::from(DECISIONS)
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

fn request_headers() -> HeaderMap {
    let pairs = [
        ("host", "app.example:8080"),
        ("user-agent", "bench"),
        ("accept", "*/*"),
        ("x-request-id", "7e2c6b0c-6c3b-4c55-9d3e-0f2f6b0f5a11"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-for", "10.0.0.1"),
    ];
    pairs
        .into_iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect()
}

fn compile(routes: Vec<Route>) -> RouteTable {
    let host = VirtualHost {
        name: "all".into(),
        domains: vec!["*".into()],
        routes: RouteRules::List(routes),
        ..VirtualHost::default()
    };
    let config = RouteConfiguration {
        virtual_hosts: vec![host],
        ..RouteConfiguration::default()
    };
    RouteTable::compile(&config, &Clusters::default()).expect("the table compiles")
}

fn forward(prefix: &str) -> Route {
    let action = Forward::to(ClusterChoice::Name("app".into()));
    route(prefix.to_owned(), None, Action::Forward(Box::new(action)))
}

fn direct(prefix: String, value: Option<String>) -> Route {
    let action = Action::DirectResponse(DirectResponse {
        status: StatusCode::NOT_FOUND,
        body: bytes::Bytes::new(),
        format: None,
    });
    route(prefix, value, action)
}

fn route(prefix: String, value: Option<String>, action: Action) -> Route {
    let header = |value: String| HeaderMatcher {
        name: "x-route".into(),
        value: HeaderValueMatcher::String(StringMatcher {
            pattern: StringPattern::Exact(value.into()),
            ignore_case: false,
        }),
        invert: false,
        missing_as_empty: false,
    };
    let matches = RouteMatch {
        headers: value.map(header).into_iter().collect(),
        ..RouteMatch::path(PathMatch::Prefix(prefix.into()))
    };
    Route::new(matches, action)
}
