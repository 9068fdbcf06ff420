# SPDX-License-Identifier: LGPL-2.1-or-later
"""OpenVINO GenAI on a checkpoint that optimum-cli exported. Runs in the Python that environments.py makes for it.

A format that ends in -sdpa runs with the attention of the exported model instead of the paged one. The rest are the
settings that OpenVINO itself takes for the least latency: bfloat16 where the processor multiplies it, else float32, and
a cache of 8 bits.
"""

import time

import common
import openvino
import openvino_genai


def main():
    options = common.arguments(__doc__)

    def load():
        backend = "SDPA" if options.format.endswith("-sdpa") else "PA"
        return openvino_genai.VLMPipeline(options.model, "CPU", INFERENCE_NUM_THREADS=options.threads,
                                          PERFORMANCE_HINT="LATENCY", ATTENTION_BACKEND=backend)

    def describe(pipeline, picture):
        # The template of the checkpoint makes the same text; here no layer between does.
        settings = openvino_genai.GenerationConfig(
            max_new_tokens=options.tokens, min_new_tokens=options.tokens, ignore_eos=True, do_sample=False,
            apply_chat_template=False)
        start = time.perf_counter()
        answer = pipeline.generate(common.PROMPT, images=[openvino.Tensor(picture)], generation_config=settings)
        whole_s = time.perf_counter() - start
        metrics = answer.perf_metrics
        made = metrics.get_num_generated_tokens()
        assert made == options.tokens, f"{made} tokens instead of {options.tokens}"
        decode_s = metrics.get_tpot().mean / 1000 * (made - 1)
        return {"vision_s": metrics.get_vision_encoding_duration().mean / 1000, "first_s": whole_s - decode_s,
                "decode_s": decode_s, "prompt_tokens": metrics.get_num_input_tokens()}

    common.measure(options, openvino_genai.__version__, load, describe)


if __name__ == "__main__":
    main()
