#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""`meson install` into an empty directory: plugin, command, library, headers and demo model work from there."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("VLM_BUILD_DIR", ROOT / "build"))
sys.path.insert(0, str(ROOT / "examples" / "demo-model"))

import scenes  # noqa: E402

PACKAGE_VARIABLES = ("PKG_CONFIG_PATH", "LD_LIBRARY_PATH", "GST_PLUGIN_PATH", "GST_REGISTRY", "VLM_MODEL",
                     "VLM_ENGINE_LIBRARY")


class Installed:
    def __init__(self, prefix, libdir, home):
        self.prefix, self.libdir, self.home = prefix, prefix / libdir, home

    def env(self, **more):
        env = {key: value for key, value in os.environ.items() if key not in PACKAGE_VARIABLES}
        return {**env, "GST_PLUGIN_PATH": str(self.libdir / "gstreamer-1.0"),
                "GST_REGISTRY": str(self.home / "registry.bin"), "HOME": str(self.home), **more}

    def run(self, *command, **more):
        return subprocess.run([str(part) for part in command], env=self.env(**more), cwd=self.home, text=True,
                              capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    # The prefix is moved by --destdir, so nothing may rely on the path that was configured.
    stage = tmp_path_factory.mktemp("stage")
    subprocess.run(["meson", "install", "-C", str(BUILD), "--no-rebuild", "--quiet", "--destdir", str(stage)],
                   check=True, capture_output=True)
    options = {option["name"]: option["value"]
               for option in json.loads((BUILD / "meson-info" / "intro-buildoptions.json").read_text())}
    prefix = stage / options["prefix"].lstrip("/")
    return Installed(prefix, options["libdir"], tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def scene():
    return scenes.Scene(3_000_000_001, aspect=16 / 9, count=1)


@pytest.fixture(scope="module")
def picture(scene, tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "scene.png"
    Image.fromarray(scenes.render(scene, 0, 640, 360)).save(path)
    return path


def test_everything_is_there(installed):
    for path in ("bin/vlm-describe", "include/vlm/engine.h", "include/vlm/types.h", "include/vlm/error.h",
                 "include/vlm/gpu_picture.h", "include/vlm/names.h", "share/gst-vlm/demo-model/config.json",
                 "share/gst-vlm/demo-model/tokenizer.model", "share/gst-vlm/demo-model/model.safetensors"):
        assert (installed.prefix / path).is_file(), path
    for path in ("gstreamer-1.0/libgstvlm.so", "libvlm.so", "pkgconfig/vlm.pc"):
        assert (installed.libdir / path).exists(), path


def test_no_tests_or_examples_are_installed(installed):
    names = {path.name for path in (installed.prefix / "bin").iterdir()}
    assert names == {"vlm-describe"}
    assert not list(installed.prefix.rglob("*test*"))


def test_nothing_points_into_the_build_directory(installed):
    for path in installed.libdir / "libvlm.so", installed.libdir / "gstreamer-1.0" / "libgstvlm.so":
        dynamic = subprocess.run(["readelf", "-d", str(path)], check=True, text=True, capture_output=True).stdout
        assert str(BUILD) not in dynamic, dynamic
    assert str(BUILD) not in (installed.libdir / "pkgconfig" / "vlm.pc").read_text()


def test_element_is_found(installed):
    done = installed.run("gst-inspect-1.0", "vlmdescribe")
    assert done.returncode == 0, done.stderr
    for word in ("Filter/Analyzer/Video", "interval", "prompt", "text", "LGPL"):
        assert word in done.stdout


def test_plugin_links_neither_engine_nor_libtorch(installed):
    needed = subprocess.run(["readelf", "-d", str(installed.libdir / "gstreamer-1.0" / "libgstvlm.so")], check=True,
                            text=True, capture_output=True).stdout
    assert "libvlm" not in needed and "torch" not in needed and "c10" not in needed


def test_pipeline_describes_with_the_installed_model(installed, picture, scene):
    done = installed.run("gst-launch-1.0", "-m", "filesrc", f"location={picture}", "!", "pngdec", "!", "videoconvert",
                         "!", "vlmdescribe", "!", "fakesink")
    assert done.returncode == 0, done.stderr
    assert scenes.describe(scene.truth()) in done.stdout.replace("\\", ""), done.stdout


def test_command_describes_with_the_installed_model(installed, picture, scene):
    done = installed.run(installed.prefix / "bin" / "vlm-describe", picture)
    assert done.returncode == 0, done.stderr
    assert scenes.describe(scene.truth()) in done.stdout


def test_without_the_engine_the_plugin_still_explains_itself(installed, picture, tmp_path):
    prefix = tmp_path / "prefix"
    shutil.copytree(installed.prefix, prefix, symlinks=True)
    bare = Installed(prefix, installed.libdir.relative_to(installed.prefix), tmp_path)
    for library in bare.libdir.glob("libvlm.so*"):
        library.unlink()
    assert bare.run("gst-inspect-1.0", "vlmdescribe").returncode == 0
    done = bare.run("gst-launch-1.0", "filesrc", f"location={picture}", "!", "pngdec", "!", "videoconvert", "!",
                    "vlmdescribe", "!", "fakesink")
    assert done.returncode != 0
    assert "libvlm.so" in done.stderr, done.stderr


def test_application_builds_with_pkg_config(installed, picture, scene, tmp_path):
    packages = {"PKG_CONFIG_PATH": str(installed.libdir / "pkgconfig")}
    flags = installed.run("pkg-config", f"--define-variable=prefix={installed.prefix}", "--cflags", "--libs", "vlm",
                          **packages)
    assert flags.returncode == 0, flags.stderr
    program = tmp_path / "engine_only"
    built = installed.run("g++", ROOT / "examples" / "engine_only.cpp", "-o", program, *flags.stdout.split(),
                          f"-Wl,-rpath,{installed.libdir}")
    assert built.returncode == 0, built.stderr
    ppm = tmp_path / "scene.ppm"
    Image.open(picture).save(ppm)
    done = installed.run(program, installed.prefix / "share" / "gst-vlm" / "demo-model", ppm)
    assert done.returncode == 0, done.stderr
    assert scenes.describe(scene.truth()) in done.stdout


@pytest.mark.skipif(os.path.exists("/proc/driver/nvidia/version"), reason="this machine has a GPU")
def test_without_a_gpu_no_cuda_library_of_torch_is_loaded(installed, picture):
    done = installed.run(installed.prefix / "bin" / "vlm-describe", picture, LD_DEBUG="files")
    assert done.returncode == 0
    assert "libtorch_cpu.so" in done.stderr
    for library in ("libcuda.so", "libtorch_cuda.so", "libc10_cuda.so"):
        assert library not in done.stderr, library
