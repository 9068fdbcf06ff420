// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <vector>

#include "layers/linear.h"
#include "loader/config.h"
#include "loader/tensors.h"

namespace vlm {

/// CLIP's vision transformer up to the last hidden state that the projector takes (transformers
/// models/clip/modeling_clip.py). Weights constant after construction; thread-bound through
/// libtorch's own rules.
class VisionTower {
 public:
  VisionTower(const ModelConfig& config, TensorSource& source, std::optional<Packing> packing);

  /// [images, channels, image_size, image_size] → [images, patches (+1 with CLS), feature_size].
  /// Calls `after_block` with the multiplications of each block.
  at::Tensor forward(const at::Tensor& pixels,
                     const std::function<void(double)>& after_block) const;

 private:
  struct Norm {
    at::Tensor weight, bias;  // [hidden]
  };
  struct Layer {
    Norm norm1, norm2;
    LinearGroup qkv;
    Linear out, fc1, fc2;
  };

  Layer take_layer(TensorSource& source, int64_t index, std::optional<Packing> packing) const;
  Norm take_norm(TensorSource& source, const std::string& name) const;
  at::Tensor normalize(const at::Tensor& x, const Norm& norm) const;
  at::Tensor embed_patches(const at::Tensor& pixels) const;  ///< [images, patches, hidden]
  /// x: [images · tokens, hidden].
  at::Tensor attend(const at::Tensor& x, int64_t images, const Layer& layer) const;

  VisionConfig config_;
  bool keep_cls_;
  std::vector<int64_t>
      states_;  ///< hidden states to take: 0 is the embeddings, k the output of block k
  at::Tensor class_embedding_, patch_weight_, position_embedding_;
  Norm pre_norm_;
  std::vector<Layer> layers_;
};

}  // namespace vlm
