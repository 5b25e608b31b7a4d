#!/usr/bin/env bash
# Installs Drumline on this machine as a systemd service, or into a folder.
#
# Usage: scripts/install.sh [--start]    as root; --start enables the service and starts it
#        scripts/install.sh --help
#
# Installs target/release/drumline (scripts/package.sh files builds it), the manual pages, completion
# scripts, tune.sh as drumline-tune, and the unit. Creates the user drumline and, if there is none,
# /etc/drumline/drumline.toml with keys of its own, which listens on 127.0.0.1 only. Running it again
# replaces the program and keeps the configuration. scripts/uninstall.sh removes what it installed.
#
# Variables:
#   DESTDIR  prefix of every path, for packages; nothing is started and no user is made
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
TARGET=${CARGO_TARGET_DIR:-$PWD/target}
export DESTDIR=${DESTDIR:-}

usage() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$PWD/scripts/install.sh"; }

die() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 2
}

# put MODE FILE PATH
put() { install -D -m "$1" "$2" "$DESTDIR$3"; }

files() {
    local page
    put 755 "$TARGET/package/drumline" /usr/bin/drumline
    put 755 packaging/first-config.sh /usr/lib/drumline/first-config.sh
    put 755 scripts/tune.sh /usr/sbin/drumline-tune
    put 644 packaging/systemd/drumline.service /usr/lib/systemd/system/drumline.service
    put 644 "$TARGET/package/drumline.bash" /usr/share/bash-completion/completions/drumline
    put 644 "$TARGET/package/_drumline" /usr/share/zsh/vendor-completions/_drumline
    put 644 "$TARGET/package/drumline.fish" /usr/share/fish/vendor_completions.d/drumline.fish
    for page in "$TARGET"/package/man/*.1; do put 644 "$page" "/usr/share/man/man1/${page##*/}"; done
}

main() {
    local start=
    case ${1:-} in
    -h | --help) usage && exit ;;
    --start) start=1 ;;
    '') ;;
    *) die "unknown option '$1'; see scripts/install.sh --help" ;;
    esac
    [[ -x $TARGET/package/drumline ]] || die "nothing is built: run scripts/package.sh files first"
    [[ -n $DESTDIR || $EUID == 0 ]] || die "run it as root, or set DESTDIR"
    files
    packaging/first-config.sh
    if [[ -z $DESTDIR && -d /run/systemd/system ]]; then
        systemctl daemon-reload
        # An upgrade: the running service gets the new program.
        systemctl try-restart drumline.service
        if [[ -n $start ]]; then systemctl enable --now drumline.service; fi
    elif [[ -n $start ]]; then
        echo "install.sh: systemd does not run here: start \`drumline serve --config /etc/drumline/drumline.toml\`" >&2
    fi
    echo "install.sh: installed; check the machine with \`drumline check\` and \`drumline-tune check\`"
}

main "$@"
