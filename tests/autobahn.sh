#!/usr/bin/env bash
# Runs Autobahn's cases against /echo and compares each result with tests/autobahn-expected.json.
# Usage: tests/autobahn.sh [--large] [--write]
#   --large  the cases 9.* too: messages up to 16 MiB
#   --write  writes the results down as the expected ones instead of comparing
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
# shellcheck source=tests/common/server.sh
source tests/common/server.sh
trap stop_all EXIT

EXPECTED=tests/autobahn-expected.json
EXCLUDED=(-x '12.*' -x '13.*' -x '9.*')
WRITE=
for argument in "$@"; do
    case $argument in
        --large) EXCLUDED=(-x '12.*' -x '13.*') ;;
        --write) WRITE=1 ;;
        *) echo "autobahn.sh: unknown argument $argument" >&2 && exit 2 ;;
    esac
done

KOSOKU=${KOSOKU:-.venv/bin/kosoku}
PORT=$(free_port)
start "$WORK/server.log" "$DRUMLINE" serve --http_server.port "$PORT" --shards 2 --client.insecure \
    --engine.echo --engine.slots_per_shard 200 --websocket.message_size_limit 33554432 \
    --client.queue_max_size 67108864
if ! wait_until 20 bash -c "exec 3<>/dev/tcp/127.0.0.1/$PORT"; then
    cat "$WORK/server.log"
    exit 1
fi
# Its exit code says "failed" for results that Autobahn calls non-strict too: the comparison judges.
timeout 300 "$KOSOKU" -m fuzzingclient "${EXCLUDED[@]}" -o "$WORK/reports" "ws://127.0.0.1:$PORT/echo" \
    >"$WORK/kosoku.log" 2>&1
if [[ ! -s $WORK/reports/index.json ]]; then
    tail -20 "$WORK/kosoku.log" "$WORK/server.log"
    echo "no report was written"
    exit 1
fi
python3 tests/common/autobahn.py "$WORK/reports/index.json" "$EXPECTED" ${WRITE:+--write}
