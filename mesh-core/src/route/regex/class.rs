//! Character classes of RE2: Perl's and POSIX' are ASCII, Unicode's go by category and script.

use std::{fmt::Write as _, iter::Peekable, str::Chars};

/// What no text matches.
pub(super) const NEVER: &str = r"[^\x{0}-\x{10FFFF}]";

/// A class in brackets.
#[derive(Clone, Debug, Default)]
pub(super) struct Set {
    pub(super) negated: bool,
    items: Vec<Item>,
}

#[derive(Clone, Debug)]
pub(super) enum Item {
    Range(u32, u32),
    /// A class inside the class, written out, and whether it is turned round.
    Ascii(&'static str, bool),
    /// A Unicode property.
    Property(String, bool),
}

impl Set {
    pub(super) fn push(&mut self, item: Item) {
        self.items.push(item);
    }

    pub(super) fn range(&mut self, low: u32, high: u32) {
        self.items.push(Item::Range(low, high));
    }

    /// Writes it for regex-syntax.
    pub(super) fn write(&self, out: &mut String) {
        let before = out.len();
        out.push('[');
        if self.negated {
            out.push('^');
        }
        let empty = out.len();
        for item in &self.items {
            item.write(out);
        }
        if out.len() == empty {
            // Nothing but surrogates, which no text holds.
            out.truncate(before);
            out.push_str(if self.negated {
                r"[\x{0}-\x{10FFFF}]"
            } else {
                NEVER
            });
            return;
        }
        out.push(']');
    }
}

impl Item {
    fn write(&self, out: &mut String) {
        match self {
            Self::Range(low, high) => write_range(*low, *high, out),
            Self::Ascii(ranges, false) => out.push_str(ranges),
            Self::Ascii(ranges, true) => {
                out.push_str("[^");
                out.push_str(ranges);
                out.push(']');
            }
            Self::Property(class, negated) => {
                out.push_str(if *negated { "[^" } else { "[" });
                out.push_str(class);
                out.push(']');
            }
        }
    }
}

/// A range without the surrogates, which are no characters.
fn write_range(low: u32, high: u32, out: &mut String) {
    for (from, to) in [(low, high.min(0xd7ff)), (low.max(0xe000), high)] {
        if from <= to {
            // Writing to a `String` cannot fail.
            let _ = write!(out, r"\x{{{from:X}}}-\x{{{to:X}}}");
        }
    }
}

/// `\d`, `\s`, `\w` and their opposites.
pub(super) fn perl(letter: char) -> Option<Item> {
    let ranges = match letter.to_ascii_lowercase() {
        'd' => "0-9",
        's' => r"\t\n\x0C\r\x20",
        'w' => "0-9A-Za-z_",
        _ => return None,
    };
    Some(Item::Ascii(ranges, letter.is_ascii_uppercase()))
}

/// `[:name:]` or `[:^name:]` inside a class, if it stands there.
pub(super) fn posix(rest: &mut Peekable<Chars<'_>>) -> Result<Option<Item>, String> {
    let mut look = rest.clone();
    if look.next() != Some('[') || look.next() != Some(':') {
        return Ok(None);
    }
    let mut name = String::new();
    loop {
        match look.next() {
            Some(':') if look.peek() == Some(&']') => break,
            Some(char) => name.push(char),
            // Without an end it is literal text.
            None => return Ok(None),
        }
    }
    look.next();
    let (name, negated) = match name.strip_prefix('^') {
        Some(name) => (name, true),
        None => (name.as_str(), false),
    };
    let ranges = match name {
        "alnum" => "0-9A-Za-z",
        "alpha" => "A-Za-z",
        "ascii" => r"\x00-\x7F",
        "blank" => r"\t\x20",
        "cntrl" => r"\x00-\x1F\x7F",
        "digit" => "0-9",
        "graph" => r"\x21-\x7E",
        "lower" => "a-z",
        "print" => r"\x20-\x7E",
        "punct" => r"\x21-\x2F\x3A-\x40\x5B-\x60\x7B-\x7E",
        "space" => r"\t\n\x0B\x0C\r\x20",
        "upper" => "A-Z",
        "word" => "0-9A-Za-z_",
        "xdigit" => "0-9A-Fa-f",
        _ => return Err(format!("invalid character class range: [:{name}:]")),
    };
    *rest = look;
    Ok(Some(Item::Ascii(ranges, negated)))
}

const CATEGORIES: &[&str] = &[
    "Cc", "Cf", "Co", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N", "Nd", "Nl",
    "No", "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zl",
    "Zp", "Zs",
];

/// The name after `\p` or `\P`: one letter, or a category or script in braces.
pub(super) fn unicode(rest: &mut Peekable<Chars<'_>>, negated: bool) -> Result<Item, String> {
    let bad = |name: &str| format!("invalid character class range: \\p{{{name}}}");
    let mut name = String::new();
    match rest.next() {
        Some('{') => loop {
            match rest.next() {
                Some('}') => break,
                Some(char) => name.push(char),
                None => return Err(bad(&name)),
            }
        },
        Some(char) => name.push(char),
        None => return Err(bad(&name)),
    }
    let (name, negated) = match name.strip_prefix('^') {
        Some(name) => (name, !negated),
        None => (name.as_str(), negated),
    };
    let class = match name {
        "Any" => r"\x{0}-\x{10FFFF}".to_owned(),
        // Unassigned characters are not among RE2's `C`, and surrogates are no characters.
        "C" => r"\p{gc=Cc}\p{gc=Cf}\p{gc=Co}".to_owned(),
        "Cs" => NEVER.to_owned(),
        _ if CATEGORIES.contains(&name) => format!(r"\p{{gc={name}}}"),
        _ if is_script(name) => format!(r"\p{{sc={name}}}"),
        _ => return Err(bad(name)),
    };
    Ok(Item::Property(class, negated))
}

/// Whether a name is written as RE2 writes scripts: words with a capital, joined by `_`. Whether there is such a script, the
/// parser knows.
fn is_script(name: &str) -> bool {
    name.len() > 2
        && name.split('_').all(|word| {
            word.starts_with(|char: char| char.is_ascii_uppercase())
                && word.chars().skip(1).all(|char| char.is_ascii_alphabetic())
        })
}
