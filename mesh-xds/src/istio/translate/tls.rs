//! TLS towards upstreams, and of gateway servers.

#![allow(deprecated)] // Names of peers by text are what istiod sends.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use prost::{Message as _, Name as _};
use tls::common_tls_context::ValidationContextType;

use super::pb;
use crate::istio::api::destination_rule::{
    ClientTlsMode, ClientTlsSettings, ProxyProtocol, ProxyProtocolVersion,
};
use crate::istio::api::gateway::{ServerTlsMode, ServerTlsSettings, TlsProtocol};
use crate::istio::api::json::StringMatch;

/// The transport socket for `settings`; nothing when TLS is off. `sni` is the name that mutual TLS of the mesh asks for.
pub(super) fn upstream(settings: &ClientTlsSettings, sni: &str) -> Option<core::TransportSocket> {
    let (context, sni, alpn) = match settings.mode {
        ClientTlsMode::Disable => return None,
        ClientTlsMode::IstioMutual => (
            mesh_context(settings),
            sni,
            &["istio-peer-exchange", "istio"][..],
        ),
        ClientTlsMode::Simple | ClientTlsMode::Mutual => {
            (own_context(settings), settings.sni.as_str(), &[][..])
        }
    };
    let sni = if settings.sni.is_empty() {
        sni
    } else {
        &settings.sni
    };
    let common = tls::CommonTlsContext {
        alpn_protocols: alpn.iter().map(|&name| name.to_owned()).collect(),
        ..context
    };
    Some(socket(&tls::UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: sni.to_owned(),
        ..tls::UpstreamTlsContext::default()
    }))
}

/// The name of transport sockets with TLS.
const TLS: &str = "envoy.transport_sockets.tls";

/// A transport socket that sends a PROXY header first, and goes on as `inner`, or as plain text.
pub(super) fn proxy_protocol(
    header: &ProxyProtocol,
    inner: Option<core::TransportSocket>,
) -> core::TransportSocket {
    let version = match header.version {
        ProxyProtocolVersion::V1 => core::proxy_protocol_config::Version::V1,
        ProxyProtocolVersion::V2 => core::proxy_protocol_config::Version::V2,
    };
    let plain = || named("envoy.transport_sockets.raw_buffer", &RawBuffer::default());
    named(
        "envoy.transport_sockets.upstream_proxy_protocol",
        &ProxyProtocolUpstreamTransport {
            config: Some(core::ProxyProtocolConfig {
                version: version.into(),
                ..core::ProxyProtocolConfig::default()
            }),
            transport_socket: Some(inner.unwrap_or_else(plain)),
            ..ProxyProtocolUpstreamTransport::default()
        },
    )
}

/// Whether TLS is spoken, be it behind a PROXY header.
pub(in crate::istio) fn is_asked_for(socket: &core::TransportSocket) -> bool {
    use core::transport_socket::ConfigType;
    if socket.name == TLS {
        return true;
    }
    let Some(ConfigType::TypedConfig(config)) = &socket.config_type else {
        return false;
    };
    if config.type_url != ProxyProtocolUpstreamTransport::type_url() {
        return false;
    }
    let wrapper = ProxyProtocolUpstreamTransport::decode(config.value.as_slice());
    let inner = wrapper.ok().and_then(|wrapper| wrapper.transport_socket);
    inner.is_some_and(|inner| inner.name == TLS)
}

/// A transport socket with that context.
pub(super) fn socket<M: prost::Message + prost::Name>(context: &M) -> core::TransportSocket {
    named(TLS, context)
}

fn named<M: prost::Message + prost::Name>(name: &str, config: &M) -> core::TransportSocket {
    core::TransportSocket {
        name: name.to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(pb::any(
            config,
        ))),
    }
}

fn exact_names(names: &[String]) -> Vec<StringMatcher> {
    names
        .iter()
        .filter_map(|name| pb::string_match(&StringMatch::Exact(name.clone())))
        .collect()
}

fn secret(name: &str) -> tls::SdsSecretConfig {
    tls::SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(core::ConfigSource {
            resource_api_version: core::ApiVersion::V3.into(),
            config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
                core::AggregatedConfigSource {},
            )),
            ..core::ConfigSource::default()
        }),
    }
}

/// The workload's own certificate and the mesh's roots.
fn mesh_context(settings: &ClientTlsSettings) -> tls::CommonTlsContext {
    combined(vec![secret("default")], "ROOTCA", settings)
}

/// Certificates that the rule names, as a secret or as files.
fn own_context(settings: &ClientTlsSettings) -> tls::CommonTlsContext {
    let mutual = settings.mode == ClientTlsMode::Mutual;
    if !settings.credential_name.is_empty() {
        let name = format!("kubernetes://{}", settings.credential_name);
        let own = if mutual {
            vec![secret(&name)]
        } else {
            Vec::new()
        };
        return combined(own, &format!("{name}-cacert"), settings);
    }
    let certificate = format!(
        "file-cert:{}~{}",
        settings.client_certificate, settings.private_key
    );
    let own = if mutual {
        vec![secret(&certificate)]
    } else {
        Vec::new()
    };
    let roots = match settings.ca_certificates.as_str() {
        "" => "file-root:system".to_owned(),
        path => format!("file-root:{path}"),
    };
    combined(own, &roots, settings)
}

fn combined(
    certificates: Vec<tls::SdsSecretConfig>,
    roots: &str,
    settings: &ClientTlsSettings,
) -> tls::CommonTlsContext {
    let validation = tls::common_tls_context::CombinedCertificateValidationContext {
        default_validation_context: Some(tls::CertificateValidationContext {
            match_subject_alt_names: exact_names(&settings.subject_alt_names),
            ..tls::CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(secret(roots)),
        ..Default::default()
    };
    let unverified = settings.insecure_skip_verify == Some(true);
    tls::CommonTlsContext {
        tls_certificate_sds_secret_configs: certificates,
        validation_context_type: (!unverified)
            .then_some(ValidationContextType::CombinedValidationContext(validation)),
        ..tls::CommonTlsContext::default()
    }
}

/// The transport socket of a gateway's server.
pub(super) fn downstream(settings: &ServerTlsSettings) -> core::TransportSocket {
    let mutual = matches!(
        settings.mode,
        ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual | ServerTlsMode::IstioMutual
    );
    let (certificate, roots) = if settings.mode == ServerTlsMode::IstioMutual {
        ("default".to_owned(), "ROOTCA".to_owned())
    } else if settings.credential_name.is_empty() {
        (
            format!(
                "file-cert:{}~{}",
                settings.server_certificate, settings.private_key
            ),
            format!("file-root:{}", settings.ca_certificates),
        )
    } else {
        let name = format!("kubernetes://{}", settings.credential_name);
        (name.clone(), format!("{name}-cacert"))
    };
    let validation = mutual.then(|| {
        ValidationContextType::CombinedValidationContext(
            tls::common_tls_context::CombinedCertificateValidationContext {
                default_validation_context: Some(tls::CertificateValidationContext {
                    match_subject_alt_names: exact_names(&settings.subject_alt_names),
                    verify_certificate_spki: settings.verify_certificate_spki.clone(),
                    verify_certificate_hash: settings.verify_certificate_hash.clone(),
                    ..tls::CertificateValidationContext::default()
                }),
                validation_context_sds_secret_config: Some(secret(&roots)),
                ..Default::default()
            },
        )
    });
    let required = mutual && settings.mode != ServerTlsMode::OptionalMutual;
    socket(&tls::DownstreamTlsContext {
        common_tls_context: Some(tls::CommonTlsContext {
            alpn_protocols: ["h2", "http/1.1"].map(str::to_owned).into(),
            tls_params: Some(parameters(settings)),
            tls_certificate_sds_secret_configs: vec![secret(&certificate)],
            validation_context_type: validation,
            ..tls::CommonTlsContext::default()
        }),
        require_client_certificate: Some(pb::boolean(required)),
        ..tls::DownstreamTlsContext::default()
    })
}

fn parameters(settings: &ServerTlsSettings) -> tls::TlsParameters {
    use tls::tls_parameters::TlsProtocol as Version;
    let version = |own: TlsProtocol, default: Version| match own {
        TlsProtocol::TlsAuto => default,
        TlsProtocol::Tlsv10 => Version::TlSv10,
        TlsProtocol::Tlsv11 => Version::TlSv11,
        TlsProtocol::Tlsv12 => Version::TlSv12,
        TlsProtocol::Tlsv13 => Version::TlSv13,
    };
    tls::TlsParameters {
        tls_minimum_protocol_version: version(settings.min_protocol_version, Version::TlSv12)
            .into(),
        tls_maximum_protocol_version: version(settings.max_protocol_version, Version::TlSv13)
            .into(),
        cipher_suites: settings.cipher_suites.clone(),
        ecdh_curves: settings.ecdh_curves.clone(),
        ..tls::TlsParameters::default()
    }
}
