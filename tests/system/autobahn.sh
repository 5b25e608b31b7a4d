#!/usr/bin/env bash
# Runs Autobahn's cases against /echo and compares each result with tests/system/autobahn-expected.json.
# Usage: tests/system/autobahn.sh [--large] [--compression] [--write]
#   --large        the cases 9.* too: messages up to 16 MiB
#   --compression  every case of 12.* and 13.* that the suite can judge, not a few: two minutes
#   --write         writes the results down as the expected ones instead of comparing
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
# shellcheck source=tests/common/server.sh
source tests/common/server.sh
trap stop_all EXIT

EXPECTED=tests/system/autobahn-expected.json
# Of 12.* (compression) and 13.* (its offers). What does not get smaller comes back as it went; the
# suite stumbles over that. So do pictures and PDF (12.2, 12.5), 64 bytes and less (*.1, *.2), and
# messages over 64 KiB (*.10, *.15 and on).
FEW=' 12.1.4 12.1.11 12.3.5 12.4.7 13.1.4 13.2.4 13.3.4 13.4.4 13.5.4 13.6.4 13.7.4 '
JUDGED=' 3 4 5 6 7 8 9 11 12 13 14 '
LARGE=(-x '9.*')
COMPRESSION=
WRITE=
for argument in "$@"; do
    case $argument in
        --large) LARGE=() ;;
        --compression) COMPRESSION=1 ;;
        --write) WRITE=1 ;;
        *) echo "autobahn.sh: unknown argument $argument" >&2 && exit 2 ;;
    esac
done

EXCLUDED=("${LARGE[@]}" -x '12.2.*' -x '12.5.*')
for group in 12.1 12.3 12.4 13.1 13.2 13.3 13.4 13.5 13.6 13.7; do
    for nth in {1..18}; do
        if [[ $FEW == *" $group.$nth "* ]]; then continue; fi
        if [[ -n $COMPRESSION && $JUDGED == *" $nth "* ]]; then continue; fi
        EXCLUDED+=(-x "$group.$nth")
    done
done

KOSOKU=${KOSOKU:-.venv/bin/kosoku}
PORT=$(free_port)
start "$WORK/server.log" "$DRUMLINE" serve --http_server.port "$PORT" --shards 2 --client.insecure \
    --engine.echo --websocket.compression --engine.slots_per_shard 200 --websocket.message_size_limit 33554432 \
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
python3 tests/system/autobahn.py "$WORK/reports/index.json" "$EXPECTED" ${WRITE:+--write}
