#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Prints the directory of libtorch that the build uses: the one given, else the one that pipelines/setup.sh installed.
set -eu
for dir in "${1:-}" "${XDG_CACHE_HOME:-${HOME:-}/.cache}/gst-vlm/torch"; do
  if [ -n "$dir" ] && [ -e "$dir/lib/libtorch_cpu.so" ] && [ -e "$dir/include/ATen/core/Tensor.h" ]; then
    (cd "$dir" && pwd -P)
    exit 0
  fi
  [ -n "$dir" ] && [ "$dir" = "${1:-}" ] && break
done
exit 1
