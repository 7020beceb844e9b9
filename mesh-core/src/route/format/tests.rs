use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::model::{Format, JsonFormat};

struct Fixed {
    began: Instant,
}

impl FormatContext for Fixed {
    fn request_header(&self, field: &Field) -> Option<Cow<'_, [u8]>> {
        match field {
            Field::Path => Some(b"/a?b=c%20d".into()),
            Field::Authority => Some(b"a.test".into()),
            Field::Header(name) if name == "x-a" => Some(b"value".into()),
            Field::Header(name) if name == "x-empty" => Some(b"".into()),
            _ => None,
        }
    }

    fn item(&self, item: Item, out: &mut Vec<u8>) -> bool {
        match item {
            Item::ResponseCode => out.extend_from_slice(b"503"),
            Item::Protocol => out.extend_from_slice(b"HTTP/1.1"),
            Item::QueryParams => out.extend_from_slice(b"b=c%20d"),
            Item::DownstreamRemoteAddressWithoutPort => out.extend_from_slice(b"10.9.30.1"),
            _ => return false,
        }
        true
    }

    fn metadata(
        &self,
        _: MetadataSource,
        namespace: &str,
        path: &[Name],
    ) -> Option<Cow<'_, Value>> {
        (namespace == "ns" && path.len() == 1)
            .then(|| Cow::Owned(Value::List(vec![Value::String(path[0].clone())])))
    }

    fn filter_state(&self, key: &str) -> Option<Cow<'_, [u8]>> {
        (key == "state").then_some(b"s".into())
    }

    fn start_time(&self) -> Option<SystemTime> {
        Some(UNIX_EPOCH + Duration::from_millis(1_709_210_096_789))
    }

    fn moment(&self, point: TimePoint) -> Option<Instant> {
        match point {
            TimePoint::DownstreamReceiveBegin => Some(self.began),
            TimePoint::DownstreamSendEnd => Some(self.began + Duration::from_micros(12_345)),
            _ => None,
        }
    }
}

fn render(text: &str) -> String {
    let mut out = Vec::new();
    let context = Fixed {
        began: Instant::now(),
    };
    Formatter::parse(text)
        .expect("a format")
        .write(&context, b"-", &mut out);
    String::from_utf8(out).expect("UTF-8")
}

/// Formats, and what the context above makes of them.
const FORMATS: &[(&str, &str)] = &[
    ("plain %% text", "plain % text"),
    ("%REQ(x-a)%", "value"),
    ("%REQ(X-A):3%|", "val|"),
    ("%REQ(x-b?x-a)%", "value"),
    ("%REQ(x-b)%", "-"),
    ("%REQ(x-empty)%.test", ".test"),
    ("%REQ(x-empty?x-a)%|", "|"),
    ("%REQ(:path)% %REQ_WITHOUT_QUERY(:path)%", "/a?b=c%20d /a"),
    ("%PATH(NQ)%", "/a"),
    ("%QUERY_PARAM(b)%", "c d"),
    ("%PROTOCOL% %RESPONSE_CODE% %ROUTE_NAME%", "HTTP/1.1 503 -"),
    ("%START_TIME%", "2024-02-29T12:34:56.789Z"),
    (
        "%START_TIME(%Y/%m/%dT%H:%M:%S%z %s.%6f %j)%",
        "2024/02/29T12:34:56+0000 1709210096.789000 060",
    ),
    (
        "%START_TIME(%E3S %3s %b %a)%",
        "56.789 1709210096789 Feb Thu",
    ),
    (
        "%START_TIME(%c|%C %G-W%V-%u %g|%U %W %w|%k %l %I %P|%r|%x %X|%h%Q)%",
        "Thu Feb 29 12:34:56 2024|20 2024-W09-4 24|08 09 4|12 12 12 pm|12:34:56 PM|02/29/24 12:34:56|Feb%Q",
    ),
    (
        "%START_TIME(%-m %_m %e %-j %^a %#p %5Y %Od %Ez %E*z %E4Y %E12f %10f %)%",
        "2  2 29 60 THU pm 02024 29 +00:00 +00:00:00 2024 789000000000 %10f %",
    ),
    (
        "%START_TIME(%-5d|%_5d|%05e|%^5a|%^P|%Ea|%OY|%Ey)%",
        "   29|   29|00029|  THU|pm|%Ea|%OY|24",
    ),
    ("%RESP(:Status)% %RESP(x-none?:status):2%", "503 50"),
    ("%COMMON_DURATION(DS_RX_BEG:own)%", "-"),
    ("%COMMON_DURATION(DS_RX_BEG:DS_TX_END)%", "12"),
    ("%REQ(?x-a)%", "value"),
    ("%DURATION% %REQUEST_DURATION%", "12 -"),
    ("%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%", "12345"),
    ("%DYNAMIC_METADATA(ns:k)%", "[\"k\"]"),
    ("%DYNAMIC_METADATA([\"ns\", \"k\"])%", "[\"k\"]"),
    (
        "%PER_REQUEST_STATE(state)%%FILTER_STATE(state:PLAIN)%",
        "ss",
    ),
    ("%QUERY_PARAMS% %QUERY_PARAMS(DECODED)%", "b=c%20d b=c d"),
    ("%REQUEST_HEADER(x-a)% %METADATA(ROUTE)%", "value -"),
    (
        "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(20)%",
        "10.9.16.0/20",
    ),
    ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(33)%", "-"),
    ("%TRACE_ID% %DOWNSTREAM_TLS_VERSION%", "- -"),
    (
        r#"%COALESCE({"operators": ["ROUTE_NAME", {"command": "REQ", "param": "x-a", "max_length": 4}, "PROTOCOL"]}):3%|"#,
        "val|",
    ),
    (
        r#"%COALESCE({"operators": ["ROUTE_NAME", "TRACE_ID"]})%"#,
        "-",
    ),
    ("%REQUESTED_SERVER_NAME(SNI_FIRST:HOST)%", "a.test"),
];

#[test]
fn operators_yield_what_the_context_knows() {
    for (text, wanted) in FORMATS {
        assert_eq!(render(text), *wanted, "{text}");
    }
}

#[test]
fn bad_formats_are_refused() {
    for text in [
        "100%",
        "%",
        "%REQ(x%",
        "%REQ(x)",
        "%NO_SUCH%",
        "%NO_SUCH(x)%",
        "%RESPONSE_CODE(x)%",
        "%REQ(a?b?c)%",
        "%REQ(a b)%",
        "%START_TIME(%Y%n)%",
        "%START_TIME(%-En)%",
        "%REQ(x\ny)%",
        "%RESP(:path)%",
        "%DYNAMIC_METADATA([x])%",
        "%REQ(x):a%",
        "%REQ(x):+1%",
        "%COMMON_DURATION(a:b:c)%",
        "%METADATA(X:y)%",
        "%a%",
        "%PROTOCOL:3%",
        "%CEL(request.path)%",
        "%QUERY_PARAMS(X)%",
        "%UPSTREAM_HOST(3)%",
        "%UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT(x)%",
        "%REQUESTED_SERVER_NAME(X)%",
        "%COALESCE%",
        "%COALESCE(x)%",
        r#"%COALESCE({"operators": []})%"#,
        r#"%COALESCE({"operators": ["REQ"]})%"#,
        r#"%COALESCE({"operators": [{"param": "x"}]})%"#,
        r#"%COALESCE({"operators": [{"command": "PROTOCOL", "max_length": 2}]})%"#,
    ] {
        assert!(Formatter::parse(text).is_err(), "{text}");
    }
}

/// The end of the arguments is looked for without reading the rest of the format again and again.
#[test]
fn a_long_format_is_read_once() {
    let inner = "):1".repeat(200_000);
    let begun = std::time::Instant::now();
    let format = Formatter::parse(&format!("%QUERY_PARAM({inner})%")).expect("a format");
    assert_eq!(format.operators().count(), 1);
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn json_keeps_types_and_escapes() {
    let leaf = |text: &str| JsonFormat::Leaf(Format { text: text.into() });
    let members = [
        ("code".into(), leaf("%RESPONSE_CODE%")),
        ("mixed".into(), leaf("\"%RESPONSE_CODE%\"\n%ROUTE_NAME%")),
        ("none".into(), leaf("%ROUTE_NAME%")),
        ("meta".into(), leaf("%DYNAMIC_METADATA(ns:k)%")),
        (
            "first".into(),
            leaf(r#"%COALESCE({"operators": ["ROUTE_NAME", "RESPONSE_CODE"]})%"#),
        ),
        (
            "list".into(),
            JsonFormat::List(vec![JsonFormat::Constant(Value::Bool(true))]),
        ),
    ];
    let context = Fixed {
        began: Instant::now(),
    };
    let render = |omit| {
        let mut out = Vec::new();
        JsonFormatter::new(&members, omit)
            .expect("a template")
            .write(&context, &mut out);
        String::from_utf8(out).expect("UTF-8")
    };
    assert_eq!(
        render(false),
        r#"{"code":503,"mixed":"\"503\"\n-","none":null,"meta":["k"],"first":503,"list":[true]}"#
    );
    assert_eq!(
        render(true),
        r#"{"code":503,"mixed":"\"503\"\n","meta":["k"],"first":503,"list":[true]}"#
    );
}

#[test]
fn dates_are_right_around_leap_days() {
    for (seconds, wanted) in [
        (0, "1970-01-01 001"),
        (68_169_599, "1972-02-28 059"),
        (68_169_600, "1972-02-29 060"),
        (68_256_000, "1972-03-01 061"),
        (94_694_399, "1972-12-31 366"),
        (4_107_542_400, "2100-03-01 060"),
    ] {
        let format = super::time::TimeFormat::parse("%F %j").expect("a format");
        let mut out = Vec::new();
        assert!(format.write(UNIX_EPOCH + Duration::from_secs(seconds), &mut out));
        assert_eq!(String::from_utf8_lossy(&out), wanted);
    }
}

/// The first days of a year may be in the last week of the one before, and the last ones in the first of the next.
#[test]
fn weeks_are_those_of_their_thursday() {
    for (seconds, wanted) in [
        // Friday, 1 January 2021.
        (1_609_459_200, "2020-53 00 00"),
        // Monday, 4 January 2021.
        (1_609_718_400, "2021-01 01 01"),
        // Monday, 30 December 2024.
        (1_735_516_800, "2025-01 52 53"),
        // Sunday, 1 January 2023.
        (1_672_531_200, "2022-52 01 00"),
    ] {
        let format = super::time::TimeFormat::parse("%G-%V %U %W").expect("a format");
        let mut out = Vec::new();
        assert!(format.write(UNIX_EPOCH + Duration::from_secs(seconds), &mut out));
        assert_eq!(String::from_utf8_lossy(&out), wanted);
    }
}
