// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmsettings.h"

namespace gstvlm {
namespace {

std::string text_of(const GValue* value) {
  const char* text = g_value_get_string(value);
  return text == nullptr ? std::string() : std::string(text);
}

void set_text(GValue* value, const std::string& text) {
  g_value_set_string(value, text.empty() ? nullptr : text.c_str());
}

template <typename Enum>
Enum enum_of(const GValue* value) {
  return static_cast<Enum>(g_value_get_enum(value));
}

bool set_model(Settings& settings, guint id, const GValue* value) {
  switch (id) {
    case PROP_MODEL:
      settings.spec.model = text_of(value);
      return true;
    case PROP_VISION_TOWER:
      settings.spec.vision_tower = text_of(value);
      return true;
    case PROP_MODEL_BASE:
      settings.spec.model_base = text_of(value);
      return true;
    case PROP_DEVICE:
      settings.spec.device = text_of(value);
      return true;
    case PROP_DTYPE:
      settings.spec.dtype = enum_of<vlm::DType>(value);
      return true;
    case PROP_QUANTIZATION:
      settings.spec.quantization = enum_of<vlm::Quantization>(value);
      return true;
    case PROP_TRACE:
      settings.trace = text_of(value);
      return true;
    default:
      return false;
  }
}

bool get_model(const Settings& settings, guint id, GValue* value) {
  switch (id) {
    case PROP_MODEL:
      set_text(value, settings.spec.model);
      return true;
    case PROP_VISION_TOWER:
      set_text(value, settings.spec.vision_tower);
      return true;
    case PROP_MODEL_BASE:
      set_text(value, settings.spec.model_base);
      return true;
    case PROP_DEVICE:
      set_text(value, settings.spec.device);
      return true;
    case PROP_DTYPE:
      g_value_set_enum(value, nick(settings.spec.dtype));
      return true;
    case PROP_QUANTIZATION:
      g_value_set_enum(value, nick(settings.spec.quantization));
      return true;
    case PROP_TRACE:
      set_text(value, settings.trace);
      return true;
    default:
      return false;
  }
}

bool set_streaming(Settings::Streaming& streaming, guint id, const GValue* value) {
  switch (id) {
    case PROP_ACTIVE:
      streaming.active = g_value_get_boolean(value) != FALSE;
      return true;
    case PROP_INTERVAL:
      streaming.interval_ns = g_value_get_uint64(value);
      return true;
    case PROP_FRAMES:
      streaming.frames = g_value_get_uint(value);
      return true;
    case PROP_MODE:
      streaming.mode = enum_of<Mode>(value);
      return true;
    case PROP_MAX_PENDING:
      streaming.max_pending = g_value_get_uint(value);
      return true;
    case PROP_TEXT_TIMING:
      streaming.text_timing = enum_of<TextTiming>(value);
      return true;
    case PROP_LATENCY:
      streaming.latency_ns = g_value_get_uint64(value);
      return true;
    case PROP_META_POLICY:
      streaming.meta_policy = enum_of<MetaPolicy>(value);
      return true;
    case PROP_MAX_HELD_BYTES:
      streaming.max_held_bytes = g_value_get_uint64(value);
      return true;
    case PROP_EOS_TIMEOUT:
      streaming.eos_timeout_ns = g_value_get_uint64(value);
      return true;
    default:
      return false;
  }
}

bool get_streaming(const Settings::Streaming& streaming, guint id, GValue* value) {
  switch (id) {
    case PROP_ACTIVE:
      g_value_set_boolean(value, streaming.active);
      return true;
    case PROP_INTERVAL:
      g_value_set_uint64(value, streaming.interval_ns);
      return true;
    case PROP_FRAMES:
      g_value_set_uint(value, streaming.frames);
      return true;
    case PROP_MODE:
      g_value_set_enum(value, nick(streaming.mode));
      return true;
    case PROP_MAX_PENDING:
      g_value_set_uint(value, streaming.max_pending);
      return true;
    case PROP_TEXT_TIMING:
      g_value_set_enum(value, nick(streaming.text_timing));
      return true;
    case PROP_LATENCY:
      g_value_set_uint64(value, streaming.latency_ns);
      return true;
    case PROP_META_POLICY:
      g_value_set_enum(value, nick(streaming.meta_policy));
      return true;
    case PROP_MAX_HELD_BYTES:
      g_value_set_uint64(value, streaming.max_held_bytes);
      return true;
    case PROP_EOS_TIMEOUT:
      g_value_set_uint64(value, streaming.eos_timeout_ns);
      return true;
    default:
      return false;
  }
}

bool set_other(Settings& settings, guint id, const GValue* value) {
  switch (id) {
    case PROP_PROMPT:
      settings.prompt = text_of(value);
      return true;
    case PROP_PROMPT_FORMAT:
      settings.prompt_format = text_of(value);
      return true;
    case PROP_SYSTEM_PROMPT:
      settings.system_prompt.reset();
      if (g_value_get_string(value) != nullptr) {
        settings.system_prompt = text_of(value);
      }
      return true;
    case PROP_PARTIAL:
      settings.partial = g_value_get_boolean(value) != FALSE;
      return true;
    case PROP_DETAILS:
      settings.details = g_value_get_boolean(value) != FALSE;
      return true;
    case PROP_ON_ERROR:
      settings.on_error = enum_of<OnError>(value);
      return true;
    case PROP_STATS_INTERVAL:
      settings.stats_interval_ns = g_value_get_uint64(value);
      return true;
    default:
      return false;
  }
}

bool get_other(const Settings& settings, guint id, GValue* value) {
  switch (id) {
    case PROP_PROMPT:
      g_value_set_string(value, settings.prompt.c_str());
      return true;
    case PROP_PROMPT_FORMAT:
      g_value_set_string(value, settings.prompt_format.c_str());
      return true;
    case PROP_SYSTEM_PROMPT:
      g_value_set_string(value, settings.system_prompt ? settings.system_prompt->c_str() : nullptr);
      return true;
    case PROP_PARTIAL:
      g_value_set_boolean(value, settings.partial);
      return true;
    case PROP_DETAILS:
      g_value_set_boolean(value, settings.details);
      return true;
    case PROP_ON_ERROR:
      g_value_set_enum(value, nick(settings.on_error));
      return true;
    case PROP_STATS_INTERVAL:
      g_value_set_uint64(value, settings.stats_interval_ns);
      return true;
    default:
      return false;
  }
}

}  // namespace

Settings::Settings() : prompt(DEFAULT_PROMPT), prompt_format(DEFAULT_PROMPT_FORMAT) {
  spec.device = DEFAULT_DEVICE;
  spec.dtype = DEFAULT_DTYPE;
  spec.quantization = DEFAULT_QUANTIZATION;
  options.image_aspect_ratio = DEFAULT_IMAGE_ASPECT_RATIO;
  streaming.active = DEFAULT_ACTIVE;
  streaming.interval_ns = DEFAULT_INTERVAL;
  streaming.frames = DEFAULT_FRAMES;
  streaming.mode = DEFAULT_MODE;
  streaming.max_pending = DEFAULT_MAX_PENDING;
  streaming.text_timing = DEFAULT_TEXT_TIMING;
  streaming.latency_ns = DEFAULT_LATENCY;
  streaming.meta_policy = DEFAULT_META_POLICY;
  streaming.max_held_bytes = DEFAULT_MAX_HELD_BYTES;
  streaming.eos_timeout_ns = DEFAULT_EOS_TIMEOUT;
  partial = DEFAULT_PARTIAL;
  details = DEFAULT_DETAILS;
  on_error = DEFAULT_ON_ERROR;
  stats_interval_ns = DEFAULT_STATS_INTERVAL;
}

vlm::Prompt Settings::engine_prompt() const {
  return {prompt_format, system_prompt, {{vlm::Turn::Role::kUser, prompt}}};
}

bool set_setting(Settings& settings, guint id, const GValue* value) {
  return set_model(settings, id, value) || set_streaming(settings.streaming, id, value) ||
         set_option(settings.options, id, value) || set_other(settings, id, value);
}

bool get_setting(const Settings& settings, guint id, GValue* value) {
  return get_model(settings, id, value) || get_streaming(settings.streaming, id, value) ||
         get_option(settings.options, id, value) || get_other(settings, id, value);
}

}  // namespace gstvlm
