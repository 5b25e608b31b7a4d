"""Publishers: `cent` with idempotency keys over the HTTP API, and SDK clients over WebSocket without keys.

Owns the attempts of each publication. Never gives up a publication. The invariant: a publisher begins its next
publication in a channel when the previous one is acknowledged.
"""

import asyncio
import random

import cent
import centrifuge
from cent.exceptions import CentTimeoutError

from node import PATIENCE
from subscribers import PythonClient

# Seconds after which a publisher gives up an attempt. Stalls of the link last longer.
TIMEOUT = 2
# Longest pause between two publications of a publisher, in seconds.
PAUSE = 0.1
# "internal server error", which is temporary.
TEMPORARY = 100
OVERLOADED = 503


class Publisher:
    """Publishes one by one until `stopping` is set. A subclass makes one attempt."""

    has_key = True

    def __init__(self, ledger, stopping, seed, by):
        self.ledger, self.stopping, self.by = ledger, stopping, by
        self.choice = random.Random(f"{seed}/{by}")
        self.nth = 0

    async def run(self):
        while not self.stopping.is_set():
            self.nth += 1
            try:
                async with asyncio.timeout(PATIENCE):
                    while not await self.attempt():
                        await asyncio.sleep(self.choice.uniform(0, 0.2))
            except TimeoutError:
                return self.ledger.violation(f"{self.by}: {self.nth} is not acknowledged within {PATIENCE} s")
            await asyncio.sleep(self.choice.uniform(0, PAUSE))


async def answered(call):
    """The answer of the API; None after an error or a timeout for which a publisher has to retry."""
    try:
        return await call
    except (cent.CentNetworkError, CentTimeoutError):
        return None
    except cent.CentTransportError as error:
        if error.status_code != OVERLOADED:
            raise
        return None
    except cent.CentApiResponseError as error:
        if error.code != TEMPORARY:
            raise
        return None


class ApiPublisher(Publisher):
    """Publishes to one channel."""

    def __init__(self, ledger, stopping, seed, by, channel, api):
        super().__init__(ledger, stopping, seed, f"{by} of {channel}")
        self.channel, self.api = channel, api

    async def attempt(self):
        data = self.ledger.sent(self.channel, self.by, self.nth)
        key = f"{self.ledger.run}/{self.by}/{self.nth}"
        request = cent.PublishRequest(channel=self.channel, data=data, idempotency_key=key)
        result = await answered(self.api.publish(request, timeout=TIMEOUT))
        if result is None:
            return False
        self.ledger.acknowledged(self.channel, self.by, self.nth, result.offset, result.epoch)
        return True


class Broadcaster(Publisher):
    """Publishes to several channels with one request and one key, until each channel has acknowledged."""

    def __init__(self, ledger, stopping, seed, by, channels, api):
        super().__init__(ledger, stopping, seed, by)
        self.channels, self.api = channels, api

    async def attempt(self):
        for channel in self.channels:
            data = self.ledger.sent(channel, self.by, self.nth)
        key = f"{self.ledger.run}/{self.by}/{self.nth}"
        request = cent.BroadcastRequest(channels=self.channels, data=data, idempotency_key=key)
        result = await answered(self.api.broadcast(request, timeout=TIMEOUT))
        if result is None:
            return False
        if any(one.error for one in result.responses):
            codes = {one.error.code for one in result.responses if one.error}
            self.ledger.check(codes == {TEMPORARY}, f"{self.by}: errors {codes}")
            return False
        for channel, one in zip(self.channels, result.responses, strict=True):
            self.ledger.acknowledged(channel, self.by, self.nth, one.result.offset, one.result.epoch)
        return True


class SocketPublisher(Publisher):
    """Publishes over WebSocket. Its protocol has no key, so an attempt that failed may be stored as well."""

    has_key = False

    def __init__(self, ledger, stopping, seed, channel, address, use_protobuf):
        super().__init__(ledger, stopping, seed, f"socket-{'protobuf' if use_protobuf else 'json'}")
        self.channel = channel
        self.client = PythonClient(ledger, address, self.by, use_protobuf)

    async def run(self):
        await self.client.client.connect()
        await super().run()
        await self.client.leave()

    async def attempt(self):
        data = self.client.pack(self.ledger.sent(self.channel, self.by, self.nth))
        try:
            await self.client.client.publish(self.channel, data, timeout=TIMEOUT)
        except (centrifuge.ClientDisconnectedError, centrifuge.OperationTimeoutError):
            return False
        except centrifuge.ReplyError as error:
            if error.code != TEMPORARY:
                raise
            return False
        self.ledger.acknowledged(self.channel, self.by, self.nth)
        return True


def all_publishers(ledger, stopping, seed, address, api):
    """Every publisher of a run: three for each channel, one for all channels, two over WebSocket."""
    keyed = [name for name, stream in ledger.streams.items() if stream.has_keys]
    [free] = [name for name, stream in ledger.streams.items() if not stream.has_keys]
    publishers = [
        ApiPublisher(ledger, stopping, seed, f"api-{nth}", channel, api) for nth in range(3) for channel in keyed
    ]
    publishers.append(Broadcaster(ledger, stopping, seed, "broadcaster", keyed, api))
    publishers += [SocketPublisher(ledger, stopping, seed, free, address, flag) for flag in (False, True)]
    return publishers
