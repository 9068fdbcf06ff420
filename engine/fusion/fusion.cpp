// SPDX-License-Identifier: LGPL-2.1-or-later
#include "fusion/fusion.h"

#include <ATen/ops/embedding.h>

namespace vlm {

at::Tensor fuse(const at::Tensor& embedding_table, const at::Tensor& ids,
                const std::vector<ImagePlacement>& placements) {
  at::Tensor rows = at::embedding(embedding_table, ids);
  for (const ImagePlacement& placement : placements) {
    rows.narrow(0, placement.row, placement.embeds.size(0)).copy_(placement.embeds);
  }
  return rows;
}

}  // namespace vlm
