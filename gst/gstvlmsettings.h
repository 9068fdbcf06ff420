// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// The values behind the element's writable properties: a plain struct, its defaults, and how
// GValues get in and out.

#include <gst/gst.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "gstvlmenums.h"
#include "vlm/types.h"

#define DEFAULT_DEVICE "auto"
#define DEFAULT_DTYPE vlm::DType::kAuto
#define DEFAULT_QUANTIZATION vlm::Quantization::kNone
#define DEFAULT_ACTIVE true
#define DEFAULT_PROMPT "Describe the scene."
#define DEFAULT_PROMPT_FORMAT "auto"
#define DEFAULT_IMAGE_ASPECT_RATIO vlm::AspectRatio::kAuto
#define DEFAULT_INTERVAL (2 * GST_SECOND)
#define SHORTEST_INTERVAL GST_MSECOND
#define DEFAULT_FRAMES 1
#define DEFAULT_MODE Mode::kAuto
#define DEFAULT_MAX_PENDING 4
#define DEFAULT_TEXT_TIMING TextTiming::kAuto
#define DEFAULT_LATENCY 0
#define DEFAULT_META_POLICY MetaPolicy::kLatest
#define DEFAULT_MAX_HELD_BYTES (G_GUINT64_CONSTANT(512) << 20)
#define DEFAULT_PARTIAL false
#define DEFAULT_DETAILS false
#define DEFAULT_MAX_NEW_TOKENS 128
#define DEFAULT_MIN_NEW_TOKENS 0
#define DEFAULT_TEMPERATURE 0.0
#define DEFAULT_TOP_K 0
#define DEFAULT_TOP_P 1.0
#define DEFAULT_MIN_P 0.0
#define DEFAULT_REPETITION_PENALTY 1.0
#define DEFAULT_NO_REPEAT_NGRAM_SIZE 0
#define DEFAULT_REPETITION_GUARD 0
#define DEFAULT_TOP_LOGPROBS 0
#define MOST_TOP_LOGPROBS 1024
#define DEFAULT_NUM_BEAMS 1
#define DEFAULT_LENGTH_PENALTY 1.0
#define DEFAULT_EARLY_STOPPING vlm::EarlyStopping::kFalse
#define DEFAULT_SEED G_MAXUINT64
#define DEFAULT_ON_ERROR OnError::kFail
#define DEFAULT_EOS_TIMEOUT (5 * GST_SECOND)
#define DEFAULT_STATS_INTERVAL 0

namespace gstvlm {

/// Values of all writable properties. A plain value: the element guards its own with the object
/// lock and hands out copies.
struct Settings {
  vlm::ModelSpec spec;  ///< `model` empty: the demo model
  std::string trace;    ///< empty: none

  // What a description asks for; a window takes the values of the moment it begins.
  std::string prompt;
  std::string prompt_format;
  std::optional<std::string> system_prompt;
  vlm::Options options;

  // What the streaming thread looks at for each buffer.
  struct Streaming {
    bool active = true;
    uint64_t interval_ns = 0;
    unsigned frames = 1;
    Mode mode = Mode::kAuto;
    unsigned max_pending = 1;
    TextTiming text_timing = TextTiming::kAuto;
    uint64_t latency_ns = 0;
    MetaPolicy meta_policy = MetaPolicy::kLatest;
    uint64_t max_held_bytes = 0;
    uint64_t eos_timeout_ns = 0;

    /// The interval that holds: a shorter one would cut more windows than any model describes.
    uint64_t window_ns() const {
      return interval_ns == 0 ? 0 : std::max<uint64_t>(interval_ns, SHORTEST_INTERVAL);
    }
  } streaming;

  // What deliveries look at.
  bool partial = false;
  bool details = false;
  OnError on_error = OnError::kFail;
  uint64_t stats_interval_ns = 0;

  /// The defaults of all properties.
  Settings();

  /// The prompt as the engine takes it.
  vlm::Prompt engine_prompt() const;
};

/// Properties that only the element itself can answer.
enum ReadOnlyProperty : guint { PROP_LAST_DESCRIPTION = 1, PROP_STATS, PROP_FIRST_SETTING };

/// Ids of the properties that are settings.
enum Setting : guint {
  PROP_MODEL = PROP_FIRST_SETTING,
  PROP_VISION_TOWER,
  PROP_MODEL_BASE,
  PROP_DEVICE,
  PROP_DTYPE,
  PROP_QUANTIZATION,
  PROP_ACTIVE,
  PROP_PROMPT,
  PROP_PROMPT_FORMAT,
  PROP_SYSTEM_PROMPT,
  PROP_IMAGE_ASPECT_RATIO,
  PROP_INTERVAL,
  PROP_FRAMES,
  PROP_MODE,
  PROP_MAX_PENDING,
  PROP_TEXT_TIMING,
  PROP_LATENCY,
  PROP_META_POLICY,
  PROP_MAX_HELD_BYTES,
  PROP_PARTIAL,
  PROP_DETAILS,
  PROP_MAX_NEW_TOKENS,
  PROP_MIN_NEW_TOKENS,
  PROP_TEMPERATURE,
  PROP_TOP_K,
  PROP_TOP_P,
  PROP_MIN_P,
  PROP_REPETITION_PENALTY,
  PROP_NO_REPEAT_NGRAM_SIZE,
  PROP_REPETITION_GUARD,
  PROP_TOP_LOGPROBS,
  PROP_NUM_BEAMS,
  PROP_LENGTH_PENALTY,
  PROP_EARLY_STOPPING,
  PROP_SEED,
  PROP_STOP,
  PROP_ON_ERROR,
  PROP_EOS_TIMEOUT,
  PROP_TRACE,
  PROP_STATS_INTERVAL,
};

/// Stores or reads a property. False where `id` is no setting. Reentrant.
bool set_setting(Settings& settings, guint id, const GValue* value);
bool get_setting(const Settings& settings, guint id, GValue* value);

/// The same for the generation options alone, which remember whether they were ever set.
bool set_option(vlm::Options& options, guint id, const GValue* value);
bool get_option(const vlm::Options& options, guint id, GValue* value);

}  // namespace gstvlm
