"""Delivery end to end: publishers that retry, subscribers that are cut, and a server that is killed at random.

Usage: python tests/system/delivery DRUMLINE [--seconds N] [--seed N] [--folder F] [-- FLAG...]

The flags go to the server, for example `-- --shards 56`. The seed decides every choice of the test, but not the
timing of the processes. Owns the schedule of a run. Never changes what the server stores. The invariant: a run
passes only if each subscriber has every acknowledged publication, in order, once.
"""

import argparse
import asyncio
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import cent

from ledger import REPORTED, Ledger
from link import Link
from node import KEY, PATIENCE, Node
from publishers import all_publishers
from subscribers import JavaScriptClients, newcomer, residents

# Channels whose publishers have keys, and the one whose publishers have none.
KEYED, FREE = ["a", "b", "c"], "free"
# Seconds between two lines of progress.
REPORT = 5
# Publications per request for a history.
PAGE = 500


class Run:
    def __init__(self, options, folder):
        self.seed, self.seconds, self.folder = options.seed, options.seconds, folder
        self.ledger = Ledger(options.seed)
        self.node = Node(options.program, folder, options.flags)
        self.link = Link(self.node.port)
        self.stopping = asyncio.Event()

    def choice(self, name):
        return random.Random(f"{self.seed}/{name}")

    async def pause(self, seconds):
        """Sleeps, at most until the run stops."""
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            pass

    async def until(self, what, holds):
        end = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < end, f"waited {PATIENCE} s for {what()}"
            await asyncio.sleep(0.05)

    async def begin(self):
        """Starts the server, and reads the positions that an earlier run left in the folder."""
        await self.node.start()
        for name in [*KEYED, FREE]:
            history = await self.api.history(cent.HistoryRequest(channel=name, limit=0))
            self.ledger.add(name, history.offset, history.epoch, name in KEYED)
        self.publishers = all_publishers(self.ledger, self.stopping, self.seed, self.link.address, self.api)

    async def disturb_node(self):
        """Kills and stops the server, also while it starts and while it stops, and starts it again at once."""
        choice, numbers, longest = self.choice("node"), self.ledger.numbers, self.ledger.longest
        while True:
            await self.pause(choice.uniform(0.5, 6))
            if self.stopping.is_set():
                return self.node.check_alive()
            if choice.random() < 0.7:
                await self.node.kill()
                numbers["kills"] += 1
            else:
                patience = choice.choice([None, choice.uniform(0, 0.3)])
                was_killed = await self.node.stop(patience)
                numbers["kills at stop" if was_killed else "stops"] += 1
                numbers["kills"] += was_killed
            await self.node.spawn(choice.randint(1, 4))
            while choice.random() < 0.3:
                await asyncio.sleep(choice.uniform(0, 0.4))
                await self.node.kill()
                numbers["kills at start"] += 1
                numbers["kills"] += 1
                await self.node.spawn(choice.randint(1, 4))
            longest["start"] = max(longest["start"], await self.node.listens())

    async def disturb_links(self):
        choice = self.choice("links")
        async with asyncio.TaskGroup() as cuts:
            while not self.stopping.is_set():
                await self.pause(choice.uniform(0.05, 0.8))
                how_many = 1000 if choice.random() < 0.03 else 1
                for connection in choice.sample(self.link.connections, min(how_many, len(self.link.connections))):
                    self.ledger.numbers["cuts"] += 1
                    cuts.create_task(self.link.cut(connection, choice))

    async def send_newcomers(self):
        choice = self.choice("newcomers")
        while not self.stopping.is_set():
            await self.pause(choice.uniform(0.5, 3))
            await newcomer(self.ledger, self.link.address, choice)

    async def report(self):
        begun = time.monotonic()
        while True:
            await asyncio.sleep(REPORT)
            print(f"{time.monotonic() - begun:5.0f} s: {self.ledger.progress()}", flush=True)

    async def disturb(self):
        """Publishes, cuts and kills for the time of the run, until the last publication is acknowledged."""
        async with asyncio.TaskGroup() as tasks:
            for publisher in self.publishers:
                tasks.create_task(publisher.run())
            for disturbance in (self.disturb_node, self.disturb_links, self.send_newcomers):
                tasks.create_task(disturbance())
            await self.pause(self.seconds)
            self.stopping.set()

    async def follow(self):
        """The whole run, with subscribers that follow all of it."""
        scripts = JavaScriptClients(self.ledger, self.link.address)
        async with asyncio.TaskGroup() as tasks:
            behind = tasks.create_task(scripts.run()), tasks.create_task(self.report())
            clients = await residents(self.ledger, self.link.address)
            followers = scripts.followers + [follower for client in clients for follower in client.followers]

            def lacking(holds):
                return [f"{follower.title} at {follower.last}" for follower in followers if not holds(follower)]

            await self.until(
                lambda: f"subscribers: {lacking(lambda one: one.is_subscribed)}",
                lambda: not lacking(lambda one: one.is_subscribed),
            )
            await self.disturb()
            await self.until(
                lambda: f"complete sequences: {lacking(lambda one: one.last == one.stream.top)}",
                lambda: not lacking(lambda one: one.last == one.stream.top),
            )
            for task in behind:
                task.cancel()
            for client in clients:
                await client.leave()

    async def compare(self):
        """After one more kill, the history holds what the subscribers have, and the last keys are known."""
        await self.node.kill()
        await self.node.start()
        for publisher in self.publishers:
            if publisher.has_key:
                # The first attempts may use connections of the killed server.
                while not await publisher.attempt():
                    self.node.check_alive()
        for name, stream in self.ledger.streams.items():
            self.ledger.check(stream.missing() is None, f"{name}: {stream.missing()}")
            position = cent.StreamPosition(offset=max(stream.start, stream.top - 2 * PAGE), epoch=stream.epoch)
            while True:
                request = cent.HistoryRequest(channel=name, limit=PAGE, since=position)
                history = await self.api.history(request)
                self.ledger.check(history.epoch == stream.epoch, f"{name}: epoch {history.epoch} of the history")
                for offset, one in enumerate(history.publications, position.offset + 1):
                    self.ledger.check(one.offset == offset, f"{name}: history has {one.offset}, not {offset}")
                    self.ledger.stored(name, one.offset, one.data, "history")
                if not history.publications:
                    break
                position.offset = history.publications[-1].offset
            self.ledger.check(position.offset == stream.top, f"{name}: history ends at {position.offset}")

    async def whole(self):
        await self.begin()
        await self.follow()
        await self.compare()
        await self.node.stop()
        assert not self.node.errors(), self.node.errors()

    async def run(self):
        """Runs until the end or the first violation; returns the faults. Ends what it started, also on a signal."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
        await self.link.open()
        self.api = cent.AsyncClient(f"http://{self.link.address}/api", KEY)
        task = asyncio.create_task(self.whole())
        failed = asyncio.create_task(self.ledger.failed.wait())
        try:
            await asyncio.wait([task, failed], return_when=asyncio.FIRST_COMPLETED)
        finally:
            failed.cancel()
            task.cancel()
            [ended] = await asyncio.gather(task, return_exceptions=True)
            await self.api.close()
            await self.link.close()
            await self.node.abandon()
        return self.ledger.violations[:REPORTED] + [ended] * isinstance(ended, Exception)


def parse():
    parser = argparse.ArgumentParser(prog="delivery", description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the server's program")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--folder", type=Path, help="folder of the store; an existing one is continued")
    own, flags = sys.argv[1:], []
    if "--" in own:
        at = own.index("--")
        own, flags = own[:at], own[at + 1 :]
    return parser.parse_args(own, argparse.Namespace(flags=flags))


def main():
    options = parse()
    print(f"seed {options.seed}", flush=True)
    random.seed(options.seed)
    # The SDK logs each attempt to connect that fails.
    logging.getLogger("centrifuge").setLevel(logging.CRITICAL)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="drumline-delivery-"))
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(options, folder.resolve())
    faults = asyncio.run(run.run())
    print(run.ledger.progress())
    if faults:
        for fault in faults:
            print("".join(traceback.format_exception(fault)) if isinstance(fault, Exception) else f"violation: {fault}")
        sys.exit(f"failed with seed {options.seed}; the store and the server's log are in {folder}")
    if options.folder is None:
        shutil.rmtree(folder)
    print(f"every sequence is complete, in order and without duplicates; seed {options.seed}")


main()
