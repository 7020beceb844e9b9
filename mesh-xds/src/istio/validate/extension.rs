//! WasmPlugin and TrafficExtension.

use std::collections::BTreeSet;

use super::check::{At, Check};
use super::{rules, selector};
use crate::istio::api::extension::{EnvValueSource, TrafficSelector, VmConfig};
use crate::istio::api::{TrafficExtension, WasmPlugin};

pub(super) fn wasm_plugin(c: &mut Check, at: &At<'_>, plugin: &WasmPlugin) {
    selector::targets(
        c,
        at,
        plugin.selector.as_ref(),
        plugin.target_ref.as_ref(),
        &plugin.target_refs,
    );
    module(
        c,
        at,
        &plugin.url,
        &plugin.sha256,
        &plugin.image_pull_secret,
        &plugin.plugin_name,
    );
    vm(c, at, plugin.vm_config.as_ref());
    ports(c, at, &plugin.matches);
}

pub(super) fn traffic_extension(c: &mut Check, at: &At<'_>, extension: &TrafficExtension) {
    if extension.wasm.is_some() == extension.lua.is_some() {
        c.error(at, "exactly one of wasm and lua is required");
    }
    selector::targets(
        c,
        at,
        extension.selector.as_ref(),
        None,
        &extension.target_refs,
    );
    if let Some(lua) = &extension.lua {
        const MOST: usize = 64 << 10;
        if lua.inline_code.is_empty() || lua.inline_code.len() > MOST {
            c.error(
                &at.key("lua").key("inlineCode"),
                format_args!("the code must have 1 to {MOST} bytes"),
            );
        }
    }
    if let Some(wasm) = &extension.wasm {
        let at = at.key("wasm");
        module(
            c,
            &at,
            &wasm.url,
            &wasm.sha256,
            &wasm.image_pull_secret,
            &wasm.plugin_name,
        );
        vm(c, &at, wasm.vm_config.as_ref());
    }
    ports(c, at, &extension.matches);
}

fn module(c: &mut Check, at: &At<'_>, url: &str, sha256: &str, secret: &str, name: &str) {
    c.rule(&at.key("url"), module_url(url));
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if !sha256.is_empty() && (sha256.len() != 64 || !sha256.bytes().all(hex)) {
        c.error(
            &at.key("sha256"),
            "must be 64 digits of a lower-case hexadecimal number",
        );
    }
    for (field, text, most) in [("imagePullSecret", secret, 253), ("pluginName", name, 256)] {
        if text.len() > most {
            c.error(
                &at.key(field),
                format_args!("at most {most} characters are allowed"),
            );
        }
    }
}

/// `file://`, `http://`, `https://`, `oci://`, or an image without a scheme.
fn module_url(url: &str) -> Result<(), String> {
    if url.is_empty() {
        return Err("a URL is required".to_owned());
    }
    let plain = |c: char| c.is_control() || c == ' ';
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None => ("", url),
    };
    if !matches!(scheme, "" | "file" | "http" | "https" | "oci") {
        return Err(format!(
            "unsupported scheme `{scheme}`, allowed are file, http, https and oci"
        ));
    }
    let authority = rest.split('/').next().unwrap_or_default();
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    let bad_port = port.is_some_and(|p| !p.bytes().all(|b| b.is_ascii_digit()));
    // A `%` begins two hexadecimal digits.
    let escaped = |part: &str| {
        part.get(..2)
            .is_some_and(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    if !url.split('%').skip(1).all(escaped)
        || url.chars().any(plain)
        || bad_port
        || rest.is_empty()
        || url.starts_with(':')
    {
        return Err(format!("{url:?} is no URL"));
    }
    Ok(())
}

fn vm(c: &mut Check, at: &At<'_>, vm: Option<&VmConfig>) {
    let mut names = BTreeSet::new();
    for (i, env) in vm.iter().flat_map(|vm| &vm.env).enumerate() {
        let at = at.key("vmConfig");
        let at = at.item("env", i);
        if env.name.is_empty() || env.name.len() > 256 {
            c.error(&at.key("name"), "a name of 1 to 256 characters is required");
        } else if !names.insert(&env.name) {
            c.error(
                &at.key("name"),
                format_args!("duplicate variable `{}`", env.name),
            );
        }
        if env.value_from != EnvValueSource::Inline && !env.value.is_empty() {
            c.error(&at.key("value"), "a value is for valueFrom INLINE only");
        }
    }
}

fn ports(c: &mut Check, at: &At<'_>, selectors: &[TrafficSelector]) {
    for (i, selector) in selectors.iter().enumerate() {
        for (j, port) in selector.ports.iter().enumerate() {
            let at = at.item("match", i);
            c.rule(&at.item("ports", j).key("number"), rules::port(port.number));
        }
    }
}
