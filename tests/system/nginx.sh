#!/usr/bin/env bash
# nginx in front with a pool of kept-alive connections: API, health, page and upgrades share it, so that
# connections that were handed to the control plane become WebSockets later. Nobody gets another's answer.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
# shellcheck source=tests/common/server.sh
source tests/common/server.sh
trap stop_all EXIT

PORT=$(free_port)
FRONT=$(free_port)
while [[ $FRONT == "$PORT" ]]; do FRONT=$(free_port); done
mkdir "$WORK/nginx"
cat >"$WORK/nginx.conf" <<CONF
daemon off;
pid $WORK/nginx/pid;
error_log stderr warn;
worker_processes 1;
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path $WORK/nginx/body;
    proxy_temp_path $WORK/nginx/proxy;
    fastcgi_temp_path $WORK/nginx/fastcgi;
    uwsgi_temp_path $WORK/nginx/uwsgi;
    scgi_temp_path $WORK/nginx/scgi;
    map \$http_upgrade \$connection_upgrade { default upgrade; '' ''; }
    upstream drumline { server 127.0.0.1:$PORT; keepalive 8; }
    server {
        listen 127.0.0.1:$FRONT;
        location / {
            proxy_pass http://drumline;
            proxy_http_version 1.1;
            proxy_set_header Host \$host;
            proxy_set_header Upgrade \$http_upgrade;
            proxy_set_header Connection \$connection_upgrade;
            proxy_next_upstream off;
        }
    }
}
CONF
start "$WORK/server.log" "$DRUMLINE" serve --http_server.port "$PORT" --shards 2 --client.insecure \
    --http_api.key a-key-for-tests --engine.slots_per_shard 500 --page.enabled --prometheus.enabled
SERVER=$PID
start "$WORK/nginx.log" nginx -e stderr -p "$WORK/nginx" -c "$WORK/nginx.conf"
if ! wait_until 20 curl -fsS --max-time 2 "http://127.0.0.1:$FRONT/health"; then
    cat "$WORK/server.log" "$WORK/nginx.log"
    exit 1
fi
timeout 120 node tests/system/nginx.mjs "http://127.0.0.1:$FRONT" "http://127.0.0.1:$PORT"
RESULT=$?
if ! kill -0 "$SERVER" 2>/dev/null; then echo "the server is gone" && RESULT=1; fi
if grep -E 'upstream (prematurely|sent)|reset by peer' "$WORK/nginx.log"; then RESULT=1; fi
if ((RESULT != 0)); then tail -20 "$WORK/server.log" "$WORK/nginx.log"; fi
exit "$RESULT"
