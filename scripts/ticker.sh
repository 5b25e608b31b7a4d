#!/usr/bin/env bash
# The stock ticker: RabbitMQ, a price generator, Drumline with a feed, and a page that shows the prices and
# what each transport costs. Ctrl-C stops all of it.
#
# Usage: scripts/ticker.sh [OPTION...]
#   --port N        port of the page; the next four are for Drumline, RabbitMQ and Erlang (default: 8700)
#   --address IP    address of the page; 0.0.0.0 shows it to other devices, such as a phone
#                   (default: 127.0.0.1)
#   --rate N        prices per second, all 20 symbols together (default: 4000)
#   --seed N        seed of the prices; the same seed repeats them (default: random)
#   --help          print this help
#
# Installs rabbitmq-server as root or with sudo if it is missing, and builds Drumline and the ticker with
# Cargo. The broker runs without systemd, in a folder of its own that the script removes, and listens on
# 127.0.0.1 alone, like Drumline. It touches no other RabbitMQ of the machine.
#
# Variables: DRUMLINE and TICKER name binaries to use instead of building them. TMPDIR is where the folder is.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
TARGET=${CARGO_TARGET_DIR:-$PWD/target}
RABBITMQ=/usr/lib/rabbitmq/bin/rabbitmq-server
PORT=8700 ADDRESS=127.0.0.1 RATE=4000 SEED=

# fail CAUSE CURE: prints an error and ends the script.
fail() {
    echo "ticker.sh: $1; $2" >&2
    exit 1
}

usage() {
    echo "ticker.sh: $1 (scripts/ticker.sh --help)" >&2
    exit 2
}

while (($# > 0)); do
    case $1 in
    --help | -h)
        awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$PWD/scripts/ticker.sh"
        exit
        ;;
    --port | --address | --rate | --seed) (($# > 1)) || usage "$1 needs a value" ;;
    *) usage "unknown argument '$1'" ;;
    esac
    case $1 in
    --port) PORT=$2 ;;
    --address) ADDRESS=$2 ;;
    --rate) RATE=$2 ;;
    --seed) SEED=$2 ;;
    esac
    shift 2
done
# check_number OPTION VALUE MAX
check_number() {
    if ! [[ $2 =~ ^[1-9][0-9]{0,5}$ ]] || (($2 > $3)); then usage "$1 takes a number from 1 to $3, not '$2'"; fi
}
check_number --port "$PORT" 65531
check_number --rate "$RATE" 100000
[[ $SEED =~ ^[0-9]{0,18}$ ]] || usage "--seed takes a whole number, not '$SEED'"
[[ $ADDRESS =~ ^[0-9.]+$ ]] || usage "--address takes an IPv4 address, not '$ADDRESS'"
DRUMLINE_PORT=$((PORT + 1)) AMQP_PORT=$((PORT + 2)) EPMD_PORT=$((PORT + 3)) NODE_PORT=$((PORT + 4))

# --- what is needed ------------------------------------------------------------------------------

as_root() {
    if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

install_rabbitmq() {
    if [[ -x $RABBITMQ ]]; then return; fi
    command -v apt-get >/dev/null ||
        fail "rabbitmq-server is missing, and this is no Debian system" "install RabbitMQ so that $RABBITMQ exists"
    echo "ticker.sh: installing rabbitmq-server" >&2
    # RUNLEVEL=1 keeps the service of the package from starting.
    as_root apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
            apt-get install -y -qq --no-install-recommends rabbitmq-server >/dev/null
    [[ -x $RABBITMQ ]] || fail "cannot install rabbitmq-server" "see the output of apt-get above"
}

build() {
    if [[ -n ${DRUMLINE:-} && -n ${TICKER:-} ]]; then return; fi
    command -v cargo >/dev/null || fail "cargo is missing" "install Rust 1.91 or newer from https://rustup.rs"
    cargo build --release -p drumline -p drumline-ticker || fail "the build failed" "see the output of cargo above"
}

# is_open PORT [ADDRESS]: whether something listens on the port.
is_open() { (: <>"/dev/tcp/${2:-127.0.0.1}/$1") 2>/dev/null; }

check_ports() {
    local port
    for port in $PORT $DRUMLINE_PORT $AMQP_PORT $EPMD_PORT $NODE_PORT; do
        if is_open "$port"; then
            fail "port $port is in use" "choose others: --port N uses N to N+4 (now $PORT to $NODE_PORT)"
        fi
    done
}

# --- processes ------------------------------------------------------------------------------------

WORK=
declare -A PIDS
NAMES=()

# start NAME COMMAND...: starts a process in a session of its own, so that Ctrl-C reaches this script alone.
start() {
    local name=$1
    shift
    setsid "$@" >"$WORK/$name.log" 2>&1 </dev/null &
    PIDS[$name]=$!
    NAMES+=("$name")
}

is_running() { kill -0 "${PIDS[$1]}" 2>/dev/null; }

# await NAME PORT SECONDS [ADDRESS]: waits until the process listens on the port.
await() {
    local end=$((SECONDS + $3))
    until is_open "$2" "${4:-}"; do
        is_running "$1" || ended "$1"
        if ((SECONDS >= end)); then
            tail -n 20 "$WORK/$1.log" >&2
            fail "$1 does not listen on port $2 after $3 s" "see its output above"
        fi
        sleep 0.1
    done
}

# ended NAME: reports a process that ended by itself, and ends the script.
ended() {
    tail -n 20 "$WORK/$1.log" >&2
    fail "$1 ended by itself" "see its output above"
}

# stop NAME: ends a process, by force if it takes longer than 20 s.
stop() {
    local name=$1 pid=${PIDS[$1]} end=$((SECONDS + 20))
    kill -TERM "$pid" 2>/dev/null
    while is_running "$name" && ((SECONDS < end)); do sleep 0.05; done
    # Its session may hold more processes: each has the id of the first as its group.
    if is_running "$name" || kill -0 -- "-$pid" 2>/dev/null; then
        sleep 0.3
        kill -KILL -- "-$pid" 2>/dev/null
    fi
    wait "$pid" 2>/dev/null
}

# The last that started is the first that stops: the generator before the broker.
stop_all() {
    local status=$? at
    trap '' INT TERM HUP
    trap - EXIT
    if ((${#NAMES[@]} > 0)); then echo "ticker.sh: stopping" >&2; fi
    for ((at = ${#NAMES[@]} - 1; at >= 0; at--)); do stop "${NAMES[at]}"; done
    if [[ -n $WORK ]]; then rm -rf "$WORK"; fi
    if ((${#NAMES[@]} > 0)); then echo "ticker.sh: stopped" >&2; fi
    exit "$status"
}

# --- the ticker -----------------------------------------------------------------------------------

install_rabbitmq
build
check_ports
WORK=$(mktemp -d "${TMPDIR:-/tmp}/drumline-ticker.XXXXXX") || fail "cannot make a folder" "set TMPDIR to a folder that you can write to"
trap stop_all EXIT
trap 'exit 0' INT TERM HUP

cat >"$WORK/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$AMQP_PORT
log.console = true
log.console.level = warning
log.file = false
CONF
echo "[]." >"$WORK/plugins"

start epmd epmd -address 127.0.0.1 -port "$EPMD_PORT"
await epmd "$EPMD_PORT" 10
echo "ticker.sh: starting RabbitMQ" >&2
start rabbitmq env \
    HOME="$WORK" \
    ERL_EPMD_PORT="$EPMD_PORT" ERL_EPMD_ADDRESS=127.0.0.1 \
    RABBITMQ_NODENAME=ticker@localhost RABBITMQ_DIST_PORT="$NODE_PORT" \
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}" \
    RABBITMQ_CONF_ENV_FILE="$WORK/no-environment" RABBITMQ_CONFIG_FILE="$WORK/rabbitmq.conf" \
    RABBITMQ_ADVANCED_CONFIG_FILE="$WORK/no-advanced.config" RABBITMQ_ENABLED_PLUGINS_FILE="$WORK/plugins" \
    RABBITMQ_MNESIA_BASE="$WORK/data" RABBITMQ_LOG_BASE="$WORK/log" RABBITMQ_PID_FILE="$WORK/rabbitmq.pid" \
    "$RABBITMQ"
await rabbitmq "$AMQP_PORT" 90

start drumline env \
    DRUMLINE_CONSUMERS_PRICES_RABBITMQ_URL="amqp://127.0.0.1:$AMQP_PORT" \
    "${DRUMLINE:-$TARGET/release/drumline}" serve --config ticker/drumline.toml --http_server.port "$DRUMLINE_PORT"
await drumline "$DRUMLINE_PORT" 30

GENERATOR=(--listen "$ADDRESS:$PORT" --drumline "127.0.0.1:$DRUMLINE_PORT" --broker "amqp://127.0.0.1:$AMQP_PORT" --rate "$RATE")
if [[ -n $SEED ]]; then GENERATOR+=(--seed "$SEED"); fi
start ticker "${TICKER:-$TARGET/release/drumline-ticker}" "${GENERATOR[@]}"
await ticker "$PORT" 10 "${ADDRESS/#0.0.0.0/127.0.0.1}"

cat <<TEXT

The stock ticker runs: http://${ADDRESS/#0.0.0.0/localhost}:$PORT/

  $RATE prices per second -> RabbitMQ (127.0.0.1:$AMQP_PORT) -> Drumline (127.0.0.1:$DRUMLINE_PORT) -> the page
  logs: $WORK/*.log

Press Ctrl-C to stop it.
TEXT

# A signal ends the wait; so does a process that ends by itself.
wait -n
for name in "${NAMES[@]}"; do
    is_running "$name" || ended "$name"
done
