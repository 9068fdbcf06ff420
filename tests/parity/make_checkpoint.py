#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes a small LLaVA checkpoint with random weights, in the Hugging Face layout.

Every shape and setting is drawn from the seed, or given: the same seed and settings give the same files. The weights
are scaled so that the logits are well apart and the text does not settle on one token. The tokenizer is a
sentencepiece model trained on words made up from the seed.

    make_checkpoint.py OUTDIR --seed 7
    make_checkpoint.py OUTDIR --seed 7 --set text.layers=3 --set rope=llama3
"""

import argparse
import dataclasses
import io
import json
import math
import pathlib
import random

import torch
from safetensors.torch import save_file

from specs import GENERATIONS, TEXT_MODELS, random_family, random_spec, spec_image_tokens

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# The layout of prompts that LLaVA-1.5 checkpoints of this layout are used with.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}")


# ---- Tokenizer

def made_up_text(seed, sentences=700):
    """Sentences of made-up words with a few real ones, numbers and marks."""
    rng = random.Random(f"text {seed}")
    onsets = ["b", "d", "k", "l", "m", "n", "p", "r", "s", "t", "st", "gr", "v", "j", "qu"]
    vowels = ["a", "e", "i", "o", "u", "ea", "ou"]
    codas = ["", "", "n", "s", "r", "l", "ck", "mp"]
    words = ["".join(rng.choice(onsets) + rng.choice(vowels) + rng.choice(codas) for _ in range(rng.randrange(1, 4)))
             for _ in range(300)]
    words += "USER ASSISTANT What is in this picture Describe the scene a red circle on of and image How many".split()
    lines = []
    for _ in range(sentences):
        line = " ".join(rng.choice(words) for _ in range(rng.randrange(2, 12)))
        if rng.random() < 0.3:
            line = line.capitalize()
        if rng.random() < 0.2:
            line += f" {rng.randrange(0, 2000)}"
        lines.append(line + rng.choice([".", "?", "!", ":", ",", ""]))
    return lines + ["The quick brown fox jumps over a lazy dog's WXYZ-0123456789 (é, ü) \"quoted\"."] * 3


def train_tokenizer(spec):
    import sentencepiece
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(made_up_text(spec.seed)), model_writer=model, vocab_size=spec.pieces, model_type="bpe",
        byte_fallback=True, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, normalization_rule_name="identity",
        remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True,
        character_coverage=0.999, num_threads=1, minloglevel=2)
    return model.getvalue()


def token_entry(text):
    return {"content": text, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
            "special": True}


def write_tokenizer(out, spec):
    (out / "tokenizer.model").write_bytes(train_tokenizer(spec))
    image, pad = spec.pieces, spec.pieces + 1
    config = {
        "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "padding_side": "left",
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>",
        "clean_up_tokenization_spaces": False, "model_max_length": 1000000000000000019884624838656}
    if spec.legacy_tokenizer is not None:
        config["legacy"] = spec.legacy_tokenizer
    if spec.added_tokens_style == "config":
        config["added_tokens_decoder"] = {
            "0": token_entry("<unk>"), "1": token_entry("<s>"), "2": token_entry("</s>"),
            str(image): token_entry("<image>"), str(pad): token_entry("<pad>")}
    else:
        write_json(out / "added_tokens.json", {"<image>": image, "<pad>": pad})
        config["additional_special_tokens"] = ["<image>"]
        write_json(out / "special_tokens_map.json", {
            "bos_token": token_entry("<s>"), "eos_token": token_entry("</s>"), "unk_token": token_entry("<unk>"),
            "pad_token": token_entry("<pad>"), "additional_special_tokens": [token_entry("<image>")]})
    if spec.template_style == "tokenizer_config":
        config["chat_template"] = CHAT_TEMPLATE
    write_json(out / "tokenizer_config.json", config)


# ---- Weights

def tensor_shapes(spec):
    """Canonical name → shape."""
    v, t = spec.vision, spec.text
    shapes = {
        "vision_tower.vision_model.embeddings.class_embedding": (v.hidden,),
        "vision_tower.vision_model.embeddings.patch_embedding.weight": (v.hidden, 3, v.patch, v.patch),
        "vision_tower.vision_model.embeddings.position_embedding.weight": (v.patches + 1, v.hidden)}

    def linear(name, rows, columns, bias):
        shapes[name + ".weight"] = (rows, columns)
        if bias:
            shapes[name + ".bias"] = (rows,)

    for norm in ("pre_layrnorm", "post_layernorm"):
        shapes[f"vision_tower.vision_model.{norm}.weight"] = shapes[f"vision_tower.vision_model.{norm}.bias"] = (
            v.hidden,)
    for i in range(v.layers):
        layer = f"vision_tower.vision_model.encoder.layers.{i}."
        for norm in ("layer_norm1", "layer_norm2"):
            shapes[layer + norm + ".weight"] = shapes[layer + norm + ".bias"] = (v.hidden,)
        for part in "q", "k", "v", "out":
            linear(f"{layer}self_attn.{part}_proj", v.hidden, v.hidden, True)
        linear(layer + "mlp.fc1", v.intermediate, v.hidden, True)
        linear(layer + "mlp.fc2", v.hidden, v.intermediate, True)

    features = v.hidden * (len(spec.feature_layer) if isinstance(spec.feature_layer, list) else 1)
    linear("multi_modal_projector.linear_1", t.hidden, features, spec.projector_bias)
    linear("multi_modal_projector.linear_2", t.hidden, t.hidden, spec.projector_bias)
    if spec.generation == "next":
        shapes["image_newline"] = (t.hidden,)

    shapes["language_model.model.embed_tokens.weight"] = (t.vocab, t.hidden)
    for i in range(t.layers):
        layer = f"language_model.model.layers.{i}."
        for part, heads in ("q", t.heads), ("k", t.kv_heads), ("v", t.kv_heads):
            linear(f"{layer}self_attn.{part}_proj", heads * t.head_dim, t.hidden, t.attention_bias)
        linear(layer + "self_attn.o_proj", t.hidden, t.heads * t.head_dim, t.attention_bias)
        for part in "gate", "up":
            linear(f"{layer}mlp.{part}_proj", t.intermediate, t.hidden, t.mlp_bias)
        linear(layer + "mlp.down_proj", t.hidden, t.intermediate, t.mlp_bias)
        shapes[layer + "input_layernorm.weight"] = shapes[layer + "post_attention_layernorm.weight"] = (t.hidden,)
    shapes["language_model.model.norm.weight"] = (t.hidden,)
    if not t.tied:
        shapes["language_model.lm_head.weight"] = (t.vocab, t.hidden)
    return shapes


def random_tensor(name, shape, spec, generator):
    values = torch.randn(shape, generator=generator, device=generator.device)
    if "norm" in name or "layrnorm" in name:
        return (1 + 0.2 * values) if name.endswith(".weight") else 0.1 * values
    if name.endswith(".bias"):
        return 0.1 * values
    if "embed_tokens" in name:
        return values * (2.5 / math.sqrt(spec.text.hidden) if spec.text.tied else 1.0)
    if "lm_head" in name:
        return values * 2.5 / math.sqrt(spec.text.hidden)
    if "class_embedding" in name or "position_embedding" in name:
        return 0.5 * values
    gain = 1.6 if ("q_proj" in name or "k_proj" in name) else 1.2
    return values * gain / math.sqrt(math.prod(shape[1:]))


def make_weights(spec):
    generator = torch.Generator().manual_seed(spec.seed)
    return {name: random_tensor(name, shape, spec, generator).to(DTYPES[spec.dtype])
            for name, shape in tensor_shapes(spec).items()}


def spelled(name, style):
    """The name that files of this style use. memory: 4.52 and later as held in memory; fresh: as 5.x saves."""
    if "fresh" in style:
        name = name.replace("vision_tower.vision_model.", "vision_tower.")
    if "memory" in style:
        name = name.replace("language_model.lm_head", "lm_head").replace("language_model.model.", "language_model.")
        return name if name.startswith("lm_head") else "model." + name
    return name


def write_weights(out, spec, tensors):
    tensors = dict(tensors)
    if spec.extra_buffers:
        tensors["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(spec.vision.patches + 1)[None]
        for i in range(spec.text.layers):
            tensors[f"language_model.model.layers.{i}.self_attn.rotary_emb.inv_freq"] = torch.rand(
                spec.text.head_dim // 2)
    tensors = {spelled(name, spec.names_style): tensor for name, tensor in tensors.items()}
    if not spec.sharded:
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    random.Random(spec.seed).shuffle(names)
    count = min(3, len(names))
    weight_map, total = {}, 0
    for i in range(count):
        file = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
        part = {name: tensors[name] for name in names[i::count]}
        save_file(part, out / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
        total += sum(tensor.nbytes for tensor in part.values())
    write_json(out / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


# ---- Configuration

def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def rope_config(spec):
    scaling = {"rope_type": spec.rope}
    if spec.rope != "default":
        scaling["factor"] = spec.rope_factor
    if spec.rope == "llama3":
        scaling.update(low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=spec.rope_original)
    if spec.rope_style == "new":
        return {"rope_parameters": {"rope_theta": spec.text.theta, **scaling}}
    if spec.rope_style == "alias":
        scaling["type"] = scaling.pop("rope_type")
    return {"rope_theta": spec.text.theta, "rope_scaling": None if spec.rope == "default" else scaling}


def drop_defaults(config, defaults):
    return {key: value for key, value in config.items() if key not in defaults or defaults[key] != value}


def vision_config(spec):
    v = spec.vision
    config = {
        "model_type": "clip_vision_model", "hidden_size": v.hidden, "num_attention_heads": v.heads,
        "num_hidden_layers": v.layers, "intermediate_size": v.intermediate, "image_size": v.image,
        "patch_size": v.patch, "hidden_act": v.activation, "layer_norm_eps": v.eps, "num_channels": 3,
        "projection_dim": 16}
    if spec.explicit_defaults:
        return config
    return drop_defaults(config, {"model_type": "clip_vision_model", "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
                                  "num_channels": 3})


def text_config(spec):
    t = spec.text
    mistral = spec.text_model == "mistral"
    config = {
        "model_type": spec.text_model, "vocab_size": t.vocab, "hidden_size": t.hidden, "num_attention_heads": t.heads,
        "num_key_value_heads": t.kv_heads, "head_dim": t.head_dim, "num_hidden_layers": t.layers,
        "intermediate_size": t.intermediate, "hidden_act": t.activation, "rms_norm_eps": t.eps,
        "max_position_embeddings": t.max_positions, "tie_word_embeddings": t.tied, "bos_token_id": 1,
        "eos_token_id": 2, **rope_config(spec)}
    if mistral:
        config["sliding_window"] = t.sliding_window
    else:
        config.update(attention_bias=t.attention_bias, mlp_bias=t.mlp_bias)
    if spec.explicit_defaults:
        return config
    defaults = {
        "model_type": "llama", "num_key_value_heads": 8 if mistral else t.heads,
        "head_dim": t.hidden // t.heads, "hidden_act": "silu", "rms_norm_eps": 1e-6, "attention_bias": False,
        "mlp_bias": False, "max_position_embeddings": 131072 if mistral else 2048, "sliding_window": 4096,
        "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "rope_theta": 10000.0,
        "rope_scaling": None}
    if not spec.generation_config:  # the reference makes one of what is written here, and nothing ends a text then
        del defaults["eos_token_id"]
    return drop_defaults(config, defaults)


def make_config(spec):
    following = spec.generation == "next"
    config = {
        "architectures": [f"Llava{'Next' if following else ''}ForConditionalGeneration"],
        "model_type": "llava_next" if following else "llava", "image_token_index": spec.pieces,
        "pad_token_id": spec.pieces + 1, "projector_hidden_act": spec.projector_activation,
        "multimodal_projector_bias": spec.projector_bias, "vision_feature_layer": spec.feature_layer,
        "vision_feature_select_strategy": spec.select, "image_seq_length": spec_image_tokens(spec),
        "tie_word_embeddings": spec.text.tied}
    if following:
        config.update(image_grid_pinpoints=spec.pinpoints, use_image_newline_parameter=True)
    if not spec.explicit_defaults:
        config = drop_defaults(config, {"projector_hidden_act": "gelu", "multimodal_projector_bias": True,
                                        "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
                                        "tie_word_embeddings": False, "use_image_newline_parameter": True,
                                        "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336],
                                                                 [336, 1008]]})
    if spec.dtype_key != "absent":
        config[spec.dtype_key] = spec.dtype
    return {**config, "text_config": text_config(spec), "vision_config": vision_config(spec)}


def write_configs(out, spec):
    write_json(out / "config.json", make_config(spec))
    if spec.generation_config:
        eos = spec.eos if len(spec.eos) > 1 else spec.eos[0]
        write_json(out / "generation_config.json", {"bos_token_id": 1, "eos_token_id": eos,
                                                    "pad_token_id": spec.pieces + 1})
    processor = {"processor_class": "LlavaNextProcessor" if spec.generation == "next" else "LlavaProcessor",
                 "image_token": "<image>", "patch_size": spec.vision.patch, "num_additional_image_tokens": 1,
                 "vision_feature_select_strategy": spec.select}
    if spec.preprocessor_style == "nested":
        processor["image_processor"] = spec.preprocessor
    else:
        write_json(out / "preprocessor_config.json", spec.preprocessor)
    if spec.template_style == "processor_config":
        processor["chat_template"] = CHAT_TEMPLATE
    elif spec.template_style == "json":
        write_json(out / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    elif spec.template_style == "jinja":
        (out / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    write_json(out / "processor_config.json", processor)


def write_checkpoint(out, spec):
    """Writes all files of `spec` to the directory `out`, which is made where it does not exist."""
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    multiple = spec.vocab_multiple
    spec.text.vocab = (spec.pieces + 2 + multiple - 1) // multiple * multiple
    write_tokenizer(out, spec)
    write_configs(out, spec)
    write_weights(out, spec, make_weights(spec))
    return spec


def apply_setting(spec, setting):
    """Sets one field from `name=value`, for example text.layers=3."""
    path, _, value = setting.partition("=")
    target = spec
    *parents, field = path.split(".")
    for parent in parents:
        target = getattr(target, parent)
    if not hasattr(target, field):
        raise SystemExit(f"make_checkpoint.py: {path} is no setting; there are " +
                         ", ".join(f.name for f in dataclasses.fields(target)))
    try:
        setattr(target, field, json.loads(value))
    except json.JSONDecodeError:
        setattr(target, field, value)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="directory to write")
    parser.add_argument("--seed", type=int, default=0, help="decides everything that --set does not")
    parser.add_argument("--generation", choices=["any", *GENERATIONS], default="1.5", help="of LLaVA")
    parser.add_argument("--text-model", choices=["any", *TEXT_MODELS], default="llama")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="one field, e.g. text.layers=3")
    options = parser.parse_args()
    spec = random_spec(options.seed, *random_family(options.seed, options.generation, options.text_model))
    for setting in options.set:
        apply_setting(spec, setting)
    write_checkpoint(options.out, spec)
    print(json.dumps(dataclasses.asdict(spec), indent=1))


if __name__ == "__main__":
    main()
