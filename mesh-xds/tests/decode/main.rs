//! What decoders make of resources: values, notes and refusals.

use mesh_core::model::{Cluster, HttpFilterKind, Listener, Network, RouteSource, TransportSocket};
use mesh_xds::{
    decode::{self, Decoded},
    json, yaml,
};

mod clusters;
mod listeners;

fn wire(message: &str, text: &str) -> Vec<u8> {
    let document: serde_json::Value = yaml::from_str(text).expect(text);
    json::to_wire(message, document).expect(text)
}

fn cluster(text: &str) -> Decoded<Cluster> {
    decode::cluster(&wire("envoy.config.cluster.v3.Cluster", text))
}

fn listener(text: &str) -> Decoded<Listener> {
    decode::listener(&wire("envoy.config.listener.v3.Listener", text))
}

/// A listener whose connection manager has these HTTP filters before the router.
fn with_filters(filters: &str) -> Decoded<Listener> {
    listener(&format!(
        r#"
name: in
address: {{socket_address: {{address: 127.0.0.1, port_value: 80}}}}
filter_chains:
- filters:
  - name: hcm
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: in
      rds: {{route_config_name: "80", config_source: {{ads: {{}}}}}}
      http_filters:
      {filters}
      - {{name: router, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}
"#
    ))
}

fn filters(decoded: &Decoded<Listener>) -> Vec<HttpFilterKind> {
    let listener = decoded.value.as_ref().expect("accepted");
    let Network::Http(manager) = &listener.filter_chains[0].network else {
        panic!("{listener:?}")
    };
    assert_eq!(manager.routes, RouteSource::Named("80".into()));
    manager
        .filters
        .iter()
        .map(|filter| filter.kind.clone())
        .collect()
}

fn notes<T>(decoded: &Decoded<T>) -> Vec<String> {
    let notes = decoded.findings.notes.iter();
    notes
        .map(|note| format!("{}: {}", note.path, note.reason))
        .collect()
}

fn refusals<T>(decoded: &Decoded<T>) -> Vec<String> {
    let rejections = decoded.findings.rejections.iter();
    rejections
        .map(|rejection| format!("{}: {}", rejection.path, rejection.reason))
        .collect()
}

#[test]
fn what_protects_traffic_and_cannot_act_is_kept_and_noted() {
    let rbac = with_filters(
        r#"- {name: rbac, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC}}"#,
    );
    assert!(
        matches!(&filters(&rbac)[0], HttpFilterKind::Opaque(url, _) if url.ends_with("rbac.v3.RBAC"))
    );
    assert!(
        notes(&rbac)[0].ends_with("is not supported: all requests are refused"),
        "{rbac:?}"
    );
    let optional = with_filters(
        r#"- {name: rbac, is_optional: true, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC}}"#,
    );
    assert_eq!(filters(&optional), [HttpFilterKind::Router]);
    assert_eq!(notes(&optional).len(), 1);

    let tls = cluster(
        "{name: a, transport_socket: {name: tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: x}}}",
    );
    let transport = tls.value.expect("accepted").transport;
    assert!(matches!(transport, TransportSocket::Tls(tls) if &*tls.sni == "x"));
    let alts = cluster(
        "{name: a, transport_socket: {name: alts, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.alts.v3.Alts, handshaker_service: x}}}",
    );
    assert!(notes(&alts)[0].ends_with("it refuses traffic"), "{alts:?}");
    assert!(matches!(
        alts.value.expect("accepted").transport,
        TransportSocket::Unsupported(..)
    ));

    let network = listener(
        "{name: in, address: {socket_address: {address: 127.0.0.1, port_value: 80}}, filter_chains: [{filters: [{name: rbac, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: x}}, {name: tcp, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: a}}]}]}",
    );
    let chain = &network.value.as_ref().expect("accepted").filter_chains[0];
    assert!(
        chain
            .refuse
            .as_ref()
            .is_some_and(|reason| reason.contains("network.rbac")),
        "{chain:?}"
    );
    assert!(
        notes(&network)[0].ends_with("connections are closed"),
        "{network:?}"
    );
}

#[test]
fn unknown_field_numbers_and_broken_bytes_are_refused() {
    let mut bytes = wire("envoy.config.cluster.v3.Cluster", "{name: a}");
    bytes.extend([0x80, 0x7d, 1]);
    assert!(refusals(&decode::cluster(&bytes))[0].contains("unknown field number 2000"));
    assert!(decode::cluster(&[0x0a, 9, b'a']).value.is_none());
}

#[test]
fn nesting_is_bounded_on_the_wire() {
    // A struct in a struct, ten thousand times: `{fields: {"": {struct_value: …}}}`.
    let mut bytes = Vec::new();
    for _ in 0..10_000 {
        for tag in [0x2a, 0x12, 0x0a] {
            let mut outer = vec![tag];
            prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
            outer.append(&mut bytes);
            bytes = outer;
        }
    }
    let name = "google.protobuf.Struct";
    assert!(json::wire_to_value(name, &bytes[2..]).is_err() || json::check(name, &bytes).is_err());
    assert!(json::check(name, &bytes).is_err());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]

    #[test]
    fn broken_bytes_are_refused_or_read_but_never_panic(
        changes in proptest::collection::vec((proptest::prelude::any::<usize>(), proptest::prelude::any::<u8>()), 1..12),
        cut in proptest::prelude::any::<usize>(),
    ) {
        for (message, text) in [
            ("envoy.config.listener.v3.Listener", include_str!("../coverage/listener.yaml")),
            ("envoy.config.cluster.v3.Cluster", include_str!("../coverage/cluster.yaml")),
            ("envoy.config.route.v3.RouteConfiguration", include_str!("../coverage/routes.yaml")),
        ] {
            let mut bytes = wire(message, text);
            for (at, value) in &changes {
                let at = at % bytes.len();
                bytes[at] = *value;
            }
            if cut % 4 == 0 {
                bytes.truncate(cut % bytes.len());
            }
            let _ = decode::listener(&bytes);
            let _ = decode::cluster(&bytes);
            let _ = decode::routes(&bytes);
            let _ = decode::endpoints(&bytes);
            let _ = json::wire_to_value(message, &bytes);
        }
    }
}

#[test]
fn a_direct_response_is_as_long_as_its_table_allows() {
    let routes = |most: u32| {
        let text = format!(
            r#"
name: r
max_direct_response_body_size_bytes: {most}
virtual_hosts:
- name: v
  domains: ["*"]
  routes:
  - match: {{prefix: /}}
    direct_response: {{status: 200, body: {{inline_string: hello}}}}
"#
        );
        refusals(&decode::routes(&wire(
            "envoy.config.route.v3.RouteConfiguration",
            &text,
        )))
    };
    assert_eq!(routes(5), [""; 0]);
    let [refused] = &routes(4)[..] else {
        panic!("one refusal")
    };
    assert!(
        refused.contains("routes[0].direct_response.body")
            && refused.contains("5 bytes are over max_direct_response_body_size_bytes, 4"),
        "{refused}"
    );
}
