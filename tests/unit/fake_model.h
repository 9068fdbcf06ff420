// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/failure.h"
#include "executor.h"
#include "scheduler/prepare.h"
#include "scheduler/scheduler.h"
#include "table_sampler.h"
#include "text/tokenizer.h"

namespace vlm::test {

inline constexpr int64_t kBos = 1;
inline constexpr int64_t kEos = 2;
inline constexpr int64_t kImage = 3;
inline constexpr int64_t kFirstLetter = 4;
inline constexpr int64_t kVocab = 40;
inline constexpr int64_t kImageTokens = 5;

/// A tokenizer whose ids are texts given to it: four special ones, then letters, a space, pairs,
/// and the two bytes of `é`.
class FakeTokenizer : public Tokenizer {
 public:
  FakeTokenizer() {
    pieces_ = {"<unk>", "<s>", "</s>", "<image>"};
    for (char letter = 'a'; letter <= 'z'; ++letter) {
      pieces_.emplace_back(1, letter);
    }
    for (const char* piece : {" ", "st", "op", "opera", "las", "topper", ".", "\xC3", "\xA9"}) {
      pieces_.emplace_back(piece);
    }
  }

  std::vector<int64_t> encode(std::string_view text) const override {
    std::vector<int64_t> ids = {kBos};
    for (const char letter : text) {
      if (const std::optional<int64_t> id = id_of(std::string_view(&letter, 1))) {
        ids.push_back(*id);
      }
    }
    return ids;
  }
  std::string decode(std::span<const int64_t> ids) const override {
    std::string text;
    for (const int64_t id : ids) {
      text += piece_bytes(id);
    }
    return text;
  }
  std::string piece_bytes(int64_t id) const override {
    return is_special(id) ? "" : token_text(id);
  }
  std::string token_text(int64_t id) const override {
    return id < vocab_size() ? pieces_[static_cast<size_t>(id)] : "";
  }
  bool is_byte(int64_t id) const override { return token_text(id) >= "\x80"; }
  bool is_special(int64_t id) const override { return id < kFirstLetter; }
  std::optional<int64_t> id_of(std::string_view token) const override {
    for (size_t id = 0; id < pieces_.size(); ++id) {
      if (pieces_[id] == token) {
        return static_cast<int64_t>(id);
      }
    }
    return std::nullopt;
  }
  int64_t bos_id() const override { return kBos; }
  int64_t eos_id() const override { return kEos; }
  int64_t vocab_size() const override { return static_cast<int64_t>(pieces_.size()); }

 private:
  std::vector<std::string> pieces_;
};

/// Ids from the letters of the last turn, kImageTokens for each frame in front of them.
class FakePreparer : public Preparer {
 public:
  Result<Prepared> prepare(Request& request) override {
    if (before) {
      before(request);
    }
    Prepared prepared;
    prepared.prompt.text = request.prompt.turns.back().text;
    prepared.prompt.ids = {kBos};
    for (const Frame& frame : request.frames) {
      prepared.prompt.image_offsets.push_back(static_cast<int64_t>(prepared.prompt.ids.size()));
      prepared.prompt.ids.insert(prepared.prompt.ids.end(), kImageTokens, kImage);
      prepared.image_tokens += kImageTokens;
      const Status added = append_pixels(
          prepared.pixels,
          {1, 1, 1, width,
           std::vector<float>(static_cast<size_t>(width), static_cast<float>(frame.rgb.at(0)))});
      if (!added) {
        return added.error();
      }
    }
    const std::vector<int64_t> letters = FakeTokenizer().encode(prepared.prompt.text);
    prepared.prompt.ids.insert(prepared.prompt.ids.end(), letters.begin() + 1, letters.end());
    return prepared;
  }

  std::function<void(const Request&)> before;
  int64_t width = 1;  ///< of what becomes of a picture
};

struct FakeEmbeds : ImageEmbeds {
  std::vector<float> values;
};

/// A model without weights: the logits of a row are a hash of all that its cache slots hold. The
/// cache is real, so a slot that is wrong, shared or given away too early changes the text or stops
/// the test. `before_*` may throw.
class FakeExecutor : public Executor {
 public:
  FakeExecutor(int64_t max_rows, int64_t cache_slots, int64_t context)
      : limits_{max_rows, cache_slots, context, context}, cache_(static_cast<size_t>(cache_slots)) {
    info_.name = "fake";
    info_.device = "cpu";
    info_.context_length = context;
    info_.vocab_size = kVocab;
  }

  const ModelInfo& info() const override { return info_; }
  const ExecutorLimits& limits() const override { return limits_; }

  std::vector<std::shared_ptr<const ImageEmbeds>> encode(
      const std::vector<const PixelTensor*>& batch, const std::vector<std::string>& trace_paths,
      const std::function<void()>& between) override {
    check_thread();
    for (int piece = 1; piece < encode_pieces; ++piece) between();
    if (before_encode) {
      before_encode(batch.size());
    }
    encode_batches.push_back(batch.size());
    std::vector<std::shared_ptr<const ImageEmbeds>> results;
    for (size_t i = 0; i < batch.size(); ++i) {
      auto embeds = std::make_shared<FakeEmbeds>();
      embeds->values = batch[i]->values;
      embeds->tokens = kImageTokens * batch[i]->images;
      results.push_back(std::move(embeds));
      if (!trace_paths[i].empty()) {
        traces[trace_paths[i]] += "pictures ";
      }
    }
    return results;
  }

  StepResult run(const StepPlan& plan) override {
    check_thread();
    ++steps;
    if (before_run) {
      before_run(plan);
    }
    std::vector<const SlotTable*> tables;
    size_t prompt_tokens = 0;
    for (const PromptPart& part : plan.prompts) {
      store_prompt(part);
      if (part.last()) tables.push_back(part.slots);
      prompt_tokens += static_cast<size_t>(part.count);
    }
    prompt_parts.push_back(prompt_tokens);
    for (const DecodePart& part : plan.decodes) {
      store(*part.slots, part.slots->size() - 1, static_cast<uint64_t>(part.id));
      tables.push_back(part.slots);
    }
    require(static_cast<int64_t>(tables.size()) <= limits_.max_rows, "too many rows");
    most_prompts = std::max(most_prompts, plan.prompts.size());
    most_rows = std::max(most_rows, tables.size());
    StepResult result;
    size_t next_row = 0;
    for (const Choice& choice : plan.choices) {
      require(choice.first_row == static_cast<int64_t>(next_row), "choices out of order");
      std::vector<Scores> rows;
      for (int64_t row = 0; row < choice.rows; ++row) {
        rows.push_back(logits(*tables.at(next_row++)));
      }
      result.chosen.push_back(choose(rows, choice));
    }
    require(next_row == tables.size(), "rows without a choice");
    return result;
  }

  Status write_trace(const std::string& path, const std::vector<int64_t>& ids) override {
    if (fail_trace) {
      traces.erase(path);
      return Error{ErrorKind::kIo, path + ": cannot be written", {}};
    }
    written[path] = traces[path] + std::to_string(ids.size());
    traces.erase(path);
    return ok_status();
  }
  void drop_trace(const std::string& path) override { traces.erase(path); }

  std::function<void(const StepPlan&)> before_run;
  std::function<void(size_t)> before_encode;
  bool fail_trace = false;
  void take_prompts_in_chunks(int64_t tokens) { limits_.prompt_chunk = tokens; }
  void cut_prompts_at(int64_t tokens) { limits_.prompt_part = tokens; }
  /// As an executor that runs ahead would have it.
  void look_ahead() { limits_.looks_ahead = true; }
  /// How strongly the end id is favoured: higher, shorter texts.
  float eos_bias = 1.0f;
  int64_t steps = 0;
  size_t most_prompts = 0;
  size_t most_rows = 0;
  int encode_pieces = 1;
  std::vector<size_t> encode_batches;
  std::vector<size_t> prompt_parts;  ///< prompt tokens of each step
  std::map<std::string, std::string> traces;
  std::map<std::string, std::string> written;

 private:
  struct Entry {
    uint64_t content = 0;
    size_t position = 0;
  };

  static void require(bool condition, const char* what) {
    if (!condition) {
      throw Failure(ErrorKind::kInternal, std::string("fake model: ") + what);
    }
  }

  void check_thread() {
    if (owner_ == std::thread::id()) {
      owner_ = std::this_thread::get_id();
    }
    require(owner_ == std::this_thread::get_id(), "used on two threads");
  }

  void store(const SlotTable& slots, size_t position, uint64_t content) {
    cache_.at(static_cast<size_t>(slots.at(position))) = {content, position};
  }

  void store_prompt(const PromptPart& part) {
    require(part.ids->size() == part.slots->size(), "prompt and slots differ in length");
    require(part.count > 0, "a part without tokens");
    const auto begin = static_cast<size_t>(part.first), end = static_cast<size_t>(part.end());
    for (size_t i = begin; i < end; ++i) {
      store(*part.slots, i, static_cast<uint64_t>((*part.ids)[i]));
    }
    if (!part.trace_path.empty()) {
      require(part.first == 0 && part.last(), "a trace of a part");
      traces[part.trace_path] += "prompt ";
    }
    require((part.images != nullptr) == !part.image_offsets->empty(), "pictures are missing");
    for (size_t i = 0; i < part.image_offsets->size(); ++i) {
      const auto& embeds = static_cast<const FakeEmbeds&>(*part.images);
      const auto offset = static_cast<size_t>((*part.image_offsets)[i]);
      for (size_t token = 0; token < kImageTokens; ++token) {
        if (offset + token < begin || offset + token >= end) continue;
        store(*part.slots, offset + token,
              1000 + static_cast<uint64_t>(embeds.values.at(i)) * 10 + token);
      }
    }
  }

  Scores logits(const SlotTable& slots) const {
    uint64_t hash = 0xCBF29CE484222325u;
    for (size_t i = 0; i < slots.size(); ++i) {
      const Entry& entry = cache_.at(static_cast<size_t>(slots[i]));
      require(entry.position == i, "a slot holds another position");
      hash = (hash ^ entry.content) * 0x100000001B3u;
    }
    Scores scores;
    for (uint32_t token = 0; token < kVocab; ++token) {
      scores.push_back(static_cast<float>(6 * uniform_draw(hash, 0, token, 0)));
    }
    scores[0] = scores[kBos] = scores[kImage] = -20;
    scores[kEos] += eos_bias;
    return scores;
  }

  ModelInfo info_;
  ExecutorLimits limits_;
  std::vector<Entry> cache_;
  std::thread::id owner_;
};

inline SchedulerModel fake_scheduler_model(
    std::unique_ptr<Preparer> preparer = std::make_unique<FakePreparer>()) {
  SchedulerModel model;
  model.tokenizer = std::make_shared<FakeTokenizer>();
  model.generation.eos_ids = {kEos};
  model.preparer = std::move(preparer);
  return model;
}

/// A request that asks `text` about `pictures` pictures of one colour each.
inline Request request_for(const std::string& text, size_t pictures = 1, uint8_t colour = 7) {
  Request request;
  for (size_t i = 0; i < pictures; ++i) {
    request.frames.push_back({1, 1, std::vector<uint8_t>(3, static_cast<uint8_t>(colour + i))});
  }
  request.prompt.format = "raw";
  request.prompt.turns = {{Turn::Role::kUser, text}};
  request.options.max_new_tokens = 12;
  return request;
}

}  // namespace vlm::test
