// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmenums.h"

#include <gst/gst.h>

#include <array>

#include "vlm/types.h"

namespace gstvlm {
namespace {

// `values` must live for ever and end in zeros.
template <size_t kCount>
GType register_enum(const char* name, const std::array<GEnumValue, kCount>& values) {
  const GType type = g_enum_register_static(name, values.data());
  gst_type_mark_as_plugin_api(type, static_cast<GstPluginAPIFlags>(0));
  return type;
}

}  // namespace

GType dtype_type() {
  static const std::array<GEnumValue, 5> values = {{
      {nick(vlm::DType::kAuto), "The checkpoint's on a GPU, what the CPU does best else", "auto"},
      {nick(vlm::DType::kFloat32), "32-bit floating point", "float32"},
      {nick(vlm::DType::kBFloat16), "16-bit floating point, wide range", "bfloat16"},
      {nick(vlm::DType::kFloat16), "16-bit floating point, narrow range", "float16"},
      {0, nullptr, nullptr},
  }};
  static const GType type = register_enum("GstVlmDType", values);
  return type;
}

GType quantization_type() {
  static const std::array<GEnumValue, 6> values = {{
      {nick(vlm::Quantization::kNone), "Weights as the data type says", "none"},
      {nick(vlm::Quantization::kInt8), "Weights in 8 bits", "int8"},
      {nick(vlm::Quantization::kInt4), "Weights in 4 bits", "int4"},
      {nick(vlm::Quantization::kW8A8), "Weights in 8 bits, multiplied in 8 bits", "w8a8"},
      {nick(vlm::Quantization::kW4A8), "Weights in 4 bits, multiplied in 8 bits", "w4a8"},
      {0, nullptr, nullptr},
  }};
  static const GType type = register_enum("GstVlmQuantization", values);
  return type;
}

GType aspect_ratio_type() {
  static const std::array<GEnumValue, 5> values = {{
      {nick(vlm::AspectRatio::kAuto), "What the checkpoint says", "auto"},
      {nick(vlm::AspectRatio::kCrop), "The middle square of the picture", "crop"},
      {nick(vlm::AspectRatio::kPad), "The whole picture, padded to a square", "pad"},
      {nick(vlm::AspectRatio::kAnyres), "The whole picture and its tiles", "anyres"},
      {0, nullptr, nullptr},
  }};
  static const GType type = register_enum("GstVlmAspectRatio", values);
  return type;
}

GType early_stopping_type() {
  static const std::array<GEnumValue, 4> values = {{
      {nick(vlm::EarlyStopping::kFalse), "When better beams are unlikely", "false"},
      {nick(vlm::EarlyStopping::kTrue), "As soon as there are enough beams", "true"},
      {nick(vlm::EarlyStopping::kNever), "When better beams are impossible", "never"},
      {0, nullptr, nullptr},
  }};
  static const GType type = register_enum("GstVlmEarlyStopping", values);
  return type;
}

GType mode_type() {
  static const std::array<GEnumValue, 4> values = {{
      {nick(Mode::kAuto), "Live where a latency query says so or fails", "auto"},
      {nick(Mode::kLive), "Video never waits; the newest window wins", "live"},
      {nick(Mode::kRecorded), "Every window is described; video waits", "recorded"},
      {0, nullptr, nullptr},
  }};
  static const GType type = register_enum("GstVlmMode", values);
  return type;
}

GType text_timing_type() {
  static const std::array<GEnumValue, 4> values = {{
      {nick(TextTiming::kAuto), "window for recordings, arrival for live sources", "auto"},
      {nick(TextTiming::kWindow), "The time of the video that is described", "window"},
      {nick(TextTiming::kArrival), "The time of the video when the text is ready", "arrival"},
      {0, nullptr, nullptr},
  }};
  static const GType type = register_enum("GstVlmTextTiming", values);
  return type;
}

GType meta_policy_type() {
  static const std::array<GEnumValue, 4> values = {{
      {nick(MetaPolicy::kNone), "Buffers carry no description", "none"},
      {nick(MetaPolicy::kLatest), "Buffers carry the newest finished description", "latest"},
      {nick(MetaPolicy::kExact), "Buffers wait for the description that covers them", "exact"},
      {0, nullptr, nullptr},
  }};
  static const GType type = register_enum("GstVlmMetaPolicy", values);
  return type;
}

GType on_error_type() {
  static const std::array<GEnumValue, 3> values = {{
      {nick(OnError::kFail), "Stop with an element error", "fail"},
      {nick(OnError::kSkip), "Post a warning and go on", "skip"},
      {0, nullptr, nullptr},
  }};
  static const GType type = register_enum("GstVlmOnError", values);
  return type;
}

}  // namespace gstvlm
