#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Compares the engine with transformers, stage by stage, on a checkpoint directory of yours. Sets up and builds what is
# missing; needs no network where tests/run.sh has run before. The exit status is 0 only where nothing differs.
#
#   tests/real-checkpoint.sh DIR                            in float32
#   tests/real-checkpoint.sh DIR --dtype bfloat16 --picture photo.jpg
#   tests/real-checkpoint.sh --help
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
"$root/pipelines/setup.sh" --tests >&2
python=$("$root/pipelines/setup.sh" --tests --where)/bin/python
build=${VLM_BUILD_DIR:-$root/build}
if [ -z "${VLM_ENGINE_RUNNER:-}" ]; then
  [ -d "$build" ] || (cd "$root" && meson setup "$build" -Dtests=enabled >&2)
  ninja -C "$build" tests/parity/engine_runner >&2
  export VLM_ENGINE_RUNNER=$build/tests/parity/engine_runner
fi
export PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1
exec "$python" "$root/tests/parity/real_checkpoint.py" "$@"
