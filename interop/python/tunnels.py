"""The world of the play `upgrades`: apps that speak WebSocket, CONNECT and extended CONNECT, and clients that begin a tunnel."""

import socket
import time

from peers import H1Client, H2Client, H2Server, Seen, free_port, headers_of, read_head, reset, serve
from play import Play
from rig import World, by, cluster, listener, manager

SEEN = Seen()
PLAY = Play()
# Why streams end otherwise than Envoy's.
CANCEL = "the code of the reset is always CANCEL"


def echo(peer, data, name):
    """Echoes until the end of the other's writing, then says so."""
    try:
        while True:
            if data:
                peer.sendall(data)
            data = peer.recv(65536)
            if not data:
                SEEN.tell(name, "eof")
                break
            if data == b"bye":
                peer.sendall(b"bye")
                peer.shutdown(socket.SHUT_WR)
                SEEN.tell(name, "said bye")
                while True:
                    more = peer.recv(65536)
                    if not more:
                        SEEN.tell(name, "eof")
                        return
                    SEEN.tell(name, "after " + more.decode())
            if data == b"reset":
                reset(peer)
                return
        peer.sendall(b"last")
    except ConnectionError:
        SEEN.tell(name, "gone")


def h1_app(peer):
    rest = b""
    while True:
        head, rest = read_head(peer, rest)
        line = head.split("\r\n")[0]
        method, path, _ = line.split(" ")
        headers = headers_of(head)
        name = headers.get("x-case", "?")
        upgrade = headers.get("upgrade", "")
        SEEN.tell(name, f"{line} upgrade={upgrade} connection={headers.get('connection', '')}")
        if method == "CONNECT":
            if headers.get("x-answer") == "refuse":
                peer.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 4\r\n\r\nnope")
                continue
            peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            return echo(peer, rest, name)
        if path == "/refuse":
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 4\r\nx-why: taste\r\n\r\nnope")
        elif path == "/ignore":
            peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nplain")
        elif path == "/silent":
            time.sleep(20)
        elif upgrade:
            peer.sendall(f"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: {upgrade}\r\nx-accept: yes\r\n\r\n".encode())
            return echo(peer, rest, name)
        else:
            peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


def h2_app(peer):
    server = H2Server(peer)
    told = set()
    while server.pump(30) is not None:
        for number, stream in list(server.streams.items()):
            name = stream.headers.get("x-case", "?")
            if number not in told and stream.headers:
                told.add(number)
                headers = stream.headers
                wanted = [f"{key[1:]}={headers[key]}" for key in (":method", ":protocol", ":path", ":scheme") if key in headers]
                extra = [key for key in ("upgrade", "connection") if key in headers]
                SEEN.tell(name, " ".join(wanted + extra))
                if headers.get(":path") == "/refuse" or headers.get("x-answer") == "refuse":
                    server.headers(number, [(":status", "400"), ("content-length", "4"), ("x-why", "taste")])
                    server.send(number, b"nope", True)
                    continue
                if headers[":method"] != "CONNECT":
                    server.headers(number, [(":status", "200"), ("content-length", "2")])
                    server.send(number, b"ok", True)
                    continue
                server.headers(number, [(":status", "200"), ("x-accept", "yes")])
            if stream.data and stream.headers.get(":method") == "CONNECT":
                data, stream.data = stream.data, b""
                if data == b"reset":
                    server.rst(number, 2)
                    continue
                if data == b"bye":
                    server.send(number, b"bye", True)
                    continue
                server.send(number, data)
            if stream.end and ("end", number) not in told:
                told.add(("end", number))
                SEEN.tell(name, stream.end)
                if stream.end == "end" and stream.headers.get(":method") == "CONNECT":
                    try:
                        server.send(number, b"last", True)
                    except Exception:  # it was ended before
                        pass
    SEEN.tell("?", "connection closed")


def tcp_app(peer):
    """The first bytes name the case."""
    data = peer.recv(65536)
    if not data:
        return
    name = data.split(b"\n")[0].decode("latin-1")
    SEEN.tell(name, "begun")
    echo(peer, data, name)


def tcp_proxied(peer):
    data = b""
    while data.count(b"\n") < 1:
        more = peer.recv(65536)
        if not more:
            return
        data += more
    line, rest = data.split(b"\n", 1)
    SEEN.tell("proxied", " ".join(line.decode().split()[:4]))
    echo(peer, rest, "proxied")


WEBSOCKET = {"upgrade_type": "websocket"}
CONNECT = {"upgrade_type": "CONNECT"}
TERMINATE = {"upgrade_type": "CONNECT", "connect_config": {}}


def connect_route(name, target, upgrade, **more):
    return {
        "name": name,
        "match": {"connect_matcher": {}, "headers": by(name)["headers"]},
        "route": {"cluster": target, "upgrade_configs": [upgrade], **more},
    }


def route(name, target, *upgrades, **more):
    return {
        "name": name,
        "match": by(name),
        "route": {"cluster": target, "upgrade_configs": list(upgrades), **more},
    }


ROUTES = [
    connect_route("tcp", "tcp", TERMINATE),
    connect_route("tcp-idle", "tcp", TERMINATE, idle_timeout="0.5s"),
    connect_route("tcp-timeout", "tcp", TERMINATE, timeout="0.5s"),
    connect_route("tcp-refused", "refused", TERMINATE),
    connect_route("tcp-full", "full", TERMINATE),
    connect_route(
        "tcp-retry",
        "halfdead",
        TERMINATE,
        retry_policy={"retry_on": "connect-failure", "num_retries": 3, "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
        }]},
    ),
    connect_route(
        "tcp-proxied",
        "proxied",
        {"upgrade_type": "CONNECT", "connect_config": {"proxy_protocol_config": {"version": "V1"}}},
    ),
    connect_route("connect-h1", "h1", CONNECT),
    connect_route("connect-h2", "h2", CONNECT),
    connect_route("connect-off", "h1", {"upgrade_type": "CONNECT", "enabled": False}),
    {
        "name": "post",
        "match": by("post"),
        "route": {"cluster": "tcp", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {"allow_post": True}}]},
    },
    route("ws-h1", "h1", WEBSOCKET),
    route("ws-h2", "h2", WEBSOCKET),
    route("ws-idle", "h1", WEBSOCKET, idle_timeout="0.5s"),
    route("ws-timeout", "h1", WEBSOCKET, timeout="0.5s"),
    route("ws-off", "h1", {"upgrade_type": "websocket", "enabled": False}),
    route("any-h1", "h1"),
    {"name": "moved", "match": by("moved"), "redirect": {"path_redirect": "/there"}},
    {"name": "plain", "match": {"prefix": "/ok"}, "route": {"cluster": "h1"}},
]


def clusters(ports):
    halfdead = cluster("halfdead", ports["tcp"])
    endpoints = halfdead["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoints.insert(0, cluster("x", ports["refused"])["load_assignment"]["endpoints"][0]["lb_endpoints"][0])
    full = cluster("full", ports["tcp"], circuit_breakers={"thresholds": [{"max_connections": 0, "max_requests": 0, "max_pending_requests": 0}]})
    return [
        cluster("h1", ports["h1"]),
        cluster("h2", ports["h2"], {"allow_connect": True}),
        cluster("tcp", ports["tcp"]),
        cluster("refused", ports["refused"]),
        cluster("proxied", ports["proxied"]),
        halfdead,
        full,
    ]


class Tunnels(World):
    GAUGES = ("downstream_cx_upgrades_active", "downstream_rq_active", "upstream_rq_active")

    def __init__(self, program, scratch, arguments):
        SEEN.clear()
        self.ports = {
            "h1": serve(h1_app),
            "h2": serve(h2_app),
            "tcp": serve(tcp_app),
            "proxied": serve(tcp_proxied),
            "refused": free_port(),
            "a": free_port(),
            "b": free_port(),
        }
        log = f"{scratch}/upgrades-access.log"
        route_level = manager("a", ROUTES, log, http2_protocol_options={"allow_connect": True})
        manager_level = manager("b", ROUTES, log, upgrade_configs=[WEBSOCKET, {"upgrade_type": "other", "enabled": False}])
        listeners = [listener("a", self.ports["a"], route_level), listener("b", self.ports["b"], manager_level)]
        self.start("upgrades", program, scratch, arguments, listeners, clusters(self.ports))

    def h1_connect(self, name, route, more=""):
        client = H1Client(self.ports["a"])
        client.send(f"CONNECT target:80 HTTP/1.1\r\nhost: target:80\r\nx-case: {name}\r\nx-route: {route}\r\n{more}\r\n")
        status, headers = client.head()
        return client, status, headers

    def h2_connect(self, name, route, protocol=None, path="/ws", more=None, port="a"):
        client = H2Client(self.ports[port])
        headers = {":method": "CONNECT", ":authority": "target:80"}
        if protocol:
            headers.update({":protocol": protocol, ":scheme": "http", ":path": path})
        headers.update({"x-case": name, "x-route": route}, **(more or {}))
        number = client.request(headers, False)
        return client, number, client.answer(number)

    def h1_upgrade(self, name, route, path="/ws", kind="websocket", port="a", more=""):
        client = H1Client(self.ports[port])
        client.send(
            f"GET {path} HTTP/1.1\r\nhost: target\r\nconnection: Upgrade\r\nupgrade: {kind}\r\nx-case: {name}\r\nx-route: {route}\r\n{more}\r\n"
        )
        status, headers = client.head()
        return client, status, headers


def exchange_h1(client, name):
    """Says something, hears it again, in both directions."""
    client.send(f"{name}\n")
    return client.read(len(name) + 1).decode()


def exchange_h2(client, number, name):
    client.send(number, f"{name}\n".encode())
    stream = client.stream(number)
    client.until(lambda: len(stream.data) > len(name))
    data, stream.data = stream.data, b""
    return data.decode()


def is_gone(name):
    """Whether the upstream hears of the end."""
    return SEEN.wait(name, "eof", 2) or SEEN.wait(name, "gone", 0.1)


def h1_told(world, name, opened, word):
    """What becomes of a tunnel whose upstream is told `word`."""
    client, status, _ = opened
    exchange_h1(client, name)
    client.send(word)
    data, how = client.end(2)
    return f"{status} {data.decode()} {how} | {world.log(name)}"


def h2_told(world, name, route, word, protocol=None):
    client, number, status = world.h2_connect(name, route, protocol)
    exchange_h2(client, number, name)
    client.send(number, word)
    client.finish(number, 2)
    client.settle()
    stream = client.stream(number)
    return f"{status} {stream.data.decode()} {stream.end} alive={client.alive()} | {world.log(name)}"


def h1_left(world, name, opened):
    """What becomes of a tunnel whose client resets it."""
    client, status, _ = opened
    exchange_h1(client, name)
    client.reset()
    return f"{status} gone={is_gone(name)} | {world.log(name)}"


def h2_left(world, name, route, protocol=None):
    client, number, status = world.h2_connect(name, route, protocol)
    exchange_h2(client, number, name)
    client.rst(number)
    return f"{status} gone={is_gone(name)} alive={client.alive()} | {world.log(name)}"


def h1_held(world, name, opened):
    """Whether a tunnel outlives the route's timeout."""
    client, status, _ = opened
    exchange_h1(client, name)
    _, how = client.end(1.2)
    client.close()
    return f"{status} {how} | {world.log(name)}"


def h1_refused(world, name, opened):
    """What a client sees that gets no tunnel, and whether its connection goes on."""
    client, status, headers = opened
    body, _ = client.body(headers, 2)
    return f"{status} {body.decode()} connection={headers.get('connection')} alive={client.alive()} | {world.log(name)}"


def h2_refused(world, name, opened):
    client, number, status = opened
    client.finish(number, 2)
    client.settle()
    stream = client.stream(number)
    return f"{status} {stream.data.decode()} {stream.end} alive={client.alive()} | {world.log(name)}"
