#!/usr/bin/env bash
# Every target of `drumline-bench peers` for real, in a small run: nothing is lost and no line of a table is missing.
# And what goes wrong is said: a peer that is not set up, one that dies half-way, too few descriptors.
#
# Needs `scripts/peers.sh setup` and a release build.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
TARGET=${CARGO_TARGET_DIR:-$PWD/target}
BENCH=$TARGET/release/drumline-bench
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
TARGETS="drumline kernel-baseline centrifugo centrifugo-tuned uwebsockets nchan nats ws mosquitto monoio tokio"

fail() {
    echo "peers: $*" >&2
    tail -n 60 "$WORK/out" >&2
    exit 1
}

# peers ARGUMENT...: a small run; its output goes to $WORK/out.
peers() {
    TMPDIR=$WORK "$BENCH" peers --results "$WORK/results" --rounds 1 --rate 200 "$@" >"$WORK/out" 2>&1
}

# refused TEXT ARGUMENT...: the run must fail, and say so.
refused() {
    local text=$1
    shift
    if peers "$@"; then fail "ended with 0 though it should say: $text"; fi
    grep -qF -- "$text" "$WORK/out" || fail "does not say: $text"
}

# Sockudo takes ten minutes to build: it is measured where it is built.
if scripts/peers.sh check sockudo >/dev/null; then TARGETS="$TARGETS sockudo"; fi
# A storm takes longest: a small run has one of the targets with a client of its own each.
STORMS="drumline centrifugo uwebsockets nchan nats"
if [[ ${SIZE:-} == full ]]; then STORMS=$TARGETS; fi
for scenario in unicast storm; do
    targets=$TARGETS
    if [[ $scenario == storm ]]; then targets=$STORMS; fi
    peers --connections 300 --seconds 1 --scenarios "$scenario" --targets "${targets// /,}" ||
        fail "a run of $scenario failed"
    for target in $targets; do
        lines=$(grep -c "^  $target  " "$WORK/out")
        ((lines == 1)) || fail "$target stands in $lines tables of $scenario instead of one"
    done
done
peers --connections 300 --targets nchan --scenarios idle || fail "a run of idle connections failed"
peers --connections 200 --seconds 1 --targets centrifugo \
    --scenarios idle-distinct,publish,recovery,history,presence,members ||
    fail "a run of what servers keep failed"
for scenario in recovery history presence members; do
    lines=$(sed -n "/^$scenario: /,/^$/p" "$WORK/out" | grep -cE '^  (drumline|centrifugo)  +[0-9]')
    ((lines >= 2)) || fail "$scenario has values of $lines of 2 targets"
done
echo "every target is in every table, and nothing was lost"

refused "scripts/peers.sh setup" --peers "$WORK" --connections 100 --targets ws --scenarios idle
grep -q "^  ws  " "$WORK/out" || fail "who is not set up has no line"

peers --connections 300 --seconds 10 --targets nchan --scenarios unicast &
running=$!
for _ in $(seq 300); do
    sleep 0.2
    nginx=$(pgrep -f "nginx: master process .*$WORK" | head -n 1)
    if [[ -n $nginx ]]; then break; fi
done
[[ -n $nginx ]] || fail "nchan was not started"
# Half-way is where all its clients are there.
sockets() {
    local worker
    for worker in $(pgrep -P "$nginx"); do
        find "/proc/$worker/fd" -lname 'socket:*' 2>/dev/null
    done | wc -l
}
for _ in $(seq 300); do
    if (($(sockets) > 300)); then break; fi
    sleep 0.2
done
kill -KILL "$nginx"
if wait "$running"; then fail "ended with 0 though a peer died"; fi
grep -q "nchan failed in round 1" "$WORK/out" || fail "does not say that nchan died"
left=$(ps -eo pgid=,stat=,comm= | awk -v group="$nginx" '$1 == group && $2 !~ /^Z/')
[[ -z $left ]] || fail "left behind: $left"
grep -q "^  nchan  " "$WORK/out" || fail "who died has no line"

(ulimit -n 1500 && refused "exceed what a process can hold here" --connections 2000 --targets kernel-baseline) || exit 1
echo "a peer that is not set up, one that dies and too few descriptors are told"
