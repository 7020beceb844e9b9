"""Connections to upstreams: when they are made, shared, limited, given up and closed.

    upstreams.py --proxy PROGRAM --scratch FOLDER [--only WORD] [--show]

Each case has a cluster of its own. It states what clients and upstream see, what the access log says, and the statistics of the cluster
that move. The expectations, in `upstreams.json`, were written down from Envoy 1.40; where the proxy under test differs, `ours` says so and why.
"""

import json
import os
import sys
import time

from peers import SHORT, H1Client, free_port, full
from play import Play
from rig import World, address, cluster, listener, manager
from upstreams_sides import Sides, Upstream

PLAY = Play()
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


CASES = {}


def of(http2=None, settings=None, route=None, to=None, common=None, eds=None, **more):
    """A case with a cluster of its own: its settings of HTTP/2, those of the upstream, of the route and of the cluster."""

    def keep(function):
        CASES[function.__name__] = (function, http2, settings, route or {}, to, common, eds, more)
        return function

    return keep


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
