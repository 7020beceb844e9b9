//! PeerAuthentication, RequestAuthentication, AuthorizationPolicy.

use super::check::{At, Check};
use super::{rules, selector};
use crate::istio::api::security::{Action, Condition, JwtRule, Operation, Rule, Source};
use crate::istio::api::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};

pub(super) fn peer_authentication(c: &mut Check, at: &At<'_>, policy: &PeerAuthentication) {
    let unselected = policy
        .selector
        .as_ref()
        .is_none_or(|s| s.match_labels.is_empty());
    let ports = at.key("portLevelMtls");
    if unselected && !policy.port_level_mtls.is_empty() {
        c.error(&ports, "portLevelMtls needs a selector with labels");
    }
    for port in policy.port_level_mtls.keys() {
        let result = port
            .parse::<u32>()
            .map_err(|_| format!("`{port}` is not a port number"));
        c.rule(&ports.key(port), result.and_then(rules::port));
    }
    selector::match_labels(c, at, policy.selector.as_ref());
}

pub(super) fn request_authentication(c: &mut Check, at: &At<'_>, policy: &RequestAuthentication) {
    selector::targets(
        c,
        at,
        policy.selector.as_ref(),
        policy.target_ref.as_ref(),
        &policy.target_refs,
    );
    for (i, rule) in policy.jwt_rules.iter().enumerate() {
        jwt_rule(c, &at.item("jwtRules", i), rule);
    }
}

fn jwt_rule(c: &mut Check, at: &At<'_>, rule: &JwtRule) {
    if rule.issuer.is_empty() && rule.jwks_uri.is_empty() {
        c.error(at, "one of issuer and jwksUri is required");
    }
    if !rule.jwks_uri.is_empty() {
        c.rule(&at.key("jwksUri"), jwks_uri(&rule.jwks_uri));
    }
    if !rule.jwks.is_empty() {
        jwks(c, &at.key("jwks"), &rule.jwks);
    }
    let headers: Vec<String> = rule.from_headers.iter().map(|h| h.name.clone()).collect();
    for (field, texts) in [
        ("audiences", &rule.audiences),
        ("fromHeaders", &headers),
        ("fromParams", &rule.from_params),
        ("fromCookies", &rule.from_cookies),
    ] {
        not_empty(c, &at.key(field), texts);
    }
    for (i, output) in rule.output_claim_to_headers.iter().enumerate() {
        let at = at.item("outputClaimToHeaders", i);
        if output.claim.is_empty() || output.header.is_empty() {
            c.error(&at, "both header and claim are required");
        } else {
            c.rule(&at.key("header"), rules::strict_header_name(&output.header));
        }
    }
    if let Some(timeout) = rule.timeout {
        c.rule(&at.key("timeout"), rules::duration(timeout));
    }
}

fn jwks_uri(uri: &str) -> Result<(), String> {
    let (scheme, rest) = uri.split_once("://").unwrap_or(("", uri));
    if !matches!(scheme, "http" | "https") {
        return Err(format!("`{uri}` must begin with http:// or https://"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let port = host
        .rsplit_once(']')
        .map_or(host, |(_, rest)| rest)
        .rsplit_once(':')
        .map(|(_, port)| port);
    match port {
        Some(port) if !port.is_empty() && port.parse::<u16>().is_err() => {
            Err(format!("`{port}` is not a port number"))
        }
        _ if uri.chars().any(|c| c.is_control() || c == ' ') => Err(format!("{uri:?} is no URI")),
        _ => Ok(()),
    }
}

/// A JSON Web Key Set, or one key.
fn jwks(c: &mut Check, at: &At<'_>, text: &str) {
    let Ok(serde_json::Value::Object(set)) = serde_json::from_str(text) else {
        return c.error(at, "not a JSON Web Key Set");
    };
    let one = [serde_json::Value::Object(set.clone())];
    let keys: &[serde_json::Value] = match set.get("keys") {
        Some(serde_json::Value::Array(keys)) => keys,
        Some(_) => return c.error(at, "`keys` of a JSON Web Key Set must be a list"),
        None => &one,
    };
    for (i, key) in keys.iter().enumerate() {
        let Some(kind) = key.get("kty").and_then(serde_json::Value::as_str) else {
            c.error(at, format_args!("key {i} has no type `kty`"));
            continue;
        };
        let needed: &[&str] = match kind {
            "RSA" => &["n", "e"],
            "EC" => &["crv", "x", "y"],
            "OKP" => &["crv", "x"],
            "oct" => &["k"],
            _ => {
                c.not_one_of(at, "key type", kind, &["RSA", "EC", "OKP", "oct"]);
                continue;
            }
        };
        for field in needed.iter().filter(|f| key.get(f).is_none()) {
            c.error(at, format_args!("key {i} of type {kind} has no `{field}`"));
        }
        if kind == "oct" || key.get("d").is_some() {
            c.warn(
                at,
                format_args!("key {i} holds private material, only public keys are needed"),
            );
        }
    }
}

pub(super) fn authorization_policy(c: &mut Check, at: &At<'_>, policy: &AuthorizationPolicy) {
    selector::targets(
        c,
        at,
        policy.selector.as_ref(),
        policy.target_ref.as_ref(),
        &policy.target_refs,
    );
    let at_rules = at.key("rules");
    let custom = policy.action == Action::Custom;
    if policy.rules.is_empty() && matches!(policy.action, Action::Custom | Action::Deny) {
        let action = policy.action.as_str();
        c.error(
            &at_rules,
            format_args!(
                "{action} without rules never acts; an empty rule `{{}}` means every request"
            ),
        );
    } else if custom && policy.provider.as_ref().is_none_or(|p| p.name.is_empty()) {
        c.error(&at.key("provider").key("name"), "CUSTOM needs a provider");
    }
    if !custom && policy.provider.is_some() {
        c.error(
            &at.key("provider"),
            format_args!(
                "a provider is for CUSTOM only, not for {}",
                policy.action.as_str()
            ),
        );
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        let at = at_rules.index(i);
        if custom {
            unsupported_by_custom(c, &at, rule);
        }
        self::rule(c, &at, rule);
        if policy.action == Action::Deny && denies_all_tcp(rule) {
            c.warn(&at, "denies all TCP traffic, since TCP has no HTTP attributes; name the ports that are meant");
        }
    }
}

/// An external authorizer is asked before identities are known.
fn unsupported_by_custom(c: &mut Check, at: &At<'_>, rule: &Rule) {
    for (i, source) in rule
        .from
        .iter()
        .enumerate()
        .filter_map(|(i, f)| f.source.as_ref().map(|s| (i, s)))
    {
        let at = at.item("from", i);
        let at = at.key("source");
        for (field, list) in identities(source) {
            if !list.is_empty() {
                c.error(
                    &at.key(field),
                    format_args!("{field} is not supported with CUSTOM"),
                );
            }
        }
    }
    for (i, when) in rule.when.iter().enumerate() {
        let identity = matches!(
            when.key.as_str(),
            "source.namespace"
                | "source.serviceAccount"
                | "source.trustDomain"
                | "source.principal"
        );
        if identity || when.key.starts_with("request.auth.") {
            c.error(
                &at.item("when", i).key("key"),
                format_args!("`{}` is not supported with CUSTOM", when.key),
            );
        }
    }
}

fn identities(source: &Source) -> [(&'static str, &Vec<String>); 10] {
    [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ]
}

fn addresses(source: &Source) -> [(&'static str, &Vec<String>); 4] {
    [
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
    ]
}

fn operations(operation: &Operation) -> [(&'static str, &Vec<String>); 8] {
    [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("ports", &operation.ports),
        ("notPorts", &operation.not_ports),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
    ]
}

fn rule(c: &mut Check, at: &At<'_>, rule: &Rule) {
    for (i, from) in rule.from.iter().enumerate() {
        let at = at.item("from", i);
        let at = at.key("source");
        match &from.source {
            None => c.error(&at, "a source is required"),
            Some(source) => self::source(c, &at, source),
        }
    }
    for (i, to) in rule.to.iter().enumerate() {
        let at = at.item("to", i);
        let at = at.key("operation");
        match &to.operation {
            None => c.error(&at, "an operation is required"),
            Some(operation) => self::operation(c, &at, operation),
        }
    }
    for (i, when) in rule.when.iter().enumerate() {
        condition(c, &at.item("when", i), when);
    }
}

fn source(c: &mut Check, at: &At<'_>, source: &Source) {
    let names = !source.principals.is_empty() || !source.not_principals.is_empty();
    let namespaces = !source.namespaces.is_empty() || !source.not_namespaces.is_empty();
    let accounts = !source.service_accounts.is_empty() || !source.not_service_accounts.is_empty();
    if (names || namespaces) && accounts {
        c.error(
            at,
            "serviceAccounts cannot stand beside namespaces or principals",
        );
    }
    if identities(source).iter().all(|(_, l)| l.is_empty())
        && addresses(source).iter().all(|(_, l)| l.is_empty())
    {
        c.error(at, "a source must not be empty");
    }
    for (field, list) in identities(source) {
        let at = at.key(field);
        match field {
            "serviceAccounts" | "notServiceAccounts" => c.rule(&at, service_accounts(list)),
            "trustDomains" | "notTrustDomains" => {
                c.rule(&at, wildcards(list));
                if list.iter().any(|v| v.contains('/')) {
                    c.error(&at, "a trust domain must not contain `/`");
                }
            }
            _ => not_empty(c, &at, list),
        }
    }
    for (field, list) in addresses(source) {
        for (i, address) in list.iter().enumerate() {
            c.rule(&at.item(field, i), rules::ip_or_block(address));
        }
    }
}

fn operation(c: &mut Check, at: &At<'_>, operation: &Operation) {
    if operations(operation)
        .iter()
        .all(|(_, list)| list.is_empty())
    {
        c.error(at, "an operation must not be empty");
    }
    for (field, list) in operations(operation) {
        let at = at.key(field);
        match field {
            "ports" | "notPorts" => c.rule(&at, port_numbers(list)),
            "paths" | "notPaths" => {
                not_empty(c, &at, list);
                for (i, path) in list.iter().enumerate() {
                    c.rule(&at.index(i), path_template(path));
                }
            }
            _ => not_empty(c, &at, list),
        }
    }
}

fn not_empty(c: &mut Check, at: &At<'_>, list: &[String]) {
    for (i, _) in list.iter().enumerate().filter(|(_, v)| v.is_empty()) {
        c.error(&at.index(i), "must not be empty");
    }
}

fn port_numbers(ports: &[String]) -> Result<(), String> {
    match ports
        .iter()
        .find(|p| p.parse::<u16>().is_err() || p.starts_with('+'))
    {
        Some(port) => Err(format!("`{port}` is not a port number")),
        None => Ok(()),
    }
}

fn service_accounts(accounts: &[String]) -> Result<(), String> {
    if accounts.len() > 16 {
        return Err(format!("{} values, at most 16 are allowed", accounts.len()));
    }
    for account in accounts {
        let parts: Vec<&str> = account.split('/').collect();
        if parts.len() > 2 || parts.iter().any(|p| p.is_empty()) {
            return Err(format!(
                "`{account}` must be of the form NAME or NAMESPACE/NAME"
            ));
        }
        if account.contains('*') {
            return Err(format!("wildcard `{account}` is not allowed"));
        }
        if account.len() > 320 {
            return Err(format!(
                "{} characters, at most 320 are allowed",
                account.len()
            ));
        }
    }
    Ok(())
}

/// `*`, `abc*`, `*abc` or a plain text.
fn wildcards(values: &[String]) -> Result<(), String> {
    for value in values {
        let stars = value.matches('*').count();
        if value.is_empty() {
            return Err("must not be empty".to_owned());
        }
        if stars > 1 || (stars == 1 && !value.starts_with('*') && !value.ends_with('*')) {
            return Err(format!("`{value}` may have one `*`, at its start or end"));
        }
    }
    Ok(())
}

/// A path with `{*}` for one segment and `{**}` for the rest, once and last of the two.
fn path_template(path: &str) -> Result<(), String> {
    let template = path.contains("{*}") || path.contains("{**}");
    let literal = |segment: &str| {
        !segment.is_empty()
            && segment
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&b))
    };
    let mut rest = false;
    for segment in path.trim_matches('/').split('/') {
        match segment {
            "{*}" | "{**}" if rest => {
                return Err(format!("`{path}`: `{{**}}` must be the last operator"));
            }
            "{**}" => rest = true,
            "{*}" => {}
            _ if segment.contains(['{', '}']) => {
                return Err(format!(
                    "`{path}`: `{{` and `}}` are allowed in the operators {{*}} and {{**}} only"
                ));
            }
            _ if template && !literal(segment) => {
                return Err(format!(
                    "`{path}`: segment `{segment}` is not a valid literal"
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn condition(c: &mut Check, at: &At<'_>, when: &Condition) {
    if when.key.is_empty() {
        return c.error(&at.key("key"), "a key is required");
    }
    if when.values.is_empty() && when.not_values.is_empty() {
        return c.error(at, "one of values and notValues is required");
    }
    const KEYS: &[&str] = &[
        "request.headers[NAME]",
        "source.ip",
        "remote.ip",
        "source.namespace",
        "source.serviceAccount",
        "source.principal",
        "source.trustDomain",
        "request.auth.principal",
        "request.auth.audiences",
        "request.auth.presenter",
        "request.auth.claims[NAME]",
        "destination.ip",
        "destination.port",
        "connection.sni",
        "experimental.envoy.filters.NAME[KEY]",
    ];
    const WITH_NAME: [&str; 3] = [
        "request.headers",
        "request.auth.claims",
        "experimental.envoy.filters.",
    ];
    let key = when.key.as_str();
    let named = WITH_NAME.iter().any(|prefix| key.starts_with(prefix));
    if named && !has_name(key) {
        c.error(
            &at.key("key"),
            format_args!("`{key}` must be of the form a[b]"),
        );
    }
    for (field, values) in [("values", &when.values), ("notValues", &when.not_values)] {
        not_empty(c, &at.key(field), values);
        match attribute(key, values) {
            None if named => {}
            None => return c.not_one_of(&at.key("key"), "key", key, KEYS),
            Some(result) => c.rule(&at.key(field), result),
        }
    }
}

/// Whether a key ends with a name in brackets.
fn has_name(key: &str) -> bool {
    key.find('[')
        .is_some_and(|open| open > 0 && key.ends_with(']') && open + 2 < key.len())
}

/// Checks the values of an attribute; `None` if there is none of this name.
fn attribute(key: &str, values: &[String]) -> Option<Result<(), String>> {
    Some(match key {
        "source.ip" | "remote.ip" | "destination.ip" => {
            values.iter().try_for_each(|v| rules::ip_or_block(v))
        }
        "source.serviceAccount" => service_accounts(values),
        "source.trustDomain" => wildcards(values),
        "destination.port" => port_numbers(values),
        "source.namespace"
        | "source.principal"
        | "request.auth.principal"
        | "request.auth.audiences"
        | "request.auth.presenter"
        | "connection.sni" => Ok(()),
        _ => return None,
    })
}

/// A DENY rule drops what TCP does not have, and so denies more.
fn denies_all_tcp(rule: &Rule) -> bool {
    let sources: Vec<&Source> = rule.from.iter().filter_map(|f| f.source.as_ref()).collect();
    let tcp_source = |s: &&Source| {
        addresses(s).iter().any(|(_, l)| !l.is_empty())
            || identities(s).iter().any(|(f, l)| {
                !l.is_empty()
                    && !matches!(
                        *f,
                        "requestPrincipals"
                            | "notRequestPrincipals"
                            | "trustDomains"
                            | "notTrustDomains"
                    )
            })
    };
    let operations: Vec<&Operation> = rule
        .to
        .iter()
        .filter_map(|t| t.operation.as_ref())
        .collect();
    let tcp_operation = |o: &&Operation| !o.ports.is_empty() || !o.not_ports.is_empty();
    let from_http = !sources.is_empty() && operations.is_empty() && !sources.iter().any(tcp_source);
    let to_http = !operations.is_empty() && !operations.iter().any(tcp_operation);
    from_http || to_http
}
