// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "loader/config.h"

namespace vlm {

/// What several of the configuration's files, or both layouts, write alike. All throw Failure.

VisionConfig read_vision(const std::optional<JsonView>& view);
TextConfig read_text(const JsonView& view);
/// dtype or torch_dtype; kAuto where neither says.
DType stored_dtype(const JsonView& view);
/// Refuses a quantised checkpoint.
void refuse_quantized(const JsonView& view);

/// The path of config.json, which makes a directory that of a `what`, as in "model".
std::string config_of(const std::string& directory, const char* what);

/// Whether config.json is written as the original project does it.
bool is_original_layout(const JsonView& view);
/// Such a config.json, without what only the tower's own files say (set_tower).
ModelConfig read_original_config(const JsonView& view);

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
