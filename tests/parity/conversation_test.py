# SPDX-License-Identifier: LGPL-2.1-or-later
"""LLaVA's conversation templates against the rules that they follow, written down here a second time: by what a turn
begins and ends with, not by how the turns are joined."""

import os
import random

import pytest

from text_tool import Tool

SEED = int(os.environ.get("VLM_TEXT_SEED", "0"))

CHAT = ("A chat between a curious {0} and an artificial intelligence assistant. The assistant gives helpful, detailed, "
        "and polite answers to the {0}'s questions.")
VISION = ("You are a helpful language and vision assistant. You are able to understand the visual content that the user "
          "provides, and assist the user with a variety of tasks using natural language.")
LLAMA = ("You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe.  "
         "Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. "
         "Please ensure that your responses are socially unbiased and positive in nature.\n\nIf a question does not make "
         "any sense, or is not factually coherent, explain why instead of answering something not correct. If you don't "
         "know the answer to a question, please don't share false information.")
MPT = "A conversation between a user and an LLM-based AI assistant. The assistant gives helpful and honest answers."
DIRECT = "Answer the questions."

# Name: system text, what stands around it, around a user's text, around an assistant's text, and at the end.
NAMED = ("{} ", "USER: {} ", "ASSISTANT: {}</s>", "ASSISTANT:")
SHARPS = ("{}###", "Human: {}###", "Assistant: {}###", "Assistant:")
CHATML = ("{}<|im_end|>", "<|im_start|>user\n{}<|im_end|>", "<|im_start|>assistant\n{}<|im_end|>",
          "<|im_start|>assistant\n")
FORMS = {
    "vicuna_v1": (CHAT.format("user"), *NAMED),
    "v1": (CHAT.format("user"), *NAMED),
    "llava_v1": (CHAT.format("human"), *NAMED),
    "llava_v0": (CHAT.format("human"), *SHARPS),
    "chatml_direct": ("<|im_start|>system\n" + DIRECT, *CHATML),
    "mistral_direct": ("<|im_start|>system\n" + DIRECT, *CHATML),
    "mpt": ("<|im_start|>system\n" + MPT, *CHATML),
    "plain": ("", "{}", "{}\n", "{}\n", ""),
    "v0_plain": ("", "{}", "{}\n", "{}\n", ""),
    "llava_llama_2": (VISION, None, "<s>[INST] {} [/INST]", " {} </s>", ""),
    "llama_2": (LLAMA, None, "<s>[INST] {} [/INST]", " {} </s>", ""),
    "mistral_instruct": ("", None, "[INST] {} [/INST]", " {} </s>", ""),
}
TEXTS = ["What is this?", "one\ntwo", " spaces ", "naïve 日本", "</s>", "<s>", "ASSISTANT:", "[INST]", "###", "{}", "s", "a"]


def expected(name, turns, pictures, system):
    own, around_system, around_user, around_assistant, ending = FORMS[name]
    system = own if system is None else system
    texts = [text for _, text in turns]
    texts[0] = "<image>\n" * pictures + texts[0]
    result = ""
    if around_system is not None:
        result = around_system.replace("{}", system)
    elif system:
        texts[0] = f"<<SYS>>\n{system}\n<</SYS>>\n\n{texts[0]}"
    for index, text in enumerate(texts):
        result += (around_assistant if index % 2 else around_user).replace("{}", text)
    result += ending
    # BOS comes from the tokenizer; with it go all characters that it is written with.
    return result.lstrip("<s>") if around_user.startswith("<s>") else result


@pytest.mark.parametrize("name", FORMS)
def test_form(name):
    tool = Tool()
    rng = random.Random(f"{name} {SEED}")
    for _ in range(300):
        turns = [("user" if index % 2 == 0 else "assistant", " ".join(rng.sample(TEXTS, rng.randrange(1, 4))))
                 for index in range(rng.choice([1, 1, 3, 5]))]
        pictures = rng.randrange(0, 4)
        system = rng.choice([None, None, "Be brief.", "", "s<"])
        text = tool.must("format", format=name, system=system, turns=turns, pictures=pictures, template=None)["text"]
        assert text == expected(name, turns, pictures, system)
    tool.close()
