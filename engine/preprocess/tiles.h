// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "loader/config.h"
#include "preprocess/image.h"
#include "preprocess/resample.h"
#include "vlm/error.h"
#include "vlm/types.h"

namespace vlm {

/// LLaVA-1.6's tiles: how a picture is cut, how many tokens it takes, what of it reaches the
/// decoder. Both references' arithmetic (transformers models/llava_next, LLaVA mm_utils.py and
/// llava_arch.py), told apart by ModelConfig::layout. All of it pure and reentrant.

/// What becomes of pictures: `asked`, or where that is auto what the checkpoint says. Still auto:
/// the preprocessor's configuration decides between crop and pad. Error kUnsupported: anyres, but
/// the checkpoint knows no sizes for tiles.
Result<AspectRatio> picture_aspect_ratio(const ModelConfig& model, AspectRatio asked);

/// The one of `sizes` (height, width; not empty) that keeps most of a picture's pixels, then the
/// one that wastes least, then the first.
std::pair<int64_t, int64_t> best_size(const TileSizes& sizes, int64_t height, int64_t width);

/// How a picture of height × width pixels (both above 0) lies in the tower's inputs.
/// `aspect_ratio` is picture_aspect_ratio()'s.
TileGrid picture_grid(const ModelConfig& model, AspectRatio aspect_ratio, int64_t height,
                      int64_t width);

/// The part of the tiles' patches, row by row over all tiles, that is no padding; may be empty
/// where the picture is of extreme shape. In patches. Only for grids with tiles.
Window kept_patches(const ModelConfig& model, const TileGrid& grid);

/// Whether a learnt newline ends a picture without tiles, too. The original never comes to that: it
/// knows such pictures as batches without newlines.
bool ends_with_newline(const ModelConfig& model);

/// Tokens that a picture takes in the prompt, as merge_tiles() makes them.
int64_t picture_tokens(const ModelConfig& model, const TileGrid& grid);

/// One frame as the tower takes it: preprocess_image(), or for anyres the picture as a whole,
/// resized to the tower's size whatever its shape, and then its tiles row by row, cut from the
/// picture fitted on black into its best size. Bit-equal to the layout's reference. `aspect_ratio`
/// is picture_aspect_ratio()'s. Errors: preprocess_image()'s.
Result<PixelTensor> preprocess_picture(const Frame& frame, const ModelConfig& model,
                                       const PreprocessorConfig& config, AspectRatio aspect_ratio);

/// How preprocess_picture() makes the inputs of a frame of height × width, for who makes them
/// elsewhere. Empty where the configuration resizes or crops tiles again, which no plan says.
/// Errors: preprocess_image()'s.
Result<std::vector<ImagePlan>> plan_picture(int64_t height, int64_t width, const ModelConfig& model,
                                            const PreprocessorConfig& config,
                                            AspectRatio aspect_ratio);

}  // namespace vlm
