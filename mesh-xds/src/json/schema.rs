//! Names, numbers, types and rules of every message of Envoy's API, read in place.
//!
//! `schema.bin` is written by `cargo xtask schema` from the descriptors of `envoy-types`. It holds a magic word, the
//! number of records of each section, the sections, and the text of all names. Numbers are little-endian:
//!
//! | section | record | contents |
//! |---|---|---|
//! | messages | 16 | name: offset u32; first field u32; length of name u16; fields u16; oneofs that must be set u16, a bit each |
//! | fields | 20 | name: offset u32; number u32; message or enum u16; first rule u16; length of name, type, flags, oneof + 1, rules: u8 |
//! | enums | 12 | name: offset u32; first value u32; length of name u16; values u16 |
//! | values | 12 | name: offset u32; number i32; length of name u16 |
//! | rules | 12 | code u8; scope u8 (1: items of a list, 2: keys of a map); limit i64, or offset u32 and length u32 of a text, at 4 |
//!
//! Messages and enums are sorted by full name, fields by name, so that look-ups need no index. Nothing is decoded into
//! memory: only the pages that are touched become resident.

const TABLE: &[u8] = include_bytes!("schema.bin");

const MESSAGES: usize = 24;
const FIELDS: usize = MESSAGES + 16 * count(0);
const ENUMS: usize = FIELDS + 20 * count(1);
const VALUES: usize = ENUMS + 12 * count(2);
const RULES: usize = VALUES + 12 * count(3);
const NAMES: usize = RULES + 12 * count(4);

const fn count(section: usize) -> usize {
    u32_at(4 + 4 * section) as usize
}

const fn u16_at(at: usize) -> u16 {
    u16::from_le_bytes([TABLE[at], TABLE[at + 1]])
}

const fn u32_at(at: usize) -> u32 {
    u32::from_le_bytes([TABLE[at], TABLE[at + 1], TABLE[at + 2], TABLE[at + 3]])
}

fn text(at: usize, len: usize) -> &'static str {
    std::str::from_utf8(bytes(at, len)).expect("the generator writes names as UTF-8")
}

fn bytes(at: usize, len: usize) -> &'static [u8] {
    &TABLE[NAMES + at..NAMES + at + len]
}

/// The first record in `0..len` whose name is `name`, in a section sorted by name.
fn search(len: usize, name: &str, name_of: impl Fn(usize) -> &'static [u8]) -> Option<usize> {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = usize::midpoint(low, high);
        match name_of(middle).cmp(name.as_bytes()) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Equal => return Some(middle),
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    None
}

/// A message type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message(usize);

impl Message {
    /// The message with this full name, for example `envoy.config.cluster.v3.Cluster`.
    pub fn find(full_name: &str) -> Option<Self> {
        search(count(0), full_name, |at| Self(at).name().as_bytes()).map(Self)
    }

    /// The message that a type URL such as `type.googleapis.com/envoy.config.cluster.v3.Cluster` names.
    pub fn of_url(url: &str) -> Option<Self> {
        Self::find(url.rsplit('/').next().unwrap_or(url))
    }

    /// All messages, in the order of their names.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..count(0)).map(Self)
    }

    const fn at(self) -> usize {
        MESSAGES + 16 * self.0
    }

    /// The full name.
    pub fn name(self) -> &'static str {
        text(
            u32_at(self.at()) as usize,
            usize::from(u16_at(self.at() + 8)),
        )
    }

    fn first(self) -> usize {
        u32_at(self.at() + 4) as usize
    }

    fn len(self) -> usize {
        usize::from(u16_at(self.at() + 10))
    }

    /// Which oneofs must be set: bit `n` stands for the oneof number `n`, counted from 0.
    pub fn required_oneofs(self) -> u16 {
        u16_at(self.at() + 12)
    }

    /// The fields, sorted by name.
    pub fn fields(self) -> impl Iterator<Item = Field> {
        (self.first()..self.first() + self.len()).map(Field::read)
    }

    /// The fields that have a validation rule, sorted by name.
    pub fn ruled_fields(self) -> impl Iterator<Item = Field> {
        (self.first()..self.first() + self.len())
            .filter(|index| TABLE[FIELDS + 20 * index + 16] != 0)
            .map(Field::read)
    }

    /// The field that JSON names `key`: by its name in the `.proto` file or in lower camel case.
    pub fn field(self, key: &str) -> Option<Field> {
        let first = self.first();
        search(self.len(), key, |at| Field::name_at(first + at))
            .map(|at| Field::read(first + at))
            .or_else(|| self.fields().find(|field| is_camel(field.name, key)))
    }

    /// The field with this number.
    pub fn number(self, number: u32) -> Option<Field> {
        (self.first()..self.first() + self.len())
            .find(|at| u32_at(FIELDS + 20 * at + 4) == number)
            .map(Field::read)
    }
}

/// Whether `camel` is `snake` in lower camel case.
fn is_camel(snake: &str, camel: &str) -> bool {
    let mut camel = camel.bytes();
    let mut raise = false;
    for byte in snake.bytes() {
        if byte == b'_' {
            raise = true;
            continue;
        }
        let wanted = if raise {
            byte.to_ascii_uppercase()
        } else {
            byte
        };
        raise = false;
        if camel.next() != Some(wanted) {
            return false;
        }
    }
    camel.next().is_none()
}

/// A field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name in the `.proto` file.
    pub name: &'static str,
    /// The number on the wire.
    pub number: u32,
    /// The type of a value.
    pub kind: Kind,
    /// A list or a map.
    pub repeated: bool,
    /// A map: `kind` is the entry's message with the fields `key` and `value`.
    pub map: bool,
    /// Absence differs from the default value.
    pub presence: bool,
    /// Marked as deprecated in the API.
    pub deprecated: bool,
    /// The oneof that it belongs to, counted from 0.
    pub oneof: Option<u8>,
    pub(super) rules: (u16, u8),
}

impl Field {
    fn name_at(index: usize) -> &'static [u8] {
        let at = FIELDS + 20 * index;
        bytes(u32_at(at) as usize, usize::from(TABLE[at + 12]))
    }

    fn read(index: usize) -> Self {
        let at = FIELDS + 20 * index;
        let flags = TABLE[at + 14];
        Self {
            name: text(u32_at(at) as usize, usize::from(TABLE[at + 12])),
            number: u32_at(at + 4),
            kind: Kind::read(TABLE[at + 13], usize::from(u16_at(at + 8))),
            repeated: flags & 1 != 0,
            map: flags & 4 != 0,
            presence: flags & 8 != 0,
            deprecated: flags & 16 != 0,
            oneof: TABLE[at + 15].checked_sub(1),
            rules: (u16_at(at + 10), TABLE[at + 16]),
        }
    }

    /// The validation rules of the API (`validate.rules`).
    pub fn rules(&self) -> impl Iterator<Item = Rule> + use<> {
        let first = usize::from(self.rules.0);
        (first..first + usize::from(self.rules.1)).map(Rule::read)
    }
}

/// The type of a field's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 64-bit floating point.
    Double,
    /// 32-bit floating point.
    Float,
    /// Signed, 64 bits, plain varint.
    Int64,
    /// Unsigned, 64 bits.
    Uint64,
    /// Signed, 32 bits, plain varint.
    Int32,
    /// Unsigned, 64 bits, fixed length.
    Fixed64,
    /// Unsigned, 32 bits, fixed length.
    Fixed32,
    /// A boolean.
    Bool,
    /// UTF-8 text.
    String,
    /// A message; `None` if the table lacks it.
    Message(Option<Message>),
    /// Bytes.
    Bytes,
    /// Unsigned, 32 bits.
    Uint32,
    /// An enum; `None` if the table lacks it.
    Enum(Option<Enum>),
    /// Signed, 32 bits, fixed length.
    Sfixed32,
    /// Signed, 64 bits, fixed length.
    Sfixed64,
    /// Signed, 32 bits, zigzag.
    Sint32,
    /// Signed, 64 bits, zigzag.
    Sint64,
}

impl Kind {
    fn read(code: u8, target: usize) -> Self {
        match code {
            1 => Self::Double,
            2 => Self::Float,
            3 => Self::Int64,
            4 => Self::Uint64,
            5 => Self::Int32,
            6 => Self::Fixed64,
            7 => Self::Fixed32,
            8 => Self::Bool,
            9 => Self::String,
            11 => Self::Message((target < count(0)).then_some(Message(target))),
            12 => Self::Bytes,
            13 => Self::Uint32,
            14 => Self::Enum((target < count(2)).then_some(Enum(target))),
            15 => Self::Sfixed32,
            16 => Self::Sfixed64,
            17 => Self::Sint32,
            _ => Self::Sint64,
        }
    }

    /// What JSON must hold, for error messages.
    pub fn expected(self) -> &'static str {
        match self {
            Self::Double | Self::Float => "a number",
            Self::Int64 | Self::Sint64 | Self::Sfixed64 => "a 64-bit integer",
            Self::Int32 | Self::Sint32 | Self::Sfixed32 => "a 32-bit integer",
            Self::Uint64 | Self::Fixed64 => "an unsigned 64-bit integer",
            Self::Uint32 | Self::Fixed32 => "an unsigned 32-bit integer",
            Self::Bool => "true or false",
            Self::String => "a string",
            Self::Bytes => "base64 text",
            Self::Enum(_) => "the name of an enum value",
            Self::Message(Some(message)) => match message.name() {
                "google.protobuf.Duration" => "a duration such as \"1.5s\"",
                "google.protobuf.Timestamp" => "an RFC 3339 time",
                "google.protobuf.BoolValue" => "true or false",
                "google.protobuf.StringValue" => "a string",
                "google.protobuf.UInt32Value" => "an unsigned 32-bit integer",
                "google.protobuf.UInt64Value" => "an unsigned 64-bit integer",
                "google.protobuf.Int32Value" => "a 32-bit integer",
                "google.protobuf.Int64Value" => "a 64-bit integer",
                "google.protobuf.DoubleValue" | "google.protobuf.FloatValue" => "a number",
                "google.protobuf.ListValue" => "a list",
                "google.protobuf.FieldMask" => "paths separated by commas",
                _ => "an object",
            },
            Self::Message(None) => "an object",
        }
    }
}

/// An enum type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enum(usize);

impl Enum {
    const fn at(self) -> usize {
        ENUMS + 12 * self.0
    }

    /// The full name.
    pub fn name(self) -> &'static str {
        text(
            u32_at(self.at()) as usize,
            usize::from(u16_at(self.at() + 8)),
        )
    }

    /// Names and numbers of the values, in the order of the API.
    pub fn values(self) -> impl Iterator<Item = (&'static str, i32)> {
        let first = u32_at(self.at() + 4) as usize;
        let len = usize::from(u16_at(self.at() + 10));
        (first..first + len).map(|index| {
            let at = VALUES + 12 * index;
            let name = text(u32_at(at) as usize, usize::from(u16_at(at + 8)));
            (name, u32_at(at + 4).cast_signed())
        })
    }

    /// The number of the value `name`, in whose place another case may stand, as Envoy reads it.
    pub fn number(self, name: &str) -> Option<i32> {
        let find = |same: fn(&str, &str) -> bool| {
            let mut values = self.values();
            values.find(|(value, _)| same(value, name))
        };
        find(|value, name| value == name)
            .or_else(|| find(str::eq_ignore_ascii_case))
            .map(|(_, number)| number)
    }

    /// The first name of the value `number`.
    pub fn value(self, number: i32) -> Option<&'static str> {
        self.values()
            .find(|(_, value)| *value == number)
            .map(|(name, _)| name)
    }
}

/// A validation rule of the API. Limits of durations are nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What is asked.
    pub check: Check,
    /// Of what.
    pub scope: Scope,
}

/// What a [`Rule`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The field.
    Field,
    /// Each item of a list.
    Items,
    /// Each key of a map.
    Keys,
}

impl Rule {
    fn read(index: usize) -> Self {
        let at = RULES + 12 * index;
        let low = u64::from(u32_at(at + 4));
        let high = u64::from(u32_at(at + 8));
        let limit = (high << 32 | low).cast_signed();
        let words = || text(u32_at(at + 4) as usize, u32_at(at + 8) as usize);
        let check = match TABLE[at] {
            1 => Check::Required,
            2 => Check::MinLen(limit),
            3 => Check::MaxLen(limit),
            4 => Check::DefinedOnly,
            5 => Check::MinItems(limit),
            6 => Check::MaxItems(limit),
            7 => Check::Above(limit),
            8 => Check::AtLeast(limit),
            9 => Check::Below(limit),
            10 => Check::AtMost(limit),
            11 => Check::HeaderName,
            12 => Check::HeaderValue,
            14 => Check::OneOf(words()),
            15 => Check::Prefix(words()),
            16 => Check::Suffix(words()),
            17 => Check::Not(limit),
            18 => Check::Is(limit),
            _ => Check::IgnoreEmpty,
        };
        let scope = match TABLE[at + 1] {
            0 => Scope::Field,
            1 => Scope::Items,
            _ => Scope::Keys,
        };
        Self { check, scope }
    }
}

/// What a [`Rule`] asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// It must be set.
    Required,
    /// Text has at least so many bytes.
    MinLen(i64),
    /// Text has at most so many bytes.
    MaxLen(i64),
    /// The enum's number has a name.
    DefinedOnly,
    /// The list has at least so many items.
    MinItems(i64),
    /// The list has at most so many items.
    MaxItems(i64),
    /// Greater than.
    Above(i64),
    /// Greater or equal.
    AtLeast(i64),
    /// Less than.
    Below(i64),
    /// Less or equal.
    AtMost(i64),
    /// The name of a header.
    HeaderName,
    /// The value of a header.
    HeaderValue,
    /// Rules do not hold for an empty value.
    IgnoreEmpty,
    /// Text is one of these, which stand on lines of their own.
    OneOf(&'static str),
    /// Text begins so.
    Prefix(&'static str),
    /// Text ends so.
    Suffix(&'static str),
    /// The enum's number is another.
    Not(i64),
    /// The number, or 1 for true, is this one.
    Is(i64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_fields_are_found_by_every_name() {
        for message in Message::all() {
            assert_eq!(Message::find(message.name()), Some(message));
            for field in message.fields() {
                assert_eq!(message.field(field.name), Some(field), "{}", message.name());
                assert_eq!(message.number(field.number), Some(field));
                assert!(
                    !matches!(field.kind, Kind::Message(None) | Kind::Enum(None)),
                    "{}.{} has a type outside the table",
                    message.name(),
                    field.name
                );
            }
        }
        assert_eq!(Message::find("envoy.config.cluster.v3.Clust"), None);
    }

    #[test]
    fn fields_carry_types_oneofs_and_rules() {
        let cluster = Message::find("envoy.config.cluster.v3.Cluster").expect("known");
        let by_camel = cluster.field("connectTimeout").expect("lower camel case");
        assert_eq!(by_camel.name, "connect_timeout");
        assert!(by_camel.rules().any(|rule| rule.check == Check::Above(0)));
        let kind = cluster.field("type").expect("known");
        assert!(
            kind.oneof.is_some()
                && kind.oneof == cluster.field("cluster_type").and_then(|f| f.oneof)
        );
        assert!(
            matches!(kind.kind, Kind::Enum(Some(e)) if e.number("EDS") == Some(3) && e.number("strict_Dns") == Some(1) && e.number("ED").is_none())
        );
        let options = cluster
            .field("typed_extension_protocol_options")
            .expect("known");
        assert!(options.map && options.repeated);
        let outlier = Message::find("envoy.config.cluster.v3.OutlierDetection").expect("known");
        assert_eq!(
            outlier.field("consecutive5xx").map(|f| f.name),
            Some("consecutive_5xx")
        );
    }
}
