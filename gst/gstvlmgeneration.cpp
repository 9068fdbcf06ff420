// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmproperties.h"

namespace gstvlm {
namespace {

void install_count(GObjectClass* klass, guint id, const char* name, const char* label,
                   const char* blurb, guint minimum, guint standard) {
  g_object_class_install_property(
      klass, id, g_param_spec_uint(name, label, blurb, minimum, G_MAXINT, standard, kControllable));
}

void install_number(GObjectClass* klass, guint id, const char* name, const char* label,
                    const char* blurb, gdouble minimum, gdouble maximum, gdouble standard) {
  g_object_class_install_property(
      klass, id,
      g_param_spec_double(name, label, blurb, minimum, maximum, standard, kControllable));
}

void install_length(GObjectClass* klass) {
  /**
   * GstVlmDescribe:max-new-tokens:
   *
   * Tokens after which a description ends at the latest. This and every other generation property
   * overrides the checkpoint's generation_config.json only where it is set.
   *
   * Since: 0.1
   */
  install_count(klass, PROP_MAX_NEW_TOKENS, "max-new-tokens", "Max new tokens",
                "Tokens after which a description ends at the latest", 1, DEFAULT_MAX_NEW_TOKENS);
  /**
   * GstVlmDescribe:min-new-tokens:
   *
   * Tokens before which a description does not end.
   *
   * Since: 0.1
   */
  install_count(klass, PROP_MIN_NEW_TOKENS, "min-new-tokens", "Min new tokens",
                "Tokens before which a description does not end", 0, DEFAULT_MIN_NEW_TOKENS);
  /**
   * GstVlmDescribe:stop:
   *
   * Strings at which a description ends; they stay in the text.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_STOP,
      gst_param_spec_array("stop", "Stop",
                           "Strings at which a description ends; they stay in the text",
                           g_param_spec_string("stop-string", "Stop string", "One of the strings",
                                               nullptr, kPlaying),
                           kPlaying));
}

void install_sampling(GObjectClass* klass) {
  /**
   * GstVlmDescribe:temperature:
   *
   * Randomness of the choice of tokens. 0: always the likeliest.
   *
   * Since: 0.1
   */
  install_number(klass, PROP_TEMPERATURE, "temperature", "Temperature",
                 "Randomness of the choice of tokens (0: always the likeliest)", 0, G_MAXFLOAT,
                 DEFAULT_TEMPERATURE);
  /**
   * GstVlmDescribe:top-k:
   *
   * Sampling looks at the k likeliest tokens only. 0: off.
   *
   * Since: 0.1
   */
  install_count(klass, PROP_TOP_K, "top-k", "Top k",
                "Sampling looks at the k likeliest tokens only (0: off)", 0, DEFAULT_TOP_K);
  /**
   * GstVlmDescribe:top-p:
   *
   * Sampling looks at the likeliest tokens that reach this probability together. 1: off.
   *
   * Since: 0.1
   */
  install_number(klass, PROP_TOP_P, "top-p", "Top p",
                 "Sampling looks at the likeliest tokens that reach this probability (1: off)", 0,
                 1, DEFAULT_TOP_P);
  /**
   * GstVlmDescribe:min-p:
   *
   * Sampling looks at tokens at least this likely relative to the likeliest. 0: off.
   *
   * Since: 0.1
   */
  install_number(klass, PROP_MIN_P, "min-p", "Min p",
                 "Sampling looks at tokens this likely relative to the likeliest (0: off)", 0, 1,
                 DEFAULT_MIN_P);
  /**
   * GstVlmDescribe:seed:
   *
   * Seed of sampling: with the same one, the same video gives the same texts, but where a 16-bit
   * type rounds otherwise because other windows are computed together. The largest value
   * means another one for each run.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_SEED,
      g_param_spec_uint64("seed", "Seed",
                          "Seed of sampling, same seed, same texts (largest value: random)", 0,
                          G_MAXUINT64, DEFAULT_SEED, kControllable));
}

void install_penalties(GObjectClass* klass) {
  /**
   * GstVlmDescribe:repetition-penalty:
   *
   * Makes tokens that were already there less likely. 1: off.
   *
   * Since: 0.1
   */
  install_number(klass, PROP_REPETITION_PENALTY, "repetition-penalty", "Repetition penalty",
                 "Makes tokens that were already there less likely (1: off)", 0, G_MAXFLOAT,
                 DEFAULT_REPETITION_PENALTY);
  /**
   * GstVlmDescribe:no-repeat-ngram-size:
   *
   * No sequence of this many tokens comes twice. 0: off.
   *
   * Since: 0.1
   */
  install_count(klass, PROP_NO_REPEAT_NGRAM_SIZE, "no-repeat-ngram-size", "No repeat n-gram size",
                "No sequence of this many tokens comes twice (0: off)", 0,
                DEFAULT_NO_REPEAT_NGRAM_SIZE);
  /**
   * GstVlmDescribe:repetition-guard:
   *
   * A description whose last tokens are a cycle this many times over ends there, with the
   * finish-reason repetition; short cycles must span 16 tokens. The text keeps the cycle once. With
   * beams, one that loops is finished. 0: off; 1 is refused.
   *
   * Since: 0.1
   */
  install_count(klass, PROP_REPETITION_GUARD, "repetition-guard", "Repetition guard",
                "Ends a description that said the same this many times in a row (0: off)", 0,
                DEFAULT_REPETITION_GUARD);
  /**
   * GstVlmDescribe:num-beams:
   *
   * Beams of beam search. 1: none.
   *
   * Since: 0.1
   */
  install_count(klass, PROP_NUM_BEAMS, "num-beams", "Number of beams",
                "Beams of beam search (1: no beam search)", 1, DEFAULT_NUM_BEAMS);
  /**
   * GstVlmDescribe:length-penalty:
   *
   * Beam search: above 0 favours longer texts, below 0 shorter ones.
   *
   * Since: 0.1
   */
  install_number(klass, PROP_LENGTH_PENALTY, "length-penalty", "Length penalty",
                 "Beam search: above 0 favours longer texts, below 0 shorter ones", -G_MAXFLOAT,
                 G_MAXFLOAT, DEFAULT_LENGTH_PENALTY);
  /**
   * GstVlmDescribe:early-stopping:
   *
   * When beam search ends.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_EARLY_STOPPING,
      g_param_spec_enum("early-stopping", "Early stopping", "When beam search ends",
                        early_stopping_type(), nick(DEFAULT_EARLY_STOPPING), kControllable));
}

void install_scores(GObjectClass* klass) {
  /**
   * GstVlmDescribe:top-logprobs:
   *
   * With details: the likeliest tokens in the place of each chosen one, this many, with their
   * log-probabilities. 0: none.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_TOP_LOGPROBS,
      g_param_spec_uint("top-logprobs", "Top log-probabilities",
                        "With details: the likeliest tokens at each place, this many (0: none)", 0,
                        MOST_TOP_LOGPROBS, DEFAULT_TOP_LOGPROBS, kControllable));
}

int to_int(const GValue* value) {
  return static_cast<int>(g_value_get_uint(value));
}

void from_int(GValue* value, const std::optional<int>& number, guint standard) {
  g_value_set_uint(value, number ? static_cast<guint>(*number) : standard);
}

void set_stop(vlm::Options& options, const GValue* value) {
  options.stop.clear();
  for (guint i = 0; i < gst_value_array_get_size(value); ++i) {
    const char* text = g_value_get_string(gst_value_array_get_value(value, i));
    if (text != nullptr && *text != '\0') {
      options.stop.emplace_back(text);
    }
  }
}

void get_stop(const vlm::Options& options, GValue* value) {
  for (const std::string& text : options.stop) {
    GValue item = G_VALUE_INIT;
    g_value_init(&item, G_TYPE_STRING);
    g_value_set_string(&item, text.c_str());
    gst_value_array_append_and_take_value(value, &item);
  }
}

bool set_search_option(vlm::Options& options, guint id, const GValue* value) {
  switch (id) {
    case PROP_REPETITION_PENALTY:
      options.repetition_penalty = g_value_get_double(value);
      return true;
    case PROP_NO_REPEAT_NGRAM_SIZE:
      options.no_repeat_ngram_size = to_int(value);
      return true;
    case PROP_REPETITION_GUARD:
      options.repetition_guard = to_int(value);
      return true;
    case PROP_TOP_LOGPROBS:
      options.top_logprobs = to_int(value);
      return true;
    case PROP_NUM_BEAMS:
      options.num_beams = to_int(value);
      return true;
    case PROP_LENGTH_PENALTY:
      options.length_penalty = g_value_get_double(value);
      return true;
    case PROP_EARLY_STOPPING:
      options.early_stopping = static_cast<vlm::EarlyStopping>(g_value_get_enum(value));
      return true;
    case PROP_IMAGE_ASPECT_RATIO:
      options.image_aspect_ratio = static_cast<vlm::AspectRatio>(g_value_get_enum(value));
      return true;
    default:
      return false;
  }
}

bool get_search_option(const vlm::Options& options, guint id, GValue* value) {
  switch (id) {
    case PROP_REPETITION_PENALTY:
      g_value_set_double(value, options.repetition_penalty.value_or(DEFAULT_REPETITION_PENALTY));
      return true;
    case PROP_NO_REPEAT_NGRAM_SIZE:
      from_int(value, options.no_repeat_ngram_size, DEFAULT_NO_REPEAT_NGRAM_SIZE);
      return true;
    case PROP_REPETITION_GUARD:
      from_int(value, options.repetition_guard, DEFAULT_REPETITION_GUARD);
      return true;
    case PROP_TOP_LOGPROBS:
      from_int(value, options.top_logprobs, DEFAULT_TOP_LOGPROBS);
      return true;
    case PROP_NUM_BEAMS:
      from_int(value, options.num_beams, DEFAULT_NUM_BEAMS);
      return true;
    case PROP_LENGTH_PENALTY:
      g_value_set_double(value, options.length_penalty.value_or(DEFAULT_LENGTH_PENALTY));
      return true;
    case PROP_EARLY_STOPPING:
      g_value_set_enum(value, nick(options.early_stopping.value_or(DEFAULT_EARLY_STOPPING)));
      return true;
    case PROP_IMAGE_ASPECT_RATIO:
      g_value_set_enum(value, nick(options.image_aspect_ratio));
      return true;
    default:
      return false;
  }
}

}  // namespace

void install_generation(GObjectClass* klass) {
  install_length(klass);
  install_sampling(klass);
  install_penalties(klass);
  install_scores(klass);
}

bool set_option(vlm::Options& options, guint id, const GValue* value) {
  switch (id) {
    case PROP_MAX_NEW_TOKENS:
      options.max_new_tokens = to_int(value);
      return true;
    case PROP_MIN_NEW_TOKENS:
      options.min_new_tokens = to_int(value);
      return true;
    case PROP_STOP:
      set_stop(options, value);
      return true;
    case PROP_TEMPERATURE:
      options.temperature = g_value_get_double(value);
      return true;
    case PROP_TOP_K:
      options.top_k = to_int(value);
      return true;
    case PROP_TOP_P:
      options.top_p = g_value_get_double(value);
      return true;
    case PROP_MIN_P:
      options.min_p = g_value_get_double(value);
      return true;
    case PROP_SEED: {
      const guint64 seed = g_value_get_uint64(value);
      options.seed = seed == DEFAULT_SEED ? std::nullopt : std::optional<uint64_t>(seed);
      return true;
    }
    default:
      return set_search_option(options, id, value);
  }
}

bool get_option(const vlm::Options& options, guint id, GValue* value) {
  switch (id) {
    case PROP_MAX_NEW_TOKENS:
      from_int(value, options.max_new_tokens, DEFAULT_MAX_NEW_TOKENS);
      return true;
    case PROP_MIN_NEW_TOKENS:
      from_int(value, options.min_new_tokens, DEFAULT_MIN_NEW_TOKENS);
      return true;
    case PROP_STOP:
      get_stop(options, value);
      return true;
    case PROP_TEMPERATURE:
      g_value_set_double(value, options.temperature.value_or(DEFAULT_TEMPERATURE));
      return true;
    case PROP_TOP_K:
      from_int(value, options.top_k, DEFAULT_TOP_K);
      return true;
    case PROP_TOP_P:
      g_value_set_double(value, options.top_p.value_or(DEFAULT_TOP_P));
      return true;
    case PROP_MIN_P:
      g_value_set_double(value, options.min_p.value_or(DEFAULT_MIN_P));
      return true;
    case PROP_SEED:
      g_value_set_uint64(value, options.seed.value_or(DEFAULT_SEED));
      return true;
    default:
      return get_search_option(options, id, value);
  }
}

}  // namespace gstvlm
