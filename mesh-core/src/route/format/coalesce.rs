//! `%COALESCE({"operators": ["NAME", {"command": "NAME", "param": "ARGUMENTS", "max_length": 9}]})%`: the first of several
//! operators that has a value.

use super::{operator::Operator, parse};
use crate::model::Value;

/// Deeper nesting is refused.
const MAX_DEPTH: usize = 16;

/// Parses the arguments; the error is a reason.
pub(super) fn operator(arguments: &str) -> Result<Operator, String> {
    let config = json(arguments).ok_or("COALESCE takes a JSON object")?;
    let Some(Value::List(entries)) = config.get("operators") else {
        return Err("COALESCE takes a list of operators".to_owned());
    };
    if entries.is_empty() {
        return Err("COALESCE: there are no operators".to_owned());
    }
    let entries = entries.iter().enumerate().map(|(index, entry)| {
        one(entry).map_err(|reason| format!("COALESCE: operators[{index}]: {reason}"))
    });
    Ok(Operator::Coalesce(entries.collect::<Result<_, _>>()?))
}

/// A name, or name, arguments and limit.
fn one(entry: &Value) -> Result<(Operator, Option<usize>), String> {
    let text = |key| match entry.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(&**text)),
        Some(_) => Err(format!("{key} is no text")),
    };
    if let Value::String(name) = entry {
        return Ok((parse::operator(name, None, None)?, None));
    }
    let limit = match entry.get("max_length") {
        None => None,
        Some(Value::Number(number)) => {
            let number = number.parse();
            let number = number.ok().filter(|number| *number > 0);
            Some(number.ok_or("max_length is no length over 0")?)
        }
        Some(_) => return Err("max_length is no number".to_owned()),
    };
    let name = text("command")?.ok_or("command is missing")?;
    Ok((parse::operator(name, text("param")?, limit)?, limit))
}

/// Parses JSON; `None` if it is none.
fn json(text: &str) -> Option<Value> {
    let mut reader = Reader { rest: text };
    let value = reader.value(MAX_DEPTH)?;
    reader.space();
    reader.rest.is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Takes `mark` if it comes next.
    fn takes(&mut self, mark: &str) -> bool {
        self.space();
        match self.rest.strip_prefix(mark) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        let depth = depth.checked_sub(1)?;
        self.space();
        match self.rest.bytes().next()? {
            b'{' => self.object(depth),
            b'[' => self.list(depth),
            b'"' => Some(Value::String(self.string()?.into())),
            b'-' | b'0'..=b'9' => self.number(),
            _ if self.takes("true") => Some(Value::Bool(true)),
            _ if self.takes("false") => Some(Value::Bool(false)),
            _ => self.takes("null").then_some(Value::Null),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        let mut members = Vec::new();
        if !self.takes("{") || self.takes("}") {
            return Some(Value::Object(members));
        }
        loop {
            self.space();
            let name = self.string()?;
            if !self.takes(":") {
                return None;
            }
            members.push((name.into(), self.value(depth)?));
            if self.takes("}") {
                return Some(Value::Object(members));
            }
            if !self.takes(",") {
                return None;
            }
        }
    }

    fn list(&mut self, depth: usize) -> Option<Value> {
        let mut values = Vec::new();
        if !self.takes("[") || self.takes("]") {
            return Some(Value::List(values));
        }
        loop {
            values.push(self.value(depth)?);
            if self.takes("]") {
                return Some(Value::List(values));
            }
            if !self.takes(",") {
                return None;
            }
        }
    }

    fn number(&mut self) -> Option<Value> {
        let of_number = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
        let end = self.rest.bytes().position(|byte| !of_number(byte));
        let (number, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        number.parse::<f64>().ok()?;
        Some(Value::Number(number.into()))
    }

    /// A text in quotes.
    fn string(&mut self) -> Option<String> {
        let mut out = String::new();
        let mut rest = self.rest.strip_prefix('"')?;
        loop {
            let at = rest.find(['"', '\\'])?;
            let (plain, mark) = rest.split_at(at);
            if plain.bytes().any(|byte| byte < b' ') {
                return None;
            }
            out.push_str(plain);
            if let Some(after) = mark.strip_prefix('"') {
                self.rest = after;
                return Some(out);
            }
            let (character, after) = escape(&mark[1..])?;
            out.push(character);
            rest = after;
        }
    }
}

/// What a `\` and the text behind it stand for, and what comes then.
fn escape(text: &str) -> Option<(char, &str)> {
    let mut rest = text.chars();
    let plain = match rest.next()? {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'u' => return unicode(rest.as_str()),
        same @ ('"' | '\\' | '/') => same,
        _ => return None,
    };
    Some((plain, rest.as_str()))
}

/// `XXXX`, or a pair of surrogates.
fn unicode(text: &str) -> Option<(char, &str)> {
    // Digits alone: a sign is taken for a number's.
    let hex = |text: &&str| text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let unit = |text: &str| u32::from_str_radix(text.get(..4).filter(hex)?, 16).ok();
    let high = unit(text)?;
    if let Some(found) = char::from_u32(high) {
        return Some((found, &text[4..]));
    }
    let low = unit(text[4..].strip_prefix("\\u")?)?;
    let pair = [u16::try_from(high).ok()?, u16::try_from(low).ok()?];
    let found = char::decode_utf16(pair).next()?.ok()?;
    Some((found, &text[10..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_read() {
        for (text, wanted) in [
            (
                "\"a\\u0029\\n\\ud83d\\ude00\"",
                Some(Value::String("a)\n😀".into())),
            ),
            (
                " [1, -2.5e3 ,true,null]",
                Some(Value::List(vec![
                    Value::Number("1".into()),
                    Value::Number("-2.5e3".into()),
                    Value::Bool(true),
                    Value::Null,
                ])),
            ),
            (
                "{\"a\":{},\"b\":[]}",
                Some(Value::Object(vec![
                    ("a".into(), Value::Object(Vec::new())),
                    ("b".into(), Value::List(Vec::new())),
                ])),
            ),
            ("{\"a\":1,}", None),
            ("[1 2]", None),
            ("\"\\ud83d\"", None),
            ("\"\\u00", None),
            ("\"\n\"", None),
            ("1 2", None),
            ("", None),
        ] {
            assert_eq!(json(text), wanted, "{text}");
        }
        assert_eq!(json(&"[".repeat(1 << 20)), None);
    }
}
