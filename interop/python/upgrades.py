"""WebSocket, CONNECT and extended CONNECT through a proxy, over HTTP/1.1 and HTTP/2 on either side.

    upgrades.py --proxy PROGRAM --scratch FOLDER [--only WORD] [--show]

Each case states what a client, the upstream and the access log see. The expectations were written down from Envoy 1.40; where the
proxy under test may differ, `ours` says so and why.
"""

import socket
import sys
import time

from play import Play
from rig import (
    H1Client,
    H2Client,
    H2Server,
    Proxy,
    Seen,
    cluster,
    free_port,
    headers_of,
    line_of,
    listener,
    manager,
    read_head,
    reset,
    serve,
)

SEEN = Seen()
PLAY = Play()
case = PLAY.case


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


def by(name):
    return [{"name": "x-route", "string_match": {"exact": name}}]


def connect_route(name, target, upgrade, **more):
    return {
        "name": name,
        "match": {"connect_matcher": {}, "headers": by(name)},
        "route": {"cluster": target, "upgrade_configs": [upgrade], **more},
    }


def route(name, target, *upgrades, **more):
    return {
        "name": name,
        "match": {"prefix": "/", "headers": by(name)},
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
        retry_policy={"retry_on": "connect-failure", "num_retries": 3, "retry_host_predicate": [PREVIOUS_HOSTS := {
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
        "match": {"prefix": "/", "headers": by("post")},
        "route": {"cluster": "tcp", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {"allow_post": True}}]},
    },
    route("ws-h1", "h1", WEBSOCKET),
    route("ws-h2", "h2", WEBSOCKET),
    route("ws-idle", "h1", WEBSOCKET, idle_timeout="0.5s"),
    route("ws-timeout", "h1", WEBSOCKET, timeout="0.5s"),
    route("ws-off", "h1", {"upgrade_type": "websocket", "enabled": False}),
    route("any-h1", "h1"),
    {"name": "moved", "match": {"prefix": "/", "headers": by("moved")}, "redirect": {"path_redirect": "/there"}},
    {"name": "plain", "match": {"prefix": "/ok"}, "route": {"cluster": "h1"}},
]


def configuration(ports, log):
    route_level = manager("a", ROUTES, log, http2_protocol_options={"allow_connect": True})
    manager_level = manager("b", ROUTES, log, upgrade_configs=[WEBSOCKET, {"upgrade_type": "other", "enabled": False}])
    halfdead = cluster("halfdead", ports["tcp"])
    endpoints = halfdead["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoints.insert(0, cluster("x", ports["refused"])["load_assignment"]["endpoints"][0]["lb_endpoints"][0])
    full = cluster("full", ports["tcp"], circuit_breakers={"thresholds": [{"max_connections": 0, "max_requests": 0, "max_pending_requests": 0}]})
    return {
        "static_resources": {
            "listeners": [listener("a", ports["a"], route_level), listener("b", ports["b"], manager_level)],
            "clusters": [
                cluster("h1", ports["h1"]),
                cluster("h2", ports["h2"], {"allow_connect": True}),
                cluster("tcp", ports["tcp"]),
                cluster("refused", ports["refused"]),
                cluster("proxied", ports["proxied"]),
                halfdead,
                full,
            ],
        }
    }


class World:
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
        self.proxy = Proxy(program, configuration(self.ports, log), scratch, "upgrades", arguments)
        self.proxy.wait(self.ports["a"])

    def log(self, name):
        return line_of(self.proxy, name)

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

    def gauges(self):
        stats = self.proxy.stats()
        wanted = ("downstream_cx_upgrades_active", "downstream_rq_active", "upstream_rq_active")
        return {key: value for key, value in stats.items() if key.endswith(wanted) and value and ".admin." not in key}

    def stop(self):
        self.proxy.stop()


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


# CONNECT that ends here.


@case("200 echo |  closed | eof | 200 DC downstream_remote_disconnect")
def h1_connect_tcp_client_half_closes(world, name):
    client, status, _ = world.h1_connect(name, "tcp")
    heard = "echo" if exchange_h1(client, name) == f"{name}\n" else "nothing"
    client.half_close()
    data, how = client.end()
    SEEN.wait(name, "eof")
    return f"{status} {heard} | {data.decode()} {how} | {SEEN.get(name)[-1]} | {world.log(name)}"


@case("200 echo | last end | eof | 200 - via_upstream")
def h2_connect_tcp_client_half_closes(world, name):
    client, number, status = world.h2_connect(name, "tcp")
    heard = "echo" if exchange_h2(client, number, name) == f"{name}\n" else "nothing"
    client.send(number, b"", True)
    how = client.finish(number)
    SEEN.wait(name, "eof")
    return f"{status} {heard} | {client.stream(number).data.decode()} {how} | {SEEN.get(name)[-1]} | {world.log(name)}"


@case("200 bye closed | ['eof'] | 200 - via_upstream")
def h1_connect_tcp_upstream_half_closes(world, name):
    client, status, _ = world.h1_connect(name, "tcp")
    exchange_h1(client, name)
    client.send("bye")
    data = client.read(3)
    time.sleep(0.3)
    try:
        client.send("more")
    except OSError:
        pass
    _, how = client.end(1)
    # Bytes that nobody read make a reset of the close.
    how = "closed" if how == "reset" else how
    client.close()
    SEEN.wait(name, "eof", 1)
    return f"{status} {data.decode()} {how} | {SEEN.get(name)[2:]} | {world.log(name)}"


@case("200 bye end+rst0 alive=True | ['eof'] | 200 - via_upstream")
def h2_connect_tcp_upstream_half_closes(world, name):
    client, number, status = world.h2_connect(name, "tcp")
    exchange_h2(client, number, name)
    client.send(number, b"bye")
    how = client.finish(number)
    client.settle()
    how = client.stream(number).end
    data = client.stream(number).data.decode()
    alive = client.alive()
    client.close()
    SEEN.wait(name, "eof", 1)
    return f"{status} {data} {how} alive={alive} | {SEEN.get(name)[2:]} | {world.log(name)}"


@case("200 closed | 200 UC upstream_reset_after_response_started{connection_termination}")
def h1_connect_tcp_upstream_resets(world, name):
    client, status, _ = world.h1_connect(name, "tcp")
    exchange_h1(client, name)
    client.send("reset")
    _, how = client.end(2)
    return f"{status} {how} | {world.log(name)}"


@case(
    "200 rst10 alive=True | 200 UC upstream_reset_after_response_started{connection_termination}",
    ours="200 rst8 alive=True | 200 UC upstream_reset_after_response_started{connection_termination}",
    why="the code of the reset is always CANCEL",
)
def h2_connect_tcp_upstream_resets(world, name):
    client, number, status = world.h2_connect(name, "tcp")
    exchange_h2(client, number, name)
    client.send(number, b"reset")
    how = client.finish(number)
    client.settle()
    return f"{status} {client.stream(number).end} alive={client.alive()} | {world.log(name)}"


@case("200 gone=True alive=True | 200 DR http2.remote_reset")
def h2_connect_tcp_client_resets(world, name):
    client, number, status = world.h2_connect(name, "tcp")
    exchange_h2(client, number, name)
    client.rst(number)
    gone = SEEN.wait(name, "eof", 2) or SEEN.wait(name, "gone", 0.1)
    return f"{status} gone={gone} alive={client.alive()} | {world.log(name)}"


@case("200 gone=True | 200 DC downstream_remote_disconnect")
def h2_connect_tcp_client_connection_closes(world, name):
    client, number, status = world.h2_connect(name, "tcp")
    exchange_h2(client, number, name)
    client.close()
    gone = SEEN.wait(name, "eof", 2) or SEEN.wait(name, "gone", 0.1)
    return f"{status} gone={gone} | {world.log(name)}"


@case("200 gone=True | 200 DC downstream_remote_disconnect")
def h1_connect_tcp_client_resets(world, name):
    client, status, _ = world.h1_connect(name, "tcp")
    exchange_h1(client, name)
    client.reset()
    gone = SEEN.wait(name, "eof", 2) or SEEN.wait(name, "gone", 0.1)
    return f"{status} gone={gone} | {world.log(name)}"


@case("200 closed in time=True | 200 SI stream_idle_timeout")
def h1_connect_tcp_idle(world, name):
    client, status, _ = world.h1_connect(name, "tcp-idle")
    exchange_h1(client, name)
    begin = time.monotonic()
    _, how = client.end(3)
    took = time.monotonic() - begin
    return f"{status} {how} in time={0.3 < took < 2.5} | {world.log(name)}"


@case(
    "200 rst2 alive=True | 200 SI stream_idle_timeout",
    ours="200 rst8 alive=True | 200 SI stream_idle_timeout",
    why="the code of the reset is always CANCEL",
)
def h2_connect_tcp_idle(world, name):
    client, number, status = world.h2_connect(name, "tcp-idle")
    exchange_h2(client, number, name)
    how = client.finish(number, 3)
    client.settle()
    return f"{status} {client.stream(number).end} alive={client.alive()} | {world.log(name)}"


@case("200 open | 200 DC downstream_remote_disconnect")
def h1_connect_tcp_route_timeout(world, name):
    client, status, _ = world.h1_connect(name, "tcp-timeout")
    exchange_h1(client, name)
    _, how = client.end(1.2)
    client.close()
    return f"{status} {how} | {world.log(name)}"


@case("503 upstream connect error or disconnect/reset before headers. reset reason: remote connection failure whole connection=close alive=False | 503 UF upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}")
def h1_connect_tcp_refused(world, name):
    client, status, headers = world.h1_connect(name, "tcp-refused")
    body, whole = client.body(headers, 2)
    return f"{status} {body.decode()} {whole} connection={headers.get('connection')} alive={client.alive()} | {world.log(name)}"


@case(
    "503 upstream connect error or disconnect/reset before headers. reset reason: remote connection failure end+rst10 alive=True | 503 UF upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}",
    ours="503 upstream connect error or disconnect/reset before headers. reset reason: remote connection failure end+rst0 alive=True | 503 UF upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}",
    why="the reset after the answer has another code",
)
def h2_connect_tcp_refused(world, name):
    client, number, status = world.h2_connect(name, "tcp-refused")
    client.finish(number)
    client.settle()
    return f"{status} {client.stream(number).data.decode()} {client.stream(number).end} alive={client.alive()} | {world.log(name)}"


@case("503 upstream connect error or disconnect/reset before headers. reset reason: overflow | 503 UO upstream_reset_before_response_started{overflow}")
def h1_connect_tcp_overflow(world, name):
    client, status, headers = world.h1_connect(name, "tcp-full")
    body, whole = client.body(headers, 2)
    return f"{status} {body.decode()} | {world.log(name)}"


@case("200 200 200 200")
def h1_connect_tcp_retried(world, name):
    statuses = []
    for turn in range(4):
        client, status, headers = world.h1_connect(f"{name}{turn}", "tcp-retry")
        statuses.append(status)
        client.close()
    return f"{' '.join(statuses)}"


@case("200 x PROXY TCP4 127.0.0.1 127.0.0.1")
def h1_connect_tcp_proxied(world, name):
    client, status, _ = world.h1_connect(name, "tcp-proxied")
    client.send("x")
    heard = client.read(1)
    client.close()
    return f"{status} {heard.decode()} {SEEN.get('proxied')[0]}"


@case("200 True")
def h1_connect_early_bytes(world, name):
    client = H1Client(world.ports["a"])
    client.send(f"CONNECT target:80 HTTP/1.1\r\nhost: target:80\r\nx-case: {name}\r\nx-route: tcp\r\n\r\n{name}\nearly")
    status, _ = client.head()
    heard = client.read(len(name) + 6)
    client.close()
    return f"{status} {heard.endswith(b'early')}"


@case("200 'h1_post_tcp\\nlast' whole alive=False | 200 - via_upstream")
def h1_post_tcp(world, name):
    client = H1Client(world.ports["a"])
    client.send(f"POST /x HTTP/1.1\r\nhost: target\r\nx-case: {name}\r\nx-route: post\r\ntransfer-encoding: chunked\r\n\r\n")
    text = f"{name}\n"
    client.send(f"{len(text):x}\r\n{text}\r\n")
    status, headers = client.head()
    client.send("0\r\n\r\n")
    body, whole = client.body(headers)
    return f"{status} {body.decode()!r} {whole} alive={client.alive()} | {world.log(name)}"


@case("200 'h2_post_tcp\\n' last end | 200 - via_upstream")
def h2_post_tcp(world, name):
    client = H2Client(world.ports["a"])
    number = client.request({":method": "POST", ":scheme": "http", ":authority": "target", ":path": "/x", "x-case": name, "x-route": "post"}, False)
    heard = exchange_h2(client, number, name)
    client.send(number, b"", True)
    how = client.finish(number)
    return f"{client.stream(number).status} {heard!r} {client.stream(number).data.decode()} {how} | {world.log(name)}"


# CONNECT that goes on.


@case("200 True  closed | ['CONNECT target:80 HTTP/1.1 upgrade= connection='] | 200 DC downstream_remote_disconnect")
def h1_connect_to_h1(world, name):
    client, status, _ = world.h1_connect(name, "connect-h1")
    heard = exchange_h1(client, name) == f"{name}\n"
    client.half_close()
    data, how = client.end()
    return f"{status} {heard} {data.decode()} {how} | {SEEN.get(name)[:1]} | {world.log(name)}"


@case("200 True  closed | ['method=CONNECT'] | 200 DC downstream_remote_disconnect")
def h1_connect_to_h2(world, name):
    client, status, _ = world.h1_connect(name, "connect-h2")
    heard = exchange_h1(client, name) == f"{name}\n"
    client.half_close()
    data, how = client.end()
    return f"{status} {heard} {data.decode()} {how} | {SEEN.get(name)[:1]} | {world.log(name)}"


@case(
    "200 True  rst10 | ['CONNECT target:80 HTTP/1.1 upgrade= connection='] | 200 UC upstream_reset_after_response_started{connection_termination}",
    ours="200 True last rst8 | ['CONNECT target:80 HTTP/1.1 upgrade= connection='] | 200 UC upstream_reset_after_response_started{connection_termination}",
    why="what the upstream sent last is delivered",
)
def h2_connect_to_h1(world, name):
    client, number, status = world.h2_connect(name, "connect-h1")
    heard = exchange_h2(client, number, name) == f"{name}\n"
    client.send(number, b"", True)
    how = client.finish(number)
    return f"{status} {heard} {client.stream(number).data.decode()} {how} | {SEEN.get(name)[:1]} | {world.log(name)}"


@case("200 True last end | ['method=CONNECT'] | 200 - via_upstream")
def h2_connect_to_h2(world, name):
    client, number, status = world.h2_connect(name, "connect-h2")
    heard = exchange_h2(client, number, name) == f"{name}\n"
    client.send(number, b"", True)
    how = client.finish(number)
    return f"{status} {heard} {client.stream(number).data.decode()} {how} | {SEEN.get(name)[:1]} | {world.log(name)}"


@case("403 nope connection=close alive=False | 403 - via_upstream")
def h1_connect_refused_by_h1(world, name):
    client, status, headers = world.h1_connect(name, "connect-h1", "x-answer: refuse\r\n")
    body, whole = client.body(headers, 2)
    return f"{status} {body.decode()} connection={headers.get('connection')} alive={client.alive()} | {world.log(name)}"


@case("400 nope end+rst0 alive=True | 400 - via_upstream")
def h2_connect_refused_by_h2(world, name):
    client, number, status = world.h2_connect(name, "connect-h2", more={"x-answer": "refuse"})
    client.finish(number)
    client.settle()
    return f"{status} {client.stream(number).data.decode()} {client.stream(number).end} alive={client.alive()} | {world.log(name)}"


@case(
    "200 rst2 alive=True | 200 UR upstream_reset_after_response_started{remote_reset}",
    ours="200 rst8 alive=True | 200 UR upstream_reset_after_response_started{remote_reset}",
    why="the code of the reset is always CANCEL",
)
def h2_connect_to_h2_upstream_resets(world, name):
    client, number, status = world.h2_connect(name, "connect-h2")
    exchange_h2(client, number, name)
    client.send(number, b"reset")
    client.finish(number)
    client.settle()
    return f"{status} {client.stream(number).end} alive={client.alive()} | {world.log(name)}"


@case("200 gone=True alive=True | 200 DR http2.remote_reset")
def h2_connect_to_h2_client_resets(world, name):
    client, number, status = world.h2_connect(name, "connect-h2")
    exchange_h2(client, number, name)
    client.rst(number)
    gone = SEEN.wait(name, "rst2", 1) or SEEN.wait(name, "rst8", 1)
    return f"{status} gone={gone} alive={client.alive()} | {world.log(name)}"


@case("404 '' connection=close alive=False | 404 NR route_not_found")
def h1_connect_not_enabled(world, name):
    client, status, headers = world.h1_connect(name, "any-h1")
    body, whole = client.body(headers, 2)
    return f"{status} {body.decode()!r} connection={headers.get('connection')} alive={client.alive()} | {world.log(name)}"


@case("403 connection=close alive=False | 403 - upgrade_failed")
def h1_connect_disabled(world, name):
    client, status, headers = world.h1_connect(name, "connect-off")
    return f"{status} connection={headers.get('connection')} alive={client.alive()} | {world.log(name)}"


@case(
    "ProtocolError None alive=False | 403 - upgrade_failed",
    ours="403 end+rst0 alive=True | 403 - upgrade_failed",
    why="Envoy closes the whole connection after the answer",
)
def h2_connect_disabled(world, name):
    client, number, status = world.h2_connect(name, "connect-off")
    client.finish(number)
    client.settle()
    return f"{status} {client.stream(number).end} alive={client.alive()} | {world.log(name)}"


# Upgrades.


@case("101 websocket Upgrade yes True |  closed | ['GET /ws HTTP/1.1 upgrade=websocket connection=Upgrade'] | 101 DC downstream_remote_disconnect")
def h1_websocket_to_h1(world, name):
    client, status, headers = world.h1_upgrade(name, "ws-h1")
    heard = exchange_h1(client, name) == f"{name}\n"
    client.half_close()
    data, how = client.end(2)
    return f"{status} {headers.get('upgrade')} {headers.get('connection')} {headers.get('x-accept')} {heard} | {data.decode()} {how} | {SEEN.get(name)[:1]} | {world.log(name)}"


@case("101 bye closed | 101 UC upstream_reset_after_response_started{connection_termination}")
def h1_websocket_upstream_ends(world, name):
    client, status, _ = world.h1_upgrade(name, "ws-h1")
    exchange_h1(client, name)
    client.send("bye")
    data, how = client.end(2)
    return f"{status} {data.decode()} {how} | {world.log(name)}"


@case("101  closed | 101 UC upstream_reset_after_response_started{connection_termination}")
def h1_websocket_upstream_resets(world, name):
    client, status, _ = world.h1_upgrade(name, "ws-h1")
    exchange_h1(client, name)
    client.send("reset")
    data, how = client.end(2)
    return f"{status} {data.decode()} {how} | {world.log(name)}"


@case("101 gone=True | 101 DC downstream_remote_disconnect")
def h1_websocket_client_resets(world, name):
    client, status, _ = world.h1_upgrade(name, "ws-h1")
    exchange_h1(client, name)
    client.reset()
    gone = SEEN.wait(name, "eof", 2) or SEEN.wait(name, "gone", 0.1)
    return f"{status} gone={gone} | {world.log(name)}"


@case("101 closed | 101 SI stream_idle_timeout")
def h1_websocket_idle(world, name):
    client, status, _ = world.h1_upgrade(name, "ws-idle")
    exchange_h1(client, name)
    _, how = client.end(2)
    return f"{status} {how} | {world.log(name)}"


@case("101 open | 101 DC downstream_remote_disconnect")
def h1_websocket_route_timeout(world, name):
    client, status, _ = world.h1_upgrade(name, "ws-timeout")
    exchange_h1(client, name)
    _, how = client.end(1.2)
    client.close()
    return f"{status} {how} | {world.log(name)}"


@case("504 | 504 UT response_timeout")
def h1_websocket_silent_route_timeout(world, name):
    client = H1Client(world.ports["a"])
    client.send(f"GET /silent HTTP/1.1\r\nhost: target\r\nconnection: Upgrade\r\nupgrade: websocket\r\nx-case: {name}\r\nx-route: ws-timeout\r\n\r\n")
    status, _ = client.head(1.5)
    client.close()
    return f"{status} | {world.log(name)}"


@case("101 websocket upgrade yes True |  closed | ['method=CONNECT protocol=websocket path=/ws scheme=http'] | 101 DC downstream_remote_disconnect")
def h1_websocket_to_h2(world, name):
    client, status, headers = world.h1_upgrade(name, "ws-h2")
    heard = exchange_h1(client, name) == f"{name}\n"
    client.half_close()
    data, how = client.end(2)
    time.sleep(0.2)
    return f"{status} {headers.get('upgrade')} {headers.get('connection')} {headers.get('x-accept')} {heard} | {data.decode()} {how} | {SEEN.get(name)[:1]} | {world.log(name)}"


@case("200 ['x-accept'] True |  open | ['GET /ws HTTP/1.1 upgrade=websocket connection=upgrade'] | 0 log lines")
def h2_websocket_to_h1(world, name):
    client, number, status = world.h2_connect(name, "ws-h1", "websocket")
    heard = exchange_h2(client, number, name) == f"{name}\n"
    client.send(number, b"", True)
    how = client.finish(number, 2)
    headers = client.stream(number).headers
    return f"{status} {sorted(set(headers) & {'upgrade', 'connection', 'x-accept', 'content-length'})} {heard} | {client.stream(number).data.decode()} {how} | {SEEN.get(name)[:1]} | {world.log(name)}"


@case("200 True | last end | ['method=CONNECT protocol=websocket path=/ws scheme=http'] | 101 - via_upstream")
def h2_websocket_to_h2(world, name):
    client, number, status = world.h2_connect(name, "ws-h2", "websocket")
    heard = exchange_h2(client, number, name) == f"{name}\n"
    client.send(number, b"", True)
    how = client.finish(number, 2)
    return f"{status} {heard} | {client.stream(number).data.decode()} {how} | {SEEN.get(name)[:1]} | {world.log(name)}"


@case(
    "200 bye rst10 alive=True | 101 UC upstream_reset_after_response_started{connection_termination}",
    ours="200 bye rst8 alive=True | 101 UC upstream_reset_after_response_started{connection_termination}",
    why="the code of the reset is always CANCEL",
)
def h2_websocket_upstream_ends(world, name):
    client, number, status = world.h2_connect(name, "ws-h1", "websocket")
    exchange_h2(client, number, name)
    client.send(number, b"bye")
    client.finish(number, 2)
    client.settle()
    return f"{status} {client.stream(number).data.decode()} {client.stream(number).end} alive={client.alive()} | {world.log(name)}"


@case(
    "200 rst10 alive=True | 101 UC upstream_reset_after_response_started{connection_termination}",
    ours="200 rst8 alive=True | 101 UC upstream_reset_after_response_started{connection_termination}",
    why="the code of the reset is always CANCEL",
)
def h2_websocket_upstream_resets(world, name):
    client, number, status = world.h2_connect(name, "ws-h1", "websocket")
    exchange_h2(client, number, name)
    client.send(number, b"reset")
    client.finish(number, 2)
    client.settle()
    return f"{status} {client.stream(number).end} alive={client.alive()} | {world.log(name)}"


@case(
    "200 rst2 alive=True | 101 UR upstream_reset_after_response_started{remote_reset}",
    ours="200 rst8 alive=True | 101 UR upstream_reset_after_response_started{remote_reset}",
    why="the code of the reset is always CANCEL",
)
def h2_websocket_h2_upstream_resets(world, name):
    client, number, status = world.h2_connect(name, "ws-h2", "websocket")
    exchange_h2(client, number, name)
    client.send(number, b"reset")
    client.finish(number, 2)
    client.settle()
    return f"{status} {client.stream(number).end} alive={client.alive()} | {world.log(name)}"


@case("200 gone=True alive=True | 101 DR http2.remote_reset")
def h2_websocket_client_resets(world, name):
    client, number, status = world.h2_connect(name, "ws-h1", "websocket")
    exchange_h2(client, number, name)
    client.rst(number)
    gone = SEEN.wait(name, "eof", 2) or SEEN.wait(name, "gone", 0.1)
    return f"{status} gone={gone} alive={client.alive()} | {world.log(name)}"


@case("400 nope taste connection=close upgrade=None alive=False | 400 - via_upstream")
def h1_websocket_refused_by_h1(world, name):
    client, status, headers = world.h1_upgrade(name, "ws-h1", "/refuse")
    body, whole = client.body(headers, 2)
    return f"{status} {body.decode()} {headers.get('x-why')} connection={headers.get('connection')} upgrade={headers.get('upgrade')} alive={client.alive()} | {world.log(name)}"


@case("200  connection=close alive=False | 200 - websocket_handshake_unsuccessful")
def h1_websocket_ignored_by_h1(world, name):
    client, status, headers = world.h1_upgrade(name, "ws-h1", "/ignore")
    body, whole = client.body(headers, 2)
    return f"{status} {body.decode()} connection={headers.get('connection')} alive={client.alive()} | {world.log(name)}"


@case("400 nope taste connection=close alive=False | 400 - via_upstream")
def h1_websocket_refused_by_h2(world, name):
    client, status, headers = world.h1_upgrade(name, "ws-h2", "/refuse")
    body, whole = client.body(headers, 2)
    return f"{status} {body.decode()} {headers.get('x-why')} connection={headers.get('connection')} alive={client.alive()} | {world.log(name)}"


@case("400 nope end+rst0 alive=True | 400 - via_upstream")
def h2_websocket_refused_by_h1(world, name):
    client, number, status = world.h2_connect(name, "ws-h1", "websocket", "/refuse")
    client.finish(number)
    client.settle()
    return f"{status} {client.stream(number).data.decode()} {client.stream(number).end} alive={client.alive()} | {world.log(name)}"


@case("200  end+rst0 alive=True | 200 - websocket_handshake_unsuccessful")
def h2_websocket_ignored_by_h1(world, name):
    client, number, status = world.h2_connect(name, "ws-h1", "websocket", "/ignore")
    client.finish(number, 2)
    client.settle()
    return f"{status} {client.stream(number).data.decode()} {client.stream(number).end} alive={client.alive()} | {world.log(name)}"


@case("400 nope end+rst0 alive=True | 400 - via_upstream")
def h2_websocket_refused_by_h2(world, name):
    client, number, status = world.h2_connect(name, "ws-h2", "websocket", "/refuse")
    client.finish(number)
    client.settle()
    return f"{status} {client.stream(number).data.decode()} {client.stream(number).end} alive={client.alive()} | {world.log(name)}"


@case("403 connection=close alive=False [] | 403 - upgrade_failed")
def h1_websocket_not_enabled(world, name):
    client, status, headers = world.h1_upgrade(name, "any-h1")
    return f"{status} connection={headers.get('connection')} alive={client.alive()} {SEEN.get(name)[:1]} | {world.log(name)}"


@case(
    "ProtocolError None alive=False [] | 403 - upgrade_failed",
    ours="403 end+rst0 alive=True [] | 403 - upgrade_failed",
    why="Envoy closes the whole connection after the answer",
)
def h2_websocket_not_enabled(world, name):
    client, number, status = world.h2_connect(name, "any-h1", "websocket")
    client.finish(number)
    client.settle()
    return f"{status} {client.stream(number).end} alive={client.alive()} {SEEN.get(name)[:1]} | {world.log(name)}"


@case("403 | 403 - upgrade_failed")
def h1_websocket_not_enabled_redirect(world, name):
    client, status, headers = world.h1_upgrade(name, "moved")
    return f"{status} | {world.log(name)}"


@case("404 | 404 NR route_not_found")
def h1_websocket_not_enabled_no_route(world, name):
    client, status, headers = world.h1_upgrade(name, "nowhere")
    return f"{status} | {world.log(name)}"


@case("101 True | 101 DC downstream_remote_disconnect")
def h1_websocket_enabled_by_manager(world, name):
    client, status, _ = world.h1_upgrade(name, "any-h1", port="b")
    heard = exchange_h1(client, name) == f"{name}\n"
    client.close()
    return f"{status} {heard} | {world.log(name)}"


@case("403 | 403 - upgrade_failed")
def h1_websocket_disabled_by_route(world, name):
    client, status, _ = world.h1_upgrade(name, "ws-off", port="b")
    return f"{status} | {world.log(name)}"


@case("403 | 403 - upgrade_failed")
def h1_other_disabled_by_manager(world, name):
    client, status, _ = world.h1_upgrade(name, "any-h1", kind="other", port="b")
    return f"{status} | {world.log(name)}"


@case("301 connection=close alive=False | 301 - direct_response")
def h1_websocket_manager_redirect(world, name):
    client, status, headers = world.h1_upgrade(name, "moved", port="b")
    return f"{status} connection={headers.get('connection')} alive={client.alive()} | {world.log(name)}"


@case("404 connection=close alive=False | 404 NR route_not_found")
def h1_websocket_no_route_enabled(world, name):
    client, status, headers = world.h1_upgrade(name, "nowhere", port="b")
    return f"{status} connection={headers.get('connection')} alive={client.alive()} | {world.log(name)}"


@case(
    "a=1 b=0",
    ours="a=1 b=None",
    why="0 is the default and is not sent",
)
def h2_settings_announce_connect(world, name):
    a, b = H2Client(world.ports["a"]), H2Client(world.ports["b"])
    return f"a={a.settings.get(8)} b={b.settings.get(8)}"


@case(
    "closed None goaway=None | 0 lines",
    ours="rst1 rst1 goaway=None | 0 lines",
    why="the stream is reset; Envoy closes the connection",
)
def h2_websocket_without_allow_connect(world, name):
    client, number, status = world.h2_connect(name, "any-h1", "websocket", port="b")
    client.settle()
    return f"{status} {client.stream(number).end} goaway={client.goaway} | {len(world.proxy.lines(name, 1, 0.3))} lines"


@case("200 'h2_connect_without_allow_connect\\n'")
def h2_connect_without_allow_connect(world, name):
    client, number, status = world.h2_connect(name, "tcp", port="b")
    heard = exchange_h2(client, number, name) if status == "200" else ""
    client.close()
    return f"{status} {heard!r}"


@case("200 'h2_bytestream_connect\\n' end | 200 - via_upstream")
def h2_bytestream_connect(world, name):
    client, number, status = world.h2_connect(name, "tcp", "bytestream")
    heard = exchange_h2(client, number, name) if status == "200" else ""
    client.send(number, b"", True)
    client.finish(number)
    return f"{status} {heard!r} {client.stream(number).end} | {world.log(name)}"


@case("101 WebSocket GET /ws HTTP/1.1 upgrade=WebSocket connection=Upgrade")
def h1_websocket_case_is_folded(world, name):
    client, status, headers = world.h1_upgrade(name, "ws-h1", kind="WebSocket")
    client.close()
    return f"{status} {headers.get('upgrade')} {SEEN.get(name)[0]}"


@case("101 True GET /ws HTTP/1.1 upgrade=websocket connection=Upgrade")
def h1_websocket_with_a_body_length(world, name):
    client, status, headers = world.h1_upgrade(name, "ws-h1", more="content-length: 0\r\n")
    heard = exchange_h1(client, name) == f"{name}\n"
    client.close()
    return f"{status} {heard} {SEEN.get(name)[0]}"


@case("active=[2, 2, 1, 1, 1] total=2 refused=1 left=[0, 0, 0, 0]")
def upgrade_counters(world, name):
    before = world.proxy.stats()
    client, status, _ = world.h1_upgrade(name, "ws-h1")
    other, number, _ = world.h2_connect(f"{name}2", "tcp")
    during = world.proxy.stats()
    key = "http.a.downstream_cx_upgrades_"
    active = [during.get(key + "active"), during.get("http.a.downstream_rq_active"), during.get("cluster.h1.upstream_rq_active"), during.get("cluster.tcp.upstream_rq_active"), during.get("cluster.tcp.upstream_cx_active")]
    total = during.get(key + "total", 0) - before.get(key + "total", 0)
    client.close()
    other.close()
    refused, _, _ = world.h1_upgrade(f"{name}3", "ws-off")
    refused.close()
    world.log(name), world.log(f"{name}2"), world.log(f"{name}3")
    after = world.proxy.stats()
    wrong = after.get("http.a.downstream_rq_ws_on_non_ws_route", 0) - before.get("http.a.downstream_rq_ws_on_non_ws_route", 0)
    left = [after.get(key + "active"), after.get("http.a.downstream_rq_active"), after.get("cluster.h1.upstream_rq_active"), after.get("cluster.tcp.upstream_rq_active")]
    return f"active={active} total={total} refused={wrong} left={left}"


@case("{}")
def nothing_leaks(world, name):
    end = time.monotonic() + 5
    while world.gauges() and time.monotonic() < end:
        time.sleep(0.1)
    return str(world.gauges())


if __name__ == "__main__":
    sys.exit(PLAY.main(World))
