use mesh_core::model::{Action, Note, PathMatch};

use super::*;

const NAME: &str = "envoy.config.route.v3.RouteConfiguration";

fn decode(text: &str) -> (Result<RouteConfiguration, Vec<Rejection>>, Vec<Note>) {
    let message: proto::RouteConfiguration =
        crate::json::from_str(NAME, text).expect("a route configuration");
    let mut notes = Vec::new();
    (route_configuration(&message, &mut notes), notes)
}

/// The rules of the first virtual host.
fn routes(table: &RouteConfiguration) -> &[Route] {
    match &table.virtual_hosts[0].routes {
        RouteRules::List(routes) => routes,
        other => panic!("{other:?}"),
    }
}

/// The action of its first rule.
fn first_forward(table: &RouteConfiguration) -> &model::Forward {
    match &routes(table)[0].action {
        Action::Forward(forward) => forward,
        other => panic!("{other:?}"),
    }
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
    let matches = &routes(&table)[0].matches;
    assert_eq!(matches.path, PathMatch::SeparatedPrefix("/p".into()));
    assert!(!matches.case_sensitive);
    let forward = first_forward(&table);
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
            r#"{"match":{"prefix":"/"},"route":{"weighted_clusters":{"clusters":[{"name":"a","weight":1},{"name":"b"}]}}}"#,
            "virtual_hosts[0].routes[0].route.weighted_clusters.clusters[1].weight",
        ),
        (
            r#"{"match":{"prefix":"/"},"route":{"cluster":"a","internal_redirect_policy":{"response_headers_to_copy":["x","Host"]}}}"#,
            "virtual_hosts[0].routes[0].route.internal_redirect_policy.response_headers_to_copy[1]",
        ),
        (
            r#"{"match":{"prefix":"/"},"route":{"cluster":"a","retry_policy":{"retry_back_off":{"base_interval":"0.003s","max_interval":"0.0029s"}}}}"#,
            "virtual_hosts[0].routes[0].route.retry_policy.retry_back_off.max_interval",
        ),
        (
            r#"{"match":{"prefix":"/"},"route":{"cluster":"a","prefix_rewrite":"/b","path_rewrite":"/c"}}"#,
            "virtual_hosts[0].routes[0].route",
        ),
        (
            r#"{"match":{"prefix":"/"},"route":{"cluster":"a"},"typed_per_filter_config":{"f":{"@type":"type.googleapis.com/envoy.config.route.v3.FilterConfig"}}}"#,
            "virtual_hosts[0].routes[0].typed_per_filter_config[\"f\"].config",
        ),
        (
            r#"{"match":{"prefix":"/"},"route":{"cluster":"a"},"typed_per_filter_config":{"f":{"@type":"type.googleapis.com/envoy.config.route.v3.FilterConfig","config":{}}}}"#,
            "virtual_hosts[0].routes[0].typed_per_filter_config[\"f\"].config",
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

/// What Envoy accepts, though it looks odd.
#[test]
fn odd_values_are_accepted() {
    for route in [
        r#"{"match":{"prefix":"/"},"route":{"cluster":"a","priority":"high"}}"#,
        r#"{"match":{"prefix":"/","cookies":[{"name":"a","string_match":{"exact":"1"}}]},"route":{"cluster":"a"}}"#,
        r#"{"match":{"prefix":"/"},"redirect":{"response_code":"See_Other"}}"#,
        r#"{"match":{"prefix":"/"},"route":{"cluster":"a","hash_policy":[{"header":{"header_name":":path"}}]}}"#,
        r#"{"match":{"prefix":"/"},"route":{"cluster":"a","retry_policy":{"retry_back_off":{"base_interval":"0.0009s","max_interval":"0.0001s"}}}}"#,
    ] {
        let text =
            format!(r#"{{"virtual_hosts":[{{"name":"v","domains":["*"],"routes":[{route}]}}]}}"#);
        let (table, _) = decode(&text);
        assert!(table.is_ok(), "{route}: {table:?}");
    }
}

#[test]
fn the_authority_may_name_the_cluster_of_a_mirror() {
    let (route, _) = forward(r#""request_mirror_policies":[{"cluster_header":":authority"}]"#);
    let wanted = model::ClusterChoice::Header(http::header::HOST);
    assert_eq!(route.mirrors[0].cluster, wanted);
}

#[test]
fn an_arm_with_an_empty_host_keeps_that_of_the_request() {
    let (table, _) = decode(
        r#"{"virtual_hosts":[{"name":"v","domains":["*"],"routes":[{"match":{"prefix":"/"},"route":{"weighted_clusters":{"clusters":[
            {"name":"a","weight":1,"host_rewrite_literal":""}]}}}]}]}"#,
    );
    let table = table.expect("accepted");
    let forward = first_forward(&table);
    let model::ClusterChoice::Weighted(weighted) = &forward.cluster else {
        panic!("weighted");
    };
    assert_eq!(weighted.arms[0].host_rewrite, None);
}

#[test]
fn changes_of_a_mirrored_head_keep_their_order() {
    let (table, _) = decode(
        r#"{"virtual_hosts":[{"name":"v","domains":["*"],"routes":[{"match":{"prefix":"/"},"route":{"cluster":"a",
            "request_mirror_policies":[{"cluster":"b","request_headers_mutations":[
                {"append":{"header":{"key":"x-a","value":"1"}}},
                {"remove":"x-a"},
                {"append":{"header":{"key":"x-a","value":"2"}}}]}]}}]}]}"#,
    );
    let table = table.expect("accepted");
    let forward = first_forward(&table);
    let changes = forward.mirrors[0].headers.iter();
    let counts: Vec<_> = changes
        .map(|change| (change.request_add.len(), change.request_remove.len()))
        .collect();
    assert_eq!(counts, [(1, 0), (0, 1), (1, 0)]);
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

/// A table whose only virtual host has this matcher.
fn with_matcher(matcher: &str) -> (Result<RouteConfiguration, Vec<Rejection>>, Vec<Note>) {
    decode(&format!(
        r#"{{"virtual_hosts":[{{"name":"v","domains":["*"],"matcher":{matcher}}}]}}"#
    ))
}

const LEAF: &str = r#"{"action":{"name":"r","typed_config":{"@type":
    "type.googleapis.com/envoy.config.route.v3.Route","match":{"prefix":"/"},"route":{"cluster":"a"}}}}"#;

#[test]
fn inputs_of_a_tree_are_known_by_their_types() {
    const NETWORK: &str = "envoy.extensions.matching.common_inputs.network.v3";
    for (input, wanted) in [
        (
            r#""envoy.type.matcher.v3.HttpRequestHeaderMatchInput","header_name":"X-A""#.to_owned(),
            model::MatchInput::RequestHeader("x-a".into()),
        ),
        (
            format!(r#""{NETWORK}.FilterStateInput","key":"k""#),
            model::MatchInput::FilterState("k".into()),
        ),
    ] {
        let input = input.replacen('"', r#""type.googleapis.com/"#, 1);
        for (kind, exact) in [("exact_match_map", true), ("prefix_match_map", false)] {
            let (table, _) = with_matcher(&format!(
                r#"{{"matcher_tree":{{"input":{{"name":"i","typed_config":{{"@type":{input}}}}},
                    "{kind}":{{"map":{{"x":{LEAF}}}}}}},"on_no_match":{LEAF}}}"#
            ));
            let table = table.expect("accepted");
            let RouteRules::Tree(tree) = &table.virtual_hosts[0].routes else {
                panic!("a tree");
            };
            assert!(tree.on_no_match.is_some());
            match &tree.node {
                model::MatchNode::Exact(seen, map) if exact => {
                    assert_eq!((seen, map.len()), (&wanted, 1));
                }
                model::MatchNode::Prefix(seen, map) if !exact => {
                    assert_eq!((seen, map.len()), (&wanted, 1));
                }
                other => panic!("{kind}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_predicate_may_look_for_an_address_in_blocks() {
    let input = r#"{"name":"i","typed_config":{"@type":
        "type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.FilterStateInput","key":"k"}}"#;
    let custom = r#"{"name":"ip","typed_config":{"@type":"type.googleapis.com/envoy.extensions.matching.input_matchers.ip.v3.Ip",
        "cidr_ranges":[{"address_prefix":"10.0.0.0","prefix_len":8},{"address_prefix":"1.2.3.4","prefix_len":128}],"stat_prefix":"s"}}"#;
    let (table, _) = with_matcher(&format!(
        r#"{{"matcher_list":{{"matchers":[{{"predicate":{{"single_predicate":
            {{"input":{input},"custom_match":{custom}}}}},"on_match":{LEAF}}}]}}}}"#
    ));
    let table = table.expect("accepted");
    let RouteRules::Tree(tree) = &table.virtual_hosts[0].routes else {
        panic!("a tree");
    };
    let model::MatchNode::List(list) = &tree.node else {
        panic!("{:?}", tree.node);
    };
    let model::MatchPredicate::Ip(model::MatchInput::FilterState(_), blocks) = &list[0].0 else {
        panic!("{:?}", list[0].0);
    };
    let blocks: Vec<_> = blocks.iter().map(ToString::to_string).collect();
    assert_eq!(blocks, ["10.0.0.0/8", "1.2.3.4/32"]);
}

#[test]
fn what_a_tree_cannot_do_is_refused_by_name() {
    let input = r#"{"name":"i","typed_config":{"@type":
        "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput","header_name":"x"}}"#;
    let custom = r#"{"name":"trie","typed_config":{"@type":"type.googleapis.com/envoy.config.route.v3.RouteList"}}"#;
    let query = input.replace(
        "HttpRequestHeaderMatchInput",
        "HttpRequestQueryParamMatchInput",
    );
    let query = query.replace("header_name", "query_param");
    for (matcher, wanted) in [
        // As in Envoy, only headers and filter state choose a route.
        (
            format!(
                r#"{{"matcher_tree":{{"input":{query},"exact_match_map":{{"map":{{"x":{LEAF}}}}}}}}}"#
            ),
            "matcher_tree.input",
        ),
        (
            format!(
                r#"{{"matcher_tree":{{"input":{input},"exact_match_map":{{"map":{{"x":
                    {{"keep_matching":true,{}}}}}}}}}"#,
                &LEAF[1..]
            ),
            "keep_matching",
        ),
        (
            format!(r#"{{"matcher_tree":{{"input":{input},"custom_match":{custom}}}}}"#),
            "custom_match",
        ),
        (
            format!(
                r#"{{"matcher_list":{{"matchers":[{{"predicate":{{"single_predicate":
                    {{"input":{input},"custom_match":{custom}}}}},"on_match":{LEAF}}}]}}}}"#
            ),
            "custom_match.typed_config",
        ),
    ] {
        let (table, _) = with_matcher(&matcher);
        let list = table.expect_err("refused");
        assert!(
            list.iter().any(|found| found.path.ends_with(wanted)),
            "{wanted}: {list:?}"
        );
    }
}

/// The forwarding action of the only route, and the paths of the notes.
fn forward(route: &str) -> (model::Forward, Vec<String>) {
    let text = format!(
        r#"{{"virtual_hosts":[{{"name":"v","domains":["*"],"routes":[
            {{"match":{{"prefix":"/"}},"route":{{"cluster":"a",{route}}}}}]}}]}}"#
    );
    let (table, notes) = decode(&text);
    let table = table.expect("accepted");
    let within = "virtual_hosts[0].routes[0].route.";
    let paths = notes.iter().map(|note| note.path.replace(within, ""));
    (first_forward(&table).clone(), paths.collect())
}

#[test]
fn a_retry_policy_is_kept_whole_and_what_does_not_act_is_listed() {
    let (route, notes) = forward(
        r#""retry_policy":{"retry_on":"5xx,cancelled,unheard-of","num_retries":4,"per_try_timeout":"2s","per_try_idle_timeout":"1s",
            "retriable_status_codes":[404],"host_selection_retry_max_attempts":5,
            "retriable_headers":[{"name":"a","present_match":true}],"retriable_request_headers":[{"name":"b","present_match":true}],
            "retry_back_off":{"base_interval":"1s","max_interval":"2s"},
            "rate_limited_retry_back_off":{"reset_headers":[{"name":"c","format":"UNIX_TIMESTAMP"}]},
            "retry_host_predicate":[
                {"name":"envoy.retry_host_predicates.previous_hosts"},
                {"name":"x","typed_config":{"@type":"type.googleapis.com/envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate"}},
                {"name":"y","typed_config":{"@type":"type.googleapis.com/envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig",
                    "metadata_match":{"filter_metadata":{"envoy.lb":{"stage":"dev"}}}}}],
            "retry_priority":{"name":"p","typed_config":{"@type":"type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig","update_frequency":2}}}"#,
    );
    assert_eq!(
        notes,
        ["retry_policy.retry_on", "retry_policy.retry_priority"]
    );
    let seconds = |seconds| Some(std::time::Duration::from_secs(seconds));
    let retry = route.retry.expect("a policy");
    let wanted = model::RetryOn::SERVER_ERROR.or(model::RetryOn::GRPC_CANCELLED);
    assert_eq!((retry.on, retry.retries), (wanted, 4));
    assert_eq!(retry.per_try_timeout, seconds(2));
    assert_eq!(retry.per_try_idle_timeout, seconds(1));
    assert_eq!((retry.headers.len(), retry.request_headers.len()), (1, 1));
    assert_eq!(
        (retry.base_interval, retry.max_interval),
        (seconds(1), seconds(2))
    );
    assert!(retry.avoid_previous_hosts && retry.omit_canary_hosts);
    assert_eq!(retry.host_selection_attempts, 5);
    let label = retry.omit_host_metadata.get("envoy.lb", &["stage".into()]);
    assert_eq!(label, Some(&model::Value::String("dev".into())));
    let limited = retry.rate_limited.expect("a back-off");
    assert_eq!(
        limited.reset_headers,
        [("c".parse().expect("a name"), false)]
    );
    assert_eq!(Some(limited.max_interval), seconds(300));
}

#[test]
fn what_does_not_act_yet_is_listed_by_name() {
    for (field, text) in [
        (
            "metadata_match",
            r#"{"filter_metadata":{"envoy.lb":{"a":"b"}}}"#,
        ),
        ("hash_policy", r#"[{"header":{"header_name":"x"}}]"#),
        ("hedge_policy", r#"{"hedge_on_per_try_timeout":true}"#),
        ("rate_limits", r#"[{"actions":[{"remote_address":{}}]}]"#),
    ] {
        let (_, notes) = forward(&format!(r#""{field}":{text}"#));
        assert_eq!(notes, [field]);
    }
}

#[test]
fn an_internal_redirect_policy_is_kept_whole() {
    let (route, notes) = forward(
        r#""internal_redirect_policy":{"max_internal_redirects":3,"redirect_response_codes":[303,307,400],"allow_cross_scheme_redirect":true,
            "response_headers_to_copy":["X-Token"],"predicates":[
            {"name":"a","typed_config":{"@type":"type.googleapis.com/envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig",
                "allowed_route_names":["x","y"]}},
            {"name":"b","typed_config":{"@type":"type.googleapis.com/envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig"}},
            {"name":"c","typed_config":{"@type":"type.googleapis.com/envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig"}}]}"#,
    );
    assert_eq!(
        notes,
        ["internal_redirect_policy.redirect_response_codes[2]"]
    );
    let wanted = model::InternalRedirect {
        max: 3,
        codes: vec![303, 307],
        cross_scheme: true,
        predicates: vec![
            model::RedirectPredicate::AllowListedRoutes(vec!["x".into(), "y".into()]),
            model::RedirectPredicate::PreviousRoutes,
            model::RedirectPredicate::SafeCrossScheme,
        ],
        copy_headers: vec!["x-token".parse().expect("a name")],
    };
    assert_eq!(route.internal_redirect, Some(wanted));
    let (route, notes) = forward(r#""internal_redirect_policy":{}"#);
    let policy = route.internal_redirect.expect("a policy");
    assert_eq!((policy.max, policy.codes, notes.len()), (1, vec![302], 0));
    let (route, _) = forward(
        r#""internal_redirect_action":"HANDLE_INTERNAL_REDIRECT","max_internal_redirects":2"#,
    );
    let policy = route.internal_redirect.expect("the older form");
    assert_eq!((policy.max, policy.codes), (2, vec![302]));
    let list = refused(
        r#"{"match":{"prefix":"/"},"route":{"cluster":"a","internal_redirect_policy":{"predicates":[{"name":"f",
            "typed_config":{"@type":"type.googleapis.com/envoy.extensions.internal_redirect.filter_state.v3.FilterStateConfig"}}]}}}"#,
    );
    let path =
        "virtual_hosts[0].routes[0].route.internal_redirect_policy.predicates[0].typed_config: ";
    assert!(list[0].contains(path), "{list:?}");
}

#[test]
fn what_does_not_act_is_listed_at_every_level() {
    let text = r#"{"virtual_hosts":[{"name":"v","domains":["*"],"hedge_policy":{"hedge_on_per_try_timeout":true},
        "typed_per_filter_config":{"s":{"@type":"type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute","disabled":true}},
        "routes":[
        {"match":{"prefix":"/"},"route":{"weighted_clusters":{"clusters":[
            {"name":"a","weight":1,"metadata_match":{"filter_metadata":{"envoy.lb":{"version":"v1"}}}}]}}},
        {"match":{"prefix":"/"},"route":{"cluster":"a"},
         "typed_per_filter_config":{"s":{"@type":"type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute",
            "stateful_session":{}}}}]}]}"#;
    let (table, notes) = decode(text);
    assert!(table.is_ok(), "{table:?}");
    let paths: Vec<&str> = notes.iter().map(|note| &*note.path).collect();
    for wanted in [
        "virtual_hosts[0].hedge_policy",
        "virtual_hosts[0].typed_per_filter_config",
        "virtual_hosts[0].routes[0].route.weighted_clusters.clusters[0].metadata_match",
        "virtual_hosts[0].routes[1].typed_per_filter_config",
    ] {
        let count = paths.iter().filter(|path| path.starts_with(wanted)).count();
        assert_eq!(count, 1, "{wanted}: {paths:?}");
    }
}

fn wire(hosts: &[(&str, &str)], max_body: u32) -> Vec<u8> {
    let hosts = hosts.iter().map(|(name, route)| {
        format!(r#"{{"name":"{name}","domains":["{name}"],"routes":[{{"match":{{"prefix":"/"}},{route}}}]}}"#)
    });
    let hosts: Vec<String> = hosts.collect();
    let text = format!(
        r#"{{"name":"r","virtual_hosts":[{}],"max_direct_response_body_size_bytes":{max_body}}}"#,
        hosts.join(",")
    );
    let mut json = serde_json::Deserializer::from_str(&text);
    crate::json::to_wire(NAME, &mut json).expect("a route configuration")
}

#[test]
fn a_table_of_which_a_part_changed_is_what_the_whole_decodes_to() {
    const PLAIN: &str = r#""route":{"cluster":"a"}"#;
    const NOTED: &str = r#""route":{"cluster":"a","hash_policy":[{"header":{"header_name":"x"}}]}"#;
    const BODY: &str = r#""direct_response":{"status":200,"body":{"inline_string":"long"}}"#;
    const WRONG: &str = r#""route":{"cluster":""}"#;
    let before = [("a", PLAIN), ("b", NOTED), ("c", BODY), ("d", PLAIN)];
    let old = wire(&before, 9);
    let decoded = crate::decode::routes(&old);
    let before = crate::decode::Before {
        wire: &old,
        model: decoded.value.as_ref().expect("accepted"),
        notes: &decoded.findings.notes,
    };
    for (hosts, max_body, in_parts) in [
        (
            &[("a", PLAIN), ("b", NOTED), ("c", BODY), ("d", NOTED)][..],
            9,
            true,
        ),
        (&[("b", NOTED), ("n", NOTED), ("d", PLAIN)], 9, true),
        (&[], 9, true),
        (&[("c", BODY)], 3, false),
        (&[("a", PLAIN), ("d", WRONG)], 9, false),
    ] {
        let new = wire(hosts, max_body);
        let part = again::changed(&new, before);
        assert_eq!(part.is_some(), in_parts, "{hosts:?}");
        let (again, whole) = (
            crate::decode::routes_again(&new, before),
            crate::decode::routes(&new),
        );
        assert_eq!(
            (again.name, again.value),
            (whole.name, whole.value),
            "{hosts:?}"
        );
        assert_eq!(again.findings, whole.findings, "{hosts:?}");
    }
}

#[test]
fn virtual_hosts_that_stay_are_not_decoded_again() {
    let old = wire(&[("a", r#""route":{"cluster":"a"}"#)], 9);
    // What is taken over shows in that it is not what the bytes say.
    let mut model = crate::decode::routes(&old).value.expect("accepted");
    model.virtual_hosts[0].name = "as before".into();
    let before = crate::decode::Before {
        wire: &old,
        model: &model,
        notes: &[],
    };
    let new = wire(
        &[
            ("b", r#""route":{"cluster":"b"}"#),
            ("a", r#""route":{"cluster":"a"}"#),
        ],
        9,
    );
    let table = crate::decode::routes_again(&new, before)
        .value
        .expect("accepted");
    let names: Vec<&str> = table.virtual_hosts.iter().map(|host| &*host.name).collect();
    assert_eq!(names, ["b", "as before"]);
}
