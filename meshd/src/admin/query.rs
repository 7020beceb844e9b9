//! The query string of an admin request.

use mesh_core::model::Regex;

/// A query string, decoded as it is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'a>(pub(super) &'a str);

/// Names that match, or with `invert_filter` those that do not.
#[derive(Debug, Default)]
pub(super) struct Filter {
    regex: Option<Regex>,
    inverted: bool,
}

impl Filter {
    /// Whether a name is wanted.
    pub(super) fn takes(&self, name: &str) -> bool {
        let found = |regex: &Regex| regex.program().is_match(name.as_bytes());
        self.regex
            .as_ref()
            .is_none_or(|regex| found(regex) != self.inverted)
    }
}

impl Query<'_> {
    pub(super) fn pairs(self) -> Vec<(String, String)> {
        let parts = self.0.split('&').filter(|part| !part.is_empty());
        parts
            .map(|part| {
                let (name, value) = part.split_once('=').unwrap_or((part, ""));
                (decode(name), decode(value))
            })
            .collect()
    }

    pub(super) fn get(self, name: &str) -> Option<String> {
        self.pairs()
            .into_iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    }

    pub(super) fn has(self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The value of `name`, which must be one of `allowed`; the first of these if there is none.
    ///
    /// # Errors
    ///
    /// Envoy's sentence about the usage of `path`.
    pub(super) fn choice(
        self,
        path: &str,
        name: &str,
        allowed: &[&'static str],
    ) -> Result<&'static str, String> {
        let given = self.get(name);
        let given = given.as_deref().unwrap_or_default();
        let known = match given {
            "" => allowed.first(),
            given => allowed.iter().find(|one| **one == given),
        };
        known
            .copied()
            .ok_or_else(|| format!("usage: {path}?{name}=({})\n\n", allowed.join("|")))
    }

    /// The expression of the parameter `name`, which matches a part of a name.
    ///
    /// # Errors
    ///
    /// Envoy's sentence about an expression that is none.
    pub(super) fn filter(self, name: &str) -> Result<Filter, String> {
        self.expression(name, |pattern| format!("(?s:.)*(?:{pattern})(?s:.)*"))
    }

    /// The same, which matches whole names.
    ///
    /// # Errors
    ///
    /// As [`Query::filter`].
    pub(super) fn whole(self, name: &str) -> Result<Filter, String> {
        self.expression(name, str::to_owned)
    }

    fn expression(self, name: &str, extend: impl Fn(&str) -> String) -> Result<Filter, String> {
        let Some(pattern) = self.get(name).filter(|pattern| !pattern.is_empty()) else {
            return Ok(Filter::default());
        };
        let invalid = |error| format!("Invalid re2 regex: {error}");
        // By itself first, so that the error speaks of what was given.
        Regex::parse(&pattern).map_err(invalid)?;
        let regex = Regex::parse(&extend(&pattern)).map_err(invalid)?;
        Ok(Filter {
            regex: Some(regex),
            inverted: self.has("invert_filter"),
        })
    }
}

/// Percent-decodes; an escape that is not one stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            // A sign is taken for a number's, and is no digit.
            .filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_checked() {
        let query = Query("a=x%20y+z&usedonly&bad=%zz&format=yaml");
        assert_eq!(query.get("a").as_deref(), Some("x y z"));
        assert_eq!(query.get("bad").as_deref(), Some("%zz"));
        assert_eq!(Query("a=%+5").get("a").as_deref(), Some("% 5"));
        assert!(query.has("usedonly") && !query.has("used"));
        let refused = query.choice("/stats", "format", &["text", "json"]);
        let usage = "usage: /stats?format=(text|json)\n\n";
        assert_eq!(refused, Err(usage.to_owned()));
        assert_eq!(query.choice("/x", "type", &["All", "B"]), Ok("All"));
    }

    #[test]
    fn a_filter_matches_a_part_and_can_be_inverted() {
        let takes = |query, name| Query(query).filter("filter").map(|f| f.takes(name));
        assert_eq!(takes("filter=b.d", "abcde"), Ok(true));
        assert_eq!(takes("filter=^b", "abcde"), Ok(false));
        assert_eq!(takes("filter=^b&invert_filter", "abcde"), Ok(true));
        assert_eq!(takes("", "anything"), Ok(true));
        let whole = |query, name| Query(query).whole("r").map(|f| f.takes(name));
        assert_eq!(whole("r=b.d", "abcde"), Ok(false));
        assert_eq!(whole("r=b.d", "bcd"), Ok(true));
        let error = takes("filter=(", "a").expect_err("no expression");
        assert!(error.starts_with("Invalid re2 regex: "), "{error}");
        assert!(!error.contains(".*"), "{error}");
    }
}
