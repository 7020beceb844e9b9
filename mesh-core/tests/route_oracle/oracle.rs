//! The decision as simply as it can be written down: every rule is asked in its order.

use std::{collections::HashMap, net::IpAddr, sync::LazyLock};

use mesh_core::model::{
    HeaderMatcher, HeaderValueMatcher, MatchInput, MatchNode, MatchPredicate, MatchTree,
    MetadataMatcher, OnMatch, PathMatch, QueryMatcher, Regex, RequireTls, Route,
    RouteConfiguration, RouteMatch, RouteRules, StringMatcher, StringPattern, Value, ValueMatcher,
    VirtualHost,
};

use super::{KEY, Request, TLS, generate::TEMPLATES, metadata};

/// The name of the route that is reached, [`TLS`], or nothing.
pub(crate) fn decide(table: &RouteConfiguration, request: &Request) -> Option<String> {
    let host = host_of(table, request)?;
    if wants_tls(host, request) {
        return Some(TLS.to_owned());
    }
    let found = match &host.routes {
        RouteRules::List(routes) => first(table, routes, request),
        // The tree leads to one place, and what stands there matches or does not.
        RouteRules::Tree(tree) => match leaf(tree, request)? {
            OnMatch::Route(route) => first(table, std::slice::from_ref(&**route), request),
            OnMatch::Routes(routes) => first(table, routes, request),
            OnMatch::Tree(_) | OnMatch::Chain(_) => unreachable!("such a leaf is not generated"),
        },
    };
    found.map(|route| route.name.to_string())
}

fn first<'t>(
    table: &RouteConfiguration,
    routes: &'t [Route],
    request: &Request,
) -> Option<&'t Route> {
    let matches = |route: &&Route| {
        let checks = checks(table, &route.matches, request);
        checks.iter().all(|(_, held)| *held)
    };
    routes.iter().find(matches)
}

fn host_of<'t>(table: &'t RouteConfiguration, request: &Request) -> Option<&'t VirtualHost> {
    match &table.vhost_header {
        None => find_host(table, Some(request.host)),
        Some(name) => {
            let mut headers = request.headers.iter();
            let value = headers.find(|(known, _)| **known == **name);
            let value = value.map(|(_, value)| &**value);
            find_host(table, value.filter(|value| !value.is_empty()))
        }
    }
}

fn wants_tls(host: &VirtualHost, request: &Request) -> bool {
    let header = |name| request.headers.iter().find(|(known, _)| *known == name);
    let proto = sent_proto(request).unwrap_or_else(|| scheme(request));
    let internal = header("x-envoy-internal").is_some_and(|(_, value)| *value == "true");
    match host.require_tls {
        RequireTls::None => false,
        RequireTls::All => proto != "https",
        RequireTls::ExternalOnly => proto != "https" && !internal,
    }
}

fn scheme(request: &Request) -> &'static str {
    match sent_proto(request) {
        _ if !request.scheme.is_empty() => request.scheme,
        Some(proto) if !proto.is_empty() => proto,
        _ => "http",
    }
}

/// Several are none that counts.
fn sent_proto(request: &Request) -> Option<&'static str> {
    let headers = request.headers.iter();
    let mut sent = headers.filter(|(name, _)| *name == "x-forwarded-proto");
    let (_, first) = sent.next()?;
    Some(if sent.next().is_some() { "" } else { first })
}

/// Every domain that fits, ranked: exact, then the longest suffix, then the longest prefix, then `*`. A request that does not say
/// its host fits `*` where there is nothing else.
fn find_host<'t>(table: &'t RouteConfiguration, host: Option<&str>) -> Option<&'t VirtualHost> {
    let only_default = table
        .virtual_hosts
        .iter()
        .flat_map(|host| &host.domains)
        .all(|domain| &**domain == "*");
    if host.is_none() && !only_default {
        return None;
    }
    let host = host.unwrap_or_default();
    let host = match host.rsplit_once(':') {
        Some((name, _)) if table.ignore_port_in_host => name,
        _ => host,
    };
    let host = host.to_lowercase();
    let rank = |domain: &str| {
        let domain = domain.to_lowercase();
        if domain == "*" {
            return Some((0, 0));
        }
        if let Some(suffix) = domain.strip_prefix('*') {
            let fits = host.len() > suffix.len() && host.ends_with(suffix);
            return fits.then_some((2, suffix.len()));
        }
        if let Some(prefix) = domain.strip_suffix('*') {
            let fits = host.len() > prefix.len() && host.starts_with(prefix);
            return fits.then_some((1, prefix.len()));
        }
        (domain == host).then_some((3, 0))
    };
    let ranked = table.virtual_hosts.iter().flat_map(|entry| {
        let best = entry.domains.iter().filter_map(|domain| rank(domain)).max();
        best.map(|best| (best, entry))
    });
    ranked.max_by_key(|(best, _)| *best).map(|(_, entry)| entry)
}

/// Where a tree leads: a tree below that finds nothing lets the search go on.
fn leaf<'t>(tree: &'t MatchTree, request: &Request) -> Option<&'t OnMatch> {
    let children: Vec<&OnMatch> = match &tree.node {
        MatchNode::List(list) => list
            .iter()
            .filter(|(predicate, _)| holds(predicate, request))
            .map(|(_, on)| on)
            .collect(),
        MatchNode::Exact(input, map) => {
            let value = read(input, request);
            let fits = |key: &str| value.as_deref() == Some(key);
            let fitting = map.iter().filter(|(key, _)| fits(key));
            fitting.map(|(_, on)| on).collect()
        }
        MatchNode::Prefix(input, map) => {
            let value = read(input, request);
            let fits = |key: &str| value.as_deref().is_some_and(|value| value.starts_with(key));
            let mut fitting: Vec<_> = map.iter().filter(|(key, _)| fits(key)).collect();
            fitting.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
            fitting.into_iter().map(|(_, on)| on).collect()
        }
    };
    let mut all = children.into_iter().chain(&tree.on_no_match);
    all.find_map(|on| match on {
        OnMatch::Tree(tree) => leaf(tree, request),
        leaf => Some(leaf),
    })
}

fn holds(predicate: &MatchPredicate, request: &Request) -> bool {
    match predicate {
        MatchPredicate::Single(input, text) => {
            read(input, request).is_some_and(|value| text_matches(text, &value))
        }
        MatchPredicate::Ip(input, blocks) => {
            let ip = read(input, request).and_then(|value| value.parse().ok());
            ip.is_some_and(|ip| blocks.iter().any(|block| block.contains(ip)))
        }
        MatchPredicate::And(all) => all.iter().all(|one| holds(one, request)),
        MatchPredicate::Or(all) => all.iter().any(|one| holds(one, request)),
        MatchPredicate::Not(one) => !holds(one, request),
    }
}

fn read(input: &MatchInput, request: &Request) -> Option<String> {
    match input {
        MatchInput::RequestHeader(name) => header_value(name, request),
        MatchInput::QueryParameter(name) => {
            let mut pairs = query_pairs(request.path);
            // Only one of the values is escaped.
            let decoded = |value: &str| value.replace("%31", "1");
            let found = pairs.find(|(key, _)| *key == &**name);
            found.map(|(_, value)| decoded(value))
        }
        MatchInput::DestinationIp => Some("10.0.0.1".to_owned()),
        MatchInput::SourceIp => Some("10.0.0.9".to_owned()),
        MatchInput::DestinationPort => Some(request.ports.1.to_string()),
        MatchInput::SourcePort => Some(request.ports.0.to_string()),
        MatchInput::ServerName => request.server_name.map(str::to_owned),
        MatchInput::FilterState(_) => request.state.map(str::to_owned),
        _ => unreachable!("no other input is generated"),
    }
}

fn header_value(name: &str, request: &Request) -> Option<String> {
    let present = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    match name {
        ":method" => present(request.method),
        ":path" => present(request.path),
        ":authority" => present(request.host),
        ":scheme" => present(scheme(request)),
        _ => {
            let own = request.headers.iter().filter(|(known, _)| *known == name);
            let all: Vec<&str> = own.map(|(_, value)| *value).collect();
            (!all.is_empty()).then(|| all.join(","))
        }
    }
}

/// The kinds of conditions.
pub(crate) const KINDS: [&str; 21] = [
    "prefix",
    "exact",
    "separated prefix",
    "regex",
    "template",
    "connect",
    "folded case",
    "header",
    "inverted header",
    "missing header as empty",
    "header presence",
    "header range",
    "query value",
    "query presence",
    "grpc",
    "share",
    "share of the runtime",
    "metadata",
    "filter state",
    "certificate",
    "tree",
];

/// What kind of path a rule asks for.
fn kind_of_path(rule: &RouteMatch) -> &'static str {
    match &rule.path {
        PathMatch::Connect => "connect",
        PathMatch::Regex(_) => "regex",
        PathMatch::Template(_) => "template",
        _ if !rule.case_sensitive => "folded case",
        PathMatch::Prefix(_) => "prefix",
        PathMatch::Exact(_) => "exact",
        _ => "separated prefix",
    }
}

/// Each condition of a rule by its kind, and whether it holds.
fn checks(
    table: &RouteConfiguration,
    rule: &RouteMatch,
    request: &Request,
) -> Vec<(&'static str, bool)> {
    let path = path_matches(table, rule, request);
    let mut checks = vec![(kind_of_path(rule), path)];
    for matcher in &rule.headers {
        let value = header_value(&matcher.name, request);
        let kind = match &matcher.value {
            _ if matcher.invert => "inverted header",
            _ if matcher.missing_as_empty && value.is_none() => "missing header as empty",
            HeaderValueMatcher::Present(_) => "header presence",
            HeaderValueMatcher::Range { .. } => "header range",
            _ => "header",
        };
        checks.push((kind, header_holds(matcher, request, value.as_deref())));
    }
    for matcher in &rule.query {
        let kind = match &matcher.value {
            Some(_) => "query value",
            None => "query presence",
        };
        checks.push((kind, query_matches(matcher, request.path)));
    }
    if rule.grpc {
        let mut headers = request.headers.iter();
        let kind = headers.find(|(name, _)| *name == "content-type");
        let grpc =
            |value: &str| value == "application/grpc" || value.starts_with("application/grpc+");
        checks.push(("grpc", kind.is_some_and(|(_, value)| grpc(value))));
    }
    if let Some(share) = &rule.runtime_fraction {
        let (kind, numerator) = match request.runtime {
            Some(numerator) if &*share.key == KEY => ("share of the runtime", numerator),
            _ => ("share", share.default.numerator),
        };
        checks.push((kind, request.random % 100 < u64::from(numerator)));
    }
    let dynamic = request.metadata.as_ref();
    let dynamic =
        dynamic.map(|value| metadata("n", Value::Object(vec![("k".into(), value.clone())])));
    for matcher in &rule.metadata {
        let value = dynamic.as_ref();
        let value = value.and_then(|all| all.get(&matcher.namespace, &matcher.path));
        checks.push(("metadata", metadata_matches(matcher, value)));
    }
    let state = request.state.map(|text| Value::String(text.into()));
    for matcher in &rule.filter_state {
        checks.push(("filter state", metadata_matches(matcher, state.as_ref())));
    }
    if let Some((presented, validated)) = rule.tls {
        let held = presented.is_none_or(|wanted| wanted == request.certificate.0)
            && validated.is_none_or(|wanted| wanted == request.certificate.1);
        checks.push(("certificate", held));
    }
    checks
}

/// How often conditions of a kind held, and did not.
pub(crate) type Met = HashMap<&'static str, (u64, u64)>;

/// Counts the conditions of all rules that the request's host has.
pub(crate) fn meet(table: &RouteConfiguration, request: &Request, met: &mut Met) {
    let Some(host) = host_of(table, request) else {
        return;
    };
    let routes: &[Route] = match &host.routes {
        RouteRules::List(routes) => routes,
        RouteRules::Tree(tree) => {
            let found = leaf(tree, request);
            count(met, "tree", found.is_some());
            match found {
                Some(OnMatch::Route(route)) => std::slice::from_ref(&**route),
                Some(OnMatch::Routes(routes)) => routes,
                _ => &[],
            }
        }
    };
    for route in routes {
        for (kind, held) in checks(table, &route.matches, request) {
            count(met, kind, held);
        }
    }
}

fn count(met: &mut Met, kind: &'static str, held: bool) {
    let (yes, no) = met.entry(kind).or_default();
    *if held { yes } else { no } += 1;
}

/// The templates as regular expressions.
static EXPRESSIONS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let expressions = TEMPLATES.iter().map(|(_, text)| Regex::parse(text));
    expressions
        .collect::<Result<_, _>>()
        .expect("regular expressions")
});

fn path_matches(table: &RouteConfiguration, rule: &RouteMatch, request: &Request) -> bool {
    let connect = request.method == "CONNECT";
    if rule.path == PathMatch::Connect {
        return connect;
    }
    if connect && request.path.is_empty() {
        return false;
    }
    let whole = request.path.split(['?', '#']).next().unwrap_or("");
    let plain = |segment: &str| segment.split(';').next().unwrap_or("").to_owned();
    let stripped = whole.split('/').map(plain).collect::<Vec<_>>().join("/");
    let path = match table.ignore_path_parameters {
        true => &*stripped,
        false => whole,
    };
    let fold = |text: &str| {
        if rule.case_sensitive {
            text.to_owned()
        } else {
            text.to_lowercase()
        }
    };
    match &rule.path {
        PathMatch::Prefix(text) => fold(path).starts_with(&fold(text)),
        PathMatch::Exact(text) => fold(path) == fold(text),
        PathMatch::SeparatedPrefix(text) => {
            let (path, text) = (fold(path), fold(text));
            path == text || path.starts_with(&(text + "/"))
        }
        PathMatch::Regex(regex) => regex.is_match(path.as_bytes()),
        PathMatch::Template(template) => {
            let known = TEMPLATES.iter().zip(&*EXPRESSIONS);
            let mut known = known.filter(|((text, _), _)| **text == *template.text);
            let (_, expression) = known.next().expect("a template that is generated");
            expression.is_match(whole.as_bytes())
        }
        _ => unreachable!("no other form is generated"),
    }
}

/// Of several lines one is enough, and an inverted matcher asks that none fits; `content-type` stands in one line.
fn header_holds(matcher: &HeaderMatcher, request: &Request, value: Option<&str>) -> bool {
    let own = request
        .headers
        .iter()
        .filter(|(known, _)| *known == &*matcher.name);
    let lines: Vec<&str> = own.map(|(_, value)| *value).collect();
    if lines.len() < 2 || &*matcher.name == "content-type" {
        return header_matches(matcher, value);
    }
    let plain = HeaderMatcher {
        invert: false,
        ..matcher.clone()
    };
    let mut lines = lines.into_iter();
    lines.any(|line| header_matches(&plain, Some(line))) != matcher.invert
}

fn header_matches(matcher: &HeaderMatcher, value: Option<&str>) -> bool {
    let value = if matcher.missing_as_empty {
        value.or(Some(""))
    } else {
        value
    };
    match (&matcher.value, value) {
        (HeaderValueMatcher::Present(wanted), value) => {
            (value.is_some() == *wanted) != matcher.invert
        }
        (_, None) => false,
        (HeaderValueMatcher::String(text), Some(value)) => {
            text_matches(text, value) != matcher.invert
        }
        (HeaderValueMatcher::Range { start, end }, Some(value)) => {
            let inside = value
                .parse::<i64>()
                .is_ok_and(|number| *start <= number && number < *end);
            inside != matcher.invert
        }
        _ => unreachable!("no other form is generated"),
    }
}

fn query_pairs(path: &str) -> impl Iterator<Item = (&str, &str)> {
    let query = path.split_once('?').map(|(_, query)| query);
    let pairs = query.into_iter().flat_map(|query| query.split('&'));
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn query_matches(matcher: &QueryMatcher, path: &str) -> bool {
    let found = query_pairs(path).find(|(name, _)| *name == &*matcher.name);
    match &matcher.value {
        Some(text) => found.is_some_and(|(_, value)| text_matches(text, value)),
        None => found.is_some() == matcher.present.unwrap_or(true),
    }
}

fn text_matches(matcher: &StringMatcher, text: &str) -> bool {
    let fold = |text: &str| {
        if matcher.ignore_case {
            text.to_lowercase()
        } else {
            text.to_owned()
        }
    };
    match &matcher.pattern {
        StringPattern::Exact(wanted) => fold(text) == fold(wanted),
        StringPattern::Prefix(wanted) => fold(text).starts_with(&fold(wanted)),
        StringPattern::Suffix(wanted) => fold(text).ends_with(&fold(wanted)),
        StringPattern::Contains(wanted) => fold(text).contains(&fold(wanted)),
        StringPattern::Regex(regex) => regex.is_match(text.as_bytes()),
        _ => unreachable!("no other form is generated"),
    }
}

fn metadata_matches(matcher: &MetadataMatcher, value: Option<&Value>) -> bool {
    value_matches(&matcher.value, value) != matcher.invert
}

fn value_matches(matcher: &ValueMatcher, value: Option<&Value>) -> bool {
    let number = |text: &str| text.parse::<f64>().expect("a number");
    match (matcher, value) {
        (ValueMatcher::Present(wanted), value) => *wanted && value.is_some(),
        (ValueMatcher::Or(all), value) => all.iter().any(|one| value_matches(one, value)),
        (ValueMatcher::Null, value) => value == Some(&Value::Null),
        (ValueMatcher::Bool(wanted), value) => value == Some(&Value::Bool(*wanted)),
        (ValueMatcher::Number(wanted), Some(Value::Number(text))) => number(text) == number(wanted),
        (ValueMatcher::NumberRange(start, end), Some(Value::Number(text))) => {
            number(start) <= number(text) && number(text) < number(end)
        }
        (ValueMatcher::String(wanted), Some(Value::String(text))) => text_matches(wanted, text),
        (ValueMatcher::List(one), Some(Value::List(list))) => {
            list.iter().any(|value| value_matches(one, Some(value)))
        }
        (ValueMatcher::Address(blocks, invert), Some(Value::String(text))) => {
            let inside = |ip: IpAddr| blocks.iter().any(|block| block.contains(ip));
            text.parse().is_ok_and(|ip| inside(ip) != *invert)
        }
        _ => false,
    }
}
