"""The load of a recording: publishers and a subscriber, which append what they were promised to the log.

Owns the sessions: a session is one life of the server, which ends by kill -9 or by a clean stop. A session begins with
the history of every channel, which must keep all promises of the sessions before. Appends a request before it is sent,
and its answer when it is there, so that the answer stands in the log behind the sync that made it true.
"""

import json
import random
import signal
import threading
import time
import urllib.parse
import urllib.request

from promises import Broken, data_of, is_fresh
from records import Log
from server import Api, NoServer, Server

CHANNELS = [f"channel-{number}" for number in range(24)]
SEEN = CHANNELS[:4]
PUBLISHERS = 12


class Load:
    def __init__(self, binary, folder, path, promises, seed):
        self.binary = binary
        self.folder = folder
        self.path = path
        self.promises = promises
        self.seed = seed
        self.log = Log(path)
        self.log.append("promises", state=promises.state())
        self.lock = threading.Lock()
        self.bytes = self.published = 0
        self.goal = 0
        self.faults = []

    def tell(self, kind, channel, **fields):
        """Appends a record, and notes it: what the log tells later, the load knows now."""
        with self.lock:
            self.log.append(kind, channel=channel, **fields)
            self.promises.note({"kind": kind, "channel": channel, **fields}, b"")

    def session(self, number, goal, ending, options):
        """Starts the server, publishes so many bytes, and ends the server with a signal."""
        self.goal = self.bytes + goal
        server = Server(self.binary, self.folder, f"{self.path}-server-{number}", (self.path, options))
        try:
            self.subscribe(server.port)
            threads = [
                threading.Thread(target=self.guarded, args=(self.publish_all, server.port, nth, number))
                for nth in range(PUBLISHERS)
            ]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads) and self.bytes < self.goal and not self.faults:
                time.sleep(0.005)
            # The publishers are amid requests.
            server.end(ending)
            for thread in threads:
                thread.join()
        finally:
            server.end(signal.SIGKILL)
        if self.faults:
            raise self.faults[0]

    def guarded(self, function, *arguments):
        try:
            function(*arguments)
        except NoServer as error:
            # The end of the server ends its connections.
            if self.bytes < self.goal:
                self.faults.append(error)
        except Exception as error:
            self.faults.append(error)

    def publish_all(self, port, nth, session):
        """One publisher: its channels, one request at a time."""
        api, chance = Api(port), random.Random(f"{self.seed}/{session}/{nth}")
        names = CHANNELS[nth::PUBLISHERS]
        for name in names:
            self.resume(api, self.promises.channels[name])
        while self.bytes < self.goal:
            channel = self.promises.channels[chance.choice(names)]
            what = chance.random()
            if what < 0.01:
                self.remove(api, channel)
            elif what < 0.05 and is_fresh(channel.keyed or {}):
                self.publish(api, channel, channel.keyed["number"], channel.keyed["key"], channel.keyed["offset"])
            else:
                number = channel.sent + 1
                key = f"{self.seed}/{number}" if chance.random() < 0.5 else None
                self.publish(api, channel, number, key)

    def resume(self, api, channel):
        """Checks what is there, and repeats the request whose answer did not come."""
        undecided = channel.undecided or {}
        found = channel.compare(api.call("history", channel=channel.name, limit=-1))
        self.tell("history", channel.name, found=found)
        if is_fresh(undecided):
            number = undecided["number"]
            offsets = [offset for offset, other in found["numbers"].items() if other == number]
            self.publish(api, channel, number, undecided["key"], *offsets)

    def publish(self, api, channel, number, key, offset=None):
        """Publishes. A repetition must get the offset of the first time."""
        data = data_of(channel.name, number)
        more = {"idempotency_key": key} if key else {}
        self.tell("publishing", channel.name, number=number, key=key, at=time.time())
        result = api.call("publish", channel=channel.name, data=data, **more)
        if offset not in (None, result["offset"]):
            raise Broken(f"{channel.name}: key {key} got offset {result['offset']} instead of {offset}")
        self.tell("published", channel.name, number=number, offset=result["offset"], epoch=result["epoch"])
        with self.lock:
            self.bytes += len(data["text"])
            self.published += 1

    def remove(self, api, channel):
        self.tell("removing", channel.name)
        api.call("history_remove", channel=channel.name)
        self.tell("removed", channel.name)

    def subscribe(self, port):
        """Opens a stream of some channels, and reads it until the server ends."""
        query = urllib.parse.quote(json.dumps({"subs": {name: {} for name in SEEN}}))
        stream = urllib.request.urlopen(f"http://127.0.0.1:{port}/connection/uni_sse?cf_connect={query}")
        connected = stream.readline()
        assert b'"connect"' in connected, connected
        threading.Thread(target=self.guarded, args=(self.read, stream), daemon=True).start()

    def read(self, stream):
        try:
            for line in stream:
                if not line.startswith(b"data: "):
                    continue
                message = json.loads(line[6:])
                if "pub" in message:
                    name, number = message["channel"], message["pub"]["data"]["number"]
                    if message["pub"]["data"] != data_of(name, number):
                        raise Broken(f"{name}: a subscriber got other data than publication {number}")
                    self.tell("seen", name, number=number, offset=message["pub"]["offset"])
        except (OSError, ValueError):
            # A line that was cut when the server was killed.
            if self.bytes < self.goal:
                raise
