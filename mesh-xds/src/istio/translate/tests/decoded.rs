//! What is translated is what the decoder reads.

use prost::Message;

use super::*;
use crate::decode::{self, Decoded};

fn assert_decodes(resources: &Resources) {
    each(&resources.listeners, decode::listener);
    each(&resources.routes, decode::routes);
    each(&resources.clusters, decode::cluster);
    each(&resources.endpoints, decode::endpoints);
}

fn each<M: Message, T>(made: &[M], decode: impl Fn(&[u8]) -> Decoded<T>) {
    assert!(!made.is_empty());
    for message in made {
        let decoded = decode(&message.encode_to_vec());
        assert!(
            decoded.value.is_some(),
            "{}: {:?}",
            decoded.name,
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
