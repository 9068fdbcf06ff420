#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# soak.sh [MINUTES]: describes so much video (20 minutes without an argument) as fast as that goes and prints the memory
# that the process takes after each tenth of it. Needs a build in build/. tests/run.sh runs a short one.
set -eu

cd "$(dirname "$0")/../.."
here=$PWD
GST_PLUGIN_PATH=$here/build/gst GST_REGISTRY=$here/build/tests/pipelines/soak.registry \
  VLM_ENGINE_LIBRARY=$here/build/engine/libvlm.so.0 VLM_MODEL=$here/examples/demo-model/model \
  exec /usr/bin/python3 tests/pipelines/soak.py "${1:-20}"
