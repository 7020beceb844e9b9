#!/usr/bin/env python3
"""Writes a table of regular expressions, inputs and RE2's own verdicts: re2_table.py FILE.

Each row: pattern, whether RE2 takes it, and for each input (hexadecimal bytes) whether the whole input matches and, for
patterns that cannot match the empty string, what a global replacement gives. The table is the same on each run.
"""
import json
import random
import sys

import re2

SEED = 20260101
RANDOM_PATTERNS = 4000
INPUTS_EACH = 12

# Patterns that people write into routes, and corners of RE2's syntax page.
CURATED = r"""
|a|abc|/api/v[0-9]+/.*|/api/v1/products/\d+/reviews|^/productpage$|\A/x\z|^a|a$|(?m)^a$|.*\.(html|css|js)|[^/]+|/[^/]*/b
.|.*|.+|.?|a*|a+|a?|a*?|a+?|a??|(a|b)*c|(?:ab)+|a{2}|a{2,}|a{2,3}|a{,3}|a{0}|a{0,1}|a{2,3}?|a{1000}|a{1001}|(a{100}){10}|(a{100}){11}
a**|a*+|a++|a??+|*a|+|?|{2}|a{2}{3}|a{3,2}|a|b|(|)|()|(a|)|a|||[|]|[]|[]a]|[^]a]|[a-]|[-a]|[z-a]|[a\]b]|[a-\d]|[\d-z]|[[:alpha:]]+
[[:^alpha:]]|[[:digit:][:space:]]+|[[:word:]]|[[:foo:]]|[[:alpha]|[:alpha:]|[[:ascii:]]|[[:cntrl:]]|[[:graph:]]|[[:print:]]|[[:punct:]]|[[:blank:]]|[[:xdigit:]]+
\d|\D|\s|\S|\w|\W|[\d\s]|[\D]|[^\w]|[^\W]|\b|\B|\bfoo\b|foo\B|\h|\v|\f|\t|\n|\r|\a|\e|\0|\1|\12|\123|\012|\08|\8|\x41|\x4|\x{41}|\x{10FFFF}|\x{110000}|\x{}|\x
\pL|\p{L}|\p{Lu}|\PL|\P{Lu}|\p{^Lu}|\p{Greek}+|\p{Foo}|\pZ|[\pL\d]|[^\pL]|\p{Braille}|\C|\C*|a\Cb|\X|\R|\K|\G|\Z|\z|\A|\Q.*\E|\Qa|\E|a\Eb|\Q\Q\E|[\Qa\E]
(?i)abc|(?i)k|(?i)s|(?i)ß|(?i:a)b|(?-i)a|(?i-s)a.|(?s).|(?s:.)|(?-s:.)|(?U)a+|(?U)a+?|(?x)a b|(?is)a.b|(?)a|(?i|(?z)a|(?i)[a-c]+|(?i)[^k]|(?i)É|(?i)\x{17f}
(?P<n>a)|(?<n>a)|(?P<n>a)(?P<n>b)|(?P<>a)|(?P<1>a)|(?P=n)|(?P>n)|(?'n'a)|(?#c)a|(?=a)|(?!a)|(?<=a)|(?<!a)|(?>a)|(?|a)|\k<n>|\g1|(a)\1
\_|\-|\/|\"|\'|\:|\#|\%|\&|\~|\!|\@|\=|\,|\;|\<|\>|\`|\ |\.|\+|\*|\?|\(|\)|\[|\]|\{|\}|\^|\$|\||\\|\é|\y|\c|\cA|\i|\o|\u0041|\N{SPACE}|\i
a{|a{1|a{1,|a{,|a{a}|{|}|{}|a}|]|)|(|((a)|(a))|[a|a]|x[^|^*|$*|^+|\b+|\b*|(^)*|(?:^a)*|a$b|a^b|$^|^$|(?m)^$|(?m)$|\n|[\n]|[^\n]|[^a]
é|[é]|[à-ý]+|.é|日本|日+|[日-本]|[^日]|\x{e9}|\xe9|[\xe0-\xff]|😀|.{2}|[😀-😎]
(a)(b)(c)|((a)b)c|(a)|(b)?|(?:(a)|b)+|(/v)([0-9])+|^/([^/]+)/(.*)$|(\w+)@(\w+)\.com|^(.*?)/x/(.*)$
""".strip("\n")

ATOMS = ["a", "b", "ab", "/", ".", "\\.", "\\d", "\\w", "\\s", "\\S", "[a-c]", "[^a]", "[^/]+", "é", "\\x{e9}", "(a|b)", "(?:ab|c)", "(?i:k)",
         "\\b", "^", "$", "\\pL", "[[:alpha:]]", "[\\d_]", "(?s:.)", "1", "-", "K", "\\C", "\\Qa.\\E", "(a(b)?)", "[à-ý]", "\\n"]
REPEATS = ["", "", "", "", "*", "+", "?", "*?", "+?", "??", "{2}", "{1,2}", "{0,1}", "{2,}"]
PIECES = [b"a", b"b", b"ab", b"c", b"/", b".", b"1", b"_", b" ", b"\n", b"k", b"K", "é".encode(), "É".encode(), "K".encode(), "ſ".encode(),
          "日".encode(), "😀".encode(), b"\xff", b"\xc3", b"\x80", b"\0", b"-", b"A", b"abc", b"/api/v1/products/12/reviews", b"x", b"n",
          b"/productpage", b"foo", b"\t", b"\r", b"}", b"{", b"\\", b"a" * 100]


def curated():
    """The list above: separated by `|` at the top level where both sides stand alone, and each line as a whole too."""
    for line in CURATED.splitlines():
        yield line
        yield from line.split("|")


def generated(rng):
    for _ in range(RANDOM_PATTERNS):
        flags = rng.choice(["", "", "", "", "(?i)", "(?s)", "(?m)", "(?U)"])
        parts = (rng.choice(ATOMS) + rng.choice(REPEATS) for _ in range(rng.randint(1, 5)))
        text = "".join(parts)
        if rng.random() < 0.15:
            text += "|" + rng.choice(ATOMS)
        yield flags + text


def inputs(rng):
    out = [b"", b"a", b"\n"]
    while len(out) < INPUTS_EACH:
        out.append(b"".join(rng.choice(PIECES) for _ in range(rng.randint(1, 5))))
    return out


def row(pattern, rng, options):
    try:
        compiled = re2.compile(pattern, options=options)
    except re2.error:
        return {"pattern": pattern, "valid": False, "cases": []}
    never_empty = compiled.search(b"") is None and "^" not in pattern and "$" not in pattern and "\\b" not in pattern
    cases = []
    for text in inputs(rng):
        case = {"input": text.hex(), "full": compiled.fullmatch(text) is not None}
        if never_empty and compiled.groups >= 1:
            case["replaced"] = compiled.sub(rb"<\1>", text).hex()
        cases.append(case)
    return {"pattern": pattern, "valid": True, "cases": cases}


def main():
    rng = random.Random(SEED)
    options = re2.Options()
    options.log_errors = False
    patterns = dict.fromkeys([*curated(), *generated(rng)])
    rows = [row(pattern, rng, options) for pattern in patterns]
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(rows, file)
    print(f"{len(rows)} patterns, {sum(len(r['cases']) for r in rows)} inputs, {sum(not r['valid'] for r in rows)} refused by RE2")


if __name__ == "__main__":
    main()
