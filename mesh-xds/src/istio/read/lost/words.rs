//! What a text protects that is no YAML, told from its words.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use super::{by_part, of_mesh, of_object, parts, protecting};
use crate::istio::api::destination_rule::TrafficPolicy;
use crate::istio::api::gateway::{Port, Server};
use crate::istio::api::lost::SECURITY;
use crate::istio::api::sidecar::{IstioIngressListener, OutboundTrafficPolicy};
use crate::istio::api::{DestinationRule, Gateway, Lost, Origin, Sidecar, Spec};
use crate::istio::read::text::{TextOptions, is_settings, parse};

/// What a file protects that is not UTF-8; `None` if it cannot be read at all, or is too large, so that nothing can be told.
pub(in crate::istio::read) fn of_file(
    file: &Arc<str>,
    path: &Path,
    options: &TextOptions,
) -> Option<Vec<Lost>> {
    let mut bytes = Vec::new();
    let limit = options.limits.max_bytes;
    let opened = match File::open(path) {
        // What is gone protects nothing.
        Err(error) if error.kind() == ErrorKind::NotFound => return Some(Vec::new()),
        opened => opened.ok()?,
    };
    opened.take(limit + 1).read_to_end(&mut bytes).ok()?;
    if bytes.len() as u64 > limit {
        return None;
    }
    Some(of_text(file, &String::from_utf8_lossy(&bytes), options))
}

/// What a text protects that is not YAML, by the documents of it that are and by the words of the others.
pub(in crate::istio::read) fn of_text(
    file: &Arc<str>,
    text: &str,
    options: &TextOptions,
) -> Vec<Lost> {
    let parts = documents(text);
    if let [(line, only)] = parts.as_slice() {
        return of_words(file, *line, only, options);
    }
    let mut lost = Vec::new();
    for (line, part) in parts {
        let parsed = parse(file, part, options);
        let of_objects = parsed.objects.iter().filter_map(|object| of_object(object));
        for mut one in of_objects.chain(parsed.lost) {
            one.origin.line += line - 1;
            lost.push(one);
        }
    }
    lost
}

/// The parts of a text between `---`, each with the line on which it begins.
fn documents(text: &str) -> Vec<(u32, &str)> {
    let mut parts = Vec::new();
    let (mut begin, mut begin_line, mut at) = (0, 1, 0);
    for (line, content) in (1..).zip(text.split_inclusive('\n')) {
        if content.starts_with("---") && at > 0 {
            parts.push((begin_line, &text[begin..at]));
            (begin, begin_line) = (at, line);
        }
        at += content.len();
    }
    parts.push((begin_line, &text[begin..]));
    parts
}

/// The part of a text between `---` that holds this line, with the line on which it begins.
pub(in crate::istio::read) fn part_at(text: &str, line: u32) -> (u32, &str) {
    let parts = documents(text).into_iter();
    let before = parts.take_while(|(begin, _)| *begin <= line).last();
    before.unwrap_or((1, text))
}

/// What one broken document protects, by its words.
pub(in crate::istio::read) fn of_words(
    file: &Arc<str>,
    line: u32,
    text: &str,
    options: &TextOptions,
) -> Vec<Lost> {
    let namespace = only_namespace(text);
    let names = values(text, "name");
    let kinds = values(text, "kind");
    let mut lines = Lines::new(text, line);
    let lost_at = |line: u32| {
        let origin = Origin {
            file: Arc::clone(file),
            line,
        };
        Lost {
            namespace: namespace.clone(),
            origin,
            ..Lost::default()
        }
    };
    let mut lost = Vec::new();
    let mut settings = false;
    for (index, (offset, kind)) in kinds.iter().enumerate() {
        let name = names.get(names.partition_point(|(at, _)| at <= offset));
        let name = name.map_or("", |(_, name)| name);
        let of_settings = *kind == "ConfigMap" && name == "istio" && !settings;
        if of_settings && text.contains("mesh:") {
            settings = true;
            lost.push(of_mesh(lost_at(lines.of(*offset)).origin, text, options));
        }
        let Some(protecting) = protecting(kind) else {
            continue;
        };
        let mut one = Lost {
            kind: Some(protecting.into()),
            name: name.into(),
            ..lost_at(lines.of(*offset))
        };
        if by_part(protecting) {
            // What stands behind the next such kind is of that one.
            let next = kinds[index + 1..]
                .iter()
                .find(|(_, kind)| self::protecting(kind).is_some());
            let end = next.map_or(text.len(), |(end, _)| *end);
            one.spec = part(protecting, text.get(*offset..end).unwrap_or_default());
            if one.spec.is_none() {
                continue;
            }
            let default = &options.default_namespace;
            one.namespace.get_or_insert_with(|| Arc::clone(default));
        }
        lost.push(one);
    }
    if kinds.is_empty() && is_settings(file) {
        let origin = lost_at(line).origin;
        lost.push(of_mesh(origin, text, options));
    }
    if let Some(offset) = spoken_of(text)
        && lost.is_empty()
    {
        lost.push(lost_at(Lines::new(text, line).of(offset)));
    }
    lost
}

/// The namespace that all objects of a text are in, as far as they name one.
fn only_namespace(text: &str) -> Option<Arc<str>> {
    match values(text, "namespace").as_slice() {
        [(_, first), others @ ..] if others.iter().all(|(_, other)| other == first) => {
            Some(Arc::from(*first))
        }
        _ => None,
    }
}

/// What an object of a kind that protects by a part of it protects, by its words.
fn part(kind: &str, text: &str) -> Option<Spec> {
    match kind {
        "DestinationRule" => rule(text),
        "Gateway" => gateway(text),
        _ => sidecar(text),
    }
}

/// Counts the lines of a text up to offsets that rise.
struct Lines<'t> {
    text: &'t str,
    at: usize,
    line: u32,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str, first: u32) -> Self {
        Self {
            text,
            at: 0,
            line: first,
        }
    }

    fn of(&mut self, offset: usize) -> u32 {
        let between = self.text.get(self.at..offset).unwrap_or_default();
        let lines = between.matches('\n').count();
        self.line = self
            .line
            .saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        self.at = self.at.max(offset);
        self.line
    }
}

/// Where the group that protects is spoken of. An item of a list that is its bare name, as permissions and webhooks have it,
/// is no object of it.
fn spoken_of(text: &str) -> Option<usize> {
    let mut found = text.match_indices(SECURITY).map(|(at, _)| at);
    found.find(|at| {
        let begin = text[..*at].rfind('\n').map_or(0, |end| end + 1);
        let line = text[begin..].lines().next().unwrap_or_default().trim();
        let item = line.strip_prefix('-').map(str::trim);
        item.is_none_or(|item| item.trim_matches(['"', '\'']) != SECURITY)
    })
}

/// A rule in a broken text: its host, if TLS is spoken of anywhere near.
fn rule(text: &str) -> Option<Spec> {
    let (_, host) = *values(text, "host").first()?;
    let policy = TrafficPolicy {
        tls: Some(parts::originated()),
        ..TrafficPolicy::default()
    };
    parts::originating(DestinationRule {
        host: host.to_owned(),
        traffic_policy: says_tls(text).then_some(policy),
        ..DestinationRule::default()
    })
}

/// A gateway in a broken text: the ports that have a protocol of TLS, of any proxy.
fn gateway(text: &str) -> Option<Spec> {
    let numbers = values(text, "number");
    let ends = numbers.iter().skip(1).map(|(at, _)| *at);
    let ends = ends.chain([text.len()]);
    let ports = numbers.iter().zip(ends).filter_map(|((at, number), end)| {
        let (_, protocol) = *values(text.get(*at..end)?, "protocol").first()?;
        Some(Port {
            number: number.parse().ok()?,
            protocol: protocol.to_ascii_uppercase(),
            ..Port::default()
        })
    });
    let servers = ports.map(|port| Server {
        port: Some(port),
        ..Server::default()
    });
    parts::terminating(Gateway {
        servers: servers.collect(),
        ..Gateway::default()
    })
}

/// A Sidecar in a broken text: whether it speaks of TLS, and whether only known hosts are reached.
fn sidecar(text: &str) -> Option<Spec> {
    let listener = IstioIngressListener {
        tls: Some(parts::terminated()),
        ..IstioIngressListener::default()
    };
    let limited = text.contains(parts::KNOWN_HOSTS);
    parts::limiting(Sidecar {
        ingress: says_tls(text).then_some(listener).into_iter().collect(),
        outbound_traffic_policy: limited.then(OutboundTrafficPolicy::default),
        ..Sidecar::default()
    })
}

/// Whether a mode in there asks for TLS.
fn says_tls(text: &str) -> bool {
    let modes = values(text, "mode");
    let asks = |mode: &str| matches!(mode, "SIMPLE" | "MUTUAL" | "ISTIO_MUTUAL");
    modes.iter().any(|(_, mode)| asks(mode))
}

/// The plain words that follow `key:` in a text, in YAML's block and flow style or JSON, with their offsets.
fn values<'t>(text: &'t str, key: &str) -> Vec<(usize, &'t str)> {
    let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '*' | '/');
    let mut found = Vec::new();
    for (at, _) in text.match_indices(key) {
        let before = text[..at].chars().next_back();
        if before.is_some_and(word) {
            continue;
        }
        let rest = text[at + key.len()..].trim_start_matches(['"', '\'']);
        let Some(rest) = rest.trim_start_matches([' ', '\t']).strip_prefix(':') else {
            continue;
        };
        let rest = rest.trim_start_matches([' ', '\t', '"', '\'']);
        let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
        if end > 0 {
            found.push((at, &rest[..end]));
        }
    }
    found
}
