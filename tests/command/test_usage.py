# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line itself: what it prints, what it refuses, and the exit status that scripts rely on."""

import json
import shutil
import time

import pytest

from conftest import complaints
from material import ROOT

OPTIONS = """--model --vision-tower --model-base --prompt --prompt-file --prompt-format --system --image-aspect-ratio
--max-new-tokens --min-new-tokens --temperature --top-k --top-p --min-p --repetition-penalty --no-repeat-ngram-size
--repetition-guard --top-logprobs
--num-beams --length-penalty --early-stopping --stop --seed --device --dtype --quantization --interval --frames --start
--end --lost-after --give-up-after --format --output --trace --quiet --verbose --version --help -m, -p, -f, -o,""".split()
FORMATS = """auto hf raw vicuna_v1 v1 llava_v1 v1_mmtag llava_v0 v0 default v0_mmtag llava_llama_2 llama_2 llava_llama_3
mistral_instruct mistral_direct chatml_direct mpt plain v0_plain""".split()
DEMO_MODEL = ROOT / "examples" / "demo-model" / "model"


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_suffices(command, option):
    began = time.monotonic()
    done = command.run(option, env=command.environment(VLM_ENGINE_LIBRARY="/nonexistent", GST_REGISTRY="/nonexistent"))
    assert time.monotonic() - began < 5
    assert (done.returncode, done.stderr) == (0, "")
    for word in OPTIONS + FORMATS + ["Exit status", "Examples", "demonstration", "vlm-describe -m DIR", "$VLM_MODEL"]:
        assert word in done.stdout, f"--help does not mention {word}"
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_version_needs_no_engine(command):
    done = command.run("--version", env=command.environment(VLM_ENGINE_LIBRARY="/nonexistent"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("vlm-describe 0.")


BAD = [
    ["--no-such-option", "x.png"],
    ["-Z", "x.png"],
    ["--model"],
    ["--model", "", "x.png"],
    ["--prompt", "", "x.png"],
    ["--prompt", " \n", "x.png"],
    ["--prompt", b"\xff\xfe", "x.png"],
    ["--prompt-file", "/nonexistent/file", "x.png"],
    ["--prompt-file", "/dev/null", "x.png"],
    ["--prompt", "a", "--prompt-file", "/dev/null", "x.png"],
    ["--prompt-format", "alpaca", "x.png"],
    ["--image-aspect-ratio", "stretch", "x.png"],
    ["--max-new-tokens", "0", "x.png"],
    ["--max-new-tokens", "1e3", "x.png"],
    ["--max-new-tokens", "99999999999", "x.png"],
    ["--min-new-tokens", "-1", "x.png"],
    ["--min-new-tokens", "9", "--max-new-tokens", "8", "x.png"],
    ["--temperature", "-0.5", "x.png"],
    ["--temperature", "nan", "x.png"],
    ["--temperature", "inf", "x.png"],
    ["--temperature", "0,5", "x.png"],
    ["--top-k", "-1", "x.png"],
    ["--top-p", "0", "x.png"],
    ["--top-p", "1.01", "x.png"],
    ["--min-p", "2", "x.png"],
    ["--repetition-penalty", "0", "x.png"],
    ["--no-repeat-ngram-size", "two", "x.png"],
    ["--repetition-guard", "1", "x.png"],
    ["--repetition-guard", "-2", "x.png"],
    ["--top-logprobs", "-1", "x.png"],
    ["--top-logprobs", "many", "x.png"],
    ["--top-logprobs", "1025", "x.png"],
    ["--num-beams", "0", "x.png"],
    ["--length-penalty", "long", "x.png"],
    ["--early-stopping", "maybe", "x.png"],
    ["--stop", "", "x.png"],
    ["--seed", "-3", "x.png"],
    ["--seed", "1.5", "x.png"],
    ["--device", "tpu", "x.png"],
    ["--device", "cuda:x", "x.png"],
    ["--dtype", "fp8", "x.png"],
    ["--quantization", "int3", "x.png"],
    ["--interval", "-1", "x.png"],
    ["--interval", "soon", "x.png"],
    ["--interval", "0.0001", "x.png"],
    ["--interval", "1e-12", "x.png"],
    ["--temperature", "1e300", "x.png"],
    ["--length-penalty", "1e308", "x.png"],
    ["--interval", "0", "--frames", "2", "x.png"],
    ["--frames", "0", "x.png"],
    ["--start", "-1", "x.png"],
    ["--lost-after", "0", "rtsp://camera/"],
    ["--lost-after", "soon", "rtsp://camera/"],
    ["--give-up-after", "-1", "rtsp://camera/"],
    ["--start", "5", "--end", "5", "x.png"],
    ["--format", "xml", "x.png"],
    ["--output", "", "x.png"],
    ["--output", "/nonexistent/folder/file", "x.png"],
    ["--trace", "", "x.png"],
    ["--quiet", "--verbose", "x.png"],
    [""],
    [],
]


@pytest.mark.parametrize("arguments", BAD, ids=lambda a: " ".join(map(str, a)) or "nothing")
def test_wrong_usage_is_one_sentence_and_2(command, arguments):
    import subprocess

    done = subprocess.run([command.path, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (2, "")
    (sentence,) = complaints(done)
    option = next((a for a in arguments if isinstance(a, str) and a.startswith("--")), "")
    if option and option not in ("--prompt-file",):
        assert option.lstrip("-") in sentence
    assert "--help" in sentence


def test_a_missing_model_is_3_and_named(command, picture, tmp_path):
    done = command.run("-m", tmp_path / "nowhere", picture)
    assert (done.returncode, done.stdout) == (3, "")
    (sentence,) = complaints(done)
    assert str(tmp_path / "nowhere") in sentence


def test_the_environment_may_name_the_model(command, picture, tmp_path):
    done = command.run(picture, env=command.environment(VLM_MODEL=str(tmp_path / "elsewhere")))
    assert done.returncode == 3
    assert str(tmp_path / "elsewhere") in done.stderr
    done = command.run("-m", DEMO_MODEL, picture, env=command.environment(VLM_MODEL=str(tmp_path / "elsewhere")))
    assert done.returncode == 0


def broken(tmp_path, change):
    model = tmp_path / "model"
    shutil.copytree(DEMO_MODEL, model)
    change(model)
    return model


def test_broken_models_are_3_with_file_and_cause(command, picture, video, tmp_path):
    def truncate(model):
        weights = next(model.glob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:-1000])

    def spoil_json(model):
        (model / "config.json").write_text('{"model_type": "llava",')

    def other_architecture(model):
        config = json.loads((model / "config.json").read_text())
        config["model_type"] = "blip"
        config["architectures"] = ["BlipForConditionalGeneration"]
        (model / "config.json").write_text(json.dumps(config))

    def without_tokenizer(model):
        for name in ("tokenizer.model", "tokenizer.json"):
            (model / name).unlink()

    cases = [(truncate, ".safetensors"), (spoil_json, "config.json"), (other_architecture, "config.json"),
             (without_tokenizer, "tokenizer.model"),
             (lambda model: (model / "config.json").unlink(), "config.json")]
    for number, (change, named) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        for source in (picture, video):
            model = broken(folder, change) if source == picture else folder / "model"
            done = command.run("-m", model, source)
            assert (done.returncode, done.stdout) == (3, ""), done.stderr
            (sentence,) = complaints(done)
            assert named in sentence


def test_a_missing_engine_library_is_3(command, picture):
    done = command.run(picture, env=command.environment(VLM_ENGINE_LIBRARY="/nonexistent/libvlm.so.0"))
    assert done.returncode == 3
    (sentence,) = complaints(done)
    assert "/nonexistent/libvlm.so.0" in sentence


def test_contradicting_outputs_are_2(command, picture, video, tmp_path):
    a_file = tmp_path / "file"
    a_file.write_text("kept")
    for arguments in ([picture, video, "-o", a_file], [picture, video, "-o", tmp_path / "new.vtt"],
                      [picture, video, "-f", "srt"], [picture, "-o", f"{tmp_path}/none/"]):
        done = command.run(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        complaints(done)
    assert a_file.read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

