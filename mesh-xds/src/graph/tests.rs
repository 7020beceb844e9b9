//! What is offered again, and what is taken back.

use envoy_types::pb::envoy::config::cluster::v3::Cluster as Proto;
use prost::Message as _;
use serde_json::{Value, json};

use super::*;

fn round(graph: &mut Graph, offer: impl FnOnce(&mut Round<'_>)) -> Update {
    let mut round = graph.round("v");
    offer(&mut round);
    round.finish(&|paths| vec![Name::from(""); paths.len()])
}

fn cluster(seconds: i64) -> Vec<u8> {
    let timeout = envoy_types::pb::google::protobuf::Duration { seconds, nanos: 0 };
    let cluster = Proto {
        name: "c".to_owned(),
        connect_timeout: Some(timeout),
        ..Proto::default()
    };
    cluster.encode_to_vec()
}

#[test]
fn the_same_as_before_is_taken_only_if_that_was() {
    let mut graph = Graph::new(true);
    let first = round(&mut graph, |round| {
        assert!(!round.same(Kind::Cluster, "c", ""), "nothing is there");
        round.wire(Kind::Cluster, &cluster(1), "");
    });
    assert_eq!(first.changes.len(), 1);
    let again = round(&mut graph, |round| {
        assert!(round.same(Kind::Cluster, "c", "place"));
        assert!(!round.same(Kind::Cluster, "c", ""), "it is given twice");
    });
    assert!(again.changes.is_empty() && again.rejections.is_empty());
    // A refused one leaves the older in force, which is not what was offered last.
    let refused = round(&mut graph, |round| {
        round.wire(Kind::Cluster, &cluster(-1), "")
    });
    assert_eq!((refused.changes.len(), refused.rejections.len()), (0, 1));
    let older = round(&mut graph, |round| {
        assert!(!round.same(Kind::Cluster, "c", ""));
        round.wire(Kind::Cluster, &cluster(1), "");
    });
    assert!(older.changes.is_empty() && older.rejections.is_empty());
    let again = round(&mut graph, |round| {
        assert!(round.same(Kind::Cluster, "c", ""))
    });
    assert!(again.changes.is_empty());
}

/// A listener whose filter chains have tables of their own, each with a route to one of `clusters` and then a tree.
fn listener(clusters: &[&str]) -> Vec<u8> {
    let typed = |name: &str, mut fields: Value| {
        fields["@type"] = format!("type.googleapis.com/envoy.extensions.filters.{name}").into();
        fields
    };
    let table = |cluster: &str| {
        let route = json!({"match": {"prefix": "/"}, "route": {"cluster": cluster}});
        let leaf = json!({"name": "route", "typed_config": {
            "@type": "type.googleapis.com/envoy.config.route.v3.Route",
            "match": {"prefix": "/"}, "route": {"cluster": "unknown to the tree"},
        }});
        json!({"validate_clusters": true, "virtual_hosts": [
            {"name": "tree", "domains": ["tree"], "matcher": {"on_no_match": {"action": leaf}}},
            {"name": "list", "domains": ["*"], "routes": [route]},
        ]})
    };
    let chains = clusters.iter().enumerate().map(|(port, cluster)| {
        let router = typed("http.router.v3.Router", json!({}));
        let manager = json!({
            "stat_prefix": "in", "route_config": table(cluster),
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        });
        let manager = typed(
            "network.http_connection_manager.v3.HttpConnectionManager",
            manager,
        );
        json!({
            "filter_chain_match": {"destination_port": port + 1},
            "filters": [{"name": "hcm", "typed_config": manager}],
        })
    });
    let chains: Vec<Value> = chains.collect();
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": 8080}});
    let listener = json!({"name": "l", "address": address, "filter_chains": chains});
    crate::json::to_wire(Kind::Listener.message(), listener).expect("a listener")
}

#[test]
fn a_listener_with_two_mistakes_is_taken_back_once() {
    let mut graph = Graph::new(true);
    let offered = |clusters: &'static [&str]| {
        move |round: &mut Round<'_>| {
            round.wire(Kind::Cluster, &cluster(1), "");
            round.wire(Kind::Listener, &listener(clusters), "");
        }
    };
    let first = round(&mut graph, offered(&["c", "c"]));
    assert_eq!((first.changes.len(), first.rejections.len()), (2, 0));
    let refused = round(&mut graph, offered(&["no", "neither"]));
    assert!(refused.changes.is_empty(), "{:?}", refused.changes);
    let paths: Vec<&str> = refused.rejections.iter().map(|one| &*one.path).collect();
    let path = |chain: usize| {
        format!(
            "filter_chains[{chain}].filters[0].typed_config.route_config.virtual_hosts[1].routes[0].route.cluster"
        )
    };
    assert_eq!(paths, [path(0), path(1)]);
    let kept = graph.dump().resource(Kind::Listener, "l");
    assert!(kept.is_some(), "the last good version stays");
    let gone = round(&mut graph, |_| {});
    let removed =
        |change: &Change| matches!(change, Change::RemoveListener(name) if **name == *"l");
    assert!(gone.changes.iter().any(removed), "{:?}", gone.changes);
}
