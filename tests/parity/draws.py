# SPDX-License-Identifier: LGPL-2.1-or-later
"""The reference with the engine's draws, so that sampled texts can be compared, too.

Written again from the description in engine/kernels/random.h: a draw depends on seed, sequence and the token's number.
"""

import contextlib

import torch

MASK = 0xFFFFFFFF


def philox(counter, key):
    """Philox4x32-10: four 32-bit words."""
    words, (low, high) = list(counter), key
    for _ in range(10):
        first, second = 0xD2511F53 * words[0], 0xCD9E8D57 * words[2]
        words = [second >> 32 ^ words[1] ^ low, second & MASK, first >> 32 ^ words[3] ^ high, first & MASK]
        low, high = low + 0x9E3779B9 & MASK, high + 0xBB67AE85 & MASK
    return words


def uniform_draw(seed, sequence, token):
    """In (0, 1): where in the cumulative distribution the token lies."""
    words = philox((0, token, sequence & MASK, sequence >> 32), (seed & MASK, seed >> 32))
    return (((words[0] << 32 | words[1]) >> 11) + 0.5) * 2.0 ** -53


@contextlib.contextmanager
def draws_of(seed, sequence=0):
    """Within, torch.multinomial gives the tokens that the engine draws; the list has how far each draw was from the next
    token, as a probability."""
    original, distances = torch.multinomial, []

    def multinomial(probabilities, num_samples, **_):
        assert num_samples == 1 and len(probabilities) == 1
        cumulative = probabilities[0].double().cumsum(0)
        point = uniform_draw(seed, sequence, len(distances)) * cumulative[-1]
        token = int(torch.searchsorted(cumulative, point, right=True))
        begin = cumulative[token - 1] if token else torch.zeros(())
        distances.append(min(point - begin, cumulative[token] - point).item())
        return torch.tensor([[token]])

    torch.multinomial = multinomial
    try:
        yield distances
    finally:
        torch.multinomial = original


def cut_distance(probabilities, top_p):
    """How far top_p is from cutting off another token, as a probability."""
    kept = probabilities.sort(descending=True).values.cumsum(0)
    return (kept - top_p).abs().min().item()


def draw_gaps(raw, distances, temperature, top_k=0, top_p=1.0, **_):
    """Of each draw: what the scores would have to change by, relative to the largest, to make it another one.

    Scores that are off by ε of the largest, R, move the odds of any set of tokens by e^(2εR/T) and its probability by
    εR/2T at most; two scores change places at 2ε. Both are given as 2ε, as the gap of a greedy choice is."""
    gaps = []
    for scores, distance in zip(raw, distances):
        span = (scores.max() - scores.min()).item()
        if top_p < 1:
            distance = min(distance, cut_distance(torch.softmax(scores.double() / temperature, -1), top_p))
        gap = 4 * distance * temperature / span
        if 0 < top_k < len(scores):
            best = scores.topk(top_k + 1).values
            gap = min(gap, ((best[-2] - best[-1]) / span).item())
        gaps.append(gap)
    return gaps
