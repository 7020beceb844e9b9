"""What a case of `upstreams` consists of: an upstream that says what it saw, clients, and the statistics that move."""

import re
import socket
import threading
import time

import h2.settings

from counters import is_absent
from peers import SHORT, H1Client, H2Peer, H2Server, headers_of, read_head, serve

# Between the beginnings of requests whose order matters.
TURN = 0.05


class Server(H2Server):
    """Says these settings in its first frame."""

    def __init__(self, peer, settings):
        H2Peer.__init__(self, peer, False)
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values=settings)
        self.h2.initiate_connection()
        self.flush()


class Upstream:
    """What one upstream saw: a letter for each connection, and what happened on it."""

    def __init__(self, http2=None):
        self.seen = []
        self.lock = threading.Lock()
        self.count = 0
        self.http2 = http2
        self.gate = threading.Event()
        self.port = serve(self.app2 if http2 is not None else self.app)

    def begin(self):
        with self.lock:
            self.count += 1
            return chr(ord("a") + self.count - 1)

    def tell(self, what):
        with self.lock:
            self.seen.append(what)

    def wait(self, *facts, limit=SHORT):
        """Whether all of these were seen in time."""
        end = time.monotonic() + limit
        while not set(facts) <= set(self.seen):
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    def app(self, peer):
        name, rest = self.begin(), b""
        try:
            while True:
                try:
                    head, rest = read_head(peer, rest)
                except ValueError:
                    break
                self.tell(name + head.split(" ")[1])
                if self.answer(peer, headers_of(head).get("x-script", "200")):
                    break
        except ConnectionError:
            pass
        self.tell(f"{name} ended")

    def answer(self, peer, script):
        """`status[,after milliseconds][,held|,last|,old|,extra|,then-close]`, or `close`. Returns whether it was the last."""
        status, *more = script.split(",")
        for one in more:
            if one.isdigit():
                time.sleep(int(one) / 1000)
        if "held" in more:
            self.gate.wait(SHORT)
        if status == "close":
            return True
        if "old" in more:
            peer.sendall(b"HTTP/1.0 200 OK\r\n\r\nok")
            return True
        last = "connection: close\r\n" if "last" in more else ""
        peer.sendall(f"HTTP/1.1 {status} Any\r\ncontent-length: 2\r\n{last}\r\nok".encode())
        if "extra" in more:
            time.sleep(0.1)
            peer.sendall(b"HTTP/1.1 408 Late\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        return "then-close" in more

    def app2(self, peer):
        name = self.begin()
        server = Server(peer, self.http2)
        done, due = set(), []
        try:
            while True:
                for at, number, held in sorted(due):
                    if at <= time.monotonic() and (self.gate.is_set() or not held):
                        due.remove((at, number, held))
                        self.reply(server, number)
                if server.pump(0.02 if due else 60) is None:
                    break
                for number, stream in sorted(server.streams.items()):
                    if number in done or not stream.headers:
                        continue
                    done.add(number)
                    self.tell(name + stream.headers.get(":path", "?"))
                    script = stream.headers.get("x-script", "200")
                    status, *more = script.split(",")
                    stream.script = script
                    if "goaway" in more:
                        # This stream is the last one that is looked at.
                        server.socket.sendall(bytes([0, 0, 8, 7, 0, 0, 0, 0, 0]) + number.to_bytes(4, "big") + bytes(4))
                    wait = [int(one) for one in more if one.isdigit()]
                    due.append((time.monotonic() + sum(wait) / 1000, number, "held" in more))
        except ConnectionError:
            pass
        self.tell(f"{name} ended")

    @staticmethod
    def reply(server, number):
        status, *_ = server.streams[number].script.split(",")
        if server.streams[number].end and "rst" in server.streams[number].end:
            return
        if status.startswith("rst"):
            return server.rst(number, int(status[3:]))
        if status == "close":
            server.socket.shutdown(socket.SHUT_RDWR)
            raise ConnectionError
        server.headers(number, [(":status", status), ("content-length", "2")])
        server.send(number, b"ok", True)


class Sides:
    """A case while it runs."""

    def __init__(self, world, name):
        self.world, self.name = world, name
        self.upstream = world.upstreams.get(name)
        self.before = self.stats()
        self.answers = {}
        self.threads = []
        self.begun = time.monotonic()

    def stats(self):
        prefix = f"cluster.{self.name}."
        return {key.removeprefix(prefix): value for key, value in self.world.proxy.stats().items() if key.startswith(prefix)}

    def get(self, path, script="200", more="", limit=SHORT):
        client = H1Client(self.world.port)
        client.send(f"GET {path} HTTP/1.1\r\nhost: {self.name}\r\nx-case: {self.name}{path}\r\nx-script: {script}\r\n{more}\r\n")
        status, headers = client.head(limit)
        body, how = client.body(headers) if status.isdigit() else (b"", "")
        client.close()
        self.answers[path] = status + ("" if how == "whole" else f" {how}")
        return status

    def arrived(self):
        stats = self.stats()
        names = ("total", "pending_total", "pending_overflow", "active_overflow")
        return sum(stats.get(f"upstream_rq_{name}", 0) for name in names)

    def start(self, path, script="200", more="", limit=SHORT):
        """A request that somebody waits for elsewhere; returns when the proxy has it."""
        before = self.arrived()
        thread = threading.Thread(target=self.get, args=(path, script, more, limit), daemon=True)
        thread.start()
        self.threads.append(thread)
        end = time.monotonic() + SHORT
        while thread.is_alive() and self.arrived() == before and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(TURN)

    def all(self, *paths, script="200,held", more=""):
        """Requests that begin one after the other, and are answered when all have begun."""
        for path in paths:
            self.start(path, script, more)
        self.go()

    def go(self):
        """The upstream answers what it holds."""
        if self.upstream:
            self.upstream.gate.set()
        self.join()

    def join(self):
        for thread in self.threads:
            thread.join(2 * SHORT)
        self.threads = []

    def told(self, *paths):
        """Log lines."""
        return " ".join(f"{path}: {self.world.log(self.name + path)};" for path in paths)

    def now(self, *names):
        stats = self.stats()
        return " ".join(f"{name.rsplit('.', 1)[-1]}={stats.get(name, 'absent')}" for name in names)

    def until(self, name, value, limit=SHORT):
        """Waits until a statistic has that value."""
        end = time.monotonic() + limit
        while self.stats().get(name) != value and time.monotonic() < end:
            time.sleep(0.02)

    def moved(self):
        """The statistics that moved, once nothing moves any more."""
        last, since = None, time.monotonic()
        while time.monotonic() - since < 0.4 and time.monotonic() - self.begun < 20:
            stats = self.stats()
            if stats != last:
                last, since = stats, time.monotonic()
            time.sleep(0.05)
        found = []
        for key in sorted(last):
            by = last[key] - self.before.get(key, 0)
            if by and not is_absent(f"cluster.x.{key}") and not re.search(r"_bytes_|upstream_rq_(\d|completed)|^membership", key):
                found.append(f"{key.removeprefix('upstream_')} {by:+}")
        return ", ".join(found)

    def seen(self):
        return " ".join(sorted(self.upstream.seen)) if self.upstream else "-"

    def result(self, *told):
        answers = " ".join(f"{path}={self.answers[path]}" for path in sorted(self.answers))
        moved = self.moved()
        return f"{answers} | {self.seen()} | {self.told(*told)} | {moved}"
