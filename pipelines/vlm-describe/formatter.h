// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <memory>
#include <string>

#include "options.h"
#include "record.h"
#include "vlm/error.h"

namespace describe {

/// Turns records into the bytes of one output. Thread-bound.
class Formatter {
 public:
  virtual ~Formatter() = default;
  virtual vlm::Result<std::string> add(const Record& record) = 0;
};

struct FormatOptions {
  Format format = Format::kText;
  bool name_sources = false;  ///< text: several sources in one output, each line names its own
};

/// Fails where GStreamer's subtitle encoders are missing; vtt and srt need gst_init().
vlm::Result<std::unique_ptr<Formatter>> make_formatter(const FormatOptions& options);

/// "HH:MM:SS.mmm". Reentrant.
std::string clock_text(uint64_t time_ns);

}  // namespace describe
