#!/usr/bin/env bash
# Tests packaging/ and scripts/install.sh: the server runs under the very filters and limits of the systemd unit,
# and in the root folder of the container, put together by hand, under its seccomp profile.
# With the argument "deb" it builds the Debian package, and installs and removes it in a debootstrap folder.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
# shellcheck source=tests/common/server.sh
source tests/common/server.sh
UNIT=packaging/systemd/drumline.service
PROFILE=packaging/container/seccomp.json
CONFINED=$PWD/tests/system/confined.py
# Other users may run this one.
PYTHON=$(PATH=/usr/bin:/bin command -v python3 || command -v python3)
PASSED=0 FAILED=0
PACKAGE=${CARGO_TARGET_DIR:-$PWD/target}/package
MOUNTED=()

cleanup() {
    local folder
    for folder in "${MOUNTED[@]}"; do umount -R "$folder" 2>/dev/null; done
    stop_all
}
trap cleanup EXIT
trap 'exit 130' INT TERM

pass() { PASSED=$((PASSED + 1)) && printf 'ok    %s\n' "$1"; }
fail() {
    FAILED=$((FAILED + 1))
    printf 'FAIL  %s\n' "$1"
    shift
    printf '%s\n' "$@" | sed 's/^/      | /'
}
# succeeds WHAT COMMAND...
succeeds() {
    local what=$1 out
    shift
    if out=$("$@" 2>&1); then pass "$what"; else fail "$what" "$out"; fi
}
same() { if [[ $2 == "$3" ]]; then pass "$1"; else fail "$1" "wanted:" "$2" "got:" "$3"; fi; }
says() { if grep -Eq -- "$3" <<<"$2"; then pass "$1"; else fail "$1" "no match for $3 in:" "$2"; fi; }

# limits: the limits of the unit as options of prlimit, and no higher than root may set them on this machine.
limits() {
    local name value hard
    while IFS='=' read -r name value; do
        value=$((${value/%M/*1048576}))
        hard=$(prlimit --noheadings --output=HARD "--${name,,}" | tr -d ' ')
        if [[ $hard != unlimited ]] && ((value > hard)); then value=$hard; fi
        printf -- '--%s=%d:%d\n' "${name,,}" "$value" "$value"
    done < <(sed -n 's/^Limit//p' "$UNIT")
}

# as_unit COMMAND...: the identity, capabilities, limits and filters of the unit. A denied call kills. An unknown
# number stands for the user drumline.
as_unit() {
    local options
    mapfile -t options < <(limits)
    exec prlimit "${options[@]}" setpriv --reuid 64321 --regid 64321 --clear-groups --no-new-privs \
        --inh-caps=-all,+net_bind_service --ambient-caps=-all,+net_bind_service \
        --bounding-set=-all,+net_bind_service "$PYTHON" "$CONFINED" --kill "$UNIT" "$@"
}

test_unit() {
    local root=$WORK/verify
    mkdir -p "$root/usr/bin" "$root/usr/lib/systemd/system" "$root/etc/systemd/system"
    cp "$DRUMLINE" "$root/usr/bin/drumline"
    cp /usr/lib/systemd/system/*.target "$root/usr/lib/systemd/system/"
    cp "$UNIT" "$root/etc/systemd/system/"
    succeeds "systemd-analyze verify" systemd-analyze verify --root="$root" --man=no drumline.service
    succeeds "systemd-analyze security: exposure at most 2.0" \
        systemd-analyze security --offline=true --no-pager --threshold=20 "$UNIT"
    rm -rf "$root"
}

# A listener on a notify socket, which writes what it hears to a file.
HEAR='import socket, sys
ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
ear.bind(sys.argv[1])
with open(sys.argv[2], "ab", buffering=0) as out:
    while True:
        out.write(ear.recv(4096) + b"\n")'

test_under_unit() {
    local root=$WORK/root port key url out folder=$WORK/unit backend
    DESTDIR=$root PROGRAM=$DRUMLINE packaging/first-config.sh >/dev/null || fail "first-config.sh"
    local file=$root/etc/drumline/drumline.toml
    same "a new configuration is not readable by others" 640 "$(stat -c %a "$file")"
    says "a new configuration listens on loopback" "$(grep -v '^#' "$file")" '^address = "127.0.0.1"$'
    out=$(md5sum "$file")
    DESTDIR=$root PROGRAM=$DRUMLINE packaging/first-config.sh
    same "an existing configuration stays" "$out" "$(md5sum "$file")"
    port=$(free_port) backend=$(free_port)
    key=$(sed -n 's/^key = "\(.*\)"$/\1/p' "$file")
    mkdir -p "$folder" && cp "$DRUMLINE" "$folder/drumline" && cp "$file" "$folder/drumline.toml"
    sed -i "s/^#port = 8000$/port = $port/" "$folder/drumline.toml"
    chown -R 64321:64321 "$folder" && chmod 755 "$WORK" "$folder"
    start "$WORK/hear.log" python3 -c "$HEAR" "$WORK/notify" "$WORK/heard"
    wait_until 10 test -S "$WORK/notify" && chmod 777 "$WORK/notify"
    cp "$CONFINED" "$UNIT" "$folder/"
    cd "$folder" || exit 2
    UNIT=$folder/drumline.service CONFINED=$folder/confined.py PYTHON=$PYTHON start "$WORK/unit.log" env NOTIFY_SOCKET="$WORK/notify" \
        WATCHDOG_USEC=1000000 \
        bash -c "$(declare -f as_unit limits); as_unit \"\$@\"" _ \
        "$folder/drumline" serve --config "$folder/drumline.toml" --client.allow_anonymous_connect_without_token \
        --client.proxy.connect.endpoint "http://localhost:$backend/connect" --client.proxy.connect.enabled
    cd "$OLDPWD" || exit 2
    local pid=$PID
    url=http://127.0.0.1:$port
    if ! wait_until 20 curl -fsS "$url/health"; then
        fail "the server starts under the filter of the unit" "$(cat "$WORK/unit.log")"
        return
    fi
    pass "the server starts under the filter of the unit"
    says "it runs under a filter" "$(cat "/proc/$pid/status")" '^Seccomp:.*2$'
    says "it has one capability" "$(cat "/proc/$pid/status")" '^CapEff:.*0000000000000400$'
    says "its workers are pinned" "$(cat "$WORK/unit.log")" 'on cores [0-9]'
    out=$(curl -sS -H "X-API-Key: $key" -d '{"channel":"news","data":1}' "$url/api/publish")
    same "it publishes" '{"result":{}}' "$out"
    out=$(curl -sS --max-time 2 -o /dev/null -w '%{http_code}' -H 'Connection: Upgrade' -H 'Upgrade: websocket' \
        -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' \
        "$url/connection/websocket" 2>/dev/null)
    same "it upgrades a WebSocket" 101 "$out"
    # The name of the backend is resolved, and nothing answers: a temporary error, and no denied call.
    out=$(curl -sS --max-time 2 -N -d '{"id":1,"connect":{}}' "$url/connection/http_stream" 2>/dev/null)
    says "it asks a backend by name" "$out" '"code":100'
    out=$(cd "$folder" && UNIT=$folder/drumline.service CONFINED=$folder/confined.py \
        as_unit "$folder/drumline" reload --pid "$pid" 2>&1)
    same "drumline reload succeeds under the filter of the unit" 0 $?
    says "and tells what has changed" "$out" 'nothing has changed'
    succeeds "it feeds the watchdog of systemd" wait_until 5 grep -q '^WATCHDOG=1$' "$WORK/heard"
    kill -TERM "$pid"
    wait "$pid"
    same "it ends with status 0" 0 $?
    says "it told systemd that it starts" "$(cat "$WORK/heard")" '^STATUS=Starting: '
    says "it told systemd that it is ready" "$(cat "$WORK/heard")" '^READY=1$'
    says "it told systemd that it reloads" "$(cat "$WORK/heard")" '^RELOADING=1$'
    says "it told systemd that it stops" "$(cat "$WORK/heard")" '^STOPPING=1$'
}

test_install() {
    local root=$WORK/install out
    rm -rf "$PACKAGE" && mkdir -p "$PACKAGE/man"
    cp "$DRUMLINE" "$PACKAGE/drumline"
    succeeds "manual pages are written" "$DRUMLINE" man "$PACKAGE/man"
    "$DRUMLINE" completion bash >"$PACKAGE/drumline.bash"
    "$DRUMLINE" completion zsh >"$PACKAGE/_drumline"
    "$DRUMLINE" completion fish >"$PACKAGE/drumline.fish"
    succeeds "the completion script is valid for bash" bash -n "$PACKAGE/drumline.bash"
    # shellcheck disable=SC2016 # expanded by the inner shell
    out=$(bash -c 'source "$0"; COMP_WORDS=(drumline checkc) COMP_CWORD=1
        _drumline drumline checkc drumline; echo "${COMPREPLY[@]}"' "$PACKAGE/drumline.bash" 2>/dev/null)
    same "bash completes a command" checkconfig "$out"
    succeeds "install.sh" env DESTDIR="$root" scripts/install.sh
    same "install.sh installs the program" 755 "$(stat -c %a "$root/usr/bin/drumline")"
    for file in lib/systemd/system/drumline.service share/man/man1/drumline.1 share/man/man1/drumline-serve.1 \
        share/bash-completion/completions/drumline sbin/drumline-tune; do
        succeeds "install.sh installs $file" test -s "$root/usr/$file"
    done
    succeeds "uninstall.sh" env DESTDIR="$root" scripts/uninstall.sh
    same "uninstall.sh leaves the configuration" "$root/etc/drumline/drumline.toml" "$(find "$root" -type f)"
    succeeds "uninstall.sh --purge" env DESTDIR="$root" scripts/uninstall.sh --purge
    same "uninstall.sh --purge leaves no file" "" "$(find "$root" ! -type d)"
    out=$(scripts/install.sh --now 2>&1)
    same "an unknown option exits 2" 2 $?
    says "and is named" "$out" "unknown option '--now'"
}

# in_container PROFILE [NAME=VALUE...]: runs the server in the root folder of the container.
in_container() {
    local profile=$1
    shift
    exec env -i PATH="$PATH" "$@" unshare -m -p --fork --kill-child --mount-proc="$WORK/box/proc" \
        python3 "$CONFINED" --kill "$profile" chroot --userspec=65532:65532 "$WORK/box" /usr/bin/drumline serve \
        --http_server.port "$PORT"
}

# stop_container: ends the server, the only child of unshare.
stop_container() {
    kill "$(pgrep -P "$PID")"
    wait "$PID"
}

test_container() {
    local box=$WORK/box library out port
    mkdir -p "$box"/{proc,dev,etc/drumline,usr/bin,tmp}
    cp "$DRUMLINE" "$box/usr/bin/drumline"
    while read -r library; do
        install -D "$library" "$box$library"
    done < <(ldd "$DRUMLINE" | grep -o '/[^ ]*')
    touch "$box/.dockerenv"
    # chroot and the loader of Python run under the profile too, so it permits chroot here only.
    python3 - "$PROFILE" "$WORK/seccomp.json" "$WORK/docker.json" <<'PYTHON'
import json, sys
profile = json.load(open(sys.argv[1]))
rings = {"io_uring_setup", "io_uring_enter", "io_uring_register"}
names = profile["syscalls"][0]["names"]
assert rings <= set(names), "the profile lacks io_uring"
assert names == sorted(set(names)), "the names of the profile are sorted"
for bad in ("unshare", "setns", "mount", "ptrace", "bpf", "kexec_load", "init_module", "keyctl"):
    assert bad not in names, bad
profile["syscalls"][0]["names"] = names + ["chroot"]
json.dump(profile, open(sys.argv[2], "w"))
profile["syscalls"][0]["names"] = [name for name in names if name not in rings] + ["chroot"]
json.dump(profile, open(sys.argv[3], "w"))
PYTHON
    port=$(free_port)
    PORT=$port
    # A flag about the port configures no access, so the server stays open.
    start "$WORK/box.log" in_container "$WORK/seccomp.json"
    if wait_until 20 curl -fsS "http://127.0.0.1:$port/health"; then
        pass "the server runs in the container's root folder, under its profile"
    else
        fail "the server runs in the container's root folder, under its profile" "$(cat "$WORK/box.log")"
    fi
    wait_until 5 grep -q ' access ' "$WORK/box.log"
    out=$(cat "$WORK/box.log")
    says "without a configuration it listens on loopback" "$out" "listens on +127.0.0.1:$port"
    says "and says what to give" "$out" 'DRUMLINE_HTTP_API_KEY'
    stop_container
    start "$WORK/box2.log" in_container "$WORK/seccomp.json" DRUMLINE_HTTP_API_KEY=k \
        DRUMLINE_CLIENT_TOKEN_HMAC_SECRET_KEY=secret
    wait_until 20 grep -q ' access ' "$WORK/box2.log"
    says "with what it names it listens on every address" "$(cat "$WORK/box2.log")" "listens on +0.0.0.0:$port"
    stop_container
    out=$(env -i PATH="$PATH" unshare -m -p --fork --mount-proc="$box/proc" python3 "$CONFINED" "$WORK/docker.json" \
        chroot --userspec=65532:65532 "$box" /usr/bin/drumline serve 2>&1)
    same "without io_uring it exits with status 2" 2 $?
    says "and names the filter and the profile" "$out" 'seccomp filter of this process blocks it'
}

# The sources of the container file exist, and it runs no shell and no root.
test_container_file() {
    local file=packaging/container/Containerfile unknown
    unknown=$(grep -Ev '^(#|$|FROM|WORKDIR|COPY|RUN|EXPOSE|STOPSIGNAL|ENTRYPOINT|CMD)' "$file")
    same "the container file has known instructions only" "" "$unknown"
    says "the container does not run as root" "$(grep ^FROM "$file" | tail -n 1)" ':nonroot$'
    says "the program is where the file copies it from" "$(grep -c 'target/release/drumline' "$file")" '^[23]$'
}

test_deb() {
    local root=$WORK/debian deb codename out
    deb=$(scripts/package.sh deb | tail -n 1)
    if [[ ! -f $deb ]]; then
        fail "scripts/package.sh deb makes a package" "$deb"
        return
    fi
    # shellcheck source=/dev/null
    codename=$(source /etc/os-release && echo "$VERSION_CODENAME")
    debootstrap --variant=minbase "$codename" "$root" >"$WORK/debootstrap.log" 2>&1 ||
        fail "debootstrap" "$(tail -n 5 "$WORK/debootstrap.log")"
    cp "$deb" "$root/drumline.deb"
    mount -t proc proc "$root/proc" && MOUNTED+=("$root/proc")
    succeeds "the package installs" chroot "$root" sh -c 'apt-get update -q && apt-get install -qy /drumline.deb'
    out=$(chroot "$root" su -s /bin/sh drumline -c 'drumline checkconfig /etc/drumline/drumline.toml' 2>&1)
    says "its user can read its configuration" "$out" 'drumline.toml is valid'
    says "which listens on loopback" "$(cat "$root/etc/drumline/drumline.toml")" '^address = "127.0.0.1"$'
    same "and is not readable by others" "640 root drumline" \
        "$(chroot "$root" stat -c '%a %U %G' /etc/drumline/drumline.toml)"
    succeeds "the unit is enabled" \
        test -L "$root/etc/systemd/system/multi-user.target.wants/drumline.service"
    echo '# mine' >>"$root/etc/drumline/drumline.toml"
    succeeds "the package installs again" chroot "$root" dpkg -i /drumline.deb
    says "and keeps the configuration" "$(tail -n 1 "$root/etc/drumline/drumline.toml")" '^# mine$'
    succeeds "the package is removed" chroot "$root" apt-get remove -qy drumline
    succeeds "the configuration stays" test -s "$root/etc/drumline/drumline.toml"
    succeeds "the package is purged" chroot "$root" apt-get purge -qy drumline
    same "nothing stays" "" "$(cd "$root" && find . -path ./proc -prune -o -name '*drumline*' ! -name drumline.deb \
        ! -path './var/lib/dpkg/*' ! -path './var/log/*' ! -path './var/cache/apt/*' -print)"
}

if ((EUID != 0)); then
    echo "packaging.sh: run it as root: it starts the server as another user" >&2
    exit 2
fi
if [[ ${1:-} == deb ]]; then
    test_deb
else
    test_unit
    test_under_unit
    test_install
    test_container_file
    test_container
fi
printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
((FAILED == 0))
