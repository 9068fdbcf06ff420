// SPDX-License-Identifier: LGPL-2.1-or-later
#include "decoder/sample_table.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cuda/sample_row.h"

namespace vlm {
namespace {

// Sums are compared with 1 - p as float32 has both: what rounds to it is no more than it.
double left_out(double top_p) {
  const auto limit = static_cast<float>(1 - top_p);
  const float next = std::nextafter(limit, std::numeric_limits<float>::infinity());
  return (static_cast<double>(limit) + static_cast<double>(next)) / 2;
}

bool known(const std::vector<std::vector<int64_t>>& lists, int64_t vocab_size) {
  return lists.empty() || std::all_of(lists[0].begin(), lists[0].end(),
                                      [&](int64_t id) { return id >= 0 && id < vocab_size; });
}

void add_warpers(const Choice& choice, int64_t vocab_size, SampleRow& row) {
  row.sample = 1;
  row.temperature = static_cast<float>(choice.temperature);
  row.top_k = static_cast<int32_t>(std::min(choice.top_k, vocab_size));
  if (choice.top_p < 1) row.left_out = left_out(choice.top_p);
  row.min_p = static_cast<float>(choice.min_p);
}

}  // namespace

std::optional<SampleRow> on_device(const Choice& choice, int64_t vocab_size) {
  if (choice.beams || choice.rows != 1 || choice.alternatives > 0 || choice.min_keep != 1 ||
      vocab_size > kMostSampledIds || !known(choice.banned, vocab_size) ||
      !known(choice.seen, vocab_size)) {
    return std::nullopt;
  }
  SampleRow row;
  row.seed = choice.seed;
  row.sequence = choice.sequence;
  row.token = static_cast<uint32_t>(choice.token);
  row.penalty = static_cast<float>(choice.repetition_penalty);
  if (choice.sample) add_warpers(choice, vocab_size, row);
  if (!choice.banned.empty()) {
    const std::vector<int64_t>& banned = choice.banned[0];
    if (banned.size() > kMostSampleBans) return std::nullopt;
    row.bans = static_cast<int32_t>(banned.size());
    std::transform(banned.begin(), banned.end(), row.banned,
                   [](int64_t id) { return static_cast<int32_t>(id); });
  }
  return row;
}

SampleTable::SampleTable(int64_t max_rows, int64_t vocab_size, at::Device device)
    : vocab_size_(vocab_size),
      table_(DeviceBuffer::make({max_rows, static_cast<int64_t>(sizeof(SampleRow))}, at::kByte,
                                device)),
      seen_(DeviceBuffer::make({max_rows, (vocab_size + 31) / 32}, at::kInt, device)) {}

bool SampleTable::fill(const std::vector<Choice>& choices, int64_t rows) {
  auto* table = reinterpret_cast<SampleRow*>(table_.host.mutable_data_ptr());
  auto* seen = reinterpret_cast<uint32_t*>(seen_.host.mutable_data_ptr());
  std::fill_n(table, rows, SampleRow{});
  int64_t marked = 0;
  for (const Choice& choice : choices) {
    const std::optional<SampleRow> row = on_device(choice, vocab_size_);
    if (!row) return false;
    table[choice.first_row] = *row;
    if (row->penalty == 1) continue;
    uint32_t* bits = seen + choice.first_row * seen_.host.size(1);
    std::fill_n(bits, seen_.host.size(1), 0u);
    if (!choice.seen.empty()) {
      for (const int64_t id : choice.seen[0]) mark_seen(bits, id);
    }
    marked = std::max(marked, choice.first_row + 1);
  }
  table_.send(rows);
  if (marked > 0) seen_.send(marked);
  return true;
}

SampleArgs SampleTable::sample_args() const {
  SampleArgs args;
  args.table = static_cast<const SampleRow*>(table_.device.const_data_ptr());
  args.seen = static_cast<const uint32_t*>(seen_.device.const_data_ptr());
  args.seen_stride = seen_.device.size(1);
  args.vocab_size = vocab_size_;
  return args;
}

void SampleTable::add_to(AdvanceArgs& args) const {
  args.table = static_cast<SampleRow*>(table_.device.mutable_data_ptr());
  args.seen = static_cast<uint32_t*>(seen_.device.mutable_data_ptr());
  args.seen_stride = seen_.device.size(1);
}

}  // namespace vlm
