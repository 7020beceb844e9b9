//! Rules for single values: names, addresses, ports, durations, headers, expressions.
//!
//! Each rule answers `Err` with what is wrong and what is allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use mesh_core::model::Regex;

use crate::istio::api::virtual_service::claims;

pub(super) type Rule = Result<(), String>;

/// A DNS label (RFC 1123): letters, digits, `-` inside, at most 63.
pub(super) fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

/// A DNS label, `*`, or a label that begins with `*` or `*-`.
fn is_wildcard_label(text: &str) -> bool {
    if text.len() > 63 {
        return false;
    }
    let rest = text
        .strip_prefix('*')
        .map_or(text, |rest| rest.strip_prefix('-').unwrap_or(rest));
    text == "*" || is_dns_label(rest)
}

fn domain_length(name: &str) -> Rule {
    if name.is_empty() {
        return Err("a domain name is required".to_owned());
    }
    if name.len() > 255 {
        return Err(format!(
            "the domain name has {} characters, at most 255 are allowed",
            name.len()
        ));
    }
    Ok(())
}

fn dns_labels(domain: &str) -> Rule {
    let labels: Vec<&str> = domain.split('.').collect();
    let last = labels.len() - 1;
    if labels[last].parse::<i64>().is_ok() {
        return Err(format!(
            "invalid domain name `{domain}`: its last label must not be a number"
        ));
    }
    for (i, label) in labels.iter().enumerate() {
        // A dot at the end makes a name unambiguous.
        if i == last && label.is_empty() {
            return Ok(());
        }
        if !is_dns_label(label) {
            return Err(format!(
                "invalid domain name `{domain}`: label `{label}` is not of letters, digits and `-`"
            ));
        }
    }
    Ok(())
}

/// A domain name without wildcard.
pub(super) fn fqdn(name: &str) -> Rule {
    domain_length(name)?;
    dns_labels(name)
}

/// A domain name whose first label may be or begin with `*`.
pub(super) fn wildcard_domain(name: &str) -> Rule {
    domain_length(name)?;
    let (first, rest) = name
        .split_once('.')
        .map_or((name, None), |(first, rest)| (first, Some(rest)));
    if !is_wildcard_label(first) {
        return Err(format!(
            "invalid domain name `{name}`: label `{first}` is not of letters, digits, `-` and a leading `*`"
        ));
    }
    rest.map_or(Ok(()), dns_labels)
}

/// As [`wildcard_domain`]; with `sni` also the names that AUTO_PASSTHROUGH makes, `outbound_.PORT_.SUBSET_.HOST`.
pub(super) fn gateway_domain(sni: bool, name: &str) -> Rule {
    domain_length(name)?;
    if !sni || !name.starts_with("outbound_") {
        return wildcard_domain(name);
    }
    let parts: Vec<&str> = name.split('_').collect();
    let wrong = || {
        Err(format!(
            "invalid domain name `{name}`, its form must be outbound_.PORT_._.HOST"
        ))
    };
    let [_, port, _, host, ..] = parts.as_slice() else {
        return wrong();
    };
    let named = port
        .trim_matches('.')
        .contains(|c: char| c.is_ascii_digit());
    if named
        && host
            .trim_matches('.')
            .contains(|c: char| c.is_ascii_alphabetic())
    {
        Ok(())
    } else {
        wrong()
    }
}

/// `*` at another place than alone or before a dot.
pub(super) fn partial_wildcard(host: &str) -> Rule {
    if host.contains('*') && host.len() != 1 && !host.starts_with("*.") {
        return Err(format!(
            "partial wildcard `{host}` is not allowed, only `*` or `*.` at the start"
        ));
    }
    Ok(())
}

/// `namespace/host` of a Gateway server or of a Sidecar's egress; a gateway's namespace may be left out.
pub(super) fn namespaced_host(host: &str, gateway: bool) -> Vec<String> {
    let Some((namespace, name)) = host.split_once('/') else {
        return if gateway {
            host_part(host, true)
        } else {
            vec!["the form must be namespace/dnsName".to_owned()]
        };
    };
    let mut errors = Vec::new();
    if namespace.is_empty() || name.is_empty() {
        errors.push("namespace and dnsName must not be empty".to_owned());
    }
    let inner = if gateway {
        namespace
    } else {
        namespace.strip_prefix('~').unwrap_or(namespace)
    };
    if !matches!(inner, "*" | ".") && !is_dns_label(inner) && (gateway || !inner.is_empty()) {
        errors.push(format!(
            "invalid namespace `{namespace}`, allowed are a namespace, `*` and `.`"
        ));
    }
    errors.extend(host_part(name, gateway));
    errors
}

fn host_part(host: &str, gateway: bool) -> Vec<String> {
    let mut errors = Vec::new();
    if host != "*" && !host.contains('.') {
        errors.push(format!(
            "short name `{host}` is not allowed, a full name is needed"
        ));
    }
    if let Err(error) = wildcard_domain(host)
        && (!gateway || host.parse::<IpAddr>().is_err())
    {
        errors.push(error);
    }
    errors.extend(partial_wildcard(host).err());
    errors
}

/// An IP address.
pub(super) fn ip(text: &str) -> Rule {
    text.parse::<IpAddr>()
        .map(|_| ())
        .map_err(|_| format!("`{text}` is not an IP address"))
}

/// An IP address or a block of them.
pub(super) fn ip_or_block(text: &str) -> Rule {
    let Some((address, bits)) = text.split_once('/') else {
        return ip(text);
    };
    let wrong = || format!("`{text}` is not a CIDR block like 10.0.0.0/8");
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let max = if address.is_ipv4() { 32 } else { 128 };
    let plain = !bits.starts_with('+') && (bits == "0" || !bits.starts_with('0'));
    let bits: u8 = bits.parse().map_err(|_| wrong())?;
    if bits <= max && plain {
        Ok(())
    } else {
        Err(wrong())
    }
}

/// A port number.
pub(super) fn port(number: impl Into<i64>) -> Rule {
    let number: i64 = number.into();
    if (1..=65_535).contains(&number) {
        return Ok(());
    }
    Err(format!("port {number} is not in the range 1..65535"))
}

/// A port's name.
pub(super) fn port_name(name: &str) -> Rule {
    if is_dns_label(name) {
        return Ok(());
    }
    Err(format!(
        "invalid port name `{name}`, letters, digits and `-` are allowed"
    ))
}

/// An absolute path of a socket, or `@name` for an abstract one.
pub(super) fn unix_path(path: &str) -> Rule {
    if path.is_empty() {
        return Err("the path of the Unix socket is empty".to_owned());
    }
    if path.starts_with('@') || (path.starts_with('/') && !path.ends_with('/')) {
        return Ok(());
    }
    Err(format!("`{path}` is not an absolute path to a file"))
}

/// At least a millisecond, and whole milliseconds.
pub(super) fn duration(duration: Duration) -> Rule {
    if duration < Duration::from_millis(1) {
        return Err("the duration must be at least 1ms".to_owned());
    }
    if !duration.subsec_nanos().is_multiple_of(1_000_000) {
        return Err("the duration must be of whole milliseconds".to_owned());
    }
    Ok(())
}

/// Labels as Kubernetes allows them.
pub(super) fn labels(labels: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mut errors = Vec::new();
    for (key, value) in labels {
        if !is_label_key(key) {
            errors.push((key.clone(), format!("invalid label name `{key}`")));
        }
        if !value.is_empty() && !is_qualified_name(value) {
            errors.push((key.clone(), format!("invalid label value `{value}`")));
        }
    }
    errors
}

fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key
        .rsplit_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix_fits = prefix.is_none_or(|p| p.len() <= 253 && p.split('.').all(is_dns_label));
    prefix_fits && name.len() <= 63 && is_qualified_name(name)
}

fn is_qualified_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let inner = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
}

/// An RE2 expression of at most 1024 characters.
pub(super) fn regex(pattern: &str) -> Rule {
    if pattern.is_empty() {
        return Err("the expression must not be empty".to_owned());
    }
    if pattern.len() > 1024 {
        return Err(format!(
            "the expression has {} characters, at most 1024 are allowed",
            pattern.len()
        ));
    }
    match Regex::parse(pattern) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "{error}; the syntax is RE2's, https://github.com/google/re2/wiki/Syntax"
        )),
    }
}

/// `exportTo` of an object in `namespace`.
pub(super) fn export_to(
    namespace: &str,
    entries: &[String],
    service_entry: bool,
) -> Vec<(usize, String)> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, entry) in entries.iter().enumerate() {
        let key = if entry == "." { namespace } else { entry };
        let known = matches!(key, "*" | ".") || is_dns_label(key) || (service_entry && key == "~");
        if seen.contains(key) {
            errors.push((i, format!("duplicate entry `{entry}`")));
        } else if known || (entry == "." && key.is_empty()) {
            seen.insert(key);
        } else {
            errors.push((
                i,
                format!("invalid entry `{entry}`, allowed are `.`, `*` and names of namespaces"),
            ));
        }
    }
    for (alone, what) in [("*", "everyone"), ("~", "no one")] {
        if seen.contains(alone) && entries.len() > 1 {
            errors.push((
                0,
                format!("`{alone}` ({what}) cannot stand beside other entries"),
            ));
        }
    }
    errors
}

/// A header's name, as RFC 9110 has it.
pub(super) fn header_name(name: &str) -> Rule {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() {
        return Err("the header name is empty".to_owned());
    }
    if name.bytes().all(token) {
        Ok(())
    } else {
        Err(format!("`{name}` is not a valid header name"))
    }
}

/// A header's name in a match: also pseudo headers and `@request.auth.claims.NAME`.
pub(super) fn header_match_name(name: &str) -> Rule {
    if is_claim(name)
        || matches!(
            name,
            ":method" | ":scheme" | ":authority" | ":path" | ":status"
        )
    {
        return Ok(());
    }
    header_name(name)
}

/// Whether the name routes by a claim of a JWT.
pub(super) fn is_claim(name: &str) -> bool {
    claims(name).is_some()
}

/// Letters, digits, `-` and `_` only.
pub(super) fn strict_header_name(name: &str) -> Rule {
    if name.is_empty() {
        return Err("the header name is empty".to_owned());
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    if name.bytes().all(allowed) {
        Ok(())
    } else {
        Err(format!("`{name}` is not a valid header name"))
    }
}

/// Whether the header is the request's authority.
pub(super) fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
}

/// A header that may be changed; `authority` allows the request's authority.
pub(super) fn header_operation(name: &str, authority: bool) -> Rule {
    if name.is_empty() {
        return Err("the header name is empty".to_owned());
    }
    if authority && is_authority(name) {
        return Ok(());
    }
    if name.eq_ignore_ascii_case("host") {
        return Err("the header `host` cannot be changed here".to_owned());
    }
    if name.starts_with(':') {
        return Err(format!(
            "the header `{name}` cannot be changed: it begins with `:`"
        ));
    }
    // Istio lets any text pass, but the data path does not.
    header_name(name)
}

/// A header's value with Envoy's `%VARIABLE(…)%`.
pub(super) fn header_value(value: &str) -> Rule {
    if value
        .chars()
        .any(|c| (c < ' ' && c != '\t') || c == '\u{7f}')
    {
        return Err(format!(
            "the header value {value:?} contains control characters"
        ));
    }
    let unescaped = || {
        format!(
            "the header value `{value}` has a `%` that neither begins a variable nor is written `%%`"
        )
    };
    let mut rest = value;
    while let Some(start) = rest.find('%') {
        rest = &rest[start + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            rest = after;
            continue;
        }
        rest = variable(rest).ok_or_else(unescaped)?;
    }
    Ok(())
}

/// What follows the variable that begins here; `None` if it does not end.
fn variable(text: &str) -> Option<&str> {
    let end = text.find(['%', '('])?;
    if text[end..].starts_with('%') {
        return Some(&text[end + 1..]);
    }
    let arguments = text[end + 1..].trim_start_matches(' ');
    let rest = match arguments.strip_prefix('[') {
        Some(list) => self::arguments(list.trim_start_matches(' ').strip_prefix('"')?)?,
        // The first character of a bare argument is taken, whatever it is.
        None => {
            let first = arguments.chars().next()?;
            self::arguments(&arguments[first.len_utf8()..])?
        }
    };
    rest.trim_start_matches(' ').strip_prefix('%')
}

/// What follows the `)` of the arguments. As in Istio it may stand in quotes, and a quote ends a bare argument as well.
fn arguments(text: &str) -> Option<&str> {
    let mut rest = text;
    loop {
        let (end, after) = argument(rest)?;
        if end == ')' {
            return Some(after);
        }
        let after = after.trim_start_matches(' ');
        rest = match after.strip_prefix(',') {
            Some(next) => next.trim_start_matches(' ').strip_prefix('"')?,
            None => {
                let end = after.strip_prefix(']')?.trim_start_matches(' ');
                return end.strip_prefix(')');
            }
        };
    }
}

/// What ends an argument, and what follows.
fn argument(text: &str) -> Option<(char, &str)> {
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ')' | '"' => return Some((c, &text[i + 1..])),
            _ => {}
        }
    }
    None
}

/// A protocol that a port may declare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP, HTTP2, GRPC, GRPC-WEB, HTTP_PROXY.
    Http,
    /// HTTPS, TLS.
    Tls,
    /// TCP, MONGO, REDIS, MYSQL.
    Tcp,
    Udp,
}

pub(super) const PROTOCOLS: &[&str] = &[
    "HTTP",
    "HTTPS",
    "GRPC",
    "GRPC-WEB",
    "HTTP2",
    "HTTP_PROXY",
    "MONGO",
    "TCP",
    "TLS",
    "REDIS",
    "MYSQL",
    "UDP",
];

/// The protocol of this name, letter case not counted.
pub(super) fn protocol(name: &str) -> Option<Protocol> {
    match name.to_ascii_uppercase().as_str() {
        "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" | "HTTP_PROXY" => Some(Protocol::Http),
        "HTTPS" | "TLS" => Some(Protocol::Tls),
        "TCP" | "MONGO" | "REDIS" | "MYSQL" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

/// A percentage in whole numbers.
pub(super) fn percent(value: i32) -> Rule {
    if (0..=100).contains(&value) {
        Ok(())
    } else {
        Err(format!("{value} is not in the range 0..100"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains() {
        for good in ["a", "a.b", "*.b", "*", "*-a.b", "*a.b", "a.b.", "1.a"] {
            assert_eq!(wildcard_domain(good), Ok(()), "{good}");
        }
        for bad in ["", "a..b", "a.*", "a_b", "**.b", "10.0.0.1", "-a"] {
            assert!(wildcard_domain(bad).is_err(), "{bad}");
        }
        assert!(
            gateway_domain(
                true,
                "outbound_.15010_._.istiod.istio-system.svc.cluster.local"
            )
            .is_ok()
        );
        assert!(gateway_domain(true, "outbound_.x_._.istiod").is_err());
        assert!(gateway_domain(false, "outbound_.80_._.a.b").is_err());
    }

    #[test]
    fn header_values_with_variables() {
        for good in [
            "",
            "foo",
            "100%%",
            "%HOSTNAME%",
            "a %REQ(X?Y)% b",
            "%DYN([\"a\", \"b\\\"\"])%",
            "%DYN([\"a)%",
            "%REQ(a\", \"b\"])%",
            "%A()b)%",
        ] {
            assert_eq!(header_value(good), Ok(()), "{good}");
        }
        for bad in [
            "abc%123",
            "%REQ(X):10%",
            "%START_TIME%%",
            "%A(",
            "%A([\"x\"%",
            "%A()%",
            "%A(\\",
            "%DYN([\"a)\"])%",
            "%REQ(a\"b)%",
            "\u{1}",
        ] {
            assert!(header_value(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_and_claims() {
        assert!(is_label_key("istio.io/rev") && !is_label_key("a/b/c") && !is_label_key("-a"));
        assert!(
            is_claim("@request.auth.claims.iss")
                && is_claim("@request.auth.claims[a][b]")
                && !is_claim("@request.auth.claims")
        );
    }
}
