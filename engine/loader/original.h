// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <memory>
#include <string>

#include "loader/config.h"
#include "loader/weights.h"
#include "text/tokenizer.h"
#include "vlm/types.h"

namespace vlm {

/// What a checkpoint of the original layout is put together from, besides its config.json.
struct OriginalParts {
  std::string text_directory;  ///< tokenizer and generation_config.json: the base's where there is
                               ///< one
  PreprocessorConfig preprocessor;  ///< of the vision tower
  std::unique_ptr<Weights> weights;
};

/// Finds the tower and the base model that the checkpoint in `directory` needs, in the places that
/// `spec` names, in the hub cache and beside the checkpoint; maps all weights, with an adapter's on
/// their tensors, and completes `config` with the tower. Throws Failure: a part that is nowhere,
/// with the option that names it; a base or an adapter of a kind that is not supported.
OriginalParts open_original(const ModelSpec& spec, const std::string& directory,
                            ModelConfig& config);

/// How the original reads the tokenizer of such a checkpoint.
TokenizerOptions original_tokenizer(const ModelConfig& config);

/// Compares the tokenizer with the embedding's rows. Of the tokens that it has besides its files',
/// <im_patch> alone may lack a row: no prompt holds it. Throws Failure.
void check_original_vocabulary(const ModelConfig& config, const Tokenizer& tokenizer,
                               const std::string& directory);

/// Gives the vocabulary the tokenizer's size where it is larger, as the original does.
void cut_vocabulary(ModelConfig& config, int64_t tokens, Weights& weights);

/// The directory that `name` means: itself, or the hub id's in the local cache. `what` names it in
/// the error, as in "model". Throws Failure.
std::string find_directory(const std::string& name, const std::string& what);

}  // namespace vlm
