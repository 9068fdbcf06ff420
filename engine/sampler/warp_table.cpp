// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sampler/warp_table.h"

#include <algorithm>
#include <limits>

#include "kernels/random.h"

namespace vlm {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();
constexpr double kAllTokens = 1e15;  // more than any vocabulary has, and exact

void write_row(const Choice& choice, double* row) {
  const int64_t kept = std::max(choice.top_k, choice.min_keep);
  row[WarpTable::kTemperature] = choice.temperature;
  row[WarpTable::kTopK] = choice.top_k > 0 ? static_cast<double>(kept) : kAllTokens;
  row[WarpTable::kTopP] = choice.top_p < 1 ? 1 - choice.top_p : kMinusInfinity;
  row[WarpTable::kMinP] = choice.min_p;
  row[WarpTable::kMinKeep] = static_cast<double>(choice.min_keep);
  row[WarpTable::kUniform] =
      uniform_draw(choice.seed, choice.sequence, static_cast<uint32_t>(choice.token), 0);
}

}  // namespace

WarpTable::WarpTable(int64_t max_rows, at::Device device)
    : buffer_(DeviceBuffer::make({max_rows, kColumns}, at::kDouble, device)) {}

void WarpTable::fill(const std::vector<Choice>& choices) {
  auto* values = buffer_.host.mutable_data_ptr<double>();
  int64_t rows = 0;
  for (const Choice& choice : choices) {
    if (!choice.sample) continue;
    for (int64_t row = choice.first_row; row < choice.first_row + choice.rows; ++row) {
      write_row(choice, values + row * kColumns);
    }
    rows = std::max(rows, choice.first_row + choice.rows);
  }
  if (rows > 0) buffer_.send(rows);
}

at::Tensor WarpTable::column(const at::Tensor& rows, Column column, at::ScalarType type) {
  return rows.narrow(1, column, 1).to(type);
}

}  // namespace vlm
