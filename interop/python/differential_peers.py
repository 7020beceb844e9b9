"""The two ends of the differential player: an upstream that keeps what it sees and answers by script, and clients that keep all they get."""

import socket
import threading

import h2.events

from peers import SHORT, H2Peer, H2Server, free_port, serve

MANY = [("x-many", "one"), ("X-Many", "two"), ("set-cookie", "a=1; Path=/"), ("set-cookie", "b=2"), ("x-empty", "")]

# What the upstream answers, by the request's x-script: the status of each attempt (the last repeats) and the rest.
SCRIPTS = {
    "": {},
    "404": {"statuses": [404], "headers": [("x-reason", "gone")]},
    "204": {"statuses": [204], "body": None},
    "304": {"statuses": [304], "headers": [("etag", '"x"')], "body": None},
    "many": {"headers": MANY},
    "cors": {"headers": [("access-control-allow-origin", "http://up"), ("vary", "accept"), ("access-control-expose-headers", "x-up")]},
    "server": {"headers": [("server", "upstream/1.0"), ("via", "1.0 before"), ("date", "Sat, 01 Jan 2000 00:00:00 GMT")]},
    "envoy": {
        "headers": [
            ("x-envoy-upstream-service-time", "77"),
            ("x-envoy-attempt-count", "9"),
            ("x-envoy-overloaded", "true"),
            ("x-envoy-immediate-health-check-fail", "1"),
            ("x-request-id", "from-upstream"),
            ("x-envoy-decorator-operation", "op"),
        ]
    },
    "hop": {"headers": [("connection", "x-hop"), ("x-hop", "1"), ("keep-alive", "timeout=5"), ("proxy-connection", "close"), ("upgrade", "h9")]},
    "trailers": {"trailers": [("x-trailer", "t"), ("grpc-status", "3")]},
    "grpc": {"headers": [("content-type", "application/grpc")], "trailers": [("grpc-status", "5"), ("grpc-message", "no%20such")]},
    "grpc-only": {"headers": [("content-type", "application/grpc"), ("grpc-status", "7")], "body": None},
    "empty": {"body": b""},
    "length": {"framing": "length"},
    "close": {"framing": "close"},
    "continue": {"interim": [(100, [])]},
    "early-hints": {"interim": [(103, [("link", "</a.css>; rel=preload")])]},
    "503": {"statuses": [503]},
    "503-200": {"statuses": [503, 200]},
    "503-409-200": {"statuses": [503, 409, 200]},
    "500-502-503-504-429": {"statuses": [500, 502, 503, 504, 429]},
    "409": {"statuses": [409, 200]},
    "retry-header": {"statuses": [200, 200], "headers": [("x-retry", "yes")]},
    "302": {"statuses": [302, 200], "headers": [("location", "http://{host}/redirected?x=1")]},
    "302-path": {"statuses": [302, 200], "headers": [("location", "/a/b")]},
    "307-loop": {"statuses": [307], "headers": [("location", "http://one.test/a")]},
    "301-bad": {"statuses": [301], "headers": [("location", "ftp://x/y")]},
    "303": {"statuses": [303, 200], "headers": [("location", "http://two.test/foo")]},
    "302-none": {"statuses": [302]},
    "big": {"body": b"x" * 70000},
    "999": {"statuses": [599]},
    "reason": {"reason": "Fine by me"},
    "upper": {"headers": [("X-Upper-Case", "Yes"), ("ETag", "abc"), ("X-Odd_Name.x", "odd")]},
    "spaces": {"headers": [("x-spaces", "a   b"), ("x-tab", "a\tb"), ("x-latin", "caf\u00e9")]},
}


class Seen:
    """Requests as they came upstream, since the last `take`."""

    def __init__(self):
        self.lock = threading.Lock()
        self.requests = []

    def put(self, request):
        with self.lock:
            same = [seen for seen in self.requests if seen["case"] == request["case"] and seen["app"] == request["app"]]
            self.requests.append(request)
            return len(same)

    def take(self):
        with self.lock:
            found, self.requests = self.requests, []
        return found


def last(headers, name):
    found = ""
    for key, value in headers:
        if key.lower() == name:
            found = value
    return found


def plan(headers, attempt):
    """Status, headers, body and the rest of the answer."""
    script = SCRIPTS.get(last(headers, "x-script"), {})
    statuses = script.get("statuses", [200])
    host = last(headers, "host") or last(headers, ":authority")
    more = [(name, value.replace("{host}", host)) for name, value in script.get("headers", [])]
    return {
        "status": statuses[min(attempt, len(statuses) - 1)],
        "headers": more,
        "body": script.get("body", b"echo\n"),
        "trailers": script.get("trailers", []),
        "interim": script.get("interim", []),
        "framing": script.get("framing", "chunked" if script.get("trailers") else "length"),
        "reason": script.get("reason", "OK"),
    }


class Reader:
    """Lines and counted bytes from a socket."""

    def __init__(self, peer, rest=b""):
        self.peer = peer
        self.rest = rest

    def more(self):
        data = self.peer.recv(65536)
        if not data:
            raise EOFError
        self.rest += data

    def until(self, mark):
        while mark not in self.rest:
            self.more()
        found, self.rest = self.rest.split(mark, 1)
        return found

    def exactly(self, count):
        while len(self.rest) < count:
            self.more()
        found, self.rest = self.rest[:count], self.rest[count:]
        return found

    def fields(self):
        """Header lines up to the empty one."""
        found = []
        while True:
            line = self.until(b"\r\n").decode("latin-1")
            if not line:
                return found
            name, _, value = line.partition(":")
            found.append((name, value.strip(" ")))

    def chunked(self):
        body = b""
        while True:
            size = int(self.until(b"\r\n").split(b";")[0], 16)
            if size == 0:
                return body, self.fields()
            body += self.exactly(size)
            self.until(b"\r\n")


def h1_upstream(seen, app):
    def handle(peer):
        reader = Reader(peer)
        while True:
            try:
                line = reader.until(b"\r\n").decode("latin-1")
                headers = reader.fields()
                if "100-continue" in last(headers, "expect"):
                    peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                body, trailers = b"", []
                if "chunked" in last(headers, "transfer-encoding"):
                    body, trailers = reader.chunked()
                elif last(headers, "content-length"):
                    body = reader.exactly(int(last(headers, "content-length")))
            except EOFError:
                return
            request = {"app": app, "line": line, "headers": headers, "body": body, "trailers": trailers}
            request["case"] = last(headers, "x-case")
            answer = plan(headers, seen.put(request))
            peer.sendall(h1_bytes(answer, line.startswith("HEAD ")))
            if answer["framing"] == "close":
                return

    return handle


def h1_head(status, reason, headers):
    text = f"HTTP/1.1 {status} {reason}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers)
    return (text + "\r\n").encode("latin-1")


def h1_bytes(answer, head):
    data = b"".join(h1_head(status, "Interim", headers) for status, headers in answer["interim"])
    headers, body = list(answer["headers"]), answer["body"]
    if body is None:
        bodiless = answer["status"] in (204, 304)
        return data + h1_head(answer["status"], answer["reason"], headers + ([] if bodiless else [("content-length", "0")]))
    if answer["framing"] == "length":
        headers.append(("content-length", str(len(body))))
    elif answer["framing"] == "chunked":
        headers.append(("transfer-encoding", "chunked"))
    data += h1_head(answer["status"], answer["reason"], headers)
    if head:
        return data
    if answer["framing"] != "chunked":
        return data + body
    trailers = "".join(f"{name}: {value}\r\n" for name, value in answer["trailers"]).encode("latin-1")
    return data + b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(body), body, trailers)


class H2Upstream(H2Server):
    """An HTTP/2 app that keeps headers as a list."""

    def __init__(self, peer):
        self.lists = {}
        self.trailers = {}
        super().__init__(peer)
        self.h2.config.header_encoding = "latin-1"

    def note(self, event):
        super().note(event)
        if isinstance(event, h2.events.RequestReceived):
            self.lists[event.stream_id] = [tuple(pair) for pair in event.headers]
        elif isinstance(event, h2.events.TrailersReceived):
            self.trailers[event.stream_id] = [tuple(pair) for pair in event.headers]


def h2_upstream(seen, app):
    def handle(peer):
        server = H2Upstream(peer)
        while server.pump(60) is not None:
            for number in [number for number, stream in server.streams.items() if stream.end and number in server.lists]:
                headers = server.lists.pop(number)
                request = {"app": app, "line": "", "headers": headers, "body": server.streams[number].data}
                request.update(trailers=server.trailers.pop(number, []), case=last(headers, "x-case"))
                h2_answer(server, number, plan(headers, seen.put(request)), ("", "HEAD")[(":method", "HEAD") in headers])

    return handle


HOP = {"connection", "keep-alive", "proxy-connection", "upgrade", "transfer-encoding"}


def h2_answer(server, number, answer, method):
    def fields(pairs):
        return [(name.lower(), value) for name, value in pairs if name.lower() not in HOP]

    for status, headers in answer["interim"]:
        server.headers(number, [(":status", str(status))] + fields(headers))
    body = answer["body"] if method != "HEAD" else None
    head = [(":status", str(answer["status"]))] + fields(answer["headers"])
    if body is not None and answer["framing"] == "length":
        head.append(("content-length", str(len(body))))
    trailers = fields(answer["trailers"])
    server.headers(number, head, body is None and not trailers)
    if body is not None:
        while len(body) > 16000:
            while server.h2.local_flow_control_window(number) < 16000:
                if server.pump(SHORT) is None:
                    return
            server.send(number, body[:16000])
            body = body[16000:]
        server.send(number, body, not trailers)
    if trailers:
        server.headers(number, trailers, True)


def upstreams(seen):
    """Ports of two HTTP/1 apps, one of which gets copies only, of an HTTP/2 app, and of one that refuses."""
    apps = {name: serve(h1_upstream(seen, name)) for name in ("h1", "shadow")}
    return {**apps, "h2": serve(h2_upstream(seen, "h2")), "none": free_port()}


def h1_call(address, data, method, more=None):
    """What comes for these bytes, as a plain record. `more`: sent after the head of an interim answer."""
    out = {"interim": []}
    try:
        with socket.create_connection(address, timeout=SHORT, source_address=("127.0.0.1", 0)) as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.sendall(data)
            reader = Reader(peer)
            while True:
                line = reader.until(b"\r\n").decode("latin-1")
                headers = reader.fields()
                status = line.split(" ")[1]
                if not status.startswith("1") or status == "101":
                    break
                out["interim"].append((line, headers))
                if more:
                    peer.sendall(more)
                    more = None
            out.update(line=line, status=status, headers=headers)
            h1_body(reader, out, method, status, headers)
    except EOFError:
        out["failure"] = "closed"
    except TimeoutError:
        out["failure"] = "silence"
    except ConnectionError:
        out["failure"] = "reset"
    return out


def h1_body(reader, out, method, status, headers):
    out["body"], out["trailers"] = b"", []
    if method == "HEAD" or status in ("204", "304") or (method == "CONNECT" and status == "200"):
        return
    if "chunked" in last(headers, "transfer-encoding"):
        out["body"], out["trailers"] = reader.chunked()
    elif last(headers, "content-length"):
        out["body"] = reader.exactly(int(last(headers, "content-length")))
    else:
        try:
            while True:
                reader.more()
        except EOFError:
            out["body"] = reader.rest


class H2Caller(H2Peer):
    """One HTTP/2 request on a connection of its own."""

    def __init__(self, address):
        peer = socket.create_connection(address, timeout=SHORT, source_address=("127.0.0.1", 0))
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(peer, True)
        self.outlive_goaway()
        self.out = {"interim": []}
        self.h2.config.header_encoding = "latin-1"
        self.h2.initiate_connection()
        self.flush()

    def note(self, event):
        super().note(event)
        if isinstance(event, h2.events.InformationalResponseReceived):
            self.out["interim"].append([tuple(pair) for pair in event.headers])
        elif isinstance(event, h2.events.ResponseReceived):
            headers = [tuple(pair) for pair in event.headers]
            self.out.update(status=headers[0][1], headers=headers[1:], trailers=[])
        elif isinstance(event, h2.events.TrailersReceived):
            self.out["trailers"] = [tuple(pair) for pair in event.headers]

    def call(self, headers, body, trailers):
        self.headers(1, headers, body is None and not trailers)
        if body is not None:
            self.send(1, body, not trailers)
        if trailers:
            self.headers(1, trailers, True)
        stream = self.stream(1)
        if not self.until(lambda: stream.end):
            self.out["failure"] = self.closed or (f"goaway {self.goaway[1]}" if self.goaway else "silence")
        elif stream.end != "end":
            self.out["failure"] = stream.end
        self.out["body"] = stream.data
        self.socket.close()
        return self.out


def h2_call(address, headers, body=None, trailers=()):
    try:
        return H2Caller(address).call(headers, body, list(trailers))
    except ConnectionError as error:
        return {"failure": type(error).__name__}
