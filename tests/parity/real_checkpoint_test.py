#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests/real-checkpoint.sh does, on random checkpoints of each layout and generation: it finds them equal, and a
model that is another one it does not."""

import os
import pathlib
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import make_checkpoint
import real_checkpoint
from original_checkpoint import random_original, write_original
from specs import random_spec

SHORT = ["--tokens", "6"]
FAMILIES = [("1.5", "llama"), ("next", "mistral")]


def write_hf(directory, generation, text_model):
    spec = random_spec(11, generation, text_model)
    spec.rope, spec.text.max_positions, spec.sharded = "default", 4096, False
    make_checkpoint.write_checkpoint(directory, spec)
    return [str(directory)]


def write_own(directory, generation, text_model, monkeypatch, **settings):
    """In the original layout; the arguments that name its parts."""
    spec = random_original(3, generation, text_model)
    spec.base.rope, spec.base.text.max_positions, spec.max_length = "default", 4096, None
    for name, value in settings.items():
        setattr(spec, name, value)
    monkeypatch.setenv("HF_HUB_CACHE", str(directory / "hub"))
    model, arguments, _ = write_original(directory, spec)
    more = [[f"--{name.replace('_', '-')}", value] for name, value in arguments.items()]
    return [str(model), *sum(more, [])]


def compared(arguments, capfd):
    """Exit status and table."""
    status = real_checkpoint.main([*arguments, *SHORT])
    return status, capfd.readouterr().out


def all_equal(arguments, capfd):
    status, table = compared(arguments, capfd)
    assert status == 0 and ", 0 different" in table, table
    for stage in ("prompt_ids", "pixel_values", "vision_features", "image_embeds", "first_logits", "3 beams", "penalties"):
        assert any(stage in line and line.startswith(("equal", "left out")) for line in table.splitlines()), table


@pytest.mark.parametrize("family", FAMILIES, ids="-".join)
def test_hugging_face_layout(tmp_path, capfd, family):
    all_equal(write_hf(tmp_path, *family), capfd)


@pytest.mark.parametrize("family", [("1.5", "llama", "option"), ("1.5", "mistral", "cache"), ("next", "llama", "path"),
                                    ("next", "mistral", "inside")], ids="-".join)
def test_original_layout(tmp_path, capfd, monkeypatch, family):
    *family, tower = family
    all_equal(write_own(tmp_path, *family, monkeypatch, tower=tower, kind="whole"), capfd)


@pytest.mark.parametrize("kind", ["projector", "lora"])
def test_original_on_a_base(tmp_path, capfd, monkeypatch, kind):
    all_equal(write_own(tmp_path, "1.5", "llama", monkeypatch, tower="beside", kind=kind), capfd)


def another(path):
    """The same file with the projector a twentieth larger."""
    tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    for name, tensor in tensors.items():
        if "projector" in name and name.endswith("weight"):
            tensors[name] = tensor.detach() * 1.05
    if path.suffix == ".safetensors":
        save_file(tensors, path, metadata={"format": "pt"})
    else:
        torch.save(tensors, path)


@pytest.mark.parametrize("layout", ["hf", "original"])
def test_another_model_differs(tmp_path, capfd, monkeypatch, layout):
    if layout == "hf":
        arguments = write_hf(tmp_path / "one", "1.5", "llama")
    else:
        arguments = write_own(tmp_path / "one", "1.5", "llama", monkeypatch, tower="path", kind="whole", files="bin")
    model = pathlib.Path(arguments[0])
    changed = tmp_path / "changed"
    shutil.copytree(model, changed)
    for path in [*changed.glob("*.safetensors"), *changed.glob("*.bin")]:
        another(path)
    engine = real_checkpoint.Engine
    monkeypatch.setattr(engine, "open", lambda self, _, _open=engine.open, **spec: _open(self, changed, **spec))
    status, table = compared(arguments, capfd)
    differing = [line for line in table.splitlines() if line.startswith("DIFFERS")]
    assert status == 1 and any("image_embeds" in line for line in differing), table
    assert not any("pixel_values" in line or "vision_features" in line for line in differing), table


def test_what_no_reference_reads_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl", "text_config": {}}')
    for directory, what in ((tmp_path, "qwen2_vl"), (tmp_path / os.urandom(4).hex(), "neither a directory")):
        with pytest.raises(SystemExit, match=what):
            real_checkpoint.main([str(directory)])
