//! Header changes.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::{
    HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction,
};

use crate::istio::api::virtual_service::Headers;

/// Header changes in Envoy's form.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) request_add: Vec<HeaderValueOption>,
    pub(super) request_remove: Vec<String>,
    pub(super) response_add: Vec<HeaderValueOption>,
    pub(super) response_remove: Vec<String>,
    /// A new authority, which is no header to Envoy.
    pub(super) authority: Option<String>,
}

impl Changes {
    pub(super) fn new(headers: Option<&Headers>) -> Self {
        let Some(headers) = headers else {
            return Self::default();
        };
        let request = headers.request.clone().unwrap_or_default();
        let response = headers.response.clone().unwrap_or_default();
        let both = |set: &BTreeMap<String, String>, add: &BTreeMap<String, String>| {
            let mut all = values(set, HeaderAppendAction::OverwriteIfExistsOrAdd);
            all.extend(values(add, HeaderAppendAction::AppendIfExistsOrAdd));
            all
        };
        Self {
            request_add: both(&request.set, &request.add),
            request_remove: removable(&request.remove),
            response_add: both(&response.set, &response.add),
            response_remove: removable(&response.remove),
            authority: authority(&request.set).or_else(|| authority(&request.add)),
        }
    }
}

fn authority(values: &BTreeMap<String, String>) -> Option<String> {
    let is_authority =
        |key: &str| key.eq_ignore_ascii_case(":authority") || key.eq_ignore_ascii_case("host");
    let found = values
        .iter()
        .filter(|(key, _)| is_authority(key))
        .map(|(_, value)| value.clone())
        .next_back();
    found.filter(|value| !value.is_empty())
}

/// Whether Envoy keeps the name for itself.
fn is_internal(key: &str) -> bool {
    key.starts_with(':') || key.eq_ignore_ascii_case("host")
}

fn removable(keys: &[String]) -> Vec<String> {
    keys.iter()
        .filter(|key| !is_internal(key))
        .cloned()
        .collect()
}

fn values(values: &BTreeMap<String, String>, action: HeaderAppendAction) -> Vec<HeaderValueOption> {
    let changed = values.iter().filter(|(key, _)| !is_internal(key));
    changed
        .map(|(key, value)| option(key, value, action))
        .collect()
}

pub(super) fn option(key: &str, value: &str, action: HeaderAppendAction) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: key.to_owned(),
            value: value.to_owned(),
            raw_value: Vec::new(),
        }),
        append_action: action.into(),
        ..HeaderValueOption::default()
    }
}
