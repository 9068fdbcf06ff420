# SPDX-License-Identifier: LGPL-2.1-or-later
"""The demo model's files: tokenizer, configuration, and the checkpoint in the Hugging Face layout.

The tokenizer is sentencepiece BPE with byte fallback, trained on the words of scenes.py so that
every word is one piece. All files are the ones a LLaVA-1.5 checkpoint has.
"""

import io
import json
import pathlib
import random

import sentencepiece
import torch
from safetensors.torch import save_file
from tokenizers import normalizers
from transformers import LlamaTokenizer, LlavaConfig, LlavaForConditionalGeneration

import data
import scenes

PIECES = 640
IMAGE, PAD = PIECES, PIECES + 1
VOCABULARY = 656  # a multiple of 16; the rows after PAD have no text
BOS, EOS = 1, 2
MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}"
    "{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' ' }}{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' ' }}{% endgeneration %}{% endfor %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def corpus():
    """Lines with every word of the world, and every printable character."""
    rng = random.Random(0)
    lines = ["USER: Describe the scene. ASSISTANT:"] * 500
    for seed in range(3000):
        truth = scenes.Scene(seed).truth()
        lines.append(scenes.describe(truth))
        for kind in scenes.QUESTION_KINDS:
            asked = scenes.ask(kind, truth, rng)
            if asked:
                lines.append(f"{asked[0]} ASSISTANT: {asked[1]}")
    for name in scenes.PATTERNS:
        lines += [scenes.describe(scenes.Truth(pattern=name))] * 100
    return lines + [" ".join(map(chr, range(33, 127)))] * 3


def train_tokenizer(path):
    """Writes tokenizer.model."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_writer=model,
        model_type="bpe",
        vocab_size=PIECES,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        character_coverage=1.0,
        split_digits=True,
        num_threads=1,
        minloglevel=2,
    )
    pathlib.Path(path).write_bytes(model.getvalue())


def config():
    """Tower, projector and decoder, 3.6 million parameters."""
    result = LlavaConfig(
        vision_config=dict(
            model_type="clip_vision_model",
            hidden_size=192,
            intermediate_size=640,
            num_hidden_layers=5,
            num_attention_heads=6,
            image_size=data.SIDE,
            patch_size=data.PATCH,
            projection_dim=192,
            hidden_act="quick_gelu",
        ),
        text_config=dict(
            model_type="llama",
            vocab_size=VOCABULARY,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=3,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            rms_norm_eps=1e-5,
            bos_token_id=BOS,
            eos_token_id=EOS,
            pad_token_id=PAD,
            tie_word_embeddings=False,
        ),
        image_token_index=IMAGE,
        image_seq_length=data.GRID**2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
        pad_token_id=PAD,
    )
    result.architectures = ["LlavaForConditionalGeneration"]
    return result


def _token(text):
    flags = dict(lstrip=False, normalized=False, rstrip=False, single_word=False, special=True)
    return dict(content=text, **flags)


def _tokenizer_config():
    names = {0: "<unk>", BOS: "<s>", EOS: "</s>", IMAGE: "<image>", PAD: "<pad>"}
    return dict(
        add_bos_token=True,
        add_eos_token=False,
        added_tokens_decoder={str(i): _token(text) for i, text in names.items()},
        bos_token="<s>",
        clean_up_tokenization_spaces=False,
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
        image_token="<image>",
        legacy=True,
        model_max_length=1024,
        pad_token="<pad>",
        padding_side="left",
        processor_class="LlavaProcessor",
        tokenizer_class="LlamaTokenizer",
        unk_token="<unk>",
    )


def _preprocessor_config():
    side = dict(height=data.SIDE, width=data.SIDE)
    return dict(
        image_processor_type="CLIPImageProcessor",
        do_convert_rgb=True,
        do_resize=True,
        size=side,
        resample=3,
        do_center_crop=False,
        crop_size=side,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=MEAN,
        image_std=STD,
        processor_class="LlavaProcessor",
    )


def _write(path, value):
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def write(directory, model, tokenizer):
    """Writes the whole checkpoint: the model's weights in float16, the tokenizer file's bytes."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    model_config = model.config.to_dict()
    for part in (model_config, model_config["text_config"], model_config["vision_config"]):
        part.pop("torch_dtype", None)
        part["dtype"] = "float16"
    _write(directory / "config.json", model_config)
    _write(
        directory / "generation_config.json",
        dict(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD),
    )
    _write(directory / "preprocessor_config.json", _preprocessor_config())
    _write(
        directory / "processor_config.json",
        dict(
            image_token="<image>",
            num_additional_image_tokens=1,
            patch_size=data.PATCH,
            processor_class="LlavaProcessor",
            vision_feature_select_strategy="default",
        ),
    )
    _write(directory / "tokenizer_config.json", _tokenizer_config())
    _write(directory / "added_tokens.json", {"<image>": IMAGE, "<pad>": PAD})
    _write(
        directory / "special_tokens_map.json",
        dict(
            bos_token="<s>",
            eos_token="</s>",
            pad_token="<pad>",
            unk_token="<unk>",
            image_token="<image>",
        ),
    )
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    (directory / "tokenizer.model").write_bytes(tokenizer)
    write_tokenizer_json(directory)
    tensors = {
        classic_name(name): value.detach().to(torch.float16).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def write_tokenizer_json(directory):
    """Adds tokenizer.json, without which transformers 5 leaves out the space before a segment."""
    backend = LlamaTokenizer.from_pretrained(directory).backend_tokenizer
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.pre_tokenizer = None
    backend.save(str(directory / "tokenizer.json"))


def classic_name(name):
    """The name a tensor has in the published LLaVA-1.5 checkpoints."""
    name = name.removeprefix("model.")
    if name.startswith("vision_tower.") and ".vision_model." not in name:
        name = name.replace("vision_tower.", "vision_tower.vision_model.", 1)
    if name.startswith("lm_head."):
        return "language_model." + name
    if name.startswith("language_model."):
        return name.replace("language_model.", "language_model.model.", 1)
    return name


def new_model():
    """A model with fresh weights: matrices at 1/sqrt(inputs), each block's output at zero."""
    model = LlavaForConditionalGeneration(config())
    ends = ("o_proj.weight", "down_proj.weight", "out_proj.weight", "fc2.weight")
    for name, value in model.named_parameters():
        if name.endswith(ends):
            torch.nn.init.zeros_(value)
        elif "embed" in name or "lm_head" in name:
            wide = value.numel() // value.shape[0] if "patch_embedding" in name else None
            torch.nn.init.normal_(value, std=wide**-0.5 if wide else 0.05)
        elif value.ndim == 2:
            torch.nn.init.normal_(value, std=value.shape[1] ** -0.5)
        elif name.endswith("bias"):
            torch.nn.init.zeros_(value)
    return model
