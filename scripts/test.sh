#!/usr/bin/env bash
# Every test of this repository, on a fresh clone with Rust, Node with npm, Python 3 and Debian's base.
#
# Usage: scripts/test.sh [NAME...]     all steps, or only those named, in the order below
#        scripts/test.sh --list        their names
#
# Installs what the chosen steps need and is not there: Debian packages (as root or by sudo), npm packages
# into tests/node_modules, Python packages into .venv, cargo-fuzz. Each step's output goes to a file of its
# own under the target folder and is shown where it fails. Every step is bounded in time and ends the
# processes it started. The last line is 'N passed, N failed'; any failure makes the exit status 1.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
TARGET=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_TARGET_DIR=$TARGET
export DRUMLINE=${DRUMLINE:-$TARGET/release/drumline}
LOGS=$TARGET/test-logs
FUZZ_SECONDS=${FUZZ_SECONDS:-15}
# Quick to build; --release is quick to run, for longer runs.
FUZZ_BUILD=${FUZZ_BUILD:---dev}

# Needs that take long to build. They are built in this order while the first steps run.
BEHIND="release cargo-fuzz fuzzers"

# Name, seconds it may take, what it needs.
STEPS="
format      120
clippy      900
shellcheck  60     shellcheck
unit        900
loom        900
simulation  900
wire        900    release
tune        300    ip
sdk         180    release npm
protocol    300    release npm python
delta       300    npm
keys        180    release npm
clock       180    release npm faketime
proxies     180    release npm
page        180    release npm chromium
browser     180    release npm chromium
autobahn    400    release python curl
nginx       200    release npm nginx curl
dead-peer   120    release npm nft ip curl
histograms  900    release python
fuzz        1200   clang cargo-fuzz fuzzers
bench       900    release python
peers       900    release python peers
"

step_format() {
    cargo fmt --all --check && cargo fmt --manifest-path fuzz/Cargo.toml --check
}

step_clippy() { cargo clippy --workspace --all-targets -- -D warnings; }

step_shellcheck() {
    local scripts
    mapfile -t scripts < <(git ls-files '*.sh' .ci/run)
    shellcheck -x "${scripts[@]}"
}

step_unit() { cargo test --workspace --lib --bins; }

step_loom() {
    cargo test --lib --features loom loom
}

step_simulation() { cargo test --test simulation; }

# Everything in tests/*.rs but the simulation. One process after the other.
step_wire() {
    local path name arguments=()
    for path in tests/*.rs tests/*/main.rs; do
        name=${path#tests/}
        name=${name%/main.rs}
        name=${name%.rs}
        if [[ $name != simulation ]]; then arguments+=(--test "$name"); fi
    done
    cargo test --no-fail-fast "${arguments[@]}"
}

step_tune() { tests/tune.sh; }
step_sdk() { node tests/sdk.mjs && node tests/bandwidth.mjs; }
step_protocol() {
    node tests/protocol.mjs && .venv/bin/python tests/protocol.py "$DRUMLINE"
}
step_delta() { node tests/delta.mjs; }
step_keys() { node tests/keys.mjs; }
step_clock() { node tests/clock.mjs; }
step_proxies() { node tests/proxies.mjs; }
step_page() { node tests/page.mjs; }
step_browser() { node tests/browser.mjs; }
step_autobahn() { tests/autobahn.sh; }
step_nginx() { tests/nginx.sh; }
step_dead-peer() { tests/dead-peer.sh; }

# Our files by HdrHistogram's Python port, its files by ours.
step_histograms() {
    DRUMLINE_TEST_PYTHON=$PWD/.venv/bin/python \
        cargo test --workspace --lib python_agrees || return 1
    .venv/bin/python tests/histograms.py "$TARGET/release/drumline-bench"
}

step_fuzz() {
    local target
    for target in frame command head; do
        mkdir -p "fuzz/corpus-work/$target"
        in_fuzz run "$target" "fuzz/corpus-work/$target" "fuzz/seeds/$target" \
            -- -max_total_time="$FUZZ_SECONDS" -timeout=10 -rss_limit_mb=4096 || return 1
    done
}

# The ramp of the million and its memory, at 30,000: none refused, none lost.
step_bench() {
    # An interval of pings long, so that each connection's is due once.
    "$TARGET/release/drumline-bench" million --connections 30000 --seconds 25 --stages shared \
        --results "$TARGET/bench-smoke"
}

# Every target of the comparison, small; a peer that is not there, one that dies.
step_peers() { tests/peers.sh; }

# --- what steps need --------------------------------------------------------------------------

APT_UPDATED=
apt_install() {
    local root=()
    if ((EUID != 0)); then root=(sudo); fi
    if [[ -z $APT_UPDATED ]]; then
        "${root[@]}" apt-get update -q || return 1
        APT_UPDATED=1
    fi
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@"
}

# A command, and the Debian package that brings it.
need_command() { command -v "$1" >/dev/null || apt_install "$2"; }
need_shellcheck() { need_command shellcheck shellcheck; }
need_nginx() { need_command nginx nginx; }
need_chromium() { need_command chromium chromium; }
need_nft() { need_command nft nftables; }
need_ip() { need_command ip iproute2; }
need_faketime() { need_command faketime faketime; }
need_curl() { need_command curl curl; }
need_clang() { need_command clang clang; }
need_peers() { scripts/peers.sh setup; }
need_release() { cargo build --release --workspace; }
# The sanitizers' flags are unstable; the compiler is the stable one all the same.
in_fuzz() { RUSTC_BOOTSTRAP=1 cargo fuzz "$1" "$FUZZ_BUILD" --target-dir "$TARGET/fuzz" "${@:2}"; }
need_fuzzers() { in_fuzz build; }
need_cargo-fuzz() { cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked; }

need_npm() {
    if [[ tests/node_modules/.package-lock.json -nt tests/package-lock.json ]]; then return; fi
    npm ci --prefix tests --ignore-scripts --no-audit --no-fund
}

need_python() {
    if [[ .venv/ready -nt tests/requirements.txt ]]; then return; fi
    python3 -m venv .venv || { apt_install python3-venv && python3 -m venv .venv; } || return 1
    .venv/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt && touch .venv/ready
}

# --- running them -----------------------------------------------------------------------------

say() { printf '\n== %s\n' "$*"; }

# field NAME NTH: the rest of a step's line from its NTH word on.
field() { awk -v name="$1" -v nth="$2" '$1 == name { for (i = nth; i <= NF; i++) print $i }' <<<"$STEPS"; }

# A step again in a process of its own, so that its time can be bounded.
if [[ ${1:-} == --step ]]; then
    "step_$2"
    exit
fi

mapfile -t NAMES < <(awk 'NF { print $1 }' <<<"$STEPS")
if [[ ${1:-} == --list ]]; then
    printf '%s\n' "${NAMES[@]}"
    exit
fi
for name in "$@"; do
    if ! printf '%s\n' "${NAMES[@]}" | grep -qxF -- "$name"; then
        echo "test.sh: no step is called '$name'; there are: ${NAMES[*]}" >&2
        exit 2
    fi
done
CHOSEN=()
for name in "${NAMES[@]}"; do
    if (($# == 0)) || printf '%s\n' "$@" | grep -qxF -- "$name"; then CHOSEN+=("$name"); fi
done

mkdir -p "$LOGS"
SUMMARY=() PASSED=0 FAILED=0

# run NAME COMMAND...: runs it into its log, and keeps the books.
run() {
    local name=$1 start=$SECONDS result=passed
    shift
    say "$name"
    if "$@" >"$LOGS/$name.log" 2>&1 </dev/null; then
        PASSED=$((PASSED + 1))
        tail -n 1 "$LOGS/$name.log" | cut -c1-100
    else
        result=FAILED
        FAILED=$((FAILED + 1))
        tail -n 100 "$LOGS/$name.log"
    fi
    SUMMARY+=("$(printf '%-20s %-7s %5d s' "$name" "$result" $((SECONDS - start)))")
}

NEEDS=()
for name in "${CHOSEN[@]}"; do
    while read -r need; do
        if [[ -n $need && " ${NEEDS[*]} " != *" $need "* ]]; then NEEDS+=("$need"); fi
    done < <(field "$name" 3)
done
is_behind() { [[ " $BEHIND " == *" $1 "* ]]; }
for need in "${NEEDS[@]}"; do
    if ! is_behind "$need"; then run "setup-$need" "need_$need"; fi
done

# What is built behind the first steps, one after the other; each leaves its log and its status.
build_behind() {
    local need
    for need in $BEHIND; do
        if [[ " ${NEEDS[*]} " == *" $need "* ]]; then
            "need_$need" >"$LOGS/behind-$need.log" 2>&1 </dev/null
            echo $? >"$LOGS/behind-$need.status"
        fi
    done
}
rm -f "$LOGS"/behind-*
build_behind &
BUILDER=$!
trap 'kill "$BUILDER" 2>/dev/null' EXIT

# Waits for what is built behind, and says how that went.
await_built() {
    while [[ ! -s $LOGS/behind-$1.status ]]; do
        if ! kill -0 "$BUILDER" 2>/dev/null && [[ ! -s $LOGS/behind-$1.status ]]; then return 1; fi
        sleep 1
    done
    cat "$LOGS/behind-$1.log"
    return "$(<"$LOGS/behind-$1.status")"
}
BUILT=" "
for name in "${CHOSEN[@]}"; do
    for need in $(field "$name" 3); do
        if is_behind "$need" && [[ $BUILT != *" $need "* ]]; then
            BUILT+="$need "
            run "setup-$need" await_built "$need"
        fi
    done
    run "$name" timeout --kill-after=30 "$(field "$name" 2 | head -n 1)" "$PWD/scripts/test.sh" --step "$name"
done

say "summary"
printf '%s\n' "${SUMMARY[@]}"
echo "$PASSED passed, $FAILED failed"
((FAILED == 0))
