//! JSON templates whose leaves are formats, and bodies that are text or JSON.

use std::io::Write as _;

use http::HeaderValue;

use super::{FormatContext, FormatError, Formatter, Operator};
use crate::{
    model::{BodyFormat, FormatKind, JsonFormat, Name, Value},
    telemetry::record::Wants,
};

/// A compiled JSON template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonFormatter {
    members: Vec<(Name, Node)>,
    omit_empty: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Leaf(Formatter),
    Constant(Box<[u8]>),
    Object(Vec<(Name, Node)>),
    List(Vec<Node>),
}

impl JsonFormatter {
    /// Compiles a template. With `omit_empty` members without a value are left out, else they are `null`.
    ///
    /// # Errors
    ///
    /// [`FormatError`] of the first leaf that does not parse.
    pub fn new(members: &[(Name, JsonFormat)], omit_empty: bool) -> Result<Self, FormatError> {
        Ok(Self {
            members: object(members)?,
            omit_empty,
        })
    }

    /// Appends the object, without a newline.
    pub fn write<C: FormatContext + ?Sized>(&self, context: &C, out: &mut Vec<u8>) {
        self.write_object(&self.members, context, out);
    }

    fn write_object<C: FormatContext + ?Sized>(
        &self,
        members: &[(Name, Node)],
        context: &C,
        out: &mut Vec<u8>,
    ) {
        out.push(b'{');
        let mut first = true;
        for (name, node) in members {
            let start = out.len();
            if !first {
                out.push(b',');
            }
            write_text(name.as_bytes(), out);
            out.push(b':');
            if self.write_node(node, context, out) || !self.omit_empty {
                first = false;
            } else {
                out.truncate(start);
            }
        }
        out.push(b'}');
    }

    /// `false` if there was no value, and `null` was written.
    fn write_node<C: FormatContext + ?Sized>(
        &self,
        node: &Node,
        context: &C,
        out: &mut Vec<u8>,
    ) -> bool {
        match node {
            Node::Constant(text) => out.extend_from_slice(text),
            Node::Object(members) => self.write_object(members, context, out),
            Node::List(nodes) => {
                out.push(b'[');
                for (index, node) in nodes.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    self.write_node(node, context, out);
                }
                out.push(b']');
            }
            Node::Leaf(format) => return self.write_leaf(format, context, out),
        }
        true
    }

    fn write_leaf<C: FormatContext + ?Sized>(
        &self,
        format: &Formatter,
        context: &C,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some((operator, limit)) = format.single() else {
            let mut text = Vec::new();
            let missing: &[u8] = if self.omit_empty { b"" } else { b"-" };
            format.write(context, missing, &mut text);
            write_text(&text, out);
            return true;
        };
        write_single(operator, limit, context, out) || null(out)
    }
}

/// The value of one operator, with its type; `false` if there is none, and nothing was written.
fn write_single<C: FormatContext + ?Sized>(
    operator: &Operator,
    limit: Option<usize>,
    context: &C,
    out: &mut Vec<u8>,
) -> bool {
    match operator {
        Operator::Metadata(source, namespace, path) => {
            match context.metadata(*source, namespace, path) {
                Some(value) if *value != Value::Null => write_value(&value, out),
                _ => return false,
            }
        }
        // What it is cut to is a text.
        Operator::Coalesce(all) if limit.is_none() => {
            return all
                .iter()
                .any(|(inner, limit)| write_single(inner, *limit, context, out));
        }
        _ => {
            let mut text = Vec::new();
            if !operator.write_part(limit, context, &mut text) {
                return false;
            }
            if operator.is_number() && text.iter().all(u8::is_ascii_digit) && !text.is_empty() {
                out.extend_from_slice(&text);
            } else {
                write_text(&text, out);
            }
        }
    }
    true
}

fn null(out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(b"null");
    false
}

fn object(members: &[(Name, JsonFormat)]) -> Result<Vec<(Name, Node)>, FormatError> {
    members
        .iter()
        .map(|(name, format)| Ok((name.clone(), node(format)?)))
        .collect()
}

fn node(format: &JsonFormat) -> Result<Node, FormatError> {
    Ok(match format {
        JsonFormat::Leaf(format) => Node::Leaf(Formatter::new(format)?),
        JsonFormat::Constant(value) => {
            let mut text = Vec::new();
            write_value(value, &mut text);
            Node::Constant(text.into())
        }
        JsonFormat::Object(members) => Node::Object(object(members)?),
        JsonFormat::List(nodes) => Node::List(nodes.iter().map(node).collect::<Result<_, _>>()?),
    })
}

/// Appends a value as JSON.
pub(super) fn write_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(text) => out.extend_from_slice(text.as_bytes()),
        Value::String(text) => write_text(text.as_bytes(), out),
        Value::List(values) => {
            out.push(b'[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(value, out);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            out.push(b'{');
            for (index, (name, value)) in members.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_text(name.as_bytes(), out);
                out.push(b':');
                write_value(value, out);
            }
            out.push(b'}');
        }
    }
}

/// Appends text in quotes. Bytes that are no UTF-8 become U+FFFD.
fn write_text(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for chunk in text.utf8_chunks() {
        for byte in chunk.valid().bytes() {
            match byte {
                b'"' => out.extend_from_slice(b"\\\""),
                b'\\' => out.extend_from_slice(b"\\\\"),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                0..0x20 => {
                    // Writing to a `Vec` cannot fail.
                    let _ = write!(out, "\\u{byte:04x}");
                }
                byte => out.push(byte),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.push(b'"');
}

/// A compiled [`BodyFormat`]: the body of a local reply or a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyFormatter {
    kind: BodyKind,
    wants: Wants,
    /// `content-type` of the body.
    pub content_type: HeaderValue,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum BodyKind {
    Text(Formatter),
    Json(JsonFormatter),
}

impl BodyFormatter {
    /// Compiles `format`. Without a content type of its own, text is `text/plain` and JSON `application/json`.
    ///
    /// # Errors
    ///
    /// [`FormatError`] of the first part that does not parse.
    pub fn new(format: &BodyFormat) -> Result<Self, FormatError> {
        let (kind, default) = match &format.format {
            FormatKind::Text(text) => (BodyKind::Text(Formatter::new(text)?), "text/plain"),
            FormatKind::Json(members) => (
                BodyKind::Json(JsonFormatter::new(members, false)?),
                "application/json",
            ),
        };
        Ok(Self {
            kind,
            wants: Wants::of(&format.format)?,
            content_type: format
                .content_type
                .clone()
                .unwrap_or(HeaderValue::from_static(default)),
        })
    }

    /// What it reads of a request.
    pub(crate) fn wants(&self) -> &Wants {
        &self.wants
    }

    /// Appends the body. As in Envoy, JSON ends with a newline, and what is not known is `-` in text.
    pub fn write<C: FormatContext + ?Sized>(&self, context: &C, out: &mut Vec<u8>) {
        match &self.kind {
            BodyKind::Text(format) => format.write(context, b"-", out),
            BodyKind::Json(format) => {
                format.write(context, out);
                out.push(b'\n');
            }
        }
    }
}
