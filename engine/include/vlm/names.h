// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "vlm/types.h"

namespace vlm {

// Names of enum values as options and properties spell them. Header only, so that a host that opens
// the library at run time can use them. Reentrant.

template <typename Enum, size_t kCount>
using EnumNames = std::array<std::pair<Enum, const char*>, kCount>;

inline constexpr EnumNames<DType, 4> kDTypeNames = {{{DType::kAuto, "auto"},
                                                     {DType::kFloat32, "float32"},
                                                     {DType::kBFloat16, "bfloat16"},
                                                     {DType::kFloat16, "float16"}}};
inline constexpr EnumNames<Quantization, 5> kQuantizationNames = {{{Quantization::kNone, "none"},
                                                                   {Quantization::kInt8, "int8"},
                                                                   {Quantization::kInt4, "int4"},
                                                                   {Quantization::kW8A8, "w8a8"},
                                                                   {Quantization::kW4A8, "w4a8"}}};
inline constexpr EnumNames<AspectRatio, 4> kAspectRatioNames = {{{AspectRatio::kAuto, "auto"},
                                                                 {AspectRatio::kCrop, "crop"},
                                                                 {AspectRatio::kPad, "pad"},
                                                                 {AspectRatio::kAnyres, "anyres"}}};
inline constexpr EnumNames<EarlyStopping, 3> kEarlyStoppingNames = {
    {{EarlyStopping::kFalse, "false"},
     {EarlyStopping::kTrue, "true"},
     {EarlyStopping::kNever, "never"}}};

/// Name of `value` in one of the tables above; "?" where it has none.
template <typename Enum, size_t kCount>
constexpr const char* enum_name(const EnumNames<Enum, kCount>& names, Enum value) {
  for (const auto& [known, name] : names) {
    if (known == value) {
      return name;
    }
  }
  return "?";
}

/// Value called `name` in one of the tables above.
template <typename Enum, size_t kCount>
constexpr std::optional<Enum> enum_value(const EnumNames<Enum, kCount>& names,
                                         std::string_view name) {
  for (const auto& [value, known] : names) {
    if (name == known) {
      return value;
    }
  }
  return std::nullopt;
}

constexpr const char* dtype_name(DType value) {
  return enum_name(kDTypeNames, value);
}
constexpr const char* quantization_name(Quantization value) {
  return enum_name(kQuantizationNames, value);
}
constexpr const char* aspect_ratio_name(AspectRatio value) {
  return enum_name(kAspectRatioNames, value);
}
constexpr const char* early_stopping_name(EarlyStopping value) {
  return enum_name(kEarlyStoppingNames, value);
}

}  // namespace vlm
