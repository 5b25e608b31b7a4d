"""The record of a run: publications sent, acknowledged and delivered.

Owns every check of the promise. Never talks to the server. The invariant: a fact that contradicts an earlier
fact becomes a violation, and a violation is never withdrawn.
"""

import asyncio
import hashlib
import json
import time
from collections import Counter

# Number of violations that a run reports.
REPORTED = 20


def payload(seed, by, nth):
    """The data of a publisher's nth publication. Most are short, few are long."""
    digest = hashlib.sha256(f"{seed}/{by}/{nth}".encode()).hexdigest()
    die = int(digest[:4], 16) % 200
    repeats = 500 if die == 0 else 40 if die < 10 else 1 + die % 4
    return {"by": by, "nth": nth, "text": f'{digest} "\u00e9\n' * repeats}


class Stream:
    """One channel: the publication at each offset, in terms of (publisher, number)."""

    def __init__(self, name, offset, epoch, has_keys):
        self.name = name
        self.epoch = epoch
        self.has_keys = has_keys
        # Offset before the run. The placed publications after it are known without a gap up to the frontier.
        self.start = self.frontier = self.top = offset
        self.placed = {}
        self.attempts = Counter()
        self.copies = Counter()
        self.last = Counter()
        self.acknowledged = set()

    def place(self, offset, ident):
        """Notes the publication at an offset; returns a violation, or None."""
        if offset <= self.start:
            return f"offset {offset} was given before the run, and holds {ident}"
        known = self.placed.setdefault(offset, ident)
        if known != ident:
            return f"offset {offset} holds both {known} and {ident}"
        self.top = max(self.top, offset)
        faults = []
        while self.frontier + 1 in self.placed:
            self.frontier += 1
            faults.append(self.advance(self.placed[self.frontier]))
        return next(filter(None, faults), None)

    def advance(self, ident):
        """Checks the next publication of the sequence."""
        by, nth = ident
        self.copies[ident] += 1
        if self.copies[ident] > self.attempts[ident]:
            return f"{ident} is stored {self.copies[ident]} times after {self.attempts[ident]} attempts"
        if not self.has_keys:
            return None
        previous, self.last[by] = self.last[by], nth
        if nth != previous + 1:
            return f"{by} published {nth} after {previous}, at offset {self.frontier}"
        return None

    def missing(self):
        """What the complete sequence lacks at the end of the run; None if nothing."""
        if self.frontier != self.top:
            return f"nobody received offset {self.frontier + 1} of {self.top}"
        lost = [ident for ident in self.acknowledged if not self.copies[ident]]
        return f"acknowledged and lost: {sorted(lost)[:REPORTED]}" if lost else None


class Ledger:
    """All streams, the violations, and the numbers of the run."""

    def __init__(self, seed):
        self.seed = seed
        self.streams = {}
        self.violations = []
        self.failed = asyncio.Event()
        self.numbers = Counter()
        self.longest = {"recovery": 0, "pause": 0.0, "start": 0.0}
        self.last_acknowledgement = None

    def add(self, name, offset, epoch, has_keys):
        self.streams[name] = Stream(name, offset, epoch, has_keys)

    @property
    def run(self):
        """Differs between two runs on one folder, so that a key of the earlier run is not used again."""
        return sum(stream.start for stream in self.streams.values())

    def violation(self, text):
        self.violations.append(text)
        self.failed.set()

    def check(self, holds, text):
        if not holds:
            self.violation(text)

    def sent(self, channel, by, nth):
        """An attempt to publish begins. Returns the data."""
        self.streams[channel].attempts[by, nth] += 1
        self.numbers["attempts"] += 1
        return payload(self.seed, by, nth)

    def acknowledged(self, channel, by, nth, offset=None, epoch=None):
        """A publisher has the acknowledgement, with a position if its protocol tells one."""
        stream = self.streams[channel]
        stream.acknowledged.add((by, nth))
        if offset is not None:
            self.check(epoch == stream.epoch, f"{channel}: epoch {epoch} of an acknowledgement, not {stream.epoch}")
            self.place(channel, offset, (by, nth))
        now = time.monotonic()
        self.longest["pause"] = max(self.longest["pause"], now - (self.last_acknowledgement or now))
        self.last_acknowledgement = now
        self.numbers["acknowledged"] += 1

    def place(self, channel, offset, ident):
        fault = self.streams[channel].place(offset, ident)
        self.check(fault is None, f"{channel}: {fault}")

    def stored(self, channel, offset, data, where):
        """A subscriber or a history has this publication."""
        ident = (data.get("by"), data.get("nth")) if isinstance(data, dict) else None
        if ident not in self.streams[channel].attempts:
            return self.violation(f"{channel}: {where} has a publication that was not sent: {json.dumps(data)[:200]}")
        if data != payload(self.seed, *ident):
            return self.violation(f"{channel}: {where} has {ident} with other content: {json.dumps(data)[:200]}")
        self.place(channel, offset, ident)

    def progress(self):
        numbers, longest = self.numbers, self.longest
        return (
            f"{numbers['acknowledged']} acknowledged, {numbers['attempts']} attempts;"
            f" {numbers['kills']} kills ({numbers['kills at start']} at a start, {numbers['kills at stop']} at a stop),"
            f" {numbers['stops']} stops, {numbers['cuts']} cuts; {numbers['deliveries']} deliveries,"
            f" {numbers['recoveries']} recoveries of at most {longest['recovery']}, {numbers['newcomers']} newcomers;"
            f" longest pause {longest['pause']:.1f} s, longest start {longest['start']:.1f} s"
        )


class Follower:
    """The sequence that one subscriber receives of one channel, after the offset `since`."""

    def __init__(self, ledger, name, channel, since, is_recovering):
        self.ledger = ledger
        self.stream = ledger.streams[channel]
        self.title = f"{channel}: {name}"
        self.last = since
        self.is_recovering = is_recovering
        self.is_subscribed = False

    def check(self, holds, text):
        self.ledger.check(holds, f"{self.title} {text}")

    def subscribed(self, offset, epoch, was_recovering, recovered):
        """The server's answer to a subscribe. Each but a resident's first must be a complete recovery, which
        begins at the position of the subscriber."""
        self.check(epoch == self.stream.epoch, f"has epoch {epoch}, not {self.stream.epoch}")
        if self.is_recovering:
            self.check(was_recovering and recovered, f"was not recovered from {self.last}, but is told {offset}")
            self.ledger.numbers["recoveries"] += 1
            longest = self.ledger.longest
            longest["recovery"] = max(longest["recovery"], self.stream.top - self.last)
        self.check(offset == self.last, f"is at {self.last}, and its subscription at {offset}")
        self.is_recovering = self.is_subscribed = True

    def received(self, offset, data):
        self.check(self.is_subscribed, "received a publication before it was subscribed")
        self.check(offset == self.last + 1, f"received offset {offset} after {self.last}")
        self.last = max(self.last, offset)
        self.ledger.numbers["deliveries"] += 1
        self.ledger.stored(self.stream.name, offset, data, self.title)

    def ended(self, code, reason):
        self.check(False, f"lost its subscription: {code} {reason}")
