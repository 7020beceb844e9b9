//! EnvoyFilter: what a patch must have, though none acts.

use super::{
    check::{At, Check},
    rules,
};
use crate::istio::api::envoy_filter::{ApplyTo, EnvoyFilter, Operation, PatchContext};

pub(super) fn check(c: &mut Check, at: &At<'_>, filter: &EnvoyFilter) {
    let at = at.key("configPatches");
    for (i, one) in filter.config_patches.iter().enumerate() {
        let at = at.index(i);
        let matches = one.matches.as_ref();
        if matches.is_some_and(|matches| matches.context == PatchContext::Waypoint) {
            continue;
        }
        if one.apply_to == ApplyTo::Invalid {
            c.error(&at.key("applyTo"), "applyTo must be set");
            continue;
        }
        let Some(patch) = &one.patch else {
            c.error(&at.key("patch"), "patch must be set");
            continue;
        };
        let at_patch = at.key("patch");
        if patch.operation == Operation::Invalid {
            c.error(&at_patch.key("operation"), "operation must be set");
        } else if patch.operation != Operation::Remove && patch.value.is_null() {
            c.error(
                &at_patch.key("value"),
                "a value is needed unless something is removed",
            );
        }
        if let Some(proxy) = matches.and_then(|matches| matches.proxy.as_ref())
            && !proxy.proxy_version.is_empty()
        {
            let version = at.key("match");
            let version = version.key("proxy");
            c.rule(
                &version.key("proxyVersion"),
                rules::regex(&proxy.proxy_version),
            );
        }
    }
}
