"""CONNECT, ended here and sent on."""

import time

from peers import H1Client, H2Client
from tunnels import CANCEL, PLAY, SEEN, exchange_h1, exchange_h2, h1_held, h1_left, h1_refused, h1_told, h2_left, h2_refused, h2_told, is_gone

case = PLAY.case


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


@case("200  closed | 200 UC upstream_reset_after_response_started{connection_termination}")
def h1_connect_tcp_upstream_resets(world, name):
    return h1_told(world, name, world.h1_connect(name, "tcp"), "reset")


@case(
    "200  rst10 alive=True | 200 UC upstream_reset_after_response_started{connection_termination}",
    ours="200  rst8 alive=True | 200 UC upstream_reset_after_response_started{connection_termination}",
    why=CANCEL,
)
def h2_connect_tcp_upstream_resets(world, name):
    return h2_told(world, name, "tcp", b"reset")


@case("200 gone=True alive=True | 200 DR http2.remote_reset")
def h2_connect_tcp_client_resets(world, name):
    return h2_left(world, name, "tcp")


@case("200 gone=True | 200 DC downstream_remote_disconnect")
def h2_connect_tcp_client_connection_closes(world, name):
    client, number, status = world.h2_connect(name, "tcp")
    exchange_h2(client, number, name)
    client.close()
    return f"{status} gone={is_gone(name)} | {world.log(name)}"


@case("200 gone=True | 200 DC downstream_remote_disconnect")
def h1_connect_tcp_client_resets(world, name):
    return h1_left(world, name, world.h1_connect(name, "tcp"))


@case("200 closed in time=True | 200 SI stream_idle_timeout")
def h1_connect_tcp_idle(world, name):
    client, status, _ = world.h1_connect(name, "tcp-idle")
    begin = time.monotonic()
    exchange_h1(client, name)
    _, how = client.end()
    took = time.monotonic() - begin
    return f"{status} {how} in time={took >= 0.5} | {world.log(name)}"


@case(
    "200 rst2 alive=True | 200 SI stream_idle_timeout",
    ours="200 rst8 alive=True | 200 SI stream_idle_timeout",
    why=CANCEL,
)
def h2_connect_tcp_idle(world, name):
    client, number, status = world.h2_connect(name, "tcp-idle")
    exchange_h2(client, number, name)
    how = client.finish(number, 3)
    client.settle()
    return f"{status} {client.stream(number).end} alive={client.alive()} | {world.log(name)}"


@case("200 open | 200 DC downstream_remote_disconnect")
def h1_connect_tcp_route_timeout(world, name):
    return h1_held(world, name, world.h1_connect(name, "tcp-timeout"))


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
    return h2_refused(world, name, world.h2_connect(name, "tcp-refused"))


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
    return h1_refused(world, name, world.h1_connect(name, "connect-h1", "x-answer: refuse\r\n"))


@case("400 nope end+rst0 alive=True | 400 - via_upstream")
def h2_connect_refused_by_h2(world, name):
    return h2_refused(world, name, world.h2_connect(name, "connect-h2", more={"x-answer": "refuse"}))


@case(
    "200  rst2 alive=True | 200 UR upstream_reset_after_response_started{remote_reset}",
    ours="200  rst8 alive=True | 200 UR upstream_reset_after_response_started{remote_reset}",
    why=CANCEL,
)
def h2_connect_to_h2_upstream_resets(world, name):
    return h2_told(world, name, "connect-h2", b"reset")


@case("200 gone=True alive=True | 200 DR http2.remote_reset")
def h2_connect_to_h2_client_resets(world, name):
    client, number, status = world.h2_connect(name, "connect-h2")
    exchange_h2(client, number, name)
    client.rst(number)
    gone = SEEN.wait(name, "rst2", 1) or SEEN.wait(name, "rst8", 1)
    return f"{status} gone={gone} alive={client.alive()} | {world.log(name)}"


@case("404  connection=close alive=False | 404 NR route_not_found")
def h1_connect_not_enabled(world, name):
    return h1_refused(world, name, world.h1_connect(name, "any-h1"))


@case("403  connection=close alive=False | 403 - upgrade_failed")
def h1_connect_disabled(world, name):
    return h1_refused(world, name, world.h1_connect(name, "connect-off"))


@case(
    "403 end+rst0 alive=False | 403 - upgrade_failed",
    ours="403 end+rst0 alive=True | 403 - upgrade_failed",
    why="Envoy closes the whole connection after the answer",
)
def h2_connect_disabled(world, name):
    client, number, status = world.h2_connect(name, "connect-off")
    client.finish(number)
    client.settle()
    return f"{status} {client.stream(number).end} alive={client.alive()} | {world.log(name)}"
