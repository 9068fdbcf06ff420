# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes the demo model from nothing: `python train.py`.

Draws the pictures (data.py), trains the tokenizer, trains tower, projector and decoder together
and writes the checkpoint to `model/` beside this file. State is saved every few minutes; the same
command goes on from there, and gives the same weights as a run that was never stopped.

What makes it learn fast: descriptions in reading order, each place named first; each picture goes
through the tower once and carries a description and several questions, masked from each other;
heads on the tower's patches (dropped at the end) that say which shape stands there and at which
place, without which nothing would make a patch's features tell where it is; Muon for the matrices,
AdamW for the rest; a learning rate that is constant first and then falls to zero.
"""

import argparse
import concurrent.futures
import functools
import itertools
import os
import pathlib
import random
import time

import numpy as np
import torch
import torch.nn.functional as F

import checkpoint
import data
import scenes

HERE = pathlib.Path(__file__).parent
# Share of each kind among the questions by phase; what is learned late comes more often.
KIND_WEIGHTS = {
    "words": dict(background=1, count=1, exists=4, where=3, colour=3, shape=3, place=3),
    "all": dict(background=0.5, count=2, exists=4, where=4, colour=5, shape=2, place=3),
    "again": dict(background=0.5, count=2, exists=2, where=8, colour=3, shape=2, place=4),
}
WARM_UP = 50  # steps until the full learning rate
ANSWER_WEIGHT = 2.0  # of an answer's token, a description's counts 1
# Learning rates of Muon and AdamW, and the part of the steps before they fall to zero: first the
# tower alone, then projector and decoder on a tower that stays as it is, then all together, twice.
PHASES = {
    "tower": (0.015, 2e-3, 0.35),
    "words": (0.015, 2e-3, 0.5),
    "all": (0.008, 1.2e-3, 0.0),
    "again": (0.006, 9e-4, 0.0),
}
KEPT, KEPT_SHARE = "all", 1 / 3  # the phase whose end is blended into the result, and how much of it
TOWER_SHARE = 0.3  # of the learning rate in the last phases: the tower has little left to learn


class Batches:
    """Batches by step number, made ahead on another thread; a step's batch never changes."""

    def __init__(self, directory, rows, size, text_length, tokenizer, before):
        chunks = range(-(-rows // data.CHUNK))
        paths = [pathlib.Path(directory) / f"pictures-{c:03}.npy" for c in chunks]
        self._pictures = [np.load(p, mmap_mode="r") for p in paths]
        self._labels = np.concatenate(
            [np.load(str(p).replace("pictures", "labels")) for p in paths]
        )
        self._rows, self._size, self._text = rows, size, text_length
        self._tokens = tokenizer
        self._before = before  # phase to batches of `size` that went by before it
        self.prefix = [checkpoint.BOS, *tokenizer.encode("USER: ")]
        self.prefix += [checkpoint.IMAGE] * data.GRID**2
        self._patterns = data.all_patterns()
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._next = {}

    def get(self, phase, step):
        """The tensors of a step: pictures and patches, in the second phase the texts too."""
        weights = KIND_WEIGHTS.get(phase)
        make = functools.partial(self._make, weights=weights) if weights else self._look
        step += self._before[phase]
        future = self._next.pop((phase, step), None) or self._pool.submit(make, step)
        for ahead in (step + 1, step + 2):
            if (phase, ahead) not in self._next:
                self._next[phase, ahead] = self._pool.submit(make, ahead)
        return future.result()

    def _look(self, step):
        """Pictures and patches for the tower alone."""
        rng = random.Random(f"look {step}")
        pictures, patches = [], []
        for row in self._order(step, 2 * self._size):
            picture, targets, _ = self._seen(row, rng)
            pictures.append(picture)
            patches.append(targets)
        return torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.stack(patches))

    def _seen(self, row, rng):
        """A row's picture, patch targets and truth, left and right exchanged in half of them."""
        truth = data.truth_of(row, self._patterns)
        picture = self._pictures[row // data.CHUNK][row % data.CHUNK]
        targets = patch_targets(row, self._labels[row])
        if truth.pattern or rng.random() < 0.5:
            return picture, targets, truth
        targets = targets.reshape(-1, data.GRID, data.GRID)[:, :, ::-1].reshape(targets.shape)
        placed = targets[PLACE] > 0
        targets[PLACE, placed] = MIRRORED_PLACE[targets[PLACE, placed]]
        return picture[:, ::-1], targets, scenes.mirrored(truth)

    def _order(self, step, size):
        """Rows of a step: each pass over the data has an order of its own."""
        start = step * size
        result = []
        for i in range(start, start + size):
            number, place = divmod(i, self._rows)
            key = ("order", number)
            if getattr(self, "_order_key", None) != key:
                self._order_key = key
                self._permutation = np.random.default_rng(number).permutation(self._rows)
            result.append(int(self._permutation[place]))
        return result

    def _make(self, step, weights):
        rng = random.Random(f"step {step}")
        n, length, start = self._size, self._text, len(self.prefix)
        pictures = np.empty((n, data.SIDE, data.SIDE, 3), np.uint8)
        patches = np.zeros((n, len(HEAD_WORDS), data.GRID**2), np.int64)
        ids = np.full((n, length), checkpoint.PAD, np.int64)
        segment = np.full((n, length), -1, np.int64)
        position = np.zeros((n, length), np.int64)
        weight = np.zeros((n, length), np.float32)
        for k, row in enumerate(self._order(step, n)):
            pictures[k], patches[k], truth = self._seen(row, rng)
            at = 0
            for number, (text, answer) in enumerate(self._texts(truth, weights, rng)):
                asked = self._tokens.encode(f"\n{text} ASSISTANT:")
                answered = [*self._tokens.encode(answer), checkpoint.EOS]
                end = at + len(asked) + len(answered)
                if end > length:
                    continue
                ids[k, at:end] = asked + answered
                segment[k, at:end] = number
                position[k, at:end] = np.arange(start, start + end - at)
                first = at + len(asked) - 1
                weight[k, first : end - 1] = ANSWER_WEIGHT if number else 1.0
                at = end
        return [torch.from_numpy(x) for x in (pictures, patches, ids, segment, position, weight)]

    def _texts(self, truth, weights, rng):
        """The description, then questions in random order."""
        yield scenes.DESCRIBE, scenes.describe(truth)
        if truth.pattern:
            return
        kinds = rng.choices(tuple(weights), tuple(weights.values()), k=9)
        about = alike(truth.shapes) if rng.random() < 0.7 else ()
        for pair in dict.fromkeys(scenes.ask(kind, truth, rng, about) for kind in kinds):
            if pair:
                yield pair


def alike(shapes):
    """Shapes at places that begin like another's, "top" and "top left": the second word of where
    they are is what a model mixes up the longest."""
    starts = [s.place.split()[0] for s in shapes]
    return [s for s, start in zip(shapes, starts) if starts.count(start) > 1]


# What the heads say of a patch: these words' numbers from 1, 0 for the background.
HEAD_WORDS = (scenes.SHAPES, tuple(scenes.COLOURS), tuple(scenes.SIZES), scenes.PLACES)
PLACE = HEAD_WORDS.index(scenes.PLACES)
# A place's number in the picture with left and right exchanged.
MIRRORED_PLACE = np.array([0, 3, 2, 1, 6, 5, 4, 9, 8, 7])


def patch_targets(row, labels):
    """For each patch the numbers of its shape's words, [heads, patches]."""
    result = np.full((len(HEAD_WORDS), len(labels)), -100, np.int64)
    if data.is_pattern(row):
        return result
    scene = scenes.Scene(row)
    table = np.zeros((len(HEAD_WORDS), 1 + len(scene.shapes)), np.int64)
    for k, s in enumerate(scene.shapes, 1):
        said = (s.shape, s.colour, s.size, scenes.place_of(s.x, s.y))
        table[:, k] = [words.index(x) + 1 for words, x in zip(HEAD_WORDS, said)]
    return table[:, labels]


class Student(torch.nn.Module):
    """The model with the heads that only training needs; forward gives the two losses."""

    def __init__(self, model, prefix):
        super().__init__()
        self.model = model
        width = model.config.vision_config.hidden_size
        heads = (torch.nn.Linear(width, len(words) + 1) for words in HEAD_WORDS)
        self.heads = torch.nn.ModuleList(heads)
        self.register_buffer("prefix", torch.tensor(prefix), persistent=False)
        self.register_buffer("mean", torch.tensor(checkpoint.MEAN) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(checkpoint.STD) * 255, persistent=False)

    def look(self, pictures, patches):
        """The tower's features and the loss of its heads.

        A shape covers few patches: those and the background are averaged apart.
        """
        pixels = ((pictures.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        tower = self.model.model.vision_tower
        seen = tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]
        aside = 0.0
        for k, head in enumerate(self.heads):
            target = patches[:, k].flatten()
            losses = F.cross_entropy(head(seen).flatten(0, 1), target, reduction="none")
            for chosen, share in ((target > 0, 1.0), (target == 0, 0.3)):
                aside = aside + share * (losses * chosen).sum() / chosen.sum().clamp(min=1)
        return seen, aside

    def answer(self, pictures, patches, ids, segment, position, weight):
        """Loss of the texts, the tower left as it is."""
        with torch.no_grad():
            seen, _ = self.look(pictures, patches)
        return self.tell(seen, ids, segment, position, weight), torch.zeros(())

    def forward(self, pictures, patches, ids, segment, position, weight):
        seen, aside = self.look(pictures, patches)
        return self.tell(seen, ids, segment, position, weight), aside

    def tell(self, seen, ids, segment, position, weight):
        """Loss of the texts, given the tower's features."""
        inner = self.model.model
        images = inner.multi_modal_projector(seen)
        embed = inner.language_model.get_input_embeddings()
        n, p = len(seen), len(self.prefix)
        words = embed(self.prefix[: p - images.shape[1]]).expand(n, -1, -1)
        inputs = torch.cat([words, images, embed(ids)], 1)
        positions = torch.cat([torch.arange(p).expand(n, -1), position], 1)
        hidden = inner.language_model(
            inputs_embeds=inputs,
            attention_mask=attention_mask(segment, p),
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state[:, p:]
        chosen = weight.flatten() > 0
        target = torch.cat([ids[:, 1:], ids[:, :1]], 1).flatten()[chosen]
        logits = self.model.lm_head(hidden.flatten(0, 1)[chosen])
        share = weight.flatten()[chosen]
        losses = F.cross_entropy(logits, target, reduction="none")
        return (losses * share).sum() / share.sum()


def attention_mask(segment, p):
    """Additive mask: a text sees the prefix and its own past, never another text."""
    n, length = segment.shape
    total = p + length
    causal = torch.ones(total, total, dtype=torch.bool).tril()
    group = torch.cat([torch.full((n, p), -2, dtype=segment.dtype), segment], 1)
    same = (group[:, :, None] == group[:, None, :]) | (group[:, None, :] == -2)
    mask = torch.zeros(n, 1, total, total)
    return mask.masked_fill(~(same & causal)[:, None], torch.finfo(torch.float32).min)


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are made orthogonal by five Newton-Schulz steps."""

    def __init__(self, matrices, lr, momentum=0.95, decay=0.01):
        super().__init__(matrices, dict(lr=lr, momentum=momentum, decay=decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                shapes.setdefault(tuple(update.shape), []).append((p, update))
            for (rows, columns), pairs in shapes.items():
                updates = orthogonal(torch.stack([u for _, u in pairs]))
                scale = max(1, rows / columns) ** 0.5
                for (p, _), update in zip(pairs, updates):
                    p.mul_(1 - group["lr"] * group["decay"])
                    p.add_(update.view_as(p), alpha=-group["lr"] * scale)


def orthogonal(x):
    """Nearest orthogonal matrices of [count, rows, columns], roughly."""
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        b = torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, b, x, beta=3.4445)
    return x.mT if tall else x


def optimizers(student, phase):
    """Muon for the matrices inside the networks and the patch embedding, AdamW for the rest."""
    groups = {}
    for name, p in student.named_parameters():
        seeing = "vision_tower" in name or "heads" in name
        if phase == "tower" and not seeing or phase == "words" and seeing:
            continue
        inside = p.ndim == 2 and ("layers." in name or "projector" in name)
        matrix = inside or "patch_embedding" in name
        share = TOWER_SHARE if phase in ("all", "again") and seeing else 1.0
        groups.setdefault((matrix, share), []).append(p)
    muon, adam, _ = PHASES[phase]

    def parts(matrix):
        return [dict(params=p, share=s) for (m, s), p in groups.items() if m == matrix]

    return [
        Muon(parts(True), lr=muon),
        torch.optim.AdamW(parts(False), lr=adam, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate(step, steps, flat):
    """Factor of the learning rate: warm-up, constant, then straight down to zero."""
    warm = min(1.0, (step + 1) / WARM_UP)
    return warm * min(1.0, (steps - step) / max(1.0, steps - flat * steps))


class State:
    """What is saved: weights, optimizers, phase, step, CPU time so far, and the weights at the end of
    KEPT."""

    def __init__(self, path, student):
        self._path, self._student = pathlib.Path(path), student
        self.phase, self.step, self.cpu_s, self.parts = "tower", 0, 0.0, None
        self.kept = None
        if self._path.exists():
            saved = torch.load(self._path)
            student.load_state_dict(saved["student"])
            self.phase, self.step = saved["phase"], saved["step"]
            self.cpu_s, self.parts = saved["cpu_s"], saved["parts"]
            self.kept = saved.get("kept")
            print(f"going on in phase {self.phase} from step {self.step}")
        self._before = self.cpu_s - sum(os.times()[:2])
        self._saved_at = time.monotonic()

    def save(self, phase, step, parts, every_s):
        self.cpu_s = self._before + sum(os.times()[:2])
        if time.monotonic() - self._saved_at < every_s:
            return
        self._saved_at = time.monotonic()
        part = self._path.with_suffix(".part")
        states = [p.state_dict() for p in parts]
        values = dict(phase=phase, step=step, cpu_s=self.cpu_s, parts=states, kept=self.kept)
        torch.save(dict(student=self._student.state_dict(), **values), part)
        part.rename(self._path)


def run_phase(phase, steps, student, batches, state, options):
    """One phase from the step that the state is at to its end."""
    parts = optimizers(student, phase)
    if state.parts:
        for part, saved in zip(parts, state.parts):
            part.load_state_dict(saved)
    state.parts = None
    *peak, flat = PHASES[phase]
    run = dict(tower=student.look, words=student.answer).get(phase, student.forward)
    run = torch.compile(run) if options.compile else run
    first, start, shown, mean = state.step, time.monotonic(), time.monotonic(), None
    for step in range(first, steps):
        for part, top in zip(parts, peak):
            for group in part.param_groups:
                group["lr"] = top * group["share"] * rate(step, steps, flat)
        loss, aside = run(*batches.get(phase, step))
        if phase == "tower":
            loss = torch.zeros(())
        fading = 1.0 if phase == "tower" else 0.05 + 0.25 * max(0.0, 1 - step / (0.6 * steps))
        (loss + fading * aside).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        for part in parts:
            part.step()
        student.zero_grad(set_to_none=True)
        now = torch.tensor([loss.item(), aside.item()])
        mean = now if mean is None else mean.lerp(now, 0.05)
        last = step + 1 == steps
        if time.monotonic() - shown > 10 or last:
            shown = time.monotonic()
            each = (shown - start) / (step + 1 - first)
            print(
                f"{phase} {step + 1}/{steps}  loss {mean[0]:.4f}  patches {mean[1]:.3f}"
                f"  {each:.2f} s/step  {each * (steps - step - 1) / 60:.0f} min left"
                f"  {state.cpu_s / 60:.1f} CPU min",
                flush=True,
            )
        state.save(phase, step + 1, parts, 0 if last else options.save_every)


def train(options, tokenizer):
    torch.manual_seed(0)
    steps = dict(zip(PHASES, options.steps))
    # The tower alone takes two batches a step; no picture comes twice before all were seen.
    batches_of = [count * (2 if phase == "tower" else 1) for phase, count in steps.items()]
    before = dict(zip(PHASES, itertools.accumulate(batches_of, initial=0)))
    batches = Batches(
        options.data, options.rows, options.batch, options.text_length, tokenizer, before
    )
    student = Student(checkpoint.new_model(), batches.prefix)
    state = State(options.state, student)
    names = tuple(PHASES)
    for phase in names[names.index(state.phase) :]:
        run_phase(phase, steps[phase], student, batches, state, options)
        if phase == KEPT:
            state.kept = {name: value.clone() for name, value in student.state_dict().items()}
        state.step = 0
    blend(student, state.kept)
    return student.model


def blend(student, kept):
    """Goes back to the weights of KEPT by a third: the two know different things, and their mean
    mixes up fewer shapes than either."""
    with torch.no_grad():
        for name, value in student.state_dict().items():
            value.lerp_(kept[name], KEPT_SHARE)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    work = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    work = work / "gst-vlm" / "demo-model"
    add("--data", default=str(work / "data"), help="directory of the pictures (3.8 GB)")
    add("--state", default=str(work / "state.pt"), help="file of the training's state")
    add("--out", default=str(HERE / "model"), help="directory of the checkpoint")
    add("--rows", type=int, default=100_000, help="pictures to draw")
    phases = ", ".join(PHASES)
    default = [800, 1000, 600, 600]
    add("--steps", type=int, nargs=len(PHASES), default=default, help=f"steps of {phases}")
    add("--batch", type=int, default=32, help="pictures a step, twice as many for the tower alone")
    add("--text-length", type=int, default=112, help="tokens of text for each picture")
    add("--save-every", type=float, default=180, help="seconds between two saved states")
    add("--compile", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args()


def main():
    options = arguments()
    cpu = data.make(options.data, options.rows)
    if cpu:
        print(f"pictures made in {cpu / 60:.1f} CPU min")
    path = pathlib.Path(options.data) / "tokenizer.model"
    if not path.exists():
        checkpoint.train_tokenizer(path)
    import sentencepiece

    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(path))
    model = train(options, tokenizer)
    checkpoint.write(options.out, model, path.read_bytes())
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
