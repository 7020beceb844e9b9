//! From a field path to its line.

use crate::yaml::{self, Location, Path, Segment};

/// Where the field `path` stands in `text`.
pub(super) fn locate(text: &str, path: &str) -> Option<Location> {
    yaml::locate(text, 0, &segments(path))
}

/// Where each of the fields stands in `text`, in one pass.
pub(super) fn locate_all(text: &str, paths: &[&str]) -> Vec<Option<Location>> {
    let fields: Vec<_> = paths.iter().map(|path| (0, segments(path))).collect();
    yaml::locate_all(text, &fields)
}

/// The steps of a path such as `a.b[3]["x.y"].c`.
pub(super) fn segments(path: &str) -> Path {
    let mut out = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let end = quoted.find("\"]").unwrap_or(quoted.len());
            out.push(Segment::Key(quoted[..end].replace("\\\"", "\"")));
            rest = quoted.get(end + 2..).unwrap_or_default();
        } else if let Some(number) = rest.strip_prefix('[') {
            let end = number.find(']').unwrap_or(number.len());
            match number[..end].parse() {
                Ok(index) => out.push(Segment::Index(index)),
                Err(_) => out.push(Segment::Key(number[..end].to_owned())),
            }
            rest = number.get(end + 1..).unwrap_or_default();
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let end = name.find(['.', '[']).unwrap_or(name.len());
            if end > 0 {
                out.push(Segment::Key(name[..end].to_owned()));
            }
            rest = &name[end..];
        }
    }
    out.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart_as_they_are_printed() {
        for path in ["a", "a.b[3].c", "a[0][1]", "m[\"x.y\"].typed_config", ""] {
            assert_eq!(segments(path).to_string(), path);
        }
        let text = "a:\n- b: 1\n- m: {x.y: {c: 2}}\n";
        let found = |path| locate(text, path).map(|at| (at.line, at.column));
        assert_eq!(found("a[1].m[\"x.y\"].c"), Some((3, 13)));
        assert_eq!(found("a[0].absent"), Some((2, 3)));
    }
}
