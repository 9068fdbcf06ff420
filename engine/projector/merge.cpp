// SPDX-License-Identifier: LGPL-2.1-or-later
#include "projector/merge.h"

#include <ATen/ops/cat.h>

#include "preprocess/tiles.h"

namespace vlm {

PictureMerge::PictureMerge(const ModelConfig& config, TensorSource& source) : config_(config) {
  if (config.anyres.merge == PatchMerge::kSpatialUnpad) {
    newline_ = source.take("image_newline", {config.text.hidden_size});
  }
}

at::Tensor PictureMerge::forward(const at::Tensor& images, const TileGrid& grid) const {
  const at::Tensor whole = images.select(0, 0);  // [tokens, hidden]
  if (grid.images() == 1) {
    return ends_with_newline(config_) ? at::cat({whole, newline_.unsqueeze(0)}) : whole;
  }
  if (config_.anyres.merge == PatchMerge::kFlat) return images.flatten(0, 1);
  const int64_t side = config_.vision.grid();
  const int64_t hidden = images.size(2);
  const at::Tensor patches =  // [rows · side, columns · side, hidden]
      images.slice(0, 1)
          .reshape({grid.rows, grid.columns, side, side, hidden})
          .transpose(1, 2)
          .reshape({grid.rows * side, grid.columns * side, hidden});
  const at::Tensor tiles = newline_.defined() ? without_padding(patches, grid) : patches;
  return at::cat({whole, tiles.reshape({-1, hidden})});
}

at::Tensor PictureMerge::without_padding(const at::Tensor& patches, const TileGrid& grid) const {
  const Window kept = kept_patches(config_, grid);
  const at::Tensor inner =
      patches.narrow(0, kept.top, kept.height).narrow(1, kept.left, kept.width);
  return at::cat({inner, newline_.expand({kept.height, 1, newline_.size(0)})}, 1);
}

}  // namespace vlm
