// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/json.h"
#include "loader/config.h"

namespace vlm {

/// What config.json and its neighbours write alike. Throw Failure.

/// One token id or a list of them; negative ones stand for none. Nothing where the key is absent.
std::optional<std::vector<int64_t>> read_token_ids(const JsonView& view, const char* key);

/// image_grid_pinpoints in the order of the file: (height, width) in the Hugging Face layout. Where
/// absent LLaVA-1.6's own.
TileSizes read_tile_sizes(const JsonView& view, const char* key);

/// Refuses sizes (config.anyres, read from `key`) that are not made of whole tiles, or of absurdly
/// many.
void check_tile_sizes(const JsonView& view, const char* key, const ModelConfig& config);

/// pad_token_id, where it names a token.
std::optional<int64_t> read_pad_id(const JsonView& view);

}  // namespace vlm
