#!/bin/sh
# Creates the system user drumline, and a configuration if there is none. The packages and
# scripts/install.sh run it. A new configuration has keys of its own and listens on loopback only.
#
# Usage: first-config.sh    the variable DESTDIR is a prefix of /etc, and then no user is made
set -eu

DESTDIR=${DESTDIR:-}
FOLDER=$DESTDIR/etc/drumline
FILE=$FOLDER/drumline.toml
PROGRAM=${PROGRAM:-$DESTDIR/usr/bin/drumline}

if [ -z "$DESTDIR" ] && ! id drumline >/dev/null 2>&1; then
    useradd --system --user-group --no-create-home --home-dir /var/lib/drumline \
        --shell /usr/sbin/nologin drumline
fi
mkdir -p "$FOLDER"
if [ ! -e "$FILE" ]; then
    # In a folder of its own, because genconfig writes only new files, and mv is atomic.
    new=$(mktemp -d "$FOLDER/.new.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    (cd "$new" && env -i "$PROGRAM" genconfig --config "$new/drumline.toml")
    sed -i 's/^#address = ""$/address = "127.0.0.1"/' "$new/drumline.toml"
    grep -q '^address = "127.0.0.1"$' "$new/drumline.toml"
    mv "$new/drumline.toml" "$FILE"
    echo "drumline: wrote $FILE; the server listens on 127.0.0.1 until http_server.address is changed there"
fi
if [ -z "$DESTDIR" ]; then
    chown root:drumline "$FOLDER" "$FILE"
fi
chmod 750 "$FOLDER"
chmod 640 "$FILE"
