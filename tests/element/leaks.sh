#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Runs pipelines under GStreamer's leaks tracer: whatever object, buffer, event or caps is left at the end fails.
# GST_PLUGIN_PATH, VLM_ENGINE_LIBRARY (an engine without a model) and PADS_COME_AND_GO are set by meson.
set -u

failed=0
alive='object-alive, type-name=[^%]*address'
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# NAME WANTED-EXIT-STATUS LAUNCH-LINE
check() {
  run "$1" "$2" "gst-launch-1.0 -q $3"
}

# NAME WANTED-EXIT-STATUS COMMAND
run() {
  GST_TRACERS="leaks(stack-traces-flags=none)" GST_DEBUG=GST_TRACER:7 GST_DEBUG_NO_COLOR=1 \
    timeout 60 sh -c "$3" > "$log" 2>&1
  status=$?
  leaks=$(grep -cE "$alive" "$log")
  # The tracer says what its records look like before anything else.
  if [ $status -eq "$2" ] && [ "$leaks" -eq 0 ] && grep -q 'object-alive.class' "$log"; then
    echo "$1: nothing is left"
  else
    echo "$1: exit status $status, $leaks left"
    grep -E "$alive|ERROR" "$log" | cut -c 1-300 | head -20
    failed=1
  fi
}

video="videotestsrc num-buffers=100 ! video/x-raw,width=64,height=32,framerate=25/1"
describe="vlmdescribe name=d interval=1000000000"
check recorded 0 "$video ! $describe ! fakesink"
check every-output 0 "$video ! $describe meta-policy=exact partial=true details=true ! fakesink d.text ! fakesink"
check subtitles 0 "$video ! $describe ! fakesink d.text ! queue ! webvttenc ! fakesink"
check live 0 "$video ! $describe mode=live model=fake:delay=20 ! queue ! textoverlay name=o ! fakesink \
  d.text ! queue ! o.text_sink"
check two-elements 0 "$video ! $describe ! vlmdescribe interval=0 ! fakesink d.text ! fakesink"
check failing-window 1 "$video ! $describe model=fake:fail-every=2 ! fakesink d.text ! fakesink"
# Later than at once: gst-launch-1.0 1.22 waits for ever if an error is there before its main loop runs.
check failing-load 1 "$video ! $describe model=fake:load=200,fail-load ! fakesink"
check refused 255 "$video ! $describe model=fake:fail-check ! fakesink"
check unlinked-text 0 "$video ! $describe d.text ! fakesink"
run pads-come-and-go 0 "$PADS_COME_AND_GO"
exit $failed
