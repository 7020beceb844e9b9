use super::*;
use crate::model::Format;

fn add(name: &'static str, value: &str, action: AppendAction) -> HeaderAddition {
    HeaderAddition {
        name: HeaderName::from_static(name),
        value: Format { text: value.into() },
        action,
        keep_empty: false,
    }
}

fn changed(remove: &[HeaderName], additions: &[HeaderAddition]) -> Vec<(String, String)> {
    let mut head = HeadBuf {
        path: b"/p".to_vec(),
        ..HeadBuf::default()
    };
    head.headers.insert("x-a", HeaderValue::from_static("old"));
    Mutations::new(&[(remove, additions)])
        .expect("valid")
        .apply_request(&mut head, &());
    let text = |value: &HeaderValue| value.to_str().expect("text").to_owned();
    let mut all: Vec<_> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect();
    all.sort();
    all
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(a, b)| (a.to_string(), b.to_string()))
        .collect()
}

#[test]
fn actions_do_what_their_names_say() {
    use AppendAction::*;
    for (action, present, absent) in [
        (AppendIfExistsOrAdd, &["new", "old"][..], &["new"][..]),
        (AddIfAbsent, &["old"], &["new"]),
        (OverwriteIfExistsOrAdd, &["new"], &["new"]),
        (OverwriteIfExists, &["new"], &[]),
    ] {
        let both = [add("x-a", "new", action), add("x-b", "new", action)];
        let mut wanted: Vec<_> = present.iter().map(|value| ("x-a", *value)).collect();
        wanted.extend(absent.iter().map(|value| ("x-b", *value)));
        assert_eq!(changed(&[], &both), pairs(&wanted), "{action:?}");
    }
}

#[test]
fn headers_that_envoy_knows_stay_in_one_line() {
    let append = |name, value| add(name, value, AppendAction::AppendIfExistsOrAdd);
    let additions = [
        append("x-forwarded-host", "a"),
        append("x-forwarded-host", "b"),
        append("x-other", "a"),
        append("x-other", "b"),
    ];
    assert_eq!(
        changed(&[HeaderName::from_static("x-a")], &additions),
        pairs(&[
            ("x-forwarded-host", "a,b"),
            ("x-other", "a"),
            ("x-other", "b")
        ])
    );
}

#[test]
fn an_empty_value_is_added_where_it_is_kept() {
    for (text, keep, wanted) in [
        ("", false, &[][..]),
        ("", true, &[("x-b", "")]),
        ("%REQ(x-none)%", false, &[]),
        ("%REQ(x-none)%", true, &[("x-b", "")]),
    ] {
        for action in [
            AppendAction::AppendIfExistsOrAdd,
            AppendAction::AddIfAbsent,
            AppendAction::OverwriteIfExistsOrAdd,
        ] {
            let addition = HeaderAddition {
                keep_empty: keep,
                ..add("x-b", text, action)
            };
            let seen = changed(&[HeaderName::from_static("x-a")], &[addition]);
            assert_eq!(seen, pairs(wanted), "{text:?} {action:?}");
        }
    }
}

#[test]
fn formats_read_the_headers_of_before() {
    let additions = [
        add(
            "x-a",
            "%REQ(x-a)%+%REQ(:path)%",
            AppendAction::OverwriteIfExistsOrAdd,
        ),
        add("x-b", "%REQ(x-a)%", AppendAction::AppendIfExistsOrAdd),
        add("x-c", "%REQ(x-none)%", AppendAction::AppendIfExistsOrAdd),
    ];
    assert_eq!(
        changed(&[], &additions),
        pairs(&[("x-a", "old+/p"), ("x-b", "old")])
    );
}

#[test]
fn removal_comes_before_addition() {
    let additions = [add("x-a", "new", AppendAction::AppendIfExistsOrAdd)];
    let removed = [HeaderName::from_static("x-a")];
    assert_eq!(changed(&removed, &additions), pairs(&[("x-a", "new")]));
}

#[test]
fn path_and_authority_of_a_request_change_in_place() {
    let mut request = Request::builder()
        .uri("/a?b")
        .header("host", "x")
        .body(())
        .expect("a request");
    request.set_path(b"/c");
    request.set_authority(b"y:1");
    assert_eq!(request.uri(), "/c");
    assert_eq!(request.headers()["host"], "y:1");
    let mut request = Request::builder()
        .uri("http://x/a")
        .body(())
        .expect("a request");
    request.set_authority(b"y");
    for (path, wanted) in [
        (&b"/b?c"[..], "http://y/b?c"),
        (b"no path", "http://y/no%20path"),
        (b"/<a>?b#c", "http://y/%3Ca%3E?b%23c"),
        (b"?q", "http://y/?q"),
        (b"", "http://y/"),
    ] {
        request.set_path(path);
        assert_eq!(request.uri(), wanted);
    }
    assert!(!request.headers().contains_key("host"));
}

#[test]
fn formats_read_the_first_value_or_the_line() {
    let additions = [
        add("x-first", "%REQ(x-many)%", AppendAction::default()),
        add("x-line", "%REQ(via)%", AppendAction::default()),
    ];
    let many = || {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-many", "1"), ("x-many", "2"), ("via", "a"), ("via", "b")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    };
    let mutations = Mutations::new(&[(&[], &additions)]).expect("valid");
    let mut head = HeadBuf {
        headers: many(),
        ..HeadBuf::default()
    };
    mutations.apply_request(&mut head, &());
    assert_eq!(head.headers["x-first"], "1");
    assert_eq!(head.headers["x-line"], "a,b");
    let additions = [add("x-first", "%RESP(x-many)%", AppendAction::default())];
    let mutations = Mutations::new(&[(&[], &additions)]).expect("valid");
    let mut headers = many();
    mutations.apply_response(&mut headers, &());
    assert_eq!(headers["x-first"], "1");
}

#[test]
fn a_host_that_no_uri_can_hold_is_sent_as_it_is() {
    for uri in ["/p?q", "http://x/p?q"] {
        let mut request = Request::get(uri)
            .header("host", "x")
            .body(())
            .expect("a request");
        request.set_authority(b"a b");
        assert_eq!(request.uri(), "/p?q");
        assert_eq!(request.headers()["host"], "a b");
        request.set_authority(b"a\nb");
        assert_eq!(request.headers()["host"], "a b", "no header can hold it");
    }
}
