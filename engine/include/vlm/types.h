// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "vlm/gpu_picture.h"

namespace vlm {

/// A picture as a viewer sees it: upright, square pixels, 8-bit full-range sRGB.
struct Frame {
  int width = 0;             ///< pixels, > 0
  int height = 0;            ///< pixels, > 0
  std::vector<uint8_t> rgb;  ///< width · height · 3 bytes, rows top to bottom, no padding
  /// Instead of `rgb`: the picture, where it lies on the GPU that the engine runs on
  /// (ModelInfo::device). Its upright size is width × height.
  std::shared_ptr<const GpuPicture> on_gpu = nullptr;
};

enum class DType { kAuto, kFloat32, kBFloat16, kFloat16 };
enum class Quantization { kNone, kInt8, kInt4, kW8A8, kW4A8 };
enum class AspectRatio { kAuto, kCrop, kPad, kAnyres };
enum class EarlyStopping { kFalse, kTrue, kNever };

/// Which model, and how it is held. Two equal specs opened in one process share one engine.
struct ModelSpec {
  std::string model;         ///< checkpoint directory, or a hub id that lies in the local cache
  std::string vision_tower;  ///< the same for the tower of checkpoints that hold none; else empty
  std::string model_base;    ///< the same for the base of projector-only or LoRA ones; else empty
  std::string device = "auto";  ///< auto, cpu, cuda, cuda:N
  DType dtype = DType::kAuto;   ///< auto: the checkpoint's on a GPU; on a CPU bfloat16 where it is
                                ///< fast, else float32
  Quantization quantization = Quantization::kNone;
  int64_t prompt_chunk = 0;  ///< prompt tokens that one step takes in while other texts are under
                             ///< way, a context at most: fewer let these go on sooner; 0: as suits
                             ///< the device, 256 on a CPU, 2048 on a GPU (fewer where memory is
                             ///< short)

  bool operator==(const ModelSpec&) const = default;
};

/// One turn of a conversation. `<image>` in a user's text marks where a picture goes.
struct Turn {
  enum class Role { kUser, kAssistant };
  Role role = Role::kUser;
  std::string text;
};

/// What is asked. Where no text holds `<image>`, the pictures go in front of the first user text as
/// the format has it; otherwise there must be exactly one `<image>` for each picture.
struct Prompt {
  std::string format = "auto";  ///< auto, hf, raw, vicuna_v1, llava_v0, … (`prompt_formats()`)
  std::optional<std::string> system;  ///< replaces the template's system text
  std::vector<Turn> turns;            ///< oldest first; the last is the user's
};

/// Generation options. Only what is set overrides the checkpoint's generation_config.json; where
/// neither says, the default in brackets holds.
struct Options {
  std::optional<int> max_new_tokens;            ///< [128] ≥ 1; clipped to what the context leaves
  std::optional<int> min_new_tokens;            ///< [0] no EOS before
  std::optional<double> temperature;            ///< [0] 0 is greedy; > 0 samples
  std::optional<int> top_k;                     ///< [0] 0 is off
  std::optional<double> top_p;                  ///< [1] (0, 1]; 1 is off
  std::optional<double> min_p;                  ///< [0] [0, 1]; 0 is off
  std::optional<double> repetition_penalty;     ///< [1] > 0; 1 is off
  std::optional<int> no_repeat_ngram_size;      ///< [0] 0 is off
  std::optional<int> num_beams;                 ///< [1] ≥ 1
  std::optional<double> length_penalty;         ///< [1]
  std::optional<EarlyStopping> early_stopping;  ///< [false]
  std::optional<uint64_t> seed;                 ///< [random] same seed and sequence, same text
  std::vector<std::string>
      stop;  ///< generation ends when the text ends in one; it stays in the text
  /// [0] 0 is off, else ≥ 2: a text ends where its last tokens are a cycle this many times over
  /// (short cycles: 16 tokens at least). The cycle stays in the text once, what repeats it is taken
  /// out again; partial texts may have told it. With beams, a beam that loops is a finished one.
  std::optional<int> repetition_guard;
  std::optional<int>
      top_logprobs;  ///< [0] likeliest tokens to tell beside each chosen one; 0: none
  AspectRatio image_aspect_ratio = AspectRatio::kAuto;

  bool operator==(const Options&) const = default;
};

enum class FinishReason { kStop, kLength, kStopString, kRepetition, kCancelled };

/// The word used in messages, metadata and JSON: stop, length, stop_string, repetition, cancelled.
constexpr const char* finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kStopString:
      return "stop_string";
    case FinishReason::kRepetition:
      return "repetition";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "?";
}

/// Where the time of one request went, in milliseconds.
struct Timing {
  double wait_ms = 0;     ///< submit to the model's first work on it
  double vision_ms = 0;   ///< tower and projector of its pictures
  double prefill_ms = 0;  ///< prompt up to the first token's logits
  double decode_ms = 0;   ///< first token to the last
  double total_ms = 0;    ///< submit to the result
};

/// One of the tokens that a text could have gone on with.
struct TokenChoice {
  int64_t id = 0;
  std::string text;  ///< what it adds to a text, in UTF-8; a single byte as <0xHH>
  float logprob = 0;
};

/// The answer to one request.
struct Description {
  std::string text;                ///< special tokens left out, white space trimmed at both ends
  std::string prompt;              ///< the final prompt text
  std::vector<int64_t> token_ids;  ///< generated only, EOS included
  std::vector<float> logprobs;     ///< of each chosen token under the model's raw distribution
  /// For each chosen token the likeliest ones in its place, best first, under the raw distribution;
  /// empty unless Options::top_logprobs asks for them.
  std::vector<std::vector<TokenChoice>> top_logprobs;
  std::optional<double> sequence_score;  ///< beam search only; of the text before a loop is cut
  FinishReason finish_reason = FinishReason::kStop;
  int64_t prompt_tokens = 0;  ///< ids after image expansion, BOS included
  int64_t image_tokens = 0;
  Timing timing;

  /// Mean log-probability of the chosen tokens; 0 where there are none.
  double mean_logprob() const {
    return logprobs.empty() ? 0
                            : std::accumulate(logprobs.begin(), logprobs.end(), 0.0) /
                                  static_cast<double>(logprobs.size());
  }
};

}  // namespace vlm
