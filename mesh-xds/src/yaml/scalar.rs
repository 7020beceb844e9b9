//! What a plain scalar means, as Kubernetes and Envoy read it (YAML 1.1 words, JSON's types).

/// The meaning of a scalar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scalar {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text,
}

/// Resolves an unquoted scalar without a tag.
///
/// `y`, `yes`, `on` and their like are booleans, as in `kubectl` (go-yaml) and in Envoy (yaml-cpp); a leading zero means
/// octal, as in go-yaml. What asks for no boolean takes a single letter as text.
pub(crate) fn resolve(text: &str) -> Scalar {
    let Some(&first) = text.as_bytes().first() else {
        return Scalar::Null;
    };
    // Nearly all scalars begin with a letter that starts none of the special words.
    match first {
        b'0'..=b'9' | b'+' | b'-' | b'.' => number(text),
        b'~' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'y' | b'Y' | b'o' | b'O' => word(text),
        _ => Scalar::Text,
    }
}

fn word(text: &str) -> Scalar {
    match text {
        "~" | "null" | "Null" | "NULL" => Scalar::Null,
        "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            Scalar::Bool(true)
        }
        "false" | "False" | "FALSE" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            Scalar::Bool(false)
        }
        _ => Scalar::Text,
    }
}

fn number(text: &str) -> Scalar {
    match text {
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Scalar::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    integer(text)
        .or_else(|| float(text))
        .unwrap_or(Scalar::Text)
}

fn integer(text: &str) -> Option<Scalar> {
    let (negative, digits) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'0'..=b'7', ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // from_str_radix would take a second sign.
    if !digits.bytes().next()?.is_ascii_alphanumeric() {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative {
        let value = i64::try_from(-i128::from(magnitude)).ok()?;
        return Some(if value == 0 {
            Scalar::Unsigned(0)
        } else {
            Scalar::Signed(value)
        });
    }
    Some(Scalar::Unsigned(magnitude))
}

fn float(text: &str) -> Option<Scalar> {
    let allowed = |b: u8| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E');
    if !text.bytes().all(allowed) || !text.bytes().any(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().map(Scalar::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_mean_what_kubectl_and_envoy_read() {
        for (text, want) in [
            ("", Scalar::Null),
            ("~", Scalar::Null),
            ("null", Scalar::Null),
            ("on", Scalar::Bool(true)),
            ("no", Scalar::Bool(false)),
            ("y", Scalar::Bool(true)),
            ("N", Scalar::Bool(false)),
            ("ny", Scalar::Text),
            ("8080", Scalar::Unsigned(8080)),
            ("-1", Scalar::Signed(-1)),
            ("0x1F", Scalar::Unsigned(31)),
            ("0644", Scalar::Unsigned(420)),
            ("1.5", Scalar::Float(1.5)),
            ("1e3", Scalar::Float(1000.0)),
            ("1.2.3", Scalar::Text),
            ("10.0.0.1/8", Scalar::Text),
            ("10s", Scalar::Text),
            ("-", Scalar::Text),
            ("+-1", Scalar::Text),
            ("0x", Scalar::Text),
            (
                "18446744073709551616",
                Scalar::Float(18_446_744_073_709_551_616.0),
            ),
        ] {
            assert_eq!(resolve(text), want, "{text:?}");
        }
    }
}
