"""Subscribers: the SDKs for Python and JavaScript, unchanged, in both encodings.

Owns the clients and what they report to the ledger. Never publishes. The invariant: each event of an SDK
reaches the follower of its channel in the order of the SDK.
"""

import asyncio
import contextlib
import json
from pathlib import Path

import centrifuge

from ledger import Follower
from node import PATIENCE

SCRIPT = Path(__file__).with_name("subscriber.mjs")
# Transport and encoding of each JavaScript client.
KINDS = ["websocket-json", "websocket-protobuf", "http_stream-json", "sse-json"]
# Farthest position behind the newest publication at which a newcomer begins.
BEHIND = 2_000


class SubscriptionEvents(centrifuge.SubscriptionEventHandler):
    def __init__(self, follower, unpack):
        self.follower, self.unpack = follower, unpack

    async def on_subscribed(self, context):
        position = context.stream_position
        self.follower.subscribed(position.offset, position.epoch, context.was_recovering, context.recovered)

    async def on_publication(self, context):
        self.follower.received(context.pub.offset, self.unpack(context.pub.data))

    async def on_unsubscribed(self, context):
        self.follower.ended(context.code, context.reason)


class ClientEvents(centrifuge.ClientEventHandler):
    """A disconnect from which the SDK does not come back is a violation, unless the test asked for it."""

    def __init__(self, ledger, name):
        self.ledger, self.name = ledger, name
        self.is_leaving = False

    async def on_disconnected(self, context):
        self.ledger.check(self.is_leaving, f"{self.name} was disconnected: {context.code} {context.reason}")


class PythonClient:
    """A client of the Python SDK, whose subscriptions have followers."""

    def __init__(self, ledger, address, name, use_protobuf):
        self.ledger, self.name, self.use_protobuf = ledger, name, use_protobuf
        self.events = ClientEvents(ledger, name)
        self.followers = []
        self.client = centrifuge.Client(
            f"ws://{address}/connection/websocket",
            events=self.events,
            use_protobuf=use_protobuf,
            timeout=3,
            max_server_ping_delay=2,
            min_reconnect_delay=0.05,
            max_reconnect_delay=0.5,
            proxy=None,
        )

    def pack(self, data):
        return json.dumps(data).encode() if self.use_protobuf else data

    def unpack(self, data):
        return json.loads(data) if self.use_protobuf else data

    async def follow(self, channel, since=None):
        """Subscribes from now on, or from an offset."""
        stream = self.ledger.streams[channel]
        start = stream.start if since is None else since
        follower = Follower(self.ledger, self.name, channel, start, since is not None)
        self.followers.append(follower)
        delays = {"min_resubscribe_delay": 0.05, "max_resubscribe_delay": 0.5}
        if since is not None:
            delays["get_state"] = self.positions(follower, centrifuge.StreamPosition(since, stream.epoch))
        events = SubscriptionEvents(follower, self.unpack)
        await self.client.new_subscription(channel, events=events, **delays).subscribe()

    def positions(self, follower, position):
        """The SDK asks for a position until it is subscribed, and again if the server cannot recover it."""

        async def get_state(_channel):
            follower.check(not follower.is_subscribed, f"was not recovered from {follower.last}")
            return position

        return get_state

    async def leave(self):
        self.events.is_leaving = True
        for subscription in self.client.subscriptions().values():
            subscription.events = centrifuge.SubscriptionEventHandler()
        await self.client.disconnect()


async def residents(ledger, address):
    """Clients of the Python SDK that follow every channel for the whole run."""
    clients = []
    for name, use_protobuf in (("python-json", False), ("python-protobuf", True)):
        client = PythonClient(ledger, address, name, use_protobuf)
        for channel in ledger.streams:
            await client.follow(channel)
        await client.client.connect()
        clients.append(client)
    return clients


async def newcomer(ledger, address, choice):
    """A client that begins at an earlier position, follows for seconds, catches up and leaves."""
    name = f"newcomer {ledger.numbers['newcomers']}"
    ledger.numbers["newcomers"] += 1
    client = PythonClient(ledger, address, name, choice.random() < 0.5)
    for channel, stream in ledger.streams.items():
        await client.follow(channel, max(stream.start, stream.frontier - choice.randrange(BEHIND)))
    await client.client.connect()
    await asyncio.sleep(choice.uniform(0, 5))
    tops = [(follower, follower.stream.top) for follower in client.followers]
    try:
        async with asyncio.timeout(PATIENCE):
            while any(follower.last < top for follower, top in tops):
                await asyncio.sleep(0.05)
    except TimeoutError:
        behind = [f"{follower.title} is at {follower.last} of {top}" for follower, top in tops]
        ledger.violation(f"a newcomer does not catch up within {PATIENCE} s: {behind}")
    await client.leave()


class JavaScriptClients:
    """The clients of subscriber.mjs, one of each kind."""

    def __init__(self, ledger, address):
        self.ledger, self.address = ledger, address
        self.followers = [
            Follower(ledger, kind, channel, stream.start, False)
            for kind in KINDS
            for channel, stream in ledger.streams.items()
        ]

    async def run(self):
        """Starts the clients and takes their events until it is cancelled."""
        by_title = {follower.title: follower for follower in self.followers}
        command = ["node", str(SCRIPT), self.address, json.dumps(KINDS), json.dumps(list(self.ledger.streams))]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, limit=1 << 20)
        try:
            while line := await process.stdout.readline():
                kind, channel, event, details = json.loads(line)
                if event == "disconnected":
                    self.ledger.violation(f"{kind} was disconnected: {details}")
                else:
                    getattr(by_title[f"{channel}: {kind}"], event)(*details)
            raise AssertionError("subscriber.mjs ended by itself")
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
