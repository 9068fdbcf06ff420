#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Installs what building and running need, and nothing that is there already: packages of the system through apt
# (Debian 12, Ubuntu 24.04 or later), and libtorch as Python wheels in a private environment under the user's cache
# directory, which later runs reuse.
set -euo pipefail

usage() {
  cat <<'END'
Usage: pipelines/setup.sh [--tests] [--no-packages] [--where]
  (nothing)      what the plugin, vlm-describe and the demo need: about 0.6 GB of wheels,
                 or all of torch (about 3 GB) where there is an NVIDIA GPU
  --tests        also what the tests need: all of torch, and the reference implementation
  --no-packages  leave the system's packages alone
  --where        print the directory of the Python environment, install nothing
PYTHON=… names the Python to use (default: python3).
END
}

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/gst-vlm
mode=run
packages=yes
where=no
for argument in "$@"; do
  case $argument in
    --tests) mode=tests ;;
    --no-packages) packages=no ;;
    --where) where=yes ;;
    -h | --help) usage; exit 0 ;;
    *) echo "setup.sh: unknown option $argument" >&2; usage >&2; exit 2 ;;
  esac
done

run_packages=(
  g++ meson ninja-build pkg-config ccache python3 python3-venv ca-certificates
  nlohmann-json3-dev libjpeg-dev libpng-dev libwebp-dev
  libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
  gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
  gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-x
)
# GStreamer's CUDA library, for frames that stay on a GPU.
gpu_packages=(libgstreamer-plugins-bad1.0-dev)
test_packages=(clang libgtest-dev python3-gi gir1.2-gstreamer-1.0 gir1.2-gst-plugins-base-1.0
  gir1.2-gst-rtsp-server-1.0 iproute2 nftables)

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
fail() { echo "setup.sh: $*" >&2; exit 1; }

have_gpu() { [ -e /proc/driver/nvidia/version ] || { command -v nvidia-smi >/dev/null && nvidia-smi -L; } >/dev/null 2>&1; }

installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q ' installed$'; }

# Packages of the system. Installs what is missing, or says what to run where it may not.
install_packages() {
  local wanted=("${run_packages[@]}") missing=() package sudo=()
  [ "$mode" = tests ] && wanted+=("${test_packages[@]}")
  if [ "$mode" = tests ] || have_gpu; then wanted+=("${gpu_packages[@]}"); fi
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    fail "this is no Debian or Ubuntu: install what corresponds to these packages, then run" \
      "pipelines/setup.sh --no-packages: ${wanted[*]}"
  fi
  for package in "${wanted[@]}"; do
    installed "$package" || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
      sudo=(sudo)
    else
      fail "these packages are missing and I may not install them; as root, run:
  apt-get update && apt-get install --no-install-recommends ${missing[*]}
and then this script again."
    fi
  fi
  say "Installing ${#missing[@]} packages with apt: ${missing[*]}"
  "${sudo[@]}" apt-get update -q >&2
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
}

# A Python with venv and a version that the wheels exist for; prints its path.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 /usr/bin/python3}; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
      2>/dev/null; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  return 1
}

# environment_dir KIND FILE…: the environment's directory, named after what goes into it, so that a change of pins
# makes a new one.
environment_dir() {
  local kind=$1 key
  shift
  key=$({ cat "$@"; echo "$kind"; "$python" -VV; uname -m; } | sha256sum | cut -c1-12)
  echo "$cache/env-$kind-$key"
}

complete() {
  local torch=("$1"/lib/python3*/site-packages/torch)
  [ -e "$1/complete" ] && [ -e "${torch[0]}/lib/libtorch_cpu.so" ]
}

pip() {
  "$environment/bin/python" -m pip --disable-pip-version-check "$@" >&2
}

install_wheels() {
  complete "$environment" && return
  rm -f "$environment/complete"
  if ! "$environment/bin/python" -m pip --version >/dev/null 2>&1; then
    say "Making a Python environment in $environment"
    rm -rf "$environment"
    "$python" -m venv "$environment"
  fi
  case $kind in
    run-cpu)
      say "Installing libtorch without its GPU part's dependencies (0.6 GB to download)"
      pip install --no-deps -r "$here/requirements.txt" ;;
    run-gpu)
      say "Installing torch with its CUDA libraries (about 3 GB to download)"
      pip install -r "$here/requirements-gpu.txt" -c "$root/tests/requirements.txt" ;;
    tests)
      say "Installing torch, the reference implementation and the tests' tools (about 3 GB to download)"
      pip install -r "$root/tests/requirements.txt" ;;
  esac
  touch "$environment/complete"
}

# $cache/torch is where the build looks. A complete torch of the same version stays: build directories point into it.
link_torch() {
  local torch version
  torch=$(echo "$environment"/lib/python3*/site-packages/torch)
  version=$(sed -n "s/^__version__ = '\(.*\)'/\1/p" "$torch/version.py")
  if [ -e "$cache/torch/lib/libtorch_cpu.so" ] &&
    grep -qF "__version__ = '$version'" "$cache/torch/version.py" &&
    { [ "$kind" = run-cpu ] || [ "$(readlink -f "$cache/torch")" = "$torch" ]; }; then
    return
  fi
  ln -sfn "$torch" "$cache/torch.new.$$"
  mv -T "$cache/torch.new.$$" "$cache/torch"
}

if [ "$where" = no ] && [ "$packages" = yes ]; then
  install_packages
fi
python=$(find_python) ||
  fail "no usable Python: install python3 and python3-venv (3.11 to 3.14), or name one with PYTHON=…"
tests_environment=$(environment_dir tests "$root/tests/requirements.txt")
if [ "$mode" = tests ] || complete "$tests_environment"; then
  kind=tests
  environment=$tests_environment
elif have_gpu; then
  kind=run-gpu
  environment=$(environment_dir $kind "$here/requirements-gpu.txt" "$root/tests/requirements.txt")
else
  kind=run-cpu
  environment=$(environment_dir $kind "$here/requirements.txt")
fi
if [ "$where" = yes ]; then
  echo "$environment"
  exit 0
fi
mkdir -p "$cache"
exec 9>"$cache/lock"
if ! flock -n 9; then
  say "Waiting for another set-up to finish"
  flock 9
fi
install_wheels
link_torch
