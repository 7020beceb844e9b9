"""What the router does with a request: limits of time and retries, by its route and by its own headers, and mirrors.

    router.py --proxy PROGRAM --scratch FOLDER [--only WORD] [--show]

Each case states what the client, the upstream and the access log see, and the statistics of the cluster that move. The expectations
were written down from Envoy 1.40; where the proxy under test differs, `ours` says so and why.
"""

import sys
import time

from peers import H1Client, Seen, drain, free_port, full, headers_of, read_head, serve
from play import Play
from rig import World, by, cluster, listener, manager

PLAY = Play()
SEEN = Seen()
# An answer that takes longer had to wait for something.
SLOW = 0.35


def app(peer):
    """Answers each attempt at a case as its `x-script` says: `status[,header=value][,after milliseconds]`, or `-` for silence."""
    rest = b""
    while True:
        head, rest = read_head(peer, rest)
        asked = headers_of(head)
        rest = drain(peer, asked, rest)
        case = asked.get("x-case", "-")
        SEEN.tell(case, (head.split("\r\n")[0], asked))
        steps = asked.get("x-script", "200").split(" ")
        step = steps[min(len(SEEN.get(case)), len(steps)) - 1]
        if step == "-":
            time.sleep(4)
            return
        if step == "close":
            return
        status, *more = step.split(",")
        added = ""
        for one in more:
            if "=" in one:
                name, value = one.split("=", 1)
                added += f"{name}: {value}\r\n"
            else:
                time.sleep(int(one) / 1000)
        peer.sendall(f"HTTP/1.1 {status} Any\r\ncontent-length: 2\r\n{added}\r\nok".encode())


def copies(peer):
    """Where mirrors go: says how much of a request came."""
    head, rest = read_head(peer)
    asked = headers_of(head)
    count = len(rest)
    length = int(asked.get("content-length", 0))
    while count < length:
        more = peer.recv(65536)
        if not more:
            break
        count += len(more)
    SEEN.tell(f"copy of {asked.get('x-case')}", (count, asked))
    peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


BRIEF = {"base_interval": "0.001s"}


def retry(on, **more):
    return {"retry_on": on, "retry_back_off": BRIEF, **more}


def mirrored(**more):
    return {"cluster": "copies", **more}


ROUTES = {
    "plain": {"timeout": "1s"},
    "none": {"timeout": "0s"},
    "5xx": {"timeout": "2s", "retry_policy": retry("5xx", num_retries=2)},
    "reset": {"timeout": "2s", "retry_policy": retry("reset", num_retries=2)},
    "reset-before": {"timeout": "2s", "retry_policy": retry("reset-before-request", num_retries=2)},
    "connect": {"timeout": "2s", "retry_policy": retry("connect-failure", num_retries=2)},
    "grpc": {"timeout": "2s", "retry_policy": retry("unavailable", num_retries=2)},
    "try": {"timeout": "2s", "retry_policy": retry("5xx", per_try_timeout="0.4s")},
    "try-idle": {"timeout": "2s", "retry_policy": retry("5xx", per_try_idle_timeout="0.4s")},
    "try-only": {"timeout": "2s", "retry_policy": {"per_try_timeout": "0.4s"}},
    "try-reset": {"timeout": "2s", "retry_policy": retry("reset", per_try_timeout="0.4s")},
    "try-connect": {"timeout": "2s", "retry_policy": retry("connect-failure", per_try_timeout="0.4s")},
    "try-equal": {"timeout": "0.4s", "retry_policy": retry("5xx", per_try_timeout="0.4s")},
    "try-longer": {"timeout": "0.4s", "retry_policy": retry("5xx", per_try_timeout="0.8s")},
    "early": {"timeout": "2s", "retry_policy": {"retry_on": "retriable-status-codes", "retriable_status_codes": [425], "retry_back_off": {"base_interval": "1.5s"}}},
    "waits": {"timeout": "5s", "retry_policy": retry("5xx", num_retries=2, rate_limited_retry_back_off={"reset_headers": [{"name": "retry-after"}]})},
    "small": {"timeout": "2s", "retry_policy": retry("5xx")},
    "once": {"timeout": "2s", "retry_policy": retry("5xx", num_retries=0)},
    "headers": {"timeout": "2s", "retry_policy": retry("retriable-headers", retriable_headers=[{"name": ":status", "range_match": {"start": 500, "end": 505}}, {"name": "x-again"}])},
    "only-get": {"timeout": "2s", "retry_policy": retry("5xx", retriable_request_headers=[{"name": ":method", "string_match": {"exact": "GET"}}])},
    "adds-limit": {"timeout": "2s"},
    "adds-alt": {"timeout": "0.4s"},
    "adds-retry": {"timeout": "2s"},
    "grpc-limit": {"timeout": "2s", "max_grpc_timeout": "1s", "grpc_timeout_offset": "0.1s", "retry_policy": retry("5xx,unavailable", num_retries=2)},
    "stream": {"max_stream_duration": {"max_stream_duration": "0.4s"}},
    "stream-grpc": {"max_stream_duration": {"grpc_timeout_header_max": "2s"}, "retry_policy": retry("5xx")},
    "full": {"cluster": "full", "timeout": "3s"},
    "full-try": {"cluster": "full", "timeout": "3s", "retry_policy": {"retry_on": "5xx", "per_try_timeout": "0.2s", "retry_back_off": BRIEF}},
    "life": {"cluster": "life", "timeout": "2s"},
    "life-again": {"cluster": "life", "timeout": "2s", "retry_policy": retry("reset")},
    "nobody": {"cluster": "nobody", "timeout": "2s", "retry_policy": retry("5xx")},
    "absent": {"cluster": "absent"},
    "busy": {"cluster": "busy", "timeout": "2s", "retry_policy": retry("5xx")},
    "no-retries": {"cluster": "no-retries", "timeout": "2s", "retry_policy": retry("5xx")},
    "budget": {"cluster": "budget", "timeout": "2s", "retry_policy": retry("5xx")},
    "mirror": {"timeout": "2s", "request_mirror_policies": [mirrored()]},
    "mirror-again": {"timeout": "2s", "request_mirror_policies": [mirrored()], "retry_policy": retry("5xx")},
    "mirror-host": {"timeout": "2s", "request_mirror_policies": [mirrored(disable_shadow_host_suffix_append=True)]},
    "mirror-by-header": {"timeout": "2s", "request_mirror_policies": [{"cluster_header": "x-to"}]},
    "mirror-nobody": {"cluster": "nobody", "timeout": "2s", "request_mirror_policies": [mirrored()]},
    "idle": {"timeout": "0s", "idle_timeout": "0.4s"},
    "mirror-nowhere": {"timeout": "2s", "request_mirror_policies": [{"cluster": "absent"}, mirrored()]},
}
ADDED = {
    "adds-limit": ("x-envoy-upstream-rq-timeout-ms", "400"),
    "adds-alt": ("x-envoy-upstream-rq-timeout-alt-response", "1"),
    "adds-retry": ("x-envoy-retry-on", "5xx"),
}


def routes():
    found = []
    for name, action in ROUTES.items():
        route = {"name": name, "match": by(name), "route": {"cluster": "up", **action}}
        if name in ADDED:
            header = dict(zip(("key", "value"), ADDED[name]))
            route["request_headers_to_add"] = [{"header": header}]
        if name == "small":
            route["request_body_buffer_limit"] = 10
        found.append(route)
    return found


def protocol_options(**common):
    return {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "common_http_protocol_options": common,
            "explicit_http_config": {"http_protocol_options": {}},
        }
    }


def limits(**thresholds):
    return {"circuit_breakers": {"thresholds": [thresholds]}}


class Router(World):
    def __init__(self, program, scratch, arguments):
        SEEN.clear()
        self.port = free_port()
        self.respecting = free_port()
        self.outside = free_port()
        log = f"{scratch}/router-access.log"
        # Only of requests from inside the headers count.
        inside = {"use_remote_address": True, "internal_address_config": {"cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]}}
        plain = manager("a", routes(), log, **inside)
        respecting = manager("b", routes(), log, **inside)
        outside = manager("c", routes(), log, use_remote_address=True)
        respecting["http_filters"][0]["typed_config"]["respect_expected_rq_timeout"] = True
        for one in (plain, respecting, outside):
            hosts = one["route_config"]["virtual_hosts"]
            counted = {
                "include_request_attempt_count": True,
                "include_attempt_count_in_response": True,
                "include_is_timeout_retry_header": True,
            }
            hosts.append({**hosts[0], "name": "counted", "domains": ["counted"], **counted})
            one["route_config"]["validate_clusters"] = False
        up = serve(app)
        nobody = cluster("nobody", up)
        nobody["load_assignment"]["endpoints"] = []
        clusters = [
            cluster("up", up),
            cluster("copies", serve(copies)),
            cluster("full", full().getsockname()[1], connect_timeout="0.7s"),
            cluster("life", up, typed_extension_protocol_options=protocol_options(max_stream_duration="0.4s")),
            nobody,
            cluster("busy", up, **limits(max_requests=0)),
            cluster("no-retries", up, **limits(max_retries=0)),
            cluster("budget", up, **limits(retry_budget={"budget_percent": {"value": 0}, "min_retry_concurrency": 0})),
        ]
        listeners = [listener("a", self.port, plain), listener("b", self.respecting, respecting), listener("c", self.outside, outside)]
        self.start("router", program, scratch, arguments, listeners, clusters)


TOLD = (
    "x-envoy-expected-rq-timeout-ms",
    "grpc-timeout",
    "x-envoy-attempt-count",
    "x-envoy-is-timeout-retry",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-stream-duration-ms",
    "x-envoy-retry-on",
    "x-envoy-max-retries",
    "x-envoy-hedge-on-per-try-timeout",
)
TIMES = TOLD[:2]
SHOWN = ("grpc-status", "grpc-message", "x-envoy-attempt-count", "x-envoy-overloaded", "connection")
MOVES = (
    "upstream_rq_retry",
    "upstream_rq_retry_backoff_exponential",
    "upstream_rq_retry_backoff_ratelimited",
    "upstream_rq_retry_limit_exceeded",
    "upstream_rq_retry_overflow",
    "upstream_rq_retry_success",
    "upstream_rq_timeout",
    "upstream_rq_per_try_timeout",
    "upstream_rq_per_try_idle_timeout",
    "upstream_rq_max_duration_reached",
    "upstream_rq_pending_overflow",
    "upstream_rq_active_overflow",
    "retry_or_shadow_abandoned",
    "upstream_cx_connect_timeout",
)


def limit_of(value, first):
    """A limit in milliseconds; that of a later attempt beside the first one's, without what a machine makes of it."""
    if first is None or value == "1":
        return value
    less = int(first.rstrip("m")) - int(value.rstrip("m"))
    return "same" if 0 <= less < 150 else "less"


def told(attempts):
    """What upstreams were told, attempt by attempt."""
    lines = []
    for asked in attempts:
        found = []
        for name in TOLD:
            if name in asked:
                value = asked[name]
                if name in TIMES:
                    value = limit_of(value, attempts[0].get(name) if lines else None)
                found.append(f"{name.removeprefix('x-envoy-')}={value}")
        lines.append(" ".join(found))
    return "; ".join(lines)


def moved(before, after):
    found = []
    for name in MOVES:
        ends = [key for key in after if key.startswith("cluster.") and key.endswith(f".{name}")]
        change = sum(after[key] - before.get(key, 0) for key in ends)
        if change:
            found.append(f"{name.removeprefix('upstream_rq_')}={change}")
    return " ".join(found)


def ask(world, name, route, script="200", host="a", method="GET", more=(), body=b"", port=None, copy=None):
    before = world.proxy.stats()
    client = H1Client(port or world.port)
    begun = time.monotonic()
    lines = "".join(f"{key}: {value}\r\n" for key, value in more)
    if body or method == "POST":
        lines += f"content-length: {len(body)}\r\n"
    client.send(f"{method} / HTTP/1.1\r\nhost: {host}\r\nx-case: {name}\r\nx-route: {route}\r\nx-script: {script}\r\n{lines}\r\n")
    if body:
        client.send(body)
    status, headers = client.head(6)
    text = b"" if status == "204" else client.body(headers)[0]
    took = time.monotonic() - begun
    client.close()
    shown = "".join(f" {key}={headers[key]}" for key in SHOWN if key in headers)
    attempts = told([asked for _, asked in SEEN.get(name)])
    line = world.log(name)
    if copy is not None:
        SEEN.wait(f"copy of {name}", None, copy)
        attempts += f" | copies {[(count, asked['host'], told([asked])) for count, asked in SEEN.get(f'copy of {name}')]}"
    stats = moved(before, world.proxy.stats())
    # A large copy takes its time, but nobody waits for it.
    slow = "at once" if took < SLOW or copy is not None else "waits"
    return f"{status}{shown} [{text.decode()[:90]}] {slow} | {attempts} | {line} | {stats}"


def plain(route, script="200", **more):
    return lambda world, name: ask(world, name, route, script, **more)


def of(*pairs):
    """Headers of a request, without their prefix."""
    return {"more": [(f"x-envoy-{name}", value) for name, value in pairs]}


GRPC = ("content-type", "application/grpc")
LIMIT = "upstream-rq-timeout-ms"
TRY_LIMIT = "upstream-rq-per-try-timeout-ms"
ALT = ("upstream-rq-timeout-alt-response", "1")
LIFE = "upstream-stream-duration-ms"


def limits_of_time():
    yield "silent", plain("plain", "-")
    yield "silent, by its header", plain("plain", "-", **of((LIMIT, "400")))
    yield "a header that is no number", plain("plain", "200", **of((LIMIT, "4x")))
    yield "no limit by its header", plain("plain", "200", **of((LIMIT, "0")))
    yield "no limit", plain("none", "200")
    yield "another answer", plain("adds-alt", "-", **of((LIMIT, "400")))
    yield "another answer, asked for", plain("plain", "-", **of((LIMIT, "400"), ALT))
    yield "another answer, gRPC", plain("plain", "-", more=[GRPC, ("x-envoy-" + LIMIT, "400"), ("x-envoy-" + ALT[0], "")])
    yield "another answer for one attempt", plain("try", "- -", **of(ALT))
    yield "another answer is not used", plain("try", "503 200", **of(ALT))
    yield "a limit that the route adds", plain("adds-limit", "-")
    yield "retries that the route adds", plain("adds-retry", "503 200")
    yield "what is expected", plain("plain", "200", **of(("expected-rq-timeout-ms", "500"), (LIMIT, "700")))
    respected = of(("expected-rq-timeout-ms", "400"), (LIMIT, "700"))
    yield "what is expected counts", lambda world, name: ask(world, name, "plain", "-", port=world.respecting, **respected)
    yield "nothing is expected", lambda world, name: ask(world, name, "plain", "-", port=world.respecting, **of((LIMIT, "400")))
    yield "gRPC with a limit", plain("grpc-limit", "-", more=[GRPC, ("grpc-timeout", "500m")])
    yield "gRPC without a limit", plain("grpc-limit", "200", more=[GRPC])
    yield "gRPC with a limit, tried again", plain("grpc-limit", "503,200 200", more=[GRPC, ("grpc-timeout", "900m")])
    yield "idle", plain("idle", "-")
    yield "idle, gRPC", plain("idle", "-", more=[GRPC])
    yield "life of a stream of gRPC, at the upstream", plain("life", "-", more=[GRPC])
    yield "one silent attempt, gRPC", plain("try", "- -", more=[GRPC])
    yield "life of the stream", plain("stream", "-")
    yield "life of a gRPC stream", plain("stream-grpc", "503,200 200", more=[GRPC, ("grpc-timeout", "900m")])
    yield "life at the upstream", plain("life", "-")
    yield "life at the upstream, tried again", plain("life-again", "- 200")
    yield "life at the upstream, by its header", plain("plain", "-", **of((LIFE, "400")))
    yield "a longer life, by its header", plain("life", "200,600", **of((LIFE, "1500")))
    yield "a life without end, by its header", plain("life", "200,600", **of((LIFE, "0")))
    yield "a life that is no number", plain("life", "-", **of((LIFE, "long")))
    yield "life by its header, each attempt", plain("reset", "- 200", **of((LIFE, "400")))


def attempts():
    yield "tried again", plain("5xx", "503 500 200")
    yield "none left", plain("5xx", "503")
    yield "no retries", plain("once", "503")
    yield "connections close", plain("5xx", "close close 200")
    yield "reset", plain("reset", "close 503")
    yield "reset before the request", plain("reset-before", "close 200")
    yield "no connection failure", plain("connect", "close 200")
    yield "gRPC in headers", plain("grpc", "200,grpc-status=14 200,grpc-status=0", more=[GRPC])
    yield "another gRPC status", plain("grpc", "200,grpc-status=13 200,grpc-status=0", more=[GRPC])
    yield "one attempt is silent", plain("try", "- 200")
    yield "each attempt is silent", plain("try", "- -")
    yield "idle attempts", plain("try-idle", "- -")
    yield "one attempt, limited", plain("try-only", "-")
    yield "one attempt, tried again as reset", plain("try-reset", "- 200")
    yield "one attempt, not a connection failure", plain("try-connect", "- 200")
    yield "limits are equal", plain("try-equal", "- 200")
    yield "the limit of one attempt is longer", plain("try-longer", "- 200")
    yield "limits are equal by a header", plain("try", "- 200", **of((LIMIT, "400")))
    yield "limits are equal by the other", plain("try", "- 200", **of((TRY_LIMIT, "2000"), (LIMIT, "500")))
    yield "no limit of one attempt by a header", plain("try", "200,600", **of((TRY_LIMIT, "0")))
    yield "told of what is left", plain("5xx", "503,400 503,400 200")
    yield "told of what is left of an attempt", plain("try", "503,200 200", **of((LIMIT, "500")))
    yield "told after the end", plain("5xx", "503,400 200", **of((LIMIT, "600")))
    yield "counted", plain("5xx", "503 503 200", host="counted")
    yield "counted, a time is over", plain("try", "- 200", host="counted")
    yield "counted, of another proxy", plain("5xx", "200", host="counted", **of(("attempt-count", "7"), ("is-timeout-retry", "true")))
    yield "counted, none left", plain("5xx", "503", host="counted")
    yield "counted, nobody there", plain("nobody", host="counted")
    yield "counted, no cluster", plain("absent", host="counted")
    yield "too early", plain("early", "425 200")
    yield "too early, and it came early", plain("early", "425 200", more=[("early-data", "1")])
    yield "asked to wait for nothing", plain("waits", "503,retry-after=0 200")
    yield "asked to wait for too long", plain("waits", "503,retry-after=301 200")
    yield "a body that is too large", plain("small", "503 200", method="POST", body=b"x" * 20)
    yield "a body that fits", plain("small", "503 200", method="POST", body=b"x" * 10)
    yield "a body that is too large, never tried again", plain("once", "503 200", method="POST", body=b"x" * 20)
    yield "by the status as header", plain("headers", "504 200")
    yield "by the status as header, outside", plain("headers", "505 200")
    yield "by a header", plain("headers", "200,x-again=no 200")
    yield "only GET", plain("only-get", "503 200")
    yield "only GET, POST", plain("only-get", "503 200", method="POST")
    yield "only GET, POST that asks", plain("only-get", "503 200", method="POST", **of(("retry-on", "5xx"), ("max-retries", "5")))
    yield "rate limited", plain("5xx", "429,x-envoy-ratelimited=1 200")
    yield "overloaded", plain("5xx", "503,x-envoy-overloaded=true 200")
    yield "no connection", plain("full")
    yield "no connection, limited attempts", plain("full-try")
    yield "nobody there", plain("nobody")
    yield "no cluster", plain("absent")
    yield "no place", plain("busy")
    yield "no place for retries", plain("no-retries", "503 200")
    yield "no budget for retries", plain("budget", "503 200")


def wishes():
    yield "asks for retries", plain("plain", "503 200", **of(("retry-on", "5xx")))
    yield "asks in two lines", plain("plain", "503 200", **of(("retry-on", "connect-failure"), ("retry-on", "5xx")))
    yield "asks for three", plain("once", "503 503 503 200", **of(("max-retries", "3")))
    yield "asks for none", plain("5xx", "503 200", **of(("max-retries", "0")))
    yield "asks for what is no number", plain("5xx", "503 200", **of(("max-retries", "-1")))
    yield "asks twice for a number", plain("5xx", "503 503 200", **of(("max-retries", "1"), ("max-retries", "0")))
    yield "asks by status", plain("plain", "404 200", **of(("retry-on", "retriable-status-codes"), ("retriable-status-codes", "x, 404")))
    yield "asks by header", plain("plain", "200,x-b=1 200", **of(("retry-on", "retriable-headers"), ("retriable-header-names", "x-a, X-B")))
    yield "asks for gRPC", plain("plain", "200,grpc-status=1 200", **of(("retry-grpc-on", "cancelled")))
    yield "asks in the wrong header", plain("plain", "200,grpc-status=1 200", **of(("retry-on", "cancelled")))
    yield "asks for one attempt's time", plain("5xx", "- 200", **of((TRY_LIMIT, "400")))
    outside = {"more": [(f"x-envoy-{name}", value) for name, value in ((LIMIT, "100"), ("retry-on", "5xx"), (LIFE, "100"), ("attempt-count", "7"))]}
    yield "asks from outside", lambda world, name: ask(world, name, "plain", "503,300 200", port=world.outside, **outside)
    yield "asks for hedging", plain("5xx", "503 200", **of(("hedge-on-per-try-timeout", "true")))
    yield "asks for nothing that is known", plain("plain", "503 200", **of(("retry-on", "sometimes"), ("max-retries", "2")))


def mirrors():
    yield "mirror", plain("mirror", copy=1)
    yield "mirror of a body", plain("mirror", method="POST", body=b"x" * 1000, copy=1)
    yield "mirror of a large body", plain("mirror", method="POST", body=b"x" * 3_000_000, copy=2)
    yield "mirror of a large body with retries", plain("mirror-again", method="POST", body=b"x" * 3_000_000, copy=2)
    yield "mirror, tried again", plain("mirror-again", "503 200", copy=1)
    yield "mirror with the host", plain("mirror-host", copy=1)
    yield "mirror by a header", plain("mirror-by-header", more=[("x-to", "copies")], copy=1)
    yield "mirror by a header that is absent", plain("mirror-by-header", copy=0.5)
    yield "mirror by a header that is empty", plain("mirror-by-header", more=[("x-to", "")], copy=0.5)
    yield "mirror that is not there", plain("mirror-nowhere", copy=1)
    yield "mirror, nobody there", plain("mirror-nobody", copy=0.5)
    yield "mirror of a body, no answer", plain("mirror", "close", method="POST", body=b"x" * 1000, copy=1)
    yield "mirror, counted", plain("mirror", host="counted", copy=1)


def all_cases():
    yield from limits_of_time()
    yield from attempts()
    yield from wishes()
    yield from mirrors()


if __name__ == "__main__":
    sys.exit(PLAY.main(Router, all_cases()))
