"""WebSocket and other upgrades, and extended CONNECT."""

import time

from peers import H1Client, H2Client
from tunnels import CANCEL, PLAY, SEEN, exchange_h1, exchange_h2, h1_held, h1_left, h1_refused, h1_told, h2_left, h2_refused, h2_told

case = PLAY.case


@case("101 websocket Upgrade yes True |  closed | ['GET /ws HTTP/1.1 upgrade=websocket connection=Upgrade'] | 101 DC downstream_remote_disconnect")
def h1_websocket_to_h1(world, name):
    client, status, headers = world.h1_upgrade(name, "ws-h1")
    heard = exchange_h1(client, name) == f"{name}\n"
    client.half_close()
    data, how = client.end(2)
    return f"{status} {headers.get('upgrade')} {headers.get('connection')} {headers.get('x-accept')} {heard} | {data.decode()} {how} | {SEEN.get(name)[:1]} | {world.log(name)}"


@case("101 bye closed | 101 UC upstream_reset_after_response_started{connection_termination}")
def h1_websocket_upstream_ends(world, name):
    return h1_told(world, name, world.h1_upgrade(name, "ws-h1"), "bye")


@case("101  closed | 101 UC upstream_reset_after_response_started{connection_termination}")
def h1_websocket_upstream_resets(world, name):
    return h1_told(world, name, world.h1_upgrade(name, "ws-h1"), "reset")


@case("101 gone=True | 101 DC downstream_remote_disconnect")
def h1_websocket_client_resets(world, name):
    return h1_left(world, name, world.h1_upgrade(name, "ws-h1"))


@case("101 closed | 101 SI stream_idle_timeout")
def h1_websocket_idle(world, name):
    client, status, _ = world.h1_upgrade(name, "ws-idle")
    exchange_h1(client, name)
    _, how = client.end(2)
    return f"{status} {how} | {world.log(name)}"


@case("101 open | 101 DC downstream_remote_disconnect")
def h1_websocket_route_timeout(world, name):
    return h1_held(world, name, world.h1_upgrade(name, "ws-timeout"))


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
    why=CANCEL,
)
def h2_websocket_upstream_ends(world, name):
    return h2_told(world, name, "ws-h1", b"bye", "websocket")


@case(
    "200  rst10 alive=True | 101 UC upstream_reset_after_response_started{connection_termination}",
    ours="200  rst8 alive=True | 101 UC upstream_reset_after_response_started{connection_termination}",
    why=CANCEL,
)
def h2_websocket_upstream_resets(world, name):
    return h2_told(world, name, "ws-h1", b"reset", "websocket")


@case(
    "200  rst2 alive=True | 101 UR upstream_reset_after_response_started{remote_reset}",
    ours="200  rst8 alive=True | 101 UR upstream_reset_after_response_started{remote_reset}",
    why=CANCEL,
)
def h2_websocket_h2_upstream_resets(world, name):
    return h2_told(world, name, "ws-h2", b"reset", "websocket")


@case("200 gone=True alive=True | 101 DR http2.remote_reset")
def h2_websocket_client_resets(world, name):
    return h2_left(world, name, "ws-h1", "websocket")


@case("400 nope taste connection=close upgrade=None alive=False | 400 - via_upstream")
def h1_websocket_refused_by_h1(world, name):
    client, status, headers = world.h1_upgrade(name, "ws-h1", "/refuse")
    body, whole = client.body(headers, 2)
    return f"{status} {body.decode()} {headers.get('x-why')} connection={headers.get('connection')} upgrade={headers.get('upgrade')} alive={client.alive()} | {world.log(name)}"


@case("200  connection=close alive=False | 200 - websocket_handshake_unsuccessful")
def h1_websocket_ignored_by_h1(world, name):
    return h1_refused(world, name, world.h1_upgrade(name, "ws-h1", "/ignore"))


@case("400 nope connection=close alive=False | 400 - via_upstream")
def h1_websocket_refused_by_h2(world, name):
    return h1_refused(world, name, world.h1_upgrade(name, "ws-h2", "/refuse"))


@case("400 nope end+rst0 alive=True | 400 - via_upstream")
def h2_websocket_refused_by_h1(world, name):
    return h2_refused(world, name, world.h2_connect(name, "ws-h1", "websocket", "/refuse"))


@case("200  end+rst0 alive=True | 200 - websocket_handshake_unsuccessful")
def h2_websocket_ignored_by_h1(world, name):
    return h2_refused(world, name, world.h2_connect(name, "ws-h1", "websocket", "/ignore"))


@case("400 nope end+rst0 alive=True | 400 - via_upstream")
def h2_websocket_refused_by_h2(world, name):
    return h2_refused(world, name, world.h2_connect(name, "ws-h2", "websocket", "/refuse"))


@case("403 connection=close alive=False [] | 403 - upgrade_failed")
def h1_websocket_not_enabled(world, name):
    client, status, headers = world.h1_upgrade(name, "any-h1")
    return f"{status} connection={headers.get('connection')} alive={client.alive()} {SEEN.get(name)[:1]} | {world.log(name)}"


@case(
    "403 end+rst0 alive=False [] | 403 - upgrade_failed",
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


@case("301  connection=close alive=False | 301 - direct_response")
def h1_websocket_manager_redirect(world, name):
    return h1_refused(world, name, world.h1_upgrade(name, "moved", port="b"))


@case("404  connection=close alive=False | 404 NR route_not_found")
def h1_websocket_no_route_enabled(world, name):
    return h1_refused(world, name, world.h1_upgrade(name, "nowhere", port="b"))


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
