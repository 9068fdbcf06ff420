// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/convert.h"

#include <cstring>

#include "kernels/lanes.h"

namespace vlm {
namespace {

using vlm::load, vlm::store;

// The other 16 bits, uint16_t, are bfloat16 to load() and store().
struct Half {
  uint16_t bits;
};

constexpr uint32_t kSign = 0x80000000u;
constexpr uint32_t kQuiet = 0x00400000u;        // of what is no number
constexpr int kDropped = 13;                    // of float32's fraction
constexpr uint32_t kRebias = (127 - 15) << 23;  // from one exponent to the other

// Without F16C's instructions, which not every processor has: conversions wait for memory anyway.
// Nor is any float32 here so small that a processor told to flush such ones to zero would.
template <int kLanes>
VLM_INLINE inline void load(const Half* from, Lanes<kLanes>& to) {
  using Words = typename Vectors<kLanes>::Words;
  typename Vectors<kLanes>::Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  const Words all = __builtin_convertvector(halves, Words);
  const Words size = (all & 0x7FFFu) << kDropped;
  // Below the smallest exponent: as a fraction of 2^-14, which is then taken off.
  constexpr uint32_t kLowest = kRebias + (1 << 23);
  const Words raised = size + kLowest;
  Lanes<kLanes> small, lowest = Lanes<kLanes>{} + 0x1p-14f;
  std::memcpy(&small, &raised, sizeof small);
  small -= lowest;
  Words bits;
  std::memcpy(&bits, &small, sizeof bits);
  bits = size >= 0x400u << kDropped ? size + kRebias : bits;
  bits = size >= 0x7C00u << kDropped ? size + 2 * kRebias : bits;
  bits = size > 0x7C00u << kDropped ? bits | kQuiet : bits;
  bits |= (all & 0x8000u) << 16;
  std::memcpy(&to, &bits, sizeof to);
}

template <int kLanes>
VLM_INLINE inline void store(const Lanes<kLanes>& value, Half* to) {
  using Words = typename Vectors<kLanes>::Words;
  Words bits;
  std::memcpy(&bits, &value, sizeof bits);
  const Words size = bits & ~kSign;
  constexpr uint32_t kInfinity = 0x7C00u << kDropped;  // behind the exponent's change
  constexpr uint32_t kSmallest = kRebias + (1 << 23), kTooLarge = kRebias + kInfinity;
  const Words odd = size >> kDropped & 1u;
  Words half = (size - kRebias + ((1u << (kDropped - 1)) - 1) + odd) >> kDropped;
  // Adding ½ shifts what has no exponent of its own to where float32 rounds it.
  Lanes<kLanes> shifted;
  std::memcpy(&shifted, &size, sizeof shifted);
  shifted += 0.5f;
  Words small;
  std::memcpy(&small, &shifted, sizeof small);
  half = size < kSmallest ? small - 0x3F000000u : half;
  half = size >= kTooLarge ? Words{} + 0x7C00u : half;
  half = value != value ? 0x7E00u | (size >> kDropped & 0x3FFu) : half;
  half |= bits >> 16 & 0x8000u;
  const auto halves = __builtin_convertvector(half, typename Vectors<kLanes>::Halves);
  std::memcpy(to, &halves, sizeof halves);
}

template <int kLanes, typename From, typename To>
VLM_INLINE inline void convert_run(const From* from, To* to) {
  Lanes<kLanes> values;
  load<kLanes>(from, values);
  store<kLanes>(values, to);
}

template <typename From, typename To>
void convert(const void* from, void* to, int64_t count) {
  with_lanes([&](auto lanes) VLM_INLINE {
    constexpr int kLanes = decltype(lanes)::value;
    const auto* in = static_cast<const From*>(from);
    auto* out = static_cast<To*>(to);
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) convert_run<kLanes>(in + i, out + i);
    if (i == count) return;
    const auto left = static_cast<size_t>(count - i);
    From last[kLanes] = {};
    To converted[kLanes];
    std::memcpy(last, in + i, left * sizeof(From));
    convert_run<kLanes>(last, converted);
    std::memcpy(out + i, converted, left * sizeof(To));
  });
}

template <typename From>
void convert_from(const void* from, KernelType to_type, void* to, int64_t count) {
  switch (to_type) {
    case KernelType::kFloat32:
      return convert<From, float>(from, to, count);
    case KernelType::kBFloat16:
      return convert<From, uint16_t>(from, to, count);
    case KernelType::kFloat16:
      return convert<From, Half>(from, to, count);
  }
}

}  // namespace

void convert_values(KernelType from_type, const void* from, KernelType to_type, void* to,
                    int64_t count) {
  switch (from_type) {
    case KernelType::kFloat32:
      return convert_from<float>(from, to_type, to, count);
    case KernelType::kBFloat16:
      return convert_from<uint16_t>(from, to_type, to, count);
    case KernelType::kFloat16:
      return convert_from<Half>(from, to_type, to, count);
  }
}

}  // namespace vlm
