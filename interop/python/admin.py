"""The pages of the admin server: status, content type and shape of each answer.

    admin.py --proxy PROGRAM --scratch FOLDER [--only WORD] [--show]

The expectations, in `admin.json`, were written down from Envoy 1.40; where meshd answers otherwise, `ours` says so and why.
"""

import json
import re
import sys
import time
import urllib.error
import urllib.request

from peers import SHORT, free_port, read_head, serve
from play import Play
from rig import World, cluster, listener, manager

PLAY = Play()
# Deeper than this the members of an object are not told apart.
DEPTH = 5


def app(peer):
    rest = b""
    while True:
        _, rest = read_head(peer, rest)
        peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


TCP = {
    "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    "stat_prefix": "t",
    "cluster": "app",
}


class Admin(World):
    def __init__(self, program, scratch, arguments):
        self.port = free_port()
        routes = [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]
        place = {"region": "r", "zone": "z"}
        here = cluster("app", serve(app))
        here["load_assignment"]["endpoints"][0]["locality"] = place
        listeners = [listener("in", self.port, manager("ingress", routes, "/dev/null")), listener("tcp", free_port(), {})]
        listeners[1]["filter_chains"] = [{"filters": [{"name": "tcp", "typed_config": TCP}]}]
        node = {"id": "n", "cluster": "c", "locality": place, "metadata": {"k": "v"}}
        self.start("admin", program, scratch, arguments, listeners, [here, cluster("other", free_port())], node=node)
        for _ in range(3):
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=SHORT).read()
        # Envoy shows of distributions what it has flushed, every five seconds.
        time.sleep(5.5)


def ask(world, method, path):
    request = urllib.request.Request(
        f"http://127.0.0.1:{world.proxy.admin}{path}", method=method, data=b"" if method == "POST" else None
    )
    try:
        answer = urllib.request.urlopen(request, timeout=SHORT)
    except urllib.error.HTTPError as error:
        answer = error
    return answer.status, answer.headers.get("content-type"), answer.read().decode("utf-8", "replace")


def members(value, depth=DEPTH):
    """The names of an object's members, sorted; of a list, those of all its objects."""
    if isinstance(value, dict):
        if "@type" in value and depth < DEPTH:
            kind = value["@type"].rsplit(".", 1)[-1] + " "
        else:
            kind = ""
        if depth == 0:
            return kind + "{…}"
        inner = (name + members(inner, depth - 1) for name, inner in sorted(value.items()) if name != "@type")
        return kind + "{" + " ".join(inner) + "}"
    if isinstance(value, list):
        found = sorted({members(one, depth if isinstance(one, dict) else depth - 1) for one in value})
        return "[" + ", ".join(found) + "]"
    return ""


def shape(kind, body):
    if kind == "application/json":
        return members(json.loads(body))
    if kind.startswith("text/html"):
        return "a page"
    # Numbers of distributions are those of the moment.
    body = re.sub(r"(?<=[(,])(nan|[\d.]+)(?=[,)])", "#", body)
    lines = body.splitlines() or [""]
    more = " …" if len(lines) > 1 else ""
    return (lines[0][:100] if lines[0].isprintable() else "bytes") + more


def page(method, path):
    def play(world, _):
        status, kind, body = ask(world, method, path)
        text = shape(kind, body)
        for port in (world.port, world.proxy.admin):
            text = text.replace(str(port), "PORT")
        return f"{status} {kind} {text}"

    return play


GET = """
/ /help /nope /ready /certs /memory /contention /init_dump /init_dump?mask=listener /hot_restart_version /server_info /runtime
/clusters /clusters?filter=app /clusters?filter=( /clusters?format=json /clusters?format=json&filter=^app$ /clusters?format=xml
/listeners /listeners?format=json /listeners?format=xml
/config_dump /config_dump?include_eds /config_dump?resource= /config_dump?mask= /config_dump?resource=static_clusters
/config_dump?resource=dynamic_listeners /config_dump?resource=bootstrap /config_dump?resource=nope /config_dump?mask=bootstrap
/config_dump?mask=nope /config_dump?resource=static_clusters&mask=cluster.name /config_dump?name_regex=^app$
/config_dump?name_regex=( /config_dump?resource=static_listeners&name_regex=^tc /config_dump?resource=static_route_configs
/config_dump?include_eds&resource=static_endpoint_configs
/stats?filter=server.live /stats?filter=server.live&format=json /stats?filter=server.live&format=prometheus
/stats?filter=server.live&format=yaml /stats?filter=server.live&type=Gauges /stats?filter=server.live&type=Counters
/stats?filter=server.live&type=Some /stats?type=TextReadouts /stats?filter=( /stats?filter=server.live&usedonly
/stats?filter=ingress.downstream_rq_time$ /stats?filter=ingress.downstream_rq_time$&format=json
/stats?filter=ingress.downstream_rq_time$&histogram_buckets=cumulative
/stats?filter=ingress.downstream_rq_time$&histogram_buckets=disjoint
/stats?filter=ingress.downstream_rq_time$&histogram_buckets=detailed
/stats?filter=ingress.downstream_rq_time$&histogram_buckets=summary
/stats?filter=ingress.downstream_rq_time$&histogram_buckets=none
/stats?filter=ingress.downstream_rq_time$&histogram_buckets=nope
/stats?filter=ingress.downstream_rq_time$&histogram_buckets=cumulative&format=json
/stats?filter=ingress.downstream_rq_time$&histogram_buckets=disjoint&format=json
/stats?filter=ingress.downstream_rq_time$&histogram_buckets=detailed&format=json
/stats/prometheus?filter=server.live /stats/prometheus?filter=server.live&usedonly /stats/prometheus?text_readouts&filter=live
/stats/prometheus?filter=ingress.downstream_rq_time$ /stats/prometheus?filter=ingress.downstream_rq_time$&histogram_buckets=summary
/stats/prometheus?filter=( /stats/recentlookups /cpuprofiler /heapprofiler /allocprofiler /heap_dump /memory/tcmalloc /tap
/logging /healthcheck/fail /healthcheck/ok /drain_listeners /quitquitquit /runtime_modify /reset_counters /reopen_logs
""".split()
POST = """
/logging /logging?level=nope /logging?nope=info /logging?paths=a /logging?paths=upstream:debug,nope:info
/logging?paths=upstream:debug,http:info /logging?upstream=info&admin=info /logging?upstream=info /logging?level=critical
/stats/recentlookups/enable /stats/recentlookups/disable /stats/recentlookups/clear /runtime_modify /runtime_modify?a=b
/cpuprofiler?enable=y /heapprofiler?enable=y /allocprofiler?enable=y /tap /heap_dump
/reset_counters /reopen_logs /ready /clusters?filter=none /nope
/drain_listeners?skip_exit /drain_listeners?graceful&skip_exit
""".split()


def reset(world, _):
    """Counters, before and after they are reset."""
    counters = "/stats?filter=^http.ingress.downstream_rq_(total|2xx)$"
    before = ask(world, "GET", counters)[2].splitlines()
    ask(world, "POST", "/reset_counters")
    urllib.request.urlopen(f"http://127.0.0.1:{world.port}/", timeout=SHORT).read()
    # Counters of workers are seen a little later.
    time.sleep(0.3)
    after = ask(world, "GET", counters)[2].splitlines()
    return f"{' '.join(before)} | {' '.join(after)}"


def failing(world, _):
    """Readiness and state while health checks fail, and after."""
    seen = []
    for path in ("/healthcheck/fail", "/healthcheck/ok"):
        seen.append(ask(world, "POST", path)[2].strip())
        status, _, text = ask(world, "GET", "/ready")
        state = json.loads(ask(world, "GET", "/server_info")[2])["state"]
        seen.append(f"{status} {text.strip()} {state}")
    return " | ".join(seen)


def all_cases():
    for path in GET:
        yield f"GET {path}", page("GET", path)
    for path in POST:
        yield f"POST {path}", page("POST", path)
    yield "counters are reset", reset
    yield "health checks fail", failing


if __name__ == "__main__":
    sys.exit(PLAY.main(Admin, all_cases()))
