"""Reads exported histograms by HdrHistogram's Python port, and its files by `drumline-bench compare`.

Usage: tests/system/histograms.py DRUMLINE_BENCH

Exports each result file of bench-harness/results: the .hlog must have the percentiles that the result
file states, and each row of the .hgrm must be the log's own count at that value. Then writes a .hlog
and a .hgrm of its own: `compare` must read them with the percentiles that the port computes, and must
refuse broken ones.
"""

import bisect
import io
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader, HistogramLogWriter

BENCH = sys.argv[1]
RESULTS = pathlib.Path(__file__).parent.parent.parent / "bench-harness" / "results"
LONGEST_NS = 3_600_000_000_000
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99, "p99_9": 99.9, "p99_99": 99.99}
UNITS = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}


def near(a, b, part):
    return abs(a - b) <= part * max(abs(a), abs(b))


def read_log(path):
    """Everything in a log, and its count of intervals."""
    total = HdrHistogram(1, LONGEST_NS, 3)
    reader = HistogramLogReader(str(path), total)
    intervals = 0
    while reader.add_next_interval_histogram():
        intervals += 1
    reader.close()
    return total, intervals


def check_percentiles(stated, total):
    assert total.get_total_count() == stated["count"], (total.get_total_count(), stated["count"])
    assert near(total.get_max_value(), stated["max"], 1e-3), (total.get_max_value(), stated["max"])
    assert near(total.get_mean_value(), stated["mean"], 1e-3), (total.get_mean_value(), stated["mean"])
    for name, percentile in PERCENTILES.items():
        # The port rounds the rank where Rust and Java round it up: theirs is the same or the next.
        theirs = [
            total.get_value_at_percentile(min(percentile + more * 100 / stated["count"], 100))
            for more in (0, 1)
        ]
        assert stated[name] in theirs, (name, stated[name], theirs)


def check_rows(path, total):
    """Values of the .hgrm are in us; its counts are exact. Returns the number of rows."""
    values, counts = [], []
    for step in total.get_recorded_iterator():
        values.append(total.get_highest_equivalent_value(step.value_iterated_to))
        counts.append(step.total_count_to_this_value)
    rows = [line.split() for line in path.read_text().splitlines()[2:] if line[0] != "#"]
    for value, quantile, count, *_ in rows:
        ns = round(float(value) * 1000)
        at = bisect.bisect_right(values, ns) - 1
        assert counts[at] == int(count), (path, value, count, counts[at])
        assert int(count) >= float(quantile) * total.get_total_count() - 1, (path, quantile)
    assert int(rows[-1][2]) == total.get_total_count()
    return len(rows)


def export(path, folder):
    """The exported .hgrm and .hlog of each series, in the order of the result file."""
    command = [BENCH, "export", str(path), "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    plot, *histograms = map(pathlib.Path, done.stdout.splitlines())
    assert plot.name == "plot.svg" and plot.stat().st_size > 5000, plot
    return list(zip(histograms[::2], histograms[1::2], strict=True))


def check_ours(folder):
    series = rows = 0
    # One run of each scenario, because reading histograms in Python takes long.
    runs = {path.stem: path for path in sorted(RESULTS.glob("*/*.json"))}
    for scenario, path in runs.items():
        latency = json.loads(path.read_text())["latency"]
        if not latency:
            continue
        files = export(path, folder / scenario)
        for entry, (table, log) in zip(latency, files, strict=True):
            total, intervals = read_log(log)
            assert intervals > 0, log
            check_percentiles(entry["percentiles"], total)
            rows += check_rows(table, total)
            series += 1
    assert series > 0, "no series in any result file"
    print(f"ours by theirs: {series} series, {rows} rows agree")


def write_log(path, seconds, tag=""):
    writer = HistogramLogWriter(open(path, "w", encoding="utf-8"))
    writer.output_log_format_version()
    writer.output_legend()
    for number, histogram in enumerate(seconds):
        # From 1 on: the port takes a start of 0 for none.
        writer.output_interval_histogram(histogram, number + 1.0, number + 2.0)
    writer.close()
    if tag:
        text = path.read_text()
        path.write_text(re.sub(r"^(?=\d)", f"Tag={tag},", text, flags=re.MULTILINE))


def write_table(path, total, csv=False):
    out = io.BytesIO()
    # Many rows, so that little lies between two of them.
    total.output_percentile_distribution(out, 1000.0, 100, csv)
    path.write_bytes(out.getvalue())


def compare(*arguments):
    command = [BENCH, "compare", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def cells(text, label):
    """The values of a line of the table, in ns: p50 to p99.99 and max; then count."""
    line = next(line for line in text.splitlines() if line.startswith(f"  {label} "))
    times = re.findall(r"~?([\d.,]+) (ns|us|ms|s)\b", line)
    count = re.split(r" {2,}", line.strip())[-2]
    return [float(n.replace(",", "")) * UNITS[unit] for n, unit in times], int(count.replace(",", ""))


def check_theirs(folder):
    rng = random.Random(1)
    total = HdrHistogram(1, LONGEST_NS, 3)
    seconds = []
    for _ in range(5):
        second = HdrHistogram(1, LONGEST_NS, 3)
        for _ in range(20_001):
            second.record_value(int(rng.lognormvariate(12.5, 0.8)) + 1)
        total.add(second)
        seconds.append(second)
    log, tagged = folder / "theirs.hlog", folder / "tagged.hlog"
    table, csv = folder / "table.hgrm", folder / "comma.csv"
    write_log(log, seconds)
    write_log(tagged, seconds, "one")
    write_table(table, total)
    write_table(csv, total, csv=True)
    units = ["--unit", "ns", "--unit", f"{table}=us", "--unit", f"{csv}=us"]
    done = compare(log, tagged, table, csv, *units, "--out", folder / "out")
    assert done.returncode == 0, done.stderr
    wanted = [total.get_value_at_percentile(p) for p in PERCENTILES.values()]
    wanted.append(total.get_max_value())
    for label in ("theirs.hlog", "tagged.hlog", "table.hgrm", "comma.csv"):
        times, count = cells(done.stdout, label)
        assert count == total.get_total_count() == 100_005, (label, count)
        assert len(times) == len(wanted), (label, times)
        for got, want in zip(times, wanted):
            # Three digits are printed; between two rows of a table lies up to a hundredth.
            assert near(got, want, 0.006 if label.endswith(".hlog") else 0.015), (label, got, want)
    for name in ("compare.svg", "compare.html"):
        assert (folder / "out" / name).stat().st_size > 5000, name
    print("theirs by ours: a log, a tagged log, a table and its CSV agree")
    return log, table


def check_refusals(folder, log, table):
    def refused(path, *arguments):
        done = compare(log, path, "--unit", "ns", *arguments)
        assert done.returncode == 1 and not done.stdout, (path, done.stdout)
        assert str(path) in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr

    for whole, length in ((log, 0.9), (log, 0.05), (table, 0.9), (table, 0.01), (log, 0)):
        cut = folder / f"cut{whole.suffix}"
        text = whole.read_text()
        cut.write_text(text[: int(len(text) * length)])
        refused(cut)
    empty = folder / "empty.hlog"
    write_log(empty, [HdrHistogram(1, LONGEST_NS, 3)])
    refused(empty)
    done = compare(log, table)
    assert done.returncode == 1 and "--unit" in done.stderr, done.stderr
    print("what is broken is refused")


def main():
    os.environ["NO_COLOR"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        check_ours(folder)
        log, table = check_theirs(folder)
        check_refusals(folder, log, table)


main()
