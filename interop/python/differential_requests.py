"""Requests by hand: odd paths, odd hosts, odd headers, each for HTTP/1 or HTTP/2."""

from differential_config import HOSTS, QUERIES, VALUES
from differential_peers import SCRIPTS, h1_call, h2_call

ODD_PATHS = [
    "/a/../b",
    "/a/./b",
    "//a//b",
    "/a%2fb",
    "/a%2Fb",
    "/a%5cb",
    "/a\\b",
    "/%61",
    "/a%20b",
    "/a%",
    "/a%zz",
    "/a%00b",
    "/a;x=1",
    "/a;x=1/b",
    "/a#frag",
    "/?",
    "/a?",
    "/a??b",
    "/../..",
    "/a/..",
    "/a/%2e%2e/b",
    "/%2E/a",
    "a",
    "*",
    "/a/b/",
    "/caf%C3%A9",
    "/a|b",
    '/a"b',
    "/a{b}",
    "/a'b",
    "/x" * 150,
    "http://two.test/a?x=1",
    "http://two.test",
    "HTTP://One.Test:80/a",
    "https://one.test/a",
    "http://one.test:8080/foo?q=a",
]
ODD_HOSTS = ["", "ONE.TEST", "one.test.", "one.test:80", "one.test:443", "one.test:", "one.test:abc", "[::1]", "[::1]:80", "a b", "one.test:8080", "*.two.test", "two.test:port", "user@one.test", "127.0.0.1", "two.test,one.test"]
MANAGED = [
    ("x-forwarded-for", "1.2.3.4"),
    ("x-forwarded-for", "1.2.3.4, 10.0.0.1"),
    ("x-forwarded-for", "10.1.1.1"),
    ("x-forwarded-for", "1.2.3.4,5.6.7.8,9.9.9.9"),
    ("x-forwarded-for", "garbage"),
    ("x-forwarded-for", "1.2.3.4:99"),
    ("x-forwarded-for", ""),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-proto", "junk"),
    ("x-forwarded-host", "fwd.test"),
    ("x-forwarded-port", "9"),
    ("x-forwarded-client-cert", "By=a;Hash=b"),
    ("x-request-id", "my-id"),
    ("x-request-id", "12345678-1234-4234-8234-123456789012"),
    ("x-envoy-upstream-rq-timeout-ms", "4000"),
    ("x-envoy-upstream-rq-timeout-ms", "junk"),
    ("x-envoy-upstream-rq-per-try-timeout-ms", "3000"),
    ("x-envoy-expected-rq-timeout-ms", "5"),
    ("x-envoy-max-retries", "2"),
    ("x-envoy-retry-on", "5xx"),
    ("x-envoy-retry-on", "retriable-status-codes,junk"),
    ("x-envoy-retriable-status-codes", "409"),
    ("x-envoy-retriable-header-names", "x-many"),
    ("x-envoy-retry-grpc-on", "unavailable"),
    ("x-envoy-internal", "true"),
    ("x-envoy-external-address", "6.6.6.6"),
    ("x-envoy-decorator-operation", "caller"),
    ("x-envoy-attempt-count", "5"),
    ("x-envoy-original-path", "/lie"),
    ("x-envoy-original-host", "lie"),
    ("x-envoy-downstream-service-cluster", "me"),
    ("x-envoy-force-trace", "1"),
    ("x-envoy-hedge-on-per-try-timeout", "true"),
    ("x-envoy-fault-abort-request", "503"),
    ("x-envoy-fault-abort-grpc-request", "5"),
    ("x-envoy-fault-delay-request", "5"),
    ("x-envoy-upstream-alt-stat-name", "alt"),
    ("x-client-trace-id", "abc"),
    ("grpc-timeout", "1S"),
    ("te", "trailers"),
    ("te", "gzip"),
    ("via", "1.0 before"),
    ("date", "Sat, 01 Jan 2000 00:00:00 GMT"),
    ("server", "client"),
    ("forwarded", "for=1.2.3.4"),
    ("referer", "http://a.test/x?y#z"),
    ("referer", "https://u:p@a_b.test:443"),
    ("referer", "/only/a/path"),
    ("referer", "a.test"),
    ("referer", "http://a.test:99999/"),
    ("referer", "http://[::1]/a b"),
]
HOP = [("connection", "x-one"), ("connection", "keep-alive"), ("connection", "close"), ("keep-alive", "timeout=1"), ("proxy-connection", "keep-alive"), ("connection", "te"), ("upgrade", "h2c"), ("upgrade", "websocket")]
ODD_HEADERS = [("x-odd_under", "1"), ("X-Mixed-Case", "v"), ("x-tab", "a\tb"), ("x-latin", "caf\u00e9"), ("x-long", "y" * 2000), ("x-colon", "a:b"), ("accept-encoding", "gzip"), ("authorization", "Basic eDp5"), ("x-pad", "  two  ")]


class Requests:
    """Draws requests for one listener."""

    def __init__(self, maker, odd):
        self.maker = maker
        self.odd = odd

    def draw(self, paths):
        maker = self.maker
        self.breaks = maker.maybe(self.odd)
        protocol = maker.pick(["h1", "h2", "h10"] if self.breaks else ["h1", "h2"])
        found = {"protocol": protocol, "method": maker.pick(["GET"] * 6 + ["POST", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"] + ["get"] * self.breaks)}
        found["path"] = maker.pick(ODD_PATHS) if self.breaks and maker.maybe(0.6) else maker.pick(paths)
        if maker.maybe(0.3) and "?" not in found["path"]:
            found["path"] += "?" + "&".join(f"{maker.pick(QUERIES)}={maker.pick(VALUES[:8])}" if maker.maybe(0.8) else maker.pick(QUERIES) for _ in range(maker.random.randint(1, 3)))
        found["host"] = maker.pick(ODD_HOSTS) if self.breaks and maker.maybe(0.4) else maker.pick(HOSTS)
        if self.breaks and maker.maybe(0.1):
            found["method"] = maker.pick(["CONNECT", "TRACE"])
            if found["method"] == "CONNECT":
                found["path"] = found["host"] = "one.test:443"
        found["headers"] = self.headers()
        self.body(found)
        return found

    def headers(self):
        maker = self.maker
        found = [(name, value) for name, value in maker.hints if maker.maybe(0.08)][:4]
        for share, pool in [(0.35, [("x-one", value) for value in VALUES[:8]]), (0.2, [("x-two", value) for value in VALUES[:8]]), (0.25, MANAGED), (0.25, MANAGED), (0.3 * self.breaks, HOP), (0.5 * self.breaks, ODD_HEADERS)]:
            if maker.maybe(share):
                drawn = maker.pick(pool)
                if (drawn[1] and drawn[0] != "x-forwarded-for") or drawn[0] not in [name for name, _ in found]:
                    found.append(drawn)
        if maker.maybe(0.4):
            found.append(("x-cluster", maker.pick(["h1", "h2", "none", "no-such", ""])))
        if maker.maybe(0.1):
            found += [("origin", maker.pick(["http://a.test", "https://b.test", "null", "*", ""]))] + [("access-control-request-method", maker.pick(["PUT", "PUT", ""]))] * maker.maybe(0.6) + [("access-control-request-headers", "x-one,x-two")] * maker.maybe(0.4) + [("access-control-request-private-network", "true")] * maker.maybe(0.3)
        if maker.maybe(0.1):
            found.append(("content-type", maker.pick(["application/grpc", "application/grpc+proto", "text/plain", "application/grpc-web"])))
        if maker.maybe(0.15):
            found.append(maker.pick([("user-agent", "agent/1"), ("accept", "text/html"), ("cookie", "a=1; b=2"), ("cookie", "c=3")]))
        if maker.maybe(0.5):
            found.append(("x-script", maker.pick(sorted(SCRIPTS))))
        maker.random.shuffle(found)
        return found

    def body(self, found):
        maker = self.maker
        found["body"], found["trailers"] = None, []
        if found["method"] in ("POST", "PUT", "PATCH") or maker.maybe(0.05):
            found["body"] = maker.pick(["", "hello", "z" * 3000])
            found["framing"] = maker.pick(["length", "length", "chunked"])
            if maker.maybe(0.15):
                found["trailers"] = [("x-request-trailer", "rt")]
                found["framing"] = "chunked"
            if self.breaks and maker.maybe(0.3):
                found["headers"].append(("expect", maker.pick(["100-continue", "100-Continue", "other"])))


def h1_bytes(request, case):
    """The head, and what follows it."""
    version = "HTTP/1.0" if request["protocol"] == "h10" else "HTTP/1.1"
    headers = [("host", request["host"])] if request["host"] or version == "HTTP/1.1" else []
    headers += [("x-case", case)] + [tuple(pair) for pair in request["headers"]]
    body = b""
    if request["body"] is not None:
        data = request["body"].encode("latin-1")
        if request["framing"] == "length":
            headers.append(("content-length", str(len(data))))
            body = data
        else:
            headers.append(("transfer-encoding", "chunked"))
            trailers = "".join(f"{name}: {value}\r\n" for name, value in request["trailers"]).encode()
            body = (b"%x\r\n%s\r\n" % (len(data), data) if data else b"") + b"0\r\n%s\r\n" % trailers
    text = f"{request['method']} {request['path']} {version}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers)
    return (text + "\r\n").encode("latin-1"), body


def play(request, case, address):
    """What the proxy at `address` answers."""
    if request["protocol"] != "h2":
        head, body = h1_bytes(request, case)
        return h1_call(address, head + body, request["method"])
    headers = [(":method", request["method"])]
    if request["method"] != "CONNECT":
        headers += [(":scheme", "http"), (":path", request["path"])]
    if request["host"]:
        headers.append((":authority", request["host"]))
    headers += [("x-case", case)] + [(name.lower(), value.strip(" ")) for name, value in request["headers"]]
    body = request["body"]
    if body is not None:
        body = body.encode("latin-1")
        if request["framing"] == "length":
            headers.append(("content-length", str(len(body))))
    return h2_call(address, headers, body, request["trailers"])
