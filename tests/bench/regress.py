#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compares two files of figures, of peers.py or of engine_bench, figure by figure. Status 1 if any became worse.

    regress.py OLD.json NEW.json [--limit 0.9] [--only REGEX]

A figure whose name ends in _per_s is better the greater it is, one that ends in _s or _mib the smaller it is; of
several rounds the median counts. The ratio says how many times better the new one is, so 0.5 is half as good whatever
the figure. Below the limit it counts as worse. A figure that the old file has and the new one lacks is worse too: leave
out with --only what was not measured. What the machine itself reaches (`limits`) is not compared, nor shares
of that, nor the small rest of the memory beside weights and cache.

Figures of two machines, models or settings say nothing about the program: where the files tell of such a difference,
it is printed first.
"""

import argparse
import json
import pathlib
import re
import sys

LEFT_OUT = {"limits", "machine", "failed", "took_s", "rest_mib"}
SETTINGS = ["size", "model", "device", "dtype", "quantization", "tokens", "rounds", "picture"]
NAMED_BY = ["name", "batch"]


def figures(report, path=""):
    """Name → number, of everything in the report whose name says what is better."""
    found = {}
    for key, value in report.items():
        if key in LEFT_OUT:
            continue
        name = f"{path}{key}"
        if isinstance(value, dict) and "median" in value:
            value = value["median"]
        if isinstance(value, dict):
            found.update(figures(value, name + "."))
        elif isinstance(value, list):
            for part in value:
                if isinstance(part, dict):
                    label = next((str(part[word]) for word in NAMED_BY if word in part), "")
                    found.update(figures(part, f"{name}[{label}]."))
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and key.endswith(("_s", "_mib")):
            found[name] = value
    return found


def better(name, old, new):
    """How many times better the new figure is."""
    if old == new:
        return 1.0
    ratio = (new, old) if name.endswith("_per_s") else (old, new)
    return ratio[0] / ratio[1] if ratio[1] > 0 else float("inf")


def differences(old, new):
    """What the two were measured with, where that differs."""
    told = []
    for name in SETTINGS:
        if old.get(name) != new.get(name):
            told.append(f"{name}: {old.get(name)} and {new.get(name)}")
    for name in "cpu", "cores", "threads":
        one, other = old.get("machine", {}).get(name), new.get("machine", {}).get(name)
        if one != other:
            told.append(f"{name}: {one} and {other}")
    return told


def compare(old, new, limit, only=""):
    """The lines to print, and the names of the figures that became worse."""
    before, now = figures(old), figures(new)
    names = [name for name in before if re.search(only, name)]
    lines = [f"note: the files differ in {told}" for told in differences(old, new)]
    width = max([len(name) for name in names], default=6)
    lines.append(f"{'figure':{width}}  {'old':>12}  {'new':>12}  ratio")
    worse = []
    for name in names:
        if name not in now:
            worse.append(name)
            lines.append(f"{name:{width}}  {before[name]:12.4f}  {'missing':>12}         WORSE")
            continue
        ratio = better(name, before[name], now[name])
        bad = ratio < limit
        if bad:
            worse.append(name)
        lines.append(f"{name:{width}}  {before[name]:12.4f}  {now[name]:12.4f}  {ratio:5.2f}{'  WORSE' if bad else ''}")
    return lines, names, worse


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=pathlib.Path)
    parser.add_argument("new", type=pathlib.Path)
    parser.add_argument("--limit", type=float, default=0.9, help="the least ratio that is no worse (default: 0.9)")
    parser.add_argument("--only", default="", metavar="REGEX", help="compare figures with such names alone")
    options = parser.parse_args()
    try:
        old, new = json.loads(options.old.read_text()), json.loads(options.new.read_text())
    except (OSError, ValueError) as error:
        parser.error(str(error))
    lines, names, worse = compare(old, new, options.limit, options.only)
    print("\n".join(lines))
    if not names:
        parser.error(f"{options.old} has no such figure")
    print(f"{len(worse)} of {len(names)} figures are worse than {options.limit} of what they were.")
    sys.exit(1 if worse else 0)


if __name__ == "__main__":
    main()
