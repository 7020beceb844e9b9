//! What is translated is what the decoder reads.

use prost::Message;

use super::*;
use crate::decode;

fn assert_decodes(resources: &Resources) {
    for listener in &resources.listeners {
        let decoded = decode::listener(&listener.encode_to_vec());
        assert!(
            decoded.value.is_some(),
            "{}: {:?}",
            listener.name,
            decoded.findings
        );
    }
    for routes in &resources.routes {
        let decoded = decode::routes(&routes.encode_to_vec());
        assert!(
            decoded.value.is_some(),
            "{}: {:?}",
            routes.name,
            decoded.findings
        );
    }
    for cluster in &resources.clusters {
        let decoded = decode::cluster(&cluster.encode_to_vec());
        assert!(
            decoded.value.is_some(),
            "{}: {:?}",
            cluster.name,
            decoded.findings
        );
    }
    for endpoints in &resources.endpoints {
        let decoded = decode::endpoints(&endpoints.encode_to_vec());
        assert!(
            decoded.value.is_some(),
            "{}: {:?}",
            endpoints.cluster_name,
            decoded.findings
        );
    }
}

/// Every kind of rule, policy and service at once.
const EVERYTHING: &str = include_str!("everything.yaml");

#[test]
fn the_decoder_takes_everything_that_is_made_for_a_sidecar() {
    assert_decodes(&sidecar(EVERYTHING));
}

#[test]
fn the_decoder_takes_everything_that_is_made_for_a_gateway() {
    assert_decodes(&gateway(EVERYTHING));
}
