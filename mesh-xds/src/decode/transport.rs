//! Transport sockets: TLS as data, PROXY protocol, raw buffers (`config.core.v3.TransportSocket`).

use envoy_types::pb::envoy::{
    config::core::v3::{
        DataSource, ProxyProtocolConfig, TransportSocket as Proto, data_source::Specifier,
        proxy_protocol_config::Version, transport_socket::ConfigType,
    },
    extensions::transport_sockets::{
        proxy_protocol::v3::ProxyProtocolUpstreamTransport,
        tls::v3::{
            CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
            SubjectAltNameMatcher, TlsCertificate, UpstreamTlsContext,
            common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
        },
    },
};
use mesh_core::model::{Name, ProxyProtocolVersion, TlsContext, TransportSocket};

use super::{
    Context, common, matcher,
    set::{ignored, unsupported},
};

/// How bytes travel; absent means as they are.
pub(crate) fn socket(cx: &mut Context, field: &str, value: Option<&Proto>) -> TransportSocket {
    let Some(value) = value else {
        return TransportSocket::RawBuffer;
    };
    cx.field(field, |cx| {
        let Some(ConfigType::TypedConfig(any)) = &value.config_type else {
            cx.reject(
                "typed_config",
                format_args!("transport socket {} has no configuration", value.name),
            );
            return TransportSocket::RawBuffer;
        };
        cx.field("typed_config", |cx| typed(cx, &value.name, any))
    })
}

fn typed(
    cx: &mut Context,
    name: &str,
    any: &envoy_types::pb::google::protobuf::Any,
) -> TransportSocket {
    let Some(typed) = cx.typed(any) else {
        return TransportSocket::RawBuffer;
    };
    let socket = match typed.name.as_str() {
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => {
            Some(TransportSocket::RawBuffer)
        }
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" => cx
            .message(&typed)
            .map(|value| TransportSocket::Tls(Box::new(upstream_tls(cx, &value)))),
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" => cx
            .message(&typed)
            .map(|value| TransportSocket::Tls(Box::new(downstream_tls(cx, &value)))),
        "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport" => cx
            .message(&typed)
            .and_then(|value| proxy_protocol(cx, &value)),
        kind => {
            cx.note(
                "",
                format_args!(
                    "transport socket {name} ({kind}) is not supported: it refuses traffic"
                ),
            );
            Some(TransportSocket::Unsupported(name.into(), typed.url()))
        }
    };
    // A message that could not be read has been refused: this value is never used.
    socket.unwrap_or_default()
}

fn proxy_protocol(
    cx: &mut Context,
    value: &ProxyProtocolUpstreamTransport,
) -> Option<TransportSocket> {
    let ProxyProtocolUpstreamTransport {
        config,
        transport_socket,
        allow_unspecified_address,
        tlv_as_pool_key,
    } = value;
    ignored!(cx; allow_unspecified_address, tlv_as_pool_key);
    let version = config
        .as_ref()
        .map(|config| cx.field("config", |cx| version(cx, config)))
        .unwrap_or_default();
    let inner = socket(cx, "transport_socket", transport_socket.as_ref());
    Some(TransportSocket::ProxyProtocol(version, Box::new(inner)))
}

/// Which header a PROXY protocol configuration asks for.
pub(super) fn version(cx: &mut Context, value: &ProxyProtocolConfig) -> ProxyProtocolVersion {
    let ProxyProtocolConfig {
        version: _,
        pass_through_tlvs,
        added_tlvs,
    } = value;
    ignored!(cx; pass_through_tlvs);
    unsupported!(cx; added_tlvs);
    match value.version() {
        Version::V1 => ProxyProtocolVersion::V1,
        Version::V2 => ProxyProtocolVersion::V2,
    }
}

fn upstream_tls(cx: &mut Context, value: &UpstreamTlsContext) -> TlsContext {
    let UpstreamTlsContext {
        common_tls_context,
        sni,
        auto_host_sni,
        auto_sni_san_validation,
        allow_renegotiation,
        max_session_keys,
        enforce_rsa_key_usage,
    } = value;
    ignored!(cx; auto_host_sni, auto_sni_san_validation, allow_renegotiation, max_session_keys, enforce_rsa_key_usage);
    let mut out = common_tls(cx, common_tls_context.as_ref());
    out.sni = sni.as_str().into();
    out
}

fn downstream_tls(cx: &mut Context, value: &DownstreamTlsContext) -> TlsContext {
    let DownstreamTlsContext {
        common_tls_context,
        require_client_certificate,
        require_sni,
        disable_stateful_session_resumption,
        session_timeout,
        ocsp_staple_policy,
        full_scan_certs_on_sni_mismatch,
        prefer_client_ciphers,
        session_ticket_keys_type,
    } = value;
    ignored!(cx; require_sni, disable_stateful_session_resumption, session_timeout, ocsp_staple_policy,
        full_scan_certs_on_sni_mismatch, prefer_client_ciphers, session_ticket_keys_type);
    let mut out = common_tls(cx, common_tls_context.as_ref());
    out.require_client_certificate = common::bool_of(require_client_certificate.as_ref(), false);
    out
}

fn common_tls(cx: &mut Context, value: Option<&CommonTlsContext>) -> TlsContext {
    let Some(value) = value else {
        return TlsContext::default();
    };
    cx.field("common_tls_context", |cx| common_context(cx, value))
}

fn common_context(cx: &mut Context, value: &CommonTlsContext) -> TlsContext {
    let CommonTlsContext {
        tls_params,
        tls_certificates,
        tls_certificate_sds_secret_configs,
        tls_certificate_provider_instance,
        custom_tls_certificate_selector,
        tls_certificate_certificate_provider,
        tls_certificate_certificate_provider_instance,
        alpn_protocols,
        custom_handshaker,
        key_log,
        validation_context_type,
    } = value;
    ignored!(cx; tls_params, key_log);
    unsupported!(cx; tls_certificate_provider_instance, custom_tls_certificate_selector,
        tls_certificate_certificate_provider, tls_certificate_certificate_provider_instance, custom_handshaker);
    let field = "tls_certificates";
    let mut certificates = cx.each(field, tls_certificates, |cx, value| {
        Some(certificate(cx, value))
    });
    let secrets = tls_certificate_sds_secret_configs.iter();
    certificates.extend(secrets.map(|secret| Name::from(secret.name.as_str())));
    let mut out = TlsContext {
        alpn: alpn_protocols
            .iter()
            .map(|name| name.as_str().into())
            .collect(),
        certificates,
        ..TlsContext::default()
    };
    match validation_context_type {
        None => {}
        Some(ValidationContextType::ValidationContext(context)) => {
            cx.field("validation_context", |cx| validation(cx, context, &mut out));
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(secret)) => {
            out.validation = Some(secret.name.as_str().into());
        }
        Some(ValidationContextType::CombinedValidationContext(both)) => {
            combined(cx, both, &mut out);
        }
        Some(
            ValidationContextType::ValidationContextCertificateProvider(_)
            | ValidationContextType::ValidationContextCertificateProviderInstance(_),
        ) => cx.reject("validation_context_certificate_provider", "not supported"),
    }
    out
}

fn combined(cx: &mut Context, value: &CombinedCertificateValidationContext, out: &mut TlsContext) {
    let CombinedCertificateValidationContext {
        default_validation_context,
        validation_context_sds_secret_config,
        validation_context_certificate_provider,
        validation_context_certificate_provider_instance,
    } = value;
    cx.field("combined_validation_context", |cx| {
        unsupported!(cx; validation_context_certificate_provider, validation_context_certificate_provider_instance);
        if let Some(context) = default_validation_context {
            cx.field("default_validation_context", |cx| validation(cx, context, out));
        }
        if let Some(SdsSecretConfig { name, .. }) = validation_context_sds_secret_config {
            // The secret holds the roots; those of the default context are not used.
            cx.ignored("default_validation_context.trusted_ca", out.validation.is_some());
            out.validation = Some(name.as_str().into());
        }
    });
}

/// The name by which a certificate in the configuration is known: its file, or `inline`.
fn certificate(cx: &mut Context, value: &TlsCertificate) -> Name {
    let TlsCertificate {
        certificate_chain,
        private_key: _,
        pkcs12,
        watched_directory,
        private_key_provider,
        password,
        ocsp_staple,
        signed_certificate_timestamp,
        tls_params,
    } = value;
    ignored!(cx; watched_directory, ocsp_staple, signed_certificate_timestamp, tls_params);
    unsupported!(cx; private_key_provider, password);
    source_name(certificate_chain.as_ref().or(pkcs12.as_ref()))
}

fn source_name(value: Option<&DataSource>) -> Name {
    match value.and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::Filename(path)) => format!("file:{path}").into(),
        Some(Specifier::EnvironmentVariable(name)) => format!("environment:{name}").into(),
        Some(Specifier::InlineBytes(_) | Specifier::InlineString(_)) => "inline".into(),
        None => "".into(),
    }
}

fn validation(cx: &mut Context, value: &CertificateValidationContext, out: &mut TlsContext) {
    let CertificateValidationContext {
        trusted_ca,
        ca_certificate_provider_instance,
        system_root_certs,
        watched_directory,
        verify_certificate_spki,
        verify_certificate_hash,
        match_typed_subject_alt_names,
        match_subject_alt_names,
        require_signed_certificate_timestamp,
        crl,
        allow_expired_certificate,
        trust_chain_verification,
        custom_validator_config,
        only_verify_leaf_cert_crl,
        max_verify_depth,
        suppress_client_ca_list,
    } = value;
    ignored!(cx; watched_directory, suppress_client_ca_list, only_verify_leaf_cert_crl, allow_expired_certificate,
        trust_chain_verification, max_verify_depth);
    unsupported!(cx; ca_certificate_provider_instance, verify_certificate_spki, verify_certificate_hash,
        require_signed_certificate_timestamp, crl, custom_validator_config);
    if let Some(source) = trusted_ca {
        ignored!(cx; system_root_certs);
        let watched = source.watched_directory.is_some();
        cx.ignored("trusted_ca.watched_directory", watched);
        out.validation = Some(source_name(Some(source)));
    } else if system_root_certs.is_some() {
        out.validation = Some("system".into());
    }
    let field = "match_typed_subject_alt_names";
    out.subject_alt_names = cx.each(field, match_typed_subject_alt_names, |cx, san| {
        let SubjectAltNameMatcher {
            san_type,
            matcher: text,
            oid,
        } = san;
        // Every kind of name is compared: a kind that was not meant could match.
        ignored!(cx; san_type, oid);
        let Some(text) = text else {
            cx.reject("matcher", "must be set");
            return None;
        };
        cx.field("matcher", |cx| matcher::string(cx, text))
    });
    let field = "match_subject_alt_names";
    let more = cx.each(field, match_subject_alt_names, matcher::string);
    out.subject_alt_names.extend(more);
}
