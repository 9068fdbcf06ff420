// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "vlm/types.h"

namespace describe {

/// One description on its way to the output.
struct Record {
  std::string source;                   ///< as the user gave it
  uint64_t index = 0;                   ///< counts from 0 within the source
  uint64_t pts_ns = 0;                  ///< stream time: from the beginning of the video
  std::optional<uint64_t> duration_ns;  ///< null: a still picture
  std::vector<uint64_t> frame_pts_ns;   ///< stream time too
  std::optional<int64_t> utc_us;        ///< live sources only, since 1970
  std::string finish_reason;
  vlm::Description description;  ///< its finish_reason is unused
};

}  // namespace describe
