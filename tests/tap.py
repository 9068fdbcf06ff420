#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs pytest with the given arguments and reports each test in TAP, so that `meson test` counts and names them."""

import sys

import pytest


class Tap:
    def __init__(self):
        self.count = 0

    def line(self, verdict, name, note="", detail=""):
        self.count += 1
        print(f"{verdict} {self.count} - {name.replace('#', '_')}{note}", file=sys.__stdout__)
        for text in detail.splitlines():
            print("# " + text, file=sys.__stdout__)
        sys.__stdout__.flush()

    def pytest_runtest_logreport(self, report):
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            self.line("ok", report.nodeid, " # SKIP " + " ".join(reason.split()))
        elif report.failed:
            self.line("not ok", f"{report.nodeid} ({report.when})", detail=report.longreprtext + "\n" + report.capstderr)
        elif report.when == "call":
            self.line("ok", report.nodeid)

    def pytest_collectreport(self, report):
        if report.failed:
            self.line("not ok", report.nodeid + " (collection)", detail=str(report.longrepr))


def main():
    tap = Tap()
    print("TAP version 13", flush=True)
    status = pytest.main(["-p", "no:terminal", "-p", "no:cacheprovider", *sys.argv[1:]], plugins=[tap])
    if tap.count == 0:
        tap.line("not ok", "pytest found no test")
    print(f"1..{tap.count}", flush=True)
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
