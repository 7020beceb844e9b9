//! What is offered again.

use envoy_types::pb::envoy::config::cluster::v3::Cluster as Proto;
use prost::Message as _;

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
