#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# build.sh DIR [MESON OPTION…]: configures DIR where that is still to be done, or was done with other options than
# these (without any, those of the time before stay), and builds everything in it.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
directory=$1
shift

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
ninja -C "$directory"
