#!/usr/bin/env bash
# Removes what scripts/install.sh installed.
#
# Usage: scripts/uninstall.sh [--purge]    as root; --purge also removes the configuration, state, cache and logs
#        scripts/uninstall.sh --help
#
# The user drumline stays, so that its number is not given to another user.
#
# Variables:
#   DESTDIR  prefix of every path
set -euo pipefail
DESTDIR=${DESTDIR:-}

usage() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "${BASH_SOURCE[0]}"; }

die() {
    printf 'uninstall.sh: %s\n' "$*" >&2
    exit 2
}

main() {
    local purge=
    case ${1:-} in
    -h | --help) usage && exit ;;
    --purge) purge=1 ;;
    '') ;;
    *) die "unknown option '$1'; see scripts/uninstall.sh --help" ;;
    esac
    [[ -n $DESTDIR || $EUID == 0 ]] || die "run it as root, or set DESTDIR"
    if [[ -z $DESTDIR && -d /run/systemd/system ]]; then
        systemctl disable --now drumline.service 2>/dev/null || true
    fi
    rm -f "$DESTDIR"/usr/bin/drumline "$DESTDIR"/usr/sbin/drumline-tune \
        "$DESTDIR"/usr/lib/systemd/system/drumline.service \
        "$DESTDIR"/usr/share/bash-completion/completions/drumline \
        "$DESTDIR"/usr/share/zsh/vendor-completions/_drumline \
        "$DESTDIR"/usr/share/fish/vendor_completions.d/drumline.fish \
        "$DESTDIR"/usr/share/man/man1/drumline.1 "$DESTDIR"/usr/share/man/man1/drumline-*.1
    rm -rf "$DESTDIR/usr/lib/drumline"
    if [[ -n $purge ]]; then
        rm -rf "$DESTDIR/etc/drumline" "$DESTDIR/var/lib/drumline" "$DESTDIR/var/cache/drumline" \
            "$DESTDIR/var/log/drumline"
    fi
    if [[ -z $DESTDIR && -d /run/systemd/system ]]; then systemctl daemon-reload; fi
    echo "uninstall.sh: removed"
}

main "$@"
