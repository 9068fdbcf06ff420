#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The whole way in one command: sets up, builds, makes a clip, and has the demo model describe it, on screen and as
# subtitles. A second run only describes.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
out=${1:-$root/build/demo}
width=640 height=360 fps=25 seconds=4 scenes=6

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "1. Set-up"
pipelines/setup.sh
python=$(pipelines/setup.sh --where)/bin/python

say "2. Build"
options=()
[ -e build/build.ninja ] || options=(-Dtests=disabled)
pipelines/build.sh build "${options[@]}"

say "3. A clip: $scenes scenes of $seconds seconds, drawn and coded as H.264"
mkdir -p "$out"
if [ ! -e "$out/clip.mp4" ]; then
  "$python" pipelines/demo-clip.py $width $height $fps $seconds $scenes |
    gst-launch-1.0 -q fdsrc fd=0 ! rawvideoparse format=rgb width=$width height=$height framerate=$fps/1 ! \
      videoconvert ! video/x-raw,format=I420 ! x264enc bitrate=600 speed-preset=veryfast ! \
      video/x-h264,profile=main ! h264parse ! mp4mux ! filesink location="$out/clip.mp4.part"
  mv "$out/clip.mp4.part" "$out/clip.mp4"
fi
echo "  $out/clip.mp4"

# Everything runs from the build directory; nothing is installed.
run() { meson devenv -C build "$@"; }

say "4. What the model sees, every two seconds"
run vlm-describe "$out/clip.mp4"

say "5. The same as subtitles"
run vlm-describe --quiet -o "$out/clip.vtt" "$out/clip.mp4"
run vlm-describe --quiet -o "$out/clip.srt" "$out/clip.mp4"
head -n 8 "$out/clip.vtt"
echo "  …"

if [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
  say "6. The clip with its descriptions drawn on it (close the window to go on)"
  run gst-launch-1.0 -q filesrc location="$out/clip.mp4" ! decodebin ! videoconvert ! vlmdescribe name=describe \
    describe.src ! queue max-size-buffers=0 max-size-bytes=0 max-size-time=0 ! \
    textoverlay name=overlay font-desc="Sans 16" ! videoconvert ! autovideosink \
    describe.text ! queue ! overlay.text_sink || true
fi

say "Done. The files are in $out:"
echo "  clip.mp4   the video
  clip.vtt   its descriptions as WebVTT, clip.srt as SubRip

What to try next (the demo model knows such scenes only, and nothing of real photographs):
  meson devenv -C build vlm-describe -p 'What colour is the background?' $out/clip.mp4
  meson devenv -C build vlm-describe --model DIR photo.jpg     with LLaVA-1.5 weights in DIR, see README.md
  meson devenv -C build gst-inspect-1.0 vlmdescribe            all properties of the element
  tests/run.sh                                                 every test"
