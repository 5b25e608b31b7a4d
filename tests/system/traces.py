"""Traces against OpenTelemetry's own definitions of the messages: names, parents and attributes.

Usage: traces.py BINARY    starts the server, a receiver of OTLP and a backend on loopback
"""

import http.client
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

BINARY = os.path.abspath(sys.argv[1])
PATIENCE = 20
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = f"00-{TRACE}-{PARENT}-01"
UNSAMPLED = f"00-{'1' * 32}-{PARENT}-00"
SECRETS = ["the-api-key", "the-receiver-key", "the-payload", "the-password"]


class Receiver(http.server.BaseHTTPRequestHandler):
    """Decodes what the exporter sends."""

    requests, headers_seen, bodies = [], [], []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.bodies.append(body)
        self.headers_seen.append((self.path, dict(self.headers)))
        self.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Backend(http.server.BaseHTTPRequestHandler):
    """Answers connect requests: the user "no" gets an error."""

    asked = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(self.headers.get_all("traceparent"))
        status = 500 if b"fails" in body else 200
        answer = json.dumps({"result": {"user": "u"}}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def serve(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(what, done):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = done()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"no {what} within {PATIENCE} s")


def call(port, method, body, traceparent):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    headers = {"X-API-Key": "the-api-key", "traceparent": traceparent}
    connection.request("POST", f"/api/{method}", json.dumps(body), headers)
    answer = connection.getresponse()
    assert answer.status == 200, answer.status
    return json.loads(answer.read())


def connect(port, name, headers):
    """Opens a stream of server-sent events; the backend decides about the client."""
    query = urllib.parse.quote(json.dumps({"data": {"name": name}}))
    url = f"http://127.0.0.1:{port}/connection/uni_sse?cf_connect={query}"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return answer.readline()


def spans():
    found = {}
    for request in list(Receiver.requests):
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                assert scope.scope.name == "drumline", scope.scope
                for span in scope.spans:
                    found.setdefault(span.name, []).append(span)
    return found


def attributes(holder):
    values = {}
    for attribute in holder.attributes:
        kind = attribute.value.WhichOneof("value")
        values[attribute.key] = getattr(attribute.value, kind)
    return values


def metric(port, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        return float(re.search(rf"^{name} (\S+)$", answer.read().decode(), re.M)[1])


def check(port, backend):
    call(port, "publish", {"channel": "a", "data": "the-payload"}, CALLER)
    call(port, "publish", {"channel": "no:a", "data": 1}, CALLER)
    call(port, "info", {}, UNSAMPLED)
    commands = [{"presence_stats": {"channel": "p"}}, {"channels": {}}]
    call(port, "batch", {"commands": commands}, CALLER)
    call(port, "history_remove", {"channel": "a"}, "not a context")
    connect(port, "first", {"traceparent": CALLER})
    connect(port, "fails", {})
    wanted = {"api publish": 2, "api presence_stats": 1, "api channels": 1,
              "api history_remove": 1, "backend connect": 2}
    found = wait_for("spans", lambda: (
        found := spans(), {name: len(all) for name, all in found.items()} == wanted)[1] and found)
    for name in ["api publish", "api presence_stats", "api channels"]:
        for span in found[name]:
            assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT), span
            assert span.kind == Span.SPAN_KIND_SERVER and len(span.span_id) == 8, span
            assert attributes(span)["rpc.method"] == name.removeprefix("api "), span
            age = time.time_ns() - span.start_time_unix_nano
            assert 0 < age < 60e9 and span.end_time_unix_nano > span.start_time_unix_nano, span
    good, bad = sorted(found["api publish"], key=lambda span: span.status.code)
    assert good.status.code == Status.STATUS_CODE_UNSET, good
    assert bad.status.code == Status.STATUS_CODE_ERROR, bad
    assert bad.status.message == "unknown channel", bad
    assert attributes(bad)["error.type"] == "102", bad
    [root] = found["api history_remove"]
    assert not root.parent_span_id and root.trace_id.hex() != TRACE, root
    assert len({span.span_id for all in found.values() for span in all}) == 7
    sent = [header for [header] in Backend.asked]
    asked = {span.span_id.hex(): span for span in found["backend connect"]}
    assert {header.split("-")[2] for header in sent} == set(asked), (sent, asked)
    for span in asked.values():
        assert span.kind == Span.SPAN_KIND_CLIENT, span
        url = attributes(span)["url.full"]
        assert url == f"http://***@127.0.0.1:{backend}/connect", url
    fine, failed = (asked[header.split("-")[2]] for header in sent)
    assert (fine.trace_id.hex(), fine.parent_span_id.hex()) == (TRACE, PARENT), fine
    assert attributes(fine)["http.response.status_code"] == 200, fine
    assert not failed.parent_span_id and failed.status.code == Status.STATUS_CODE_ERROR, failed
    assert attributes(failed)["http.response.status_code"] == 500, failed


def check_requests():
    for path, headers in Receiver.headers_seen:
        assert path == "/v1/traces", path
        assert headers["content-type"] == "application/x-protobuf", headers
        assert headers["api-key"] == "the-receiver-key", headers
    for request in Receiver.requests:
        for resource in request.resource_spans:
            values = attributes(resource.resource)
            assert values["service.name"] == "edge" and values["zone"] == "eu", values
            assert re.fullmatch(r"\d+\.\d+\.\d+", values["service.version"]), values
    for secret in SECRETS:
        assert not any(secret.encode() in body for body in Receiver.bodies), secret


def main():
    receiver, backend, port = serve(Receiver), serve(Backend), free_port()
    flags = {
        "http_server.address": "127.0.0.1",
        "http_server.port": port,
        "http_api.key": "the-api-key",
        "channel.without_namespace.presence": "true",
        "channel.without_namespace.history_size": 10,
        "channel.without_namespace.history_ttl": "60s",
        "uni_sse.enabled": "true",
        "prometheus.enabled": "true",
        "client.proxy.connect.enabled": "true",
        "client.proxy.connect.endpoint": f"http://bob:the-password@127.0.0.1:{backend}/connect",
        "client.proxy.connect.http_headers": "traceparent",
        "opentelemetry.enabled": "true",
        "opentelemetry.api": "true",
        "opentelemetry.backend": "true",
    }
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver}",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=the-receiver-key",
        "OTEL_SERVICE_NAME": "edge",
        "OTEL_RESOURCE_ATTRIBUTES": "zone=eu",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    command = [BINARY, "serve"] + [f"--{name}={value}" for name, value in flags.items()]
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, **variables}
        server = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=log)
        try:
            def listens():
                assert server.poll() is None, "the server ended"
                with socket.socket() as one:
                    return one.connect_ex(("127.0.0.1", port)) == 0
            wait_for("server", listens)
            check(port, backend)
            assert metric(port, "drumline_trace_spans_exported_total") == 7
            assert metric(port, "drumline_trace_spans_dropped_total") == 0
            # The last spans are sent before the process ends.
            call(port, "info", {}, CALLER)
            server.terminate()
            assert server.wait(PATIENCE) == 0
            assert len(spans()["api info"]) == 1, spans().keys()
            check_requests()
        except BaseException:
            log.seek(0)
            print(log.read().decode(), file=sys.stderr)
            raise
        finally:
            if server.poll() is None:
                server.kill()
                server.wait()
    print(f"{sum(map(len, spans().values()))} spans in {len(Receiver.requests)} requests")


main()
