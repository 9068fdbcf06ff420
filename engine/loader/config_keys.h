// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/json.h"

namespace vlm {

/// What config.json and generation_config.json write alike. Throw Failure.

/// One token id or a list of them; negative ones stand for none. Nothing where the key is absent.
std::optional<std::vector<int64_t>> read_token_ids(const JsonView& view, const char* key);

/// pad_token_id, where it names a token.
std::optional<int64_t> read_pad_id(const JsonView& view);

}  // namespace vlm
