use mesh_core::model::{Action, Note, PathMatch};

use super::*;

const NAME: &str = "envoy.config.route.v3.RouteConfiguration";

fn decode(text: &str) -> (Result<RouteConfiguration, Vec<Rejection>>, Vec<Note>) {
    let message: proto::RouteConfiguration =
        crate::json::from_str(NAME, text).expect("a route configuration");
    let mut notes = Vec::new();
    (route_configuration(&message, &mut notes), notes)
}

fn refused(routes: &str) -> Vec<String> {
    let text = format!(
        r#"{{"name":"r","virtual_hosts":[{{"name":"v","domains":["*"],"routes":[{routes}]}}]}}"#
    );
    let (result, _) = decode(&text);
    let list = result.expect_err("refused");
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn a_route_keeps_what_it_says() {
    let (table, notes) = decode(
        r#"{"name":"r","virtual_hosts":[{"name":"v","domains":["a.b","*.c"],"routes":[
            {"match":{"path_separated_prefix":"/p","case_sensitive":false},
             "route":{"weighted_clusters":{"clusters":[{"name":"x","weight":3},{"name":"y","weight":1}]},
                      "timeout":"3s","hash_policy":[{"connection_properties":{"source_ip":true}}]}}]}]}"#,
    );
    let table = table.expect("accepted");
    let RouteRules::List(routes) = &table.virtual_hosts[0].routes else {
        panic!("a list");
    };
    assert_eq!(
        routes[0].matches.path,
        PathMatch::SeparatedPrefix("/p".into())
    );
    assert!(!routes[0].matches.case_sensitive);
    let Action::Forward(forward) = &routes[0].action else {
        panic!("forwards");
    };
    assert_eq!(forward.timeout, Some(std::time::Duration::from_secs(3)));
    let model::ClusterChoice::Weighted(weighted) = &forward.cluster else {
        panic!("weighted");
    };
    assert_eq!((weighted.total, weighted.arms.len()), (4, 2));
    let paths: Vec<&str> = notes.iter().map(|note| &*note.path).collect();
    assert_eq!(paths, ["virtual_hosts[0].routes[0].route.hash_policy"]);
}

#[test]
fn wrong_fields_are_refused_with_their_paths() {
    for (route, wanted) in [
        (
            r#"{"match":{"safe_regex":{"regex":"("}},"route":{"cluster":"a"}}"#,
            "virtual_hosts[0].routes[0].match.safe_regex.regex",
        ),
        (
            r#"{"match":{"prefix":"/"},"route":{"cluster":"a"},"request_headers_to_add":[{"header":{"key":"x","value":"%NO%"}}]}"#,
            "virtual_hosts[0].routes[0].request_headers_to_add[0].header.value",
        ),
        (
            r#"{"match":{"prefix":"/"},"route":{"weighted_clusters":{"clusters":[{"name":"a","weight":0}]}}}"#,
            "virtual_hosts[0].routes[0].route.weighted_clusters.clusters",
        ),
        (
            r#"{"match":{"prefix":"/"},"route":{"cluster":"a","prefix_rewrite":"/b","path_rewrite":"/c"}}"#,
            "virtual_hosts[0].routes[0].route",
        ),
        (
            r#"{"match":{"prefix":"/"},"redirect":{"regex_rewrite":{"pattern":{"regex":"a"},"substitution":"\\x"}}}"#,
            "virtual_hosts[0].routes[0].redirect.regex_rewrite.substitution",
        ),
    ] {
        let list = refused(route);
        let wanted = format!("route configuration r: {wanted}: ");
        assert!(
            list.iter().any(|text| text.starts_with(&wanted)),
            "{wanted}: {list:?}"
        );
    }
}

#[test]
fn an_unknown_action_of_a_tree_is_refused() {
    let (result, _) = decode(
        r#"{"virtual_hosts":[{"name":"v","domains":["*"],"matcher":{"on_no_match":{"action":{"name":"x",
            "typed_config":{"@type":"type.googleapis.com/envoy.config.route.v3.VirtualCluster"}}},
            "matcher_list":{"matchers":[]}}}]}"#,
    );
    let list = result.expect_err("refused");
    assert_eq!(
        &*list[0].path,
        "virtual_hosts[0].matcher.on_no_match.action.typed_config"
    );
}
