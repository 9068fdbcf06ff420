#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""make_model.py OUTDIR [--size NAME]: a LLaVA checkpoint of a given size with random weights, to measure speed with.

`small` is a CLIP ViT-L/14-336 with a text model of 1.1 billion parameters; `7b` and `13b` are LLaVA-1.5's
shapes. Written shard by shard, so that it takes little memory whatever the size.
"""

import argparse
import pathlib
import sys

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "parity"))
import make_checkpoint  # noqa: E402
from specs import Spec, Text, Vision  # noqa: E402

SIZES = {
    # name: vision hidden, heads, layers, intermediate, image; text hidden, heads, kv heads, layers, intermediate
    "tiny": ((128, 4, 4, 512, 112), (256, 4, 4, 4, 688)),
    "base": ((512, 8, 12, 2048, 224), (768, 12, 12, 12, 2048)),
    "small": ((1024, 16, 24, 4096, 336), (2048, 32, 4, 22, 5632)),
    "7b": ((1024, 16, 24, 4096, 336), (4096, 32, 32, 32, 11008)),
    "13b": ((1024, 16, 24, 4096, 336), (5120, 40, 40, 40, 13824)),
}
VOCABULARY = 32064
SHARD_BYTES = 512 << 20


def make_spec(size, dtype):
    vision, text = SIZES[size]
    spec = Spec(
        seed=1, vision=Vision(*vision[:4], image=vision[4], patch=14),
        text=Text(*text[:3], head_dim=text[0] // text[1], layers=text[3], intermediate=text[4], max_positions=4096,
                  eps=1e-5),
        pieces=1000, dtype=dtype, template_style="json",
        preprocessor={"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": vision[4]},
                      "crop_size": {"height": vision[4], "width": vision[4]}, "resample": 3})
    spec.text.vocab = VOCABULARY
    return spec


def write(out, size, dtype, device):
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    spec = make_spec(size, dtype)
    make_checkpoint.write_tokenizer(out, spec)
    make_checkpoint.write_configs(out, spec)
    generator = torch.Generator(device).manual_seed(spec.seed)
    shards, shard, held, parameters = [], {}, 0, 0
    for name, shape in make_checkpoint.tensor_shapes(spec).items():
        tensor = make_checkpoint.random_tensor(name, shape, spec, generator).to(make_checkpoint.DTYPES[dtype]).cpu()
        parameters += tensor.numel()
        if held and held + tensor.nbytes > SHARD_BYTES:
            shards.append(sorted(shard))
            save_file(shard, out / f"part-{len(shards)}.safetensors", metadata={"format": "pt"})
            shard, held = {}, 0
        shard[name] = tensor
        held += tensor.nbytes
    shards.append(sorted(shard))
    save_file(shard, out / f"part-{len(shards)}.safetensors", metadata={"format": "pt"})
    weight_map = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        (out / f"part-{number}.safetensors").rename(out / file)
        weight_map.update(dict.fromkeys(names, file))
    make_checkpoint.write_json(out / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    return parameters


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--dtype", choices=make_checkpoint.DTYPES, default="float16")
    parser.add_argument("--device", default="cpu",
                        help="cuda: draws the numbers on a GPU, other ones, but fast")
    options = parser.parse_args()
    print(f"{write(options.out, options.size, options.dtype, options.device) / 1e6:.0f} million parameters")


if __name__ == "__main__":
    main()
