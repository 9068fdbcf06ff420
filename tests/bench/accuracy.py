#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measures what fewer bits cost: how far each format's answers lie from those of transformers in float32, run live.

    accuracy.py [--json FILE] [--demo VLM_DESCRIBE]

Texts are told to the engine token by token: each position of a text is a request whose prompt ends there, and the trace
of that request has the logits of the next token. There are two kinds of models:

  random          small checkpoints of random shapes, as the parity tests make them, in the Hugging Face layout. Their texts
                  are drawn by the reference from its own distribution, so that there is a perplexity to lose. Random
                  weights say how far rounding moves numbers, and little of what it does to sense.
  demo            the demo model, with scenes it was not trained on. The text of each is its right description.

For each format:

  perplexity      of those texts; the reference's own beside it
  drift           difference of the logits from the reference's in units of the spread (standard deviation) of the
                  reference's, of the first token of each text and of all: root mean square, and the largest of all
  same choice     positions where the likeliest token is the reference's
  divergence      Kullback-Leibler, of the next token, mean over the positions, in nats

With --demo also the demo model's share of right answers, as tests/demo/demo_model_test.py counts them, beside those of
transformers. In float32 all must be the reference's within rounding, or the status is 1: then something is measured
wrongly. int8, int4, w8a8 and w4a8 run with the type that `auto` takes, which the table names.
"""

import argparse
import contextlib
import datetime
import json
import math
import os
import pathlib
import random
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
for folder in (HERE, HERE.parent / "parity", HERE.parent / "demo", ROOT / "examples" / "demo-model"):
    sys.path.insert(0, str(folder))

import torch  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

import cases  # noqa: E402
import demo_model_test as demo  # noqa: E402
import make_checkpoint  # noqa: E402
import peers  # noqa: E402
import scenes  # noqa: E402
import specs  # noqa: E402
from engine import Engine, noise_picture, raw_request  # noqa: E402
from reference import Reference  # noqa: E402

# How the engine opens a model, and what vlm-describe is told.
FORMATS = {"float32": {"dtype": "float32"}, "bfloat16": {"dtype": "bfloat16"},
           "int8": {"dtype": "auto", "quantization": "int8"}, "int4": {"dtype": "auto", "quantization": "int4"}, "w8a8": {"dtype": "auto", "quantization": "w8a8"},
           "w4a8": {"dtype": "auto", "quantization": "w4a8"}}
FIRST_SCENE = demo.FIRST_SEED + 900_000_000  # others than those of the counted answers
TOGETHER = 16  # requests in one call
SAME = 1e-3  # float32: drift and the ratio of perplexities must be closer than that


# ---- Texts

class Passage:
    """A picture, a prompt, and the text behind it, known at every position: what stands before, and the token there."""

    def __init__(self, picture, prompt, text, end):
        self.picture, self.prompt, self.text, self.end = picture, prompt, text, end
        self.positions = []  # (the prompt up to there, the token's id)
        self.rows = None  # the reference's logits, [positions, vocabulary]

    def look_up(self, reference):
        """Positions that the tokenizer does not see otherwise where the text ends there, and what the reference makes
        of them."""
        ids = ids_of(reference, self.prompt + self.text, self.picture)
        begin = len(ids_of(reference, self.prompt, self.picture))
        targets = ids[begin:] + self.end
        written, rows = self.prompt, []
        for number, target in enumerate(targets):
            inputs = reference.inputs(written, [self.picture])
            if inputs["input_ids"][0].tolist() == ids[:begin + number]:
                self.positions.append((written, target))
                rows.append(reference.trace(inputs)["first_logits"].float())
            written += spelled(reference, target)
        self.rows = torch.stack(rows)


def ids_of(reference, text, picture):
    return reference.inputs(text, [picture])["input_ids"][0].tolist()


def spelled(reference, token):
    """What the token adds to a text."""
    return reference.tokenizer.convert_ids_to_tokens(token).replace("\u2581", " ")


def drawn_text(reference, prompt, picture, tokens, generator):
    """Tokens that the reference draws by chance, one after the other, without those that would be read otherwise in a
    text: special ones, single bytes, parts that the tokenizer puts together."""
    text = ""
    for _ in range(tokens):
        before = ids_of(reference, prompt + text, picture)
        chances = torch.softmax(reference.trace(reference.inputs(prompt + text, [picture]))["first_logits"].float(), -1)
        for token in torch.multinomial(chances, min(64, len(chances)), generator=generator).tolist():
            if token >= len(reference.tokenizer) or token in reference.tokenizer.all_special_ids:
                continue
            piece = spelled(reference, token)
            if not piece.startswith("<") and ids_of(reference, prompt + text + piece, picture) == before + [token]:
                text += piece
                break
        else:
            break
    return text


def random_passages(reference, spec, count, tokens):
    rng = random.Random(f"passages {spec.seed}")
    generator = torch.Generator().manual_seed(spec.seed)
    words = [word for line in make_checkpoint.made_up_text(spec.seed, 40) for word in line.split()]
    for number in range(count):
        picture = (cases.random_tiled_picture(rng, spec) if spec.grids else noise_picture(number, (160, 120))).convert("RGB")
        prompt = "USER: <image>\n" + " ".join(rng.choice(words) for _ in range(6)) + " ASSISTANT:"
        text = drawn_text(reference, prompt, picture, tokens, generator)
        if text:
            yield Passage(picture, prompt, text, [])


def demo_passages(reference, count):
    prompt = reference.processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": scenes.DESCRIBE}]}],
        chat_template=(demo_model() / "chat_template.jinja").read_text(), add_generation_prompt=True)
    for number in range(count):
        scene = scenes.Scene(FIRST_SCENE + number, aspect=demo.WIDTH / demo.HEIGHT)
        if scene.truth() is not None:
            picture = Image.fromarray(scenes.render(scene, 0, demo.WIDTH, demo.HEIGHT))
            yield Passage(picture, prompt, " " + scenes.describe(scene.truth()), [reference.tokenizer.eos_token_id])


def demo_model():
    return ROOT / "examples" / "demo-model" / "model"


# ---- The engine

def engine_rows(engine, passage, directory):
    """The engine's logits at each position of the passage."""
    frame = engine.frame(passage.picture)
    rows = []
    for start in range(0, len(passage.positions), TOGETHER):
        texts = [text for text, _ in passage.positions[start:start + TOGETHER]]
        files = [os.path.join(directory, f"{number}.safetensors") for number in range(len(texts))]
        answers = engine.run([{**raw_request(text, [frame], max_new_tokens=1), "trace": file}
                              for text, file in zip(texts, files)])
        for answer, file in zip(answers, files):
            if not answer["ok"]:
                raise SystemExit(f"accuracy.py: {answer['error']}")
            rows.append(load_file(file)["first_logits"].float())
            os.unlink(file)
    engine.forget_frames()
    return torch.stack(rows)


# ---- Figures

def rows_of(ours, theirs, targets):
    """Of one text, the engine's logits and the reference's, [positions, vocabulary]: a number for each position."""
    ours, theirs = ours.double(), theirs.double()
    drift = (ours - theirs) / theirs.std(-1, keepdim=True)
    ids = torch.tensor(targets)[:, None]
    ours, theirs = torch.log_softmax(ours, -1), torch.log_softmax(theirs, -1)
    return {"logprob": ours.gather(1, ids)[:, 0], "reference": theirs.gather(1, ids)[:, 0],
            "square": drift.square().mean(-1), "largest": drift.abs().amax(-1),
            "same": (ours.argmax(-1) == theirs.argmax(-1)).double(),
            "divergence": (theirs.exp() * (theirs - ours)).sum(-1)}


def figures(texts):
    """Of [(the engine's logits, the reference's, the tokens)]."""
    found = [rows_of(*text) for text in texts]
    every = {name: torch.cat([rows[name] for rows in found]) for name in found[0]}
    first = {name: torch.stack([rows[name][0] for rows in found]) for name in found[0]}
    return {"positions": len(every["same"]), "texts": len(texts), "perplexity": math.exp(-every["logprob"].mean()),
            "reference_perplexity": math.exp(-every["reference"].mean()),
            "first_drift_rms": first["square"].mean().sqrt().item(), "first_drift_max": first["largest"].max().item(),
            "drift_rms": every["square"].mean().sqrt().item(), "drift_max": every["largest"].max().item(),
            "same_choice": every["same"].mean().item(), "divergence": every["divergence"].mean().item()}


def measure_texts(engine, models, formats, directory):
    """Format → figures and the type used, over all texts of `models` (directory → passages)."""
    found = {}
    for name in formats:
        texts, used = [], set()
        for model, passages in models.items():
            opened = engine.open(model, **FORMATS[name])
            if not opened["ok"]:
                raise SystemExit(f"accuracy.py: {opened['error']}")
            used.add(opened["info"]["dtype"])
            for passage in passages:
                rows = engine_rows(engine, passage, directory)
                texts.append((rows, passage.rows, [token for _, token in passage.positions]))
        found[name] = {"dtype": ", ".join(sorted(used)), **figures(texts)}
        print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    return found


def with_reference(directory, passages):
    """What the reference makes of the passages that `passages` makes of it."""
    reference = Reference(directory)
    made = list(passages(reference))
    for passage in made:
        passage.look_up(reference)
    return made


def random_models(options, directory):
    models = {}
    for seed in range(options.seed, options.seed + options.models):
        spec = specs.random_spec(seed, *specs.random_family(seed))
        path = directory / f"model-{seed}"
        make_checkpoint.write_checkpoint(path, spec)
        made = with_reference(path, lambda reference: random_passages(reference, spec, options.texts, options.tokens))
        if made:
            models[path] = made
    return models


# ---- The demo model's answers

def counted(table):
    """Of a table of demo_model_test.py: right and asked, of descriptions, questions and patterns."""
    rows = table.rows
    questions = [row for name, row in rows.items() if name.startswith("question")]
    return {"descriptions": rows["description, everything right"], "questions": [sum(column) for column in zip(*questions)],
            "patterns": rows["test patterns"]}


def measure_answers(options, directory):
    material = demo.make_material(directory, options.descriptions, options.questions)
    sources = {"transformers": demo.Reference(None)}
    for name in options.formats:
        more = [word for key, value in FORMATS[name].items() for word in (f"--{key}", value)]
        sources[name] = demo.Command(options.demo, None, [*more, "--device", "cpu"])
    found = {}
    for name, source in sources.items():
        print(f"-- {name}", file=sys.stderr, flush=True)
        with contextlib.redirect_stdout(sys.stderr):
            found[name] = counted(demo.measure(source, material))
    return found


# ---- The report

def share(right, asked):
    return f"{100 * right / asked:.1f} % of {asked}" if asked else "–"


def text_table(found):
    lines = ["| format | type | perplexity | the reference's | ratio | first logits: drift, rms | largest | all: drift, rms | "
             "largest | same choice | divergence |", "|---|---|---|---|---|---|---|---|---|---|---|"]
    for name, one in found.items():
        lines.append(
            f"| {name} | {one['dtype']} | {one['perplexity']:.6g} | {one['reference_perplexity']:.6g} | "
            f"{one['perplexity'] / one['reference_perplexity']:.4f} | {one['first_drift_rms']:.1e} | "
            f"{one['first_drift_max']:.1e} | {one['drift_rms']:.1e} | {one['drift_max']:.1e} | "
            f"{100 * one['same_choice']:.1f} % | {one['divergence']:.1e} |")
    return lines


def tables(report):
    host = report["machine"]
    lines = [f"{host['cpu']} ({', '.join(host['flags'])}), {host['cores']} cores; torch {report['torch']}, transformers "
             f"{report['transformers']}; {report['date']}", ""]
    for kind in ("random", "demo"):
        if kind in report:
            of = next(iter(report[kind].values()))
            lines += [f"{kind}: {of['positions']} positions of {of['texts']} texts", "", *text_table(report[kind]), ""]
    if "answers" in report:
        lines += ["| demo model | descriptions right | questions right | test patterns right |", "|---|---|---|---|"]
        lines += [f"| {name} | " + " | ".join(share(*one[what]) for what in ("descriptions", "questions", "patterns")) + " |"
                  for name, one in report["answers"].items()]
    return "\n".join(lines)


def strays(report):
    """What in float32 is not the reference's."""
    for kind in ("random", "demo"):
        one = report.get(kind, {}).get("float32")
        if one and (one["drift_max"] > SAME or abs(math.log(one["perplexity"] / one["reference_perplexity"])) > SAME):
            yield f"{kind}: {one}"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--models", type=int, default=20, help="random checkpoints")
    parser.add_argument("--seed", type=int, default=0, help="of the first of them")
    parser.add_argument("--texts", type=int, default=4, help="of each random checkpoint")
    parser.add_argument("--tokens", type=int, default=24, help="of each such text")
    parser.add_argument("--scenes", type=int, default=60, help="whose descriptions the demo model is told; 0: none")
    parser.add_argument("--demo", metavar="VLM_DESCRIBE", help="the command, to count the demo model's answers")
    parser.add_argument("--descriptions", type=int, default=150, help="scenes described")
    parser.add_argument("--questions", type=int, default=72, help="questions of each kind")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the figures to this file")
    return parser.parse_args()


def main():
    import transformers
    options = arguments()
    report = {"date": datetime.date.today().isoformat(), "machine": peers.machine(torch.get_num_threads()),
              "torch": torch.__version__, "transformers": transformers.__version__}
    engine = Engine()
    with tempfile.TemporaryDirectory() as name, contextlib.closing(engine):
        directory = pathlib.Path(name)
        if options.models:
            report["random"] = measure_texts(engine, random_models(options, directory), options.formats, name)
        if options.scenes:
            passages = with_reference(demo_model(), lambda reference: demo_passages(reference, options.scenes))
            report["demo"] = measure_texts(engine, {demo_model(): passages}, options.formats, name)
        if options.demo:
            report["answers"] = measure_answers(options, directory)
    print(tables(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if wrong := list(strays(report)):
        raise SystemExit("accuracy.py: float32 is not the reference's: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
