"""A TCP proxy in front of the server, whose connections the test cuts.

Owns the sockets of both sides. Never looks into the bytes. The invariant: it passes the bytes of each
direction in order, without a gap, up to a cut.
"""

import asyncio
import contextlib
import socket
import struct

CHUNK = 64 << 10


def abort(writer):
    """Ends one side with RST."""
    made = writer.get_extra_info("socket")
    if made.fileno() >= 0:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Connection:
    """A client's connection and its counterpart to the server."""

    def __init__(self, client, server):
        self.client, self.server = client, server
        # Closed during a stall: then neither bytes nor an end pass.
        self.gate = asyncio.Event()
        self.gate.set()
        # How many bytes of the next chunk pass before the connection is reset; None without a cut.
        self.rest = None

    async def pump(self, reader, writer):
        with contextlib.suppress(OSError):
            while True:
                chunk = await reader.read(CHUNK)
                await self.gate.wait()
                if not chunk:
                    break
                writer.write(chunk[: self.rest])
                if self.rest is not None:
                    return self.reset()
                await writer.drain()
        await self.gate.wait()
        self.close()

    def close(self):
        self.gate.set()
        self.client.close()
        self.server.close()

    def reset(self):
        abort(self.client)
        abort(self.server)
        self.gate.set()

    async def stall(self, seconds):
        self.gate.clear()
        await asyncio.sleep(seconds)
        self.gate.set()


class Link:
    """The proxy. `address` is what clients connect to."""

    def __init__(self, port):
        self.port = port
        self.connections = []

    async def open(self):
        self.listener = await asyncio.start_server(self.join, "127.0.0.1", 0)
        self.address = "127.0.0.1:{}".format(self.listener.sockets[0].getsockname()[1])

    async def join(self, reader, writer):
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return writer.transport.abort()
        connection = Connection(writer, to_server)
        self.connections.append(connection)
        await asyncio.gather(connection.pump(reader, to_server), connection.pump(from_server, writer))
        self.connections.remove(connection)

    async def close(self):
        self.listener.close()
        while self.connections:
            for connection in self.connections:
                connection.reset()
            await asyncio.sleep(0.01)

    async def cut(self, connection, choice):
        """Cuts one connection in a way that `choice`, a source of random numbers, selects."""
        way = choice.choice(["reset", "close", "torn", "half open", "stall", "stall and reset"])
        seconds = choice.uniform(0.2, 6)
        if way == "reset":
            connection.reset()
        elif way == "close":
            connection.close()
        elif way == "torn":
            connection.rest = choice.randrange(1, 200)
        else:
            if way == "half open":
                # The server learns of the cut when the stall ends.
                abort(connection.client)
            await connection.stall(seconds)
            if way == "stall and reset":
                connection.reset()
