//! Reads protobuf's wire form, item by item.

use prost::encoding::{WireType, decode_key, decode_varint};

use super::{schema::Kind, slot::wire_type};

/// The bytes are no protobuf message of the expected type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed protobuf")]
pub struct Malformed;

/// The items of a message.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Field number and value of the next item.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Item<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, kind) = decode_key(&mut self.rest).map_err(|_| Malformed)?;
        Ok(Some((number, self.item(kind)?)))
    }

    fn item(&mut self, kind: WireType) -> Result<Item<'a>, Malformed> {
        Ok(match kind {
            WireType::Varint => Item::Varint(self.varint()?),
            WireType::SixtyFourBit => Item::Fixed64(u64::from_le_bytes(self.array()?)),
            WireType::ThirtyTwoBit => Item::Fixed32(u32::from_le_bytes(self.array()?)),
            WireType::LengthDelimited => {
                let len = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
                self.rest = rest;
                Item::Bytes(bytes)
            }
            WireType::StartGroup | WireType::EndGroup => return Err(Malformed),
        })
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        decode_varint(&mut self.rest).map_err(|_| Malformed)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*bytes)
    }
}

/// A value on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Item<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

impl<'a> Item<'a> {
    pub(super) fn varint(self) -> Result<u64, Malformed> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(Malformed),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "protobuf keeps the low bits"
    )]
    pub(super) fn int32(self) -> Result<i32, Malformed> {
        Ok(self.varint()? as i32)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "protobuf keeps the low bits"
    )]
    pub(super) fn uint32(self) -> Result<u32, Malformed> {
        Ok(self.varint()? as u32)
    }

    pub(super) fn fixed64(self) -> Result<u64, Malformed> {
        match self {
            Self::Fixed64(value) => Ok(value),
            _ => Err(Malformed),
        }
    }

    pub(super) fn fixed32(self) -> Result<u32, Malformed> {
        match self {
            Self::Fixed32(value) => Ok(value),
            _ => Err(Malformed),
        }
    }

    pub(super) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    /// Gives the items of a packed list one by one; anything else once.
    pub(super) fn unpack(
        self,
        kind: Kind,
        mut each: impl FnMut(Item<'a>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let wire = wire_type(kind);
        match self {
            Self::Bytes(bytes) if wire != WireType::LengthDelimited => {
                let mut reader = Reader::new(bytes);
                while !reader.rest.is_empty() {
                    each(reader.item(wire)?)?;
                }
                Ok(())
            }
            item => each(item),
        }
    }
}
