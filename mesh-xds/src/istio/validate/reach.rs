//! Rules of a VirtualService that no request can reach: warnings.

use std::collections::{BTreeMap, HashMap, hash_map::Entry};
use std::fmt::Debug;

use super::check::{At, Check};
use crate::istio::api::VirtualService;
use crate::istio::api::json::StringMatch;
use crate::istio::api::virtual_service::HttpMatchRequest;

pub(super) fn check(c: &mut Check, at: &At<'_>, spec: &VirtualService) {
    let http = spec.http.iter().map(|r| r.matches.as_slice());
    unreachable(c, &at.key("http"), http, |m| {
        // A name says nothing about what is matched.
        format!(
            "{:?}",
            HttpMatchRequest {
                name: String::new(),
                stat_prefix: String::new(),
                ..m.clone()
            }
        )
    });
    unreachable(
        c,
        &at.key("tls"),
        spec.tls.iter().map(|r| r.matches.as_slice()),
        debug,
    );
    unreachable(
        c,
        &at.key("tcp"),
        spec.tcp.iter().map(|r| r.matches.as_slice()),
        debug,
    );
    covered(c, &at.key("http"), spec);
}

fn debug<M: Debug>(matched: &M) -> String {
    format!("{matched:?}")
}

fn unreachable<'m, M: 'm>(
    c: &mut Check,
    at: &At<'_>,
    routes: impl Iterator<Item = &'m [M]>,
    key: impl Fn(&M) -> String,
) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut catch_all = None;
    for (i, matches) in routes.enumerate() {
        let at = at.index(i);
        if let Some(before) = catch_all {
            c.warn(
                &at,
                format_args!("never reached: rule {before} matches everything"),
            );
        }
        if matches.is_empty() {
            catch_all.get_or_insert(i);
            continue;
        }
        if catch_all.is_some() {
            continue;
        }
        let mut duplicates = 0;
        for (j, matched) in matches.iter().enumerate() {
            match seen.entry(key(matched)) {
                Entry::Occupied(before) => {
                    duplicates += 1;
                    let before = before.get();
                    c.warn(
                        &at.item("match", j),
                        format_args!("never reached: rule {before} has the same match"),
                    );
                }
                Entry::Vacant(free) => {
                    free.insert(i);
                }
            }
        }
        if duplicates == matches.len() {
            c.warn(&at, "never reached: earlier rules have all of its matches");
        }
    }
}

/// A prefix that an earlier, otherwise equal match covers.
fn covered(c: &mut Check, at: &At<'_>, spec: &VirtualService) {
    // Each pair is compared; beyond this number of rules the answer is not worth its time.
    const MOST: usize = 1_000;
    let prefixes: Vec<(usize, usize, &str, &HttpMatchRequest)> = spec
        .http
        .iter()
        .enumerate()
        .flat_map(|(i, route)| {
            route
                .matches
                .iter()
                .enumerate()
                .map(move |(j, m)| (i, j, m))
        })
        .filter_map(|(i, j, m)| match &m.uri {
            Some(StringMatch::Prefix(prefix)) if !prefix.is_empty() => {
                Some((i, j, prefix.as_str(), m))
            }
            _ => None,
        })
        .take(MOST)
        .collect();
    for (n, (rule, _, outer, a)) in prefixes.iter().enumerate() {
        for (i, j, inner, b) in &prefixes[n + 1..] {
            if inner != outer && inner.starts_with(outer) && same_otherwise(a, b) {
                let at = at.index(*i);
                let message =
                    format_args!("never reached: prefix `{outer}` of rule {rule} covers `{inner}`");
                c.warn(&at.item("match", *j), message);
            }
        }
    }
}

fn same_otherwise(a: &HttpMatchRequest, b: &HttpMatchRequest) -> bool {
    let method = |m: &HttpMatchRequest| {
        m.method
            .clone()
            .unwrap_or(StringMatch::Exact("GET".to_owned()))
    };
    a.port == b.port
        && text(Some(&method(a))).starts_with(&text(Some(&method(b))))
        && text(a.authority.as_ref()).starts_with(&text(b.authority.as_ref()))
        && same_keys(&a.headers, &b.headers)
        && same_keys(&a.query_params, &b.query_params)
        && same_keys(&a.without_headers, &b.without_headers)
        && a.source_labels == b.source_labels
        && a.source_namespace == b.source_namespace
        && a.gateways == b.gateways
}

fn same_keys(a: &BTreeMap<String, StringMatch>, b: &BTreeMap<String, StringMatch>) -> bool {
    a.len() == b.len()
        && a.iter().all(|(k, v)| {
            b.get(k)
                .is_some_and(|w| text(Some(v)).starts_with(&text(Some(w))))
        })
}

fn text(matched: Option<&StringMatch>) -> String {
    match matched {
        Some(StringMatch::Exact(text)) if !text.is_empty() => format!("exact:{text}"),
        Some(StringMatch::Prefix(text)) if !text.is_empty() => format!("prefix:{text}"),
        Some(StringMatch::Regex(text)) => format!("regex:{text}"),
        _ => String::new(),
    }
}
