#!/usr/bin/env bash
# Builds the server with its manual pages and completion scripts, and a Debian package of them.
#
# Usage: scripts/package.sh files    target/package: drumline, manual pages, completion scripts
#        scripts/package.sh deb      the same, and target/debian/drumline_VERSION_ARCH.deb
#
# Needs cargo-deb for the Debian package (`cargo install cargo-deb`).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
TARGET=${CARGO_TARGET_DIR:-$PWD/target}
OUT=$TARGET/package

usage() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$PWD/scripts/package.sh"; }

files() {
    local program=$TARGET/release/drumline
    cargo build --release
    rm -rf "$OUT" && mkdir -p "$OUT/man"
    # Without the lines of the source, as in the container: a sixth of the size. Names of functions stay.
    strip --strip-debug -o "$OUT/drumline" "$program"
    "$program" man "$OUT/man"
    "$program" completion bash >"$OUT/drumline.bash"
    "$program" completion zsh >"$OUT/_drumline"
    "$program" completion fish >"$OUT/drumline.fish"
    echo "package.sh: $OUT has the program, its manual pages and completion scripts"
}

deb() {
    files
    if ! command -v cargo-deb >/dev/null; then
        echo "package.sh: cargo-deb is missing: cargo install cargo-deb" >&2
        exit 2
    fi
    cargo-deb --no-build
}

case ${1:-} in
files | deb) "$1" ;;
help | -h | --help) usage ;;
*)
    usage >&2
    exit 2
    ;;
esac
