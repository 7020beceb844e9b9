"""Statistics: which of them move by what, for each kind of traffic.

    counters.py --proxy PROGRAM --scratch FOLDER [--only WORD] [--show]

The expectations, in `counters.json`, were written down from Envoy 1.40; where meshd counts otherwise, `ours` says so and why. Of bytes on
the wire only whether there are any is compared. What Envoy counts and meshd does not is in `ABSENT`, with the reason.
"""

import re
import socket
import sys
import time

from peers import SHORT, H1Client, H2Client, H2Server, drain, free_port, headers_of, read_head, reset, serve
from play import Play
from rig import World, address, cluster, listener, manager

PLAY = Play()

# Statistics that meshd does not have, by the end of their names, and why.
ABSENT = {
    r"\.(external|internal|canary)\.": "responses told apart by x-envoy-internal and x-envoy-upstream-canary: a second count of each",
    r"\.zone\.": "responses told apart by zone: a further count of each",
    r"^listener\..*\.http\.": "the responses of a manager again, by listener: a second count of each",
    r"^listener\..*\.(worker_\d+|main_thread)\.": "connections by worker: a second count of each",
    r"_buffered$": "what waits in buffers is known to the codecs alone",
    r"\.(total_match_count|warming_state|version|max_host_weight|update_\w+|assignment_\w+)$": "of the control plane's protocol, or of Envoy's own machinery",
    r"\.http[12]\.": "what the codecs count, of which they tell nothing",
    r"remaining_cx_pools$|cx_pool_open$|pool_overflow$": "there is no limit of pools",
    r"flow_control": "the codecs do not tell",
    r"lb_(healthy_panic|subsets|zone|local|recalculate)": "of balancing that does not act yet; panic mode does, and is not counted",
    r"with_active_rq$|downstream_rq_(tx_reset|response_before_rq_complete)$|delayed_close_timeout$": "known to the codecs alone",
}


def app(peer):
    rest = b""
    while True:
        head, rest = read_head(peer, rest)
        method, path = head.split(" ")[:2]
        rest = drain(peer, headers_of(head), rest)
        if "/slow" in path:
            time.sleep(0.6)
        if "/reset" in path:
            return reset(peer)
        if "/close" in path:
            return None
        if "/garbage" in path:
            return peer.sendall(b"garbage\r\n\r\n")
        if "/partial" in path:
            peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
            return time.sleep(0.05)
        if "/ws" in path:
            peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
            while data := peer.recv(65536):
                peer.sendall(data)
            return None
        status = path.rsplit("/", 1)[-1]
        if "/once" in path:
            status, app.once = ("200", False) if app.once else ("503", True)
        more = "location: /app/200\r\n" if status == "302" else ""
        body = "" if method == "HEAD" else "hello"
        peer.sendall(f"HTTP/1.1 {status} X\r\ncontent-length: 5\r\n{more}\r\n{body}".encode())


app.once = False


def app2(peer):
    server = H2Server(peer)
    known = 0
    while server.pump(SHORT) is not None:
        for number, stream in sorted(server.streams.items()):
            if number <= known or not stream.headers.get(":path"):
                continue
            known = number
            path = stream.headers[":path"]
            if "/reset" in path or "/refuse" in path:
                server.h2.reset_stream(number, 7 if "/refuse" in path else 2)
            else:
                server.h2.send_headers(number, [(":status", path.rsplit("/", 1)[-1])])
                server.h2.send_data(number, b"hello", end_stream=True)
            server.flush()


def tcp(prefix, to):
    kind = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    config = {"@type": kind, "stat_prefix": prefix, "cluster": to}
    return {"filters": [{"name": "tcp", "typed_config": config}]}


def routes():
    def to(prefix, name, more=None, **route):
        return {"match": {"prefix": prefix}, "route": {"cluster": name, **route}, **(more or {})}

    on_5xx = {"retry_on": "5xx", "num_retries": 2}
    return [
        to("/h2", "app2"),
        to("/dead", "dead", retry_policy={"retry_on": "connect-failure", "num_retries": 2}),
        to("/none", "none"),
        to("/missing", "missing"),
        to("/retry", "app", retry_policy=on_5xx),
        to("/late", "app", timeout="0.2s"),
        to("/tries", "app", retry_policy={**on_5xx, "num_retries": 1, "per_try_timeout": "0.1s"}),
        to("/internal", "app", internal_redirect_policy={"max_internal_redirects": 1}),
        to("/stat", "app", {"stat_prefix": "own"}),
        to("/app", "app"),
        to("/vc", "app"),
        to("/cors", "app", {"typed_per_filter_config": {"cors": CORS_POLICY}}),
        {"match": {"prefix": "/redirect"}, "redirect": {"path_redirect": "/x"}},
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 204}},
    ]


FAULT = {
    "name": "fault",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
        "abort": {"header_abort": {}, "percentage": {"numerator": 100}},
        "delay": {"header_delay": {}, "percentage": {"numerator": 100}},
    },
}


CORS = {"name": "cors", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors"}}
CORS_POLICY = {
    "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
    "allow_origin_string_match": [{"exact": "http://good"}],
}


class Counters(World):
    SCOPES = re.compile(r"^(cluster|http\.ingress|listener\.127|tcp|vhost)\.")

    def __init__(self, program, scratch, arguments):
        self.ports = {name: free_port() for name in ("in", "tcp", "dead")}
        one = manager("ingress", routes(), "/dev/null", upgrade_configs=[{"upgrade_type": "websocket"}])
        one["http_filters"][:0] = [CORS, FAULT]
        one["route_config"]["validate_clusters"] = False
        users = {"name": "users", "headers": [{"name": ":path", "string_match": {"prefix": "/vc"}}]}
        one["route_config"]["virtual_hosts"][0]["virtual_clusters"] = [users]
        listeners = [listener("in", self.ports["in"], one)]
        for name, to in (("tcp", "app"), ("dead", "dead")):
            listeners.append({"name": name, "address": address(self.ports[name]), "filter_chains": [tcp(name, to)]})
        none = cluster("none", 1)
        none["load_assignment"]["endpoints"] = []
        clusters = [cluster("app", serve(app)), cluster("app2", serve(app2), {}), cluster("dead", free_port()), none]
        self.start("counters", program, scratch, arguments, listeners, clusters)

    def settled(self, quiet=0.5):
        found = super().settled(quiet)
        for name, port in self.ports.items():
            found = {key.replace(f"127.0.0.1_{port}", name): value for key, value in found.items()}
        return found


# What meshd has of its own.
OWN = r"downstream_rq_rejected_via_connection$"


def is_absent(name):
    return any(re.search(pattern, name) for pattern in (*ABSENT, OWN))


def moved(before, after):
    """What moved, by scope."""
    scopes = {}
    for name in sorted(after):
        by = after[name] - before.get(name, 0)
        if by == 0 or is_absent(name):
            continue
        scope, field = re.match(r"(vhost\.\w+\.\w+\.\w+|\w+\.\w+)\.(.*)", name).groups()
        shown = "*" if "_bytes_" in field else f"{by:+}"
        scopes.setdefault(scope, []).append(f"{field} {shown}")
    return " | ".join(f"{scope}: {', '.join(fields)}" for scope, fields in scopes.items())


def get(path, count=1, method="GET", more="", body=""):
    def traffic(world):
        client = H1Client(world.ports["in"])
        for _ in range(count):
            client.send(f"{method} {path} HTTP/1.1\r\nhost: a\r\n{more}\r\n{body}")
            _, headers = client.head()
            if method != "HEAD":
                client.body(headers)
        client.close()

    return traffic


def raw(data, wait=0.2):
    def traffic(world):
        client = H1Client(world.ports["in"])
        client.send(data)
        client.head(wait)
        client.close()

    return traffic


def websocket(world):
    client = H1Client(world.ports["in"])
    client.send("GET /app/ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
    client.head()
    client.send("ping")
    client.read(4)
    client.close()


def streams(*paths, reset_last=False):
    def traffic(world):
        client = H2Client(world.ports["in"])
        numbers = []
        for path in paths:
            numbers.append(client.h2.get_next_available_stream_id())
            head = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)]
            client.h2.send_headers(numbers[-1], head, end_stream=True)
        # At once, so that each finds the others still there.
        client.flush()
        if reset_last:
            client.settle(0.2)
            client.h2.reset_stream(numbers[-1], 8)
            client.flush()
        for number in numbers[: len(numbers) - reset_last]:
            client.finish(number)
        client.settle(0.1)
        client.close()

    return traffic


def bytes_to(name):
    def traffic(world):
        with socket.create_connection(("127.0.0.1", world.ports[name]), timeout=SHORT) as client:
            client.sendall(b"GET /app/200 HTTP/1.1\r\nhost: a\r\n\r\n")
            try:
                client.recv(65536)
            except OSError:
                pass

    return traffic


def after(first, traffic):
    """Traffic that finds the connections which `first` has opened, also where the case is played alone."""
    traffic.first = first
    return traffic


TRAFFIC = {
    "200": get("/app/200"),
    "three on one connection": get("/app/200", 3),
    "404": get("/app/404"),
    "503": get("/app/503"),
    "302": get("/app/302"),
    "HEAD": get("/app/200", method="HEAD"),
    "POST": get("/app/200", method="POST", more="content-length: 5\r\n", body="hello"),
    "upstream over HTTP/2": get("/h2/200"),
    "500 over HTTP/2": get("/h2/500"),
    "upstream resets its stream": get("/h2/reset"),
    "upstream refuses its stream": get("/h2/refuse"),
    "upstream resets": get("/app/reset"),
    "upstream closes": get("/app/close"),
    "upstream breaks off": get("/app/partial"),
    "upstream speaks no HTTP": get("/app/garbage"),
    "no upstream listens": get("/dead"),
    "no endpoint": get("/none"),
    "no cluster": get("/missing"),
    "no route": get("/nowhere"),
    "retries used up": get("/retry/503"),
    "a retry succeeds": get("/retry/once"),
    "the route's timeout": get("/late/slow"),
    "a try's timeout": get("/tries/slow"),
    "a redirect": get("/redirect"),
    "a direct response": get("/direct"),
    "a redirect that is followed": get("/internal/302"),
    "a route with statistics": get("/stat/200"),
    "a virtual cluster": get("/vc/200"),
    "an abort": get("/app/200", more="x-envoy-fault-abort-request: 418\r\n"),
    "a delay": get("/app/200", more="x-envoy-fault-delay-request: 10\r\n"),
    "an origin that is allowed": after(get("/app/200"), get("/cors/200", more="origin: http://good\r\n")),
    "an origin that is not": after(get("/app/200"), get("/cors/200", more="origin: http://bad\r\n")),
    "an origin where nobody asks": after(get("/app/200"), get("/app/200", more="origin: http://good\r\n")),
    "a client that leaves": raw("GET /app/slow HTTP/1.1\r\nhost: a\r\n\r\n"),
    "no HTTP": raw("BAD\r\n\r\n", SHORT),
    "a head without a host": raw("GET /app/200 HTTP/1.1\r\n\r\n", SHORT),
    "a head that is too large": raw(f"GET /app/200 HTTP/1.1\r\nhost: a\r\nx: {'a' * 70000}\r\n\r\n", SHORT),
    "a WebSocket": websocket,
    "three streams": after(get("/h2/200"), streams("/app/200", "/h2/200", "/app/404")),
    "a stream that the client resets": streams("/app/slow", reset_last=True),
    "TCP": bytes_to("tcp"),
    "TCP to nobody": bytes_to("dead"),
}


def case(traffic):
    def play(world, _):
        if first := getattr(traffic, "first", None):
            first(world)
        before = world.settled()
        traffic(world)
        return moved(before, world.settled())

    return play


if __name__ == "__main__":
    sys.exit(PLAY.main(Counters, [(name, case(traffic)) for name, traffic in TRAFFIC.items()]))
