//! Gateway and the TLS settings of servers.

use std::collections::BTreeSet;

use super::check::{At, Check};
use super::rules::{self, Protocol};
use crate::istio::Object;
use crate::istio::api::Gateway;
use crate::istio::api::gateway::{
    Port, Server, ServerTlsMode, ServerTlsSettings, TlsCertificate, TlsProtocol,
};

pub(super) fn check(c: &mut Check, at: &At<'_>, gateway: &Gateway, object: &Object) {
    let name = &object.name;
    // What Istio makes of the Gateway API may be for nobody.
    let semantics = object
        .annotations
        .get("internal.istio.io/gateway-semantics");
    let made = semantics.is_some_and(|semantics| semantics == "gateway");
    if !rules::is_dns_label(name) {
        c.error(
            &At::root("metadata").key("name"),
            format_args!("invalid gateway name `{name}`, no dots are allowed"),
        );
    }
    if gateway.servers.is_empty() {
        c.error(&at.key("servers"), "a gateway needs at least one server");
    }
    let mut names = BTreeSet::new();
    for (i, server) in gateway.servers.iter().enumerate() {
        let at = at.item("servers", i);
        self::server(c, &at, server, made);
        let Some(port) = &server.port else {
            continue;
        };
        if !names.insert(&port.name) {
            c.error(
                &at.key("port").key("name"),
                format_args!("duplicate port name `{}`", port.name),
            );
        }
        let redirect = server.tls.as_ref().is_some_and(|tls| tls.https_redirect);
        if redirect && rules::protocol(&port.protocol) != Some(Protocol::Http) {
            c.warn(
                &at.key("tls").key("httpsRedirect"),
                "has an effect on HTTP servers only",
            );
        }
    }
}

fn server(c: &mut Check, at: &At<'_>, server: &Server, made: bool) {
    if server.hosts.is_empty() {
        c.error(&at.key("hosts"), "a server needs at least one host");
    }
    for (i, host) in server.hosts.iter().enumerate() {
        let host = host.strip_prefix("~/").filter(|_| made).unwrap_or(host);
        for error in rules::namespaced_host(host, true) {
            c.error(&at.item("hosts", i), error);
        }
    }
    let Some(port) = &server.port else {
        return c.error(&at.key("port"), "a port is required");
    };
    self::port(c, &at.key("port"), port, &server.bind);
    if let Some(path) = server.bind.strip_prefix("unix://") {
        c.rule(&at.key("bind"), rules::unix_path(path));
        if port.number != 0 {
            c.error(
                &at.key("port").key("number"),
                "the port must be 0 for a Unix socket",
            );
        }
    } else if !server.bind.is_empty() {
        c.rule(&at.key("bind"), rules::ip(&server.bind));
    }
    if !server.default_endpoint.is_empty() {
        c.inactive(
            &at.key("defaultEndpoint"),
            "defaultEndpoint has no effect, as in Istio: VirtualService objects lead traffic on",
        );
    }
    if let Some(tls) = &server.tls {
        tls_options(c, &at.key("tls"), tls);
    }
    tls_fits_protocol(c, at, server, port);
}

fn port(c: &mut Check, at: &At<'_>, port: &Port, bind: &str) {
    if rules::protocol(&port.protocol).is_none() {
        c.not_one_of(
            &at.key("protocol"),
            "protocol",
            &port.protocol,
            rules::PROTOCOLS,
        );
    }
    if port.number > 0 || !bind.starts_with("unix://") {
        c.rule(&at.key("number"), rules::port(port.number));
    }
    if port.target_port > 0 {
        c.error(
            &at.key("targetPort"),
            "targetPort has no effect on gateways",
        );
    }
    if port.name.is_empty() {
        c.error(&at.key("name"), "a name is required");
    }
}

/// TLS settings where the protocol asks for them, and nowhere else; an HTTP server may redirect to HTTPS.
fn tls_fits_protocol(c: &mut Check, at: &At<'_>, server: &Server, port: &Port) {
    let at = at.key("tls");
    match (rules::protocol(&port.protocol), &server.tls) {
        (Some(Protocol::Tls), None) => c.error(&at, "HTTPS and TLS servers need TLS settings"),
        (Some(Protocol::Http), Some(tls)) => {
            let passthrough = matches!(
                tls.mode,
                ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough
            );
            let files = [
                &tls.ca_certificates,
                &tls.private_key,
                &tls.server_certificate,
            ];
            if !passthrough || files.iter().any(|f| !f.is_empty()) {
                c.error(
                    &at,
                    "a plain-text HTTP server cannot have TLS settings, except httpsRedirect",
                );
            }
        }
        (Some(Protocol::Tcp | Protocol::Udp), Some(_)) => {
            c.error(&at, "only HTTPS and TLS servers can have TLS settings");
        }
        _ => {}
    }
}

/// TLS settings of a server, also of a Sidecar's ingress.
pub(super) fn tls_options(c: &mut Check, at: &At<'_>, tls: &ServerTlsSettings) {
    let old = matches!(
        tls.min_protocol_version,
        TlsProtocol::Tlsv10 | TlsProtocol::Tlsv11
    );
    if old && tls.cipher_suites.is_empty() {
        c.warn(
            &at.key("minProtocolVersion"),
            "TLS below 1.2 needs cipherSuites that are compatible with it",
        );
    }
    ciphers(c, &at.key("cipherSuites"), &tls.cipher_suites);
    if tls.mode == ServerTlsMode::IstioMutual {
        return istio_mutual(c, at, tls);
    }
    let has_credentials = !tls.credential_name.is_empty() || !tls.credential_names.is_empty();
    sources(c, at, tls, has_credentials);
    let simple = tls.mode == ServerTlsMode::Simple;
    let mutual = matches!(
        tls.mode,
        ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual
    );
    if (simple || mutual) && has_credentials {
        return;
    }
    if simple || mutual {
        certificates(c, at, tls, mutual);
    }
    if !tls.ca_crl.is_empty() {
        if !tls.credential_name.is_empty() {
            c.error(
                &at.key("caCrl"),
                "with credentialName the CRL belongs into the credential",
            );
        }
        if simple {
            c.error(&at.key("caCrl"), "a CRL is not supported with SIMPLE");
        }
    }
}

/// Certificates that no mode uses, or that come from several places.
fn sources(c: &mut Check, at: &At<'_>, tls: &ServerTlsSettings, has_credentials: bool) {
    let files = [
        &tls.ca_crl,
        &tls.server_certificate,
        &tls.private_key,
        &tls.ca_certificates,
    ];
    let any =
        files.iter().any(|f| !f.is_empty()) || !tls.tls_certificates.is_empty() || has_credentials;
    if any
        && matches!(
            tls.mode,
            ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough
        )
    {
        c.warn(
            at,
            format_args!(
                "mode {} uses no certificates, they are ignored",
                tls.mode.as_str()
            ),
        );
    }
    let sources = [
        !tls.server_certificate.is_empty() && !tls.private_key.is_empty(),
        !tls.credential_name.is_empty(),
        !tls.credential_names.is_empty(),
        !tls.tls_certificates.is_empty(),
    ];
    if sources.iter().filter(|s| **s).count() > 1 {
        c.error(at, "only one of credentialName, credentialNames, tlsCertificates and serverCertificate with privateKey can be set");
    }
}

fn certificates(c: &mut Check, at: &At<'_>, tls: &ServerTlsSettings, mutual: bool) {
    let mode = tls.mode.as_str();
    if mutual && tls.ca_certificates.is_empty() {
        c.error(
            &at.key("caCertificates"),
            format_args!("{mode} needs caCertificates"),
        );
    }
    if tls.tls_certificates.len() > 2 {
        c.warn(
            &at.key("tlsCertificates"),
            format_args!("{mode} uses at most 2 certificates"),
        );
    }
    let one = |c: &mut Check, at: &At<'_>, certificate: &TlsCertificate| {
        for (field, value) in [
            ("serverCertificate", &certificate.server_certificate),
            ("privateKey", &certificate.private_key),
        ] {
            if value.is_empty() {
                c.error(&at.key(field), format_args!("{mode} needs {field}"));
            }
        }
    };
    if tls.tls_certificates.is_empty() {
        let own = TlsCertificate {
            server_certificate: tls.server_certificate.clone(),
            private_key: tls.private_key.clone(),
            ..TlsCertificate::default()
        };
        one(c, at, &own);
    }
    for (i, certificate) in tls.tls_certificates.iter().enumerate() {
        one(c, &at.item("tlsCertificates", i), certificate);
    }
}

/// ISTIO_MUTUAL brings its own certificates.
fn istio_mutual(c: &mut Check, at: &At<'_>, tls: &ServerTlsSettings) {
    for (field, set) in [
        ("serverCertificate", !tls.server_certificate.is_empty()),
        ("privateKey", !tls.private_key.is_empty()),
        ("caCertificates", !tls.ca_certificates.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
    ] {
        if set {
            c.error(
                &at.key(field),
                format_args!("ISTIO_MUTUAL cannot have {field}"),
            );
        }
    }
}

fn ciphers(c: &mut Check, at: &At<'_>, suites: &[String]) {
    const KNOWN: &[&str] = &[
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-RSA-AES128-SHA",
        "ECDHE-ECDSA-AES256-SHA",
        "ECDHE-RSA-AES256-SHA",
        "AES128-GCM-SHA256",
        "AES256-GCM-SHA384",
        "AES128-SHA",
        "AES256-SHA",
        "DES-CBC3-SHA",
    ];
    let mut seen = BTreeSet::new();
    for (i, suite) in suites.iter().enumerate() {
        // Expressions with `+` and `-` in front are passed on.
        let plain = suite.starts_with(|c: char| c.is_alphanumeric()) && suite != "ALL";
        if plain && !KNOWN.contains(&suite.as_str()) {
            c.warn(
                &at.index(i),
                format_args!("unknown cipher suite `{suite}` is ignored"),
            );
        } else if !seen.insert(suite) {
            c.warn(
                &at.index(i),
                format_args!("duplicate cipher suite `{suite}` is ignored"),
            );
        }
    }
}
