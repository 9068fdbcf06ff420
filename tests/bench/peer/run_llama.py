# SPDX-License-Identifier: LGPL-2.1-or-later
"""llama.cpp with its libmtmd on the files that llama_files.py wrote. Runs in the Python that environments.py makes.

The model is a directory with FORMAT.gguf and mmproj.gguf. A format that ends in -noflash runs without flash attention,
of both text and picture: which of the two ways is the faster one depends on processor and format. libmtmd of this version puts the class token behind the
patches (llama.cpp issue 25814), so it sees another picture than the reference does; what it computes is as much.

With --quantize-from FILE nothing is measured: FILE is
written in the given format to FORMAT.gguf in that directory.
"""

import ctypes
import pathlib
import sys
import time

import common
import llama_cpp
from llama_cpp import mtmd_cpp as mtmd

CONTEXT = 1024
EVERY_LAYER = 999
FILE_TYPES = {"q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}


def quantize(source, format, target, threads):
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = FILE_TYPES[format]
    settings.nthread = threads
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(settings)) != 0:
        raise SystemExit(f"llama.cpp cannot write {source} as {format}")


class Model:
    def __init__(self, directory, format, threads, device):
        directory = pathlib.Path(directory)
        format, _, without = format.partition("-")
        flash = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED if without else llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        llama_cpp.llama_backend_init()
        settings = llama_cpp.llama_model_default_params()
        if device != "cpu":
            settings.n_gpu_layers = EVERY_LAYER
            settings.main_gpu = int(device.partition(":")[2] or 0)
        self.model = llama_cpp.llama_model_load_from_file(str(directory / f"{format}.gguf").encode(), settings)
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = CONTEXT
        settings.n_threads = settings.n_threads_batch = threads
        settings.flash_attn_type = flash
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        settings = mtmd.mtmd_context_params_default()
        settings.use_gpu = device != "cpu"
        settings.n_threads = threads
        settings.flash_attn_type = flash
        settings.media_marker = b"<image>"
        settings.warmup = False
        self.media = mtmd.mtmd_init_from_file(str(directory / "mmproj.gguf").encode(), self.model, settings)
        if not (self.model and self.context and self.media):
            raise SystemExit("llama.cpp cannot load the model")
        self.sampler = llama_cpp.llama_sampler_init_greedy()

    def describe(self, picture, count):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        start = time.perf_counter()
        chunks = self.tokenize(picture)
        past, vision_s = ctypes.c_int(0), 0.0
        number = mtmd.mtmd_input_chunks_size(chunks)
        for i in range(number):
            chunk = mtmd.mtmd_input_chunks_get(chunks, i)
            before = time.perf_counter()
            if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
                failed = mtmd.mtmd_helper_eval_chunk_single(
                    self.media, self.context, chunk, past, 0, CONTEXT, i == number - 1, ctypes.byref(past))
            else:
                failed = mtmd.mtmd_encode_chunk(self.media, chunk)
                vision_s += time.perf_counter() - before
                failed = failed or mtmd.mtmd_helper_decode_image_chunk(
                    self.media, self.context, chunk, mtmd.mtmd_get_output_embd(self.media), past, 0, CONTEXT,
                    ctypes.byref(past), mtmd.mtmd_helper_post_decode_callback(), None)
            if failed:
                raise SystemExit(f"llama.cpp fails at part {i} of the prompt")
        mtmd.mtmd_input_chunks_free(chunks)
        prompt_tokens = past.value
        tokens = [llama_cpp.llama_sampler_sample(self.sampler, self.context, -1)]
        first = time.perf_counter()
        while len(tokens) < count:
            token = (llama_cpp.llama_token * 1)(tokens[-1])
            if llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(token, 1)) != 0:
                raise SystemExit(f"llama.cpp fails at token {len(tokens)}")
            tokens.append(llama_cpp.llama_sampler_sample(self.sampler, self.context, -1))
        end = time.perf_counter()
        return {"vision_s": vision_s, "first_s": first - start, "decode_s": end - first,
                "prompt_tokens": prompt_tokens, "token_ids": tokens}

    def tokenize(self, picture):
        height, width = picture.shape[:2]
        pixels = picture.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmap = mtmd.mtmd_bitmap_init(width, height, pixels)
        prompt = common.PROMPT.encode()
        text = mtmd.mtmd_input_text(text=prompt, text_len=len(prompt), add_special=True, parse_special=True)
        chunks = mtmd.mtmd_input_chunks_init()
        if mtmd.mtmd_tokenize(self.media, chunks, ctypes.byref(text), (ctypes.c_void_p * 1)(bitmap), 1) != 0:
            raise SystemExit("llama.cpp cannot split the prompt")
        mtmd.mtmd_bitmap_free(bitmap)
        return chunks


def main():
    if "--quantize-from" in sys.argv:
        at = sys.argv.index("--quantize-from")
        source = sys.argv[at + 1]
        del sys.argv[at:at + 2]
        options = common.arguments(__doc__)
        quantize(source, options.format, pathlib.Path(options.model) / f"{options.format}.gguf", options.threads)
        return
    options = common.arguments(__doc__)
    common.measure(options, llama_cpp.__version__,
                   lambda: Model(options.model, options.format, options.threads, options.device),
                   lambda model, picture: model.describe(picture, options.tokens))


if __name__ == "__main__":
    main()
