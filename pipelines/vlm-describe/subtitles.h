// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <cstdint>
#include <memory>
#include <string>

#include "vlm/error.h"

namespace describe {

/// One of GStreamer's subtitle encoders, driven from the calling thread: a cue goes in, bytes come
/// out. Thread-bound; needs gst_init().
class SubtitleEncoder {
 public:
  /// `element` is webvttenc or srtenc.
  static vlm::Result<std::unique_ptr<SubtitleEncoder>> create(const char* element);
  ~SubtitleEncoder();
  SubtitleEncoder(const SubtitleEncoder&) = delete;
  SubtitleEncoder& operator=(const SubtitleEncoder&) = delete;

  /// The bytes of one cue, at first with the header of the file. `text` is one line of UTF-8; what
  /// would read as markup or as a time line is escaped.
  vlm::Result<std::string> add(uint64_t start_ns, uint64_t duration_ns, const std::string& text);

 private:
  SubtitleEncoder() = default;
  static GstFlowReturn take_output(GstPad* pad, GstObject* parent, GstBuffer* buffer);
  vlm::Status start();

  bool vtt_ = false;
  GstElement* encoder_ = nullptr;
  GstPad* feed_ = nullptr;   // linked to the encoder's sink pad
  GstPad* drain_ = nullptr;  // linked to its source pad
  std::string bytes_;        // what came out since the last take
};

}  // namespace describe
