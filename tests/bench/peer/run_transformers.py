# SPDX-License-Identifier: LGPL-2.1-or-later
"""transformers on one checkpoint. --format bfloat16, float32 or bfloat16-compiled; runs in the tests' Python."""

import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "parity"))
import common  # noqa: E402


class Clock:
    """A streamer of generate(): notes when each token comes. The prompt comes first."""

    def __init__(self):
        self.times = []
        self.tokens = []

    def put(self, tokens):
        if self.times or tokens.numel() == 1:
            self.times.append(time.perf_counter())
            self.tokens.append(int(tokens.reshape(-1)[0]))

    def end(self):
        pass


def main():
    options = common.arguments(__doc__)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    import torch
    import transformers
    from PIL import Image
    from reference import Reference
    torch.set_num_threads(options.threads)
    dtype, _, compiled = options.format.partition("-")
    dtype = getattr(torch, dtype)
    device = torch.device(options.device)
    vision = {}

    def now():
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    # generate() compiles the step of one token itself, once the cache has one size; on a CPU it wants to be told.
    compile_config = transformers.CompileConfig(mode="default")
    compile_config._compile_all_devices = True

    def load():
        reference = Reference(options.model, dtype)
        model = reference.model.to(device).model
        model.vision_tower.register_forward_pre_hook(lambda *_: vision.update(start=now()))
        model.multi_modal_projector.register_forward_hook(lambda *_: vision.update(end=now()))
        return reference

    @torch.inference_mode()
    def describe(reference, picture):
        clock = Clock()
        start = time.perf_counter()
        inputs = reference.inputs(common.PROMPT, [Image.fromarray(picture)])
        inputs = {name: value.to(device) for name, value in inputs.items()}
        inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
        settings = {"cache_implementation": "static", "compile_config": compile_config} if compiled else {}
        reference.model.generate(**inputs, do_sample=False, max_new_tokens=options.tokens,
                                 min_new_tokens=options.tokens, streamer=clock, **settings)
        assert len(clock.times) == options.tokens, len(clock.times)
        return {"vision_s": vision["end"] - vision["start"], "first_s": clock.times[0] - start,
                "decode_s": clock.times[-1] - clock.times[0], "prompt_tokens": inputs["input_ids"].shape[1],
                "token_ids": clock.tokens}

    common.measure(options, f"{transformers.__version__}, torch {torch.__version__}", load, describe)


if __name__ == "__main__":
    main()
