"""Compares an Autobahn report with the expected results, case by case."""

import json
import sys

# Unimplemented is an offer of compression that was passed over.
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"}


def order(case):
    return [int(part) for part in case.split(".")]


def main(report, expected, write):
    with open(report, encoding="utf-8") as file:
        (agent,) = json.load(file).values()
    got = {case: [agent[case]["behavior"], agent[case]["behaviorClose"]] for case in agent}
    if write:
        lines = ",\n".join(f'  "{case}": {json.dumps(got[case])}' for case in sorted(got, key=order))
        with open(expected, "w", encoding="utf-8") as file:
            file.write("{\n" + lines + "\n}\n")
    with open(expected, encoding="utf-8") as file:
        wanted = json.load(file)
    bad = 0
    for case in sorted(set(got) | set(wanted), key=order):
        result = got.get(case)
        if result is None and case.startswith("9."):
            continue  # only with --large
        if result is None or not set(result) <= GOOD:
            bad += 1
            print(f"{case}: {result}")
        elif case not in wanted and case.startswith(("12.", "13.")) and not write:
            continue  # only with --compression
        elif case not in wanted or result != wanted[case]:
            bad += 1
            print(f"{case}: {result}, expected {wanted.get(case)}")
    print(f"{len(got)} cases, {bad} not as expected")
    return 1 if bad or not got else 0


sys.exit(main(sys.argv[1], sys.argv[2], "--write" in sys.argv[3:]))
