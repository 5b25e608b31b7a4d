"""Tests the power-cut test with a store whose faults are known: each fault is found, and the correct store passes.

Owns the recordings of log_writer.py. Without this, a recorder or a disk that keeps too much would pass every store.
"""

import os
import re
import shutil
import subprocess
import sys

import cuts
import log_writer
from disk import ORDERED, UNORDERED

HERE = os.path.dirname(os.path.abspath(__file__))
ENTRIES, CUTS = 400, 300


class Entries:
    """What log_writer.py promised: the last entries that it acknowledged."""

    def __init__(self, checks):
        self.checks = checks
        self.last = None

    def note(self, header, _payload):
        self.last = header["number"]

    def check(self, folder):
        try:
            found = list(log_writer.read_entries(folder, self.checks))
        except (OSError, ValueError) as error:
            raise cuts.Lost(f"the store does not open: {error}") from error
        numbers = [int(number[1]) for number in map(re.compile(rb"(\d{1,9}):").match, found) if number]
        if found != list(map(log_writer.entry_of, numbers)):
            raise cuts.Lost("an entry is not whole")
        if self.last is not None and (not numbers or numbers[-1] < self.last):
            raise cuts.Lost(f"entry {self.last} is lost: the last one is {numbers[-1:]}")
        if numbers and numbers != list(range(numbers[0], numbers[-1] + 1)):
            raise cuts.Lost(f"entries are missing between {numbers[0]} and {numbers[-1]}")


def record(work, fault, seed):
    folder, log = os.path.join(work, "store"), os.path.join(work, "log")
    os.mkdir(folder)
    writer = [sys.executable, os.path.join(HERE, "log_writer.py"), folder, log, str(ENTRIES), str(seed)]
    recorder = [sys.executable, os.path.join(HERE, "recorder.py"), folder, log]
    subprocess.run(recorder + writer + ([fault] if fault else []), check=True, stdout=subprocess.DEVNULL)
    recording = cuts.Recording(log)
    recording.compare(folder)
    return recording


def failures(work, fault, seed, order):
    os.mkdir(work)
    recording = record(work, fault, seed)
    made = cuts.Cuts(recording, seed, [order], work, lambda: Entries(fault != "no-checksum"))
    return [failure for _, failure in made.run(range(CUTS), os.cpu_count()) if failure]


def run(work, seed):
    """Raises AssertionError if a fault is not found, or the correct store fails."""
    for order in (ORDERED, UNORDERED):
        counts = []
        for fault, assumption in {None: None, **log_writer.FAULTS}.items():
            folder = os.path.join(work, f"{order}-{fault}")
            found = failures(folder, fault, seed, order)
            must_fail = bool(fault) and assumption in ("both", order)
            if bool(found) != must_fail:
                wanted = "must fail" if must_fail else "must pass"
                text = f"{order}, {fault or 'no fault'}, seed {seed}: {len(found)} cuts failed; the store {wanted}"
                raise AssertionError("\n".join([text, *found[:3], f"the folders are in {folder}"]))
            shutil.rmtree(folder)
            counts.append(f"{fault or 'none'} {len(found)}")
        print(f"self-test, names {order}, {CUTS} cuts per fault; lost by fault: {', '.join(counts)}", flush=True)
