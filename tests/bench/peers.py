#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measures the engine and other engines ("peers") on one random LLaVA checkpoint, prompt, pictures and count of tokens.

One run measures all of them, one after the other, each in a process and a Python environment of its own. The first run
makes the environments (under ~/.cache/gst-vlm/bench-*: 5 GB to download for OpenVINO, a compilation of some minutes for
llama.cpp) and the files each peer reads (under --work: 12 GB for the size `small`); later runs find them there. Whoever
cannot be installed or fails is named with its error, and the others are measured.

    peers.py --list
    peers.py --size small --json peers-small.json --svg peers-small.svg
    peers.py --size tiny --peers engine llama-q8_0
    peers.py --size 7b --device cuda

Each peer runs in its best settings for one request at a time. Where it depends on processor and format which way of
attention is faster, both are measured: llama.cpp's without flash attention under names that end in -noflash, OpenVINO's
without its paged attention under names in -sdpa. With --device cuda engine and peers run on the GPU: transformers,
and llama.cpp, which is compiled for that (needs nvcc).

Each peer loads the model, describes one picture that is not counted, then one for each round: noise of 640×480, a new
picture each time, so that no cache of prompts helps; greedily, and exactly --tokens tokens of each. The figures:

  load s          from the files to a model that answers; without the start of the process
  picture s       the tower, and the projector where the peer counts it there; part of the first token
  first token s   from the pixels to the first token
  tokens/s        of the tokens after the first, one picture at a time
  steady, peak    MiB that the process held at the end, and at most; files that are mapped count as far as they were read.
                  Of a GPU's memory nothing is told
  of products     2 x parameters x tokens of picture and prompt, in the time to the first token, as a share of what this
                  machine reaches at large products of the type that is multiplied in: float32, bfloat16, or, where that
                  is faster, 8 bits, as the engine's w8a8 and w4a8, OpenVINO and llama.cpp have it
  of reading      the weights that a token reads, as if each had its format's bits exactly, at that many tokens/s, as a
                  share of the read rate of memory: the better of two measured right before and right after the peer
  prompt          tokens of the prompt; peers split the text around a picture differently, by one or two
  others          cores that other programs used meanwhile: above 0.1 or so the figures are no good. Threads that wait
                  for each other suffer far more than such a share

Ratios compare the engine with the best peer of as many bits: above 1 the engine is faster, or smaller. Give it a quiet
machine; the load average at start and end is part of the report. Leave the engine's build alone meanwhile: figures of
two builds are told from each other, and the status is 1.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import resource
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "peer"))

import environments  # noqa: E402
from environments import Failure  # noqa: E402

# Name: bits a weight of the language model, what runs it, and how that calls the format. Slow ones last.
PEERS = {
    "engine-bfloat16": (16, "engine", "bfloat16"), "engine-int8": (8, "engine", "int8"),
    "engine-int4": (4, "engine", "int4"), "engine-w8a8": (8, "engine", "w8a8"), "engine-w4a8": (4, "engine", "w4a8"),
    "engine-float32": (32, "engine", "float32"),
    "openvino-fp16": (16, "openvino", "fp16"), "openvino-fp16-sdpa": (16, "openvino", "fp16-sdpa"),
    "openvino-int8": (8, "openvino", "int8"), "openvino-int8-sdpa": (8, "openvino", "int8-sdpa"),
    "openvino-int4": (4, "openvino", "int4"), "openvino-int4-sdpa": (4, "openvino", "int4-sdpa"),
    "llama-bf16": (16, "llama", "bf16"), "llama-bf16-noflash": (16, "llama", "bf16-noflash"),
    "llama-q8_0": (8, "llama", "q8_0"), "llama-q8_0-noflash": (8, "llama", "q8_0-noflash"),
    "llama-q4_0": (4, "llama", "q4_0"), "llama-q4_0-noflash": (4, "llama", "q4_0-noflash"),
    "transformers-float32": (32, "transformers", "float32"),
    "transformers-bfloat16": (16, "transformers", "bfloat16"),
    "transformers-bfloat16-compiled": (16, "transformers", "bfloat16-compiled")}
# Compiling takes minutes for each shape, and did not pay on a CPU.
BY_DEFAULT = [name for name in PEERS if not name.endswith("-compiled")]
DISTURBED = 0.1  # so many cores used by others make figures doubtful
SIZES = ["demo", "tiny", "base", "small", "7b", "13b"]
# Figure: its heading, the digits shown, and whether more is better.
FIGURES = {"load_s": ("load, s", 2, False), "vision_s": ("picture, s", 3, False),
           "first_token_s": ("first token, s", 3, False), "decode_tokens_per_s": ("tokens/s", 1, True),
           "resident_mib": ("steady, MiB", 0, False), "peak_mib": ("peak, MiB", 0, False)}
# Share of what the machine reaches: its heading, and the figure that it stands beside.
SHARES = {"first_token_s": ("of products", "of_matmul"), "decode_tokens_per_s": ("of reading", "of_read_rate")}


# ---- The machine

def cores():
    """Physical cores that this process may use."""
    found, processor, allowed = set(), {}, os.sched_getaffinity(0)
    for line in [*open("/proc/cpuinfo"), "\n"]:
        name, _, value = line.partition(":")
        if name.strip():
            processor[name.strip()] = value.strip()
        elif processor:
            if int(processor["processor"]) in allowed:
                found.add((processor.get("physical id"), processor.get("core id", processor["processor"])))
            processor = {}
    return len(found)


def machine(threads):
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return {"cpu": cpu, "cores": cores(), "threads": threads, "memory_mib": memory, "system": platform.platform(),
            "flags": [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
                      if flag in open("/proc/cpuinfo").read().split()],
            "load_average_at_start": os.getloadavg()[0]}


def busy_s():
    """Processor seconds that anybody has spent since the machine started, on all cores together."""
    fields = open("/proc/stat").readline().split()[1:]
    user, nice, system, _, _, interrupts, soft, stolen = (int(field) for field in fields[:8])
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


def wait_for_quiet(patience):
    """Returns when others use less than a tenth of a core, or after so many seconds."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        before = busy_s()
        time.sleep(2)
        if busy_s() - before < 0.2:
            return


def build_of(engine):
    """Names the build of an engine_bench and of our library that it loads; another build has another name."""
    answer = subprocess.run(["ldd", engine], capture_output=True, text=True)
    libraries = [pathlib.Path(line.split()[2]) for line in answer.stdout.splitlines()
                 if line.strip().startswith("libvlm") and line.split()[2].startswith("/")]
    return "build " + environments.key(engine, *libraries)


def mixed_builds(measured):
    """Whether the engine was built anew between its measurements: then its figures do not belong together."""
    return len({peer["version"] for peer in measured if peer["name"].startswith("engine-")}) > 1


# ---- What the machine reaches

def limits(options, log, *words):
    """What limits_bench, which is built beside the engine's program, measures now; nothing where it is not there or
    fails: figures have no shares then."""
    program = options.engine.parent / "limits_bench"
    if not program.exists():
        return {}
    try:
        answer = environments.run([program, "--device", options.device, *words], log, 300, answer=True,
                                  env={**os.environ, "OMP_NUM_THREADS": str(options.threads)})
    except Failure as error:
        print(f"no limits: {error} (more in {log})", file=sys.stderr, flush=True)
        return {}
    return json.loads(answer)


def better(one, other):
    """Of two measurements of the machine, figure by figure; either may be missing."""
    return {key: max(one.get(key, 0), other.get(key, 0)) for key in {**one, **other}}


def multiplies_in(name, bits, reached):
    """In which type this peer multiplies pictures and prompts; 8 bits only where the machine is faster at them."""
    in_bytes = bits < 16 and name not in ("engine-int8", "engine-int4")
    if in_bytes and reached.get("int8", 0) > reached.get("bfloat16", 0):
        return "int8"
    return "float32" if bits == 32 and "float32" in reached else "bfloat16"


def add_shares(measured, work, reached):
    """Tells each peer what its figures are of what the machine reaches; `reached`: GFLOP/s by type."""
    for peer in measured:
        read = peer.get("limits", {}).get("read_gb_s")
        if work and read:
            read_bytes = work["token_parameters"] * peer["bits"] / 8
            peer["of_read_rate"] = read_bytes * value(peer, "decode_tokens_per_s") / (read * 1e9)
        limit = reached.get(multiplies_in(peer["name"], peer["bits"], reached))
        if work and limit:
            operations = (work["picture_operations"] + work["head_operations"] +
                          work["prompt_token_operations"] * peer["prompt_tokens"])
            peer["of_matmul"] = operations / value(peer, "first_token_s") / (limit * 1e9)


# ---- One peer

def engine_command(format, options, model):
    quantized = [] if format in ("bfloat16", "float32") else ["--quantization", format]
    return [options.engine, model, "--dtype", "bfloat16" if quantized else format, *quantized, "--tokens",
            options.tokens, "--rounds", options.rounds, "--batch", "1", "--device", options.device, "--no-limits"]


def engine_figures(answer):
    """What engine_bench printed, under the names that the peers' programs use."""
    report = json.loads(answer)
    first, batch = report["first"], report["batches"][0]
    return {"load_s": report["load_s"], "load_peak_mib": report["load_peak_mib"],
            "prompt_tokens": first["prompt_tokens"], "first_token_s": first["first_token_s"],
            "token_s": batch["token_s"], "decode_tokens_per_s": batch["decode_tokens_per_s"],
            "resident_mib": report["memory"]["resident_mib"], "peak_mib": report["peak_mib"],
            "vision_s": first["vision_s"], "memory": report["memory"]}


def peer_figures(answer):
    return json.loads(answer.strip().splitlines()[-1])


def prepare(name, options, model, log, broken):
    """Makes what the peer needs; answers the command that measures it and the variables that go with it."""
    _, runner, format = PEERS[name]
    if runner == "engine":
        return engine_command(format, options, model), {}
    if runner in broken:  # what cannot be installed is not tried again for the next format
        raise broken[runner]
    try:
        python, variables = environments.ENVIRONMENTS[runner](log, options.device)
    except (Failure, OSError) as error:
        broken[runner] = error
        raise
    files = environments.FILES[runner](model, format, model.parent, log, options.threads, options.device)
    return [python, HERE / "peer" / f"run_{runner}.py", files, "--format", format, "--threads", options.threads,
            "--device", options.device, "--tokens", options.tokens, "--rounds", options.rounds], variables


def measure(name, command, variables, options, log):
    bits, runner, _ = PEERS[name]
    wait_for_quiet(options.patience)
    build = build_of(options.engine) if runner == "engine" else None
    before = limits(options, log, "--read-only")
    start, busy, own = time.perf_counter(), busy_s(), resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = environments.run(command, log, options.timeout, answer=True, env={
        **os.environ, "OMP_NUM_THREADS": str(options.threads), **variables})
    took = time.perf_counter() - start
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    own_s = spent.ru_utime + spent.ru_stime - own.ru_utime - own.ru_stime
    if runner == "engine":
        figures = {"version": build, **engine_figures(answer)}
        if build_of(options.engine) != build:
            raise Failure("the engine was built anew while it was measured")
    else:
        figures = peer_figures(answer)
    others = max(busy_s() - busy - own_s, 0) / took
    return {"name": name, "bits": bits, **figures, "took_s": took, "others_cores": others,
            "limits": better(before, limits(options, log, "--read-only"))}


def measuring_order(options, prepared, measured):
    """Everybody once, then whoever was disturbed again: decided by what others used, never by the figures."""
    if options.prepare:
        return
    yield from [name for name in options.peers if prepared[name]]
    for _ in range(options.retries):
        yield from [name for name in measured if measured[name]["others_cores"] > DISTURBED]


def measure_all(options, model):
    """First everything that takes long and measures nothing, so that the figures come close together in time."""
    prepared, measured, failed, broken = {}, {}, [], {}

    def try_one(name, action):
        log = options.work / "logs" / f"{options.size}-{name}.log"
        try:
            return action(log)
        except (Failure, ValueError, KeyError, IndexError, OSError) as error:
            message = str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
            failed.append({"name": name, "error": message})
            print(f"{name} fails: {message} (more in {log})", file=sys.stderr, flush=True)
            return None

    for name in options.peers:
        start = time.perf_counter()
        (options.work / "logs" / f"{options.size}-{name}.log").unlink(missing_ok=True)
        prepared[name] = try_one(name, lambda log: prepare(name, options, model, log, broken))
        if prepared[name]:
            print(f"{name}: prepared in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    for name in measuring_order(options, prepared, measured):
        result = try_one(name, lambda log: measure(name, *prepared[name], options, log))
        if result:
            if name in measured and measured[name]["others_cores"] < result["others_cores"]:
                result = measured[name]
            measured[name] = result
            print(f"{name}: measured in {result['took_s']:.0f} s, {result['decode_tokens_per_s']:.1f} tokens/s, "
                  f"others used {result['others_cores']:.1f} cores", file=sys.stderr, flush=True)
    return list(measured.values()), failed


# ---- The report

def value(peer, figure, of="median"):
    """One figure of a peer, of its rounds the median, or the best; nothing where the peer does not tell."""
    if figure == "decode_tokens_per_s":
        return 1 / peer["token_s"][of]
    found = peer.get(figure)
    return found[of] if isinstance(found, dict) else found


def row(*cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def shown(peer, figure):
    middle, best = value(peer, figure), value(peer, figure, "best")
    if middle is None:
        return "–"
    digits = FIGURES[figure][1]
    return f"{middle:.{digits}f}" + (f" ({best:.{digits}f})" if best != middle else "")


def comparison(measured, name, figure, of="median"):
    """The engine's format beside the best peer of as many bits: their ratio and the peer's name, or nothing."""
    ours = [peer for peer in measured if peer["name"] == name]
    others = [peer for peer in measured if ours and peer["bits"] == ours[0]["bits"]
              and not peer["name"].startswith("engine-") and value(peer, figure, of)]
    if not others:
        return None
    more = FIGURES[figure][2]
    best = (max if more else min)(others, key=lambda peer: value(peer, figure, of))
    our, their = value(ours[0], figure, of), value(best, figure, of)
    if not our:
        return None
    return (our / their if more else their / our), best["name"]


def headings():
    for figure, (heading, _, _) in FIGURES.items():
        yield heading
        if figure in SHARES:
            yield SHARES[figure][0]


def cells(peer):
    for figure in FIGURES:
        yield shown(peer, figure)
        if figure in SHARES:
            share = peer.get(SHARES[figure][1])
            yield "–" if share is None else f"{share:.2f}"


def reached_lines(report):
    """What the shares are of."""
    reached = report.get("limits", {}).get("matmul_gflops", {})
    rates = [peer["limits"]["read_gb_s"] for peer in report["peers"] if peer.get("limits")]
    if not reached or not rates:
        return []
    products = ", ".join(f"{gflops:.0f} GFLOP/s in {type}" for type, gflops in reached.items())
    return [f"The machine read {min(rates):.1f} to {max(rates):.1f} GB/s beside them and multiplied {products}.", ""]


def memory_lines(measured):
    """What the engine's memory at the end is made of."""
    told = [peer for peer in measured if "weights_mib" in peer.get("memory", {})]
    if not told:
        return []
    columns = {"resident_mib": "steady, MiB", "weights_mib": "weights", "kv_used_mib": "keys and values used",
               "rest_mib": "rest"}
    return [row("", *columns.values()), "|---" * (len(columns) + 1) + "|",
            *(row(peer["name"], *(f"{peer['memory'][key]:.0f}" for key in columns)) for peer in told), ""]


def tables(report):
    host, measured = report["machine"], report["peers"]
    lines = [
        f"### {report['size']} ({report['date']})", "",
        f"{host['cpu']}, {host['threads']} threads of {host['cores']} cores ({', '.join(host['flags'])}); load average "
        f"{host['load_average_at_start']:.1f} at the start, {host['load_average_at_end']:.1f} at the end. Medians of "
        f"{report['rounds']} rounds (the best in brackets), {report['tokens']} tokens of each picture.", "",
        row("", "bits", *headings(), "prompt", "others"), "|---" * (len(FIGURES) + len(SHARES) + 4) + "|"]
    for peer in sorted(measured, key=lambda peer: -peer["bits"]):
        lines.append(row(peer["name"], peer["bits"], *cells(peer), peer["prompt_tokens"],
                         f"{peer['others_cores']:.2f}"))
    lines += ["", *reached_lines(report), *memory_lines(measured)]
    lines += ["The engine beside the best peer of as many bits; above 1 the engine is better. On a busy machine "
              "the best rounds say more.", "",
              row("", "of rounds", *(heading.partition(",")[0] for heading, _, _ in FIGURES.values())),
              "|---" * (len(FIGURES) + 2) + "|"]
    for name in sorted(PEERS, key=lambda name: -PEERS[name][0]):
        for of in "median", "best":
            compared = [comparison(measured, name, figure, of) for figure in FIGURES if name.startswith("engine-")]
            if any(compared):
                lines.append(row(name, of, *(f"{one[0]:.2f} ({one[1]})" if one else "–" for one in compared)))
    if mixed_builds(measured):
        lines += ["", "**The engine was built anew during this run: its figures do not belong together.**"]
    for peer in report["failed"]:
        lines += ["", f"Not measured: {peer['name']}: {peer['error']}"]
    return "\n".join(lines) + "\n"


def chosen(words):
    """The peers whose names are, or begin with, one of these words; in the order they run."""
    for word in words:
        if not any(name.startswith(word) for name in PEERS):
            raise SystemExit(f"peers.py: no peer {word}; --list names them")
    return [name for name in PEERS if name in words or
            (name in BY_DEFAULT and any(name.startswith(word) for word in words))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small", help="of the checkpoint, as make_model.py has them")
    parser.add_argument("--peers", nargs="+", default=[""], metavar="NAME",
                        help="whom to measure, also by the beginnings of names (default: all but -compiled)")
    parser.add_argument("--list", action="store_true", help="name all peers, measure nothing")
    parser.add_argument("--prepare", action="store_true", help="install and convert what is needed, measure nothing")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N; of engine and peers")
    parser.add_argument("--threads", type=int, default=cores(), help="default: the physical cores, %(default)s here")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="one more, not counted, comes before them")
    parser.add_argument("--engine", type=pathlib.Path, metavar="FILE",
                        default=HERE.parents[1] / "build/tests/bench/engine_bench", help="the built engine_bench")
    parser.add_argument("--work", type=pathlib.Path, default=environments.cache() / "bench-models", metavar="DIR",
                        help="keeps checkpoints and what peers read, and logs (default: %(default)s)")
    parser.add_argument("--patience", type=int, default=0, metavar="S",
                        help="before each peer, wait up to so long for other programs to be quiet")
    parser.add_argument("--retries", type=int, default=0, metavar="N",
                        help="measure those again, up to so often, that others disturbed; the quietest counts")
    parser.add_argument("--timeout", type=int, default=1800, metavar="S", help="for measuring one peer")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--svg", type=pathlib.Path, metavar="FILE", help="draw the figures into this file")
    options = parser.parse_args()
    if options.list:
        print("\n".join(PEERS))
        return
    options.peers = chosen(options.peers)
    if options.tokens < 2 or options.rounds < 1:
        parser.error("at least 2 tokens and 1 round")
    (options.work / "logs").mkdir(parents=True, exist_ok=True)
    report = {"date": datetime.date.today().isoformat(), "machine": machine(options.threads), "size": options.size,
              "device": options.device,
              "picture": [640, 480], "tokens": options.tokens, "rounds": options.rounds}
    try:
        model = environments.checkpoint(options.size, options.work, options.work / "logs" / "checkpoint.log")
    except Failure as error:
        raise SystemExit(f"peers.py: no checkpoint: {error}") from None
    log = options.work / "logs" / "limits.log"
    before = {} if options.prepare else limits(options, log, model)
    report["peers"], report["failed"] = measure_all(options, model)
    if options.prepare:
        sys.exit(1 if report["failed"] else 0)
    if before:
        reached = better(before["matmul_gflops"], limits(options, log).get("matmul_gflops", {}))
        report["limits"] = {"matmul_gflops": reached, "work": before["work"]}
        add_shares(report["peers"], before["work"], reached)
    report["machine"]["load_average_at_end"] = os.getloadavg()[0]
    print(tables(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if options.svg:
        import plot
        options.svg.write_text(plot.draw(report, FIGURES, value))
    if not report["peers"]:
        raise SystemExit("peers.py: nobody could be measured")
    if mixed_builds(report["peers"]):
        raise SystemExit("peers.py: the engine was built anew during the run")


if __name__ == "__main__":
    main()
