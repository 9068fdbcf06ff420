#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""count.py LOG_DIR [RESULT NAME]: counts the cases of the last `meson test`, and RESULT (passed or failed) as one more.

Prints `passed failed skipped`. A test that broke off before any of its cases could fail counts as one failed.
"""

import json
import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def case_verdict(case):
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "skipped" if case.find("skipped") is not None or case.get("status") == "notrun" else "passed"


def main():
    logs = pathlib.Path(sys.argv[1])
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    if len(sys.argv) > 2:
        counts[sys.argv[2]] += 1
    if not (logs / "testlog.json").exists():
        print(counts["passed"], counts["failed"] + 1, 0)
        return
    tests = [json.loads(line) for line in (logs / "testlog.json").read_text().splitlines()]
    for case in ElementTree.parse(logs / "testlog.junit.xml").iter("testcase"):
        counts[case_verdict(case)] += 1
    broken = sum(test["result"] in ("FAIL", "ERROR", "TIMEOUT", "INTERRUPT", "UNEXPECTEDPASS") for test in tests)
    counts["failed"] = max(counts["failed"], broken)
    print(counts["passed"], counts["failed"], counts["skipped"])


if __name__ == "__main__":
    main()
