"""TLS of the public port: openssl, curl, malformed records by tlslite-ng, sslyze, and the Python SDK.

Usage: tls.py PORT FOLDER    the folder has ca.pem, the authority that clients trust
"""

import asyncio
import concurrent.futures
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request

import centrifuge
import sslyze
from tlslite.api import HandshakeSettings, TLSConnection
from tlslite.errors import TLSAbruptCloseError, TLSLocalAlert, TLSRemoteAlert

PORT = int(sys.argv[1])
FOLDER = sys.argv[2]
AUTHORITY = f"{FOLDER}/ca.pem"
PATIENCE = 20
TLS13, TLS12 = (3, 4), (3, 3)
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
DATA, HANDSHAKE, ALERT = 23, 22, 21
KEY_UPDATE = bytes([24, 0, 0, 1, 0])


def metric(name):
    context = ssl.create_default_context(cafile=AUTHORITY)
    with urllib.request.urlopen(f"https://localhost:{PORT}/metrics", context=context) as answer:
        text = answer.read().decode()
    values = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M)
    assert values, f"no metric {name}"
    return sum(map(float, values))


# --- openssl -------------------------------------------------------------------------------------


class Openssl:
    """openssl s_client, whose input is given line by line."""

    def __init__(self, *arguments):
        self.output = b""
        command = ["openssl", "s_client", "-connect", f"localhost:{PORT}", "-CAfile", AUTHORITY]
        if not {"-servername", "-noservername"} & set(arguments):
            command += ["-servername", "localhost"]
        command += ["-verify_return_error", "-crlf", *arguments]
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        while chunk := os.read(self.child.stdout.fileno(), 65536):
            self.output += chunk

    def say(self, text):
        # s_client takes a command only as a whole read.
        self.child.stdin.write(text)
        self.child.stdin.flush()

    def expect(self, text, times=1):
        end = time.monotonic() + PATIENCE
        while self.output.count(text) < times:
            if time.monotonic() > end or not self.reader.is_alive():
                raise AssertionError(f"openssl without {text!r}:\n{self.output.decode(errors='replace')}")
            time.sleep(0.01)

    def ask(self):
        """Asks for the health, and expects the answer."""
        times = self.output.count(b"HTTP/1.1 200 OK") + 1
        self.say(HEALTH.replace(b"\r", b""))
        self.expect(b"HTTP/1.1 200 OK", times)

    def end(self):
        self.child.stdin.close()
        self.child.wait(PATIENCE)
        self.reader.join(PATIENCE)
        return self.output.decode(errors="replace")


def openssl_versions():
    for version, suites in [
        ("-tls1_3", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]),
        ("-tls1_2", ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"]),
    ]:
        option = "-ciphersuites" if version == "-tls1_3" else "-cipher"
        for suite in suites:
            client = Openssl(version, option, suite, "-alpn", "h2,http/1.1")
            client.expect(b"Verify return code: 0 (ok)")
            client.ask()
            client.ask()
            output = client.end()
            assert suite in output and "ALPN protocol: http/1.1" in output, output
    for version in ["-tls1", "-tls1_1"]:
        output = Openssl(version, "-cipher", "ALL:@SECLEVEL=0").end()
        assert re.search("alert (protocol version|handshake failure)", output), output


def openssl_key_updates():
    client = Openssl("-tls1_3", "-msg")
    client.expect(b"Verify return code: 0 (ok)")
    client.ask()
    for round in range(1, 6):
        client.say(b"K\n")
        # The answer of the server.
        client.expect(b"<<< TLS 1.3, Handshake [length 0005], KeyUpdate", round)
        client.ask()
        client.say(b"k\n")
        client.expect(b">>> TLS 1.3, Handshake [length 0005], KeyUpdate", 2 * round)
        client.ask()
    output = client.end()
    assert "<<< TLS 1.3, Alert" not in output or "close_notify" in output, output


def openssl_resumption():
    for version in ["-tls1_3", "-tls1_2"]:
        session = f"{FOLDER}/session"
        client = Openssl(version, "-sess_out", session)
        client.ask()
        client.end()
        client = Openssl(version, "-sess_in", session)
        client.ask()
        output = client.end()
        assert "\nReused, " in output, output


def openssl_names():
    for name, subject in [("localhost", "localhost"), ("second.test", "second.test"),
                          ("unknown.test", "localhost")]:
        output = Openssl("-servername", name).end()
        assert re.search(rf"subject=CN ?= ?{re.escape(subject)}\n", output), output
    output = Openssl("-noservername").end()
    assert re.search(r"subject=CN ?= ?localhost\n", output), output


def openssl_renegotiation():
    client = Openssl("-tls1_2", "-msg")
    client.ask()
    client.say(b"R\n")
    # The client ends the connection after that.
    client.expect(b"warning no_renegotiation")
    output = client.end()
    assert len(re.findall(", ServerHello\n", output)) == 1, output


def curl():
    url = f"https://localhost:{PORT}/health"

    def run(*arguments):
        command = ["curl", "-sS", "--max-time", "10", *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    for version in [["--tlsv1.3"], ["--tls-max", "1.2"], ["--http2"], ["--tlsv1.3", "--tls-max", "1.3"]]:
        answer = run("--cacert", AUTHORITY, "-w", "%{http_version} %{ssl_verify_result}", *version, url, url)
        assert answer.returncode == 0 and "1.1 0" in answer.stdout, answer
    # Without the authority, the certificate is not trusted.
    answer = run("--cacert", "/dev/null", url)
    assert answer.returncode in (60, 77), answer
    body = f"{FOLDER}/body"
    with open(body, "w") as file:
        file.write('{"channel":"curl","data":"' + "x" * 900_000 + '"}')
    answer = run("--cacert", AUTHORITY, "-H", "X-API-Key: a-key-for-tests", "--data-binary", f"@{body}",
                 f"https://localhost:{PORT}/api/publish")
    assert answer.stdout == '{"result":{}}', answer
    answer = run(f"http://localhost:{PORT}/health")
    assert "https://" in answer.stdout, answer


# --- malformed records by tlslite-ng ---------------------------------------------------------------


def dial():
    made = socket.create_connection(("localhost", PORT), timeout=PATIENCE)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


class Peer:
    """A connection by tlslite-ng whose records are made by hand."""

    def __init__(self, version=TLS13):
        self.socket = dial()
        self.tls = TLSConnection(self.socket)
        self.tls.closeSocket = True
        settings = HandshakeSettings()
        settings.minVersion = settings.maxVersion = version
        settings.keyShares = ["x25519"]
        self.tls.handshakeClientCert(settings=settings, serverName="localhost")

    def sealed(self, inner, damage=False):
        """A record with these bytes inside: content, type and padding."""
        body = self.tls._recordLayer._encryptThenSeal(bytearray(inner), DATA)
        if damage:
            body[len(body) // 2] ^= 1
        return bytes([DATA, 3, 3]) + len(body).to_bytes(2, "big") + bytes(body)

    def send(self, raw):
        try:
            self.socket.sendall(raw)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def health(self):
        self.tls.write(HEALTH)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.tls.read(min=1, max=4096)
        assert answer.startswith(b"HTTP/1.1 200"), answer

    def end(self):
        """The alert that ends the connection; 0: an orderly end."""
        try:
            while self.tls.read(min=1, max=65536):
                pass
            return 0
        except TLSRemoteAlert as alert:
            return alert.description
        except (TLSAbruptCloseError, ConnectionResetError):
            return "no alert"


def message(kind, body=b""):
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


def malformed():
    unexpected, bad_mac, overflow, illegal, decode = 10, 20, 22, 47, 50
    cases = {
        "a changed byte": (lambda p: p.sealed(b"data" + bytes([DATA]), damage=True), bad_mac),
        "a record twice": (lambda p: p.sealed(b"GET" + bytes([DATA])) * 2, bad_mac),
        "random bytes": (lambda p: bytes([DATA, 3, 3, 0, 64]) + os.urandom(64), bad_mac),
        "no tag": (lambda p: bytes([DATA, 3, 3, 0, 5]) + b"hello", bad_mac),
        "an empty record in the clear": (lambda p: bytes([DATA, 3, 3, 0, 0]), bad_mac),
        "a header above the limit": (lambda p: bytes([DATA, 3, 3, 0x41, 0x01]), overflow),
        "the longest header": (lambda p: bytes([DATA, 3, 3, 0xFF, 0xFF]), overflow),
        "content above the limit": (lambda p: p.sealed(b"x" * 16385 + bytes([DATA])), overflow),
        "padding above the limit": (lambda p: p.sealed(b"x" + bytes([DATA]) + bytes(16384)), overflow),
        "nothing but padding": (lambda p: p.sealed(bytes(100)), unexpected),
        "ChangeCipherSpec": (lambda p: bytes([20, 3, 3, 0, 1, 1]), unexpected),
        "ChangeCipherSpec inside": (lambda p: p.sealed(bytes([1, 20])), unexpected),
        "an alert in the clear": (lambda p: bytes([ALERT, 3, 3, 0, 2, 2, 40]), unexpected),
        "a handshake in the clear": (lambda p: bytes([HANDSHAKE, 3, 3, 0, 4, 1, 0, 0, 0]), unexpected),
        "a heartbeat": (lambda p: bytes([24, 3, 3, 0, 3, 1, 0xFF, 0xFF]), unexpected),
        "plain HTTP": (lambda p: HEALTH, unexpected),
        "an unknown type": (lambda p: p.sealed(bytes([1, 99])), unexpected),
        "an empty alert": (lambda p: p.sealed(bytes([ALERT])), unexpected),
        "an alert of one byte": (lambda p: p.sealed(bytes([1, ALERT])), decode),
        "an empty handshake": (lambda p: p.sealed(bytes([HANDSHAKE])), unexpected),
        "half a KeyUpdate": (lambda p: p.sealed(KEY_UPDATE[:3] + bytes([HANDSHAKE])), unexpected),
        "two KeyUpdates": (lambda p: p.sealed(KEY_UPDATE * 2 + bytes([HANDSHAKE])), unexpected),
        "a KeyUpdate of 2": (lambda p: p.sealed(message(24, b"\2") + bytes([HANDSHAKE])), illegal),
        "a long KeyUpdate": (lambda p: p.sealed(message(24, b"\0\0") + bytes([HANDSHAKE])), decode),
        "a second ClientHello": (lambda p: p.sealed(message(1, bytes(60)) + bytes([HANDSHAKE])), unexpected),
        "a ticket": (lambda p: p.sealed(message(4, bytes(20)) + bytes([HANDSHAKE])), unexpected),
        "a certificate": (lambda p: p.sealed(message(11, bytes(8)) + bytes([HANDSHAKE])), unexpected),
        "a second Finished": (lambda p: p.sealed(message(20, bytes(32)) + bytes([HANDSHAKE])), unexpected),
        "empty records in a row": (lambda p: b"".join(p.sealed(bytes([DATA])) for _ in range(40)), unexpected),
    }
    faults = metric("drumline_tls_faults_total")
    witness = Peer()
    for name, (records, alert) in cases.items():
        # At once, and behind a request that the control plane has answered.
        for earlier in [False, True]:
            peer = Peer()
            if earlier:
                peer.health()
            peer.send(records(peer))
            got = peer.end()
            assert got == alert, f"{name}, after a request: {earlier}: {got} instead of {alert}"
        # Often enough that it is not closed as idle.
        witness.health()
    assert metric("drumline_tls_faults_total") > faults
    # A record may have padding, and a record without data may come between others.
    peer = Peer()
    peer.send(peer.sealed(HEALTH[:10] + bytes([DATA]) + bytes(1000)) + peer.sealed(bytes([DATA])))
    peer.send(peer.sealed(HEALTH[10:] + bytes([DATA])))
    assert peer.tls.read(min=15, max=4096).startswith(b"HTTP/1.1 200")


def malformed_handshakes():
    hello = client_hello()
    handshake = hello[5:]
    pieces = b"".join(bytes([HANDSHAKE, 3, 1, 0, 1, byte]) for byte in handshake)
    cases = {
        "random bytes": os.urandom(500),
        "a record of length 0": bytes([HANDSHAKE, 3, 1, 0, 0]) * 50,
        "a long record": bytes([HANDSHAKE, 3, 1, 0xFF, 0xFF]) + bytes(70_000),
        "a long ClientHello": bytes([HANDSHAKE, 3, 1, 0x40, 0]) + message(1, bytes(0xFFFF00))[:0x4000],
        "a ClientHello that never ends": b"".join(
            bytes([HANDSHAKE, 3, 1, 0x10, 0]) + part
            for part in [message(1, bytes(0xFFFF00))[:0x1000], *[bytes(0x1000)] * 40]
        ),
        "SSL 2": bytes([0x80, 0x2E, 1, 0, 2]) + bytes(41),
        "an alert": bytes([ALERT, 3, 1, 0, 2, 2, 40]),
        "warnings": bytes([ALERT, 3, 1, 0, 2, 1, 90]) * 100,
        "ChangeCipherSpec": bytes([20, 3, 3, 0, 1, 1]) * 100,
        "data": bytes([DATA, 3, 3, 0, 5]) + b"hello",
        "data behind the ClientHello": hello + bytes([DATA, 3, 3, 0, 40]) + bytes(40),
        "the ClientHello twice": hello * 2,
        "no suite": hello.replace(hello[76:78], b"\x0a\x0a"),
    }
    def refused(case):
        name, raw = case
        connection = dial()
        answer = b""
        try:
            connection.sendall(raw)
            # An alert, or the end of the connection. After an alert the server waits for the client.
            while part := connection.recv(65536):
                answer += part
                if answer[-7:-2] == bytes([ALERT, 3, 3, 0, 2]):
                    break
        except (ConnectionResetError, BrokenPipeError):
            pass
        except TimeoutError:
            return f"{name}: the connection stays open"
        finally:
            connection.close()
        return None

    with concurrent.futures.ThreadPoolExecutor(len(cases)) as threads:
        faults = [fault for fault in threads.map(refused, cases.items()) if fault]
    assert not faults, faults
    # One byte per record is allowed.
    connection = dial()
    connection.sendall(pieces)
    assert connection.recv(5)[:1] == bytes([HANDSHAKE]), "no ServerHello"
    connection.close()
    end = time.monotonic() + PATIENCE
    while metric("drumline_tls_handshakes_open") > 0:
        assert time.monotonic() < end, "handshakes stay open"
        time.sleep(0.05)


def client_hello():
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=AUTHORITY)
    wrapped = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        wrapped.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def orderly_end():
    for version in [TLS13, TLS12]:
        peer = Peer(version)
        peer.health()
        peer.tls.close()
    peer = Peer()
    peer.send(peer.sealed(bytes([1, 90, ALERT])) + peer.sealed(bytes([1, 0, ALERT])))
    end = peer.end()
    assert end == 0, f"no close_notify in answer: {end}"


def legacy_malformed():
    peer = Peer(TLS12)
    peer.health()
    body = bytearray(os.urandom(60))
    peer.send(bytes([DATA, 3, 3, 0, 60]) + bytes(body))
    assert peer.end() == 20, "TLS 1.2: no bad_record_mac"
    peer = Peer(TLS12)
    peer.send(bytes([DATA, 3, 3, 0xFF, 0xFF]))
    # TLS 1.2 is left to rustls, which answers a header above the limit with decode_error.
    assert peer.end() == 50, "TLS 1.2: no decode_error"
    # The begin of a long ClientHello, whose end never comes.
    peer = Peer(TLS12)
    peer.health()
    begin = bytearray([1, 0, 0xFF, 0xF0]) + bytes(1000)
    body = peer.tls._recordLayer._encryptThenSeal(begin, HANDSHAKE)
    peer.send(bytes([HANDSHAKE, 3, 3]) + len(body).to_bytes(2, "big") + bytes(body))
    # The server forgets what rustls has of the message, so rustls seals nothing more.
    assert peer.end() == "no alert", "TLS 1.2: a message without an end is kept"


# --- sslyze ----------------------------------------------------------------------------------------


def scan():
    commands = sslyze.ScanCommand
    wanted = {
        commands.SSL_2_0_CIPHER_SUITES, commands.SSL_3_0_CIPHER_SUITES, commands.TLS_1_0_CIPHER_SUITES,
        commands.TLS_1_1_CIPHER_SUITES, commands.TLS_1_2_CIPHER_SUITES, commands.TLS_1_3_CIPHER_SUITES,
        commands.TLS_COMPRESSION, commands.TLS_1_3_EARLY_DATA, commands.OPENSSL_CCS_INJECTION,
        commands.TLS_FALLBACK_SCSV, commands.HEARTBLEED, commands.ROBOT,
        commands.SESSION_RENEGOTIATION, commands.ELLIPTIC_CURVES, commands.TLS_EXTENDED_MASTER_SECRET,
    }
    request = sslyze.ServerScanRequest(
        server_location=sslyze.ServerNetworkLocation(hostname="localhost", port=PORT, ip_address="127.0.0.1"),
        scan_commands=wanted,
    )
    scanner = sslyze.Scanner()
    scanner.queue_scans([request])
    (found,) = scanner.get_results()
    assert found.scan_result is not None, f"sslyze cannot connect: {found.connectivity_error_trace}"

    def result(name):
        attempt = getattr(found.scan_result, name)
        assert attempt.result is not None, f"sslyze: {name}: {attempt.error_reason} {attempt.error_trace}"
        return attempt.result

    for old in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"]:
        assert not result(f"{old}_cipher_suites").accepted_cipher_suites, old
    for version in ["tls_1_2", "tls_1_3"]:
        accepted = result(f"{version}_cipher_suites").accepted_cipher_suites
        names = [suite.cipher_suite.name for suite in accepted]
        weak = [name for name in names if not re.search("GCM|CHACHA20", name)]
        assert len(names) >= 3 and not weak, f"{version}: {names}"
    assert not result("tls_compression").supports_compression
    assert not result("tls_1_3_early_data").supports_early_data
    assert not result("openssl_ccs_injection").is_vulnerable_to_ccs_injection
    assert not result("heartbleed").is_vulnerable_to_heartbleed
    assert not result("robot").robot_result.name.startswith("VULNERABLE"), "ROBOT"
    assert not result("session_renegotiation").is_vulnerable_to_client_renegotiation_dos
    assert result("session_renegotiation").supports_secure_renegotiation
    curves = [curve.name for curve in result("elliptic_curves").supported_curves]
    assert "X25519" in curves and "secp256r1" in curves, curves
    support = result("tls_extended_master_secret").supports_ems_extension
    assert support, "no extended master secret"


# --- the Python SDK ----------------------------------------------------------------------------------


def sdk():
    async def talk():
        got = asyncio.Queue()

        class Events(centrifuge.SubscriptionEventHandler):
            async def on_publication(self, ctx):
                await got.put(ctx.pub.data)

        address = f"wss://localhost:{PORT}/connection/websocket"
        for binary in [False, True]:
            client = centrifuge.Client(address, use_protobuf=binary)
            await client.connect()
            await asyncio.wait_for(client.ready(), PATIENCE)
            subscription = client.new_subscription(f"python{binary}", Events())
            await subscription.subscribe()
            await asyncio.wait_for(subscription.ready(), PATIENCE)
            sent = b'{"n":1}' if binary else {"text": "x" * 40_000}
            await subscription.publish(data=sent)
            assert await asyncio.wait_for(got.get(), PATIENCE) == sent
            await client.disconnect()

    asyncio.run(talk())


def main():
    steps = [
        openssl_versions, openssl_key_updates, openssl_resumption, openssl_names, openssl_renegotiation, curl,
        malformed, malformed_handshakes, orderly_end, legacy_malformed, scan, sdk,
    ]
    chosen = sys.argv[3:]
    failed = 0
    for step in steps:
        if chosen and step.__name__ not in chosen:
            continue
        start = time.monotonic()
        try:
            step()
            print(f"{step.__name__}: ok, {time.monotonic() - start:.1f} s", flush=True)
        except (AssertionError, OSError, TLSLocalAlert, subprocess.TimeoutExpired) as error:
            failed += 1
            print(f"{step.__name__}: FAILED: {error!r}", flush=True)
    sys.exit(failed > 0)


main()
