#!/usr/bin/env bash
# Sourced by the scripts of tests/system: starts processes and ends them by their ids.
# stop_all ends every process in PIDS and removes the folder WORK.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck disable=SC2034 # for the scripts that source this file
DRUMLINE=${DRUMLINE:-${CARGO_TARGET_DIR:-$ROOT/target}/release/drumline}
WORK=$(mktemp -d)
PIDS=()

# free_port: prints a free port below the range that the kernel gives to clients.
free_port() {
    python3 - <<'PYTHON'
import random, socket
while True:
    port = random.randrange(30000, 32000)
    with socket.socket() as probe:
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            continue
    print(port)
    break
PYTHON
}

# start LOG COMMAND...: starts a process in the background that stop_all ends; its pid is in PID.
start() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 &
    PID=$!
    PIDS+=("$PID")
}

# wait_until SECONDS COMMAND...: repeats a command until it succeeds.
wait_until() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= end)); then return 1; fi
        sleep 0.1
    done
}

# metric URL NAME: prints the sum of a metric over all shards.
metric() {
    curl -sS --max-time 5 "$1/metrics" |
        awk -v name="$2" 'index($0, name "{") == 1 || index($0, name " ") == 1 { sum += $NF; found = 1 }
            END { if (!found) exit 1; print sum + 0 }'
}

stop_all() {
    local pid
    for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null; done
    for pid in "${PIDS[@]}"; do
        if ! wait_until 10 eval "! kill -0 $pid"; then kill -9 "$pid" 2>/dev/null; fi
        wait "$pid" 2>/dev/null
    done
    PIDS=()
    rm -rf "$WORK"
}
