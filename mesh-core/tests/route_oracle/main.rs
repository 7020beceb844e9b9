//! The compiled table against an oracle that asks each rule in order, over random tables and requests.
//!
//! `generate` makes every kind of rule that a table has, `oracle` decides as simply as it can be written down.

#![cfg(feature = "regex")]

mod generate;
mod oracle;

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_core::{
    model::{Fraction, Metadata, Name, Value},
    route::{ConnectionFacts, Decision, Head, RouteTable, Runtime},
    snapshot::Clusters,
};
use proptest::prelude::*;

/// Requests for each table.
const REQUESTS: usize = 500;
const TABLES: u32 = 256;
const _: () = assert!(REQUESTS * TABLES as usize >= 100_000);

/// What a request is made of. `None`: absent.
#[derive(Clone, Debug)]
struct Request {
    method: &'static str,
    scheme: &'static str,
    host: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    random: u64,
    /// What the runtime has under [`KEY`], in a hundred.
    runtime: Option<u32>,
    /// Dynamic metadata in `n`, under `k`.
    metadata: Option<Value>,
    /// Filter state under `s`.
    state: Option<&'static str>,
    certificate: (bool, bool),
    /// Ports of the peer and of the destination.
    ports: (u16, u16),
    server_name: Option<&'static str>,
}

/// The runtime key that shares may have.
const KEY: &str = "share";

struct OneKey(u32);

impl Runtime for OneKey {
    fn fraction(&self, key: &str, default: Fraction) -> Fraction {
        if key == KEY {
            Fraction {
                numerator: self.0,
                denominator: 100,
            }
        } else {
            default
        }
    }

    fn integer(&self, _key: &str, default: u64) -> u64 {
        default
    }
}

/// Metadata with one value in one namespace.
fn metadata(namespace: &str, value: Value) -> Metadata {
    Metadata {
        namespaces: vec![(namespace.into(), value)],
    }
}

/// What was decided: the name of a route, [`TLS`], or nothing.
fn decided(table: &RouteTable, request: &Request) -> Option<String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    let (presented, validated) = request.certificate;
    let connection = ConnectionFacts {
        source: Some(([10, 0, 0, 9], request.ports.0).into()),
        destination: Some(([10, 0, 0, 1], request.ports.1).into()),
        server_name: request.server_name.map(Name::from),
        peer_certificate_presented: presented,
        peer_certificate_validated: validated,
        ..ConnectionFacts::default()
    };
    let dynamic = request
        .metadata
        .clone()
        .map(|value| metadata("n", Value::Object(vec![("k".into(), value)])));
    let state = request
        .state
        .map(|text| metadata("s", Value::String(text.into())));
    let runtime = request.runtime.map(OneKey);
    let head = Head {
        connection: &connection,
        metadata: dynamic.as_ref(),
        filter_state: state.as_ref(),
        runtime: runtime.as_ref().map(|runtime| runtime as &dyn Runtime),
        random: request.random,
        ..Head::new(
            request.method.as_bytes(),
            request.scheme.as_bytes(),
            request.host.as_bytes(),
            request.path.as_bytes(),
            &headers,
        )
    };
    match table.decide(&head) {
        Decision::DirectResponse(route) => Some(route.name().to_string()),
        Decision::Redirect(redirection) if redirection.route().is_none() => Some(TLS.to_owned()),
        Decision::NotFound(_) => None,
        other => panic!("a decision that no rule asks for: {other:?}"),
    }
}

/// Stands for the redirect of a virtual host that asks for TLS.
const TLS: &str = "to TLS";

proptest! {
    #![proptest_config(ProptestConfig { cases: TABLES, failure_persistence: None, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn compiled_table_decides_like_the_oracle(config in generate::table(), requests in generate::requests()) {
        let table = RouteTable::compile(&config, &Clusters::default()).expect("the table compiles");
        for request in &requests {
            prop_assert_eq!(decided(&table, request), oracle::decide(&config, request), "{:?}", request);
        }
    }
}

/// Agreement means something only if rules of every kind are met and missed.
#[test]
fn tables_and_requests_meet_every_kind_of_rule() {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};

    let mut runner = TestRunner::deterministic();
    let mut met = oracle::Met::default();
    for _ in 0..64 {
        let config = generate::table().new_tree(&mut runner).expect("a table");
        let config = config.current();
        let requests = generate::requests().new_tree(&mut runner);
        for request in requests.expect("requests").current().iter().take(100) {
            oracle::meet(&config, request, &mut met);
        }
    }
    for kind in oracle::KINDS {
        let (yes, no) = met.get(kind).copied().unwrap_or_default();
        assert!(yes >= 20 && no >= 20, "{kind}: held {yes} times, not {no}");
    }
}
