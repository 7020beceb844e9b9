//! From RE2's syntax to that of regex-syntax, which parses it to a tree.
//!
//! What RE2 refuses is refused here; what the two read differently is written out: ASCII classes, escapes, literal braces,
//! `\Q…\E`, `\C`, sets of flags. The tree then means what RE2 means.

use std::{fmt::Write as _, iter::Peekable, str::Chars};

use super::class::{self, Set};

/// Largest count of a repetition, also of nested ones multiplied.
const MAX_REPEAT: u32 = 1000;

/// Rewrites `pattern`; the error is a reason.
pub(super) fn translate(pattern: &str) -> Result<String, String> {
    let mut translator = Translator {
        rest: pattern.chars().peekable(),
        out: String::with_capacity(pattern.len() + 16),
        frames: vec![Frame::default()],
    };
    while let Some(char) = translator.rest.next() {
        translator.token(char)?;
    }
    match translator.frames.len() {
        1 => Ok(translator.out),
        _ => Err("missing )".to_owned()),
    }
}

struct Translator<'p> {
    rest: Peekable<Chars<'p>>,
    out: String,
    /// The open groups; the first stands for the whole pattern.
    frames: Vec<Frame>,
}

/// What is known of a group that is still open.
#[derive(Default)]
struct Frame {
    /// Where a repetition of the last operand goes, and how often the operand repeats something at most.
    operand: Option<(usize, u32)>,
    /// The last token was a repetition.
    repeated: bool,
    /// The most that anything in the group is repeated.
    most: u32,
}

impl Translator<'_> {
    fn frame(&mut self) -> &mut Frame {
        self.frames
            .last_mut()
            .expect("the whole pattern is never closed")
    }

    /// Ends an operand that was just written.
    fn operand(&mut self, most: u32) {
        let end = self.out.len();
        let frame = self.frame();
        frame.operand = Some((end, most));
        frame.repeated = false;
        frame.most = frame.most.max(most);
    }

    fn token(&mut self, char: char) -> Result<(), String> {
        match char {
            '|' => {
                self.out.push('|');
                let frame = self.frame();
                (frame.operand, frame.repeated) = (None, false);
                Ok(())
            }
            '(' => self.open(),
            ')' => {
                let inner = self.frames.pop().filter(|_| !self.frames.is_empty());
                let inner = inner.ok_or("unexpected )")?;
                self.out.push(')');
                self.operand(inner.most.max(1));
                Ok(())
            }
            '^' | '$' | '.' => {
                self.out.push(char);
                self.operand(1);
                Ok(())
            }
            '[' => {
                let set = self.class()?;
                set.write(&mut self.out);
                self.operand(1);
                Ok(())
            }
            '*' | '+' | '?' => self.repeat(char.to_string(), None),
            '{' => match self.counted() {
                Some((low, high)) => self.count(low, high),
                None => self.literal('{'),
            },
            '\\' => self.escape(),
            other => self.literal(other),
        }
    }

    fn literal(&mut self, char: char) -> Result<(), String> {
        write_char(char, &mut self.out);
        self.operand(1);
        Ok(())
    }

    /// `op` goes behind the operand, even if flags were written after it.
    fn repeat(&mut self, mut op: String, times: Option<u32>) -> Result<(), String> {
        let frame = self.frame();
        let Some((at, most)) = frame.operand else {
            return Err(format!("no argument for repetition operator: {op}"));
        };
        if frame.repeated {
            return Err(format!("bad repetition operator: {op}"));
        }
        if self.rest.next_if_eq(&'?').is_some() {
            op.push('?');
        }
        let most = match times {
            Some(times) => most * times.max(1),
            None => most,
        };
        if most > MAX_REPEAT {
            return Err(format!("invalid repetition size: {op}"));
        }
        self.out.insert_str(at, &op);
        let frame = self.frame();
        frame.operand = Some((at + op.len(), most));
        frame.repeated = true;
        frame.most = frame.most.max(most);
        Ok(())
    }

    /// Reads `n}`, `n,}` or `n,m}`; what is none of these is literal text.
    fn counted(&mut self) -> Option<(u32, Option<u32>)> {
        let mut look = self.rest.clone();
        let low = number(&mut look)?;
        let high = match look.next()? {
            '}' => Some(low),
            ',' if look.peek() == Some(&'}') => {
                look.next();
                None
            }
            ',' => {
                let high = number(&mut look)?;
                if look.next()? != '}' {
                    return None;
                }
                Some(high)
            }
            _ => return None,
        };
        self.rest = look;
        Some((low, high))
    }

    fn count(&mut self, low: u32, high: Option<u32>) -> Result<(), String> {
        let op = match high {
            Some(high) if high == low => format!("{{{low}}}"),
            Some(high) => format!("{{{low},{high}}}"),
            None => format!("{{{low},}}"),
        };
        let most = high.unwrap_or(low);
        if low > MAX_REPEAT || most > MAX_REPEAT || most < low {
            return Err(format!("invalid repetition size: {op}"));
        }
        self.repeat(op, Some(most))
    }

    fn open(&mut self) -> Result<(), String> {
        if self.rest.next_if_eq(&'?').is_none() {
            self.out.push('(');
            self.frames.push(Frame::default());
            return Ok(());
        }
        let mut look = self.rest.clone();
        let named = match (look.next(), look.next()) {
            (Some('P'), Some('<')) => 2,
            (Some('<'), Some(next)) if next != '=' && next != '!' => 1,
            _ => return self.flags(),
        };
        for _ in 0..named {
            self.rest.next();
        }
        self.name()?;
        // Groups are known by number; a name may be one that the other syntax refuses.
        self.out.push('(');
        self.frames.push(Frame::default());
        Ok(())
    }

    fn name(&mut self) -> Result<(), String> {
        let mut name = String::new();
        loop {
            match self.rest.next() {
                Some('>') => break,
                Some(char) => name.push(char),
                None => return Err(format!("invalid named capture group: (?P<{name}")),
            }
        }
        let word = |char: char| char == '_' || char.is_alphanumeric();
        if name.is_empty() || !name.chars().all(word) {
            return Err(format!("invalid named capture group: (?P<{name}>"));
        }
        Ok(())
    }

    /// `(?flags)` or `(?flags:`; the last setting of a flag counts.
    fn flags(&mut self) -> Result<(), String> {
        let bad = || "invalid perl operator: (?".to_owned();
        let mut flags: Vec<(char, bool)> = Vec::new();
        let (mut negated, mut seen) = (false, true);
        let group = loop {
            match self.rest.next().ok_or("missing )")? {
                flag @ ('i' | 'm' | 's' | 'U') => {
                    flags.retain(|(known, _)| *known != flag);
                    flags.push((flag, !negated));
                    seen = true;
                }
                '-' if !negated => (negated, seen) = (true, false),
                ':' => break true,
                ')' => break false,
                _ => return Err(bad()),
            }
        };
        if !seen {
            return Err(bad());
        }
        if group || !flags.is_empty() {
            self.out.push_str("(?");
            let on = flags.iter().filter(|(_, on)| *on).map(|(flag, _)| *flag);
            self.out.extend(on);
            let off: String = flags
                .iter()
                .filter(|(_, on)| !*on)
                .map(|(flag, _)| *flag)
                .collect();
            if !off.is_empty() {
                self.out.push('-');
                self.out.push_str(&off);
            }
            self.out.push(if group { ':' } else { ')' });
        }
        if group {
            self.frames.push(Frame::default());
        } else {
            self.frame().repeated = false;
        }
        Ok(())
    }

    fn escape(&mut self) -> Result<(), String> {
        let next = self.rest.peek().copied().ok_or("trailing \\")?;
        let fixed = match next {
            'A' => r"\A",
            'z' => r"\z",
            'b' => r"(?-u:\b)",
            'B' => r"(?-u:\B)",
            'C' => r"(?s-u:.)",
            'Q' => {
                self.rest.next();
                return self.quoted();
            }
            _ => {
                let set = class::perl(next).map(Ok).or_else(|| {
                    let negated = match next {
                        'p' => false,
                        'P' => true,
                        _ => return None,
                    };
                    let mut look = self.rest.clone();
                    look.next();
                    let set = class::unicode(&mut look, negated);
                    self.rest = look;
                    Some(set)
                });
                let Some(set) = set else {
                    let char = self.character()?;
                    return match char::from_u32(char) {
                        Some(char) => self.literal(char),
                        None => {
                            self.out.push_str(class::NEVER);
                            self.operand(1);
                            Ok(())
                        }
                    };
                };
                if class::perl(next).is_some() {
                    self.rest.next();
                }
                let mut whole = Set::default();
                whole.push(set?);
                whole.write(&mut self.out);
                self.operand(1);
                return Ok(());
            }
        };
        self.rest.next();
        self.out.push_str(fixed);
        self.operand(1);
        Ok(())
    }

    /// Everything up to `\E` is literal.
    fn quoted(&mut self) -> Result<(), String> {
        while let Some(char) = self.rest.next() {
            if char == '\\' && self.rest.next_if_eq(&'E').is_some() {
                break;
            }
            if char == '\\' && self.rest.next_if_eq(&'\\').is_some() {
                self.literal('\\')?;
                continue;
            }
            self.literal(char)?;
        }
        Ok(())
    }

    /// An escaped character after its `\`.
    fn character(&mut self) -> Result<u32, String> {
        let char = self.rest.next().ok_or("trailing \\")?;
        let bad = || format!("invalid escape sequence: \\{char}");
        let octal = |look: &mut Peekable<Chars<'_>>| {
            look.next_if(|char| ('0'..='7').contains(char))
                .and_then(|char| char.to_digit(8))
        };
        match char {
            '0'..='7' => {
                let mut code = char.to_digit(8).ok_or_else(bad)?;
                let mut left = 2;
                // One digit other than 0 would be a reference to a group.
                if char != '0' {
                    code = code * 8 + octal(&mut self.rest).ok_or_else(bad)?;
                    left = 1;
                }
                for _ in 0..left {
                    match octal(&mut self.rest) {
                        Some(digit) => code = code * 8 + digit,
                        None => break,
                    }
                }
                Ok(code)
            }
            'x' => self.hexadecimal().ok_or_else(bad),
            'n' => Ok(0x0a),
            'r' => Ok(0x0d),
            't' => Ok(0x09),
            'a' => Ok(0x07),
            'f' => Ok(0x0c),
            'v' => Ok(0x0b),
            _ if char.is_ascii() && !char.is_ascii_alphanumeric() => Ok(u32::from(char)),
            _ => Err(bad()),
        }
    }

    fn hexadecimal(&mut self) -> Option<u32> {
        if self.rest.next_if_eq(&'{').is_none() {
            let high = self.rest.next()?.to_digit(16)?;
            let low = self.rest.next()?.to_digit(16)?;
            return Some(high * 16 + low);
        }
        let mut code = self.rest.next()?.to_digit(16)?;
        loop {
            match self.rest.next()? {
                '}' => return Some(code),
                digit => code = code * 16 + digit.to_digit(16)?,
            }
            if code > 0x0010_ffff {
                return None;
            }
        }
    }

    /// A class after its `[`.
    fn class(&mut self) -> Result<Set, String> {
        let missing = || "missing ]".to_owned();
        let mut set = Set::default();
        set.negated = self.rest.next_if_eq(&'^').is_some();
        let mut first = true;
        loop {
            let char = *self.rest.peek().ok_or_else(missing)?;
            if char == ']' && !first {
                self.rest.next();
                return Ok(set);
            }
            first = false;
            if let Some(named) = class::posix(&mut self.rest)? {
                set.push(named);
                continue;
            }
            if char == '\\' {
                let mut look = self.rest.clone();
                look.next();
                let kind = look.peek().copied().ok_or("trailing \\")?;
                if let Some(perl) = class::perl(kind) {
                    look.next();
                    self.rest = look;
                    set.push(perl);
                    continue;
                }
                if kind == 'p' || kind == 'P' {
                    look.next();
                    let group = class::unicode(&mut look, kind == 'P')?;
                    self.rest = look;
                    set.push(group);
                    continue;
                }
            }
            let (low, high) = self.range()?;
            set.range(low, high);
        }
    }

    fn range(&mut self) -> Result<(u32, u32), String> {
        let low = self.class_character()?;
        let mut look = self.rest.clone();
        if look.next() == Some('-') && look.peek().is_some_and(|next| *next != ']') {
            self.rest = look;
            let high = self.class_character()?;
            if high < low {
                return Err("invalid character class range".to_owned());
            }
            return Ok((low, high));
        }
        Ok((low, low))
    }

    fn class_character(&mut self) -> Result<u32, String> {
        match self.rest.next() {
            Some('\\') => self.character(),
            Some(char) => Ok(u32::from(char)),
            None => Err("missing ]".to_owned()),
        }
    }
}

/// A number without a leading zero. Any that is too large stays so.
fn number(look: &mut Peekable<Chars<'_>>) -> Option<u32> {
    let first = look.next_if(char::is_ascii_digit)?;
    let mut value = first.to_digit(10)?;
    if first == '0' && look.peek().is_some_and(char::is_ascii_digit) {
        return None;
    }
    while let Some(digit) = look.next_if(char::is_ascii_digit) {
        value = value.saturating_mul(10).saturating_add(digit.to_digit(10)?);
    }
    Some(value)
}

/// Writes a character that stands for itself.
pub(super) fn write_char(char: char, out: &mut String) {
    if char.is_ascii_alphanumeric() || !char.is_ascii() {
        out.push(char);
    } else {
        // Writing to a `String` cannot fail.
        let _ = write!(out, "\\x{:02X}", u32::from(char));
    }
}
