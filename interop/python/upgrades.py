"""WebSocket, CONNECT and extended CONNECT through a proxy, over HTTP/1.1 and HTTP/2 on either side.

    upgrades.py --proxy PROGRAM --scratch FOLDER [--only WORD] [--show]

Each case states what a client, the upstream and the access log see. The expectations were written down from Envoy 1.40; where the
proxy under test may differ, `ours` says so and why.
"""

import sys

import upgrades_connect  # noqa: F401 (its cases)
import upgrades_websocket  # noqa: F401 (its cases)
from tunnels import PLAY, Tunnels

case = PLAY.case


@case("active=[2, 2, 1, 1, 1] total=2 refused=1 left=[0, 0, 0, 0]")
def upgrade_counters(world, name):
    before = world.proxy.stats()
    client, status, _ = world.h1_upgrade(name, "ws-h1")
    other, number, _ = world.h2_connect(f"{name}2", "tcp")
    during = world.proxy.stats()
    key = "http.a.downstream_cx_upgrades_"
    active = [during.get(key + "active"), during.get("http.a.downstream_rq_active"), during.get("cluster.h1.upstream_rq_active"), during.get("cluster.tcp.upstream_rq_active"), during.get("cluster.tcp.upstream_cx_active")]
    total = during.get(key + "total", 0) - before.get(key + "total", 0)
    client.close()
    other.close()
    refused, _, _ = world.h1_upgrade(f"{name}3", "ws-off")
    refused.close()
    world.log(name), world.log(f"{name}2"), world.log(f"{name}3")
    after = world.proxy.stats()
    wrong = after.get("http.a.downstream_rq_ws_on_non_ws_route", 0) - before.get("http.a.downstream_rq_ws_on_non_ws_route", 0)
    left = [after.get(key + "active"), after.get("http.a.downstream_rq_active"), after.get("cluster.h1.upstream_rq_active"), after.get("cluster.tcp.upstream_rq_active")]
    return f"active={active} total={total} refused={wrong} left={left}"


@case("{}")
def nothing_leaks(world, name):
    return world.nothing_leaks()


if __name__ == "__main__":
    sys.exit(PLAY.main(Tunnels))
