"""Power cuts at random points of a recording, each followed by a check of what is left.

Owns the choice of the points, the folders, and the processes that work in parallel. Never decides what must be left:
a subject does. A subject is made once per process, and has `note(header, payload)`, which is given the records that are
not the disk's in the order of the recording, and `check(folder, random)`, which raises Lost. The invariant: a cut is
given by the recording, the seed and its number alone, so a failing cut can be repeated.
"""

import itertools
import multiprocessing
import os
import random
import shutil
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
        self.of_names = [at for at, kind in enumerate(self.kinds) if kind in CHANGES_OF_NAMES]

    def point(self, chance):
        """A number of records after which the power fails: anywhere, or near a change of names, which are rare."""
        first = self.kinds.index("begin") + 1 + self.kinds.count("base")
        if self.of_names and chance.random() < 0.4:
            near = chance.choice(self.of_names) + chance.randint(0, 8)
            return max(first, min(near, len(self.kinds)))
        return chance.randint(first, len(self.kinds))

    def compare(self, folder):
        """The folder rebuilt from all records must be the real one, or the recorder missed a change."""
        disk = Disk()
        for header, payload in records.read(self.path):
            if header["kind"] in DISK:
                disk.apply(header, payload)
        with tempfile.TemporaryDirectory() as work:
            rebuilt = os.path.join(work, "rebuilt")
            disk.write_live(rebuilt)
            differences = [*different(rebuilt, folder)]
        assert not differences, f"the recorder missed changes of {differences}; add the call to calls.py"


def different(one, other):
    """Paths that are not the same in two folders."""
    for name in sorted({*os.listdir(one), *os.listdir(other)}):
        paths = os.path.join(one, name), os.path.join(other, name)
        if not all(map(os.path.exists, paths)) or os.path.isdir(paths[0]) != os.path.isdir(paths[1]):
            yield paths[1]
        elif os.path.isdir(paths[0]):
            yield from different(*paths)
        else:
            with open(paths[0], "rb") as first, open(paths[1], "rb") as second:
                if first.read() != second.read():
                    yield paths[1]


class Cuts:
    """The cuts of one recording."""

    def __init__(self, recording, seed, orders, work, make_subject):
        self.recording = recording
        self.seed = seed
        self.orders = orders
        self.work = work
        self.make_subject = make_subject

    def chance(self, number, use):
        return random.Random(f"{self.seed}/{number}/{use}")

    def run(self, numbers, workers):
        """Makes the cuts in parallel processes. Yields None for a cut that left all that was promised, else why not."""
        points = sorted((self.recording.point(self.chance(number, "point")), number) for number in numbers)
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
        disk, subject, passed = Disk(), self.make_subject(), 0
        source = records.read(self.recording.path)
        for point, number in points:
            for header, payload in itertools.islice(source, point - passed):
                if header["kind"] in DISK:
                    disk.apply(header, payload)
                else:
                    subject.note(header, payload)
            passed = point
            results.put(self.cut(disk, subject, point, number))

    def cut(self, disk, subject, point, number):
        chance = self.chance(number, "cut")
        folder = os.path.join(self.work, f"cut-{number}")
        told = disk.cut(folder, chance, self.orders[number % len(self.orders)])
        try:
            subject.check(folder, chance)
        except Lost as lost:
            return "\n  ".join([f"cut {number} after {point} records: {lost}", *told, f"the folder: {folder}"])
        shutil.rmtree(folder)
        return None
