//! Writes `mesh-xds/src/json/schema.bin`: names, numbers and types of every message of Envoy's API, and its validation
//! rules, as a table that needs no decoding (read by `mesh-xds/src/json/schema.rs`, which documents the form).

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind,
    MessageDescriptor, ReflectMessage, Value,
};

use crate::process;
use crate::workspace;

/// Where the table is committed, in the workspace.
const TARGET: &str = "mesh-xds/src/json/schema.bin";

/// Packages whose messages are not configuration.
const SKIPPED: [&str; 2] = ["validate.", "envoy.annotations."];

/// Writes the table, or with `check` only compares it with the committed one.
///
/// # Errors
///
/// A sentence, if `envoy-types` is not there, or the committed table differs.
pub(crate) fn run(check: bool) -> Result<(), String> {
    let source = descriptors()?;
    let bytes = std::fs::read(&source).map_err(|error| format!("{}: {error}", source.display()))?;
    let mut pool = DescriptorPool::decode(bytes.as_slice()).map_err(|error| error.to_string())?;
    let added = [
        typed_struct("udpa.type.v1"),
        typed_struct("xds.type.v3"),
        istio_alpn(),
    ];
    pool.add_file_descriptor_protos(added)
        .map_err(|error| error.to_string())?;
    let table = Table::build(&pool).write();
    let target = workspace::root().join(TARGET);
    if !check {
        return std::fs::write(target, table).map_err(|error| format!("{TARGET}: {error}"));
    }
    match std::fs::read(target) {
        Ok(old) if old == table => Ok(()),
        _ => Err(format!("{TARGET} is stale: run `cargo xtask schema`")),
    }
}

/// The descriptor set that lies in the package `envoy-types`.
fn descriptors() -> Result<PathBuf, String> {
    let mut command = workspace::cargo(["metadata", "--locked", "--format-version", "1"]);
    let output = process::output(&mut command).map_err(|error| error.to_string())?;
    let metadata: serde_json::Value =
        serde_json::from_str(&output).map_err(|error| error.to_string())?;
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "envoy-types")
        .and_then(|package| package["manifest_path"].as_str())
        .ok_or("no package envoy-types in the workspace")?;
    Ok(Path::new(manifest).with_file_name("src/generated/types.bin"))
}

fn plain_field(
    name: &str,
    number: i32,
    label: Label,
    kind: Type,
    of: Option<&str>,
) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(label as i32),
        r#type: Some(kind as i32),
        type_name: of.map(str::to_owned),
        ..Default::default()
    }
}

fn file(package: &str, message: DescriptorProto) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(format!("{}.proto", package.replace('.', "/"))),
        package: Some(package.to_owned()),
        dependency: vec!["google/protobuf/struct.proto".to_owned()],
        syntax: Some("proto3".to_owned()),
        message_type: vec![message],
        ..Default::default()
    }
}

/// A TypedStruct, which `envoy-types` lacks: the older one, which istiod still writes, or the present one.
fn typed_struct(package: &str) -> FileDescriptorProto {
    let of = Some(".google.protobuf.Struct");
    let message = DescriptorProto {
        name: Some("TypedStruct".to_owned()),
        field: vec![
            plain_field("type_url", 1, Label::Optional, Type::String, None),
            plain_field("value", 2, Label::Optional, Type::Message, of),
        ],
        ..Default::default()
    };
    file(package, message)
}

/// The settings of Istio's ALPN filter, which istiod writes as a message of its own.
fn istio_alpn() -> FileDescriptorProto {
    const PACKAGE: &str = "istio.envoy.config.filter.http.alpn.v2alpha1";
    let value = |(number, name): (i32, &str)| EnumValueDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        ..Default::default()
    };
    let protocol = EnumDescriptorProto {
        name: Some("Protocol".to_owned()),
        value: [(0, "HTTP10"), (1, "HTTP11"), (2, "HTTP2")]
            .map(value)
            .to_vec(),
        ..Default::default()
    };
    let of = format!(".{PACKAGE}.FilterConfig.Protocol");
    let replacement = DescriptorProto {
        name: Some("AlpnOverride".to_owned()),
        field: vec![
            plain_field(
                "upstream_protocol",
                1,
                Label::Optional,
                Type::Enum,
                Some(&of),
            ),
            plain_field("alpn_override", 2, Label::Repeated, Type::String, None),
        ],
        ..Default::default()
    };
    let of = format!(".{PACKAGE}.FilterConfig.AlpnOverride");
    let message = DescriptorProto {
        name: Some("FilterConfig".to_owned()),
        field: vec![plain_field(
            "alpn_override",
            1,
            Label::Repeated,
            Type::Message,
            Some(&of),
        )],
        nested_type: vec![replacement],
        enum_type: vec![protocol],
        ..Default::default()
    };
    file(PACKAGE, message)
}

/// The records of the table, in the order of the file.
#[derive(Default)]
struct Table {
    messages: Vec<u8>,
    fields: Vec<u8>,
    enums: Vec<u8>,
    values: Vec<u8>,
    rules: Vec<u8>,
    strings: Strings,
}

/// The text of all names, each once.
#[derive(Default)]
struct Strings {
    text: String,
    seen: HashMap<String, u32>,
}

impl Strings {
    fn add(&mut self, name: &str) -> u32 {
        if let Some(at) = self.seen.get(name) {
            return *at;
        }
        let at = u32::try_from(self.text.len()).expect("names take less than 4 GiB");
        self.text.push_str(name);
        self.seen.insert(name.to_owned(), at);
        at
    }
}

fn short(value: usize) -> [u8; 2] {
    u16::try_from(value)
        .expect("Envoy's API has fewer than 65,536 of each")
        .to_le_bytes()
}

fn byte(value: usize) -> u8 {
    u8::try_from(value).expect("Envoy's messages have fewer than 256 of each")
}

impl Table {
    fn build(pool: &DescriptorPool) -> Self {
        let wanted = |name: &str| !SKIPPED.iter().any(|package| name.starts_with(package));
        let mut messages: Vec<_> = pool
            .all_messages()
            .filter(|message| wanted(message.full_name()))
            .collect();
        messages.sort_by(|a, b| a.full_name().cmp(b.full_name()));
        let mut enums: Vec<_> = pool
            .all_enums()
            .filter(|item| wanted(item.full_name()))
            .collect();
        enums.sort_by(|a, b| a.full_name().cmp(b.full_name()));
        let mut index = HashMap::new();
        for (at, message) in messages.iter().enumerate() {
            index.insert(message.full_name().to_owned(), at);
        }
        for (at, item) in enums.iter().enumerate() {
            index.insert(item.full_name().to_owned(), at);
        }
        let mut table = Self::default();
        for message in &messages {
            table.message(message, &index);
        }
        for item in &enums {
            table.enumeration(item);
        }
        table
    }

    fn message(&mut self, message: &MessageDescriptor, index: &HashMap<String, usize>) {
        let mut fields: Vec<_> = message.fields().collect();
        fields.sort_by(|a, b| a.name().cmp(b.name()));
        let name = self.strings.add(message.full_name());
        let first = u32::try_from(self.fields.len() / 20).expect("fewer than 2^32 fields");
        let required = message
            .oneofs()
            .enumerate()
            .filter(|(_, oneof)| flag(&oneof.options(), "validate.required"))
            .fold(0u16, |bits, (at, _)| bits | 1 << at);
        self.messages.extend(name.to_le_bytes());
        self.messages.extend(first.to_le_bytes());
        self.messages.extend(short(message.full_name().len()));
        self.messages.extend(short(fields.len()));
        self.messages.extend(required.to_le_bytes());
        self.messages.extend([0, 0]);
        for field in fields {
            self.field(&field, index);
        }
    }

    fn field(&mut self, field: &FieldDescriptor, index: &HashMap<String, usize>) {
        let target = match field.kind() {
            Kind::Message(message) => index.get(message.full_name()),
            Kind::Enum(item) => index.get(item.full_name()),
            _ => None,
        };
        let oneof = field.containing_oneof().filter(|oneof| {
            // The oneof around a proto3 `optional` is the compiler's own.
            !(field.field_descriptor_proto().proto3_optional() && oneof.fields().len() == 1)
        });
        let oneof = oneof.map_or(0, |oneof| {
            let siblings = field.parent_message().oneofs();
            1 + siblings
                .take_while(|other| other.name() != oneof.name())
                .count()
        });
        let flags = u8::from(field.cardinality() == Cardinality::Repeated)
            | u8::from(field.is_packed()) << 1
            | u8::from(field.is_map()) << 2
            | u8::from(field.supports_presence()) << 3
            | u8::from(flag_of(&field.options(), "deprecated")) << 4;
        let first = self.rules.len() / 12;
        let options = field.options();
        if let Some(Value::Message(rules)) = extension(&options, "validate.rules") {
            self.constraints(&rules, 0);
        }
        let count = self.rules.len() / 12 - first;
        let name = self.strings.add(field.name());
        self.fields.extend(name.to_le_bytes());
        self.fields.extend(field.number().to_le_bytes());
        self.fields.extend(short(target.copied().unwrap_or(0xffff)));
        self.fields.extend(short(first));
        self.fields.extend([
            byte(field.name().len()),
            kind_code(&field.kind()),
            flags,
            byte(oneof),
            byte(count),
            0,
            0,
            0,
        ]);
    }

    /// Adds the rules that the reader checks; `scope` 1 stands for the items of a list, 2 for the keys of a map.
    fn constraints(&mut self, rules: &DynamicMessage, scope: u8) {
        for (family, value) in rules.fields() {
            let Value::Message(inner) = value else {
                continue;
            };
            for (rule, value) in inner.fields() {
                match (rule.name(), value) {
                    ("items", Value::Message(items)) if scope == 0 => self.constraints(items, 1),
                    ("keys", Value::Message(keys)) if scope == 0 => self.constraints(keys, 2),
                    ("in", Value::List(words)) if family.name() == "string" => {
                        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
                        self.text_rule(14, scope, &words.join("\n"));
                    }
                    ("prefix", Value::String(text)) => self.text_rule(15, scope, text),
                    ("suffix", Value::String(text)) => self.text_rule(16, scope, text),
                    ("not_in", Value::List(numbers)) => {
                        for number in numbers.iter().filter_map(Value::as_i32) {
                            self.rule(17, scope, i64::from(number));
                        }
                    }
                    (name, value) => {
                        if let Some((code, limit)) = constraint(family.name(), name, value) {
                            self.rule(code, scope, limit);
                        }
                    }
                }
            }
        }
    }

    fn rule(&mut self, code: u8, scope: u8, limit: i64) {
        self.rules.extend([code, scope, 0, 0]);
        self.rules.extend(limit.to_le_bytes());
    }

    /// A rule about a text: its limit holds offset and length.
    fn text_rule(&mut self, code: u8, scope: u8, text: &str) {
        let at = i64::from(self.strings.add(text));
        let len = i64::try_from(text.len()).expect("a rule is short");
        self.rule(code, scope, len << 32 | at);
    }

    fn enumeration(&mut self, item: &EnumDescriptor) {
        let name = self.strings.add(item.full_name());
        let first = u32::try_from(self.values.len() / 12).expect("fewer than 2^32 values");
        let values: Vec<_> = item.values().collect();
        self.enums.extend(name.to_le_bytes());
        self.enums.extend(first.to_le_bytes());
        self.enums.extend(short(item.full_name().len()));
        self.enums.extend(short(values.len()));
        for value in values {
            let name = self.strings.add(value.name());
            self.values.extend(name.to_le_bytes());
            self.values.extend(value.number().to_le_bytes());
            self.values.extend(short(value.name().len()));
            self.values.extend([0, 0]);
        }
    }

    fn write(self) -> Vec<u8> {
        let mut out = b"MXS1".to_vec();
        let sections = [
            (&self.messages, 16),
            (&self.fields, 20),
            (&self.enums, 12),
            (&self.values, 12),
            (&self.rules, 12),
        ];
        for (section, size) in sections {
            let count = u32::try_from(section.len() / size).expect("fewer than 2^32 records");
            out.extend(count.to_le_bytes());
        }
        for (section, _) in sections {
            out.extend(section);
        }
        out.extend(self.strings.text.as_bytes());
        out
    }
}

/// The rule's code and limit, for the rules that are kept.
fn constraint(family: &str, name: &str, value: &Value) -> Option<(u8, i64)> {
    let nanos = |value: &Value| -> Option<i64> {
        let message = value.as_message()?;
        let part = |name| message.get_field_by_name(name);
        let seconds = part("seconds")?.as_i64()?;
        let nanos = i64::from(part("nanos")?.as_i32()?);
        Some(seconds * 1_000_000_000 + nanos)
    };
    let code = match (family, name) {
        ("message" | "any" | "duration", "required") => return value.as_bool()?.then_some((1, 0)),
        ("string", "min_len" | "min_bytes") | ("bytes", "min_len") => 2,
        ("string", "max_len" | "max_bytes") | ("bytes", "max_len") => 3,
        ("enum", "defined_only") => return value.as_bool()?.then_some((4, 0)),
        ("bool", "const") => return value.as_bool()?.then_some((18, 1)),
        ("repeated", "min_items") | ("map", "min_pairs") => 5,
        ("repeated", "max_items") | ("map", "max_pairs") => 6,
        (_, "ignore_empty") => return value.as_bool()?.then_some((13, 0)),
        (_, "gt") => 7,
        (_, "gte") => 8,
        (_, "lt") => 9,
        (_, "lte") => 10,
        ("string", "well_known_regex") => {
            return match value.as_enum_number()? {
                1 => Some((11, 0)),
                2 => Some((12, 0)),
                _ => None,
            };
        }
        _ => return None,
    };
    let limit = if family == "duration" {
        nanos(value)?
    } else {
        integer(value)?
    };
    Some((code, limit))
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::I32(v) => Some(i64::from(*v)),
        Value::I64(v) => Some(*v),
        Value::U32(v) => Some(i64::from(*v)),
        Value::U64(v) => i64::try_from(*v).ok(),
        // All limits of doubles are integers.
        Value::F64(v) => whole(*v),
        Value::F32(v) => whole(f64::from(*v)),
        _ => None,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the value is compared")]
fn whole(value: f64) -> Option<i64> {
    let number = value as i64;
    (number.to_string() == value.to_string()).then_some(number)
}

fn extension(options: &DynamicMessage, name: &str) -> Option<Value> {
    let extension = options
        .descriptor()
        .parent_pool()
        .get_extension_by_name(name)?;
    options
        .has_extension(&extension)
        .then(|| options.get_extension(&extension).into_owned())
}

fn flag(options: &DynamicMessage, name: &str) -> bool {
    matches!(extension(options, name), Some(Value::Bool(true)))
}

fn flag_of(options: &DynamicMessage, name: &str) -> bool {
    options
        .get_field_by_name(name)
        .is_some_and(|value| matches!(*value, Value::Bool(true)))
}

/// The number of `FieldDescriptorProto.Type`.
fn kind_code(kind: &Kind) -> u8 {
    match kind {
        Kind::Double => 1,
        Kind::Float => 2,
        Kind::Int64 => 3,
        Kind::Uint64 => 4,
        Kind::Int32 => 5,
        Kind::Fixed64 => 6,
        Kind::Fixed32 => 7,
        Kind::Bool => 8,
        Kind::String => 9,
        Kind::Message(_) => 11,
        Kind::Bytes => 12,
        Kind::Uint32 => 13,
        Kind::Enum(_) => 14,
        Kind::Sfixed32 => 15,
        Kind::Sfixed64 => 16,
        Kind::Sint32 => 17,
        Kind::Sint64 => 18,
    }
}
