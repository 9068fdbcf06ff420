#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measures the engine beside the reference on one model: load time, time to first token, tokens a second, memory.

Both run in a process of their own, one after the other and in turn, several rounds; the best and the median round are
kept. Ratios say how many times faster (or smaller) the engine is than the reference in the same run.

    compare.py [--size small] [--dtype float32] [--device cpu] [--json FILE]
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "parity"))
sys.path.insert(0, str(HERE))

PROMPT = "USER: <image>\nWhat is in this picture? ASSISTANT:"
PICTURE = (640, 480)


def make_picture():
    from engine import noise_picture
    return noise_picture(5, PICTURE)


# ---- The reference, in a process of its own

def reference_process(options):
    """Answers one line of figures for each line that comes in."""
    import torch
    from reference import Reference
    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    reference = Reference(options.model, getattr(torch, options.dtype))
    reference.model.to(options.device)
    load = time.perf_counter() - start
    picture = make_picture()
    print(json.dumps({"load_s": load}), flush=True)
    for line in sys.stdin:
        print(json.dumps(reference_round(reference, picture, json.loads(line), options)), flush=True)


def reference_round(reference, picture, request, options):
    import torch
    count = request["tokens"]
    pictures, text = request["batch"], PROMPT
    timing = {}

    def generate(tokens):
        start = time.perf_counter()
        inputs = reference.processor(images=[picture] * pictures, text=[text] * pictures, return_tensors="pt")
        inputs = {key: value.to(options.device) for key, value in inputs.items()
                  if key in ("input_ids", "attention_mask", "pixel_values")}
        inputs["pixel_values"] = inputs["pixel_values"].to(getattr(torch, options.dtype))
        with torch.inference_mode():
            output = reference.model.generate(**inputs, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens)
        if options.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start, output.shape[1] - inputs["input_ids"].shape[1]

    timing["first_s"], _ = generate(1)
    whole, made = generate(count)
    assert made == count
    timing["tokens_per_s"] = rate(pictures * (count - 1), whole, timing["first_s"])
    timing["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return timing


# ---- The engine

class EngineSide:
    def __init__(self, options):
        from engine import Engine
        self.engine = Engine(options.runner)
        answer = self.engine.open(options.model, dtype=options.dtype, device=options.device)
        if not answer["ok"]:
            raise SystemExit(f"the engine refuses the model: {answer['error']}")
        self.info = answer["info"]
        self.load_s = answer["load_seconds"]
        self.frame = self.engine.frame(make_picture())

    def round(self, request):
        first, _ = self.generate(request["batch"], 1)
        whole, peak = self.generate(request["batch"], request["tokens"])
        return {"first_s": first, "tokens_per_s": rate(request["batch"] * (request["tokens"] - 1), whole, first),
                "peak_mib": peak / 1024}

    def generate(self, batch, tokens):
        from engine import raw_request
        requests = [raw_request(PROMPT, [self.frame], max_new_tokens=tokens, min_new_tokens=tokens)
                    for _ in range(batch)]
        start = time.perf_counter()
        answers = self.engine.run(requests)
        seconds = time.perf_counter() - start
        assert all(answer["ok"] and len(answer["token_ids"]) == tokens for answer in answers), answers[0]
        return seconds, answers[0]["peak_kib"]


# ---- Measuring

def start_reference(options):
    command = [sys.executable, __file__, "--as-reference", "--model", options.model, "--dtype", options.dtype,
               "--device", options.device, "--threads", str(options.threads)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, json.loads(process.stdout.readline())["load_s"]


def rate(tokens, whole_s, first_s):
    """Tokens a second after the first; 0 where so few were made that noise covers the difference."""
    return tokens / (whole_s - first_s) if whole_s > first_s else 0.0


def ratio(one, other):
    return f"{one / other:.2f}" if other > 0 and one > 0 else "–"


def ask(process, request):
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def best(rounds):
    """The best of the rounds (others share the machine) with the median beside it."""
    return {"first_s": min(r["first_s"] for r in rounds),
            "first_s_median": statistics.median(r["first_s"] for r in rounds),
            "tokens_per_s": max(r["tokens_per_s"] for r in rounds),
            "tokens_per_s_median": statistics.median(r["tokens_per_s"] for r in rounds),
            "peak_mib": max(r["peak_mib"] for r in rounds)}


def measure(options):
    process, reference_load = start_reference(options)
    engine = EngineSide(options)  # second: on a GPU its cache takes most of what is free
    results = []
    for batch in options.batch:
        request = {"tokens": options.tokens, "batch": batch}
        ours, theirs = [], []
        for number in range(options.rounds + 1):
            for rounds, answer in (ours, engine.round(request)), (theirs, ask(process, request)):
                if number > 0:  # the first one warms up
                    rounds.append(answer)
            print(f"batch {batch}: round {number} of {options.rounds}", file=sys.stderr)
        results.append({"batch": batch, "engine": best(ours), "reference": best(theirs)})
    process.stdin.close()
    process.wait()
    engine.engine.close()
    return {"date": datetime.date.today().isoformat(), "machine": machine(options), "versions": versions(),
            "model": {"size": options.size, "parameters": engine.info["parameters"], "dtype": options.dtype,
                      "device": options.device, "weight_mib": engine.info["weight_bytes"] / 2**20,
                      "cache_mib": engine.info["kv_cache_bytes"] / 2**20},
            "tokens": options.tokens, "rounds": options.rounds,
            "load_s": {"engine": engine.load_s, "reference": reference_load}, "results": results}


def machine(options):
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    gpu = None
    if options.device != "cpu":
        gpu = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True,
                             text=True).stdout.strip()
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "gpu": gpu, "threads": options.threads,
            "load_average": os.getloadavg()[0], "system": platform.platform()}


def versions():
    import torch
    import transformers
    return {"torch": torch.__version__, "transformers": transformers.__version__, "python": platform.python_version()}


def table(report):
    model, load = report["model"], report["load_s"]
    lines = [
        f"### {model['size']}, {model['dtype']}, {model['device']} ({report['date']})", "",
        f"{model['parameters'] / 1e6:.0f} million parameters, {report['machine']['cpu']}, "
        f"{report['machine']['threads']} threads of {report['machine']['cores']} cores, "
        + (f"{report['machine']['gpu']}, " if report["machine"]["gpu"] else "")
        + f"torch {report['versions']['torch']}, transformers {report['versions']['transformers']}; load average "
        f"{report['machine']['load_average']:.1f} at the end. One picture of {PICTURE[0]}×{PICTURE[1]} a request, "
        f"{report['tokens']} tokens; best of {report['rounds']} rounds (median in brackets).", "",
        "| | engine | transformers | ratio |", "|---|---|---|---|",
        f"| load, s | {load['engine']:.2f} | {load['reference']:.2f} | {load['reference'] / load['engine']:.2f} |"]
    for result in report["results"]:
        ours, theirs, batch = result["engine"], result["reference"], result["batch"]
        lines += [
            f"| batch {batch}: time to first token, s | {ours['first_s']:.3f} ({ours['first_s_median']:.3f}) | "
            f"{theirs['first_s']:.3f} ({theirs['first_s_median']:.3f}) | {theirs['first_s'] / ours['first_s']:.2f} |",
            f"| batch {batch}: tokens a second | {ours['tokens_per_s']:.1f} ({ours['tokens_per_s_median']:.1f}) | "
            f"{theirs['tokens_per_s']:.1f} ({theirs['tokens_per_s_median']:.1f}) | "
            f"{ratio(ours['tokens_per_s'], theirs['tokens_per_s'])} |",
            f"| batch {batch}: peak memory so far, MiB | {ours['peak_mib']:.0f} | {theirs['peak_mib']:.0f} | "
            f"{theirs['peak_mib'] / ours['peak_mib']:.2f} |"]
    return "\n".join(lines) + "\n"


def main():
    from make_model import SIZES, write
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--model", help="a checkpoint that is there already, instead of --size")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--runner", help="the built engine_runner (default: the one in build/)")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--as-reference", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_reference:
        reference_process(options)
        return
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    with tempfile.TemporaryDirectory(prefix="vlm-bench-") as directory:
        if options.model is None:
            print(f"writing the {options.size} model", file=sys.stderr)
            write(directory, options.size, "float16")
            options.model = directory
        else:
            options.size = pathlib.Path(options.model).name
        report = measure(options)
    print(table(report))
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
