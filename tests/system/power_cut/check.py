"""Looks at a store after a power cut: starts the server on it, and asks for every history.

Owns the questions. The rules of a history are in promises.py.
"""

import os
import signal

from cuts import Lost
from promises import Broken, Promises, data_of, is_fresh
from load import CHANNELS
from server import Api, NoServer, Server


class Histories(Promises):
    """The subject of a cut: promises, and the server that must keep them."""

    def __init__(self, binary):
        super().__init__(CHANNELS)
        self.binary = binary

    def check(self, folder):
        log = f"{folder}.log"
        try:
            server = Server(self.binary, folder, log)
            try:
                api = Api(server.port)
                for channel in self.channels.values():
                    check_channel(api, channel)
            finally:
                server.end(signal.SIGKILL)
        except (Broken, NoServer) as error:
            raise Lost(str(error)) from error
        os.remove(log)


def check_channel(api, channel):
    """The history keeps what was promised, a key still has its offset, and a new publication gets the next offset."""
    found = channel.compare(api.call("history", channel=channel.name, limit=-1))
    top = found["offset"]
    undecided = channel.undecided or {}
    if is_fresh(undecided):
        # The request is repeated as its publisher would. It is there once, whether it was there before or not.
        is_there = undecided["number"] in found["numbers"].values() and top > channel.top
        top += not is_there
        expect(publish(api, channel, undecided["number"], undecided["key"]), top, found)
    if channel.keyed and is_fresh(channel.keyed):
        keyed = channel.keyed
        expect(publish(api, channel, keyed["number"], keyed["key"]), keyed["offset"], found)
    expect(publish(api, channel, channel.sent + 1, None), top + 1, found)


def publish(api, channel, number, key):
    more = {"idempotency_key": key} if key else {}
    return api.call("publish", channel=channel.name, data=data_of(channel.name, number), **more)


def expect(result, offset, found):
    if result["offset"] != offset or result["epoch"] != found["epoch"]:
        raise Broken(f"a publication got {result} instead of offset {offset} of epoch {found['epoch']}")
