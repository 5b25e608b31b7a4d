#!/usr/bin/env bash
# TLS of the public port with other implementations: openssl, curl, tlslite-ng with malformed records,
# sslyze, the JavaScript and the Python SDK over wss, and Chromium. Under SIZE=full also testssl.sh.
# Usage: tests/system/tls.sh [CHECK...]    runs only these checks of tls.py, and the rest as ever
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
# shellcheck source=tests/common/server.sh
source tests/common/server.sh
trap stop_all EXIT

PYTHON=${PYTHON:-.venv/bin/python}
PORT=$(free_port)

# An authority, and a certificate of it for each name. The first one is the default.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 300 -subj "/CN=An authority" \
    -keyout "$WORK/ca.key" -out "$WORK/ca.pem" 2>/dev/null || exit 1
issue() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
        -keyout "$WORK/$1.key" -out "$WORK/$1.csr" 2>/dev/null &&
        printf 'subjectAltName=%s\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n' "$2" >"$WORK/$1.ext" &&
        openssl x509 -req -in "$WORK/$1.csr" -CA "$WORK/ca.pem" -CAkey "$WORK/ca.key" -CAcreateserial \
            -days 300 -extfile "$WORK/$1.ext" -out "$WORK/$1.pem" 2>/dev/null
}
issue localhost "DNS:localhost,IP:127.0.0.1" && issue second.test "DNS:second.test" || exit 1

start "$WORK/server.log" "$DRUMLINE" serve --http_server.port "$PORT" --shards 2 --client.insecure \
    --engine.slots_per_shard 500 --page.enabled --prometheus.enabled \
    --health.enabled --uni_sse.enabled --http_api.key a-key-for-tests \
    --http_server.tls.enabled --http_server.tls.cert_pem "$WORK/localhost.pem" \
    --http_server.tls.key_pem "$WORK/localhost.key" --http_server.tls.certificates \
    "[{\"name\":\"second\",\"cert_pem\":\"$WORK/second.test.pem\",\"key_pem\":\"$WORK/second.test.key\"}]"
SERVER=$PID
if ! wait_until 20 curl -fsS --max-time 2 --cacert "$WORK/ca.pem" "https://localhost:$PORT/health"; then
    cat "$WORK/server.log"
    exit 1
fi
export NODE_EXTRA_CA_CERTS=$WORK/ca.pem SSL_CERT_FILE=$WORK/ca.pem
RESULT=0
timeout 150 "$PYTHON" tests/system/tls.py "$PORT" "$WORK" "$@" || RESULT=1
timeout 60 node tests/system/tls.mjs "https://localhost:$PORT" || RESULT=1

# Every check of testssl.sh that can find a fault: none may be worse than information.
if [[ ${SIZE:-ci} == full ]]; then
    timeout 900 testssl --quiet --color 0 --warnings off --severity LOW --add-ca "$WORK/ca.pem" \
        --jsonfile "$WORK/testssl.json" "localhost:$PORT" >"$WORK/testssl.log" 2>&1
    if ! "$PYTHON" tests/system/testssl.py "$WORK/testssl.json"; then
        tail -40 "$WORK/testssl.log"
        RESULT=1
    fi
fi
if ! kill -0 "$SERVER" 2>/dev/null; then echo "the server is gone" && RESULT=1; fi
if ((RESULT != 0)); then tail -20 "$WORK/server.log"; fi
exit "$RESULT"
