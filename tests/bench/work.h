// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/packed_matrix.h"
#include "loader/config.h"

namespace bench {

/// What a model asks of a machine, whatever program runs it: products with weights alone, without
/// attention, norms and the like.
struct Work {
  int64_t picture_operations = 0;       ///< tower and projector, for one image of the tower's size
  int64_t prompt_token_operations = 0;  ///< the decoder's layers, for each token of a prompt
  int64_t head_operations = 0;          ///< the logits of one token
  int64_t token_parameters = 0;         ///< of all matrices that one token of a text reads
  int64_t token_bytes = 0;              ///< the same as they lie in memory
  int64_t slot_bytes = 0;               ///< keys and values of one token

  /// From the pixels to the first token.
  int64_t first_token_operations(int64_t images, int64_t prompt_tokens) const {
    return images * picture_operations + prompt_tokens * prompt_token_operations + head_operations;
  }
};

/// `element_size`: bytes of a number in the model's type. `packed`: how the decoder's matrices are
/// held where they are packed; the logits' matrix has 8 bits then. Pure.
Work work_of(const vlm::ModelConfig& config, int64_t element_size,
             std::optional<vlm::PackedFormat> packed);

}  // namespace bench
