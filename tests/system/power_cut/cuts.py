"""Power cuts at random points of a recording, each followed by a check of what is left.

Owns the choice of the points, the folders, and the processes that work in parallel. Never decides what must be left:
a subject does. A subject is made once per process, and has `note(header, payload)`, which is given the records that are
not the disk's in the order of the recording, and `check(folder)`, which raises Lost. The invariant: a cut is
given by the recording, the seed and its number alone, so a failing cut can be repeated.
"""

import itertools
import multiprocessing
import os
import random
import shutil
import stat
import tempfile
import time

import records
from disk import Disk

CHANGES_OF_NAMES = {"create", "rename", "remove"}
DISK = CHANGES_OF_NAMES | {"begin", "base", "write", "size", "sync"}


class Lost(Exception):
    """The folder lacks something that was promised, or has something that was never written."""


class Recording:
    """The records of a recording by kind. Refuses a recording with a call that the recorder did not understand."""

    def __init__(self, path):
        self.path = path
        self.kinds = []
        for header, _ in records.read(path):
            if header["kind"] == "refused":
                what = f"the recorder does not understand a call on the folder: {header}"
                raise AssertionError(f"{what}; add it to recorder.py")
            self.kinds.append(header["kind"])
        self.syncs = [at for at, kind in enumerate(self.kinds) if kind == "sync"]
        self.names = [at for at, kind in enumerate(self.kinds) if kind in CHANGES_OF_NAMES]

    def point(self, chance):
        """A number of records after which the power fails: anywhere, before a sync, or near a change of names."""
        first = self.kinds.index("begin") + 1 + self.kinds.count("base")
        kind = chance.random()
        point = chance.randint(first, len(self.kinds))
        if self.syncs and kind < 0.4:
            # What the sync covers is not durable yet.
            point = chance.choice(self.syncs)
        elif self.names and kind < 0.6:
            point = chance.choice(self.names) + chance.randint(0, 8)
        return max(first, min(point, len(self.kinds)))

    def compare(self, folder):
        """The folder rebuilt from all records must be the real one, or the recorder missed a change."""
        disk = Disk()
        for header, payload in records.read(self.path):
            if header["kind"] in DISK:
                disk.apply(header, payload)
        with tempfile.TemporaryDirectory(dir=os.path.dirname(self.path)) as work:
            rebuilt = os.path.join(work, "rebuilt")
            disk.write_live(rebuilt)
            differences = [*different(rebuilt, folder)]
        assert not differences, f"the recorder missed changes of {differences}; add the call to calls.py"


def different(one, other):
    """Paths that are not the same in two folders."""
    for name in sorted({*os.listdir(one), *os.listdir(other)}):
        paths = os.path.join(one, name), os.path.join(other, name)
        if not all(map(os.path.exists, paths)) or len({stat.S_IFMT(os.stat(path).st_mode) for path in paths}) > 1:
            yield paths[1]
        elif stat.S_ISSOCK(os.stat(paths[0]).st_mode):
            continue
        elif os.path.isdir(paths[0]):
            yield from different(*paths)
        else:
            with open(paths[0], "rb") as first, open(paths[1], "rb") as second:
                if first.read() != second.read():
                    yield paths[1]


class Replay:
    """The disk and the subject after some of the records."""

    def __init__(self, recording, subject):
        self.source = records.read(recording.path)
        self.disk, self.subject, self.passed = Disk(), subject, 0

    def advance(self, point):
        for header, payload in itertools.islice(self.source, point - self.passed):
            if header["kind"] in DISK:
                self.disk.apply(header, payload)
            else:
                self.subject.note(header, payload)
        self.passed = point


class Cuts:
    """The cuts of one recording. Several folders with the same seed, number and names are the same."""

    def __init__(self, recording, seed, orders, work, make_subject):
        self.recording = recording
        self.seed = seed
        self.orders = orders
        self.work = work
        self.make_subject = make_subject

    def chance(self, number, use):
        return random.Random(f"{self.seed}/{number}/{use}")

    def point(self, number):
        return self.recording.point(self.chance(number, "point"))

    def folder(self, number):
        return os.path.join(self.work, f"cut-{number}")

    def rebuild(self, number, replay):
        """Writes the folder of a cut. Returns what the disk lost."""
        return replay.disk.cut(self.folder(number), self.chance(number, "cut"), self.orders[number % len(self.orders)])

    def left_by(self, number):
        """Writes the folder of a cut. Returns the subject at that time."""
        replay = Replay(self.recording, self.make_subject())
        replay.advance(self.point(number))
        self.rebuild(number, replay)
        return replay.subject

    def run(self, numbers, workers):
        """Makes the cuts in parallel processes. Yields the number of each, and None or what it lost."""
        points = sorted((self.point(number), number) for number in numbers)
        fork = multiprocessing.get_context("fork")
        results = fork.SimpleQueue()
        share = -(-len(points) // workers)
        parts = [points[at : at + share] for at in range(0, len(points), share)]
        processes = [fork.Process(target=self.run_part, args=(part, results)) for part in parts]
        for process in processes:
            process.start()
        try:
            for _ in points:
                while results.empty():
                    if any(process.exitcode for process in processes):
                        raise AssertionError("a process of the test failed")
                    time.sleep(0.01)
                yield results.get()
        finally:
            for process in processes:
                process.terminate()
                process.join()

    def run_part(self, points, results):
        """Makes the cuts of one process, which reads the recording once."""
        replay = Replay(self.recording, self.make_subject())
        for point, number in points:
            replay.advance(point)
            told = self.rebuild(number, replay)
            try:
                replay.subject.check(self.folder(number))
            except Lost as lost:
                results.put((number, "\n  ".join([f"cut {number}, after {point} records: {lost}", *told])))
            else:
                shutil.rmtree(self.folder(number))
                results.put((number, None))
