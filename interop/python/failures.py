"""Upstreams that die before, during and after the response, answer early or say nothing, and clients that leave.

    failures.py --proxy PROGRAM --scratch FOLDER [--only WORD] [--show]

Each case runs for every pair of protocols that it makes sense for, and states what the client, the upstream and the access log
see. The expectations were written down from Envoy 1.40; where the proxy under test may differ, `ours` says so and why.
"""

import sys
import time

from peers import SHORT, H1Client, H2Client, H2Server, Seen, drain, free_port, full, headers_of, read_head, reset, serve
from play import Play
from rig import World, by, cluster, listener, manager

SEEN = Seen()
PLAY = Play()
HALF = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello"
CHUNK = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


def h1_app(peer):
    rest = b""
    turn = 0
    while True:
        head, rest = read_head(peer, rest)
        headers = headers_of(head)
        name = headers.get("x-case", "?")
        does = headers.get("x-does", "ok")
        turn += 1
        SEEN.tell(name, f"request {turn}")
        if does in H1_LAST:
            H1_LAST[does](peer, name)
            return
        rest = drain(peer, headers, rest)
        peer.sendall(WHOLE)
        if does == "close-after":
            return
        if does == "reset-after":
            time.sleep(0.1)
            reset(peer)
            return
        if does == "garbage-after":
            time.sleep(0.1)
            peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad")


def wait_gone(peer, name):
    try:
        while True:
            if not peer.recv(65536):
                SEEN.tell(name, "gone")
                return
    except ConnectionError:
        SEEN.tell(name, "gone")


def say(data, then=None):
    def act(peer, name):
        if data:
            peer.sendall(data)
        if then:
            time.sleep(0.1)
            then(peer, name)

    return act


def drop(peer, _name):
    reset(peer)


def drip(peer, name):
    """A body without an end."""
    peer.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    try:
        while True:
            peer.sendall(b"5\r\nhello\r\n")
            time.sleep(0.05)
    except ConnectionError:
        SEEN.tell(name, "gone")


H1_LAST = {
    "close-before": say(b""),
    "reset-before": say(b"", drop),
    "part-of-head": say(b"HTTP/1.1 200 OK\r\ncontent-"),
    "garbage": say(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", wait_gone),
    "silent": wait_gone,
    "close-mid": say(HALF),
    "close-mid-chunked": say(CHUNK),
    "reset-mid": say(HALF, drop),
    "stall-mid": say(HALF, wait_gone),
    "garbage-mid": say(CHUNK + b"zzz\r\n", wait_gone),
    "early": say(WHOLE, wait_gone),
    "early-close": say(b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 5\r\nconnection: close\r\n\r\nlarge"),
    "two-framings": say(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", wait_gone),
    "other-coding": say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", wait_gone),
    "length-of-204": say(b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", wait_gone),
    "drip": drip,
}


def h2_app(peer):
    server = H2Server(peer)
    told = set()
    dripping = set()
    while True:
        events = server.pump(0.05 if dripping else 30)
        if events is None:
            break
        for number in list(dripping):
            if server.streams[number].end and "rst" in server.streams[number].end:
                dripping.discard(number)
            else:
                server.send(number, b"hello")
        for number, stream in list(server.streams.items()):
            name = stream.headers.get("x-case", "?")
            does = stream.headers.get("x-does", "ok")
            if number not in told and stream.headers and (stream.end or does in H2_AT_ONCE):
                told.add(number)
                SEEN.tell(name, f"request {len(told)}")
                if does == "drip":
                    server.headers(number, [(":status", "200")])
                    dripping.add(number)
                elif H2_DOES.get(does, answer())(server, number) == "close":
                    return
            if stream.end and "rst" in stream.end and ("end", number) not in told:
                told.add(("end", number))
                SEEN.tell(name, stream.end)
    for stream in server.streams.values():
        SEEN.tell(stream.headers.get("x-case", "?"), "gone")


H2_AT_ONCE = {"close-before", "reset-before", "rst-before", "refuse", "goaway", "silent", "early", "early-rst", "drip", "garbage"}


def nothing(_server, _number):
    return None


def close(_server, _number):
    return "close"


def cut(server, _number):
    reset(server.socket)
    return "close"


def rst(code):
    return lambda server, number: server.rst(number, code)


def goaway(server, last):
    """Streams behind `last` were not looked at."""
    server.socket.sendall(bytes([0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, 0]))


def goaway_at_once(server, _number):
    goaway(server, 0)
    time.sleep(0.3)
    return "close"


def goaway_and_go_on(server, number):
    goaway(server, number)
    time.sleep(0.2)
    server.send(number, b" more", True)


def no_frames(server, _number):
    server.socket.sendall(b"SSH-2.0-OpenSSH_9.6\r\n\r\n" * 4)
    time.sleep(0.5)
    return "close"


def end_early(server, number):
    """The end of a body that is shorter than its head says, which the library would refuse to send."""
    server.socket.sendall(bytes([0, 0, 0, 0, 1, 0, 0, 0, number]))


def end_with_trailers(server, number):
    server.headers(number, [("x-trailer", "yes")], True)


def begin(then, length="10"):
    """A head, with a length or without, five bytes, and after a moment the rest."""

    def act(server, number):
        server.headers(number, [(":status", "200")] + ([("content-length", length)] if length else []))
        server.send(number, b"hello")
        time.sleep(0.1)
        return then(server, number)

    return act


def answer(then=nothing, status="200", body=b"hello"):
    """A whole answer, and then."""

    def act(server, number):
        server.headers(number, [(":status", status), ("content-length", "5")])
        server.send(number, body, True)
        return then(server, number)

    return act


def close_later(_server, _number):
    time.sleep(0.1)
    return "close"


H2_DOES = {
    "silent": nothing,
    "close-before": close,
    "reset-before": cut,
    "rst-before": rst(2),
    "refuse": rst(7),
    "garbage": no_frames,
    "goaway": goaway_at_once,
    "close-mid": begin(close),
    "reset-mid": begin(cut),
    "rst-mid": begin(rst(2), None),
    "rst-cancel-mid": begin(rst(8), None),
    "short": begin(end_early),
    "stall-mid": begin(nothing),
    "goaway-mid": begin(goaway_and_go_on, None),
    "trailers": begin(end_with_trailers, "5"),
    "early-rst": answer(rst(0), "413", b"large"),
    "close-after": answer(close_later),
    "goaway-after": answer(goaway),
}


def route(name, target, **more):
    return {"name": name, "match": by(name), "route": {"cluster": target, **more}}


def routes():
    found = []
    for protocol in ("h1", "h2"):
        found += [
            route(protocol, protocol),
            route(f"{protocol}-timeout", protocol, timeout="0.5s"),
            route(f"{protocol}-idle", protocol, idle_timeout="0.5s"),
            route(f"{protocol}-try", protocol, timeout="2s", retry_policy={"per_try_timeout": "0.4s", "retry_on": "connect-failure", "num_retries": 1}),
            route(f"{protocol}-refused", f"{protocol}-refused"),
            route(f"{protocol}-full", f"{protocol}-full"),
            route(f"{protocol}-retry", protocol, retry_policy={"retry_on": "refused-stream,reset-before-request,connect-failure", "num_retries": 1}),
        ]
    return found + [{"name": "plain", "match": {"prefix": "/ok"}, "route": {"cluster": "h1"}}]


class Failures(World):
    GAUGES = ("downstream_rq_active", "upstream_rq_active", "upstream_rq_pending_active")

    def __init__(self, program, scratch, arguments):
        SEEN.clear()
        self.ports = {"h1": serve(h1_app), "h2": serve(h2_app), "refused": free_port(), "a": free_port()}
        waiting = full().getsockname()[1]
        listeners = [listener("a", self.ports["a"], manager("a", routes(), f"{scratch}/failures-access.log"))]
        clusters = [
            cluster("h1", self.ports["h1"]),
            cluster("h2", self.ports["h2"], {}),
            cluster("h1-refused", self.ports["refused"]),
            cluster("h2-refused", self.ports["refused"], {}),
            cluster("h1-full", waiting, connect_timeout="0.5s"),
            cluster("h2-full", waiting, {}, connect_timeout="0.5s"),
        ]
        self.start("failures", program, scratch, arguments, listeners, clusters)


def h1_get(world, name, upstream, does):
    client = H1Client(world.ports["a"])
    client.send(f"GET / HTTP/1.1\r\nhost: a\r\nx-case: {name}\r\nx-route: {upstream}\r\nx-does: {does}\r\n\r\n")
    return client


def h2_get(world, name, upstream, does):
    client = H2Client(world.ports["a"])
    number = client.request(
        {":method": "GET", ":scheme": "http", ":authority": "a", ":path": "/", "x-case": name, "x-route": upstream, "x-does": does}
    )
    return client, number


def ends(name, limit=0):
    """How the upstream saw it end, for which it has so long. The code of a reset is the proxy's own affair."""
    of_ends = lambda facts: [fact for fact in facts if not fact.startswith("request")]
    SEEN.until(name, of_ends, limit)
    return ["reset" if "rst" in fact else fact for fact in of_ends(SEEN.get(name))]


def brief(body):
    """The reason in a local reply."""
    text = body.decode("latin-1")
    mark = "reset reason: "
    return f"[{text.split(mark)[1]}]" if mark in text else text


def get(world, name, downstream, upstream, does):
    """What a plain GET shows."""
    if downstream == "h1":
        client = h1_get(world, name, upstream, does)
        status, headers = client.head()
        body, how = client.body(headers) if status.isdigit() else (b"", "")
        alive = client.alive()
    else:
        client, number = h2_get(world, name, upstream, does)
        status = client.answer(number)
        client.finish(number)
        body, how = client.stream(number).data, client.stream(number).end or client.closed
        alive = client.alive()
    client.close()
    return f"{status} {brief(body)} {how} alive={alive} | {world.log(name)}"


PAIRS = [("h1", "h1"), ("h1", "h2"), ("h2", "h1"), ("h2", "h2")]
H1_ONLY = {"two-framings", "other-coding", "length-of-204", "part-of-head", "close-mid-chunked", "garbage-mid", "garbage-after", "reset-after"}
H2_ONLY = {"rst-before", "refuse", "goaway", "rst-mid", "rst-cancel-mid", "short", "goaway-mid", "goaway-after", "trailers"}
PLAIN = [
    "refused",
    "full",
    "close-before",
    "reset-before",
    "part-of-head",
    "garbage",
    "two-framings",
    "other-coding",
    "length-of-204",
    "rst-before",
    "refuse",
    "goaway",
    "silent",
    "silent-try",
    "close-mid",
    "close-mid-chunked",
    "reset-mid",
    "garbage-mid",
    "rst-mid",
    "rst-cancel-mid",
    "short",
    "stall-mid",
    "stall-mid-idle",
    "goaway-mid",
    "trailers",
    "close-after",
    "reset-after",
    "garbage-after",
    "goaway-after",
]


def plain(does, downstream, upstream):
    target = upstream
    act = does
    if does in ("refused", "full"):
        target, act = f"{upstream}-{does}", "ok"
    elif does in ("silent", "stall-mid"):
        target = f"{upstream}-timeout"
    elif does == "stall-mid-idle":
        target, act = f"{upstream}-idle", "stall-mid"
    elif does == "silent-try":
        target, act = f"{upstream}-try", "silent"

    def play(world, name):
        seen = get(world, name, downstream, target, act)
        if does in ("close-after", "reset-after", "garbage-after", "goaway-after"):
            time.sleep(0.3)
            seen += " / " + get(world, f"{name}-again", downstream, target, "ok").split(" |")[0]
        return seen

    return play


def early(does, downstream, upstream):
    """The answer comes before the request body was read."""

    def play(world, name):
        length = 1_000_000
        if downstream == "h1":
            client = H1Client(world.ports["a"])
            client.send(
                f"POST / HTTP/1.1\r\nhost: a\r\nx-case: {name}\r\nx-route: {upstream}\r\nx-does: {does}\r\ncontent-length: {length}\r\n\r\n"
            )
            status, headers = client.head()
            body, how = client.body(headers) if status.isdigit() else (b"", "")
            how += f" connection={headers.get('connection')}"
            _, rest = client.end(1.5)
            how += f" {rest}"
            client.close()
        else:
            client = H2Client(world.ports["a"])
            number = client.request(
                {":method": "POST", ":scheme": "http", ":authority": "a", ":path": "/", "x-case": name, "x-route": upstream, "x-does": does},
                False,
            )
            status = client.answer(number)
            client.finish(number)
            client.settle()
            body, how = client.stream(number).data, f"{client.stream(number).end} alive={client.alive()}"
            client.close()
        line = world.log(name)
        left = ends(name)
        return f"{status} {body.decode()} {how} | upstream {' '.join(left) or '-'} | {line}"

    return play


def leave(when, downstream, upstream):
    """The client goes while it sends, waits or reads."""

    def play(world, name):
        does = "drip" if when == "reading" else "silent"
        sending = when == "sending"
        if downstream == "h1":
            client = H1Client(world.ports["a"])
            body = "content-length: 1000000\r\n\r\npart" if sending else "\r\n"
            method = "POST" if sending else "GET"
            client.send(f"{method} / HTTP/1.1\r\nhost: a\r\nx-case: {name}\r\nx-route: {upstream}\r\nx-does: {does}\r\n{body}")
        else:
            client = H2Client(world.ports["a"])
            number = client.request(
                {":method": "POST" if sending else "GET", ":scheme": "http", ":authority": "a", ":path": "/", "x-case": name, "x-route": upstream, "x-does": does},
                not sending,
            )
            if sending:
                client.send(number, b"part")
        SEEN.until(name, bool)
        status = "-"
        if when == "reading":
            status = client.head()[0] if downstream == "h1" else client.answer(number)
        alive = ""
        if downstream == "h2":
            client.rst(number)
            alive = f" alive={client.alive()}"
        else:
            client.close()
        left = ends(name, SHORT)
        if downstream == "h2":
            client.close()
        return f"{status}{alive} | upstream {' '.join(left) or '-'} | {world.log(name)}"

    return play


def vanish(upstream):
    """The client's HTTP/2 connection goes with a stream open."""

    def play(world, name):
        client, number = h2_get(world, name, upstream, "drip")
        status = client.answer(number)
        client.close()
        left = ends(name, SHORT)
        return f"{status} | upstream {' '.join(left) or '-'} | {world.log(name)}"

    return play


def retried(does):
    """What was not processed is sent again."""

    def play(world, name):
        client, number = h2_get(world, name, "h2-retry", does)
        status = client.answer(number)
        client.finish(number)
        requests = len([fact for fact in SEEN.get(name) if fact.startswith("request")])
        return f"{status} after {requests} | {world.log(name)}"

    return play


def neighbours(world, name):
    """A stream that dies leaves its neighbours on both connections alone."""
    client, number = h2_get(world, f"{name}-slow", "h2", "drip")
    client.answer(number)
    dying = client.request(
        {":method": "GET", ":scheme": "http", ":authority": "a", ":path": "/", "x-case": name, "x-route": "h2", "x-does": "rst-mid"}
    )
    client.finish(dying)
    before = len(client.stream(number).data)
    client.until(lambda: len(client.stream(number).data) > before + 20)
    seen = f"{client.stream(dying).end} slow={client.stream(number).end} {len(client.stream(number).data) > before + 20}"
    client.rst(number)
    client.close()
    return f"{seen} | {world.log(name)}"


def nothing_leaks(world, name):
    return world.nothing_leaks()


def drains(world, name):
    """A graceful drain lets a stream end, and says that the connection goes."""
    client, number = h2_get(world, name, "h2", "drip")
    client.answer(number)
    world.proxy.post("/drain_listeners?graceful")
    client.until(lambda: client.goaway, 8)
    told = client.goaway is not None
    before = len(client.stream(number).data)
    client.until(lambda: len(client.stream(number).data) > before + 20)
    flows = len(client.stream(number).data) > before + 20
    client.rst(number)
    return f"goaway={told} flows={flows}"


def all_cases():
    for does in PLAIN:
        for downstream, upstream in PAIRS:
            if does in H1_ONLY and upstream != "h1" or does in H2_ONLY and upstream != "h2":
                continue
            yield f"{does} {downstream}-{upstream}", plain(does, downstream, upstream)
    for downstream, upstream in PAIRS:
        other = "early-close" if upstream == "h1" else "early-rst"
        for does in ("early", other):
            yield f"{does} {downstream}-{upstream}", early(does, downstream, upstream)
    for when in ("sending", "waiting", "reading"):
        for downstream, upstream in PAIRS:
            yield f"client-leaves-{when} {downstream}-{upstream}", leave(when, downstream, upstream)
    for upstream in ("h1", "h2"):
        yield f"client-connection-goes h2-{upstream}", vanish(upstream)
    for does in ("refuse", "goaway"):
        yield f"retried-{does} h2-h2", retried(does)
    yield "neighbours", neighbours
    yield "nothing-leaks", nothing_leaks
    yield "drains", drains


if __name__ == "__main__":
    sys.exit(PLAY.main(Failures, all_cases(), "UPSTREAM_FAILURES.md"))
