use super::*;

fn program(pattern: &str) -> Program {
    Program::compile(pattern).expect("RE2 takes it")
}

#[test]
fn classes_are_ascii_and_dots_are_characters() {
    for (pattern, text, wanted) in [
        (r"\d+", "12", true),
        (r"\d", "٣", false),
        (r"\w", "é", false),
        (r"\s", "\u{a0}", false),
        (r"\s", "\u{b}", false),
        (r"[[:space:]]", "\u{b}", true),
        (".", "é", true),
        (".", "\n", false),
        ("(?s).", "\n", true),
        (r"\pL", "é", true),
        (r"\p{Greek}+", "αβ", true),
        (r"\P{Lu}", "A", false),
        ("(?i)k", "\u{212a}", true),
        (r"[\d_-]+", "1-_", true),
        ("[]a]+", "]a", true),
        (r"\Qa.b\E+", "a.bb", true),
        ("a{,2}", "a{,2}", true),
        ("{", "{", true),
        (r"\101\x42\x{43}", "ABC", true),
        ("a|ab", "ab", true),
        ("", "a", false),
        (r"a(?i)*", "aaa", true),
    ] {
        assert_eq!(
            program(pattern).is_match(text.as_bytes()),
            wanted,
            "{pattern} on {text:?}"
        );
    }
    assert!(!program(".").is_match(b"\xff"));
    assert!(program(r"\C").is_match(b"\xff"));
}

#[test]
fn what_re2_refuses_is_refused() {
    for pattern in [
        "(",
        ")",
        "*",
        "a**",
        "a*+",
        "a{2}{3}",
        "a{1001}",
        "(a{100}){11}",
        "[",
        "[]",
        "[z-a]",
        r"[a-\d]",
        "[[:foo:]]",
        r"\1",
        r"\8",
        r"\y",
        r"\Z",
        r"\é",
        r"\pX",
        r"\p{greek}",
        r"\x4",
        "(?=a)",
        "(?<!a)",
        "(?x)a",
        "(?P<>a)",
        "(?i-)",
        "a\\",
        "x{3,2}",
    ] {
        assert!(Program::compile(pattern).is_err(), "{pattern}");
    }
}

#[test]
fn substitution_replaces_each_match() {
    let replaced = |pattern: &str, with: &str, text: &str| {
        let with = Substitution::parse(with).expect("a substitution");
        let out = program(pattern)
            .replace_all(text.as_bytes(), &with)
            .into_owned();
        String::from_utf8(out).expect("UTF-8")
    };
    assert_eq!(replaced("e", "X", "/newforreg"), "/nXwforrXg");
    assert_eq!(replaced(r"^/(\w+)/(\w+)$", r"/\2/\1\\", "/a/b"), r"/b/a\");
    assert_eq!(replaced("a*", "-", "baac"), "-b-c-");
    assert_eq!(replaced("a", r"\1", "aaa"), "aaa");
    assert!(Substitution::parse(r"\x").is_err());
}

#[test]
fn size_is_limited() {
    assert!(Program::compile(r"(?:\pL{300}\pN{300}){3}").is_err());
}

#[test]
fn deep_groups_are_refused_before_the_stack_ends() {
    let nested = |depth: usize| "(".repeat(depth) + "a" + &")".repeat(depth);
    assert!(program(&nested(100)).is_match(b"a"));
    for depth in [200, 1_000, 10_000] {
        // Whether it compiles does not matter, that it comes back does.
        let _ = Program::compile(&nested(depth));
        let _ = Program::compile(&("(?:".repeat(depth) + "a*" + &")*".repeat(depth)));
    }
}
