#!/usr/bin/env bash
# Every test of this repository, on a fresh clone with Rust, Node with npm, Python 3 and Debian's base.
#
# Usage: scripts/test.sh [NAME...]     all steps, or only those named, in the order below
#        scripts/test.sh --list        their names
#
# Installs what the chosen steps need and is not there: Debian packages (as root or by sudo), npm packages
# into tests/node_modules, Python packages into .venv, cargo-fuzz, cargo-audit and cargo-deny. Each step's output goes to a file of its
# own under the target folder and is shown where it fails. Every step is bounded in time and ends the
# processes it started. The last line is 'N passed, N failed'; any failure makes the exit status 1.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
TARGET=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_TARGET_DIR=$TARGET
export DRUMLINE=${DRUMLINE:-$TARGET/release/drumline}
LOGS=$TARGET/test-logs
# All fuzzers of frames, commands, files and so on share these seconds of processor time.
FUZZ_SECONDS=${FUZZ_SECONDS:-120}
# How long the fuzzing client speaks to a server.
FUZZ_CLIENT_SECONDS=${FUZZ_CLIENT_SECONDS:-60}
# Advisories about crates, and a copy of them for where the network does not let them be fetched.
ADVISORY_URL=${ADVISORY_URL:-https://github.com/RustSec/advisory-db}
ADVISORY_DB=${ADVISORY_DB:-}
# Quick to build; --release is quick to run, for longer runs.
FUZZ_BUILD=${FUZZ_BUILD:---dev}

# Needs that take long to build. They are built in this order while the first steps run.
BEHIND="release cargo-audit cargo-deny cargo-fuzz fuzzers"

# Name, seconds it may take, what it needs.
STEPS="
style       300
format      120
clippy      900
shellcheck  60     shellcheck
unit        900
loom        900
simulation  900
wire        900    release curl
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
client      300    release
hostile     600    release
audit       300    cargo-audit cargo-deny
fuzz        900    clang cargo-fuzz fuzzers
bench       900    release python
peers       900    release python peers
"

step_format() {
    cargo fmt --all --check && cargo fmt --manifest-path fuzz/Cargo.toml --check
}

step_style() { cargo test -p drumline-style; }

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

# Every Rust test that talks to the server over its sockets. One test program after the other.
step_wire() { cargo test --no-fail-fast --test wire --test hostile --test leaks; }

step_tune() { tests/system/tune.sh; }
step_sdk() { node tests/sdk/sdk.mjs && node tests/sdk/bandwidth.mjs && node tests/sdk/events.mjs; }
step_protocol() {
    node tests/sdk/protocol.mjs && .venv/bin/python tests/sdk/protocol.py "$DRUMLINE"
}
step_delta() { node tests/sdk/delta.mjs; }
step_keys() { node tests/sdk/keys.mjs; }
step_clock() { node tests/sdk/clock.mjs; }
step_proxies() { node tests/sdk/proxies.mjs; }
step_page() { node tests/sdk/page.mjs; }
step_browser() { node tests/sdk/browser.mjs; }
step_autobahn() { tests/system/autobahn.sh; }
step_nginx() { tests/system/nginx.sh; }
step_dead-peer() { tests/system/dead-peer.sh; }

# Our files by HdrHistogram's Python port, its files by ours.
step_histograms() {
    DRUMLINE_TEST_PYTHON=$PWD/.venv/bin/python \
        cargo test --workspace --lib python_agrees || return 1
    .venv/bin/python tests/system/histograms.py "$TARGET/release/drumline-bench"
}

# Each target in its share of the seconds, as many at a time as there are processors.
step_fuzz() {
    local targets share processors failed=0
    targets=$(cargo fuzz list) || return 1
    share=$((FUZZ_SECONDS / $(wc -w <<<"$targets")))
    processors=$(nproc)
    export -f in_fuzz fuzz_one
    export TARGET FUZZ_BUILD SHARE=$((share > 1 ? share : 1))
    # shellcheck disable=SC2086 # one argument a target
    printf '%s\n' $targets | xargs -P "$processors" -I{} bash -c 'fuzz_one {}' || failed=1
    return "$failed"
}

# fuzz_one TARGET: what it says is shown where it fails.
fuzz_one() {
    local log=$TARGET/test-logs/fuzz-$1.log
    mkdir -p "fuzz/corpus-work/$1"
    if in_fuzz run "$1" "fuzz/corpus-work/$1" "fuzz/seeds/$1" \
        -- -max_total_time="$SHARE" -timeout=10 -rss_limit_mb=4096 >"$log" 2>&1; then
        echo "$1: $(grep -Eo '^(Done|DONE).*' "$log" | tail -n 1)"
    else
        tail -n 60 "$log"
        echo "$1: failed"
        return 1
    fi
}

# Every transport by a client that sends valid, half-valid and invalid input; the seed is printed.
step_client() {
    DRUMLINE_FUZZ_SECONDS=$FUZZ_CLIENT_SECONDS \
        cargo test --test fuzz_client -- --nocapture
}

# The hostile loads, small: what must not happen, and the bound of a pass.
step_hostile() {
    "$TARGET/release/drumline-bench" hostile --connections 300 --seconds 1 --strict \
        --results "$TARGET/bench-smoke"
}

# Known faults of dependencies (.cargo/audit.toml), their licences, sources and bans (deny.toml).
step_audit() {
    local database lock
    database=$(advisory_database) || return 1
    echo "advisories of $database"
    for lock in Cargo.lock fuzz/Cargo.lock; do
        cargo audit --db "$database" --no-fetch --stale --deny warnings --color never --file "$lock" || return 1
    done
    cargo deny --color never check bans licenses sources
}

# advisory_database: fetches the database, or takes the copy of ADVISORY_DB; prints its folder.
advisory_database() {
    local fetched=$TARGET/advisory-db
    rm -rf "$fetched"
    if GIT_TERMINAL_PROMPT=0 timeout 120 git clone -q --depth 1 "$ADVISORY_URL" "$fetched" >&2; then
        echo "$fetched"
    elif [[ -d $ADVISORY_DB/crates ]]; then
        echo "$ADVISORY_DB"
    else
        echo "no advisory database: $ADVISORY_URL cannot be fetched; name a copy of it by ADVISORY_DB" >&2
        return 1
    fi
}

# The ramp of the million and its memory, at 30,000: none refused, none lost.
step_bench() {
    # An interval of pings long, so that each connection's is due once.
    "$TARGET/release/drumline-bench" million --connections 30000 --seconds 25 --stages shared \
        --results "$TARGET/bench-smoke"
}

# Every target of the comparison, small; a peer that is not there, one that dies.
step_peers() { tests/system/peers.sh; }

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
# need_tool NAME: a subcommand of cargo. It is quick to build rather than quick, and in a folder of
# its own, so that no step waits for it.
need_tool() {
    cargo "$1" --version >/dev/null 2>&1 ||
        CARGO_TARGET_DIR=$TARGET/tools cargo install "cargo-$1" --locked --debug
}
need_cargo-audit() { need_tool audit; }
need_cargo-deny() { need_tool deny; }
need_cargo-fuzz() { need_tool fuzz; }

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
