"""A proxy on a configuration of its own, its access log that must agree with what clients see, and its statistics."""

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request

from peers import SHORT, free_port


def end_with_parent():
    """The proxy does not outlive a play that is killed."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class Proxy:
    """The proxy under test."""

    def __init__(self, program, config, folder, name, arguments=()):
        self.admin = free_port()
        self.log = os.path.join(folder, f"{name}-access.log")
        config["admin"] = {"address": address(self.admin)}
        path = os.path.join(folder, f"{name}.json")
        with open(path, "w", encoding="utf-8") as out:
            json.dump(config, out, indent=1)
        open(self.log, "w", encoding="utf-8").close()
        self.output = open(os.path.join(folder, f"{name}.log"), "w", encoding="utf-8")
        self.process = subprocess.Popen(
            [program, "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "warning"] + list(arguments),
            stdout=self.output,
            stderr=subprocess.STDOUT,
            preexec_fn=end_with_parent,
        )

    def wait(self, port, host="127.0.0.1"):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"the proxy ended with {self.process.returncode}, see {self.output.name}")
            try:
                socket.create_connection((host, port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise RuntimeError("the proxy does not listen")

    def faults(self):
        """What is wrong with the process itself."""
        with open(self.output.name, encoding="utf-8", errors="replace") as said:
            panics = [line.strip() for line in said if "panicked at" in line]
        ended = self.process.poll()
        return panics + ([f"the proxy ended with {ended}"] if ended is not None else [])

    def lines(self, case, count=1, limit=SHORT):
        """The access log lines of a case; waits for `count`."""
        end = time.monotonic() + limit
        while True:
            with open(self.log, encoding="utf-8") as log:
                found = [line for line in map(parse, log) if line and line["case"] == case]
            if len(found) >= count or time.monotonic() >= end:
                return found
            time.sleep(0.02)

    def post(self, path):
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}{path}", method="POST", data=b"")
        with urllib.request.urlopen(request, timeout=SHORT) as answer:
            return answer.read().decode()

    def stats(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/stats", timeout=SHORT) as answer:
            text = answer.read().decode()
        pairs = (line.rsplit(": ", 1) for line in text.splitlines() if ": " in line)
        return {pair[0]: int(pair[1]) for pair in pairs if pair[1].lstrip("-").isdigit()}

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def parse(line):
    try:
        return json.loads(line)
    except ValueError:
        return None


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


LOG_FIELDS = {
    "case": "%REQ(X-CASE)%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "authority": "%REQ(:AUTHORITY)%",
    "protocol": "%PROTOCOL%",
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "rx": "%BYTES_RECEIVED%",
    "tx": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "upstream": "%UPSTREAM_HOST%",
    "route": "%ROUTE_NAME%",
    "cluster": "%UPSTREAM_CLUSTER%",
}


def manager(prefix, routes, log, **more):
    config = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": prefix,
        "codec_type": "AUTO",
        "access_log": [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": log,
                    "log_format": {"json_format": LOG_FIELDS},
                },
            }
        ],
        "route_config": {"name": prefix, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    config.update(more)
    return config


def listener(name, port, config, **more):
    return {
        "name": name,
        "address": address(port),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": config}]}
        ],
        **more,
    }


def cluster(name, port, http2=None, **more):
    config = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}],
        },
        **more,
    }
    if http2 is not None:
        config["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": http2},
            }
        }
    return config


def by(name):
    """A match of each path by the header that names a route."""
    return {"prefix": "/", "headers": [{"name": "x-route", "string_match": {"exact": name}}]}


class World:
    """What a play is played in: the proxy on a configuration of its own, its log and its statistics."""

    # Ends of the names of gauges that are 0 when nothing goes on.
    GAUGES = ()
    # The statistics that are looked at.
    SCOPES = re.compile("")

    def start(self, name, program, scratch, arguments, listeners, clusters, **more):
        config = {"static_resources": {"listeners": listeners, "clusters": clusters}, **more}
        self.proxy = Proxy(program, config, scratch, name, arguments)
        for one in listeners:
            self.proxy.wait(one["address"]["socket_address"]["port_value"])

    def log(self, case):
        """The one log line of a case, as the tables write it."""
        found = self.proxy.lines(case)
        if len(found) != 1:
            return f"{len(found)} log lines"
        line = found[0]
        return f"{line['code']} {line['flags'] or '-'} {line['details'] or '-'}"

    def settled(self, quiet):
        """The statistics, once none of them has moved for so long."""
        end = time.monotonic() + 10
        last, since = None, 0.0
        while True:
            now = {name: value for name, value in self.proxy.stats().items() if self.SCOPES.match(name)}
            if now != last:
                last, since = now, time.monotonic()
            elif not since + quiet > time.monotonic() < end:
                return now
            time.sleep(0.02)

    def gauges(self):
        """Those that are not 0, and those that are not there at all."""
        stats = self.proxy.stats()
        found = {end: "absent" for end in self.GAUGES if not any(key.endswith(end) for key in stats)}
        found.update((key, value) for key, value in stats.items() if key.endswith(self.GAUGES) and value and ".admin." not in key)
        return found

    def nothing_leaks(self, limit=5):
        """The gauges, once they are 0 or the time is over."""
        end = time.monotonic() + limit
        while self.gauges() and time.monotonic() < end:
            time.sleep(0.1)
        return str(self.gauges())

    def stop(self):
        self.proxy.stop()
