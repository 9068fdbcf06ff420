# SPDX-License-Identifier: LGPL-2.1-or-later
"""regress.py tells worse from better whichever way a figure counts; peers.py compares with the right peer."""

import argparse
import copy
import json
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import peers  # noqa: E402


def spread(median):
    return {"median": median, "best": median / 2, "worst": median * 5}


def engine_bench():
    return {"model": "m", "tokens": 64, "rounds": 3, "load_s": 1.0, "peak_mib": 1000.0,
            "first": {"prompt_tokens": 600, "first_token_s": spread(2.0), "vision_s": spread(0.5)},
            "batches": [{"batch": 1, "decode_tokens_per_s": 10.0, "token_s": spread(0.1)},
                        {"batch": 4, "decode_tokens_per_s": 30.0, "token_s": spread(0.03)}],
            "limits": {"memory_read_gb_per_s": 20.0}}


def of_peers():
    def peer(name, bits, first, rate):
        return {"name": name, "bits": bits, "version": "1", "load_s": 1.0, "first_token_s": spread(first),
                "decode_tokens_per_s": rate, "token_s": spread(1 / rate), "peak_mib": 1000.0, "prompt_tokens": 600,
                "took_s": 30.0, "others_cores": 0.0}
    return {"size": "tiny", "date": "2026-01-01", "tokens": 64, "rounds": 3,
            "machine": {"cpu": "x", "cores": 2, "threads": 2, "flags": [], "load_average_at_start": 0.0,
                        "load_average_at_end": 0.0},
            "peers": [peer("engine-int8", 8, 2.0, 12.0), peer("llama-q8_0", 8, 3.0, 8.0),
                      peer("openvino-int8", 8, 1.0, 6.0), peer("llama-q4_0", 4, 0.1, 99.0)],
            "failed": [{"name": "openvino-int4", "error": "no disk"}]}


def regress(directory, old, new, *options):
    for name, report in ("old", old), ("new", new):
        (directory / name).write_text(json.dumps(report))
    return subprocess.run([sys.executable, HERE / "regress.py", directory / "old", directory / "new", *options],
                          capture_output=True, text=True)


def changed(report, factor, *path):
    """A copy with one figure so many times as great."""
    report = copy.deepcopy(report)
    part = report
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] *= factor
    return report


WORSE = [
    (engine_bench, 1.5, ("load_s",), "load_s"),
    (engine_bench, 1.5, ("peak_mib",), "peak_mib"),
    (engine_bench, 1.5, ("first", "first_token_s", "median"), "first.first_token_s"),
    (engine_bench, 0.5, ("batches", 1, "decode_tokens_per_s"), "batches[4].decode_tokens_per_s"),
    (of_peers, 1.5, ("peers", 0, "first_token_s", "median"), "peers[engine-int8].first_token_s"),
    (of_peers, 0.5, ("peers", 0, "decode_tokens_per_s"), "peers[engine-int8].decode_tokens_per_s")]


@pytest.mark.parametrize(("make", "factor", "path", "name"), WORSE)
def test_one_worse_figure_fails(tmp_path, make, factor, path, name):
    answer = regress(tmp_path, make(), changed(make(), factor, *path))
    assert answer.returncode == 1
    assert [line.split()[0] for line in answer.stdout.splitlines() if line.endswith("WORSE")] == [name]


@pytest.mark.parametrize(("make", "factor", "path", "name"), WORSE)
def test_one_better_figure_does_not(tmp_path, make, factor, path, name):
    answer = regress(tmp_path, make(), changed(make(), 1 / factor, *path))
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize(("factor", "limit", "status"), [(1.05, "0.9", 0), (1.05, "0.99", 1), (1.5, "0.5", 0)])
def test_the_limit_decides(tmp_path, factor, limit, status):
    answer = regress(tmp_path, engine_bench(), changed(engine_bench(), factor, "load_s"), "--limit", limit)
    assert answer.returncode == status, answer.stdout


def test_what_the_machine_reaches_and_the_worst_round_do_not_count(tmp_path):
    new = changed(engine_bench(), 0.1, "limits", "memory_read_gb_per_s")
    assert regress(tmp_path, engine_bench(), changed(new, 9, "first", "vision_s", "worst")).returncode == 0


def test_the_rest_of_the_memory_does_not_count_but_the_whole_does(tmp_path):
    old = {**engine_bench(), "memory": {"resident_mib": 1300.0, "rest_mib": -5.0}}
    assert regress(tmp_path, old, changed(old, -9, "memory", "rest_mib")).returncode == 0
    assert regress(tmp_path, old, changed(old, 1.5, "memory", "resident_mib")).returncode == 1


def test_a_missing_figure_fails_unless_left_out(tmp_path):
    new = of_peers()
    del new["peers"][1]
    answer = regress(tmp_path, of_peers(), new)
    assert answer.returncode == 1 and "missing" in answer.stdout
    assert regress(tmp_path, of_peers(), new, "--only", "engine-").returncode == 0


def test_other_settings_are_told(tmp_path):
    new = of_peers()
    new["machine"]["threads"] = 4
    assert "note: the files differ in threads: 2 and 4" in regress(tmp_path, of_peers(), new).stdout


@pytest.mark.parametrize("text", ["{}", "no JSON"])
def test_a_file_without_figures_is_an_error(tmp_path, text):
    (tmp_path / "file").write_text(text)
    answer = subprocess.run([sys.executable, HERE / "regress.py", tmp_path / "file", tmp_path / "file"],
                            capture_output=True, text=True)
    assert answer.returncode == 2


def test_the_engine_is_compared_with_the_best_peer_of_its_bits():
    measured = of_peers()["peers"]
    assert peers.comparison(measured, "engine-int8", "first_token_s") == (0.5, "openvino-int8")
    assert peers.comparison(measured, "engine-int8", "decode_tokens_per_s") == pytest.approx((1.5, "llama-q8_0"))
    assert peers.comparison(measured, "engine-int8", "vision_s") is None
    assert peers.comparison(measured, "engine-int4", "decode_tokens_per_s") is None


def test_shares_are_of_what_the_machine_reaches():
    measured = of_peers()["peers"]
    for peer in measured:
        peer["limits"] = {"read_gb_s": 20}
    work = {"picture_operations": 3e11, "prompt_token_operations": 2e9, "head_operations": 1e8, "token_parameters": 1e9}
    peers.add_shares(measured, work, {"bfloat16": 1000, "int8": 2000})
    engine, llama = measured[0], measured[1]
    assert engine["of_read_rate"] == pytest.approx(12 * 1e9 / 20e9)
    assert engine["of_matmul"] == pytest.approx((3e11 + 600 * 2e9 + 1e8) / 2.0 / 1000e9)
    assert llama["of_matmul"] == pytest.approx((3e11 + 600 * 2e9 + 1e8) / 3.0 / 2000e9)
    report = {**of_peers(), "peers": measured, "limits": {"matmul_gflops": {"bfloat16": 1000, "int8": 2000}}}
    assert "| 12.0 (24.0) | 0.60 |" in peers.tables(report) and "1000 GFLOP/s in bfloat16" in peers.tables(report)


@pytest.mark.parametrize(("name", "bits", "type"), [
    ("engine-float32", 32, "float32"), ("engine-bfloat16", 16, "bfloat16"), ("engine-int4", 4, "bfloat16"),
    ("engine-w4a8", 4, "int8"), ("openvino-int8", 8, "int8"), ("llama-q4_0-noflash", 4, "int8")])
def test_each_is_held_against_the_type_that_it_multiplies_in(name, bits, type):
    assert peers.multiplies_in(name, bits, {"float32": 1, "bfloat16": 2, "int8": 3}) == type
    assert peers.multiplies_in(name, bits, {"bfloat16": 2}) == "bfloat16"
    assert peers.multiplies_in(name, bits, {"bfloat16": 2, "int8": 1}) == "bfloat16"  # matrix units


def test_a_machine_without_limits_bench_has_no_shares(tmp_path):
    options = argparse.Namespace(engine=tmp_path / "engine_bench")
    assert peers.limits(options, tmp_path / "log") == {}
    measured = of_peers()["peers"]
    peers.add_shares(measured, {}, {})
    failing = tmp_path / "limits_bench"
    failing.write_text("#!/bin/sh\nexit 1\n")
    failing.chmod(0o755)
    options.device, options.threads = "cpu", 1
    assert peers.limits(options, tmp_path / "log") == {}
    assert "of_matmul" not in measured[0] and "of_read_rate" not in measured[0]


def test_memory_of_the_engine_is_told_apart():
    report = of_peers()
    report["peers"][0]["memory"] = {"resident_mib": 1300.0, "weights_mib": 1000.0, "kv_used_mib": 200.0, "rest_mib": 100.0}
    assert "| engine-int8 | 1300 | 1000 | 200 | 100 |" in peers.tables(report)


def test_both_ways_of_attention_are_measured_by_default():
    assert peers.chosen(["llama-q8_0"]) == ["llama-q8_0", "llama-q8_0-noflash"]
    assert peers.chosen(["openvino-int4"]) == ["openvino-int4", "openvino-int4-sdpa"]


def test_the_demo_model_is_a_size(tmp_path):
    import environments
    model = environments.checkpoint("demo", tmp_path, tmp_path / "log")
    assert (model / "config.json").exists() and model.parent.parent == tmp_path
    assert environments.checkpoint("demo", tmp_path, tmp_path / "log") == model


def test_the_report_names_everyone():
    import plot
    report = of_peers()
    text = peers.tables(report)
    drawing = plot.draw(report, peers.FIGURES, peers.value)
    for peer in report["peers"]:
        assert peer["name"] in text and peer["name"] in drawing
    assert "Not measured: openvino-int4: no disk" in text


def test_figures_of_two_builds_are_told():
    report = of_peers()
    report["peers"].append({**report["peers"][0], "name": "engine-int4", "bits": 4})
    assert "built anew" not in peers.tables(report)
    report["peers"][-1]["version"] = "2"
    assert "built anew" in peers.tables(report)


def test_a_peer_that_fails_does_not_end_the_run(tmp_path):
    command = [sys.executable, HERE / "peers.py", "--size", "tiny", "--peers", "engine-int8", "--rounds", "1",
               "--tokens", "2", "--work", tmp_path, "--engine", tmp_path / "none", "--json", tmp_path / "json"]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 1
    report = json.loads((tmp_path / "json").read_text())
    assert report["peers"] == []
    assert report["failed"][0]["name"] == "engine-int8" and "No such file" in report["failed"][0]["error"]
