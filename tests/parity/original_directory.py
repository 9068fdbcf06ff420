# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads a checkpoint directory in the original LLaVA project's layout for OriginalReference: the directory's own files,
those of the vision tower that its config.json names, and those of the base model that it may need."""

import ast
import dataclasses
import json
import os
import pathlib
import re

import torch
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, LlamaConfig, MistralConfig

TEXT_CONFIGS = {"llama": LlamaConfig, "mistral": MistralConfig}
# What openai/clip-vit-large-patch14-336 is, for checkpoints that hold its weights and not its files.
KNOWN_TOWER = "openai/clip-vit-large-patch14-336"
KNOWN_VISION = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
                "image_size": 336, "patch_size": 14}
KNOWN_PREPROCESSOR = {"do_resize": True, "do_center_crop": True, "do_normalize": True, "resample": 3, "size": 336,
                      "crop_size": 336}


class Unreadable(Exception):
    """This reference can't read the checkpoint: a sentence that says why."""


@dataclasses.dataclass
class Settings:
    """What the original takes from the files besides weights and tokenizer."""
    text_model: str  # llama or mistral
    text: dict  # arguments of its configuration
    vision: dict  # arguments of the tower's
    preprocessor: dict  # arguments of the tower's image processor
    feature_layer: int
    keeps_cls: bool
    depth: int  # linear layers of the projector
    aspect: object  # image_aspect_ratio
    merge: str
    grids: list  # width and height in pixels
    added_tokens: list  # behind those of the tokenizer's files
    max_length: object  # of a prompt with pictures; None: any


def is_original(config):
    """Whether a config.json is of this layout."""
    return "text_config" not in config and ("mm_vision_tower" in config or "mm_projector_type" in config or
                                            config.get("model_type", "").startswith(("llava_llama", "llava_mistral")))


def read_original(directory, vision_tower="", model_base=""):
    """Settings, weights by the names of transformers' classes, and the directory of the tokenizer."""
    directory = find_directory(directory)
    config = read_json(directory / "config.json")
    text_directory = find_directory(model_base) if model_base else directory
    if not model_base and not has_weights(directory):
        raise Unreadable(f"{directory} holds no whole model: name its base with --model-base")
    weights = read_weights(text_directory, canonical)
    if model_base:
        add_trained(directory, weights)
    vision, preprocessor = add_tower(directory, config, vision_tower, weights)
    return make_settings(config, vision, preprocessor), weights, text_directory


def make_settings(config, vision, preprocessor):
    mistral = "mistral" in config.get("model_type", "") or config.get("architectures") == ["LlavaMistralForCausalLM"]
    text_model = "mistral" if mistral else "llama"
    projector = config.get("mm_projector_type", "linear")
    mlp = re.fullmatch(r"mlp(\d+)x_gelu", projector)
    if projector not in ("linear", "identity") and not mlp:
        raise Unreadable(f"mm_projector_type {projector} is none that this reference knows")
    grids = config.get("image_grid_pinpoints") or []
    return Settings(
        text_model=text_model, text=arguments(TEXT_CONFIGS[text_model], config, "rope_theta", "rope_scaling"),
        vision=vision, preprocessor=preprocessor, feature_layer=config["mm_vision_select_layer"],
        keeps_cls=config.get("mm_vision_select_feature", "patch") == "cls_patch",
        depth=int(mlp[1]) if mlp else {"linear": 1, "identity": 0}[projector],
        aspect=config.get("image_aspect_ratio"), merge=config.get("mm_patch_merge_type", "flat"),
        grids=[list(grid) for grid in (ast.literal_eval(grids) if isinstance(grids, str) else grids)],
        added_tokens=["<im_patch>"] * config.get("mm_use_im_patch_token", True) +
        ["<im_start>", "<im_end>"] * config.get("mm_use_im_start_end", False),
        max_length=config.get("tokenizer_model_max_length"))


def arguments(kind, config, *more):
    """Those keys of `config` that the configuration class `kind` knows."""
    return {key: value for key, value in config.items() if key in kind.__annotations__ or key in more}


# ---- Places

def find_directory(name):
    """`name` itself, or the snapshot of that hub id in the local cache."""
    found = find_snapshot(str(name))
    if found is None:
        raise Unreadable(f"{name} is neither a directory nor a hub id in the local cache")
    return found


def find_snapshot(name):
    if pathlib.Path(name).is_dir():
        return pathlib.Path(name)
    from huggingface_hub import snapshot_download
    try:
        return pathlib.Path(snapshot_download(name, cache_dir=os.environ.get("HF_HUB_CACHE"),
                                              local_files_only=True))
    except Exception:  # not an id, or not there
        return None


def find_tower(directory, name):
    beside = directory.resolve().parent / pathlib.Path(name).name
    return find_snapshot(name) or (beside if (beside / "config.json").is_file() else None)


def add_tower(directory, config, vision_tower, weights):
    """Adds the tower's weights where the checkpoint holds none; the arguments of tower and image processor."""
    name = config["mm_vision_tower"]
    tower = find_directory(vision_tower) if vision_tower else find_tower(directory, name)
    held = [tensor for tensor in weights if tensor.startswith("vision_tower.")]
    if tower is None:
        if not held or name != KNOWN_TOWER:
            raise Unreadable(f"the vision tower {name} is nowhere: name its directory with --vision-tower")
        return KNOWN_VISION, KNOWN_PREPROCESSOR
    if vision_tower:
        for tensor in held:
            del weights[tensor]
    if vision_tower or not held:
        weights.update(read_weights(tower, tower_name))
    vision = read_json(tower / "config.json")
    preprocessor = read_json(tower / "preprocessor_config.json")
    for key in ("image_processor_type", "feature_extractor_type", "processor_class"):
        preprocessor.pop(key, None)
    return arguments(CLIPVisionConfig, vision.get("vision_config") or vision), preprocessor


# ---- Weights

def canonical(name):
    """The name in transformers' classes, the projector's layers counted on; None for tables that are computed."""
    if name.endswith(("rotary_emb.inv_freq", "embeddings.position_ids")):
        return None
    name = re.sub(r"^model\.(vision_tower|mm_projector|multi_modal_projector|image_newline)", r"\1", name)
    name = re.sub(r"^(model\.language_model|model(?=\.(embed_tokens|layers|norm)\.))", "language_model.model", name)
    name = re.sub(r"^lm_head", "language_model.lm_head", name)
    name = re.sub(r"^vision_tower\.(vision_tower\.)?(vision_model\.)?", "vision_tower.vision_model.", name)
    name = re.sub(r"^mm_projector\.(?=weight|bias)", "multi_modal_projector.linear_1.", name)
    return re.sub(r"^mm_projector\.(\d+)", lambda m: f"multi_modal_projector.linear_{int(m[1]) // 2 + 1}", name)


def tower_name(name):
    """The same for the files of a tower, which may be a whole CLIP's."""
    if name.startswith(("text_model.", "logit_scale", "text_projection", "visual_projection")):
        return None
    return canonical("vision_tower." + name)


def trained_name(name):
    """The same for what a LoRA's training saved."""
    name = re.sub(r"^base_model\.", "", name)
    return canonical(re.sub(r"^model\.(?=model\.|lm_head\.)", "", name))


def weight_files(directory):
    """The first kind of files that is there."""
    for single in ("model.safetensors", "pytorch_model.bin"):
        index = directory / f"{single}.index.json"
        if (directory / single).is_file():
            return [directory / single]
        if index.is_file():
            return [directory / file for file in sorted(set(read_json(index)["weight_map"].values()))]
    return []


def has_weights(directory):
    return bool(weight_files(directory))


def read_weights(directory, rename):
    files = weight_files(directory)
    if not files:
        raise Unreadable(f"{directory} holds neither model.safetensors nor pytorch_model.bin")
    return {new: tensor for file in files for new, tensor in read_file(file, rename).items()}


def read_file(file, rename):
    tensors = (load_file(file) if file.suffix == ".safetensors" else
               torch.load(file, map_location="cpu", weights_only=True, mmap=True))
    renamed = {rename(name): tensor.detach() for name, tensor in tensors.items()}
    renamed.pop(None, None)
    return renamed


def add_trained(directory, weights):
    """Puts what the checkpoint holds, a projector or a LoRA, on the base's weights."""
    settings = directory / "adapter_config.json"
    if not settings.is_file():
        return weights.update(read_file(directory / "mm_projector.bin", canonical))
    if (directory / "non_lora_trainables.bin").is_file():
        weights.update(read_file(directory / "non_lora_trainables.bin", trained_name))
    adapter = {}
    for file in (directory / "adapter_model.safetensors", directory / "adapter_model.bin"):
        if file.is_file() and not adapter:
            adapter = read_file(file, str)
    settings = read_json(settings)
    scale = settings["lora_alpha"] / settings["r"]
    for name, down in adapter.items():
        if ".lora_A." not in name:
            continue
        up, target = adapter[name.replace(".lora_A.", ".lora_B.")], trained_name(name.split(".lora_A.")[0] + ".weight")
        weights[target] = weights[target].float() + scale * (up.float() @ down.float())
    return None


def read_json(path):
    if not path.is_file():
        raise Unreadable(f"{path} is not there")
    return json.loads(path.read_text(encoding="utf-8"))
