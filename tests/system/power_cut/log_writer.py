"""A small store to test the power-cut test itself: entries in segments, and a file that names the segments.

Usage: log_writer.py FOLDER LOG ENTRIES SEED [FAULT]

Owns one way to keep entries that is correct, and the faults in FAULTS, each of which forgets one thing that a power cut
punishes. Appends "acknowledged" to the log of the recording when an entry is durable.
"""

import os
import random
import struct
import sys
import zlib

from records import Log

# The fault, and the assumption about names under which a power cut punishes it.
FAULTS = {
    "no-sync": "both",
    "early": "both",
    "no-folder-sync": "both",
    "no-sync-before-rename": "both",
    "no-checksum": "both",
    "only-file-sync": "unordered",
}
SEGMENT, SEGMENTS_KEPT = 16, 3
HEAD = struct.Struct("<II")


def entry_of(number):
    return (b"%d:" % number) * (1 + number * 37 % 400)


class Writer:
    def __init__(self, folder, fault):
        self.folder, self.fault = folder, fault
        self.segment, self.file = -1, None

    def sync(self, descriptor):
        if self.fault != "no-sync":
            os.fdatasync(descriptor)

    def sync_folder(self):
        if self.fault not in ("no-folder-sync", "only-file-sync"):
            folder = os.open(self.folder, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)

    def roll(self):
        """Begins a segment, names it in `current`, and removes the oldest one."""
        if self.file is not None:
            self.sync(self.file)
            os.close(self.file)
        self.segment += 1
        path = os.path.join(self.folder, str(self.segment))
        self.file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self.sync(self.file)
        self.sync_folder()
        oldest = max(0, self.segment - SEGMENTS_KEPT)
        current = os.path.join(self.folder, "current")
        file = os.open(current + ".new", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.write(file, b"%d %d." % (oldest, self.segment))
        if self.fault != "no-sync-before-rename":
            self.sync(file)
        os.rename(current + ".new", current)
        if self.fault == "only-file-sync":
            os.fsync(file)
        os.close(file)
        self.sync_folder()
        if oldest > 0:
            os.unlink(os.path.join(self.folder, str(oldest - 1)))

    def write(self, number):
        if number % SEGMENT == 0:
            self.roll()
        entry = entry_of(number)
        os.write(self.file, HEAD.pack(len(entry), zlib.crc32(entry)) + entry)


def read_entries(folder, checks=True):
    """The entries of the store, up to the first one that is torn in each segment."""
    try:
        with open(os.path.join(folder, "current"), "rb") as file:
            oldest, newest = map(int, file.read().removesuffix(b".").split())
    except FileNotFoundError:
        return
    for segment in range(oldest, newest + 1):
        with open(os.path.join(folder, str(segment)), "rb") as file:
            data = file.read()
        at = 0
        while at + HEAD.size <= len(data):
            length, checksum = HEAD.unpack_from(data, at)
            entry = data[at + HEAD.size : at + HEAD.size + length]
            if length == 0 or len(entry) < length or checks and zlib.crc32(entry) != checksum:
                break
            yield entry
            at += HEAD.size + length


def main():
    folder, log, entries, seed = sys.argv[1], Log(sys.argv[2]), int(sys.argv[3]), random.Random(sys.argv[4])
    writer = Writer(folder, sys.argv[5] if len(sys.argv) > 5 else None)
    number = 0
    while number < entries:
        batch = range(number, min(entries, number + seed.randint(1, 5)))
        for number in batch:
            writer.write(number)
        if writer.fault == "early":
            log.append("acknowledged", number=number)
        writer.sync(writer.file)
        log.append("acknowledged", number=number)
        number += 1


if __name__ == "__main__":
    main()
