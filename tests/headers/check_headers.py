#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""check_headers.py COMPILER INCLUDE_DIR: compiles each header under INCLUDE_DIR alone and twice, and reports in TAP."""

import pathlib
import subprocess
import sys

WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"]


def main():
    compiler, include = sys.argv[1], pathlib.Path(sys.argv[2])
    headers = sorted(include.rglob("*.h"))
    print(f"1..{max(1, len(headers))}")
    if not headers:
        print(f"not ok 1 - no header in {include}")
    for number, header in enumerate(headers, 1):
        name = header.relative_to(include)
        source = f'#include "{name}"\n#include "{name}"\n'
        done = subprocess.run([compiler, "-std=c++20", *WARNINGS, "-fsyntax-only", "-I", str(include), "-x", "c++", "-"],
                              input=source, text=True, capture_output=True)
        print(f"{'ok' if done.returncode == 0 else 'not ok'} {number} - {name}")
        for line in done.stderr.splitlines():
            print("# " + line)


if __name__ == "__main__":
    main()
