//! `Gateway`: <https://istio.io/latest/docs/reference/config/networking/gateway/>.

#![allow(missing_docs)] // Field names and meaning are those of the API page named above.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::json;

/// Ports that a gateway workload opens.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Gateway {
    #[serde(deserialize_with = "json::null")]
    pub servers: Vec<Server>,
    #[serde(deserialize_with = "json::null")]
    pub selector: BTreeMap<String, String>,
}

/// One open port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Server {
    pub port: Option<Port>,
    #[serde(deserialize_with = "json::null")]
    pub bind: String,
    #[serde(deserialize_with = "json::null")]
    pub hosts: Vec<String>,
    pub tls: Option<ServerTlsSettings>,
    #[serde(alias = "default_endpoint", deserialize_with = "json::null")]
    pub default_endpoint: String,
    #[serde(deserialize_with = "json::null")]
    pub name: String,
}

/// Number, protocol and name of a port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Port {
    #[serde(deserialize_with = "json::int")]
    pub number: u32,
    #[serde(deserialize_with = "json::null")]
    pub protocol: String,
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    #[serde(alias = "target_port", deserialize_with = "json::int")]
    pub target_port: u32,
}

/// TLS of a server port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServerTlsSettings {
    #[serde(alias = "https_redirect", deserialize_with = "json::null")]
    pub https_redirect: bool,
    #[serde(deserialize_with = "json::null")]
    pub mode: ServerTlsMode,
    #[serde(alias = "server_certificate", deserialize_with = "json::null")]
    pub server_certificate: String,
    #[serde(alias = "private_key", deserialize_with = "json::null")]
    pub private_key: String,
    #[serde(alias = "ca_certificates", deserialize_with = "json::null")]
    pub ca_certificates: String,
    #[serde(alias = "ca_crl", deserialize_with = "json::null")]
    pub ca_crl: String,
    #[serde(alias = "credential_name", deserialize_with = "json::null")]
    pub credential_name: String,
    #[serde(alias = "credential_names", deserialize_with = "json::null")]
    pub credential_names: Vec<String>,
    #[serde(alias = "ca_cert_credential_name", deserialize_with = "json::null")]
    pub ca_cert_credential_name: String,
    #[serde(alias = "tls_certificates", deserialize_with = "json::null")]
    pub tls_certificates: Vec<TlsCertificate>,
    #[serde(alias = "subject_alt_names", deserialize_with = "json::null")]
    pub subject_alt_names: Vec<String>,
    #[serde(alias = "verify_certificate_spki", deserialize_with = "json::null")]
    pub verify_certificate_spki: Vec<String>,
    #[serde(alias = "verify_certificate_hash", deserialize_with = "json::null")]
    pub verify_certificate_hash: Vec<String>,
    #[serde(alias = "min_protocol_version", deserialize_with = "json::null")]
    pub min_protocol_version: TlsProtocol,
    #[serde(alias = "max_protocol_version", deserialize_with = "json::null")]
    pub max_protocol_version: TlsProtocol,
    #[serde(alias = "cipher_suites", deserialize_with = "json::null")]
    pub cipher_suites: Vec<String>,
    #[serde(alias = "ecdh_curves", deserialize_with = "json::null")]
    pub ecdh_curves: Vec<String>,
    #[serde(alias = "insecure_skip_verify")]
    pub insecure_skip_verify: Option<bool>,
}

json::enumeration! {
    /// How a server port treats TLS.
    pub enum ServerTlsMode {
        Passthrough = 0 "PASSTHROUGH",
        Simple = 1 "SIMPLE",
        Mutual = 2 "MUTUAL",
        AutoPassthrough = 3 "AUTO_PASSTHROUGH",
        IstioMutual = 4 "ISTIO_MUTUAL",
        OptionalMutual = 5 "OPTIONAL_MUTUAL",
    }
}

json::enumeration! {
    /// Version of TLS.
    pub enum TlsProtocol {
        TlsAuto = 0 "TLS_AUTO",
        Tlsv10 = 1 "TLSV1_0",
        Tlsv11 = 2 "TLSV1_1",
        Tlsv12 = 3 "TLSV1_2",
        Tlsv13 = 4 "TLSV1_3",
    }
}

/// Files of one certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TlsCertificate {
    #[serde(alias = "server_certificate", deserialize_with = "json::null")]
    pub server_certificate: String,
    #[serde(alias = "private_key", deserialize_with = "json::null")]
    pub private_key: String,
    #[serde(alias = "ca_certificates", deserialize_with = "json::null")]
    pub ca_certificates: String,
}
