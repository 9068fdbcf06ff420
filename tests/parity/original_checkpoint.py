# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes a small LLaVA checkpoint with random weights in the original project's layout: torch.save's files or
safetensors, the vision tower apart or inside, whole or as a projector or an adapter on a base model.

What the seed decides of shapes and settings comes from make_checkpoint; this module adds what only this layout has.
"""

import dataclasses
import math
import pathlib
import random

import torch
from safetensors.torch import save_file

import make_checkpoint
import specs
from make_checkpoint import write_json
from original_directory import Settings

ADDED_TOKENS = {"patch_token": ["<im_patch>"], "start_end": ["<im_start>", "<im_end>"]}


@dataclasses.dataclass
class OriginalSpec:
    """A checkpoint of the original layout. `base` holds shapes, text model and tokenizer."""
    seed: int
    base: specs.Spec
    projector: str = "mlp2x_gelu"
    aspect: object = "pad"  # None: the key is absent
    merge: str = "flat"
    start_end: bool = False
    patch_token: object = False  # None: the key is absent, which means true
    patch_row: bool = True  # whether the tables have a row for <im_patch>
    spare_rows: int = 0  # of the tables, behind the tokenizer's last id
    max_length: object = None
    kind: str = "whole"  # whole, projector, lora
    files: str = "bin"  # bin, bin shards, safetensors, safetensors shards
    names: str = "original"  # or hf
    tower: str = "path"  # inside, path, beside, cache, option
    tower_files: str = "bin"
    tower_config: str = "clip"  # or vision: its half alone
    name: str = "llava-v1.5"  # of the checkpoint's directory

    @property
    def layout(self):
        return self.base.layout

    @property
    def family(self):
        return self.base.family

    @property
    def grids(self):
        """image_grid_pinpoints: width and height in pixels."""
        return [[width, height] for height, width in self.base.pinpoints]

    @property
    def depth(self):
        """Linear layers of the projector."""
        return {"linear": 1, "identity": 0}[self.projector] if "x" not in self.projector else int(self.projector[3])

    def settings(self):
        """What the reference needs to know, without a look at the files."""
        base = self.base
        text = {**make_checkpoint.text_config(base), "num_key_value_heads": base.text.kv_heads}
        text.pop("model_type", None)
        return Settings(
            text_model=base.text_model, text=text, vision=make_checkpoint.vision_config(base),
            preprocessor={key: value for key, value in base.preprocessor.items() if key != "image_processor_type"},
            feature_layer=base.feature_layer, keeps_cls=base.select == "full", depth=self.depth, aspect=self.aspect,
            merge=self.merge, grids=self.grids, added_tokens=self.added_tokens, max_length=self.max_length)

    @property
    def added_tokens(self):
        return (["<im_patch>"] if self.patch_token is not False else []) + (
            ["<im_start>", "<im_end>"] if self.start_end else [])


def random_original(seed, generation="1.5", text_model="llama"):
    """A checkpoint of a random shape. Only the arguments decide."""
    rng = random.Random(f"original {seed}")
    base = specs.random_spec(seed, "1.5", text_model)
    base.layout = "original"
    base.select = rng.choice(["default", "default", "default", "full"])
    base.feature_layer = rng.choice([-2, -2, -1, -base.vision.layers, base.vision.layers, 0])
    base.projector_activation = "gelu"
    base.legacy_tokenizer = rng.choice([True, False, None])
    base.preprocessor = {"image_processor_type": "CLIPImageProcessor", "do_resize": True, "do_center_crop": True,
                         "do_normalize": True, "resample": 3, "size": base.vision.image,
                         "crop_size": base.vision.image}
    if rng.random() < 0.3:
        base.preprocessor["image_mean"] = [rng.uniform(0.3, 0.6) for _ in range(3)]
    spec = OriginalSpec(
        seed=seed, base=base, projector=rng.choice(["mlp2x_gelu"] * 4 + ["linear", "mlp3x_gelu", "mlp1x_gelu"]),
        aspect=rng.choice(["pad", "pad", "pad", None, "none", "square"]), start_end=rng.random() < 0.25,
        patch_token=rng.choice([False, False, True, None]), patch_row=rng.random() < 0.6,
        spare_rows=rng.choice([0, 0, 5, 64]), max_length=rng.choice([None] * 3 + [rng.randrange(4, 40)]),
        kind=rng.choice(["whole"] * 4 + ["projector", "lora"]),
        files=rng.choice(["bin", "bin shards", "bin shards", "safetensors", "safetensors shards"]),
        names=rng.choice(["original"] * 5 + ["hf"]), tower=rng.choice(["inside", "path", "beside", "cache", "option"]),
        tower_files=rng.choice(["bin", "safetensors"]), tower_config=rng.choice(["clip", "clip", "vision"]),
        name=rng.choice(["llava-v1.5", "LLaVA-V1", "my-llava", "llava-Llama-2-chat"]))
    if rng.random() < 0.1:
        base.vision.hidden = base.text.hidden
        base.vision.heads = 1
        spec.projector = "identity"
    if base.text.sliding_window == 1:  # generate() can neither cache it nor go on from embeddings without a cache
        base.text.sliding_window = 2
    if text_model == "mistral":
        spec.name = rng.choice(["llava-mistral", "LLaVA-v1.6-Mistral"])
    if generation == "next":
        make_next(spec, rng)
    return spec


def make_next(spec, rng):
    """Turns a LLaVA-1.5 into a LLaVA-1.6."""
    base = spec.base
    base.generation, base.select, base.rope = "next", "default", "default"
    base.text.max_positions = max(base.text.max_positions, 2048)
    base.vision.image = base.vision.patch * rng.choice([1, 2, 3, 4])
    base.preprocessor.update(size=base.vision.image, crop_size=base.vision.image)
    base.grids = tuple(rng.choice([specs.PUBLISHED_TILES, specs.PUBLISHED_TILES, ((1, 1),), ((2, 3), (3, 1))]))
    spec.aspect, spec.max_length = "anyres", rng.choice([None, None, None, 90])
    spec.merge = rng.choice(["spatial_unpad"] * 3 + ["spatial", "flat"])
    spec.tower = rng.choice(["inside", "inside", "path"])


# ---- Weights

def original_weights(spec):
    """Canonical names of make_checkpoint, the projector's layers counted on."""
    base = spec.base
    generator = torch.Generator().manual_seed(base.seed)
    shapes = {name: shape for name, shape in make_checkpoint.tensor_shapes(base).items()
              if not name.startswith(("multi_modal_projector", "image_newline"))}
    width = base.vision.hidden
    for i in range(spec.depth):
        shapes[f"multi_modal_projector.linear_{i + 1}.weight"] = (base.text.hidden, width)
        shapes[f"multi_modal_projector.linear_{i + 1}.bias"] = (base.text.hidden,)
        width = base.text.hidden
    if spec.merge == "spatial_unpad":
        shapes["image_newline"] = (base.text.hidden,)
    weights = {}
    for name, shape in shapes.items():
        values = (torch.randn(shape, generator=generator) if name == "image_newline" else
                  make_checkpoint.random_tensor(name, shape, base, generator))
        weights[name] = values.to(make_checkpoint.DTYPES[base.dtype])
    return weights


def original_name(name, spec):
    """A canonical name as the original's files spell it."""
    if spec.names == "hf":
        return name
    if name.startswith("multi_modal_projector.linear_"):
        layer, leaf = name.removeprefix("multi_modal_projector.linear_").split(".")
        module = "" if spec.projector == "linear" else f"{2 * (int(layer) - 1)}."
        return f"model.mm_projector.{module}{leaf}"
    if name.startswith("vision_tower."):
        return "model.vision_tower." + name
    if name == "image_newline":
        return "model.image_newline"
    return name.removeprefix("language_model.")


def save(tensors, path):
    """One file, of the kind that its name says."""
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    else:
        torch.save(tensors, path)


def varied(tensors, rng):
    """The same tensors as training leaves them: parts of a larger storage, parameters, transposed ones."""
    result = {}
    for name, tensor in tensors.items():
        style = rng.random()
        if style < 0.1:
            larger = torch.cat([torch.zeros(3, dtype=tensor.dtype), tensor.flatten()])
            tensor = larger[3:].view(tensor.shape)
        elif style < 0.2:
            tensor = torch.nn.Parameter(tensor)
        elif style < 0.3 and tensor.dim() == 2:
            tensor = tensor.t().contiguous().t()
        result[name] = tensor
    return result


def save_sharded(tensors, out, files, rng):
    single, stem, suffix = (("pytorch_model.bin", "pytorch_model", "bin") if files.startswith("bin") else
                            ("model.safetensors", "model", "safetensors"))
    if suffix == "bin":
        tensors = varied(tensors, rng)
    if "shards" not in files:
        return save(tensors, out / single)
    names = sorted(tensors)
    rng.shuffle(names)
    weight_map = {}
    for i in range(2):
        file = f"{stem}-{i + 1:05d}-of-00002.{suffix}"
        part = {name: tensors[name] for name in names[i::2]}
        save(part, out / file)
        weight_map.update(dict.fromkeys(part, file))
    write_json(out / f"{single}.index.json", {"metadata": {}, "weight_map": weight_map})


def add_lora(spec, weights, out, rng):
    """Writes an adapter and returns the weights that it makes."""
    generator = torch.Generator().manual_seed(spec.seed + 1)
    rank, alpha = rng.choice([1, 2, 4]), rng.choice([4, 8])
    adapter, merged = {}, dict(weights)
    for name, matrix in weights.items():
        if "language_model.model.layers" not in name or "_proj.weight" not in name or rng.random() < 0.3:
            continue
        down = torch.randn(rank, matrix.shape[1], generator=generator) / math.sqrt(matrix.shape[1])
        up = torch.randn(matrix.shape[0], rank, generator=generator) * 0.3
        module = "base_model.model." + name.removeprefix("language_model.").removesuffix(".weight")
        adapter[f"{module}.lora_A.weight"], adapter[f"{module}.lora_B.weight"] = down, up
        merged[name] = matrix.float() + alpha / rank * (up @ down)
    write_json(out / "adapter_config.json", {
        "peft_type": "LORA", "r": rank, "lora_alpha": alpha, "bias": "none", "fan_in_fan_out": False,
        "lora_dropout": 0.05, "modules_to_save": None, "task_type": "CAUSAL_LM", "target_modules": ["q_proj"]})
    save(adapter, out / rng.choice(["adapter_model.bin", "adapter_model.safetensors"]))
    return merged


# ---- Files

def make_config(spec):
    base = spec.base
    mistral = base.text_model == "mistral"
    config = {
        **make_checkpoint.text_config(base),
        "architectures": ["LlavaMistralForCausalLM" if mistral else "LlavaLlamaForCausalLM"],
        "model_type": "llava_mistral" if mistral else ("llava", "llava_llama")[spec.seed % 2],
        "mm_vision_tower": "", "mm_projector_type": spec.projector, "mm_hidden_size": base.vision.hidden,
        "mm_vision_select_layer": base.feature_layer, "pad_token_id": 0, "use_mm_proj": True,
        "mm_vision_select_feature": "cls_patch" if base.select == "full" else "patch",
        "mm_use_im_start_end": spec.start_end, "mm_patch_merge_type": spec.merge, "freeze_mm_mlp_adapter": False,
        "tune_mm_mlp_adapter": False, "unfreeze_mm_vision_tower": spec.tower == "inside"}
    if spec.projector == "linear" and spec.seed % 2:
        del config["mm_projector_type"]
    if spec.aspect is not None:
        config["image_aspect_ratio"] = spec.aspect
    if spec.patch_token is not None:
        config["mm_use_im_patch_token"] = spec.patch_token
    if spec.max_length is not None:
        config["tokenizer_model_max_length"] = spec.max_length
    if spec.grids:
        config["image_grid_pinpoints"] = spec.grids if spec.seed % 2 else str([tuple(grid) for grid in spec.grids])
    if base.dtype_key != "absent":
        config["torch_dtype"] = base.dtype
    return config


def write_tokenizer(out, spec):
    (out / "tokenizer.model").write_bytes(make_checkpoint.train_tokenizer(spec.base))
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
              "pad_token": None, "model_max_length": 2048, "padding_side": "right",
              "clean_up_tokenization_spaces": False}
    if spec.seed % 2:
        config.update(add_bos_token=True, add_eos_token=False)
    if spec.base.legacy_tokenizer is not None:
        config["legacy"] = spec.base.legacy_tokenizer
    write_json(out / "tokenizer_config.json", config)
    write_json(out / "special_tokens_map.json", {"bos_token": make_checkpoint.token_entry("<s>"),
                                                 "eos_token": make_checkpoint.token_entry("</s>"),
                                                 "unk_token": make_checkpoint.token_entry("<unk>"),
                                                 "pad_token": "<unk>"})


def write_tower(out, spec, weights):
    """A tower's own directory: a whole CLIP, or its vision half."""
    out.mkdir(parents=True)
    base = spec.base
    vision = {**make_checkpoint.vision_config(base), "model_type": "clip_vision_model"}
    tensors = {name.removeprefix("vision_tower."): tensor for name, tensor in weights.items()
               if name.startswith("vision_tower.")}
    if spec.tower_config == "clip":
        write_json(out / "config.json", {"architectures": ["CLIPModel"], "model_type": "clip",
                                         "text_config": {"hidden_size": 8}, "vision_config": vision})
        tensors.update({"logit_scale": torch.tensor(2.6), "text_model.final_layer_norm.weight": torch.ones(8),
                        "visual_projection.weight": torch.ones(4, base.vision.hidden),
                        "vision_model.embeddings.position_ids": torch.arange(base.vision.patches + 1)[None]})
    else:
        write_json(out / "config.json", vision)
    write_json(out / "preprocessor_config.json", base.preprocessor)
    save(tensors, out / ("pytorch_model.bin" if spec.tower_files == "bin" else "model.safetensors"))


def place_tower(root, model, spec, weights, config):
    """Writes the tower where the spec has it, and says so in `config`. Returns the engine's arguments."""
    if spec.tower == "cache":
        name = f"tests/tower-{spec.seed}"
        repository = root / "hub" / f"models--tests--tower-{spec.seed}"
        write_tower(repository / "snapshots" / "0123abcd", spec, weights)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0123abcd")
        config["mm_vision_tower"] = name
        return {}
    if spec.tower == "beside":
        write_tower(model.parent / "clip-of-its-own", spec, weights)
        config["mm_vision_tower"] = "openai/clip-of-its-own"
        return {}
    write_tower(root / "tower", spec, weights)
    config["mm_vision_tower"] = "openai/not-there" if spec.tower == "option" else str(root / "tower")
    return {"vision_tower": str(root / "tower")} if spec.tower == "option" else {}


def write_original(root, spec):
    """Writes all files below `root`. Returns the model's directory, the engine's other arguments and the weights that
    the original ends up with, in canonical names."""
    root, base, rng = pathlib.Path(root), spec.base, random.Random(f"files {spec.seed}")
    model = root / "models" / spec.name
    model.mkdir(parents=True)
    text_directory = model
    patch_alone = spec.patch_token is not False and not spec.start_end and not spec.patch_row
    base.text.vocab = base.pieces + (0 if patch_alone else len(spec.added_tokens) + spec.spare_rows)
    weights = original_weights(spec)
    config = make_config(spec)
    arguments = place_tower(root, model, spec, weights, config)
    stored = {name: tensor for name, tensor in weights.items()
              if spec.tower == "inside" or not name.startswith("vision_tower.")}
    projector = {name for name in stored if name.startswith("multi_modal") or name == "image_newline"}
    if spec.kind != "whole":
        text_directory = root / "base"
        text_directory.mkdir()
        arguments["model_base"] = str(text_directory)
        trained = {original_name(name, spec): stored.pop(name) for name in sorted(projector)}
        if spec.kind == "lora":
            weights = add_lora(spec, {**weights}, model, rng)
            torch.save({"base_model.model." + name: tensor for name, tensor in trained.items()},
                       model / "non_lora_trainables.bin")
        else:
            if rng.random() < 0.5:  # as after training <im_start> and <im_end>
                name = "language_model.model.embed_tokens.weight"
                trained[original_name(name, spec)] = stored[name]
                stored[name] = torch.zeros_like(stored[name])
            torch.save(trained, model / "mm_projector.bin")
        write_json(text_directory / "config.json", {"model_type": base.text_model})
    named = {original_name(name, spec): tensor for name, tensor in stored.items()}
    save_sharded(named, text_directory, spec.files, rng)
    write_json(model / "config.json", config)
    write_tokenizer(text_directory, spec)
    eos = base.eos if len(base.eos) > 1 else base.eos[0]
    write_json(text_directory / "generation_config.json", {"bos_token_id": 1, "eos_token_id": eos, "pad_token_id": 0})
    return model, arguments, weights
