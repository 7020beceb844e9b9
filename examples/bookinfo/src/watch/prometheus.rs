//! Reads the Prometheus text format, as far as the table needs it.

/// One line: a name, its labels and a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'a> {
    /// The metric's name.
    pub name: &'a str,
    labels: Vec<(&'a str, String)>,
    /// The value.
    pub value: f64,
}

impl Sample<'_> {
    /// A label's value; empty when there is no such label.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels
            .iter()
            .find(|(label, _)| *label == name)
            .map_or("", |(_, value)| value)
    }
}

/// The samples of a text. Comments, and lines that are not understood, are left out.
pub fn samples(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(sample)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let name_end = line.find(|c: char| c == '{' || c.is_ascii_whitespace())?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Sample {
        name,
        labels,
        value,
    })
}

/// Labels with their values, and what follows the closing brace.
type Labels<'a> = (Vec<(&'a str, String)>, &'a str);

fn labels(mut rest: &str) -> Option<Labels<'_>> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once("=\"")?;
        let (value, after) = quoted(after)?;
        labels.push((name.trim(), value));
        rest = after;
    }
}

/// A value up to its closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_and_values() {
        let text = "# TYPE a counter\na{b=\"c\",d=\"e \\\"f\\\" \\\\g,}\"} 7\nplain 1.5 1700000000\n\nh{le=\"+Inf\",} 3e2\n";
        let all: Vec<_> = samples(text).collect();
        assert_eq!(all.len(), 3);
        assert_eq!(
            (
                all[0].name,
                all[0].label("b"),
                all[0].label("d"),
                all[0].value
            ),
            ("a", "c", "e \"f\" \\g,}", 7.0)
        );
        assert_eq!(
            (all[1].name, all[1].label("b"), all[1].value),
            ("plain", "", 1.5)
        );
        assert_eq!((all[2].label("le"), all[2].value), ("+Inf", 300.0));
    }

    #[test]
    fn broken_lines_are_left_out() {
        assert_eq!(
            samples("a{b=\"c\nd{e} 1\nf x\ng\n{} 1 2 3 {").count(),
            1,
            "only a nameless sample is left"
        );
    }
}
