"""Connections to upstreams: when they are made, shared, limited, given up and closed.

    upstreams.py --proxy PROGRAM --scratch FOLDER [--only WORD] [--show]

Each case has a cluster of its own. It states what clients and upstream see, what the access log says, and the statistics of the cluster
that move. The expectations, in `upstreams.json`, were written down from Envoy 1.40; where the proxy under test differs, `ours` says so and why.
"""

import json
import os
import re
import socket
import sys
import threading
import time

import h2.settings

from counters import is_absent
from peers import KEPT, SHORT, H1Client, H2Peer, H2Server, free_port, headers_of, kept, read_head, serve
from play import Play
from rig import World, address, cluster, listener, manager

PLAY = Play()
# Between the beginnings of requests whose order matters.
TURN = 0.05
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


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


CASES = {}


def of(http2=None, settings=None, route=None, to=None, common=None, eds=None, **more):
    """A case with a cluster of its own: its settings of HTTP/2, those of the upstream, of the route and of the cluster."""

    def keep(function):
        CASES[function.__name__] = (function, http2, settings, route or {}, to, common, eds, more)
        return function

    return keep


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


def limits(**more):
    return {"circuit_breakers": {"thresholds": [more]}}


def per_host(count):
    return {"circuit_breakers": {"per_host_thresholds": [{"max_connections": count}]}}


@of()
def one_after_the_other(it):
    for path in ("/1", "/2", "/3"):
        it.get(path)
    return it.result()


@of()
def the_last_one_used_is_the_first(it):
    it.start("/1", "200,held")
    it.get("/2")
    it.go()
    it.get("/3")
    it.get("/4")
    return it.result()


@of(**limits(max_connections=1))
def one_connection(it):
    it.all("/1", "/2", "/3")
    return it.result()


@of(**limits(max_connections=1, max_pending_requests=1))
def one_may_wait(it):
    it.all("/1", "/2", "/3", "/4")
    return it.result("/3")


@of(**limits(max_pending_requests=0))
def none_may_wait(it):
    it.get("/1")
    return it.result("/1")


@of(**limits(max_requests=1))
def one_request(it):
    it.all("/1", "/2")
    return it.result("/2")


@of(http2={}, **limits(max_requests=1))
def one_request_of_http2(it):
    it.all("/1", "/2")
    return it.result("/2")


@of(http2={}, **limits(max_connections=1))
def one_connection_of_http2(it):
    it.all("/1", "/2", "/3")
    return it.result()


@of(**limits(max_connections=0))
def no_connection(it):
    it.all("/1", "/2")
    return it.result()


@of(**per_host(1))
def one_connection_a_host(it):
    it.all("/1", "/2")
    return it.result()


@of(**limits(max_connections=1, max_pending_requests=1, max_requests=2, max_retries=1, track_remaining=True))
def gauges_of_limits(it):
    names = [f"circuit_breakers.default.{one}" for one in ("cx_open", "rq_pending_open", "rq_open", "rq_retry_open")]
    names += [f"circuit_breakers.default.remaining_{one}" for one in ("cx", "pending", "rq", "retries")]
    before = it.now(*names)
    it.start("/1", "200,held")
    one = it.now(*names)
    it.start("/2", "200,held")
    two = it.now(*names)
    it.go()
    return f"{before} | {one} | {two} | {it.now(*names)}"


@of(route={"retry_policy": {"retry_on": "5xx", "num_retries": 2}}, **limits(max_retries=0))
def no_retry(it):
    it.get("/1", "503")
    return it.result("/1")


@of(circuit_breakers={"thresholds": [{"priority": "HIGH", "max_connections": 1, "max_pending_requests": 0}]}, route={"priority": "HIGH"})
def limits_of_high_priority(it):
    it.all("/1", "/2")
    return it.result("/2")


@of(circuit_breakers={"thresholds": [{"max_connections": 1}, {"max_connections": 5}]})
def limits_twice(it):
    it.all("/1", "/2")
    return it.result()


@of(max_requests_per_connection=2)
def two_requests_a_connection(it):
    for path in ("/1", "/2", "/3", "/4", "/5"):
        it.get(path)
    it.upstream.wait("a ended", "b ended")
    return it.result()


@of(http2={}, common={"max_requests_per_connection": 2})
def two_requests_a_connection_of_http2(it):
    it.all("/1", "/2", "/3")
    it.upstream.wait("a ended")
    return it.result()


@of(common={"max_connection_duration": "1s"})
def a_longest_life(it):
    it.get("/1")
    ended = it.upstream.wait("a ended")
    return f"{ended} {it.result()}"


@of(common={"max_connection_duration": "0.3s"})
def a_longest_life_in_use(it):
    it.get("/1", "200,800")
    ended = it.upstream.wait("a ended", limit=1)
    return f"{ended} {it.result()}"


@of(http2={}, common={"max_connection_duration": "0.5s"})
def a_longest_life_in_use_of_http2(it):
    it.start("/1", "200,held")
    it.until("upstream_cx_max_duration_reached", 1)
    it.get("/2")
    it.go()
    ended = it.upstream.wait("a ended", "b ended")
    return f"{ended} {it.result()}"


@of(common={"idle_timeout": "0.4s"})
def idleness(it):
    it.get("/1", "200,900")
    ended = it.upstream.wait("a ended")
    return f"{ended} {it.result()}"


@of(http2={}, common={"idle_timeout": "0.4s"})
def idleness_of_http2(it):
    it.get("/1", "200,900")
    ended = it.upstream.wait("a ended")
    return f"{ended} {it.result()}"


@of(to="refusing", **limits(max_connections=1))
def refused_while_others_wait(it):
    it.all("/1", "/2", "/3")
    return it.result("/1", "/2", "/3")


@of(to="refusing", http2={})
def refused_of_http2(it):
    it.all("/1", "/2")
    return it.result("/1", "/2")


def took(it):
    """Whether the requests failed together: each its own time would be longer."""
    return "together" if time.monotonic() - it.begun < 3.8 else "one by one"


@of(to="full", connect_timeout="2s", **limits(max_connections=1))
def a_connect_timeout_while_others_wait(it):
    it.all("/1", "/2", "/3")
    return f"{took(it)} {it.result('/1', '/2', '/3')}"


@of(to="full", connect_timeout="1s")
def connect_timeouts(it):
    it.all("/1", "/2", "/3")
    how = took(it)
    it.until("upstream_cx_connect_timeout", 3)
    return f"{how} {it.result('/1', '/2', '/3')}"


@of(to="full", connect_timeout="1s", http2={})
def connect_timeouts_of_http2(it):
    it.all("/1", "/2", "/3")
    return f"{took(it)} {it.result('/1', '/2', '/3')}"


@of(to="full", connect_timeout="5s", route={"timeout": "0.3s"})
def nobody_waits_any_more(it):
    it.get("/1")
    before = it.now("upstream_cx_active", "upstream_cx_total", "upstream_rq_cancelled")
    it.world.full[it.name].listen(64)
    # The system tries again after a second; the connection is kept for the next request.
    time.sleep(2.2)
    after = it.now("upstream_cx_active", "upstream_cx_total")
    return f"{before} | {after} | {it.result('/1')}"


@of(**limits(max_connections=1))
def gone_while_waiting(it):
    it.start("/1", "200,held")
    client = H1Client(it.world.port)
    client.send(f"GET /2 HTTP/1.1\r\nhost: {it.name}\r\nx-case: {it.name}/2\r\n\r\n")
    it.until("upstream_rq_pending_active", 1)
    client.close()
    it.until("upstream_rq_cancelled", 1)
    it.start("/3")
    it.go()
    return it.result("/2")


@of(**limits(max_connections=1))
def the_connection_dies_while_others_wait(it):
    it.start("/1", "close,held")
    it.start("/2")
    it.go()
    return it.result("/1")


@of()
def closed_after_the_answer(it):
    it.get("/1", "200,then-close")
    it.upstream.wait("a ended")
    time.sleep(0.1)
    it.get("/2")
    return it.result()


@of()
def told_to_close(it):
    it.get("/1", "200,last")
    it.upstream.wait("a ended")
    it.get("/2")
    return it.result()


@of()
def an_old_answer(it):
    it.get("/1", "200,old")
    it.get("/2")
    return it.result()


@of()
def unasked_bytes(it):
    it.get("/1", "200,extra")
    it.upstream.wait("a ended")
    it.get("/2")
    return it.result()


@of(http2={})
def streams_share(it):
    it.all("/1", "/2", "/3")
    return it.result()


@of(http2={"max_concurrent_streams": 1})
def one_stream(it):
    it.all("/1", "/2", "/3")
    return it.result()


@of(http2={"max_concurrent_streams": 1}, **limits(max_connections=1))
def one_stream_and_connection(it):
    it.all("/1", "/2", "/3")
    return it.result()


@of(http2={}, settings={3: 1})
def one_stream_says_the_peer(it):
    it.get("/0")
    it.all("/1", "/2", "/3")
    return it.result()


@of(http2={})
def a_goaway_while_streams_run(it):
    it.start("/1", "200,held,goaway")
    it.upstream.wait("a/1")
    time.sleep(0.2)
    it.get("/2")
    it.go()
    ended = it.upstream.wait("a ended", limit=1)
    return f"{ended} {it.result('/1', '/2')}"


@of(http2={})
def a_goaway_and_then_nothing(it):
    it.get("/1", "200,goaway")
    ended = it.upstream.wait("a ended", limit=1)
    it.get("/2")
    return f"{ended} {it.result()}"


@of(http2={})
def a_refused_stream(it):
    it.get("/1", "rst7")
    it.get("/2")
    return it.result("/1")


@of(http2={}, route={"retry_policy": {"retry_on": "refused-stream", "num_retries": 1}})
def a_refused_stream_again(it):
    it.get("/1", "rst7")
    return it.result("/1")


@of(http2={})
def a_connection_of_streams_dies(it):
    it.start("/1", "close,held")
    it.start("/2", "200,3000")
    it.go()
    it.get("/3")
    return it.result("/1", "/2")


@of(common={"max_stream_duration": "0.3s"})
def a_longest_stream(it):
    it.get("/1", "200,900")
    it.upstream.wait("a ended")
    return it.result("/1")


@of(http2={}, common={"max_stream_duration": "0.3s"})
def a_longest_stream_of_http2(it):
    it.get("/1", "200,900")
    return it.result("/1")


@of(eds=True)
def the_endpoint_goes_while_idle(it):
    it.get("/1")
    begun = time.monotonic()
    it.world.endpoints(it.name, [])
    ended = it.upstream.wait("a ended", limit=7)
    soon = time.monotonic() - begun < 1
    it.get("/2")
    return f"{ended} soon={soon} {it.result('/2')} {it.now('membership_total', 'membership_healthy', 'membership_change')}"


@of(eds=True)
def the_endpoint_goes_in_use(it):
    it.start("/1", "200,held")
    it.world.endpoints(it.name, [])
    it.go()
    begun = time.monotonic()
    ended = it.upstream.wait("a ended", limit=7)
    soon = time.monotonic() - begun < 1
    return f"{ended} soon={soon} {it.result('/1')}"


@of(eds=True, http2={})
def the_endpoint_goes_in_use_of_http2(it):
    it.start("/1", "200,held")
    it.world.endpoints(it.name, [])
    it.go()
    begun = time.monotonic()
    ended = it.upstream.wait("a ended", limit=7)
    soon = time.monotonic() - begun < 1
    return f"{ended} soon={soon} {it.result('/1')}"


@of(eds=True)
def the_endpoint_is_unhealthy(it):
    it.get("/1")
    it.world.endpoints(it.name, [(it.upstream.port, "UNHEALTHY")])
    ended = it.upstream.wait("a ended", limit=1)
    it.get("/2")
    return f"{ended} {it.result('/2')} {it.now('membership_total', 'membership_healthy', 'membership_degraded', 'membership_excluded')}"


@of(eds=True, common_lb_config={"healthy_panic_threshold": {"value": 0}})
def the_endpoint_is_unhealthy_without_panic(it):
    it.get("/1")
    it.world.endpoints(it.name, [(it.upstream.port, "UNHEALTHY")])
    it.get("/2")
    return it.result("/2")


@of(eds=True, common_lb_config={"healthy_panic_threshold": {"value": 0}}, close_connections_on_host_health_failure=True)
def an_unhealthy_endpoint_loses_its_connections(it):
    it.get("/1")
    begun = time.monotonic()
    it.world.endpoints(it.name, [(it.upstream.port, "UNHEALTHY")])
    ended = it.upstream.wait("a ended", limit=7)
    soon = time.monotonic() - begun < 1
    return f"{ended} soon={soon} {it.result()}"


@of(eds=True)
def the_endpoint_drains(it):
    it.get("/1")
    it.world.endpoints(it.name, [(it.upstream.port, "DRAINING")])
    ended = it.upstream.wait("a ended", limit=1)
    it.get("/2")
    return f"{ended} {it.result('/2')} {it.now('membership_total', 'membership_healthy', 'membership_degraded', 'membership_excluded')}"


def endpoint(port, health=None, **more):
    one = {"endpoint": {"address": address(port)}, **more}
    return {**one, "health_status": health} if health else one


class Upstreams(World):
    def __init__(self, program, scratch, arguments):
        self.port, self.folder = free_port(), scratch
        self.upstreams, self.full = {}, {}
        hosts, clusters = [], []
        for name, (_, http2, settings, route, to, common, eds, more) in CASES.items():
            if to == "refusing":
                port = free_port()
            elif to == "full":
                self.full[name] = full()
                port = self.full[name].getsockname()[1]
            else:
                self.upstreams[name] = Upstream(settings or {} if http2 is not None else None)
                port = self.upstreams[name].port
            one = cluster(name, port, http2, **more)
            if common:
                self.common(one, common)
            if eds:
                one["type"] = "EDS"
                del one["load_assignment"]
                path = os.path.join(scratch, f"{name}.eds.json")
                one["eds_cluster_config"] = {"eds_config": {"path_config_source": {"path": path}}}
                self.endpoints(name, [(port, "HEALTHY")])
            clusters.append(one)
            actions = {"cluster": name, **route}
            hosts.append({"name": name, "domains": [name], "routes": [{"match": {"prefix": "/"}, "route": actions}]})
        log = os.path.join(scratch, "upstreams-access.log")
        config = manager("in", [], log)
        config["route_config"]["virtual_hosts"] = hosts
        node = ["--service-node", "n", "--service-cluster", "c"]
        self.start("upstreams", program, scratch, arguments + node, [listener("in", self.port, config)], clusters)

    @staticmethod
    def common(one, common):
        options = one.setdefault("typed_extension_protocol_options", {})
        kind = f"type.googleapis.com/{OPTIONS}"
        options.setdefault(OPTIONS, {"@type": kind, "explicit_http_config": {"http_protocol_options": {}}})
        options[OPTIONS]["common_http_protocol_options"] = common

    def endpoints(self, name, ports):
        """Replaces the endpoints of a cluster."""
        kind = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
        groups = [{"lb_endpoints": [endpoint(*port) for port in ports]}] if ports else []
        document = {"resources": [{"@type": kind, "cluster_name": name, "endpoints": groups}]}
        path = os.path.join(self.folder, f"{name}.eds.json")
        with open(path + ".new", "w", encoding="utf-8") as out:
            json.dump(document, out)
        os.rename(path + ".new", path)
        if not hasattr(self, "proxy"):
            return
        healthy = sum(1 for port in ports if port[1] == "HEALTHY")
        wanted = {"membership_total": len(ports), "membership_healthy": healthy}
        end = time.monotonic() + SHORT
        while time.monotonic() < end:
            stats = self.proxy.stats()
            if all(stats.get(f"cluster.{name}.{key}") == value for key, value in wanted.items()):
                break
            time.sleep(0.02)


def play(function):
    def run(world, name):
        return function(Sides(world, name))

    return run


if __name__ == "__main__":
    sys.exit(PLAY.main(Upstreams, [(name, play(one[0])) for name, one in CASES.items()]))
