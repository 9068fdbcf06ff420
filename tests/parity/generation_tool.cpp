// SPDX-License-Identifier: LGPL-2.1-or-later
// Generates with the engine's sampler and stop rules from a table instead of a model: the logits of
// a token depend on the two before it. Reads JSON lines: {"table": [vocab³ numbers]}, then cases;
// answers each case with a line.
#include <ATen/ops/tensor.h>

#include <cstdio>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/failure.h"
#include "sampler/generation.h"
#include "sampler/sampler.h"
#include "text/tokenizer.h"
#include "vlm/names.h"

namespace vlm {
namespace {

using Json = nlohmann::json;

/// Ids that are the texts given.
class PieceTokenizer : public Tokenizer {
 public:
  explicit PieceTokenizer(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {}
  std::vector<int64_t> encode(std::string_view) const override { return {}; }
  std::string decode(std::span<const int64_t>) const override { return {}; }
  std::string piece_bytes(int64_t id) const override { return pieces_.at(static_cast<size_t>(id)); }
  bool is_byte(int64_t) const override { return false; }
  bool is_special(int64_t) const override { return false; }
  std::optional<int64_t> id_of(std::string_view) const override { return std::nullopt; }
  int64_t bos_id() const override { return -1; }
  int64_t eos_id() const override { return -1; }
  int64_t vocab_size() const override { return static_cast<int64_t>(pieces_.size()); }

 private:
  std::vector<std::string> pieces_;
};

Settings settings_of(const Json& options, const std::vector<int64_t>& eos_ids) {
  Settings settings;
  settings.eos_ids = eos_ids;
  settings.sample = options.contains("temperature");
  settings.max_new_tokens = options.value("max_new_tokens", settings.max_new_tokens);
  settings.min_new_tokens = options.value("min_new_tokens", settings.min_new_tokens);
  settings.temperature = options.value("temperature", settings.temperature);
  settings.top_k = options.value("top_k", settings.top_k);
  settings.top_p = options.value("top_p", settings.top_p);
  settings.min_p = options.value("min_p", settings.min_p);
  settings.repetition_penalty = options.value("repetition_penalty", settings.repetition_penalty);
  settings.no_repeat_ngram_size =
      options.value("no_repeat_ngram_size", settings.no_repeat_ngram_size);
  settings.num_beams = options.value("num_beams", settings.num_beams);
  settings.length_penalty = options.value("length_penalty", settings.length_penalty);
  settings.early_stopping =
      enum_value(kEarlyStoppingNames, options.value("early_stopping", "false")).value();
  settings.seed = options.value("seed", settings.seed);
  settings.repetition_guard = options.value("repetition_guard", settings.repetition_guard);
  settings.count_prompt = options.value("count_prompt", settings.count_prompt);
  settings.top_logprobs = options.value("top_logprobs", settings.top_logprobs);
  settings.stop = options.value("stop", settings.stop);
  return settings;
}

class TableModel {
 public:
  TableModel(const std::vector<float>& table, int64_t vocab)
      : table_(at::tensor(table).reshape({vocab, vocab, vocab})) {}

  /// Logits after each sequence: [sequences, vocab].
  at::Tensor logits(const std::vector<std::vector<int64_t>>& sequences) const {
    at::Tensor rows = table_.new_empty({static_cast<int64_t>(sequences.size()), table_.size(0)});
    for (size_t row = 0; row < sequences.size(); ++row) {
      const std::vector<int64_t>& ids = sequences[row];
      const int64_t before = ids.size() > 1 ? ids[ids.size() - 2] : 0;
      rows.select(0, static_cast<int64_t>(row))
          .copy_(table_.select(0, before).select(0, ids.back()));
    }
    return rows;
  }

 private:
  at::Tensor table_;
};

Json generate(const TableModel& model, const Json& request) {
  const auto prompt = request.at("prompt").get<std::vector<int64_t>>();
  const auto eos_ids = request.at("eos").get<std::vector<int64_t>>();
  const Settings settings = settings_of(request.at("options"), eos_ids);
  const PieceTokenizer tokenizer(request.at("pieces").get<std::vector<std::string>>());
  Generation generation(settings,
                        {eos_ids, StopStrings(tokenizer, settings.stop), settings.max_new_tokens,
                         settings.repetition_guard},
                        prompt);
  std::vector<std::vector<int64_t>> sequences = {prompt};
  Sampler sampler(std::max<int64_t>(1, settings.num_beams), at::kCPU);
  while (true) {
    const std::vector<Chosen> chosen =
        sampler.choose(model.logits(sequences), {generation.choice(0)});
    const std::span<const int64_t> parents = generation.advance(chosen.at(0));
    if (generation.finished()) {
      break;
    }
    std::vector<std::vector<int64_t>> next;
    for (size_t row = 0; row < parents.size(); ++row) {
      next.push_back(sequences.at(static_cast<size_t>(parents[row])));
      next.back().push_back(generation.last_id(static_cast<int64_t>(row)));
    }
    sequences = std::move(next);
  }
  Json answer = {{"ids", generation.ids()},
                 {"logprobs", generation.logprobs()},
                 {"finish_reason", finish_reason_name(generation.finish_reason())}};
  for (const auto& alternatives : generation.alternatives()) {
    Json list = Json::array();
    for (const Alternative& choice : *alternatives) {
      list.push_back({choice.token, choice.logprob});
    }
    answer["alternatives"].push_back(list);
  }
  if (const auto score = generation.sequence_score()) {
    answer["score"] = *score;
  }
  return answer;
}

}  // namespace
}  // namespace vlm

int main() {
  std::optional<vlm::TableModel> model;
  std::string line;
  while (std::getline(std::cin, line)) {
    const vlm::Json request = vlm::Json::parse(line);
    if (request.contains("table")) {
      model.emplace(request["table"].get<std::vector<float>>(), request["vocab"].get<int64_t>());
      continue;
    }
    try {
      std::cout << vlm::generate(model.value(), request).dump() << std::endl;
    } catch (const vlm::Failure& failure) {
      std::cout << vlm::Json{{"error", failure.error().message}}.dump() << std::endl;
    }
  }
  return 0;
}
