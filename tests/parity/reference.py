# SPDX-License-Identifier: LGPL-2.1-or-later
"""The reference implementation (transformers with its PIL image processor), run live, and what it decided how narrowly."""

import contextlib
import json
import pathlib
import types

import torch
import transformers
from transformers import (AutoTokenizer, LlamaTokenizer, LlavaForConditionalGeneration,
                          LlavaNextForConditionalGeneration, LlavaNextProcessor, LlavaProcessor)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next import modeling_llava_next
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

MODELS = {"llava": LlavaForConditionalGeneration, "llava_next": LlavaNextForConditionalGeneration}
PROCESSORS = {"CLIPImageProcessor": CLIPImageProcessorPil, "LlavaImageProcessor": LlavaImageProcessorPil,
              "LlavaNextImageProcessor": LlavaNextImageProcessorPil}
MODEL_INPUTS = ("input_ids", "attention_mask", "pixel_values", "image_sizes")


class Reference:
    """A checkpoint as the reference sees it, in float32 on the CPU unless told otherwise."""

    def __init__(self, directory, dtype=torch.float32):
        directory = pathlib.Path(directory)
        config = json.loads((directory / "config.json").read_text())
        self.tiles = config["model_type"] == "llava_next"
        self.model, info = MODELS[config["model_type"]].from_pretrained(
            directory, dtype=dtype, output_loading_info=True)
        if info["missing_keys"] or info.get("mismatched_keys"):
            raise AssertionError(f"the reference left weights at random: {info}")
        self.model.eval()
        self.processor = load_processor(directory)
        self.tokenizer = self.processor.tokenizer
        self.whole_processors = load_whole_processors(directory) if self.tiles else {}

    def inputs(self, text, pictures, aspect="auto"):
        """`aspect` crop or pad: pictures as wholes, where the checkpoint would make tiles."""
        if aspect != "auto":
            return self.whole_inputs(text, pictures, self.whole_processors[aspect])
        batch = self.processor(images=list(pictures) or None, text=text, return_tensors="pt")
        return {key: value for key, value in batch.items() if key in MODEL_INPUTS}

    def whole_inputs(self, text, pictures, image_processor):
        """What a model with tiles takes where each picture has none. Its own processor never makes that."""
        vision = self.model.config.vision_config
        tokens = (vision.image_size // vision.patch_size) ** 2 + 1  # the newline
        inputs = dict(self.tokenizer(text.replace("<image>", "<image>" * tokens), return_tensors="pt"))
        pixels = image_processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        sizes = torch.tensor([[picture.height, picture.width] for picture in pictures])
        return {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"],
                "pixel_values": pixels[:, None], "image_sizes": sizes}

    @torch.no_grad()
    def trace(self, inputs):
        """The stages' tensors by their names in a trace file."""
        kept = {"prompt_ids": inputs["input_ids"][0]}
        model = self.model.model

        def keep_projector(_module, args, output):
            kept["vision_features"], kept["image_embeds"] = args[0].detach(), output.detach()

        def keep_decoder(_module, _args, kwargs):
            kept["inputs_embeds"] = kwargs["inputs_embeds"][0].detach()

        counted = tiles_of_wholes(inputs) if self.tiles else contextlib.nullcontext()
        hooks = [model.multi_modal_projector.register_forward_hook(keep_projector),
                 model.language_model.register_forward_pre_hook(keep_decoder, with_kwargs=True)]
        try:
            self.forget_positions()
            with counted:
                kept["first_logits"] = self.model(**inputs).logits[0, -1]
        finally:
            for hook in hooks:
                hook.remove()
        if "image_embeds" in kept:
            kept["pixel_values"] = self.images(inputs)
            kept["image_embeds"] = kept["image_embeds"].reshape(-1, kept["image_embeds"].shape[-1])
            if self.tiles:  # the projector's output is not put together yet
                kept["image_embeds"] = kept["inputs_embeds"][kept["prompt_ids"] == self.model.config.image_token_id]
        return kept

    def images(self, inputs):
        """The tower's inputs without what fills up pictures of fewer tiles."""
        pixels = inputs["pixel_values"]
        if not self.tiles or pixels.shape[1] == 1:
            return pixels.flatten(0, 1) if self.tiles else pixels
        config = self.model.config
        counts = [modeling_llava_next.image_size_to_num_patches(
            size, config.image_grid_pinpoints, config.vision_config.image_size) for size in inputs["image_sizes"]]
        return torch.cat([own[:count] for own, count in zip(pixels, counts)])

    @torch.no_grad()
    def generate(self, inputs, **options):
        """Generated ids (EOS included) with log-probabilities and the narrowest decision on the way."""
        self.forget_positions()
        arguments = dict(options)
        if "stop_strings" in arguments:
            arguments["tokenizer"] = self.tokenizer
        with tiles_of_wholes(inputs) if self.tiles else contextlib.nullcontext(), whole_pictures(self.model):
            return generated(self.model, inputs, inputs["input_ids"].shape[1], arguments)

    @torch.no_grad()
    def scores_along(self, inputs, ids):
        """[len(ids), vocab]: the scores from which each of `ids` would have been chosen, one after the other."""
        longer = dict(inputs)
        longer["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([ids])], dim=1)
        longer["attention_mask"] = torch.ones_like(longer["input_ids"])
        self.forget_positions()
        with tiles_of_wholes(inputs) if self.tiles else contextlib.nullcontext():
            return self.model(**longer).logits[0, -1 - len(ids):-1].float()

    @property
    def picture_id(self):
        """The id that would count as a place for a picture in scores_along()."""
        return self.model.config.image_token_id

    def forget_positions(self):
        """Dynamic rotary scaling keeps what the request before grew to; a request must not depend on another."""
        rotary = self.model.model.language_model.rotary_emb
        rotary.inv_freq = rotary.original_inv_freq.clone()
        rotary.max_seq_len_cached = rotary.original_max_seq_len


def generated(model, inputs, prompt_tokens, arguments):
    """What generate() makes of `inputs`, whose first ids are the prompt's."""
    if getattr(model.config.get_text_config(), "sliding_window", None) == 1:
        arguments["use_cache"] = False  # with a window of 1 its cache forgets nothing: -0 cuts nothing off
    beams = arguments.get("num_beams", model.generation_config.num_beams or 1)
    with watched_beams(model) if beams > 1 else contextlib.nullcontext() as gaps:
        output = model.generate(**inputs, **arguments, output_scores=True, output_logits=True,
                                return_dict_in_generate=True)
    ids = output.sequences[0, prompt_tokens:].tolist()
    result = types.SimpleNamespace(ids=ids, gap=None, gaps=[], score=None)
    if beams > 1:
        result.gap = min(gaps, default=float("inf"))
        result.score = output.sequences_scores[0].item()
        rows = output.beam_indices[0].tolist()
    else:
        result.gaps = [relative_gap(scores[0]) for scores in output.scores]
        rows = [0] * len(ids)
    result.raw = [torch.log_softmax(output.logits[i][rows[i]].float(), -1) for i in range(len(ids))]
    result.logprobs = [raw[token].item() for raw, token in zip(result.raw, ids)]
    result.scores = output.scores
    return result


def load_tokenizer(directory):
    """AutoTokenizer makes of a tokenizer.model alone, beside a LLaVA config, a tokenizer without the leading space that
    the model was trained with; the class that the checkpoint names does not."""
    kind = AutoTokenizer if (directory / "tokenizer.json").exists() else LlamaTokenizer
    return kind.from_pretrained(directory)


def load_processor(directory):
    processor_file = directory / "processor_config.json"
    settings = json.loads(processor_file.read_text()) if processor_file.exists() else {}
    pictures_file = directory / "preprocessor_config.json"
    pictures = settings.get("image_processor") or json.loads(pictures_file.read_text())
    image_processor = PROCESSORS[pictures["image_processor_type"]].from_pretrained(directory)
    return (LlavaNextProcessor if settings["processor_class"] == "LlavaNextProcessor" else LlavaProcessor)(
        image_processor=image_processor, tokenizer=load_tokenizer(directory),
        patch_size=settings["patch_size"], vision_feature_select_strategy=settings["vision_feature_select_strategy"],
        num_additional_image_tokens=settings["num_additional_image_tokens"])


def load_whole_processors(directory):
    """LLaVA-1.5's image processors with the settings of this checkpoint."""
    settings = LlavaNextImageProcessorPil.from_pretrained(directory).to_dict()
    for key in ("image_processor_type", "image_grid_pinpoints", "do_pad", "processor_class"):
        settings.pop(key, None)
    return {"crop": CLIPImageProcessorPil(**settings), "pad": LlavaImageProcessorPil(**settings, do_pad=True)}


@contextlib.contextmanager
def tiles_of_wholes(inputs):
    """Makes the model count one image for each picture where the inputs hold no tiles."""
    if "pixel_values" not in inputs or inputs["pixel_values"].shape[1] > 1:
        yield
        return
    original = modeling_llava_next.image_size_to_num_patches
    modeling_llava_next.image_size_to_num_patches = lambda **_: 1
    try:
        yield
    finally:
        modeling_llava_next.image_size_to_num_patches = original


def relative_gap(scores):
    """How far the best of `scores` is before the next, relative to the largest of them."""
    finite = scores[torch.isfinite(scores)].float()
    if finite.numel() < 2:
        return float("inf")
    best = finite.topk(2).values
    return ((best[0] - best[1]) / finite.abs().max().clamp_min(1e-30)).item()


def boundary_gap(scores, count):
    """How far rank `count` is before the rank behind it, relative to its size; infinite where one is ruled out."""
    ranked = scores.flatten().float().sort(descending=True).values
    if count >= ranked.numel() or ranked[count] < -1e8:
        return float("inf")
    return ((ranked[count - 1] - ranked[count]) / ranked[count - 1].abs().clamp_min(1e-30)).item()


@contextlib.contextmanager
def whole_pictures(model):
    """Gives each beam all pictures in their order. The reference repeats picture by picture, so that with several of
    them every beam sees the wrong ones."""
    original = model._expand_inputs_for_generation

    def expand(expand_size=1, **kwargs):
        pictures = {key: kwargs.pop(key) for key in ("pixel_values", "image_sizes") if kwargs.get(key) is not None}
        input_ids, kwargs = original(expand_size=expand_size, **kwargs)
        for key, value in pictures.items():
            kwargs[key] = value.repeat(expand_size, *[1] * (value.dim() - 1))
        return input_ids, kwargs

    model._expand_inputs_for_generation = expand
    try:
        yield
    finally:
        del model._expand_inputs_for_generation


@contextlib.contextmanager
def watched_beams(model):
    """Notes how narrowly beam search decides, at every boundary that can change its outcome: which candidates are
    kept, which may finish, which go on, which finished ones stay, whether a better one is still possible."""
    gaps = []
    names = ("_get_top_k_continuations", "_get_running_beams_for_next_iteration", "_update_finished_beams",
             "_check_early_stop_heuristic")
    original = {name: getattr(model, name) for name in names}

    def top_k(**kwargs):
        scores = kwargs["accumulated_log_probs"]
        gaps.extend(boundary_gap(scores, count) for count in (kwargs["num_beams"], kwargs["beams_to_keep"]))
        return original["_get_top_k_continuations"](**kwargs)

    def running(**kwargs):
        scores = kwargs["topk_log_probs"] + kwargs["next_token_hits_stopping_criteria"].float() * -1e9
        gaps.append(boundary_gap(scores, kwargs["num_beams"]))
        return original["_get_running_beams_for_next_iteration"](**kwargs)

    def finished(**kwargs):
        before = kwargs["beam_scores"]
        counted = kwargs["next_token_hits_stopping_criteria"] & kwargs["top_num_beam_mask"][None]
        length = kwargs["cur_len"] + 1 - kwargs["decoder_prompt_len"]
        new = kwargs["topk_log_probs"] / length ** kwargs["length_penalty"] + (~counted) * -1e9
        merged = torch.cat((before, new), dim=1)
        gaps.extend(boundary_gap(merged, count) for count in (1, kwargs["num_beams"]))
        return original["_update_finished_beams"](**kwargs)

    def early_stop(**kwargs):
        if kwargs["is_sent_finished"].all():
            length = kwargs["cur_len"] - kwargs["decoder_prompt_len"]
            if kwargs["early_stopping"] == "never" and kwargs["length_penalty"] > 0.0:
                length = kwargs["max_length"] - kwargs["decoder_prompt_len"]
            best = kwargs["running_beam_scores"][0, 0] / length ** kwargs["length_penalty"]
            worst = kwargs["beam_scores"].min()
            if best > -1e8 and worst > -1e8:
                gaps.append(((best - worst).abs() / worst.abs().clamp_min(1e-30)).item())
        return original["_check_early_stop_heuristic"](**kwargs)

    for name, replacement in zip(names, (top_k, running, finished, early_stop)):
        setattr(model, name, replacement)
    try:
        yield gaps
    finally:
        for name in names:
            delattr(model, name)
