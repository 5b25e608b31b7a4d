"""The power-cut test: the server's store after a power failure at random points of a load.

Usage: power_cut BINARY [--cuts N] [--seed S] [--names ordered|unordered|both] [--ignore-syncs] [--report FILE]
       power_cut BINARY --recording LOG --only N --seed S --names NAMES    repeats one cut and keeps its folder

Owns the course: tests itself with stores whose faults are known; shows that it finds a server whose syncs do nothing;
then records loads, cuts the power at N points, and checks each folder with a server. A further recording begins on the
folder that a cut of the one before has left. Fails if anything that was acknowledged, or that a subscriber saw, is not
there. --ignore-syncs makes only the recordings and cuts, with syncs that do nothing: it must fail. --report writes the
counts as JSON, which `drumline-bench durable-power` reads.

Needs Linux 5.19 or newer. Works in /dev/shm if it has room: then the servers that check do not wait for a disk.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time

import check
import cuts
import self_test
from disk import ORDERED, UNORDERED
from load import CHANNELS, Load
from promises import Promises

# A recording has publications of so many bytes: enough that journals of 64 MiB are begun and removed.
RECORDING_BYTES, CUTS_OF_RECORDING = 150_000_000, 50
# Syncs that do nothing are found with less.
PROOF_BYTES, PROOF_CUTS = 5_000_000, 8
ENDINGS = [signal.SIGKILL, signal.SIGTERM]
ROOM = 6 << 30
FOLDERS_KEPT = 3


class Test:
    def __init__(self, options, work, ignores_syncs):
        self.binary = os.path.abspath(options.binary)
        self.seed = options.seed
        self.names = options.names
        self.orders = [ORDERED, UNORDERED] if options.names == "both" else [options.names]
        self.ignores_syncs = ignores_syncs
        self.work = work
        self.counts = dict.fromkeys(["cuts", "lost", "publications", "bytes", "records", "sessions"], 0)

    def make_subject(self):
        return check.Histories(self.binary)

    def cuts_of(self, log, work):
        return cuts.Cuts(cuts.Recording(log), self.seed, self.orders, work, self.make_subject)

    def record(self, name, goal, before=None):
        """Records the sessions of a load. `before`: a folder and its promises. Returns the recording's cuts."""
        work = os.path.join(self.work, name)
        folder, log = os.path.join(work, "root"), os.path.join(work, "log")
        os.mkdir(work)
        promises = Promises(CHANNELS)
        if before:
            os.rename(before[0], folder)
            promises.channels = before[1].channels
        else:
            os.mkdir(folder)
        chance = random.Random(f"{self.seed}/{name}")
        load = Load(self.binary, folder, log, promises, f"{self.seed}/{name}")
        sessions = chance.randint(2, 4)
        start = time.monotonic()
        for nth in range(sessions):
            options = ["--ignore-syncs"] * self.ignores_syncs + ["--continue"] * (nth > 0)
            load.session(nth, goal // sessions, chance.choice(ENDINGS), options)
        made = self.cuts_of(log, work)
        made.recording.compare(folder)
        records, seconds = len(made.recording.kinds), time.monotonic() - start
        self.count(publications=load.published, bytes=load.bytes, records=records, sessions=sessions)
        amount = f"{load.published} publications, {load.bytes >> 20} MiB, {records} records"
        print(f"{name}: {amount}, {sessions} sessions, {seconds:.0f} s", flush=True)
        return made

    def count(self, **more):
        for name, number in more.items():
            self.counts[name] += number

    def cut(self, made, numbers):
        """Makes cuts. Returns the failures, of which the first keep their folders."""
        failures, start = [], time.monotonic()
        for done, (number, failure) in enumerate(made.run(numbers, os.cpu_count()), 1):
            if failure:
                failures.append(failure)
                if len(failures) > FOLDERS_KEPT:
                    shutil.rmtree(made.folder(number))
            self.count(cuts=1, lost=int(failure is not None))
            if done % 10 == 0 or done == len(numbers):
                seconds = time.monotonic() - start
                print(f"  {done} of {len(numbers)} cuts, {len(failures)} lost something, {seconds:.0f} s", flush=True)
        return failures

    def run(self, count):
        """Makes all recordings and cuts. Returns whether nothing was lost."""
        before = None
        for first in range(0, count, CUTS_OF_RECORDING):
            made = self.record(f"recording-{first // CUTS_OF_RECORDING}", RECORDING_BYTES, before)
            failures = self.cut(made, range(first, min(count, first + CUTS_OF_RECORDING)))
            if failures:
                print("\n".join([*failures[:FOLDERS_KEPT], f"the folders are in {made.work}"]))
                same = f"--recording {made.recording.path} --seed {self.seed} --names {self.names}"
                print(f"repeat one: python3 {sys.argv[0]} {self.binary} {same} --only NUMBER")
                return False
            # The next recording begins on what a cut has left.
            subject = made.left_by(first)
            before = os.path.join(self.work, "before"), subject
            os.rename(made.folder(first), before[0])
            shutil.rmtree(made.work)
        return True

    def prove(self):
        """A server whose syncs do nothing must lose something. Returns the number of cuts that did."""
        made = self.record("without-syncs", PROOF_BYTES)
        failures = self.cut(made, range(PROOF_CUTS))
        if not failures:
            raise AssertionError(f"syncs did nothing, and {PROOF_CUTS} cuts lost nothing; see {made.work}")
        shutil.rmtree(made.work)
        return len(failures)

    def repeat(self, log, number):
        """Repeats one cut, and keeps its folder."""
        made = self.cuts_of(log, self.work)
        subject = made.left_by(number)
        print(f"the folder is {made.folder(number)}", flush=True)
        subject.check(made.folder(number))


def parse():
    parser = argparse.ArgumentParser(prog="power_cut")
    parser.add_argument("binary")
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--names", choices=[ORDERED, UNORDERED, "both"], default="both")
    parser.add_argument("--ignore-syncs", action="store_true")
    parser.add_argument("--report")
    parser.add_argument("--recording")
    parser.add_argument("--only", type=int)
    return parser.parse_args()


def roomy_folder():
    """A folder in memory, if it has room."""
    memory = "/dev/shm"
    if os.path.isdir(memory):
        found = os.statvfs(memory)
        if found.f_bavail * found.f_frsize >= ROOM:
            return memory
    return tempfile.gettempdir()


def main():
    options = parse()
    work = tempfile.mkdtemp(prefix="drumline-power-cut-", dir=roomy_folder())
    print(f"seed {options.seed}, folder {work}", flush=True)
    test = Test(options, work, options.ignore_syncs)
    if options.recording:
        test.repeat(options.recording, options.only)
        return
    proof = {}
    if not options.ignore_syncs:
        self_test.run(work, options.seed)
        proof = {"cuts_without_syncs": PROOF_CUTS, "lost_without_syncs": Test(options, work, True).prove()}
    kept = test.run(options.cuts)
    if options.report:
        with open(options.report, "w", encoding="utf-8") as file:
            json.dump({"seed": options.seed, **test.counts, **proof}, file)
    if not kept:
        sys.exit(f"power_cut: seed {options.seed}: a power cut lost something that was promised")
    shutil.rmtree(work)
    print(f"{options.cuts} power cuts: nothing lost")


main()
