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
import tokenizers
import torch
from PIL import Image
from sentencepiece import sentencepiece_model_pb2
from transformers import CLIPVisionConfig, CLIPVisionModel, GenerationConfig, LlamaForCausalLM, MistralForCausalLM
from transformers.initialization import no_init_weights
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from original_directory import TEXT_CONFIGS
from reference import generated

# That penalties count generated ids alone, of which generate() warns, is what the original has.
warnings.filterwarnings("ignore", message="Passing `.*` with `inputs_embeds`")

IMAGE = -200
MARK = "▁"
ROLES = ("<unk>", "<s>", "</s>")
TEXT_MODELS = {"llama": LlamaForCausalLM, "mistral": MistralForCausalLM}


def load_tokenizer(directory, added, fast):
    """The class that the original takes: the slow one, or for Mistral the fast one."""
    whole = (directory / "tokenizer.json").is_file()
    if whole and (fast or not (directory / "tokenizer.model").is_file()):
        return JsonTokenizer(directory, added)
    return SlowLlamaTokenizer(directory, added, fast)


class JsonTokenizer:
    """A tokenizer.json with `added` special tokens behind its own."""

    def __init__(self, directory, added):
        self.model = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.model.add_special_tokens(added)
        self.bos = self.model.token_to_id("<s>")

    def encode(self, text):
        return self.model.encode(text).ids

    def piece_id(self, piece):
        return self.model.token_to_id(piece)

    def __len__(self):
        return self.model.get_vocab_size()


class SlowLlamaTokenizer:
    """transformers 4.37's LlamaTokenizer, or with `fast` what it is converted to."""

    def __init__(self, directory, added, fast=False):
        path = directory / "tokenizer_config.json"
        settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self.fast = fast
        self.legacy = fast or settings.get("legacy", True)
        proto = sentencepiece_model_pb2.ModelProto.FromString((directory / "tokenizer.model").read_bytes())
        proto.normalizer_spec.add_dummy_prefix = self.legacy
        self.model = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        self.named = [token_text(settings.get(role, default)) for role, default in
                      zip(("unk_token", "bos_token", "eos_token"), ROLES)]
        self.bos = self.model.piece_to_id(self.named[1])
        self.begins = settings.get("add_bos_token", True)
        self.added = {token: self.model.piece_to_id(token) for token in self.named}
        self.strips = {}  # token → whether it takes white space on its left, on its right
        self.read_added(directory, settings)
        for token in added:
            self.added.setdefault(token, len(self))
        longest_first = sorted(self.added, key=len, reverse=True)
        self.cut = re.compile("(" + "|".join(re.escape(token) for token in longest_first) + ")")

    def read_added(self, directory, settings):
        """What the files add, and which of that has a role."""
        others = [settings.get(role) for role in ("pad_token", "sep_token", "cls_token", "mask_token")]
        others += settings.get("additional_special_tokens") or []
        self.named += [token_text(token) for token in others if token is not None]
        table = settings.get("added_tokens_decoder")
        path = directory / "added_tokens.json"
        if table is None and path.is_file():
            table = {i: {"content": text} for text, i in json.loads(path.read_text(encoding="utf-8")).items()}
        for i, token in sorted((table or {}).items(), key=lambda entry: int(entry[0])):
            self.added[token["content"]] = int(i)
            self.strips[token["content"]] = token.get("lstrip", False), token.get("rstrip", False)

    def __len__(self):
        return max(self.model.get_piece_size(), *(i + 1 for i in self.added.values()))

    def encode(self, text):
        """Ids, with BOS unless the files say otherwise."""
        if not self.legacy and text:
            text = MARK + text.replace(MARK, " ")
        parts = [part for part in self.cut.split(text) if part]
        for i, part in enumerate(parts):
            left, right = self.strips.get(part, (False, False))
            if left and i > 0 and parts[i - 1] not in self.added:
                parts[i - 1] = parts[i - 1].rstrip()
            if right and i + 1 < len(parts) and parts[i + 1] not in self.added:
                parts[i + 1] = parts[i + 1].lstrip()
        if not self.legacy and len(parts) > 1 and parts[0] == MARK and parts[1] in self.named:
            del parts[0]
        ids = [self.bos] if self.begins else []
        for part in parts:
            ids += [self.added[part]] if part in self.added else self.model.encode(part)
        return ids

    def piece_id(self, piece):
        return self.model.piece_to_id(piece)

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


def piecewise_ids(tokenizer, text):
    """What stands around pictures is tokenised apart; IMAGE once for each of them."""
    pieces = [tokenizer.encode(piece) for piece in text.split("<image>")]
    begins = pieces[0][:1] == [tokenizer.bos]
    ids = pieces[0]
    for piece in pieces[1:]:
        ids += [IMAGE] + piece[begins:]
    return ids


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
    """A checkpoint from its Settings and the weights that it ends up with, on the CPU."""

    picture_id = IMAGE  # no token's

    def __init__(self, settings, weights, text_directory, dtype=torch.float32):
        self.settings, self.dtype = settings, dtype
        self.weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
        text_directory = pathlib.Path(text_directory)
        self.tokenizer = load_tokenizer(text_directory, settings.added_tokens, fast=settings.text_model == "mistral")
        self.processor = CLIPImageProcessorPil(**settings.preprocessor)
        with no_init_weights():
            self.tower = CLIPVisionModel(CLIPVisionConfig(**settings.vision))
        load(self.tower, self.part("vision_tower.vision_model."))
        self.model = self.make_text_model()
        if (text_directory / "generation_config.json").is_file():
            self.model.generation_config = GenerationConfig.from_pretrained(text_directory)

    def part(self, prefix):
        return {name.removeprefix(prefix): tensor for name, tensor in self.weights.items() if name.startswith(prefix)}

    def make_text_model(self):
        tensors = self.part("language_model.")
        # The original gives the tables as many rows as the tokenizer has tokens. <im_patch> alone may lack one.
        rows = min(len(self.tokenizer), len(tensors["model.embed_tokens.weight"]))
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            if name in tensors:
                tensors[name] = tensors[name][:rows]
        kind = self.settings.text_model
        with no_init_weights():
            model = TEXT_MODELS[kind](TEXT_CONFIGS[kind](**{**self.settings.text, "vocab_size": rows}))
        return load(model, tensors)

    # ---- From text and pictures to one sequence

    def pixels(self, picture, aspect):
        """[images, 3, side, side] of one picture."""
        picture = picture.convert("RGB")
        if aspect == "anyres":
            pictures = tiles(picture, self.settings.grids, self.tower.config.image_size)
        elif aspect == "pad":
            pictures = [on_square(picture, tuple(int(255 * mean) for mean in self.processor.image_mean))]
        else:
            pictures = [picture]
        return torch.cat([self.processor(images=p, return_tensors="pt")["pixel_values"] for p in pictures])

    def features(self, pixels):
        """What the projector takes."""
        states = self.tower(pixels.to(self.dtype), output_hidden_states=True).hidden_states[self.settings.feature_layer]
        return states if self.settings.keeps_cls else states[:, 1:]

    def projected(self, x):
        for i in range(self.settings.depth):
            name = f"multi_modal_projector.linear_{i + 1}."
            x = torch.nn.functional.gelu(x) if i else x
            x = torch.nn.functional.linear(x, self.weights[name + "weight"], self.weights[name + "bias"])
        return x

    def merged(self, embeds, picture, aspect):
        """[images, patches, hidden] of one picture → [tokens, hidden]."""
        merge, newline = self.settings.merge, self.weights.get("image_newline")
        if aspect != "anyres" or merge == "flat":
            # A batch of single pictures never comes to the newline.
            return embeds.flatten(0, 1)
        image = self.tower.config.image_size
        side = image // self.tower.config.patch_size
        columns, rows = (length // image for length in best_grid(picture.size, self.settings.grids))
        whole, parts = embeds[0], embeds[1:].view(rows, columns, side, side, -1)
        rows_of_patches = parts.permute(0, 2, 1, 3, 4).flatten(0, 1).flatten(1, 2)  # [rows, columns, hidden]
        if merge == "spatial_unpad":
            kept = without_padding(rows_of_patches.permute(2, 0, 1), picture.size).permute(1, 2, 0)
            ends = newline.expand(kept.shape[0], 1, -1)
            rows_of_patches = torch.cat([kept, ends], dim=1)
        return torch.cat([whole, rows_of_patches.flatten(0, 1)])

    def ids(self, text):
        return piecewise_ids(self.tokenizer, text)

    def inputs(self, text, pictures, aspect="auto"):
        return {"ids": self.ids(text), "pictures": list(pictures),
                "aspect": self.settings.aspect if aspect == "auto" else aspect}

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
        if pictures and self.settings.max_length is not None:
            rows, ids = rows[:self.settings.max_length], ids[:self.settings.max_length]
        kept["prompt_ids"], kept["inputs_embeds"] = torch.tensor(ids), rows
        self.forget_positions()
        kept["first_logits"] = self.model(inputs_embeds=rows[None]).logits[0, -1]
        return kept

    @torch.no_grad()
    def generate(self, inputs, **options):
        rows = self.trace(inputs)["inputs_embeds"][None]
        self.forget_positions()
        return generated(self.model, {"inputs_embeds": rows}, 0, options)

    @torch.no_grad()
    def scores_along(self, inputs, ids):
        """[len(ids), vocab]: the scores from which each of `ids` would have been chosen, one after the other."""
        rows = torch.cat([self.trace(inputs)["inputs_embeds"], self.model.get_input_embeddings().weight[list(ids)]])
        self.forget_positions()
        return self.model(inputs_embeds=rows[None]).logits[0, -1 - len(ids):-1].float()

    def forget_positions(self):
        rotary = self.model.model.rotary_emb
        rotary.inv_freq = rotary.original_inv_freq.clone()
        rotary.max_seq_len_cached = rotary.original_max_seq_len


def token_text(token):
    """Of a token that is written as such or as an object."""
    return token["content"] if isinstance(token, dict) else token


def load(model, tensors):
    """`model` with all of its weights from `tensors`, which it then holds."""
    missing, extra = model.load_state_dict(tensors, strict=False, assign=True)
    if extra or [name for name in missing if name != "lm_head.weight"]:
        raise AssertionError(f"the reference lacks {missing} and does not know {extra}")
    model.tie_weights()
    return model.eval()
