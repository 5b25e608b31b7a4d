"""The real server on one folder.

Owns the process and its log. Never decides when to start or to stop it. The invariant: a server ends only
when the test ends it, and after SIGTERM with status 0.
"""

import asyncio
import json
import random
import socket
import time

# Seconds, also for a busy machine. Keys are known for 300 s.
PATIENCE = 120
KEY = "a-key-for-tests"
# The history is so long that every subscriber can recover from it, and short enough to be trimmed in a long run.
HISTORY = 20_000

CONFIG = {
    "client": {
        "insecure": True,
        "recovery_max_publication_limit": HISTORY,
        # A recovery that is larger is refused.
        "queue_max_size": 64 << 20,
        # Clients notice a connection that a cut left half open within seconds.
        "ping_interval": "3s",
        "pong_timeout": "2s",
    },
    "channel": {
        "without_namespace": {
            "history_durable": True,
            "history_size": HISTORY,
            "history_ttl": "24h",
            "force_recovery": True,
        }
    },
    "engine": {"slots_per_shard": 200},
    "http_api": {"key": KEY},
    "http_stream": {"enabled": True},
    "sse": {"enabled": True},
    "shutdown": {"spread": "100ms"},
}


def free_port():
    """A free port below the range that the kernel gives to clients."""
    while True:
        port = random.randint(10_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        return port


class Node:
    """The server, which can be killed and started again."""

    def __init__(self, program, folder, flags):
        self.port = free_port()
        self.log = folder / "server.log"
        self.config = folder / "config.json"
        self.command = [program, "serve", "--config", self.config, "--store.path", folder / "store"]
        self.command += ["--http_server.port", str(self.port), *flags]
        self.process = None

    async def spawn(self, shards=2):
        """The store does not depend on the number of shards."""
        self.config.write_text(json.dumps({**CONFIG, "shards": shards}))
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )

    async def listens(self):
        """Waits until the server listens; returns the seconds."""
        begun = time.monotonic()
        while time.monotonic() < begun + PATIENCE:
            self.check_alive()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return time.monotonic() - begun
            await asyncio.sleep(0.01)
        raise AssertionError(f"the server does not listen within {PATIENCE} s")

    async def start(self):
        await self.spawn()
        return await self.listens()

    def check_alive(self):
        status = self.process.returncode
        assert status is None, f"the server ended by itself with status {status}:\n{self.end_of_log()}"

    def errors(self):
        """Errors of the store in the log."""
        return [line for line in self.log.read_text(errors="replace").splitlines() if " [error] store:" in line]

    def end_of_log(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])

    async def kill(self):
        self.check_alive()
        self.process.kill()
        await self.process.wait()

    async def stop(self, patience=None):
        """SIGTERM. After `patience` seconds, if given, SIGKILL; returns whether that came first."""
        self.check_alive()
        self.process.terminate()
        try:
            status = await asyncio.wait_for(self.process.wait(), patience or PATIENCE)
        except TimeoutError:
            assert patience, f"the server does not stop within {PATIENCE} s:\n{self.end_of_log()}"
            await self.kill()
            return True
        assert status == 0, f"the server stopped with status {status}:\n{self.end_of_log()}"
        return False

    async def abandon(self):
        """Ends the server of a run that failed."""
        if self.process and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
