#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# build.sh DIR [MESON OPTION…]: configures DIR where that is still to be done, or was done with other options than
# these (without any, those of the time before stay), and builds everything in it.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
directory=$1
shift

# meson takes ccache by itself only where no compiler is named.
if command -v ccache >/dev/null; then
  for compiler in CC CXX; do
    [ -z "${!compiler:-}" ] || [[ ${!compiler} == *ccache* ]] || export $compiler="ccache ${!compiler}"
  done
fi

# The libtorch that the directory was configured with.
configured_torch() {
  grep -o '/[^ ]*/lib/libtorch_cpu\.so' "$directory/build.ninja" | head -n 1
}

if [ -f "$directory/build.ninja" ]; then
  torch=$(configured_torch || true)
  if [ -n "$torch" ] && [ ! -e "$torch" ]; then
    echo "The libtorch that $directory was configured with is gone; configuring anew" >&2
    meson setup --wipe "$directory" "$root" "$@"
  fi
  if [ $# -gt 0 ] && [ "$*" != "$(cat "$directory/options" 2>/dev/null)" ]; then
    meson configure "$directory" "$@"
  fi
else
  meson setup "$directory" "$root" "$@"
fi
[ $# -eq 0 ] || echo "$*" >"$directory/options"
# What ccache needs to keep objects made with a precompiled header.
export CCACHE_SLOPPINESS=${CCACHE_SLOPPINESS:-pch_defines,time_macros}
ninja -C "$directory"
