// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "loader/config.h"
#include "loader/weights.h"
#include "preprocess/image.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "vlm/error.h"
#include "vlm/types.h"

namespace vlm {

/// A checkpoint of either layout, read and verified: configuration, tensor headers against the
/// manifest that the configuration asks for, tokenizer, templates. Weights are mapped, not read.
/// Constant after open; reentrant.
class Checkpoint {
 public:
  /// Everything that can be checked without reading weights is checked here.
  static Result<std::shared_ptr<const Checkpoint>> open(const ModelSpec& spec);

  const std::string& path() const { return path_; }
  std::string name() const;  ///< last component of the path or hub id
  const ModelConfig& config() const { return config_; }
  const PreprocessorConfig& preprocessor() const { return preprocessor_; }
  const GenerationDefaults& generation() const { return generation_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const Weights& weights() const { return *weights_; }
  /// The checkpoint's own chat template where it has one.
  const std::optional<ChatTemplate>& chat_template() const { return chat_template_; }

 private:
  void open_hugging_face_layout(const std::string& directory);
  void open_original_layout(const ModelSpec& spec, const std::string& directory);
  void add_weights(std::unique_ptr<Weights> weights, const std::string& directory);

  std::string path_;
  ModelConfig config_;
  PreprocessorConfig preprocessor_;
  GenerationDefaults generation_;
  std::unique_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<const Weights> weights_;
  std::optional<ChatTemplate> chat_template_;
};

}  // namespace vlm
