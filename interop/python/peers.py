"""Peers that misbehave on purpose, and clients that look closely."""

import socket
import struct
import threading
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

SHORT = 3.0
RESET = struct.pack("ii", 1, 0)
# Sockets that keep their ports until the play ends.
KEPT = []


def kept(address):
    """A socket on a port of its own, which nobody is given who asks for any."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind((address, 0))
    KEPT.append(one)
    return one


def free_port():
    """A port that refuses connections until a proxy listens there, which this socket, as it does not listen, lets it do."""
    return kept("").getsockname()[1]


def full():
    """A listener whose queue is full, so that connections to it wait until it is longer."""
    one = kept("127.0.0.1")
    one.listen(0)
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(one.getsockname())
        KEPT.append(filler)
    time.sleep(0.1)
    return one


def serve(handler):
    """Runs `handler(socket)` in a thread for each connection; returns the port."""
    listener = kept("127.0.0.1")
    listener.listen(64)

    def one(peer):
        with peer:
            try:
                handler(peer)
            except (OSError, ValueError, h2.exceptions.ProtocolError):
                pass

    def accept():
        while True:
            peer, _ = listener.accept()
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=one, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def reset(peer):
    """Closes with a TCP reset."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    peer.close()


def read_head(peer, data=b""):
    while b"\r\n\r\n" not in data:
        more = peer.recv(65536)
        if not more:
            raise ValueError("no head")
        data += more
    head, rest = data.split(b"\r\n\r\n", 1)
    return head.decode("latin-1"), rest


def headers_of(head):
    found = {}
    for line in head.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        found[name.strip().lower()] = value.strip()
    return found


def drain(peer, asked, rest):
    """Reads the body of a request with these headers, and returns what comes behind it."""
    chunked = asked.get("transfer-encoding") == "chunked"
    length = int(asked.get("content-length", 0))
    while not rest.endswith(b"0\r\n\r\n") if chunked else len(rest) < length:
        more = peer.recv(65536)
        if not more:
            raise ValueError("no end")
        rest += more
    return b"" if chunked else rest[length:]


class Seen:
    """What upstreams saw, by case."""

    def __init__(self):
        self.lock = threading.Condition()
        self.facts = {}

    def tell(self, case, fact):
        with self.lock:
            self.facts.setdefault(case, []).append(fact)
            self.lock.notify_all()

    def clear(self):
        with self.lock:
            self.facts.clear()

    def get(self, case):
        with self.lock:
            return list(self.facts.get(case, []))

    def until(self, case, wanted, limit=SHORT):
        """Waits until `wanted` holds for the facts; whether it does."""
        with self.lock:
            return self.lock.wait_for(lambda: wanted(self.facts.get(case, [])), limit)

    def wait(self, case, fact, limit=SHORT):
        return self.until(case, lambda facts: fact in facts, limit)


class H1Client:
    """A raw HTTP/1.1 client."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=SHORT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def head(self, limit=SHORT):
        """Status line and headers, or how the connection ended."""
        self.socket.settimeout(limit)
        try:
            while True:
                text, self.rest = read_head(self.socket, self.rest)
                if not text.startswith("HTTP/1.1 100"):
                    break
        except ValueError:
            return "closed", {}
        except TimeoutError:
            return "silence", {}
        except ConnectionError:
            return "reset", {}
        return text.split(" ")[1], headers_of(text)

    def read(self, count, limit=SHORT):
        """That many bytes of payload, or fewer if it ends."""
        self.socket.settimeout(limit)
        try:
            while len(self.rest) < count:
                more = self.socket.recv(65536)
                if not more:
                    break
                self.rest += more
        except (TimeoutError, ConnectionError):
            pass
        got, self.rest = self.rest[:count], self.rest[count:]
        return got

    def end(self, limit=SHORT):
        """Everything up to the end, and how it ended."""
        self.socket.settimeout(limit)
        data = self.rest
        self.rest = b""
        try:
            while True:
                more = self.socket.recv(65536)
                if not more:
                    return data, "closed"
                data += more
        except TimeoutError:
            return data, "open"
        except ConnectionError:
            return data, "reset"

    def body(self, headers, limit=SHORT):
        """The body, and whether it is whole, from the head's framing."""
        if "content-length" in headers:
            length = int(headers["content-length"])
            data = self.read(length, limit)
            return data, "whole" if len(data) == length else "cut"
        if headers.get("transfer-encoding") == "chunked":
            return self._chunked(limit)
        data, how = self.end(limit)
        return data, how

    def _line(self, limit):
        self.socket.settimeout(limit)
        while b"\r\n" not in self.rest:
            more = self.socket.recv(65536)
            if not more:
                return None
            self.rest += more
        line, self.rest = self.rest.split(b"\r\n", 1)
        return line

    def _chunked(self, limit):
        data = b""
        try:
            while True:
                line = self._line(limit)
                if line is None:
                    return data, "cut"
                size = int(line.split(b";")[0], 16)
                chunk = self.read(size + 2, limit)
                if len(chunk) < size + 2:
                    return data + chunk, "cut"
                data += chunk[:-2]
                if size == 0:
                    return data, "whole"
        except (TimeoutError, ConnectionError, ValueError):
            return data, "cut"

    def alive(self):
        """Whether the connection serves another request."""
        try:
            self.send("GET /ok HTTP/1.1\r\nhost: plain\r\nx-case: alive\r\n\r\n")
        except OSError:
            return False
        status, headers = self.head(2)
        if status != "200":
            return False
        self.body(headers)
        return True

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self):
        reset(self.socket)

    def close(self):
        self.socket.close()


class Stream:
    def __init__(self):
        self.status = None
        self.headers = {}
        self.data = b""
        self.end = None


class H2Peer:
    """An HTTP/2 end whose frames are written by hand where a library would not."""

    def __init__(self, peer, client):
        self.socket = peer
        config = h2.config.H2Configuration(
            client_side=client,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            validate_inbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.streams = {}
        self.goaway = None
        self.settings = {}
        self.closed = None

    def outlive_goaway(self):
        """The library takes a GOAWAY for the end of all streams, but those that run go on."""
        machine = self.h2.state_machine
        opened = h2.connection.ConnectionState.CLIENT_OPEN
        goaway = h2.connection.ConnectionInputs.RECV_GOAWAY
        machine._transitions = {**machine._transitions, (opened, goaway): (None, opened)}

    def stream(self, number):
        return self.streams.setdefault(number, Stream())

    def flush(self):
        data = self.h2.data_to_send()
        if data:
            self.socket.sendall(data)

    def pump(self, limit):
        """Takes what comes within `limit`; `None` at the end."""
        self.socket.settimeout(limit)
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            return []
        except ConnectionError:
            self.closed = "reset"
            return None
        if not data:
            self.closed = "closed"
            return None
        try:
            events = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            # An answer after a GOAWAY, say.
            self.closed = type(error).__name__
            return None
        for event in events:
            self.note(event)
        self.flush()
        return events

    def note(self, event):
        if isinstance(event, h2.events.RemoteSettingsChanged):
            for setting in event.changed_settings.values():
                self.settings[int(setting.setting)] = setting.new_value
        elif isinstance(event, (h2.events.ResponseReceived, h2.events.RequestReceived)):
            stream = self.stream(event.stream_id)
            stream.headers = dict(event.headers)
            stream.status = stream.headers.get(":status")
        elif isinstance(event, h2.events.DataReceived):
            self.stream(event.stream_id).data += event.data
            if event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            stream = self.stream(event.stream_id)
            stream.end = stream.end or "end"
        elif isinstance(event, h2.events.StreamReset):
            stream = self.stream(event.stream_id)
            stream.end = f"{stream.end}+rst{event.error_code}" if stream.end else f"rst{event.error_code}"
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = (event.last_stream_id, event.error_code)

    def until(self, wanted, limit=SHORT):
        end = time.monotonic() + limit
        while not wanted():
            left = end - time.monotonic()
            if left <= 0 or self.pump(left) is None:
                return wanted()
        return True

    def headers(self, number, headers, end=False):
        self.h2.send_headers(number, headers, end_stream=end)
        self.flush()

    def send(self, number, data, end=False):
        self.h2.send_data(number, data, end_stream=end)
        self.flush()

    def rst(self, number, code=8):
        self.h2.reset_stream(number, code)
        self.flush()


class H2Client(H2Peer):
    def __init__(self, port):
        peer = socket.create_connection(("127.0.0.1", port), timeout=SHORT)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(peer, True)
        self.outlive_goaway()
        self.h2.initiate_connection()
        self.flush()
        self.until(lambda: self.settings)

    def request(self, headers, end=True):
        number = self.h2.get_next_available_stream_id()
        self.headers(number, list(headers.items()), end)
        self.stream(number)
        return number

    def answer(self, number, limit=SHORT):
        stream = self.stream(number)
        self.until(lambda: stream.status or stream.end, limit)
        if stream.status:
            return stream.status
        return stream.end or self.closed or "silence"

    def finish(self, number, limit=SHORT):
        stream = self.stream(number)
        self.until(lambda: stream.end, limit)
        return stream.end or self.closed or "open"

    def settle(self, seconds=0.3):
        """Takes what still comes."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.pump(max(0.01, end - time.monotonic())) is None:
                return

    def alive(self):
        if self.closed or self.goaway:
            return False
        number = self.request({":method": "GET", ":scheme": "http", ":authority": "plain", ":path": "/ok", "x-case": "alive"})
        return self.answer(number, 2) == "200"

    def close(self):
        self.socket.close()


class H2Server(H2Peer):
    def __init__(self, peer, allow_connect=True):
        super().__init__(peer, False)
        if allow_connect:
            self.h2.local_settings[h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL] = 1
        self.h2.initiate_connection()
        self.flush()
