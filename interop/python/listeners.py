"""Listeners: what listener filters find in the first bytes, which chain takes the connection, what a TCP proxy and the logs say of it.

    listeners.py --proxy PROGRAM --scratch FOLDER [--only WORD] [--show]

The expectations, in `listeners.json`, were written down from Envoy 1.40; where meshd differs, `ours` says so and why. A case says what the
client got, the lines of the logs, and the statistics that moved.
"""

import os
import re
import socket
import struct
import sys
import time

from peers import SHORT, free_port, reset, serve
from play import Play
from rig import World, address, cluster

PLAY = Play()
TYPE = "type.googleapis.com/envoy.extensions."
MOVED = re.compile(r"^(listener\.127[^w]*downstream_(pre_cx|listener_filter|cx_total)|listener\.127.*no_filter_chain|http_inspector|tls_inspector|proxy_proto|downstream_cx_proxy|tcp\.t|cluster\.(app|dead|no .*|one)\.upstream_(cx_(total|connect|none|destroy$|overflow)|rq_total|rq_pending_overflow))")
LINE = {
    "log": "%ACCESS_LOG_TYPE%",
    "chain": "%FILTER_CHAIN_NAME%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "protocol": "%PROTOCOL%",
    "bytes": "%BYTES_RECEIVED%/%BYTES_SENT%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "tries": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "why": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "from": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "to": "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
    "direct": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    "sni": "%REQUESTED_SERVER_NAME%",
}


def echo(peer):
    while data := peer.recv(65536):
        if data.startswith(b"reset"):
            return reset(peer)
        if data.startswith(b"close"):
            return peer.sendall(b"bye")
        peer.sendall(data)
    return None


def log(path, *more):
    return {
        "name": "log",
        "typed_config": {
            "@type": TYPE + "access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {"text_format_source": {"inline_string": " ".join((*LINE.values(), *more)) + "\n"}},
        },
    }


def chain(name, proxy=None, **match):
    """A chain to the echoing cluster."""
    tcp = {"@type": TYPE + "filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "t", "cluster": "app", **(proxy or {})}
    one = {"name": name, "filters": [{"name": "tcp", "typed_config": tcp}]}
    if match:
        one["filter_chain_match"] = match
    return one


def inspector(kind, **config):
    return {"name": kind, "typed_config": {"@type": f"{TYPE}filters.listener.{kind}.v3.{''.join(part.title() for part in kind.split('_'))}", **config}}


def hello(name, protocols, size=None):
    """A TLS hello, padded to `size`."""

    def block(data, form=">H"):
        return struct.pack(form, len(data)) + data

    server = struct.pack(">H", 0) + block(block(b"\0" + block(name))) if name else b""
    names = b"".join(block(one, ">B") for one in protocols)
    alpn = struct.pack(">H", 16) + block(block(names)) if names else b""
    versions = struct.pack(">H", 43) + block(b"\x02\x03\x04")
    rest = server + alpn + versions
    if size:
        rest += struct.pack(">H", 21) + block(bytes(size - len(rest)))
    body = b"\x03\x03" + bytes(32) + b"\0" + block(b"\x13\x01") + b"\x01\0" + block(rest)
    handshake = b"\x01" + struct.pack(">I", len(body))[1:] + body
    return b"".join(b"\x16\x03\x01" + block(handshake[at : at + 16384]) for at in range(0, len(handshake), 16384))


def v2(command=0x21, family=0x11, rest=b"", body=bytes([1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 1, 0])):
    return b"\r\n\r\n\0\r\nQUIT\n" + bytes([command, family]) + struct.pack(">H", len(body + rest)) + body + rest


class Listeners(World):
    SCOPES = MOVED

    def __init__(self, program, scratch, arguments):
        self.path = os.path.join(scratch, "listeners-all.log")
        open(self.path, "w", encoding="utf-8").close()
        self.ports = {}
        listeners = [self.listener(name, **what) for name, what in self.all()]
        app = serve(echo)
        limits = {"no pending": {"max_pending_requests": 0}, "no requests": {"max_requests": 0}, "no connections": {"max_connections": 0}, "one": {"max_connections": 1}}
        limited = [cluster(name, app, circuit_breakers={"thresholds": [limit]}) for name, limit in limits.items()]
        clusters = [*limited, cluster("app", app), cluster("dead", free_port()), {"name": "empty", "connect_timeout": "1s", "type": "STATIC"}]
        self.start("listeners", program, scratch, arguments, listeners, clusters)
        # The connections that found all listeners there, some of which lead to attempts with pauses, are over.
        self.settled(0.5)

    def all(self):
        any_kind = [chain("h1", application_protocols=["http/1.1"]), chain("old", application_protocols=["http/1.0"]), chain("h2", application_protocols=["h2c"]), chain("bytes")]
        tls = [chain("named", server_names=["a.test", "*.b.test"]), chain("h2", application_protocols=["h2"]), chain("tls", transport_protocol="tls"), chain("raw", transport_protocol="raw_buffer")]
        lines = [log(self.path)]
        yield "plain", {"chains": [chain("c", {"access_log": lines})]}
        yield "header", {"filters": [inspector("proxy_protocol")], "chains": [chain("c", {"access_log": lines})]}
        yield "maybe", {"filters": [inspector("proxy_protocol", allow_requests_without_proxy_protocol=True, stat_prefix="p")], "chains": [chain("c")]}
        yield "not v1", {"filters": [inspector("proxy_protocol", disallowed_versions=["V1"])], "chains": [chain("c")]}
        yield "maybe not v1", {"filters": [inspector("proxy_protocol", disallowed_versions=["V1"], allow_requests_without_proxy_protocol=True)], "chains": [chain("c")]}
        yield "http", {"filters": [inspector("http_inspector")], "chains": any_kind}
        yield "tls", {"filters": [inspector("tls_inspector")], "chains": tls}
        yield "both", {"filters": [inspector("tls_inspector"), inspector("http_inspector")], "chains": any_kind}
        yield "short", {"filters": [inspector("http_inspector")], "chains": any_kind, "listener_filters_timeout": "0.3s"}
        yield "goes on", {"filters": [inspector("http_inspector")], "chains": any_kind, "listener_filters_timeout": "0.3s", "continue_on_listener_filters_timeout": True}
        yield "nobody", {"chains": [chain("c", source_prefix_ranges=[{"address_prefix": "10.0.0.0", "prefix_len": 8}])]}
        yield "no filters", {"chains": [{"name": "c", "filters": []}]}
        flushed = {"access_log": lines, "access_log_options": {"flush_access_log_on_connected": True, "access_log_flush_interval": "0.5s"}}
        yield "flushed", {"chains": [chain("c", flushed)]}
        only = [{**log(self.path), "filter": {"log_type_filter": {"types": ["TcpUpstreamConnected"]}}}]
        yield "type", {"chains": [chain("c", {**flushed, "access_log": only})]}
        yield "idle", {"chains": [chain("c", {"access_log": lines, "idle_timeout": "0.3s"})]}
        yield "old", {"chains": [chain("c", {"access_log": lines, "max_downstream_connection_duration": "0.3s"})]}
        yield "dead", {"chains": [chain("c", {"access_log": lines, "cluster": "dead", "max_connect_attempts": 3})]}
        waits = {"backoff_options": {"base_interval": "0.1s", "max_interval": "0.2s"}}
        yield "dead with waits", {"chains": [chain("c", {"access_log": lines, "cluster": "dead", "max_connect_attempts": 3, **waits})]}
        yield "empty", {"chains": [chain("c", {"access_log": lines, "cluster": "empty"})]}
        for name in ("no pending", "no requests", "no connections", "one"):
            yield name, {"chains": [chain("c", {"access_log": lines, "cluster": name})]}
        twice = {"cluster": "no pending", "max_connect_attempts": 2}
        yield "twice no pending", {"chains": [chain("c", {"access_log": lines, **twice})]}
        yield "unknown", {"chains": [chain("c", {"access_log": lines, "cluster": "unknown"})]}

    def listener(self, name, chains, filters=(), **more):
        self.ports[name] = free_port()
        return {
            "name": name,
            "address": address(self.ports[name]),
            "listener_filters": list(filters),
            "filter_chains": chains,
            "access_log": [log(self.path)],
            **more,
        }

    def lines(self, count):
        """The new lines of the log, once there are `count`."""
        end = time.monotonic() + SHORT
        while True:
            with open(self.path, encoding="utf-8") as text:
                found = text.read().splitlines()[self.read :]
            if len(found) >= count or time.monotonic() >= end:
                return found
            time.sleep(0.02)

    def begin(self):
        self.before = self.settled(0.1)
        with open(self.path, encoding="utf-8") as text:
            self.read = len(text.read().splitlines())

    def told(self, count):
        lines = self.lines(count)
        after = self.settled(0.2)
        moved = {name: value - self.before.get(name, 0) for name, value in after.items()}
        short = (re.sub(r"^listener\.127\.0\.0\.1_\d+\.", "listener.", name) + f"={value}" for name, value in sorted(moved.items()) if value)
        return "; ".join(lines) + " | " + " ".join(short)


def said(peer):
    """What comes until the end."""
    peer.settimeout(SHORT)
    got = b""
    try:
        while data := peer.recv(65536):
            got += data
    except TimeoutError:
        return got, "open"
    except ConnectionResetError:
        # Bytes that nobody has read make an end a reset, which is a matter of moments.
        return got, "end"
    return got, "end"


def play(listener, *parts, ends=False, count=1):
    """Sends the parts, reads what comes, and closes. A number waits."""

    def case(world, _):
        world.begin()
        with socket.create_connection(("127.0.0.1", world.ports[listener]), timeout=SHORT) as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            got, end = b"", "open"
            try:
                for part in parts:
                    if isinstance(part, bytes):
                        peer.sendall(part)
                    else:
                        time.sleep(part)
                if ends:
                    # An end that comes with the bytes would end the connection in Envoy's listener filters.
                    time.sleep(0.1)
                    peer.shutdown(socket.SHUT_WR)
            except OSError:
                end = "end"
            if end == "open":
                got, end = said(peer)
        text = got if len(got) < 40 else got[:8] + b"... %d" % len(got)
        return f"{text.decode('latin-1')!r} {end} | {world.told(count)}"

    return case


def beside(first, second):
    """A connection to the second listener while one to the first is open."""

    def case(world, name):
        with socket.create_connection(("127.0.0.1", world.ports[first]), timeout=SHORT) as peer:
            peer.sendall(b"first")
            peer.recv(5)
            seen = play(second, b"hi", count=2)(world, name)
        # What is said of it belongs to no other case.
        world.lines(4)
        return seen

    return case


V1 = b"PROXY TCP4 1.2.3.4 5.6.7.8 9 256\r\n"
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def proxy_protocol():
    for name, header in {
        "v1": V1,
        "v1 of IPv6": b"PROXY TCP6 1::2 3::4 9 256\r\n",
        "v1 unknown": b"PROXY UNKNOWN\r\n",
        "v1 unknown with more": b"PROXY UNKNOWN 1.2.3.4 x y\r\n",
        "v1 with spaces at its end": V1[:-2] + b" \t\r\n",
        "v1 of any address": b"PROXY TCP4 0.0.0.0 5.6.7.8 9 256\r\n",
        "v1 of many": b"PROXY TCP4 1.2.3.4 224.0.0.1 9 256\r\n",
        "v1 of two families": b"PROXY TCP4 1.2.3.4 1::2 9 256\r\n",
        "v1 without ports": b"PROXY TCP4 1.2.3.4 5.6.7.8\r\n",
        "v1 with a bad port": b"PROXY TCP4 1.2.3.4 5.6.7.8 9 65536\r\n",
        "v1 that is too long": b"PROXY UNKNOWN " + b"a" * 100 + b"\r\n",
        "v1 as long as may be": b"PROXY UNKNOWN " + b"a" * 92 + b"\r\n",
        "v2": v2(),
        "v2 of datagrams": v2(family=0x12),
        "v2 of IPv6": v2(family=0x21, body=bytes(15) + b"\1" + bytes(15) + b"\2" + bytes([0, 9, 1, 0])),
        "v2 of sockets of files": v2(family=0x31, body=bytes(216)),
        "v2 of no family": v2(family=0, body=b""),
        "v2 of neither streams nor datagrams": v2(family=0x10),
        "v2 local": v2(command=0x20, family=0, body=b""),
        "v2 local with more": v2(command=0x20, family=0x77, body=b"whatever"),
        "v2 of an unknown command": v2(command=0x22),
        "v2 of another version": v2(command=0x31),
        "v2 that is too short": v2(body=bytes(11)),
        "v2 with extensions": v2(rest=b"\2\0\1a\3\0\0"),
        "v2 with a long extension": v2(rest=b"\2\x4e\x20" + bytes(20000)),
        "v2 with a broken extension": v2(rest=b"\2\0\5a"),
        "v2 of any address": v2(body=bytes(12)),
    }.items():
        yield f"PROXY protocol: {name}", play("header", header + b"hi", ends=True, count=1)
    yield "PROXY protocol in pieces", play("header", V1[:3], 0.05, V1[3:20], 0.05, V1[20:] + b"hi", ends=True, count=2)
    yield "PROXY protocol that does not come", play("header", GET)
    yield "PROXY protocol that breaks off", play("header", V1[:9], ends=True)
    for name in ("maybe", "not v1", "maybe not v1"):
        for what, first in {"v1": V1, "v2": v2(), "none": GET, "a bad v1": V1[:10] + b"\r\n", "a few bytes": b"PRO", "other bytes": b"PROPFIND"}.items():
            yield f"PROXY protocol, {name}: {what}", play(name, first + b"", ends=True)


def http_inspector():
    lines = {
        "HTTP/1.1": GET,
        "HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "another preface": b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n",
        "HTTP/0.9": b"GET / HTTP/0.9\r\n",
        "no version": b"GET /\r\n",
        "no target": b"GET\r\n",
        "HTTP/3.0": b"GET / HTTP/3.0\r\n",
        "a bad version": b"GET / HTTP/1.\r\n",
        "four words": b"GET / HTTP/1.1 more\r\n",
        "spaces": b"GET   /   HTTP/1.1\r\n",
        "an empty line first": b"\r\nGET / HTTP/1.1\r\n",
        "an unknown method": b"NONESUCH / HTTP/1.1\r\n",
        "a method with a colon": b"GE:T / HTTP/1.1\r\n",
        "an absolute target": b"GET http://a.test/?b HTTP/1.1\r\n",
        "a target of words": b"USER anonymous\r\n",
        "CONNECT": b"CONNECT a.test:443 HTTP/1.1\r\n",
        "high bytes": b"GET /\xff HTTP/1.1\r\n",
        "a line feed alone": b"GET / HTTP/1.1\n",
        "20,000 bytes": b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n",
        "70,000 bytes": b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n",
        "in pieces": (b"GE", 0.05, b"T / HTTP", 0.05, b"/1.1\r\n"),
        "that breaks off": b"GET /",
        "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
        "bytes": b"\0\1\2\3\n",
    }
    for name, line in lines.items():
        yield f"HTTP inspector: {name}", play("http", *(line if isinstance(line, tuple) else (line,)), ends=True)


def tls_inspector():
    for name, first in {
        "a name": hello(b"a.test", [b"h2"]),
        "a name in capitals": hello(b"A.Test", []),
        "a name below another": hello(b"x.y.b.test", []),
        "the end of a name": hello(b"b.test", []),
        "an unknown name and h2": hello(b"c.test", [b"h2", b"http/1.1"]),
        "an unknown name": hello(b"c.test", []),
        "no name": hello(b"", []),
        "10,000 bytes": hello(b"c.test", [], 10000),
        "15,000 bytes": hello(b"c.test", [], 15000),
        "17,000 bytes": hello(b"c.test", [], 17000),
        "no TLS": GET,
        "other bytes": b"\x16\x02",
    }.items():
        yield f"TLS inspector: {name}", play("tls", first, ends=True)
    yield "TLS inspector: in pieces", play("tls", hello(b"a.test", [])[:3], 0.05, hello(b"a.test", [])[3:], ends=True)


def all_cases():
    yield "bytes", play("plain", b"hi", ends=True, count=2)
    yield "the upstream resets", play("plain", b"reset", count=2)
    yield "the upstream closes", play("plain", b"close", count=2)
    yield from proxy_protocol()
    yield from http_inspector()
    yield from tls_inspector()
    yield "both inspectors: TLS", play("both", hello(b"a.test", [b"http/1.1"]), ends=True)
    yield "both inspectors: HTTP", play("both", GET, ends=True)
    yield "a silent client", play("short", b"", 0.6)
    yield "a slow client", play("short", b"GET", 0.6)
    yield "a slow client that may go on", play("goes on", b"GET", 0.6, b"hi", ends=True)
    yield "nobody wants it", play("nobody", b"hi")
    yield "a chain without filters", play("no filters", b"hi")
    yield "logs on the way", play("flushed", b"hi", 0.7, b"more", ends=True, count=4)
    yield "logs of one occasion", play("type", b"hi", 0.7, b"more", ends=True, count=2)
    yield "an idle connection", play("idle", b"hi", 0.5, count=2)
    yield "an old connection", play("old", b"hi", 0.5, count=2)
    yield "nobody listens", play("dead", b"hi", count=2)
    yield "nobody listens, with waits", play("dead with waits", b"hi", 0.3, count=2)
    for name in ("no pending", "no requests", "no connections", "one", "twice no pending"):
        yield f"limits: {name}", play(name, b"hi", ends=True, count=2)
    yield "limits: two on one", beside("one", "one")
    yield "no endpoint", play("empty", b"hi", count=2)
    yield "no cluster", play("unknown", b"hi", count=2)


if __name__ == "__main__":
    sys.exit(PLAY.main(Listeners, all_cases()))
