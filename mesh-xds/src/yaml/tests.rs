use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[derive(Default)]
struct Route {
    name: String,
    weight: u32,
    hosts: Vec<String>,
    headers: BTreeMap<String, String>,
    ports: BTreeMap<u32, bool>,
    timeout: Option<String>,
    nested: Option<Box<Route>>,
    mode: Option<Mode>,
    share: f64,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Mode {
    Strict,
    Permissive,
}

fn refused(text: &str) -> Error {
    from_str::<Route>(text).expect_err("must be refused")
}

#[test]
fn reads_block_flow_json_and_escapes() {
    let block =
        "name: a\nweight: 1\nhosts:\n- x\n- 'y'\nports:\n  8080: true\nmode: STRICT\nshare: 1\n";
    let json = "{\"name\":\"a\",\"weight\":1,\"hosts\":[\"x\",\"\\u0079\"],\n\t\"ports\":{\"8080\":true},\"mode\":\"STRICT\",\"share\":1.0}";
    let a: Route = from_str(block).expect("block");
    assert_eq!(a, from_str(json).expect("json"));
    assert_eq!(a.hosts, ["x", "y"]);
    assert_eq!(a.mode, Some(Mode::Strict));
    let pair: String = from_str("\"\\ud83d\\ude00\"").expect("surrogates");
    assert_eq!(pair, "\u{1f600}");
}

#[test]
fn null_means_unset() {
    let route: Route =
        from_str("name:\nhosts: null\nheaders: ~\nnested:\ntimeout:\n").expect("nulls");
    assert_eq!(route, Route::default());
    assert_eq!(from_str::<Route>("").expect("empty"), Route::default());
    assert_eq!(
        from_str::<Route>("# only a comment\n").expect("comment"),
        Route::default()
    );
}

#[test]
fn unknown_field_names_place_path_and_nearest() {
    let error = refused("name: a\nnested:\n  nested:\n    weigth: 3\n");
    assert_eq!(error.location(), Some(Location { line: 4, column: 5 }));
    assert_eq!(error.path().to_string(), "nested.nested.weigth");
    assert_eq!(error.nearest(), Some("weight"));
    assert!(error.allowed().contains(&"headers".to_owned()), "{error}");
}

#[test]
fn wrong_types_name_place_and_path() {
    let error = refused("hosts:\n- a\n- [b]\n");
    assert_eq!(
        (error.path().to_string(), error.location()),
        ("hosts[1]".into(), Some(Location { line: 3, column: 3 }))
    );
    assert!(error.message().contains("expected a string"), "{error}");
    let error = refused("name: on\n");
    assert!(
        error.message().contains("write it in quotes: \"on\""),
        "{error}"
    );
    assert!(refused("weight: -1").message().contains("expected u32"));
    assert!(refused("weight: '1'").message().contains("string \"1\""));
    assert!(refused("weight: 1.5").message().contains("1.5"));
    assert_eq!(refused("mode: STRIKT").nearest(), Some("STRICT"));
    assert_eq!(refused("ports: {a: true}").path().to_string(), "ports.a");
    assert_eq!(refused("- 1").path().to_string(), "");
}

#[test]
fn whole_floats_are_integers() {
    assert_eq!(from_str::<Route>("weight: 3.0").expect("3.0").weight, 3);
}

#[test]
fn duplicate_keys_are_refused() {
    let error = refused("name: a\nheaders:\n  x: '1'\n  x: '2'\n");
    assert_eq!(error.message(), "duplicate key `x`");
    assert_eq!(error.path().to_string(), "headers.x");
    assert_eq!(error.location(), Some(Location { line: 4, column: 3 }));
    let many: String = (0..100)
        .map(|i| format!("k{i}: v\n"))
        .chain(["k99: w\n".to_owned()])
        .collect();
    let error = from_str::<BTreeMap<String, String>>(&many).expect_err("duplicate");
    assert_eq!(error.message(), "duplicate key `k99`");
}

#[test]
fn aliases_and_merge_keys_work() {
    let text = "nested: &base\n  name: b\n  hosts: &h [x, z]\n  headers: {a: '1'}\nhosts: *h\nheaders:\n  <<: {a: '2', b: '3'}\n  a: '0'\n";
    let route: Route = from_str(text).expect("aliases");
    assert_eq!(route.hosts, ["x", "z"]);
    assert_eq!(route.headers["a"], "0");
    assert_eq!(route.headers["b"], "3");
    let list = "a: &a {x: '1'}\nb: &b {x: '2', y: '2'}\nc: {<<: [*a, *b], z: '3'}\nd: {<<: *b}\n";
    let maps: BTreeMap<String, BTreeMap<String, String>> = from_str(list).expect("merged list");
    assert_eq!(
        maps["c"],
        BTreeMap::from(
            [("x", "1"), ("y", "2"), ("z", "3")].map(|(k, v)| (k.to_owned(), v.to_owned()))
        )
    );
    assert_eq!(maps["d"], maps["b"]);
    let nested = "a: &a {x: '1'}\nb: &b {<<: *a, y: '2'}\nc: *b\n";
    let maps: BTreeMap<String, BTreeMap<String, String>> =
        from_str(nested).expect("anchored merge");
    assert_eq!(maps["c"], maps["b"]);
    assert!(from_str::<BTreeMap<String, String>>("<<: 1").is_err());
}

#[test]
fn alias_bombs_are_bounded() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let refs = vec![format!("*a{}", i - 1); 9].join(", ");
        text += &format!("a{i}: &a{i} [{refs}]\n");
    }
    let error = from_str::<serde::de::IgnoredAny>(&text).expect_err("bomb");
    assert!(
        error.message().contains("aliases stand for more than"),
        "{error}"
    );
    assert!(error.location().is_some());
    let long = format!(
        "a: &a \"{}\"\nb: [{}]\n",
        "x".repeat(1 << 20),
        vec!["*a"; 40].join(",")
    );
    let error = from_str::<serde::de::IgnoredAny>(&long).expect_err("bytes");
    assert!(error.message().contains("bytes"), "{error}");
    assert!(from_str::<serde::de::IgnoredAny>("a: &a [*a]").is_err());
    assert!(from_str::<serde::de::IgnoredAny>("a: *nobody").is_err());
}

#[test]
fn depth_is_bounded() {
    let flow = "[".repeat(5000);
    assert!(from_str::<serde::de::IgnoredAny>(&flow).is_err());
    let deep = format!("{}{}", "[".repeat(150), "]".repeat(150));
    let error = from_str::<serde_json::Value>(&deep).expect_err("depth");
    assert!(error.message().contains("100 levels"), "{error}");
}

#[test]
fn tabs_and_half_written_texts_are_named() {
    let error = refused("name: a\nnested:\n\tname: b\n");
    assert!(
        error.message().contains("tab in the indentation"),
        "{error}"
    );
    assert_eq!(error.location().map(|l| l.line), Some(3), "{error}");
    // The parser blames the word before.
    let error = refused("name: a\nnested:\n  name: b\n \tweight: 1\n");
    assert!(
        error.message().contains("tab in the indentation"),
        "{error}"
    );
    assert_eq!(error.location(), Some(Location { line: 4, column: 2 }));
    // JSON may be indented by tabs.
    let error = refused("{\n\t\"name\": \"a\"\n\t\"weight\": 1\n}");
    assert!(!error.message().contains("tab"), "{error}");
    let error = refused("name: \"a\nweight: 1\n");
    assert!(error.is_syntax() && error.location().is_some(), "{error}");
    let error = refused("{\"name\": \"a\", \"hosts\": [\"b\"");
    assert!(error.message().contains("unclosed bracket"), "{error}");
}

#[test]
fn what_needs_quotes_or_a_merge_is_said() {
    for (text, told) in [
        (
            "hosts: [*.example.com]",
            "1:9: hosts: `*` begins an alias in YAML; write it in quotes",
        ),
        ("hosts:\n- *\n", "2:3: hosts: `*` begins an alias"),
        ("name: %a", "no word of YAML begins so; write it in quotes"),
        ("name: @a", "write it in quotes"),
        (
            "name: a\n<<<<<<< HEAD\nweight: 1\n=======\nweight: 2\n>>>>>>> b\n",
            "a merge conflict that is not resolved",
        ),
    ] {
        let error = refused(text).to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn size_and_encoding_are_checked() {
    let limits = Limits {
        max_bytes: 8,
        ..Limits::default()
    };
    assert!(
        text(b"123456789", &limits)
            .expect_err("size")
            .message()
            .contains("limit is 8")
    );
    let error = text(b"a: 1\nb: \xff", &Limits::default()).expect_err("encoding");
    assert_eq!(error.location(), Some(Location { line: 2, column: 4 }));
    assert_eq!(
        from_str::<Route>("\u{feff}name: a")
            .expect("byte order mark")
            .name,
        "a"
    );
}

#[test]
fn documents_are_read_one_by_one_and_a_refused_one_does_not_hide_the_next() {
    let text = "# head\n---\nname: a\n---\n---\nnaem: b\nnested: {weight: 2}\n---\nname: c\n...\n";
    let mut reader = Reader::new(text, &Limits::default());
    let mut seen = Vec::new();
    while let Some(at) = reader.next_document().expect("syntax") {
        let read = reader.read(std::marker::PhantomData::<Route>);
        seen.push((
            at.line,
            read.map(|r| r.name).map_err(|e| e.message().to_owned()),
        ));
    }
    assert_eq!(
        seen,
        [
            (3, Ok("a".into())),
            (6, Err("unknown field `naem`".into())),
            (9, Ok("c".into()))
        ]
    );
    assert!(from_str::<Route>("name: a\n---\nname: b\n").is_err());
}

#[test]
fn what_is_kept_for_aliases_is_limited() {
    let limits = Limits {
        max_alias_nodes: 100,
        ..Limits::default()
    };
    let read = |text: &str| {
        from_seed(
            text,
            std::marker::PhantomData::<serde::de::IgnoredAny>,
            &limits,
        )
        .map(drop)
        .map_err(|error| error.to_string())
    };
    let many = vec!["x"; 40].join(",");
    assert_eq!(read(&format!("a: &a [{many}]")), Ok(()));
    let nested = read(&format!("a: &a [&b [&c [{many}]]]")).expect_err("120 tokens are kept");
    assert!(
        nested.contains("anchors and aliases stand for more than 100 nodes"),
        "{nested}"
    );
    let apart = format!("a: &a [{many}]\n");
    assert_eq!(read(&apart), Ok(()));
}

#[test]
fn locate_finds_fields_again() {
    let text = "name: a\n---\nname: b\nspec:\n  http:\n  - match: 1\n    route:\n    - {weight: 1}\n    - weight: 2\n";
    let path = Path::root()
        .key("spec")
        .key("http")
        .index(0)
        .key("route")
        .index(1)
        .key("weight");
    assert_eq!(
        locate(text, 1, &path),
        Some(Location { line: 9, column: 7 })
    );
    let missing = Path::root()
        .key("spec")
        .key("http")
        .index(0)
        .key("retries")
        .key("attempts");
    assert_eq!(
        locate(text, 1, &missing),
        Some(Location { line: 6, column: 5 })
    );
    assert_eq!(locate(text, 2, &path), None);
}

#[test]
fn locate_by_the_line_of_an_object() {
    let text =
        "a: 1\n---\nkind: List\nitems:\n- x: 1\n- x: 2\n  y:\n    z: 3\n---\nx: {y: {z: 1}}\n";
    let path = Path::root().key("y").key("z");
    let below = Path::root().key("x").key("y");
    let fields = [(6, path.clone()), (10, below), (7, path)];
    assert_eq!(
        locate_at_lines(text, &fields),
        [
            Some(Location { line: 8, column: 5 }),
            Some(Location {
                line: 10,
                column: 5
            }),
            None
        ]
    );
}

#[test]
fn locate_finds_many_fields_in_one_pass() {
    let text = "a: [{b: 1}, {b: 2, c: 3}]\nd: 4\na: 5\n---\ne: 6\n";
    let a = Path::root().key("a");
    let fields = [
        (1, Path::root().key("e")),
        (0, a.index(1).key("c")),
        (0, Path::root().key("d")),
        (0, a.index(1).key("c")),
        (0, a.index(7)),
        (0, a),
        (2, Path::root()),
    ];
    let found: Vec<_> = locate_all(text, &fields)
        .into_iter()
        .map(|place| place.map(|at| (at.line, at.column)))
        .collect();
    let c = Some((1, 20));
    assert_eq!(
        found,
        [
            Some((5, 1)),
            c,
            Some((2, 1)),
            c,
            Some((1, 1)),
            Some((1, 1)),
            None
        ]
    );
}
