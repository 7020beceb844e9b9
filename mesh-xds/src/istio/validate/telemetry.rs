//! Telemetry.

use super::check::{At, Check};
use super::selector;
use crate::istio::api::Telemetry;
use crate::istio::api::telemetry::{
    CustomTag, MetricsOverrides, ProviderRef, TagOperation, Tracing,
};

pub(super) fn check(c: &mut Check, at: &At<'_>, telemetry: &Telemetry) {
    selector::targets(
        c,
        at,
        telemetry.selector.as_ref(),
        telemetry.target_ref.as_ref(),
        &telemetry.target_refs,
    );
    for (i, metrics) in telemetry.metrics.iter().enumerate() {
        let at = at.item("metrics", i);
        providers(c, &at, &metrics.providers);
        for (j, overrides) in metrics.overrides.iter().enumerate() {
            metric(c, &at.item("overrides", j), overrides);
        }
    }
    if telemetry.tracing.len() > 1 {
        c.warn(&at.key("tracing"), "only one entry is used");
    }
    for (i, tracing) in telemetry.tracing.iter().enumerate() {
        self::tracing(c, &at.item("tracing", i), tracing);
    }
    for (i, logging) in telemetry.access_logging.iter().enumerate() {
        let at = at.item("accessLogging", i);
        providers(c, &at, &logging.providers);
        let text = logging
            .filter
            .as_ref()
            .map_or("", |f| f.expression.as_str());
        if unbalanced(text) {
            c.error(
                &at.key("filter").key("expression"),
                "the expression has unbalanced brackets or quotes",
            );
        }
    }
}

fn providers(c: &mut Check, at: &At<'_>, providers: &[ProviderRef]) {
    for (i, _) in providers
        .iter()
        .enumerate()
        .filter(|(_, p)| p.name.is_empty())
    {
        c.error(&at.item("providers", i).key("name"), "a name is required");
    }
}

fn metric(c: &mut Check, at: &At<'_>, overrides: &MetricsOverrides) {
    for (name, tag) in &overrides.tag_overrides {
        let at = at.key("tagOverrides");
        let at = at.key(name);
        if name.is_empty() {
            c.warn(&at, "a tag without a name");
        }
        match tag.operation {
            TagOperation::Upsert if tag.value.is_empty() => {
                c.error(&at.key("value"), "UPSERT needs a value")
            }
            TagOperation::Remove if !tag.value.is_empty() => {
                c.error(&at.key("value"), "REMOVE takes no value")
            }
            _ => {}
        }
    }
    let custom = overrides
        .matches
        .as_ref()
        .and_then(|m| m.custom_metric.as_deref());
    if custom == Some("") {
        c.error(&at.key("match").key("customMetric"), "a name is required");
    }
}

fn tracing(c: &mut Check, at: &At<'_>, tracing: &Tracing) {
    if tracing.providers.len() > 1 {
        c.warn(&at.key("providers"), "only one provider is used");
    }
    providers(c, at, &tracing.providers);
    if tracing
        .random_sampling_percentage
        .is_some_and(|p| !(0.0..=100.0).contains(&p.0))
    {
        c.error(
            &at.key("randomSamplingPercentage"),
            "the percentage must be in the range 0..100",
        );
    }
    for (name, tag) in &tracing.custom_tags {
        let at = at.key("customTags");
        if name.is_empty() {
            c.error(&at, "a tag needs a name");
        }
        custom_tag(c, &at.key(name), tag);
    }
}

fn custom_tag(c: &mut Check, at: &At<'_>, tag: &CustomTag) {
    let kinds = [
        tag.literal.is_some(),
        tag.environment.is_some(),
        tag.header.is_some(),
        tag.formatter.is_some(),
    ];
    if kinds.iter().filter(|set| **set).count() != 1 {
        c.error(
            at,
            "exactly one of literal, environment, header and formatter is required",
        );
    }
    if tag.literal.as_ref().is_some_and(|t| t.value.is_empty()) {
        c.error(&at.key("literal").key("value"), "a value is required");
    }
    for (field, source) in [("header", &tag.header), ("environment", &tag.environment)] {
        if source.as_ref().is_some_and(|s| s.name.is_empty()) {
            c.error(&at.key(field).key("name"), "a name is required");
        }
    }
}

/// A first check of a CEL expression: brackets and quotes close.
fn unbalanced(expression: &str) -> bool {
    let mut open = Vec::new();
    let mut quote = None;
    let mut escaped = false;
    for c in expression.chars() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '(') => open.push(')'),
            (None, '[') => open.push(']'),
            (None, '{') => open.push('}'),
            (None, ')' | ']' | '}') if open.pop() != Some(c) => return true,
            _ => {}
        }
    }
    quote.is_some() || !open.is_empty()
}
