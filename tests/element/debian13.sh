#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Compiles the plugin in a tree of Debian 13 (GStreamer 1.26) and tries it there: gst-inspect, launch lines, and the
# element's own tests against an engine without a model. For releases; no part of tests/run.sh. Needs root.
#
#     debootstrap --variant=minbase trixie DIR http://deb.debian.org/debian
#     tests/element/debian13.sh DIR
set -eu

tree=${1:?usage: debian13.sh DIR, a debootstrap tree of Debian 13}
root=$(cd "$(dirname "$0")/../.." && pwd)
tests="analytics delivery error events live passthrough properties recorded share state text times"

chroot "$tree" sh -c 'DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends g++ libgtest-dev \
  libgstreamer-plugins-bad1.0-dev gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
  gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-x' >/dev/null
rm -rf "$tree/gst-vlm"
mkdir "$tree/gst-vlm"
cp -r "$root/gst" "$root/tests/element" "$root/engine/include" "$tree/gst-vlm/"
for header in cuda/picture_index.h kernels/host_device.h; do
  install -D -m 644 "$root/engine/$header" "$tree/gst-vlm/include/$header"
done

cat >"$tree/gst-vlm/inside.sh" <<'END'
set -eu
cd /gst-vlm
mkdir -p out
flags="-std=c++20 -O1 -fPIC -Wall -Wextra -Wno-missing-field-initializers -Werror -Iinclude -Igst $(pkg-config --cflags gstreamer-check-1.0 \
  gstreamer-app-1.0 gstreamer-controller-1.0 gstreamer-analytics-1.0)"
libs="$(pkg-config --libs gstreamer-check-1.0 gstreamer-app-1.0 gstreamer-controller-1.0 gstreamer-video-1.0 \
  gstreamer-analytics-1.0) -ldl -pthread"
text_mtd=$(grep -rqs gst_analytics_relation_meta_add_text_mtd /usr/include/gstreamer-1.0/gst/analytics && echo 1 || echo 0)
cat >config.h <<CONFIG
#define VERSION "0"
#define PACKAGE "gst-vlm"
#define GST_PACKAGE_ORIGIN "gst-vlm"
#define VLM_PLUGINDIR "/p"
#define VLM_LIBDIR "/l"
#define VLM_DATADIR "/d"
#define VLM_HAVE_ANALYTICS 1
#define VLM_HAVE_TEXT_MTD $text_mtd
CONFIG
export flags
ls gst/*.cpp element/fake_engine.cpp element/element_support.cpp |
  xargs -P "$(nproc)" -I{} sh -c 'g++ $flags -include config.h -c {} -o out/$(basename {} .cpp).o'
g++ -shared out/gstvlm*.o -o out/libgstvlm.so $libs
g++ -shared out/fake_engine.o -o out/libfake-engine.so
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
failed=0
for name in $TESTS; do
  g++ $flags element/${name}_test.cpp out/element_support.o -o out/test_$name $libs -lgtest -lgtest_main
  out/test_$name --gtest_brief=1 || failed=1
done
exit $failed
END
chroot "$tree" env TESTS="$tests" sh /gst-vlm/inside.sh
