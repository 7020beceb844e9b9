//! Values that many resources hold: durations, addresses, shares, metadata.

use std::{net::IpAddr, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::core::v3::{self as core, address, socket_address},
        r#type::v3::{FractionalPercent, Percent, fractional_percent::DenominatorType},
    },
    google::protobuf::{self, Duration as ProtoDuration, value::Kind},
};
use mesh_core::model::{
    Address, Cidr, Fraction, Metadata, Name, Origin, RuntimeFraction, TcpKeepalive, Value,
};

use super::Context;

/// A duration; refuses negative and malformed ones.
pub(crate) fn duration(cx: &mut Context, field: &str, value: &ProtoDuration) -> Option<Duration> {
    let parts = u64::try_from(value.seconds)
        .ok()
        .zip(u32::try_from(value.nanos).ok());
    match parts {
        Some((seconds, nanos)) if nanos < 1_000_000_000 => Some(Duration::new(seconds, nanos)),
        _ => {
            cx.reject(field, "a duration must not be negative");
            None
        }
    }
}

/// [`duration`] of an optional field.
pub(crate) fn some_duration(
    cx: &mut Context,
    field: &str,
    value: Option<&ProtoDuration>,
) -> Option<Duration> {
    value.and_then(|value| duration(cx, field, value))
}

/// A limit: absent is `default`, zero is none.
pub(crate) fn timeout(
    cx: &mut Context,
    field: &str,
    value: Option<&ProtoDuration>,
    default: Option<Duration>,
) -> Option<Duration> {
    match value {
        None => default,
        Some(value) => duration(cx, field, value).filter(|limit| !limit.is_zero()),
    }
}

/// A `u32` that must be a port.
pub(crate) fn port(cx: &mut Context, field: &str, value: u32) -> Option<u16> {
    match u16::try_from(value) {
        Ok(port) => Some(port),
        Err(_) => {
            cx.reject(field, format_args!("{value} is no port"));
            None
        }
    }
}

/// What `sockaddr_un` holds beside the NUL at its end.
const LONGEST_PIPE: usize = 107;

/// The address of a socket or pipe. Host names are kept; whether they may stand there is the caller's business.
pub(crate) fn address(cx: &mut Context, value: &core::Address) -> Option<Address> {
    match &value.address {
        Some(address::Address::SocketAddress(socket)) => {
            cx.field("socket_address", |cx| socket_address(cx, socket))
        }
        Some(address::Address::Pipe(core::Pipe { path, mode })) => {
            cx.ignored("pipe.mode", *mode != 0);
            if path.len() > LONGEST_PIPE {
                cx.reject(
                    "pipe.path",
                    format_args!("is longer than {LONGEST_PIPE} bytes"),
                );
            }
            Some(Address::Pipe(path.into()))
        }
        Some(address::Address::EnvoyInternalAddress(_)) => {
            cx.reject(
                "envoy_internal_address",
                "internal listeners are not supported",
            );
            None
        }
        None => {
            cx.reject("", "one of socket_address, pipe must be set");
            None
        }
    }
}

pub(crate) fn socket_address(cx: &mut Context, value: &core::SocketAddress) -> Option<Address> {
    let core::SocketAddress {
        protocol,
        address,
        resolver_name,
        ipv4_compat,
        network_namespace_filepath,
        port_specifier,
    } = value;
    cx.unsupported("resolver_name", !resolver_name.is_empty());
    cx.ignored("ipv4_compat", *ipv4_compat);
    cx.unsupported(
        "network_namespace_filepath",
        !network_namespace_filepath.is_empty(),
    );
    if *protocol != core::socket_address::Protocol::Tcp as i32 {
        cx.reject("protocol", "UDP is not supported");
    }
    let number = match port_specifier {
        Some(socket_address::PortSpecifier::PortValue(number)) => *number,
        Some(socket_address::PortSpecifier::NamedPort(_)) => {
            cx.reject(
                "named_port",
                "named ports are not supported: write port_value",
            );
            return None;
        }
        None => 0,
    };
    let port = port(cx, "port_value", number)?;
    Some(match address.parse::<IpAddr>() {
        Ok(ip) => Address::Socket((ip, port).into()),
        Err(_) => Address::Host(address.as_str().into(), port),
    })
}

/// A block of addresses.
pub(crate) fn cidr(cx: &mut Context, value: &core::CidrRange) -> Option<Cidr> {
    let bits = value.prefix_len.as_ref().map_or(0, |bits| bits.value);
    let block = value
        .address_prefix
        .parse()
        .ok()
        .zip(u8::try_from(bits).ok())
        // As in Envoy more bits than the address has are all of them.
        .and_then(|(ip, bits): (IpAddr, u8)| match ip {
            IpAddr::V4(_) => Cidr::new(ip, bits.min(32)),
            IpAddr::V6(_) => Cidr::new(ip, bits),
        });
    if block.is_none() {
        cx.reject(
            "",
            format_args!("{}/{bits} is no block of addresses", value.address_prefix),
        );
    }
    block
}

/// A share.
pub(crate) fn fraction(value: &FractionalPercent) -> Fraction {
    Fraction {
        numerator: value.numerator,
        denominator: match value.denominator() {
            DenominatorType::Hundred => 100,
            DenominatorType::TenThousand => 10_000,
            DenominatorType::Million => 1_000_000,
        },
    }
}

/// A share that a runtime key may override. A missing default value is 100 %, as in Envoy.
pub(crate) fn runtime_fraction(value: &core::RuntimeFractionalPercent) -> RuntimeFraction {
    RuntimeFraction {
        default: value
            .default_value
            .as_ref()
            .map_or(Fraction::ALWAYS, fraction),
        key: value.runtime_key.as_str().into(),
    }
}

/// Per cent as hundredths of a per cent; refuses what is not in 0 ..= 100.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked"
)]
pub(crate) fn basis_points(cx: &mut Context, field: &str, value: &Percent) -> Option<u32> {
    if (0.0..=100.0).contains(&value.value) {
        Some((value.value * 100.0).round() as u32)
    } else {
        cx.reject(
            field,
            format_args!("{} is not between 0 and 100", value.value),
        );
        None
    }
}

/// TCP keep-alive.
pub(crate) fn keepalive(value: &core::TcpKeepalive) -> TcpKeepalive {
    let seconds = |value: &Option<protobuf::UInt32Value>| {
        value
            .as_ref()
            .map(|value| Duration::from_secs(u64::from(value.value)))
    };
    TcpKeepalive {
        probes: value.keepalive_probes.as_ref().map(|probes| probes.value),
        time: seconds(&value.keepalive_time),
        interval: seconds(&value.keepalive_interval),
    }
}

/// The metadata in `field`; typed entries are noted.
pub(crate) fn metadata(cx: &mut Context, field: &str, value: Option<&core::Metadata>) -> Metadata {
    let Some(value) = value else {
        return Metadata::default();
    };
    let typed = !value.typed_filter_metadata.is_empty();
    cx.field(field, |cx| cx.ignored("typed_filter_metadata", typed));
    let mut namespaces: Vec<(Name, Value)> = value
        .filter_metadata
        .iter()
        .map(|(name, fields)| (Name::from(name.as_str()), object(fields)))
        .collect();
    namespaces.sort_by(|a, b| a.0.cmp(&b.0));
    Metadata { namespaces }
}

/// A struct as a value.
pub(crate) fn object(fields: &protobuf::Struct) -> Value {
    let mut members: Vec<(Name, Value)> = fields
        .fields
        .iter()
        .map(|(name, member)| (Name::from(name.as_str()), json_value(member)))
        .collect();
    members.sort_by(|a, b| a.0.cmp(&b.0));
    Value::Object(members)
}

/// A JSON value.
pub(crate) fn json_value(value: &protobuf::Value) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(*value),
        Some(Kind::NumberValue(value)) => Value::Number(value.to_string().into()),
        Some(Kind::StringValue(value)) => Value::String(value.as_str().into()),
        Some(Kind::ListValue(list)) => Value::List(list.values.iter().map(json_value).collect()),
        Some(Kind::StructValue(fields)) => object(fields),
    }
}

/// The configuration object that istiod names in the metadata.
pub(crate) fn origin(metadata: &Metadata) -> Origin {
    let path = [Name::from("config")];
    match metadata.get("istio", &path) {
        Some(Value::String(object)) => Origin {
            object: object.clone(),
        },
        _ => Origin::default(),
    }
}

/// The value of a wrapper.
pub(crate) fn u32_of(value: Option<&protobuf::UInt32Value>) -> Option<u32> {
    value.map(|value| value.value)
}

/// The value of a wrapper, or `default`.
pub(crate) fn bool_of(value: Option<&protobuf::BoolValue>, default: bool) -> bool {
    value.map_or(default, |value| value.value)
}
