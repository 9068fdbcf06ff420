# SPDX-License-Identifier: LGPL-2.1-or-later
"""LLaVA's conversation templates against the rules that they follow, written down here a second time: by what a turn
begins and ends with, not by how the turns are joined."""

import os
import random
import re

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
TAGGED = ("A chat between a curious user and an artificial intelligence assistant. The assistant is able to understand the "
          "visual content that the user provides, and assist the user with a variety of tasks using natural language.The "
          "visual content will be provided with the following format: <Image>visual content</Image>.")
EXCHANGE = ("What are the key differences between renewable and non-renewable energy sources?", """\
Renewable energy sources are those that can be replenished naturally in a relatively short amount of time, such as \
solar, wind, hydro, geothermal, and biomass. Non-renewable energy sources, on the other hand, are finite and will \
eventually be depleted, such as coal, oil, and natural gas. Here are some key differences between renewable and \
non-renewable energy sources:
1. Availability: Renewable energy sources are virtually inexhaustible, while non-renewable energy sources are finite \
and will eventually run out.
2. Environmental impact: Renewable energy sources have a much lower environmental impact than non-renewable sources, \
which can lead to air and water pollution, greenhouse gas emissions, and other negative effects.
3. Cost: Renewable energy sources can be more expensive to initially set up, but they typically have lower operational \
costs than non-renewable sources.
4. Reliability: Renewable energy sources are often more reliable and can be used in more remote locations than \
non-renewable sources.
5. Flexibility: Renewable energy sources are often more flexible and can be adapted to different situations and needs, \
while non-renewable sources are more rigid and inflexible.
6. Sustainability: Renewable energy sources are more sustainable over the long term, while non-renewable sources are \
not, and their depletion can lead to economic and social instability.
""")
MPT = "A conversation between a user and an LLM-based AI assistant. The assistant gives helpful and honest answers."
DIRECT = "Answer the questions."

# Name: system text, what stands around it, around a user's text, around an assistant's text, and at the end.
NAMED = ("{} ", "USER: {} ", "ASSISTANT: {}</s>", "ASSISTANT:")
SHARPS = ("{}###", "Human: {}###", "Assistant: {}###", "Assistant:")
CHATML = ("{}<|im_end|>", "<|im_start|>user\n{}<|im_end|>", "<|im_start|>assistant\n{}<|im_end|>",
          "<|im_start|>assistant\n")
LLAMA_3 = ("<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{}<|eot_id|>",
           "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>",
           "<|start_header_id|>assistant<|end_header_id|>\n\n{}<|eot_id|>",
           "<|start_header_id|>assistant<|end_header_id|>\n\n")
FORMS = {
    "vicuna_v1": (CHAT.format("user"), *NAMED),
    "v1": (CHAT.format("user"), *NAMED),
    "llava_v1": (CHAT.format("human"), *NAMED),
    "llava_v0": (CHAT.format("human"), *SHARPS),
    "v0": (CHAT.format("human"), *SHARPS),
    "default": (CHAT.format("human"), *SHARPS),
    "v0_mmtag": (TAGGED, *SHARPS),
    "v1_mmtag": (TAGGED, *NAMED),
    "llava_llama_3": (VISION, *LLAMA_3),
    "chatml_direct": ("<|im_start|>system\n" + DIRECT, *CHATML),
    "mistral_direct": ("<|im_start|>system\n" + DIRECT, *CHATML),
    "mpt": ("<|im_start|>system\n" + MPT, *CHATML),
    "plain": ("", "{}", "{}\n", "{}\n", ""),
    "v0_plain": ("", "{}", "{}\n", "{}\n", ""),
    "llava_llama_2": (VISION, None, "<s>[INST] {} [/INST]", " {} </s>", ""),
    "llama_2": (LLAMA, None, "<s>[INST] {} [/INST]", " {} </s>", ""),
    "mistral_instruct": ("", None, "[INST] {} [/INST]", " {} </s>", ""),
}
# What an empty turn of the user, of the assistant, leaves.
OPEN = {NAMED[1]: ("USER:", "ASSISTANT:"), SHARPS[1]: ("Human:", "Assistant:"),
        CHATML[1]: ("<|im_start|>user\n", "<|im_start|>assistant\n")}
TEXTS = ["What is this?", "one\ntwo", " spaces ", "\u3000wide\n", "naïve 日本", "</s>", "<s>", "ASSISTANT:", "[INST]", "###", "{}", "s", "a"]


def expected(name, turns, pictures, system):
    own, around_system, around_user, around_assistant, ending = FORMS[name]
    system = own if system is None else system
    texts = [text for _, text in turns]
    if name.endswith("mmtag"):
        texts = ["<Image><image></Image>" * pictures, "Received.", texts[0].strip(), *texts[1:]] if pictures else texts
    else:
        texts[0] = "<image>\n" * pictures + texts[0]
    if name in ("v0", "default"):
        texts = [*EXCHANGE, *texts]
    if name == "llava_llama_3":
        texts = [text.strip() for text in texts]
    result = ""
    if around_system is not None:
        result = around_system.replace("{}", system)
    elif system:
        texts[0] = f"<<SYS>>\n{system}\n<</SYS>>\n\n{texts[0]}"
    for index, text in enumerate(texts):
        if not text and name != "llava_llama_3":  # still to be spoken: only who does
            result += OPEN.get(around_user, ("", ""))[index % 2]
            continue
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
        for index in range(1, len(turns) - 1):
            if rng.random() < 0.2:
                turns[index] = (turns[index][0], "")
        pictures = rng.randrange(0, 4)
        system = rng.choice([None, None, "Be brief.", "", "s<"])
        text = tool.must("format", format=name, system=system, turns=turns, pictures=pictures, template=None)["text"]
        assert text == expected(name, turns, pictures, system)
    tool.close()


def test_every_form_is_here():
    tool = Tool()
    error = tool.ask("format", format="none", system=None, turns=[("user", "x")], pictures=0, template=None)["error"]
    listed = re.search("use one of (.*)", error if isinstance(error, str) else error["message"])[1].split(", ")
    assert sorted(listed) == sorted([*FORMS, "auto", "hf", "raw"])
    tool.close()
