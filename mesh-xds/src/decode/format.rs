//! Texts and JSON templates with `%…%` operators (`config.core.v3.SubstitutionFormatString`).

use envoy_types::pb::{
    envoy::config::core::v3::{
        DataSource, SubstitutionFormatString, data_source::Specifier, substitution_format_string,
    },
    google::protobuf::{Struct, Value, value::Kind},
};
use http::HeaderValue;
use mesh_core::{
    model::{BodyFormat, Format, FormatKind, JsonFormat, Name},
    route::format::{Formatter, Operator},
};

use super::{Context, common::json_value};

/// The most bytes that a file named in the configuration may have.
const MAX_FILE: u64 = 1 << 20;

/// A text with operators; refuses what does not parse.
pub(crate) fn text(cx: &mut Context, field: &str, text: &str) -> Option<Format> {
    match Formatter::parse(text) {
        Ok(format) => {
            for name in format.operators().filter_map(Operator::without_value) {
                cx.note(
                    field,
                    format_args!("ignored: %{name}% has no value here yet"),
                );
            }
            Some(Format { text: text.into() })
        }
        Err(error) => {
            cx.reject(field, error);
            None
        }
    }
}

/// A format and how it is used.
pub(crate) struct Substitution {
    /// The text or template.
    pub(crate) kind: FormatKind,
    /// `content-type` of a body.
    pub(crate) content_type: Option<HeaderValue>,
    /// Leaves without a value are left out.
    pub(crate) omit_empty: bool,
}

/// A format string.
pub(crate) fn substitution(
    cx: &mut Context,
    value: &SubstitutionFormatString,
) -> Option<Substitution> {
    let SubstitutionFormatString {
        omit_empty_values,
        content_type,
        formatters,
        json_format_options,
        format,
    } = value;
    for (index, formatter) in formatters.iter().enumerate() {
        cx.item("formatters", index, |cx| {
            formatter_extension(
                cx,
                &formatter.name,
                formatter
                    .typed_config
                    .as_ref()
                    .map_or("", |any| &any.type_url),
            )
        });
    }
    cx.ignored(
        "json_format_options",
        json_format_options
            .as_ref()
            .is_some_and(|options| options.sort_properties),
    );
    let kind = kind(cx, format.as_ref())?;
    let content_type = match content_type.as_str() {
        "" => None,
        value => header_value(cx, "content_type", value),
    };
    Some(Substitution {
        kind,
        content_type,
        omit_empty: *omit_empty_values,
    })
}

fn kind(
    cx: &mut Context,
    format: Option<&substitution_format_string::Format>,
) -> Option<FormatKind> {
    Some(match format {
        Some(substitution_format_string::Format::TextFormat(template)) => {
            FormatKind::Text(text(cx, "text_format", template)?)
        }
        Some(substitution_format_string::Format::JsonFormat(template)) => {
            cx.field("json_format", |cx| json(cx, template))?
        }
        Some(substitution_format_string::Format::TextFormatSource(source)) => {
            let bytes = cx.field("text_format_source", |cx| data_source(cx, source))?;
            match std::str::from_utf8(&bytes) {
                Ok(template) => FormatKind::Text(text(cx, "text_format_source", template)?),
                Err(_) => {
                    cx.reject("text_format_source", "not UTF-8");
                    return None;
                }
            }
        }
        None => {
            cx.reject(
                "",
                "one of text_format, json_format, text_format_source must be set",
            );
            return None;
        }
    })
}

/// Operators that extensions add: those that are built in need none, others are refused by name.
fn formatter_extension(cx: &mut Context, name: &str, url: &str) {
    const BUILT_IN: [&str; 2] = [
        "envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery",
        "envoy.extensions.formatter.metadata.v3.Metadata",
    ];
    let kind = url.rsplit('/').next().unwrap_or(url);
    if !BUILT_IN.contains(&kind) {
        cx.reject(
            "",
            format_args!("formatter {name} ({kind}) is not supported"),
        );
    }
}

/// The body of a local reply or direct response.
pub(crate) fn body(cx: &mut Context, value: &SubstitutionFormatString) -> Option<BodyFormat> {
    let substitution = substitution(cx, value)?;
    cx.ignored("omit_empty_values", substitution.omit_empty);
    Some(BodyFormat {
        format: substitution.kind,
        content_type: substitution.content_type,
    })
}

/// A JSON template.
pub(crate) fn json(cx: &mut Context, template: &Struct) -> Option<FormatKind> {
    Some(FormatKind::Json(members(cx, template)?))
}

fn members(cx: &mut Context, template: &Struct) -> Option<Vec<(Name, JsonFormat)>> {
    let mut fields: Vec<_> = template.fields.iter().collect();
    fields.sort_by_key(|(name, _)| *name);
    let mut out = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        let leaf = cx.field(name, |cx| leaf(cx, value))?;
        out.push((Name::from(name.as_str()), leaf));
    }
    Some(out)
}

fn leaf(cx: &mut Context, value: &Value) -> Option<JsonFormat> {
    Some(match &value.kind {
        Some(Kind::StringValue(template)) => JsonFormat::Leaf(text(cx, "", template)?),
        Some(Kind::StructValue(inner)) => JsonFormat::Object(members(cx, inner)?),
        Some(Kind::ListValue(list)) => JsonFormat::List(cx.each("", &list.values, leaf)),
        _ => JsonFormat::Constant(json_value(value)),
    })
}

/// The bytes of a data source: inline, from a file (at most 1 MiB) or from the environment.
pub(crate) fn data_source(cx: &mut Context, source: &DataSource) -> Option<bytes::Bytes> {
    cx.ignored("watched_directory", source.watched_directory.is_some());
    match &source.specifier {
        Some(Specifier::InlineString(text)) => Some(bytes::Bytes::copy_from_slice(text.as_bytes())),
        Some(Specifier::InlineBytes(bytes)) => Some(bytes::Bytes::copy_from_slice(bytes)),
        Some(Specifier::EnvironmentVariable(name)) => match std::env::var(name) {
            Ok(text) => Some(text.into()),
            Err(error) => {
                cx.reject("environment_variable", format_args!("{name}: {error}"));
                None
            }
        },
        Some(Specifier::Filename(path)) => match read(path) {
            Ok(bytes) => Some(bytes.into()),
            Err(error) => {
                cx.reject("filename", format_args!("{path}: {error}"));
                None
            }
        },
        None => {
            cx.reject(
                "",
                "one of filename, inline_bytes, inline_string, environment_variable must be set",
            );
            None
        }
    }
}

fn read(path: &str) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other("larger than 1 MiB"));
    }
    Ok(bytes)
}

/// The value of a header.
pub(crate) fn header_value(cx: &mut Context, field: &str, value: &str) -> Option<HeaderValue> {
    match HeaderValue::from_str(value) {
        Ok(value) => Some(value),
        Err(error) => {
            cx.reject(field, format_args!("{value:?}: {error}"));
            None
        }
    }
}
