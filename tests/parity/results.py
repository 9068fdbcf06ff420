#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests against the reference compared, and how often it was equal.

Each test run leaves files in the build directory's parity-results; this program makes one page of them:

    results.py [PAGE]    writes PAGE (default: tests/parity/RESULTS.md) from $VLM_BUILD_DIR/parity-results or build/…
"""

import collections
import json
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEAD = """# Compared with the reference

Written by `tests/run.sh` from the results of its suite `parity`; `tests/parity/results.py` writes it again. Random
checkpoints of every supported shape, each with pictures, prompts and options drawn at random, run through the engine
and through the reference implementation. *cases*: checkpoints. *equal*: comparisons that passed (ids, pixels and texts
are equal; tensors are within the tolerance). *near-ties*: other ids where the reference itself decided by less than
1e-5 relative, or in 16 bits by less than its own spread; of a batch in bfloat16, where the text alone was all but another
one. *on avx2* and the like: with no more instructions than these (`VLM_MAX_CPU_ISA`). *worst*: the largest relative
difference.

A longer run: `tests/parity/parity_test.py --cases 3000 --seed 1000 --results FILE.json`.
"""
COLUMNS = ("layout", "generation", "text model", "compared", "cases", "equal", "failed", "near-ties", "worst")


def directory():
    return pathlib.Path(os.environ.get("VLM_BUILD_DIR", ROOT / "build")) / "parity-results"


def dimensions(checkpoint):
    """Layout, generation and text model of a checkpoint directory, by its config.json."""
    config = json.loads((pathlib.Path(checkpoint) / "config.json").read_text())
    kind = config.get("model_type", "llava")
    if "text_config" in config:
        tiles = kind == "llava_next"
        text = config["text_config"].get("model_type", "llama")
    else:
        tiles = config.get("image_aspect_ratio") == "anyres"
        text = "mistral" if "mistral" in kind else "llama"
    return ("Hugging Face" if "text_config" in config else "original", "1.6" if tiles else "1.5", text)


def row(layout, generation, text, what, cases=1, passed=0, failed=0, near_ties=0, worst=None):
    return {"layout": layout, "generation": generation, "text model": text, "compared": what, "cases": cases,
            "equal": passed, "failed": failed, "near-ties": near_ties, "worst": worst}


def record(name, group, counts, file=None):
    """Keeps the counts by what was compared, of checkpoints of one group (see dimensions)."""
    write([row(*group, what, **numbers) for what, numbers in counts.items()], file or directory() / f"{name}.json")


def write(rows, file):
    file = pathlib.Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows, indent=1) + "\n")


def merged(rows):
    """One row for each layout, generation, text model and thing compared."""
    groups = collections.defaultdict(list)
    for one in rows:
        groups[tuple(one[name] for name in COLUMNS[:4])].append(one)
    for key in sorted(groups):
        same = groups[key]
        worst = [one["worst"] for one in same if one["worst"] is not None]
        yield (*key, *(sum(one[name] for one in same) for name in COLUMNS[4:8]), f"{max(worst):.0e}" if worst else "")


def page(rows):
    table = [list(map(str, line)) for line in merged(rows)]
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * 4 + "---:|" * 5]
    lines += ["| " + " | ".join(line) + " |" for line in table]
    return HEAD + "\n" + "\n".join(lines) + "\n"


def main():
    target = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "RESULTS.md"
    files = sorted(directory().glob("*.json"))
    if not files:
        raise SystemExit(f"{directory()} holds no results: run the suite parity first")
    target.write_text(page([one for file in files for one in json.loads(file.read_text())]))
    print(f"{target}: from {len(files)} files")


if __name__ == "__main__":
    main()
