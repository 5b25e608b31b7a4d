"""The client protocol by the Python SDK and the API by its Python library, both unchanged.

Usage: protocol.py DRUMLINE    the server's program
"""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cent
import centrifuge
import requests
import schemathesis

SECRET = "a-secret-for-tests"
KEY = "a-key-for-tests"
PATIENCE = 30

CONFIG = {
    "client": {"token": {"hmac_secret_key": SECRET}},
    "channel": {
        "namespaces": [
            {
                "name": "chat",
                "presence": True,
                "join_leave": True,
                "force_push_join_leave": True,
                "history_size": 50,
                "history_ttl": "300s",
                "force_recovery": True,
                "allow_subscribe_for_client": True,
                "allow_publish_for_subscriber": True,
                "allow_presence_for_subscriber": True,
                "allow_history_for_subscriber": True,
                "allowed_delta_types": ["fossil"],
                "delta_publish": True,
            },
            {"name": "push"},
        ]
    },
    "http_api": {"key": KEY},
    "swagger": {"enabled": True},
    "shutdown": {"spread": "0s"},
}


def token(user, **claims):
    """A connection or subscription token."""

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    signed = part({"alg": "HS256", "typ": "JWT"}) + b"." + part({"sub": user, **claims})
    mac = hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()


def free_port():
    while True:
        port = random.randint(10_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        return port


class Server:
    """The real server, until the end of a `with`."""

    def __init__(self, program):
        self.port = free_port()
        self.folder = tempfile.TemporaryDirectory()
        config = Path(self.folder.name) / "config.json"
        config.write_text(json.dumps(CONFIG))
        arguments = ["serve", "--config", str(config), "--http_server.port", str(self.port)]
        arguments += ["--shards", "2", "--engine.slots_per_shard", "500"]
        self.child = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL)

    def __enter__(self):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            assert self.child.poll() is None, "the server ended at once"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.1)
        raise AssertionError("the server does not listen")

    def __exit__(self, *_):
        self.child.terminate()
        try:
            assert self.child.wait(PATIENCE) == 0
        finally:
            self.child.kill()
            self.folder.cleanup()


class Api:
    """The API by its library: each method takes the fields of its request. Every answer is also
    compared with the API's own description."""

    def __init__(self, port):
        self.description = schemathesis.openapi.from_url(description(port))
        self.compared = set()
        session = requests.Session()
        session.hooks["response"].append(self.compare)
        self.client = cent.Client(f"http://127.0.0.1:{port}/api", KEY, session=session)

    def compare(self, response, **_):
        path = "/" + response.url.rsplit("/", 1)[1]
        self.description[path]["POST"].validate_response(response)
        self.compared.add(path)

    def __getattr__(self, method):
        name = "".join(word.capitalize() for word in method.split("_"))
        request = getattr(cent, f"{name}Request")
        return lambda **fields: getattr(self.client, method)(request(**fields))


def description(port):
    """Where the API is described."""
    return f"http://127.0.0.1:{port}/swagger/openapi.json"


class Listener(centrifuge.SubscriptionEventHandler):
    """What a subscription hears, in order."""

    def __init__(self):
        self.publications = asyncio.Queue()
        self.changes = asyncio.Queue()
        self.subscribed = asyncio.Queue()

    async def on_subscribed(self, context):
        await self.subscribed.put(context)

    async def on_publication(self, context):
        await self.publications.put(context.pub)

    async def on_join(self, context):
        await self.changes.put(("join", context.info.user))

    async def on_leave(self, context):
        await self.changes.put(("leave", context.info.user))


async def soon(awaitable):
    return await asyncio.wait_for(awaitable, PATIENCE)


async def until(what, holds):
    """Waits until `holds`, with a bound."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"waited too long for: {what}"
        await asyncio.sleep(0.01)


class Clients:
    """Clients of one encoding."""

    def __init__(self, port, use_protobuf):
        self.address = f"ws://127.0.0.1:{port}/connection/websocket"
        self.use_protobuf = use_protobuf

    def pack(self, value):
        return json.dumps(value).encode() if self.use_protobuf else value

    def unpack(self, data):
        return json.loads(data) if self.use_protobuf else data

    async def connected(self, user, **options):
        client = centrifuge.Client(
            self.address,
            token=token(user, info={"name": user}),
            use_protobuf=self.use_protobuf,
            min_reconnect_delay=0.5,
            max_reconnect_delay=0.6,
            **options,
        )
        await client.connect()
        await soon(client.ready())
        return client

    async def subscribed(self, client, channel, **options):
        listener = Listener()
        subscription = client.new_subscription(channel, events=listener, **options)
        await subscription.subscribe()
        await soon(subscription.ready())
        return subscription, listener


async def presence(clients, api, name):
    channel = f"chat:presence-{name}"
    one = await clients.connected("42")
    first, heard = await clients.subscribed(one, channel)
    assert await soon(heard.changes.get()) == ("join", "42")
    two = await clients.connected("43")
    second, _ = await clients.subscribed(two, channel)
    assert await soon(heard.changes.get()) == ("join", "43")
    result = await soon(first.presence())
    assert sorted(info.user for info in result.clients.values()) == ["42", "43"]
    infos = [clients.unpack(info.conn_info)["name"] for info in result.clients.values()]
    assert sorted(infos) == ["42", "43"]
    stats = await soon(first.presence_stats())
    assert (stats.num_clients, stats.num_users) == (2, 2)
    await soon(second.publish(clients.pack({"said": 1})))
    publication = await soon(heard.publications.get())
    assert clients.unpack(publication.data) == {"said": 1}
    assert publication.info.user == "43"
    await two.disconnect()
    assert await soon(heard.changes.get()) == ("leave", "43")
    assert api.presence_stats(channel=channel).num_clients == 1
    assert [info.user for info in api.presence(channel=channel).presence.values()] == ["42"]
    await one.disconnect()


async def recovery(clients, api, name):
    channel = f"chat:recovery-{name}"
    client = await clients.connected("44")
    subscription, heard = await clients.subscribed(client, channel)
    await soon(heard.subscribed.get())
    api.publish(channel=channel, data={"nth": 0})
    assert clients.unpack((await soon(heard.publications.get())).data) == {"nth": 0}
    reason = cent.Disconnect(code=3011, reason="again")
    api.disconnect(user="44", disconnect=reason)
    await until("the end of the connection", lambda: client.state != centrifuge.ClientState.CONNECTED)
    for nth in range(1, 11):
        api.publish(channel=channel, data={"nth": nth})
    back = await soon(heard.subscribed.get())
    assert (back.was_recovering, back.recovered) == (True, True), back
    for nth in range(1, 11):
        publication = await soon(heard.publications.get())
        assert (clients.unpack(publication.data), publication.offset) == ({"nth": nth}, nth + 1)
    history = await soon(subscription.history(limit=2, reverse=True))
    assert [one.offset for one in history.publications] == [11, 10]
    since = centrifuge.StreamPosition(offset=3, epoch=history.epoch)
    history = await soon(subscription.history(limit=2, since=since))
    assert [one.offset for one in history.publications] == [4, 5]
    await client.disconnect()


async def deltas(clients, api, name):
    """A thousand documents that differ a little, as differences and whole to who comes late."""
    channel = f"chat:delta-{name}"
    client = await clients.connected("45")
    fossil = centrifuge.DeltaType.FOSSIL
    _, heard = await clients.subscribed(client, channel, delta=fossil)
    late = None
    document = {"text": "x" * 500, "numbers": list(range(50))}
    for nth in range(1000):
        document["nth"] = nth
        document["numbers"][nth % 50] = nth
        api.publish(channel=channel, data=document)
        assert clients.unpack((await soon(heard.publications.get())).data) == document
        if late is not None:
            assert clients.unpack((await soon(late.publications.get())).data) == document
        if nth == 500:
            _, late = await clients.subscribed(
                await clients.connected("46"), channel, delta=fossil
            )
    await client.disconnect()


async def server_side(clients, api, name):
    heard = asyncio.Queue()

    class Events(centrifuge.ClientEventHandler):
        async def on_subscribed(self, context):
            await heard.put(("subscribed", context.channel))

        async def on_unsubscribed(self, context):
            await heard.put(("unsubscribed", context.channel))

        async def on_publication(self, context):
            await heard.put(("publication", clients.unpack(context.pub.data)))

    user = f"47-{name}"
    client = await clients.connected(user, events=Events())
    api.subscribe(user=user, channel="push:b", session="of nobody")
    api.subscribe(user=user, channel="push:b", client="of nobody")
    api.subscribe(user=user, channel="push:a")
    assert await soon(heard.get()) == ("subscribed", "push:a")
    api.publish(channel="push:a", data=[1])
    assert await soon(heard.get()) == ("publication", [1])
    api.unsubscribe(user=user, channel="push:a")
    assert await soon(heard.get()) == ("unsubscribed", "push:a")
    api.refresh(user=user, expire_at=int(time.time()) + 600)
    api.disconnect(user=user)
    await until("a disconnect", lambda: client.state == centrifuge.ClientState.DISCONNECTED)


def calls(api):
    """Every method of the API's library."""
    channel = "chat:api"
    first = api.publish(channel=channel, data=1, tags={"t": "x"}, idempotency_key="k")
    assert api.publish(channel=channel, data=1, idempotency_key="k") == first
    assert api.broadcast(channels=[channel, "push:b"], data={"all": True}).responses[0].result.offset == 2
    history = api.history(channel=channel, limit=10)
    assert [one.data for one in history.publications] == [1, {"all": True}]
    assert history.publications[0].tags == {"t": "x"}
    since = cent.StreamPosition(offset=1, epoch=history.epoch)
    assert [one.offset for one in api.history(channel=channel, limit=10, since=since).publications] == [2]
    api.history_remove(channel=channel)
    assert api.history(channel=channel, limit=10).publications == []
    assert api.channels().channels == {}
    node = api.info().nodes[0]
    assert node.process.rss > 1 << 20 and node.metrics.items["publications"] == 3, node
    api.revoke_token(uid="no token's name", expire_at=int(time.time()) + 60)
    api.invalidate_user_tokens(user="nobody")
    replies = api.batch(requests=[
        cent.PublishRequest(channel=channel, data=3),
        cent.HistoryRequest(channel=channel, limit=1, reverse=True),
    ]).replies
    assert (replies[0].offset, replies[1].publications[0].data) == (3, 3)
    try:
        api.publish(channel="nowhere:1", data=1)
        raise AssertionError("a channel of no namespace was taken")
    except cent.CentApiResponseError as error:
        assert error.code == 102, error


def described(port):
    """The API does as its description says, to requests made from that by schemathesis."""
    here = Path(__file__).resolve().parent
    program = [sys.executable, "-m", "schemathesis.cli"]
    program += ["--config-file", str(here / "schemathesis.toml"), "run", description(port)]
    program += ["--header", f"X-API-Key: {KEY}"]
    # What the schema allows may still be no channel, and an error.
    by_status = ["--header", "X-Centrifugo-Error-Mode: transport"]
    by_status += ["--exclude-checks", "positive_data_acceptance"]
    in_bodies = ["--mode", "positive", "--phases", "fuzzing"]
    for name, flags in (("by status", by_status), ("in bodies", in_bodies)):
        with tempfile.TemporaryDirectory() as folder:
            run = subprocess.run(
                program + flags, cwd=folder, env={**os.environ, "PYTHONPATH": str(here)},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
            )
        assert run.returncode == 0, run.stdout
        print(f"described, errors {name}: {run.stdout.strip().splitlines()[-1].strip('= ')}")


async def main(program):
    with Server(program) as server:
        api = Api(server.port)
        calls(api)
        print("api: every method")
        for name, use_protobuf in (("json", False), ("protobuf", True)):
            clients = Clients(server.port, use_protobuf)
            for part in (presence, recovery, deltas, server_side):
                await part(clients, api, name)
                print(f"{name}: {part.__name__}")
        every = {operation.ok().path for operation in api.description.get_all_operations()}
        assert api.compared == every - {"/rpc"}, every - api.compared
        described(server.port)


asyncio.run(asyncio.wait_for(main(sys.argv[1]), 240))
