#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Compiles the plugin in a tree of Debian 13 (GStreamer 1.26) and tries it there: gst-inspect, launch lines, and the
# element's own tests against an engine without a model. For releases; no part of tests/run.sh. Needs root. Frames in
# CUDA memory are tried where CUDA_INCLUDE, by default /usr/local/cuda/include, has cuda.h.
#
#     debootstrap --variant=minbase trixie DIR http://deb.debian.org/debian
#     tests/element/debian13.sh DIR
set -eu

tree=${1:?usage: debian13.sh DIR, a debootstrap tree of Debian 13}
root=$(cd "$(dirname "$0")/../.." && pwd)
cuda=${CUDA_INCLUDE:-/usr/local/cuda/include}

chroot "$tree" sh -c 'DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends g++ libgtest-dev \
  libgstreamer-plugins-bad1.0-dev gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
  gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-x' >/dev/null
rm -rf "$tree/gst-vlm"
mkdir -p "$tree/gst-vlm/out"
cp -r "$root/gst" "$root/tests/element" "$root/engine/include" "$tree/gst-vlm/"
for header in cuda/picture_index.h kernels/cpu.h kernels/host_device.h kernels/rounded.h; do
  install -D -m 644 "$root/engine/$header" "$tree/gst-vlm/include/$header"
done
cp "$root/engine/kernels/cpu.cpp" "$tree/gst-vlm/gst/gstvlm-cpu.cpp"
if [ -f "$cuda/cuda.h" ]; then
  cp "$cuda/cuda.h" "$cuda/cudaGL.h" "$tree/gst-vlm/include/"
fi

cat >"$tree/gst-vlm/inside.sh" <<'END'
set -eu
cd /gst-vlm
have_cuda=$([ -f include/cuda.h ] && echo 1 || echo 0)
packages="gstreamer-check-1.0 gstreamer-app-1.0 gstreamer-allocators-1.0 gstreamer-controller-1.0 gstreamer-video-1.0
  gstreamer-analytics-1.0"
[ $have_cuda = 0 ] || packages="$packages gstreamer-cuda-1.0"
flags="-std=c++20 -O1 -fPIC -Wall -Wextra -Wno-missing-field-initializers -Werror -DGST_USE_UNSTABLE_API
  -ffp-contract=off -include config.h -Iinclude -Igst $(pkg-config --cflags $packages)"
libs="$(pkg-config --libs $packages) -ldl -pthread"
text_mtd=$(grep -rqs gst_analytics_relation_meta_add_text_mtd /usr/include/gstreamer-1.0/gst/analytics && echo 1 || echo 0)
cat >config.h <<CONFIG
#define VERSION "0"
#define PACKAGE "gst-vlm"
#define GST_PACKAGE_ORIGIN "gst-vlm"
#define VLM_PLUGINDIR "/p"
#define VLM_LIBDIR "/l"
#define VLM_DATADIR "/d"
#define VLM_HAVE_CUDA $have_cuda
#define VLM_HAVE_ANALYTICS 1
#define VLM_HAVE_TEXT_MTD $text_mtd
CONFIG
export flags libs

# What needs the engine itself, and what this tree cannot compile, is left out.
tests=
for file in element/*_test.cpp; do
  name=$(basename "$file" _test.cpp)
  case $name:$have_cuda in
    model:* | stop:*) echo "$name: needs the engine, left out" ;;
    cuda:0) echo "cuda: there is no cuda.h, left out" ;;
    *) tests="$tests $name" ;;
  esac
done
{
  ls gst/*.cpp element/fake_engine.cpp element/element_support.cpp element/fake_driver/*.cpp
  for name in $tests; do
    echo "element/${name}_test.cpp"
  done
} | xargs -P "$(nproc)" -I{} sh -c 'g++ $flags -c {} -o out/$(basename {} .cpp).o'
g++ -shared out/gstvlm*.o -o out/libgstvlm.so $libs
g++ -shared out/fake_engine.o -o out/libfake-engine.so
g++ -shared out/fake_driver.o -Wl,-soname,libcuda.so.1 -o out/libcuda.so.1
g++ -shared out/fake_encoder.o -Wl,-soname,libnvidia-encode.so.1 -o out/libnvidia-encode.so.1
# Tests of the plugin's parts link them, the others find the plugin.
for name in $tests; do
  part=$(grep -Eq '^#include "(gstvlm|frame_case)' "element/${name}_test.cpp" && ls out/gstvlm*.o || echo out/element_support.o)
  g++ "out/${name}_test.o" $part -o "out/test_$name" $libs -lgtest -lgtest_main
done

export GST_PLUGIN_PATH=/gst-vlm/out GST_REGISTRY=/gst-vlm/registry VLM_ENGINE_LIBRARY=/gst-vlm/out/libfake-engine.so
export VLM_MODEL=fake: G_DEBUG=fatal-criticals
gst-inspect-1.0 --version | head -2 | tail -1
gst-inspect-1.0 vlmdescribe >out/inspect.txt
grep -c "changeable in" out/inspect.txt
clip="videotestsrc num-buffers=100 ! video/x-raw,width=64,height=48,framerate=25/1"
gst-launch-1.0 -q $clip ! vlmdescribe interval=1000000000 ! fakesink
gst-launch-1.0 -q $clip ! vlmdescribe name=d interval=1000000000 meta-policy=exact ! fakesink d.text ! fakesink
gst-launch-1.0 -q $clip ! vlmdescribe name=d interval=1000000000 ! fakesink d.text ! queue ! webvttenc \
  ! filesink location=out/clip.vtt
grep -c -- "-->" out/clip.vtt
failed=
for name in $tests; do
  if [ "$name" = cuda ]; then
    export LD_LIBRARY_PATH=/gst-vlm/out GST_REGISTRY=/gst-vlm/cuda.registry
  fi
  echo "$name:"
  "out/test_$name" --gtest_brief=1 || failed="$failed $name"
  unset LD_LIBRARY_PATH
done
echo "failed:${failed:- none}"
[ -z "$failed" ]
END
# The tests read /proc, which goes with this process.
unshare --mount sh -c 'mount -t proc proc "$1/proc" && exec chroot "$1" sh /gst-vlm/inside.sh' sh "$tree"
