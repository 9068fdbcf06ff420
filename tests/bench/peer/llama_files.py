# SPDX-License-Identifier: LGPL-2.1-or-later
"""llama_files.py CHECKPOINT OUTDIR SOURCE: writes bf16.gguf and mmproj.gguf, which llama.cpp reads a LLaVA from.

SOURCE is a source tree of llama.cpp. Its converter writes the text model; the picture's part, which it writes of
Pixtral alone, is written here. Runs in the tests' Python.
"""

import json
import pathlib
import re
import subprocess
import sys

import torch
from safetensors import safe_open

MEAN = [0.48145466, 0.4578275, 0.40821073]
DEVIATION = [0.26862954, 0.26130258, 0.27577711]
# A part of a checkpoint's name and what stands for it in a file for libmtmd.
NAMES = [
    (r"^multi_modal_projector\.linear_1\.", "mm.0."), (r"^multi_modal_projector\.linear_2\.", "mm.2."),
    (r"^vision_tower\.vision_model\.", "v."), (r"embeddings\.class_embedding$", "class_embd"),
    (r"embeddings\.patch_embedding\.", "patch_embd."), (r"embeddings\.position_embedding\.", "position_embd."),
    (r"pre_layrnorm\.", "pre_ln."), (r"encoder\.layers\.", "blk."), (r"self_attn\.out_proj\.", "attn_out."),
    (r"self_attn\.([qkv])_proj\.", r"attn_\1."), (r"layer_norm([12])\.", r"ln\1."),
    (r"mlp\.fc1\.", "ffn_up."), (r"mlp\.fc2\.", "ffn_down.")]


def tensors(checkpoint):
    for file in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():
                yield name, opened.get_tensor(name)


def write_picture_part(checkpoint, target, gguf):
    config = json.loads((checkpoint / "config.json").read_text())
    vision = config["vision_config"]
    layer = config["vision_feature_layer"]
    used = layer if layer >= 0 else vision["num_hidden_layers"] + layer + 1
    writer = gguf.GGUFWriter(target, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", vision.get("hidden_act", "quick_gelu") == "gelu")
    for key, value in (("image_size", vision["image_size"]), ("patch_size", vision["patch_size"]),
                       ("embedding_length", vision["hidden_size"]), ("block_count", used),
                       ("feed_forward_length", vision["intermediate_size"]),
                       ("projection_dim", config["text_config"]["hidden_size"]),
                       ("attention.head_count", vision["num_attention_heads"])):
        writer.add_uint32("clip.vision." + key, value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", vision.get("layer_norm_eps", 1e-5))
    writer.add_array("clip.vision.feature_layer", [used])
    writer.add_array("clip.vision.image_mean", MEAN)
    writer.add_array("clip.vision.image_std", DEVIATION)
    for name, tensor in tensors(checkpoint):
        number = re.search(r"encoder\.layers\.(\d+)\.", name)
        if not name.startswith(("vision_tower.", "multi_modal_projector.")) or "post_layernorm" in name or (
                number and int(number[1]) >= used):
            continue
        for part, word in NAMES:
            name = re.sub(part, word, name)
        if tensor.dim() == 2 and "position_embd" not in name:
            words = tensor.to(torch.bfloat16).contiguous().view(torch.int16).numpy()
            writer.add_tensor(name, words.view("uint8"), raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(name, tensor.to(torch.float16 if tensor.dim() == 4 else torch.float32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    checkpoint, out, source = (pathlib.Path(word) for word in sys.argv[1:4])
    subprocess.run([sys.executable, source / "convert_hf_to_gguf.py", checkpoint, "--outtype", "bf16", "--outfile",
                    out / "bf16.gguf"], check=True)
    sys.path.insert(0, str(source / "gguf-py"))
    import gguf
    write_picture_part(checkpoint, out / "mmproj.gguf", gguf)


if __name__ == "__main__":
    main()
