#!/usr/bin/env bash
# Where no pong is asked for, TCP_USER_TIMEOUT finds a peer that is gone without a word: two network
# namespaces joined by a cable, every packet dropped once the client is connected. Needs root.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
# shellcheck source=tests/common/server.sh
source tests/common/server.sh

SERVER=drumline-server-$$
CLIENT=drumline-client-$$
cleanup() {
    stop_all
    ip netns delete "$SERVER" 2>/dev/null
    ip netns delete "$CLIENT" 2>/dev/null
}
trap cleanup EXIT

fail() {
    echo "$*"
    cat "$WORK"/*.log
    exit 1
}

for name in "$SERVER" "$CLIENT"; do
    ip netns add "$name" || fail "no network namespaces: root is needed"
done
ip link add dl-s netns "$SERVER" type veth peer name dl-c netns "$CLIENT" || fail "no veth"
ip -n "$SERVER" addr add 10.213.0.1/24 dev dl-s
ip -n "$CLIENT" addr add 10.213.0.2/24 dev dl-c
for link in "$SERVER lo" "$SERVER dl-s" "$CLIENT lo" "$CLIENT dl-c"; do
    ip -n "${link% *}" link set "${link#* }" up || fail "no link $link"
done

inside() { ip netns exec "$SERVER" "$@"; }
clients() {
    inside curl -sS --max-time 5 http://127.0.0.1:8001/metrics |
        awk '/^drumline_clients[{ ]/ { sum += $NF; found = 1 } END { if (!found) exit 1; print sum + 0 }'
}
clients_are() { [[ $(clients) == "$1" ]]; }

start "$WORK/server.log" ip netns exec "$SERVER" "$DRUMLINE" serve --http_server.port 8000 \
    --http_server.internal_port 8001 --shards 2 --client.insecure --engine.slots_per_shard 200 \
    --engine.pong=false --engine.user_timeout 3s --client.ping_interval 2s --client.pong_timeout 1s \
    --prometheus.enabled
wait_until 20 inside curl -fsS --max-time 2 http://127.0.0.1:8001/metrics || fail "the server does not answer"

for nth in 1 2 3; do
    start "$WORK/client-$nth.log" ip netns exec "$CLIENT" node tests/system/idle.mjs ws://10.213.0.1:8000/connection/websocket
done
wait_until 20 clients_are 3 || fail "the clients do not connect"
# Longer than the user timeout: pings alone keep a living peer.
sleep 5
clients_are 3 || fail "a living peer was dropped"

inside nft -f - <<'RULES' || fail "no nftables"
table inet drumline {
    chain in { type filter hook input priority 0; iifname "dl-s" drop; }
    chain out { type filter hook output priority 0; oifname "dl-s" drop; }
}
RULES
START=$SECONDS
wait_until 25 clients_are 0 || fail "after $((SECONDS - START)) s $(clients) dead peers are still counted"
echo "dead peers were found within $((SECONDS - START)) s of the last packet"
