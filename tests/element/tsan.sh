#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Builds the plugin, the engine's threads and the tests of both with the thread sanitizer into build-tsan/ and runs them:
# any race it sees fails. No part of tests/run.sh, as it takes a build of its own.
set -eu

cd "$(dirname "$0")/../.."
tests="delivery dispatch error events live passthrough pipeline pool properties recorded share state text textpad times"
targets="gst/libgstvlm.so tests/element/libfake-engine.so"
if [ ! -f build-tsan/build.ninja ]; then
  CC=gcc CXX=g++ meson setup build-tsan -Dtests=enabled -Dgst=enabled -Dexamples=disabled -Dcuda=disabled \
    -Doptimization=1 -Db_sanitize=thread -Db_lundef=false -Dwerror=false # GCC 12 warns of its own checks
fi
# Only where GStreamer's CUDA library is.
driver=tests/element/fake_driver
if grep -q "^build $driver/libcuda.so.1:" build-tsan/build.ninja; then
  tests="$tests cuda"
  targets="$targets $driver/libcuda.so.1 $driver/libnvidia-encode.so.1"
fi
binaries="tests/unit/unit_registry tests/unit/unit_scheduler"
for test in $tests; do
  binaries="$binaries tests/element/element_$test"
done
# shellcheck disable=SC2086
ninja -C build-tsan $targets $binaries

here=$PWD/build-tsan
export GST_PLUGIN_PATH="$here/gst" GST_REGISTRY="$here/tests/element/tsan.registry" GST_REGISTRY_FORK=no \
  VLM_ENGINE_LIBRARY="$here/tests/element/libfake-engine.so" VLM_MODEL=fake: LD_LIBRARY_PATH="$here/$driver" \
  TSAN_OPTIONS="ignore_noninstrumented_modules=1 history_size=4"
# The sanitizer's own memory grows with every thread there was, and mallinfo() knows none of it: the process may not be
# measured.
measured="*leave_nothing_behind:*memory_does_not_grow*:*keeps_no_texts*:*pictures_for_the_model_are*"
failed=0
for binary in $binaries; do
  test=$(basename "$binary")
  if "build-tsan/$binary" --gtest_brief=1 --gtest_filter="-$measured"; then
    echo "$test: no race"
  else
    echo "$test: failed" && failed=1
  fi
done
exit $failed
