// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "loader/tensors.h"
#include "unit/checkpoint_writer.h"

namespace vlm::test {

/// A checkpoint's weights in a file of their own: contiguous tensors on the CPU.
class StoredTensors {
 public:
  explicit StoredTensors(const std::map<std::string, at::Tensor>& tensors) {
    Json header;
    std::string data;
    for (const auto& [name, tensor] : tensors) {
      const char* dtype = tensor.scalar_type() == at::kFloat      ? "F32"
                          : tensor.scalar_type() == at::kBFloat16 ? "BF16"
                                                                  : "F16";
      header[name] = {{"dtype", dtype},
                      {"shape", tensor.sizes().vec()},
                      {"data_offsets", {data.size(), data.size() + tensor.nbytes()}}};
      data.append(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes());
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    directory_.write("model.safetensors", little_endian(text.size(), 8) + text + data);
    weights_ = std::move(*Weights::open(directory_.path()));
  }

  const Weights& weights() const { return *weights_; }
  TensorSource source(at::ScalarType type) const {
    return TensorSource(*weights_, at::kCPU, type, {}, {});
  }

 private:
  TemporaryDirectory directory_;
  std::unique_ptr<Weights> weights_;
};

}  // namespace vlm::test
