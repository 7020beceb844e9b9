"""Interim responses (1xx), and clients that wait for 100 before they send their body.

    continues.py --proxy PROGRAM --scratch FOLDER [--only WORD] [--show]

Each case states what the client gets, what the upstream saw, the access log, and how the statistics of 1xx moved. The expectations
were written down from Envoy 1.40; where the proxy under test differs, `ours` says so and why.
"""

import socket
import sys
import time

from peers import H1Client, H2Client, Seen, free_port, headers_of, read_head, serve
from play import Play
from rig import World, by, cluster, listener, manager

PLAY = Play()
SEEN = Seen()
BODY = b"0123456789"
EXPECT = f"expect: 100-continue\r\ncontent-length: {len(BODY)}\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
WENT = b"HTTP/1.1 100 Continue\r\n\r\n"
HINT = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n"


def body_of(peer, rest, limit=2.5):
    """The request body, and when it came."""
    peer.settimeout(limit)
    data = rest
    try:
        while len(data) < len(BODY):
            more = peer.recv(65536)
            if not more:
                return "cut"
            data += more
    except TimeoutError:
        return "none"
    return data.decode()


def app(peer):
    rest = b""
    while True:
        peer.settimeout(None)
        head, rest = read_head(peer, rest)
        headers = headers_of(head)
        kind, case = headers.get("x-route", ""), headers.get("x-case", "")
        SEEN.tell(case, f"expect={headers.get('expect', '-')}")
        if kind == "asks":
            peer.sendall(WENT)
            SEEN.tell(case, body_of(peer, rest))
            rest = b""
            peer.sendall(OK)
        elif kind == "takes":
            SEEN.tell(case, body_of(peer, rest))
            rest = b""
            peer.sendall(OK)
        elif kind == "refuses":
            peer.sendall(b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nno")
            SEEN.tell(case, body_of(peer, rest, 0.5))
            return
        elif kind == "hints":
            peer.sendall(HINT)
            time.sleep(0.1)
            peer.sendall(OK)
        elif kind == "together":
            peer.sendall(HINT + OK)
        elif kind == "works":
            for _ in range(3):
                peer.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
                time.sleep(0.05)
            peer.sendall(OK)
        elif kind == "odd":
            peer.sendall(b"HTTP/1.1 100 Continue\r\nconnection: close\r\nx-odd: a\r\n\r\n")
            time.sleep(0.1)
            peer.sendall(OK)
        elif kind == "dies":
            peer.sendall(WENT)
            SEEN.tell(case, body_of(peer, rest))
            return
        elif kind == "fails":
            peer.sendall(WENT)
            SEEN.tell(case, body_of(peer, rest))
            rest = b""
            peer.sendall(b"HTTP/1.1 503 Not Now\r\ncontent-length: 2\r\n\r\nno")
        else:
            peer.sendall(OK)


def routes(up):
    again = {"retry_on": "5xx,reset", "num_retries": 1, "retry_back_off": {"base_interval": "0.01s"}}
    found = [{"match": by(name), "route": {"cluster": up, "retry_policy": again}} for name in ("dies", "fails")]
    found.append({"match": by("direct"), "direct_response": {"status": 202}})
    return found + [{"match": {"prefix": "/"}, "route": {"cluster": up}}]


class Continues(World):
    def __init__(self, program, scratch, arguments):
        log = f"{scratch}/continues-access.log"
        self.ports = {"on": free_port(), "off": free_port()}
        up = serve(app)
        listeners = [
            listener(name, port, manager(name, routes(name), log, proxy_100_continue=name == "on", http_protocol_options={"accept_http_10": True}))
            for name, port in self.ports.items()
        ]
        # One that nobody has heard an interim response of.
        clusters = [cluster(name, up) for name in self.ports]
        self.start("continues", program, scratch, arguments, listeners, clusters)


def counted(world, mode):
    # The log line comes ahead of the counters.
    stats = world.settled(0.05)
    names = (f"http.{mode}.downstream_rq_1xx", f"cluster.{mode}.upstream_rq_1xx", f"cluster.{mode}.upstream_rq_retry")
    return [stats.get(name, 0) for name in names]


def moved(world, mode, before):
    down, up, retries = (after - old for after, old in zip(counted(world, mode), before))
    return f"down={down} up={up} retried={retries}"


def next_head(client, limit=2.5):
    """The next head, interim or not: status, and the headers that matter."""
    client.socket.settimeout(limit)
    try:
        text, client.rest = read_head(client.socket, client.rest)
    except TimeoutError:
        return "silence"
    except (ValueError, ConnectionError):
        return "closed"
    headers = headers_of(text)
    shown = [f"{name}={headers[name]}" for name in ("link", "x-odd", "connection", "server") if name in headers and text[9] == "1"]
    client.length = int(headers.get("content-length", 0))
    client.last = headers
    return " ".join([text.split(" ")[1], *shown])


def heads(client):
    """All heads up to the final one."""
    found = []
    while True:
        head = next_head(client)
        found.append(head)
        if not head.startswith("1"):
            break
    return found


def play(world, name, route, mode="on", more="", body=None, wait=True, limit=2.5):
    """One request; with `wait` the body is sent when 100 came."""
    before = counted(world, mode)
    client = H1Client(world.ports[mode])
    method = "POST" if more else "GET"
    head = f"{method} / HTTP/1.1\r\nhost: a\r\nx-case: {name}\r\nx-route: {route}\r\n{more}\r\n".encode()
    client.send(head if wait or not body else head + body)
    seen = []
    if body and wait:
        seen.append(next_head(client, limit))
        if seen[0].startswith(("100", "silence")):
            client.send(body)
    if not seen or seen[0].startswith(("1", "silence")):
        seen += heads(client)
    if seen[-1][0].isdigit():
        client.body(client.last)
    kept = "closed" if client.last.get("connection") == "close" else "kept"
    line = world.log(name)
    client.close()
    upstream = ",".join(SEEN.get(name)) or "-"
    SEEN.clear()
    return f"{' | '.join(seen)} {kept} / upstream {upstream} / {line} / {moved(world, mode, before)}"


def of(route, **more):
    return lambda world, name: play(world, name, route, **more)


def pipelined(world, name):
    """An interim head stands before the response that it belongs to."""
    client = H1Client(world.ports["on"])
    one = f"GET / HTTP/1.1\r\nhost: a\r\nx-case: {name}\r\nx-route: "
    client.send(f"{one}plain\r\n\r\n{one}hints\r\n\r\n{one}plain\r\n\r\n")
    seen = []
    for _ in range(3):
        seen += heads(client)
        client.body(client.last)
    client.close()
    SEEN.clear()
    return " | ".join(seen)


def http10(world, name):
    """A client of HTTP/1.0 knows no interim response."""
    client = H1Client(world.ports["on"])
    client.send(f"GET / HTTP/1.0\r\nhost: a\r\nx-case: {name}\r\nx-route: hints\r\n\r\n")
    seen = heads(client)
    client.close()
    SEEN.clear()
    return " | ".join(seen)


def large(world, name):
    """A response that the socket does not take whole, and behind it an interim head."""
    client = H1Client(world.ports["on"])
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for _ in range(20):
        client.send(f"GET / HTTP/1.1\r\nhost: a\r\nx-case: {name}\r\nx-route: hints\r\n\r\n")
    seen = {}
    for _ in range(20):
        got = " | ".join(heads(client))
        seen[got] = seen.get(got, 0) + 1
        client.body(client.last)
    client.close()
    SEEN.clear()
    return ", ".join(f"{count} x {got}" for got, count in sorted(seen.items()))


def http2(route, mode):
    """A client of HTTP/2; its library tells of interim responses."""

    def run(world, name):
        before = counted(world, mode)
        client = H2Client(world.ports[mode])
        fields = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/"), ("x-case", name), ("x-route", route)]
        fields += [("expect", "100-continue"), ("content-length", str(len(BODY)))]
        number = client.h2.get_next_available_stream_id()
        client.h2.send_headers(number, fields)
        client.flush()
        informed = []
        end = time.monotonic() + 0.5
        while time.monotonic() < end and not informed:
            informed += [dict(e.headers)[":status"] for e in client.pump(0.1) or [] if type(e).__name__ == "InformationalResponseReceived"]
        client.h2.send_data(number, BODY, end_stream=True)
        client.flush()
        client.until(lambda: client.stream(number).end is not None)
        status = client.stream(number).status
        client.socket.close()
        line = world.log(name)
        upstream = ",".join(SEEN.get(name)) or "-"
        SEEN.clear()
        return f"{'+'.join(informed) or 'no 1xx'} | {status} / upstream {upstream} / {line} / {moved(world, mode, before)}"

    return run


def all_cases():
    yield "on: expects, refused", of("refuses", more=EXPECT, body=BODY)
    for mode in ("on", "off"):
        yield f"{mode}: hints, the first ever", of("hints", mode=mode)
        yield f"{mode}: expects, asked for", of("asks", mode=mode, more=EXPECT, body=BODY)
        yield f"{mode}: expects, taken silently", of("takes", mode=mode, more=EXPECT, body=BODY, limit=1.5)
        yield f"{mode}: expects, does not wait", of("takes", mode=mode, more=EXPECT, body=BODY, wait=False)
        yield f"{mode}: expects, direct response", of("direct", mode=mode, more=EXPECT, body=BODY)
        yield f"{mode}: hints", of("hints", mode=mode)
        yield f"{mode}: hints with the response", of("together", mode=mode)
        yield f"{mode}: processing", of("works", mode=mode)
        yield f"{mode}: 100 that nobody expects", of("odd", mode=mode)
        yield f"{mode}: 100, then the upstream is gone", of("dies", mode=mode, more=EXPECT, body=BODY)
        yield f"{mode}: 100, then 503", of("fails", mode=mode, more=EXPECT, body=BODY)
        yield f"{mode}: HTTP/2 expects", http2("asks", mode)
    yield "pipelined", pipelined
    yield "HTTP/1.0", http10
    yield "many behind one another", large


if __name__ == "__main__":
    sys.exit(PLAY.main(Continues, all_cases()))
