// SPDX-License-Identifier: LGPL-2.1-or-later
// Conversions, bit by bit, against libtorch's.
#include "kernels/convert.h"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "cuda/tensor_ops.h"

namespace vlm {
namespace {

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16, at::kHalf};

uint32_t bits_at(const at::Tensor& values, int64_t i) {
  const auto* data = static_cast<const char*>(values.const_data_ptr());
  const auto size = static_cast<size_t>(values.element_size());
  uint32_t bits = 0;
  std::memcpy(&bits, data + static_cast<size_t>(i) * size, size);
  return bits;
}

at::Tensor converted(const at::Tensor& values, at::ScalarType type) {
  const at::Tensor result = at::empty(values.sizes(), type);
  convert_values(*kernel_type(values.scalar_type()), values.const_data_ptr(), *kernel_type(type),
                 result.mutable_data_ptr(), values.numel());
  return result;
}

// What is no number has many spellings, of which libtorch itself takes one or another.
void expect_as_libtorch(const at::Tensor& values) {
  for (const at::ScalarType type : kTypes) {
    const at::Tensor wanted = values.to(type), got = converted(values, type);
    const at::Tensor wanted_wide = wanted.to(at::kFloat), got_wide = got.to(at::kFloat);
    const auto* wanted_values = wanted_wide.const_data_ptr<float>();
    const auto* got_values = got_wide.const_data_ptr<float>();
    for (int64_t i = 0; i < values.numel(); ++i) {
      if (std::isnan(wanted_values[i]) && std::isnan(got_values[i])) continue;
      ASSERT_EQ(bits_at(got, i), bits_at(wanted, i))
          << values.scalar_type() << " " << std::hex << bits_at(values, i) << " to " << type;
    }
  }
}

at::Tensor of_halves(at::ScalarType type, int64_t count) {
  const at::Tensor all = at::empty({count}, type);
  auto* bits = static_cast<uint16_t*>(all.mutable_data_ptr());
  for (int64_t i = 0; i < count; ++i) bits[i] = static_cast<uint16_t>(i);
  return all;
}

at::Tensor of_floats(const std::vector<uint32_t>& bits) {
  const at::Tensor all = at::empty({static_cast<int64_t>(bits.size())}, at::kFloat);
  std::memcpy(all.mutable_data_ptr(), bits.data(), bits.size() * sizeof(uint32_t));
  return all;
}

TEST(Convert, every_half_as_libtorch_does) {
  expect_as_libtorch(of_halves(at::kHalf, 1 << 16));
  expect_as_libtorch(of_halves(at::kBFloat16, 1 << 16));
}

TEST(Convert, floats_of_every_exponent_as_libtorch_does) {
  std::mt19937 random(1);
  std::vector<uint32_t> bits(1 << 22);
  for (uint32_t& value : bits) value = static_cast<uint32_t>(random());
  expect_as_libtorch(of_floats(bits));
}

// Each value of a narrow type, the middle between it and the next, and their neighbours.
TEST(Convert, ties_and_their_neighbours_as_libtorch_does) {
  for (const at::ScalarType type : {at::kHalf, at::kBFloat16}) {
    const at::Tensor wide = of_halves(type, 1 << 15).to(at::kFloat);
    const auto* values = wide.const_data_ptr<float>();
    std::vector<uint32_t> bits;
    for (int64_t i = 0; i + 1 < wide.numel(); ++i) {
      const double middle =
          (static_cast<double>(values[i]) + static_cast<double>(values[i + 1])) / 2;
      for (const float value : {values[i], static_cast<float>(middle)}) {
        const auto own = std::bit_cast<uint32_t>(value);
        for (const uint32_t near : {own - 1, own, own + 1}) {
          bits.push_back(near);
          bits.push_back(near | 0x80000000u);
        }
      }
    }
    expect_as_libtorch(of_floats(bits));
  }
}

TEST(Convert, what_is_no_number_stays_none) {
  for (const at::ScalarType from : kTypes) {
    for (const at::ScalarType to : kTypes) {
      at::Tensor values = at::empty({37}, from);
      values.fill_(std::numeric_limits<double>::quiet_NaN());
      EXPECT_TRUE(converted(values, to).isnan().all().item<bool>()) << from << " to " << to;
    }
  }
  // Signalling ones whose fraction lies in the bits that are dropped.
  EXPECT_TRUE(
      converted(of_floats({0x7F800001u, 0xFF800001u}), at::kHalf).isnan().all().item<bool>());
  EXPECT_TRUE(
      converted(of_floats({0x7F800001u, 0xFF800001u}), at::kBFloat16).isnan().all().item<bool>());
}

TEST(Convert, every_length_and_nothing_behind_it) {
  for (int64_t count = 0; count < 70; ++count) {
    const at::Tensor values = of_halves(at::kHalf, 70);
    std::vector<float> out(71, -1);
    convert_values(KernelType::kFloat16, values.const_data_ptr(), KernelType::kFloat32, out.data(),
                   count);
    for (int64_t i = 0; i < 71; ++i) {
      const float wanted = i < count ? std::ldexp(static_cast<float>(i), -24) : -1.0f;
      ASSERT_EQ(out[static_cast<size_t>(i)], wanted) << i << " of " << count;
    }
  }
}

}  // namespace
}  // namespace vlm
