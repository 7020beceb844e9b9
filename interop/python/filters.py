"""Filters in front of the router: CORS and faults act whatever becomes of a request behind them.

    filters.py --proxy PROGRAM --scratch FOLDER [--only WORD] [--show]

Each case states what the client and the access log see. The expectations were written down from Envoy 1.40; where the proxy under
test differs, `ours` says so and why.
"""

import sys
import time

from peers import H1Client, free_port, read_head, serve
from play import Play
from rig import World, by, cluster, listener, manager

PLAY = Play()
CORS = "envoy.filters.http.cors"
FAULT = "envoy.filters.http.fault"
SLOW = 0.5


def app(peer):
    rest = b""
    while True:
        _, rest = read_head(peer, rest)
        peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")


def of(kind, **config):
    return {"@type": f"type.googleapis.com/envoy.extensions.filters.http.{kind}", **config}


ALL = {"numerator": 100}
POLICY = of(
    "cors.v3.CorsPolicy",
    allow_origin_string_match=[{"exact": "http://good"}],
    allow_methods="GET",
    expose_headers="x-shown",
)
ABORT = of("fault.v3.HTTPFault", abort={"http_status": 418, "percentage": ALL})
DELAY = of("fault.v3.HTTPFault", delay={"fixed_delay": f"{SLOW}s", "percentage": ALL})
RATE = of("fault.v3.HTTPFault", response_rate_limit={"fixed_limit": {"limit_kbps": 1}, "percentage": ALL})
OTHER = of("fault.v3.HTTPFault", abort={"http_status": 418, "percentage": ALL}, upstream_cluster="other")
DIRECT = {"direct_response": {"status": 202, "body": {"inline_string": "x" * 300}}}
REDIRECT = {"redirect": {"path_redirect": "/elsewhere"}}
ANSWERS = {
    "direct": DIRECT,
    "redirect": REDIRECT,
    "up": {"route": {"cluster": "up"}},
    "gone": {"route": {"cluster": "gone"}},
    "absent": {"route": {"cluster": "absent"}},
}
FILTERS = {
    "plain": {},
    "cors": {CORS: POLICY},
    "abort": {FAULT: ABORT},
    "delay": {FAULT: DELAY},
    "rate": {FAULT: RATE},
    "other": {FAULT: OTHER},
    "both": {CORS: POLICY, FAULT: ABORT},
}


def routes():
    found = []
    for answer, action in ANSWERS.items():
        for name, config in FILTERS.items():
            found.append({"name": f"{answer}-{name}", "match": by(f"{answer}-{name}"), **action, "typed_per_filter_config": config})
    return found


class Filters(World):
    def __init__(self, program, scratch, arguments):
        self.port = free_port()
        self.always = free_port()
        filters = [
            {"name": CORS, "typed_config": of("cors.v3.Cors")},
            {"name": FAULT, "typed_config": of("fault.v3.HTTPFault")},
            {"name": "envoy.filters.http.router", "typed_config": of("router.v3.Router")},
        ]
        always = [{**filters[1], "typed_config": ABORT}, filters[2]]
        log = f"{scratch}/filters-access.log"
        managers = [manager("a", routes(), log, http_filters=filters), manager("b", routes()[:1], log, http_filters=always)]
        for one in managers:
            one["route_config"]["validate_clusters"] = False
            # Long enough that a limit of its speed shows.
            long = f"%LOCAL_REPLY_BODY%{'.' * 300}"
            one["local_reply_config"] = {"body_format": {"text_format_source": {"inline_string": long}}}
        listeners = [listener("a", self.port, managers[0]), listener("b", self.always, managers[1])]
        clusters = [cluster("up", serve(app)), cluster("gone", free_port())]
        self.start("filters", program, scratch, arguments, listeners, clusters)


SHOWN = ("access-control-allow-origin", "access-control-allow-methods", "access-control-expose-headers", "location", "grpc-status", "grpc-message")


def ask(world, name, route, origin=None, method="GET", port=None, more=""):
    client = H1Client(port or world.port)
    begun = time.monotonic()
    origin = f"origin: {origin}\r\n" if origin else ""
    client.send(f"{method} / HTTP/1.1\r\nhost: a\r\nx-case: {name}\r\nx-route: {route}\r\n{origin}{more}\r\n")
    status, headers = client.head()
    body, _ = client.body(headers)
    took = time.monotonic() - begun
    client.close()
    shown = [f"{key}={headers[key][:30]}" for key in SHOWN if key in headers]
    length = f"{len(body)} bytes" if len(body) > 20 else body.decode()
    slow = "slow" if took >= 0.2 else "at once"
    return f"{status} {' '.join(shown)} [{length}] {slow} | {world.log(name)}"


def plain(route, **more):
    return lambda world, name: ask(world, name, route, **more)


def all_cases():
    for answer in ANSWERS:
        yield f"{answer} allowed origin", plain(f"{answer}-cors", origin="http://good")
        yield f"{answer} other origin", plain(f"{answer}-cors", origin="http://bad")
        preflight = "access-control-request-method: GET\r\n"
        yield f"{answer} preflight", plain(f"{answer}-cors", origin="http://good", method="OPTIONS", more=preflight)
        yield f"{answer} abort", plain(f"{answer}-abort")
        yield f"{answer} abort of another cluster", plain(f"{answer}-other")
        yield f"{answer} abort, allowed origin", plain(f"{answer}-both", origin="http://good")
        yield f"{answer} delay", plain(f"{answer}-delay")
        yield f"{answer} rate", plain(f"{answer}-rate")
    for answer in ANSWERS:
        grpc = "content-type: application/grpc\r\n"
        yield f"{answer} of gRPC", plain(f"{answer}-cors", origin="http://good", more=grpc)
    yield "no route, listener's abort", lambda world, name: ask(world, name, "none", port=world.always)
    yield "direct, listener's abort", lambda world, name: ask(world, name, "direct-plain", port=world.always)


if __name__ == "__main__":
    sys.exit(PLAY.main(Filters, all_cases()))
