# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes the Python environments of the peers and the files they read, where they are not there yet.

Everything is pinned. A directory is made under a name of its own and renamed when complete, so that a broken try leaves
nothing that passes for it.
"""

import contextlib
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
LLAMA = "0.3.36"
LLAMA_PACKAGES = ["cmake==4.3.4", "ninja==1.13.2", "numpy==2.4.6", "typing_extensions==4.16.0", "diskcache==5.6.3",
                  "Jinja2==3.1.6", "MarkupSafe==3.0.4"]
OPENVINO = "2026.4.1"
OPENVINO_PACKAGES = [
    "openvino==2026.4.1", "openvino-genai==2026.4.1.0", "openvino-tokenizers==2026.4.1.0", "optimum==2.3.0",
    "optimum-intel==2.2.0", "nncf==3.4.0", "transformers==5.5.4", "tokenizers==0.22.2", "huggingface-hub==1.21.0",
    "torch==2.11.0", "torchvision==0.26.0", "numpy==2.4.6", "pillow==12.0.0", "protobuf==7.36.2", "safetensors==0.8.0",
    "sentencepiece==0.2.3"]


class Failure(Exception):
    """What a peer cannot be measured for: one line."""


def cache():
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "gst-vlm"


def run(command, log, timeout=3600, answer=False, **settings):
    """Runs a command; what it says is added to the file `log`. With `answer`, its standard output is returned too."""
    with open(log, "a+") as file:
        file.write(f"$ {' '.join(str(word) for word in command)}\n")
        file.flush()
        try:
            result = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE if answer else file,
                                    stderr=file, text=True, timeout=timeout, **settings)
        except subprocess.TimeoutExpired:
            raise Failure(f"took longer than {timeout} s") from None
        except OSError as error:
            raise Failure(str(error)) from None
        file.write(result.stdout or "")
        if result.returncode != 0:
            file.seek(0)
            lines = [line.strip() for line in file.read().splitlines() if line.strip()]
            raise Failure(f"status {result.returncode}: {lines[-1][:300]}")
    return result.stdout


@contextlib.contextmanager
def made(directory):
    """A directory to write into, which becomes `directory` if all goes well."""
    new = directory.with_name(f"{directory.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    yield new
    shutil.rmtree(directory, ignore_errors=True)
    new.rename(directory)


def key(*parts):
    """Names what is made from these: texts, or the contents of files."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, pathlib.Path) else part.encode())
    return digest.hexdigest()[:8]


def venv(directory, packages, log):
    run([sys.executable, "-m", "venv", directory], log)
    pip = [directory / "bin/python", "-m", "pip", "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", *packages], log)
    return pip


# ---- Environments. Each answers the Python and the variables that a peer's program runs with.

def tests_environment(log, device="cpu"):
    """transformers runs in the tests' Python, which pipelines/setup.sh --tests installs."""
    where = run([HERE.parents[2] / "pipelines/setup.sh", "--tests", "--where"], log, answer=True).strip()
    python = pathlib.Path(where) / "bin/python"
    if not python.exists():
        raise Failure("the tests' Python is not there: pipelines/setup.sh --tests installs it")
    return python, {}


def openvino_environment(log, device="cpu"):
    if device != "cpu":
        raise Failure("OpenVINO has no backend for this GPU")
    directory = cache() / f"bench-openvino-{OPENVINO}-{key(*OPENVINO_PACKAGES, sys.version)}"
    complete = directory / "complete"
    if not complete.exists():
        shutil.rmtree(directory, ignore_errors=True)
        venv(directory, OPENVINO_PACKAGES, log)
        complete.touch()
    return directory / "bin/python", {}


def llama_environment(log, device="cpu"):
    """Builds llama.cpp from the sources in llama-cpp-python, the libraries alone; no other peer needs a compiler. For a
    GPU it needs nvcc, too."""
    kind = "" if device == "cpu" else "-cuda"
    directory = cache() / f"bench-llama{kind}-{LLAMA}-{key(*LLAMA_PACKAGES, sys.version)}"
    source, libraries = directory / "source", directory / "libraries"
    if not (directory / "complete").exists():
        shutil.rmtree(directory, ignore_errors=True)
        pip = venv(directory, LLAMA_PACKAGES, log)
        # Sources of this package alone: its build's own tools, which pip wants to look into it, come as they are.
        run([*pip, "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python", "--dest", directory,
             f"llama-cpp-python=={LLAMA}"], log)
        archive, = directory.glob("llama_cpp_python-*.tar.gz")
        with tarfile.open(archive) as opened:
            opened.extractall(directory, filter="data")
        archive.unlink()
        (directory / f"llama_cpp_python-{LLAMA}").rename(source)
        mend_llama(source)
        build_llama(directory, source, libraries, log, cuda=device != "cpu")
        (directory / "complete").touch()
    return directory / "bin/python", {"PYTHONPATH": str(source), "LLAMA_CPP_LIB_PATH": str(libraries),
                                      "MTMD_CPP_LIB": str(libraries)}


def mend_llama(source):
    """GCC 12's intrinsic says that it reads 8 bytes of the matrix units' configuration, and what sets the others is then
    left out as useless: the process dies in its first product."""
    file = source / "vendor/llama.cpp/ggml/src/ggml-cpu/amx/mmq.cpp"
    text, call = file.read_text(), "_tile_loadconfig(&tc);"
    if text.count(call) != 1:
        raise Failure(f"{file.name} of llama.cpp is not as expected: does it still need mending?")
    file.write_text(text.replace(call, '__asm__ volatile("" : : "m"(tc)); ' + call))


def build_llama(directory, source, libraries, log, cuda):
    build, tools = directory / "build", directory / "bin"
    run([tools / "cmake", "-S", source, "-B", build, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}",
         "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", f"-DGGML_CUDA={'ON' if cuda else 'OFF'}", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF",
         "-DLLAMA_BUILD_TOOLS=OFF", "-DLLAMA_BUILD_SERVER=OFF"], log)
    jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(len(os.sched_getaffinity(0)))
    run([tools / "cmake", "--build", build, "--parallel", jobs, "--target", "llama", "mtmd"], log, timeout=7200)
    libraries.mkdir()
    for library in build.rglob("lib*.so*"):
        (libraries / library.name).symlink_to(library)


ENVIRONMENTS = {"openvino": openvino_environment, "llama": llama_environment, "transformers": tests_environment}


# ---- What the peers read

def checkpoint(size, work, log):
    """The random checkpoint of this size, under a name that says how it was made; `demo`: the demo model."""
    if size == "demo":
        return demo_checkpoint(work)
    bench, parity = HERE.parent, HERE.parents[1] / "parity"
    makers = [bench / "make_model.py", parity / "make_checkpoint.py", parity / "specs.py"]
    directory = work / f"{size}-{key(*makers)}" / "checkpoint"
    if not directory.exists():
        python, _ = tests_environment(log)
        with made(directory) as new:
            run([python, makers[0], new, "--size", size, "--dtype", "bfloat16"], log)
    return directory


def demo_checkpoint(work):
    source = HERE.parents[2] / "examples/demo-model/model"
    directory = work / f"demo-{key(*sorted(source.glob('*.json')), *sorted(source.glob('*.safetensors')))}" / "checkpoint"
    if not directory.exists():
        with made(directory) as new:
            shutil.copytree(source, new, dirs_exist_ok=True)
    return directory


def openvino_files(model, format, work, log, threads, device):
    format = format.partition("-")[0]
    directory = work / f"openvino-{OPENVINO}-{format}"
    if not directory.exists():
        python, variables = openvino_environment(log)
        with made(directory) as new:
            grouped = ["--group-size-fallback", "adjust"] if format == "int4" else []
            run([python.parent / "optimum-cli", "export", "openvino", "--model", model, "--task", "image-text-to-text",
                 "--weight-format", format, *grouped, new], log, env={**os.environ, **variables})
            if not (new / "openvino_tokenizer.xml").exists():
                raise Failure("optimum-cli wrote no tokenizer")
    return directory


def llama_files(model, format, work, log, threads, device):
    format = format.partition("-")[0]
    directory = work / f"llama-{LLAMA}"
    python, variables = llama_environment(log, device)
    if not directory.exists():
        with made(directory) as new:
            run([tests_environment(log)[0], HERE / "llama_files.py", model, new,
                 python.parents[1] / "source/vendor/llama.cpp"], log)
    wanted = directory / f"{format}.gguf"
    if not wanted.exists():
        try:
            run([python, HERE / "run_llama.py", directory, "--format", format, "--threads", threads, "--tokens", "1",
                 "--rounds", "1", "--quantize-from", directory / "bf16.gguf"], log, env={**os.environ, **variables})
        except Failure:
            wanted.unlink(missing_ok=True)
            raise
    return directory


FILES = {"openvino": openvino_files, "llama": llama_files,
         "transformers": lambda model, format, work, log, threads, device: model}
