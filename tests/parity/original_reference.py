# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the original LLaVA project does with a checkpoint, put together from transformers' CLIP and Llama or Mistral.

The project itself runs with libraries of 2024 only. Written from its behaviour: how pictures are fitted, how text is
tokenised piece by piece with the slow tokenizer class of transformers 4.37, how features and text become one sequence,
of which alone `generate` knows.
"""

import itertools
import json
import math
import pathlib
import re
import warnings

import sentencepiece
import torch
from PIL import Image
from sentencepiece import sentencepiece_model_pb2
from transformers import (CLIPVisionConfig, CLIPVisionModel, GenerationConfig, LlamaConfig, LlamaForCausalLM,
                          MistralConfig, MistralForCausalLM)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import make_checkpoint
from reference import generated

# That penalties count generated ids alone, of which generate() warns, is what the original has.
warnings.filterwarnings("ignore", message="Passing `.*` with `inputs_embeds`")

IMAGE = -200
MARK = "▁"
ROLES = ("<unk>", "<s>", "</s>")


class SlowLlamaTokenizer:
    """transformers 4.37's LlamaTokenizer, or with `fast` what it is converted to."""

    def __init__(self, directory, added, fast=False):
        settings = json.loads((directory / "tokenizer_config.json").read_text())
        self.fast = fast
        self.legacy = fast or settings.get("legacy", True)
        proto = sentencepiece_model_pb2.ModelProto.FromString((directory / "tokenizer.model").read_bytes())
        proto.normalizer_spec.add_dummy_prefix = self.legacy
        self.model = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        size = self.model.get_piece_size()
        self.added = {"<unk>": 0, "<s>": 1, "</s>": 2, **{token: size + i for i, token in enumerate(added)}}
        longest_first = sorted(self.added, key=len, reverse=True)
        self.cut = re.compile("(" + "|".join(re.escape(token) for token in longest_first) + ")")

    def encode(self, text):
        """Ids with BOS."""
        if not self.legacy and text:
            text = MARK + text.replace(MARK, " ")
        parts = [part for part in self.cut.split(text) if part]
        if not self.legacy and len(parts) > 1 and parts[0] == MARK and parts[1] in ROLES:
            del parts[0]
        ids = [1]
        for part in parts:
            ids += [self.added[part]] if part in self.added else self.model.encode(part)
        return ids

    def decode(self, ids, skip_special_tokens=False):
        """Text of ids that are all the model's own, or of the special ones."""
        pieces = [self.model.id_to_piece(i) for i in ids if i < self.model.get_piece_size()
                  and not (skip_special_tokens and i < len(ROLES))]
        if not self.fast:
            return self.model.decode(pieces)
        text = ""
        for is_byte, run in itertools.groupby(pieces, lambda piece: re.fullmatch("<0x[0-9A-F]{2}>", piece) is not None):
            if not is_byte:
                text += "".join(run).replace(MARK, " ")
                continue
            data = bytes(int(piece[3:5], 16) for piece in run)
            try:
                text += data.decode()
            except UnicodeDecodeError:
                text += "\ufffd" * len(data)
        return text.removeprefix(" ")

    def shows(self, ids):
        """Whether the engine shows all of `ids`: it leaves out <im_start> and its like, which the slow class shows."""
        return all(i < self.model.get_piece_size() for i in ids)


# ---- Pictures

def on_square(picture, colour):
    side = max(picture.size)
    canvas = Image.new("RGB", (side, side), colour)
    canvas.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return canvas


def best_grid(size, grids):
    """The grid that keeps the most of the picture's pixels, of equal ones that with the least waste."""
    width, height = size
    best, most, least_waste = None, 0, math.inf
    for grid in grids:
        scale = min(grid[0] / width, grid[1] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        waste = grid[0] * grid[1] - kept
        if kept > most or (kept == most and waste < least_waste):
            best, most, least_waste = grid, kept, waste
    return best


def fitted(picture, grid):
    """The picture in the middle of a black canvas of the grid's size."""
    across, down = grid[0] / picture.width, grid[1] / picture.height
    if across < down:
        size = (grid[0], min(math.ceil(picture.height * across), grid[1]))
    else:
        size = (min(math.ceil(picture.width * down), grid[0]), grid[1])
    canvas = Image.new("RGB", tuple(grid), (0, 0, 0))
    canvas.paste(picture.resize(size), ((grid[0] - size[0]) // 2, (grid[1] - size[1]) // 2))
    return canvas


def tiles(picture, grids, side):
    """The whole picture first, then the tiles row by row."""
    canvas = fitted(picture, best_grid(picture.size, grids))
    return [picture.resize((side, side))] + [
        canvas.crop((x, y, x + side, y + side))
        for y in range(0, canvas.height, side) for x in range(0, canvas.width, side)]


def without_padding(features, size):
    """features: [hidden, rows, columns] of a padded picture whose own size is `size`."""
    (width, height), (rows, columns) = size, features.shape[1:]
    if width / height > columns / rows:
        padding = (rows - int(height * (columns / width))) // 2
        return features[:, padding:rows - padding, :]
    padding = (columns - int(width * (rows / height))) // 2
    return features[:, :, padding:columns - padding]


class OriginalReference:
    """A checkpoint from its spec and the weights that it ends up with, in float32 on the CPU."""

    def __init__(self, spec, weights, text_directory):
        self.spec, base = spec, spec.base
        self.weights = {name: tensor.float() for name, tensor in weights.items()}
        text_directory = pathlib.Path(text_directory)
        self.tokenizer = SlowLlamaTokenizer(text_directory, spec.added_tokens, fast=base.text_model == "mistral")
        self.processor = CLIPImageProcessorPil(**{key: value for key, value in base.preprocessor.items()
                                                  if key != "image_processor_type"})
        self.tower = load(CLIPVisionModel(CLIPVisionConfig(**make_checkpoint.vision_config(base))),
                          self.part("vision_tower.vision_model."))
        self.model = self.make_text_model(make_checkpoint.text_config(base))
        settings = json.loads((text_directory / "generation_config.json").read_text())
        self.model.generation_config = GenerationConfig(**settings)

    def part(self, prefix):
        return {name.removeprefix(prefix): tensor for name, tensor in self.weights.items() if name.startswith(prefix)}

    def make_text_model(self, config):
        tensors = self.part("language_model.")
        rows = self.spec.vocabulary
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            if name in tensors:
                tensors[name] = tensors[name][:rows]
        config = {**config, "vocab_size": rows, "num_key_value_heads": self.spec.base.text.kv_heads}
        config.pop("model_type", None)
        if self.spec.base.text_model == "mistral":
            return load(MistralForCausalLM(MistralConfig(**config)), tensors)
        return load(LlamaForCausalLM(LlamaConfig(**config)), tensors)

    # ---- From text and pictures to one sequence

    def pixels(self, picture, aspect):
        """[images, 3, side, side] of one picture."""
        picture = picture.convert("RGB")
        if aspect == "anyres":
            pictures = tiles(picture, self.spec.grids, self.spec.base.vision.image)
        elif aspect == "pad":
            pictures = [on_square(picture, tuple(int(255 * mean) for mean in self.processor.image_mean))]
        else:
            pictures = [picture]
        return torch.cat([self.processor(images=p, return_tensors="pt")["pixel_values"] for p in pictures])

    def features(self, pixels):
        """What the projector takes."""
        states = self.tower(pixels, output_hidden_states=True).hidden_states[self.spec.base.feature_layer]
        return states if self.spec.base.select == "full" else states[:, 1:]

    def projected(self, x):
        for i in range(self.spec.depth):
            name = f"multi_modal_projector.linear_{i + 1}."
            x = torch.nn.functional.gelu(x) if i else x
            x = torch.nn.functional.linear(x, self.weights[name + "weight"], self.weights[name + "bias"])
        return x

    def merged(self, embeds, picture, aspect):
        """[images, patches, hidden] of one picture → [tokens, hidden]."""
        merge, newline = self.spec.merge, self.weights.get("image_newline")
        if aspect != "anyres" or merge == "flat":
            # A batch of single pictures never comes to the newline.
            return embeds.flatten(0, 1)
        side = self.spec.base.vision.image // self.spec.base.vision.patch
        grid = best_grid(picture.size, self.spec.grids)
        columns, rows = (length // self.spec.base.vision.image for length in grid)
        whole, parts = embeds[0], embeds[1:].view(rows, columns, side, side, -1)
        rows_of_patches = parts.permute(0, 2, 1, 3, 4).flatten(0, 1).flatten(1, 2)  # [rows, columns, hidden]
        if merge == "spatial_unpad":
            kept = without_padding(rows_of_patches.permute(2, 0, 1), picture.size).permute(1, 2, 0)
            ends = newline.expand(kept.shape[0], 1, -1)
            rows_of_patches = torch.cat([kept, ends], dim=1)
        return torch.cat([whole, rows_of_patches.flatten(0, 1)])

    def ids(self, text):
        """With IMAGE once for each picture."""
        pieces = [self.tokenizer.encode(piece) for piece in text.split("<image>")]
        ids = pieces[0][:1]
        for i, piece in enumerate(pieces):
            ids += ([IMAGE] if i else []) + piece[1:]
        return ids

    def inputs(self, text, pictures, aspect="auto"):
        return {"ids": self.ids(text), "pictures": list(pictures),
                "aspect": self.spec.aspect if aspect == "auto" else aspect}

    @torch.no_grad()
    def trace(self, inputs):
        """The stages' tensors by their names in a trace file."""
        pictures, aspect = inputs["pictures"], inputs["aspect"]
        table = self.model.get_input_embeddings().weight
        pixels = [self.pixels(picture, aspect) for picture in pictures]
        kept = {}
        images = []
        if pictures:
            kept["pixel_values"] = torch.cat(pixels)
            kept["vision_features"] = self.features(kept["pixel_values"])
            embeds = self.projected(kept["vision_features"]).split([len(p) for p in pixels])
            images = [self.merged(part, picture, aspect) for part, picture in zip(embeds, pictures)]
            kept["image_embeds"] = torch.cat(images)
        rows, ids, waiting = [], [], iter(images)
        for i in inputs["ids"]:
            image = next(waiting) if i == IMAGE else table[i:i + 1]
            rows.append(image)
            ids += [i] * len(image)
        rows = torch.cat(rows)
        if pictures and self.spec.max_length is not None:
            rows, ids = rows[:self.spec.max_length], ids[:self.spec.max_length]
        kept["prompt_ids"], kept["inputs_embeds"] = torch.tensor(ids), rows
        self.forget_positions()
        kept["first_logits"] = self.model(inputs_embeds=rows[None]).logits[0, -1]
        return kept

    @torch.no_grad()
    def generate(self, inputs, **options):
        rows = self.trace(inputs)["inputs_embeds"][None]
        self.forget_positions()
        return generated(self.model, {"inputs_embeds": rows}, 0, options)

    def forget_positions(self):
        rotary = self.model.model.rotary_emb
        rotary.inv_freq = rotary.original_inv_freq.clone()
        rotary.max_seq_len_cached = rotary.original_max_seq_len


def load(model, tensors):
    """`model` with all of its weights from `tensors`."""
    missing, extra = model.load_state_dict(tensors, strict=False)
    if extra or [name for name in missing if name != "lm_head.weight"]:
        raise AssertionError(f"the reference lacks {missing} and does not know {extra}")
    model.tie_weights()
    return model.eval()
