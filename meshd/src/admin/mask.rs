//! Protobuf's field masks, applied to the JSON form of a message.

use serde_json::{Map, Value};

/// Keeps of `value` only what the comma-separated paths of `mask` lead to, and each `@type` on the way. `None`: none of the
/// paths leads to a field.
pub(super) fn apply(value: &Value, mask: &str) -> Option<Value> {
    let paths: Vec<Vec<&str>> = mask
        .split(',')
        .map(|path| path.trim().split('.').collect())
        .collect();
    let paths: Vec<&[&str]> = paths.iter().map(Vec::as_slice).collect();
    kept(value, &paths)
}

fn kept(value: &Value, paths: &[&[&str]]) -> Option<Value> {
    let fields = value.as_object()?;
    let mut out = Map::new();
    for (name, field) in fields {
        let below: Vec<&[&str]> = paths
            .iter()
            .filter_map(|path| match path.split_first() {
                Some((first, rest)) if first == name => Some(rest),
                _ => None,
            })
            .collect();
        if below.is_empty() {
            continue;
        }
        let whole = below.iter().any(|rest| rest.is_empty());
        let part = match whole {
            true => Some(field.clone()),
            false => kept(field, &below),
        };
        if let Some(part) = part {
            out.insert(name.clone(), part);
        }
    }
    if out.is_empty() {
        return None;
    }
    if let Some(kind) = fields.get("@type") {
        out.insert("@type".to_owned(), kind.clone());
    }
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mask_keeps_paths_and_types() {
        let value = json!({"@type": "t", "a": {"@type": "u", "b": 1, "c": 2}, "d": [3], "e": 4});
        let kept = json!({"@type": "t", "a": {"@type": "u", "b": 1}, "d": [3]});
        assert_eq!(apply(&value, "a.b,d"), Some(kept));
        assert_eq!(
            apply(&value, "a,a.b").map(|v| v["a"]["c"].clone()),
            Some(json!(2))
        );
        assert_eq!(apply(&value, "nope"), None);
        assert_eq!(apply(&value, "a.nope"), None);
    }
}
