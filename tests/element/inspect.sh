#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What gst-inspect-1.0 says about the element must be what gst/vlmdescribe.txt says; --update writes that file anew.
# GST_PLUGIN_PATH names the plugin's directory.
set -eu

written=$(dirname "$0")/../../gst/vlmdescribe.txt
case $(gst-inspect-1.0 --version) in
  *"GStreamer 1.22."*) ;;
  *) echo "GStreamer is not 1.22: its gst-inspect-1.0 writes otherwise" && exit 77 ;;
esac
now=$(mktemp)
trap 'rm -f "$now"' EXIT
# Without what differs from machine to machine, and without the formats, which are GStreamer's own.
gst-inspect-1.0 --no-colors vlmdescribe |
  sed -e '/^  Filename /d' -e '/^  Version /d' -e 's/format: {.*}/format: { every raw format }/' -e 's/ *$//' > "$now"
grep -q '^Element Properties:' "$now"
if [ "${1:-}" = --update ]; then
  cp "$now" "$written"
elif ! diff -u "$written" "$now"; then
  echo "The element's interface has changed; if that is meant, run tests/element/inspect.sh --update" && exit 1
fi
