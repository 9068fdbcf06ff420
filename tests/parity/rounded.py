# SPDX-License-Identifier: LGPL-2.1-or-later
"""Weights in 8 and 4 bits, and products in 8 bits, written again from their descriptions (engine/kernels/packed_matrix.h,
product.h), for a reference that is rounded as the engine is."""

import numpy as np
import torch

GROUP = 32  # inputs that share a scale of int4
STEP = 128  # of x that share one where AVX-512 multiplies in 8 bits; with AVX2 it is a group


def rounded_int8(weights):
    scale = (np.abs(weights).max(1, keepdims=True) / np.float32(127)).astype(np.float32)
    scale[scale == 0] = 1
    return np.clip(np.round(weights * (np.float32(1) / scale)), -127, 127).astype(np.float32) * scale


def rounded_int4(weights):
    outputs, inputs = weights.shape
    groups = -(-inputs // GROUP)
    padded = np.zeros((outputs, groups * GROUP), np.float32)
    padded[:, :inputs] = weights
    padded = padded.reshape(outputs, groups, GROUP)
    top = np.take_along_axis(padded, np.abs(padded).argmax(2)[..., None], 2)
    scale = torch.from_numpy(top / np.float32(-8)).to(torch.bfloat16).float().numpy()
    inverse = np.where(scale == 0, np.float32(0), np.float32(1) / np.where(scale == 0, 1, scale))
    levels = np.clip(np.round(padded * inverse), -8, 7)
    return (levels * scale).reshape(outputs, -1)[:, :inputs]


ROUNDED = {"int8": rounded_int8, "int4": rounded_int4}


def parameter(values, like=None):
    # Not in place: the embedding may be the same tensor.
    return torch.nn.Parameter(values if like is None else values.to(like.dtype), requires_grad=False)


def decoder_matrices(model):
    """(name, module) of a text model, or of a LLaVA's."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "vision" not in name and "projector" not in name:
            yield name, module


def picture_matrices(model):
    """(name, module) of a LLaVA's tower and projector."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and ("vision" in name or "projector" in name):
            yield name, module


def round_weights(model, quantization):
    """Rounds the decoder's matrices; the output's table always to 8 bits."""
    for name, module in decoder_matrices(model):
        kind = "int8" if name.endswith("lm_head") else quantization
        module.weight = parameter(torch.from_numpy(ROUNDED[kind](module.weight.detach().float().numpy())))


def copy_rounded(source, target):
    """The decoder's matrices of `source`, in the target's type."""
    for (_, rounded), (_, module) in zip(decoder_matrices(source), decoder_matrices(target)):
        module.weight = parameter(rounded.weight, module.weight)


def round_rows(x, step=STEP):
    """x in 8 bits, each `step` values with a scale that meets the largest."""
    inputs = x.shape[-1]
    steps = torch.nn.functional.pad(x.float(), (0, -inputs % step)).unflatten(-1, (-1, step))
    scale = steps.abs().amax(-1, keepdim=True) / 127
    rounded = torch.where(scale > 0, (steps / scale.clamp_min(1e-36)).round() * scale, 0.0)
    return rounded.flatten(-2)[..., :inputs].to(x.dtype)


def round_pictures(model):
    """Rounds the tower's and projector's weights."""
    for _, module in picture_matrices(model):
        module.weight = parameter(torch.from_numpy(rounded_int8(module.weight.detach().float().numpy())), module.weight)


def multiply_groups_in_bytes(model):
    """Lets all products with int4's weights round x, group by group: with AVX2."""
    for name, module in decoder_matrices(model):
        if not name.endswith("lm_head"):
            module.register_forward_pre_hook(lambda _module, args: (round_rows(args[0], GROUP),))


def multiply_in_bytes(model, quantization, few_rows):
    """Lets the products of more than `few_rows` rows round x: with AVX-512."""
    def round_input(_module, args):
        x = args[0]
        return (round_rows(x),) if x.numel() // x.shape[-1] > few_rows else args

    for _, module in picture_matrices(model):
        module.register_forward_pre_hook(round_input)
    for name, module in decoder_matrices(model):
        if quantization == "int4" and not name.endswith("lm_head"):
            # Its groups' scales become one of the row there, at 8 bits of the largest.
            module.weight = parameter(torch.from_numpy(rounded_int8(module.weight.detach().float().numpy())), module.weight)
        module.register_forward_pre_hook(round_input)
