"""What the server promised about each channel, and whether the history of a channel keeps it.

Owns the rules. Never talks to a server: it is given the records of the publisher and of the subscriber in the order of
the recording, and histories. A publication is promised once its publisher has the answer, or once a subscriber has it.
A channel has one publisher with at most one request outstanding, so at most one request of a channel is undecided: its
publication may be there, wholly, at the next offset, or not at all; its removal was carried out, or was not.
"""

import hashlib
import random
import time

HISTORY_SIZE = 20
# The server forgets a key after 5 minutes. An older one than this is not checked.
KEY_SECONDS = 200
# Sizes of texts, with weights. A large one is several writes to a journal, and fills journals and tables.
SIZES = {100: 4, 1_500: 3, 20_000: 2, 60_000: 2}

TEXT = random.Random("text").randbytes(1 << 20).hex()


def data_of(channel, number):
    """The data of a channel's publication. It follows from the number, so the records need not have it."""
    chance = random.Random(hashlib.sha256(f"{channel}/{number}".encode()).digest())
    size = chance.randint(1, chance.choices(list(SIZES), SIZES.values())[0])
    start = chance.randrange(len(TEXT) - size)
    return {"number": number, "text": TEXT[start : start + size]}


def is_fresh(publication):
    """Has the publication a key that the server still knows?"""
    return publication.get("key") and publication["at"] > time.time() - KEY_SECONDS


class Broken(Exception):
    """A history that does not keep a promise."""


class Channel:
    def __init__(self, name, state=None):
        self.name = name
        self.epoch = None
        self.top = 0
        self.removed = 0
        self.numbers = {}  # of offsets
        self.sent = 0  # the largest number of a publication
        self.undecided = None  # {"number", "key", "at"} of a publication, or {"removal": True}
        self.keyed = None  # {"number", "key", "at", "offset"} of the last publication with a key
        if state:
            self.__dict__.update(state)
            self.numbers = {int(offset): number for offset, number in self.numbers.items()}

    def promise(self, offset, number, epoch):
        if self.epoch not in (None, epoch):
            raise Broken(f"{self.name}: epoch {epoch} after {self.epoch}")
        if self.numbers.get(offset, number) != number:
            raise Broken(f"{self.name}: offset {offset} is of publications {self.numbers[offset]} and {number}")
        if offset > self.top + 1:
            raise Broken(f"{self.name}: offset {offset} after {self.top}")
        self.epoch = epoch
        self.top = max(self.top, offset)
        self.numbers[offset] = number
        self.numbers.pop(offset - HISTORY_SIZE - 1, None)

    def decide(self, number, offset):
        """The undecided publication has an offset now."""
        undecided = self.undecided
        if undecided and undecided.get("number") == number:
            if undecided["key"]:
                self.keyed = {**undecided, "offset": offset}
            self.undecided = None

    def compare(self, history):
        """Checks a history as the API answers it. Returns it with the numbers of publications instead of their data."""
        if self.epoch not in (None, history["epoch"]):
            raise Broken(f"{self.name}: epoch {history['epoch']} instead of {self.epoch}")
        undecided = self.undecided or {}
        top, offsets = history["offset"], [one["offset"] for one in history["publications"]]
        if top != self.top and not (top == self.top + 1 and "number" in undecided):
            raise Broken(f"{self.name}: the offset is {top} instead of {self.top}")
        wanted = list(range(max(self.removed, top - HISTORY_SIZE) + 1, top + 1))
        if offsets != wanted and not ("removal" in undecided and offsets == []):
            raise Broken(f"{self.name}: offsets {offsets} instead of {wanted}, the last promised is {self.top}")
        numbers = {one["offset"]: one["data"].get("number") for one in history["publications"]}
        for one in history["publications"]:
            number = self.numbers.get(one["offset"], undecided.get("number"))
            if one["data"] != data_of(self.name, number):
                raise Broken(f"{self.name}: offset {one['offset']} has other data than publication {number}")
        return {"epoch": history["epoch"], "offset": top, "numbers": numbers}

    def adopt(self, found):
        """Takes a history for what is promised from now on: it decides what was undecided."""
        if found["offset"] > self.top:
            self.decide(self.undecided["number"], found["offset"])
        numbers = {int(offset): number for offset, number in found["numbers"].items()}
        if "removal" in (self.undecided or {}) and not numbers:
            self.removed = found["offset"]
        self.epoch, self.top, self.numbers, self.undecided = found["epoch"], found["offset"], numbers, None


class Promises:
    def __init__(self, names):
        self.channels = {name: Channel(name) for name in names}

    def state(self):
        """For the record with which a recording begins whose folder has promises already."""
        return {name: vars(channel) for name, channel in self.channels.items()}

    def note(self, header, _payload):
        if header["kind"] == "promises":
            self.channels = {name: Channel(name, state) for name, state in header["state"].items()}
        else:
            getattr(self, f"note_{header['kind']}")(self.channels[header["channel"]], header)

    def note_publishing(self, channel, header):
        number = header["number"]
        channel.sent = max(channel.sent, number)
        # A repetition with the key of a publication that is there changes nothing.
        if number not in channel.numbers.values():
            channel.undecided = {"number": number, "key": header["key"], "at": header["at"]}

    def note_published(self, channel, header):
        channel.promise(header["offset"], header["number"], header["epoch"])
        channel.decide(header["number"], header["offset"])

    def note_seen(self, channel, header):
        # A record of the subscriber may come after many of the publisher.
        if header["offset"] > channel.top - HISTORY_SIZE:
            channel.promise(header["offset"], header["number"], channel.epoch)
            channel.decide(header["number"], header["offset"])

    def note_removing(self, channel, _header):
        channel.undecided = {"removal": True}

    def note_removed(self, channel, _header):
        channel.removed, channel.undecided = channel.top, None

    def note_history(self, channel, header):
        channel.adopt(header["found"])
