#!/usr/bin/env bash
# Runs every test of this repository. A fresh clone needs Rust, Node with npm, Python 3 and a Debian system.
#
# Usage: scripts/test.sh [NAME...]       run the steps of CI, or only the named steps, in the order of the list
#        scripts/test.sh full [NAME...]  the same at full size, with the steps that are marked "full"
#        scripts/test.sh --list          print the names of the steps
#        scripts/test.sh --help          print this help and the purpose of each step
#
# Installs what the chosen steps need and what is missing: Debian packages (as root or with sudo), npm
# packages into tests/node_modules, Python packages into .venv, cargo-fuzz, cargo-audit, cargo-deny, cargo-deb.
# Each step writes its output to target/test-logs/NAME.log; the script prints it when the step fails.
# Each step has a timeout and ends the processes that it started. The last line is 'N passed, N failed'.
# The exit status is 1 if a step failed.
#
# Variables:
#   DRUMLINE                   binary under test (default: target/release/drumline)
#   SIMULATION_SEEDS           seeds of the simulation (default: 10000; full: 50000)
#   FUZZ_SECONDS               processor time of all fuzz targets together (default: 80; full: 1800)
#   FUZZ_CLIENT_SECONDS        duration of the fuzzing client (default: 25; full: 600)
#   BENCH_CONNECTIONS          connections of the step bench (default: 30000; full: 200000)
#   ADVISORY_URL, ADVISORY_DB  advisory database to fetch, and a local copy for machines without network
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
TARGET=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_TARGET_DIR=$TARGET
export DRUMLINE=${DRUMLINE:-$TARGET/release/drumline}
LOGS=$TARGET/test-logs
# A full run is longer, and so are its timeouts. The step that the script calls inherits SIZE.
SIZE=${SIZE:-ci} SLOWER=1
if [[ ${1:-} == full ]]; then
    SIZE=full
    shift
fi
if [[ $SIZE == full ]]; then
    SLOWER=4
    SIMULATION_SEEDS=${SIMULATION_SEEDS:-50000}
    FUZZ_SECONDS=${FUZZ_SECONDS:-1800}
    FUZZ_CLIENT_SECONDS=${FUZZ_CLIENT_SECONDS:-600}
    BENCH_CONNECTIONS=${BENCH_CONNECTIONS:-200000}
fi
export SIZE
SIMULATION_SEEDS=${SIMULATION_SEEDS:-10000}
FUZZ_SECONDS=${FUZZ_SECONDS:-80}
FUZZ_CLIENT_SECONDS=${FUZZ_CLIENT_SECONDS:-25}
BENCH_CONNECTIONS=${BENCH_CONNECTIONS:-30000}
ADVISORY_URL=${ADVISORY_URL:-https://github.com/RustSec/advisory-db}
ADVISORY_DB=${ADVISORY_DB:-}
# --dev builds quickly; --release suits longer runs.
FUZZ_BUILD=${FUZZ_BUILD:---dev}

# Needs that take long to build or to fetch. The script makes them in this order, that of the steps which need them,
# while the first steps run. The other needs are there before the first step, so no two of them call apt at once.
BEHIND="release python rabbitmq centrifugo chromium cargo-audit cargo-deny cargo-deb cargo-fuzz fuzzers peers"
# Steps that run only when they are named or in a full run.
ONLY_FULL="deny deb"

# Name, timeout in seconds, needs | purpose. The style step runs first, before anything is installed.
STEPS="
style       300                            | Rules for the source: layers, imports, crates, lengths
format      120                            | rustfmt
clippy      900                            | clippy without warnings
shellcheck  60     shellcheck              | shellcheck of every script
unit        900                            | unit tests of the server, the harness and the style rules
loom        900                            | wake-ups of the bus in every interleaving of threads
simulation  1500                           | seeded simulation of whole nodes; finds every planted fault
wire        900    release curl            | the server over its sockets, byte for byte
disk        300    mkfs.ext4               | durable channels while small disks fill up or become read-only; as root
acme        300    release go pebble       | certificates from pebble, Let's Encrypt's server for tests
tune        300    ip                      | scripts/tune.sh in a network namespace
monitoring  120    release npm openssl prometheus | alerts and dashboard of packaging/, with Prometheus and promtool
packaging   120    release curl systemd    | the unit's and the container's filters, install.sh, manual pages
deb         900    release cargo-deb debootstrap | full: the Debian package, in a debootstrap folder
sdk         180    release npm             | centrifuge-js on every transport, bandwidth, EventSource
go          300    release go              | the Go SDK, in both encodings, over a link that is cut
protocol    300    release npm python      | Centrifuge protocol and HTTP API: JavaScript, Python SDK, schemathesis
book        60     python                  | the book in docs, built by mdBook
delta       300    npm                     | deltas applied by fossil-delta
keys        180    release npm             | tokens with key sets from an HTTP endpoint
feeds       900    release rabbitmq go pebble | consumers with Debian's RabbitMQ, which is killed, frozen and restarted
delivery    600    release npm python      | durable channels: retries with cent, SDKs that are cut, a server that is killed
power       900    release                 | the store after a power cut at random points; finds syncs that do nothing
clock       180    release npm faketime    | tokens and revocations while the wall clock steps
proxies     180    release npm             | proxies and hooks with a backend
conformance 600    release npm go centrifugo | a table of scripts against Drumline and against Centrifugo
page        180    release npm chromium    | the server's page and its admin page in a browser
tls         180    release npm python chromium openssl curl testssl | TLS with openssl, curl, tlslite-ng, sslyze, SDKs, Chromium; full: testssl.sh
browser     180    release npm chromium    | centrifuge-js in a browser
ticker      480    release npm chromium rabbitmq | scripts/ticker.sh: its page by each transport, Ctrl-C, a broker that dies
autobahn    400    release python curl     | the Autobahn suite of WebSocket tests
nginx       200    release npm nginx curl  | every transport behind nginx
dead-peer   120    release npm nft ip curl | clients whose network drops every packet
traces      120    release python          | OpenTelemetry traces, decoded by the library of OpenTelemetry
histograms  900    release python          | histogram files by other implementations of HdrHistogram
client      300    release                 | a client that sends valid, half-valid and invalid input
audit       300    cargo-audit             | advisories of dependencies
deny        300    cargo-deny              | full: licences, sources and duplicates of dependencies
fuzz        900    clang cargo-fuzz fuzzers | fuzz targets of every parser
bench       900    release python nginx rabbitmq redis nft ip | drumline-bench: million, one-to-one, ladder, showdown, feed, TLS, durable, soak; small
peers       900    release python peers    | drumline-bench peers, with a peer that is missing and one that dies
hostile     600    release                 | loads of attackers, small, with the bound of a pass; last, when nothing is built behind
"

step_format() {
    cargo fmt --all --check && cargo fmt --manifest-path fuzz/Cargo.toml --check
}

step_style() { cargo test -p drumline-style; }

step_clippy() { cargo clippy --workspace --all-targets -- -D warnings; }

step_shellcheck() {
    local scripts
    mapfile -t scripts < <(git ls-files '*.sh' .ci/run packaging/debian)
    shellcheck -x "${scripts[@]}"
}

# A page that the summary names must exist; the style test checks the links.
step_book() { .venv/bin/mdbook build docs --dest-dir "$TARGET/book"; }

# The same packages and features in every step, so that each test program is built once. The planted
# faults do nothing before a test plants one.
TESTS=(--workspace --exclude drumline-loom --features drumline/planted-faults)

step_unit() { cargo test "${TESTS[@]}" --lib --bins; }

step_loom() {
    cargo test -p drumline-loom
}

# The server and the simulation are optimized and have no symbols of a debugger, which take long to write; their
# dependencies are those of the other steps. The variable is set here alone: the server refuses unknown variables with
# this prefix.
step_simulation() {
    local profile=profile.dev.package.drumline
    local tests=(cargo test --config "$profile.opt-level=2" --config "$profile.debug=false" "${TESTS[@]}" --test simulation)
    export RUST_BACKTRACE=0
    "${tests[@]}" -- --nocapture --skip every_seed &&
        DRUMLINE_SIMULATION_SEEDS=$SIMULATION_SEEDS "${tests[@]}" -- --nocapture every_seed |
        tee "$LOGS/simulation-seeds.log" &&
        grep '^simulation: ' "$LOGS/simulation-seeds.log"
}

# Cargo runs one test program after the other.
step_wire() { cargo test "${TESTS[@]}" --no-fail-fast --test wire --test hostile --test leaks; }

# Mounts small file systems in a mount namespace of its own.
step_disk() {
    if ((EUID != 0)); then
        echo "the step mounts file systems: run scripts/test.sh disk as root"
        return 1
    fi
    cargo test "${TESTS[@]}" --test wire -- --ignored disk_
}

step_acme() {
    PEBBLE=$TARGET/tools/pebble cargo test "${TESTS[@]}" --test wire -- --ignored certificates_are_issued
}

step_tune() { tests/system/tune.sh; }
step_monitoring() { node tests/system/monitoring.mjs; }
step_packaging() { tests/system/packaging.sh; }
step_deb() { tests/system/packaging.sh deb; }
step_sdk() { node tests/sdk/sdk.mjs && node tests/sdk/bandwidth.mjs && node tests/sdk/events.mjs; }
# The variable stops the search for a workspace in the folders above.
step_go() { cd tests/sdk/go && GOWORK=off go test -count=1 ./...; }
step_protocol() {
    node tests/sdk/protocol.mjs && .venv/bin/python tests/sdk/protocol.py "$DRUMLINE"
}
# The unit tests write the cases: cargo has built them already, with the packages and features of the other steps.
step_delta() {
    local cases=$TARGET/delta-cases
    DRUMLINE_DELTA_CASES=$cases cargo test "${TESTS[@]}" --lib cases_for_the_sdk -- --ignored || return 1
    node tests/sdk/delta.mjs "$cases"
}
step_keys() { node tests/sdk/keys.mjs; }
# A full run kills the broker 20 times.
step_feeds() {
    if [[ $SIZE == full ]]; then export DRUMLINE_FEED_KILLS=20; fi
    PEBBLE=$TARGET/tools/pebble cargo test "${TESTS[@]}" --test feeds
}
# Prints its seed.
step_delivery() {
    local seconds=60
    if [[ $SIZE == full ]]; then seconds=1800; fi
    .venv/bin/python tests/system/delivery "$DRUMLINE" --seconds "$seconds"
}
# Prints its seed.
step_power() {
    local cuts=20
    if [[ $SIZE == full ]]; then cuts=1000; fi
    "$TARGET/release/drumline-bench" durable-power --cuts "$cuts" --server "$DRUMLINE" --results "$TARGET/bench-smoke"
}
step_clock() { node tests/sdk/clock.mjs; }
step_proxies() { node tests/sdk/proxies.mjs; }
# The first run plants faults into Drumline's answers and must find each.
step_conformance() {
    export CENTRIFUGO=${CENTRIFUGO:-$TARGET/peers/centrifugo/centrifugo}
    node tests/conformance/run.mjs --plants && node tests/conformance/run.mjs &&
        node tests/conformance/metrics.mjs
}
step_page() { node tests/sdk/page.mjs && node tests/sdk/admin.mjs; }
step_tls() { tests/system/tls.sh; }
step_browser() { node tests/sdk/browser.mjs; }
step_ticker() { node tests/system/ticker.mjs; }
step_autobahn() { tests/system/autobahn.sh; }
step_nginx() { tests/system/nginx.sh; }
step_dead-peer() { tests/system/dead-peer.sh; }

step_traces() { .venv/bin/python tests/system/traces.py "$DRUMLINE"; }

# The Python port of HdrHistogram reads files of the harness, and the harness reads its files.
step_histograms() {
    DRUMLINE_TEST_PYTHON=$PWD/.venv/bin/python \
        cargo test "${TESTS[@]}" --lib python_agrees || return 1
    .venv/bin/python tests/system/histograms.py "$TARGET/release/drumline-bench"
}

# Each target runs for its share of FUZZ_SECONDS, as many at a time as there are processors.
step_fuzz() {
    local targets share processors failed=0
    targets=$(cargo fuzz list) || return 1
    share=$((FUZZ_SECONDS / $(wc -w <<<"$targets")))
    processors=$(nproc)
    export -f in_fuzz fuzz_one
    export TARGET FUZZ_BUILD SHARE=$((share > 1 ? share : 1))
    # shellcheck disable=SC2086 # one argument per target
    printf '%s\n' $targets | xargs -P "$processors" -I{} bash -c 'fuzz_one {}' || failed=1
    return "$failed"
}

# fuzz_one TARGET: runs one target; prints the end of its log if it fails.
fuzz_one() {
    local log=$TARGET/test-logs/fuzz-$1.log
    mkdir -p "fuzz/corpus-work/$1"
    if in_fuzz run "$1" "fuzz/corpus-work/$1" "fuzz/seeds/$1" \
        -- -max_total_time="$SHARE" -timeout=60 -print_funcs=0 -rss_limit_mb=4096 >"$log" 2>&1; then
        echo "$1: $(grep -Eo '^(Done|DONE).*' "$log" | tail -n 1)"
    else
        tail -n 60 "$log"
        echo "$1: failed"
        return 1
    fi
}

# Prints its seed.
step_client() {
    DRUMLINE_FUZZ_SECONDS=$FUZZ_CLIENT_SECONDS \
        cargo test "${TESTS[@]}" --test fuzz_client -- --nocapture
}

# A full run has the connections and seconds that RESULTS.md reports.
step_hostile() {
    local size=(--connections 300 --seconds 1)
    if [[ $SIZE == full ]]; then size=(); fi
    "$TARGET/release/drumline-bench" hostile "${size[@]}" --strict --results "$TARGET/bench-smoke"
}

# .cargo/audit.toml lists accepted advisories.
step_audit() {
    local database lock
    database=$(advisory_database) || return 1
    echo "advisories of $database"
    for lock in Cargo.lock fuzz/Cargo.lock; do
        cargo audit --db "$database" --no-fetch --stale --deny warnings --color never --file "$lock" || return 1
    done
}

# deny.toml has the rules.
step_deny() { cargo deny --color never check bans licenses sources; }

# advisory_database: fetches the database, or uses the copy in ADVISORY_DB; prints its folder.
advisory_database() {
    local fetched=$TARGET/advisory-db
    rm -rf "$fetched"
    if GIT_TERMINAL_PROMPT=0 timeout 120 git clone -q --depth 1 "$ADVISORY_URL" "$fetched" >&2; then
        echo "$fetched"
    elif [[ -d $ADVISORY_DB/crates ]]; then
        echo "$ADVISORY_DB"
    else
        echo "no advisory database: cannot fetch $ADVISORY_URL; set ADVISORY_DB to the folder of a copy" >&2
        return 1
    fi
}

# No connection may be refused or lost.
step_bench() {
    local bench=$TARGET/release/drumline-bench results=$TARGET/bench-smoke
    # As long as the ping interval, so that each connection gets a ping.
    "$bench" million --connections "$BENCH_CONNECTIONS" --seconds 5 --ping-seconds 5 --stages shared \
        --results "$results" &&
        "$bench" one-to-one --connections 2000 --seconds 2 --rate 2000 --shards 8 --ping-seconds 2 \
            --slow-ping-seconds 3 --results "$results" &&
        "$bench" ladder --connections 2000 --seconds 2 --results "$results" &&
        "$bench" showdown --only 200 --relayed 20 --seconds 1 --rounds 1 --parts headers,cases,latency \
            --results "$results" &&
        "$bench" feed --seconds 1 --rounds 1 --results "$results" &&
        "$bench" soak --connections 200 --seconds 20 --results "$results" &&
        bench_tls "$bench" "$results" &&
        bench_durable "$bench" "$results"
}

# bench_tls PROGRAM RESULTS: TLS, half-open heads and scrapes, small.
bench_tls() {
    local bench=$1 results=$2
    "$bench" tls-million --connections 1000 --results "$results" &&
        "$bench" tls-fanout --connections 500 --rounds 1 --results "$results" &&
        "$bench" tls-handshakes --connections 500 --rounds 1 --results "$results" &&
        "$bench" tls-storm --connections 500 --rounds 1 --seconds 2 --results "$results" &&
        "$bench" scrape --connections 1000 --seconds 1 --results "$results" || return 1
    if [[ $SIZE == full ]]; then
        "$bench" slowloris --connections 2000 --rounds 2 --results "$results"
    fi
}

# bench_durable PROGRAM RESULTS: durable channels, small. A lost publication fails the step. Histories in memory do not
# survive a kill: the same checks must find that.
bench_durable() {
    local bench=$1 results=$2 kills=20
    if [[ $SIZE == full ]]; then kills=1000; fi
    "$bench" durable --seconds 1 --rounds 1 --results "$results" &&
        "$bench" durable-latency --seconds 1 --rounds 1 --results "$results" &&
        "$bench" durable-steady --seconds 5 --results "$results" &&
        "$bench" durable-restart --publications 200000 --channels 2000 --seconds 1 --rounds 1 \
            --results "$results" &&
        "$bench" durable-kill --kills "$kills" --results "$results" || return 1
    if "$bench" durable-kill --kills 4 --in-memory --results "$results/in-memory"; then
        echo "durable-kill finds no loss although histories are in memory"
        return 1
    fi
}

step_peers() { tests/system/peers.sh; }

# --- needs of the steps --------------------------------------------------------------------------

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

# need_command COMMAND PACKAGE: installs the Debian package if the command is missing.
need_command() { command -v "$1" >/dev/null || apt_install "$2"; }
need_shellcheck() { need_command shellcheck shellcheck; }
need_nginx() { need_command nginx nginx; }
need_chromium() { need_command chromium chromium; }
need_nft() { need_command nft nftables; }
need_ip() { need_command ip iproute2; }
need_faketime() { need_command faketime faketime; }
# The tests start brokers of their own, on free ports.
need_rabbitmq() {
    need_command openssl openssl && need_command rabbitmq-server rabbitmq-server
}
need_redis() { need_command redis-server redis-server; }
need_prometheus() { need_command prometheus prometheus; }
need_openssl() { need_command openssl openssl; }
need_testssl() { if [[ $SIZE == full ]]; then need_command testssl testssl.sh; fi; }
need_mkfs.ext4() { need_command mkfs.ext4 e2fsprogs; }
need_curl() { need_command curl curl; }
need_clang() { need_command clang clang; }
need_pebble() {
    [[ -x $TARGET/tools/pebble ]] ||
        GOBIN=$TARGET/tools go install github.com/letsencrypt/pebble/v2/cmd/pebble@v2.10.3
}
need_centrifugo() { if [[ ! -x ${CENTRIFUGO:-} ]]; then scripts/peers.sh setup centrifugo; fi; }
need_peers() { scripts/peers.sh setup; }
need_release() { cargo build --release --workspace; }
# Sanitizer flags are unstable; RUSTC_BOOTSTRAP lets the stable compiler accept them.
in_fuzz() { RUSTC_BOOTSTRAP=1 cargo fuzz "$1" "$FUZZ_BUILD" --target-dir "$TARGET/fuzz" "${@:2}"; }
need_fuzzers() { in_fuzz build; }
# need_tool NAME: installs a subcommand of cargo. A debug build is faster to make; a target folder of its
# own keeps cargo's lock free for the steps.
need_tool() {
    cargo "$1" --version >/dev/null 2>&1 ||
        CARGO_TARGET_DIR=$TARGET/tools CARGO_PROFILE_DEV_DEBUG=0 cargo install "cargo-$1" --locked --debug
}
need_cargo-audit() { need_tool audit; }
need_cargo-deny() { need_tool deny; }
need_cargo-deb() { need_tool deb; }
need_debootstrap() { need_command debootstrap debootstrap; }
need_systemd() { need_command systemd-analyze systemd; }
need_cargo-fuzz() { need_tool fuzz; }

need_npm() {
    if [[ tests/node_modules/.package-lock.json -nt tests/package-lock.json ]]; then return; fi
    npm ci --prefix tests --ignore-scripts --no-audit --no-fund
}

# Debian's Go is older than the SDK needs. The module proxy has Go itself, as the module of a toolchain.
GO_VERSION=1.25.5
GO_SHA256=8cea6783dab64d68b38f5b81ecd38d45155a3c06638991acc6af19e0fca80edb
GO_HOME=$TARGET/tools/golang.org/toolchain@v0.0.1-go$GO_VERSION.linux-amd64
if [[ -x $GO_HOME/bin/go ]]; then PATH=$GO_HOME/bin:$PATH; fi

# Go 1.21 and later fetch the toolchain that a module asks for.
need_go() {
    local minor archive=$TARGET/tools/go.zip
    minor=$(go env GOVERSION 2>/dev/null | sed -E 's/^go1\.([0-9]+).*/\1/')
    if ((${minor:-0} >= 21)); then return; fi
    mkdir -p "$TARGET/tools"
    need_command curl curl && curl -sSfL --max-time 300 -o "$archive" \
        "https://proxy.golang.org/golang.org/toolchain/@v/v0.0.1-go$GO_VERSION.linux-amd64.zip" || return 1
    sha256sum -c <<<"$GO_SHA256  $archive" && python3 -m zipfile -e "$archive" "$TARGET/tools" || return 1
    # The archive keeps no permissions.
    chmod +x "$GO_HOME"/bin/* "$GO_HOME"/pkg/tool/*/* && rm "$archive" && PATH=$GO_HOME/bin:$PATH
}

need_python() {
    if [[ .venv/ready -nt tests/requirements.txt ]]; then return; fi
    python3 -m venv .venv || { apt_install python3-venv && python3 -m venv .venv; } || return 1
    .venv/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt && touch .venv/ready
}

# --- running the steps -----------------------------------------------------------------------------

say() { printf '\n== %s\n' "$*"; }

# field NAME NTH: prints the words of a step's line from the NTH on, one per line, without the purpose.
field() {
    awk -v name="$1" -v nth="$2" \
        '$1 == name { for (i = nth; i <= NF && $i != "|"; i++) print $i }' <<<"$STEPS"
}

# help: prints the head of this file, and the name and purpose of each step.
help() {
    awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$PWD/scripts/test.sh"
    printf '\nSteps:\n'
    awk -F ' *[|] *' 'NF > 1 { split($1, words, " "); printf "  %-11s %s\n", words[1], $2 }' <<<"$STEPS"
}

# The script calls itself for each step, so that timeout can end the step.
if [[ ${1:-} == --step ]]; then
    "step_$2"
    exit
fi

mapfile -t NAMES < <(awk 'NF { print $1 }' <<<"$STEPS")
if [[ ${1:-} == --list ]]; then
    printf '%s\n' "${NAMES[@]}"
    exit
fi
if [[ ${1:-} == --help || ${1:-} == -h ]]; then
    help
    exit
fi
for name in "$@"; do
    if ! printf '%s\n' "${NAMES[@]}" | grep -qxF -- "$name"; then
        echo "test.sh: unknown step '$name'; the steps are: ${NAMES[*]}" >&2
        exit 2
    fi
done
CHOSEN=()
for name in "${NAMES[@]}"; do
    if (($# == 0)); then
        if [[ $SIZE == full || " $ONLY_FULL " != *" $name "* ]]; then CHOSEN+=("$name"); fi
    elif printf '%s\n' "$@" | grep -qxF -- "$name"; then
        CHOSEN+=("$name")
    fi
done

mkdir -p "$LOGS"
SUMMARY=() PASSED=0 FAILED=0

# run NAME COMMAND...: runs the command with its output in a log, and counts the result.
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

# run_step NAME: runs a step with its timeout.
run_step() {
    local seconds
    seconds=$(($(field "$1" 2 | head -n 1) * SLOWER))
    run "$1" in_group timeout --kill-after=30 "$seconds" "$PWD/scripts/test.sh" --step "$1"
}

# Ctrl-C ends the step and the builds behind it. timeout makes a process group of its own, which Ctrl-C does not
# reach, and bash would wait for the step. With job control a step in the background keeps SIGINT as it is by default.
GROUP='' BUILDER=''

# in_group COMMAND...: runs a command as a process group, which end_groups can end.
in_group() {
    local status
    set -m
    "$@" &
    GROUP=$!
    set +m
    wait "$GROUP"
    status=$?
    GROUP=''
    return "$status"
}

end_groups() {
    if [[ -n $GROUP ]]; then kill -- "-$GROUP" 2>/dev/null; fi
    if [[ -n $BUILDER ]]; then kill -- "-$BUILDER" 2>/dev/null; fi
}
trap end_groups EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
if [[ ${CHOSEN[0]} == style ]]; then
    run_step style
    CHOSEN=("${CHOSEN[@]:1}")
fi

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

# build_behind: builds the needs in BEHIND one after the other; each leaves its log and exit status.
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
set -m
build_behind &
BUILDER=$!
set +m

# await_built NEED: waits for a need that build_behind builds; prints its log, returns its status.
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
    run_step "$name"
done

say "summary"
printf '%s\n' "${SUMMARY[@]}"
echo "$PASSED passed, $FAILED failed"
((FAILED == 0))
