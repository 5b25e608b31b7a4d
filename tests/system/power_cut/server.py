"""A server of the test: its process, with or without the recorder, and calls of its API.

Owns the flags of the server. Never judges an answer, except that a call without a result is an error.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time

from promises import HISTORY_SIZE

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE = 60
KEY = "the-api-key"
# Folders that are missing at the first start: the server must make their names durable as well.
STORE = "missing/folder/store"
FLAGS = {
    "http_server.address": "127.0.0.1",
    "http_api.key": KEY,
    "shards": 2,
    "engine.slots_per_shard": 200,
    "client.insecure": "true",
    "uni_sse.enabled": "true",
    "channel.without_namespace.history_durable": "true",
    "channel.without_namespace.history_size": HISTORY_SIZE,
    "channel.without_namespace.history_ttl": "24h",
}


class NoServer(Exception):
    """The server did not start, ended, or answered with an error."""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Server:
    """Starts a server on the store in a folder. `recorder` has the arguments of recorder.py before the folder."""

    def __init__(self, binary, folder, log, recorder=None):
        self.port = free_port()
        self.log = log
        flags = {**FLAGS, "http_server.port": self.port, "store.path": os.path.join(folder, STORE)}
        command = [binary, "serve", *(f"--{name}={value}" for name, value in flags.items())]
        if recorder is not None:
            path, options = recorder
            command = [sys.executable, os.path.join(HERE, "recorder.py"), *options, folder, path, *command]
        with open(log, "wb") as output:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if recorder else output, stderr=output
            )
        self.process = int(self.child.stdout.readline()) if recorder else self.child.pid
        try:
            self.wait_until_open()
        except NoServer:
            self.end(signal.SIGKILL)
            raise

    def wait_until_open(self):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.child.poll() is not None:
                raise NoServer(f"the server did not start: {self.last_lines()}")
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise NoServer(f"the server did not listen within {PATIENCE} s: {self.last_lines()}")

    def last_lines(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return " / ".join(file.read().strip().splitlines()[-4:])

    def end(self, number):
        """Sends a signal and waits for the end."""
        if self.child.poll() is None:
            os.kill(self.process, number)
        try:
            self.child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.kill(self.process, signal.SIGKILL)
            self.child.wait()
            raise NoServer(f"the server did not end within {PATIENCE} s: {self.last_lines()}") from None


class Api:
    """A connection to the API."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def call(self, method, **parameters):
        try:
            self.connection.request("POST", f"/api/{method}", json.dumps(parameters), {"X-API-Key": KEY})
            answer = json.loads(self.connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NoServer(f"no answer to {method}: {error}") from error
        if "result" not in answer:
            raise NoServer(f"{method} was answered with {answer}")
        return answer["result"]
