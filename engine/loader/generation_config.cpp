// SPDX-License-Identifier: LGPL-2.1-or-later
#include <limits>

#include "base/json.h"
#include "loader/config.h"
#include "loader/config_keys.h"

namespace vlm {
namespace {

constexpr double kMax = 1e9;

template <typename Number>
void read_integer(const JsonView& view, const char* key, int64_t min,
                  std::optional<Number>& target) {
  const auto value = view.integer(key, min, std::numeric_limits<Number>::max());
  if (value) target = static_cast<Number>(*value);
}

void read_number(const JsonView& view, const char* key, double min, double max,
                 std::optional<double>& target) {
  if (view.has(key)) target = view.number(key, 0, min, max);
}

std::optional<EarlyStopping> read_early_stopping(const JsonView& view) {
  const Json* value = view.find("early_stopping");
  if (!value) return std::nullopt;
  if (value->is_boolean()) return value->get<bool>() ? EarlyStopping::kTrue : EarlyStopping::kFalse;
  if (*value != "never") view.refuse("early_stopping", "true, false or \"never\" is expected");
  return EarlyStopping::kNever;
}

std::vector<std::string> read_stop_strings(const JsonView& view) {
  const Json* value = view.find("stop_strings");
  if (!value) return {};
  const Json list = value->is_array() ? *value : Json::array({*value});
  std::vector<std::string> strings;
  for (const Json& entry : list) {
    if (!entry.is_string() || entry.get_ref<const std::string&>().empty()) {
      view.refuse("stop_strings", "a text, or a list of some, is expected");
    }
    strings.push_back(entry.get<std::string>());
  }
  return strings;
}

Options read_options(const JsonView& view) {
  Options options;
  read_integer(view, "max_new_tokens", 1, options.max_new_tokens);
  read_integer(view, "min_new_tokens", 0, options.min_new_tokens);
  read_number(view, "temperature", 0, kMax, options.temperature);
  read_integer(view, "top_k", 0, options.top_k);
  read_number(view, "top_p", 0, 1, options.top_p);
  read_number(view, "min_p", 0, 1, options.min_p);
  read_number(view, "repetition_penalty", 1e-9, kMax, options.repetition_penalty);
  read_integer(view, "no_repeat_ngram_size", 0, options.no_repeat_ngram_size);
  read_integer(view, "num_beams", 1, options.num_beams);
  read_number(view, "length_penalty", -kMax, kMax, options.length_penalty);
  options.early_stopping = read_early_stopping(view);
  options.stop = read_stop_strings(view);
  return options;
}

}  // namespace

Result<GenerationDefaults> load_generation_config(const std::string& directory) {
  const std::string path = directory + "/generation_config.json";
  return as_result([&] {
    GenerationDefaults defaults;
    if (!file_exists(path)) return defaults;
    const Json json = read_json_file(path);
    const JsonView view(json, path);
    defaults.options = read_options(view);
    defaults.do_sample = view.boolean("do_sample", false);
    // A temperature alone never turns sampling on; sampling without one is at the reference's 1.
    if (!defaults.do_sample) {
      defaults.options.temperature.reset();
    } else if (!defaults.options.temperature) {
      defaults.options.temperature = 1.0;
    }
    defaults.eos_ids = read_token_ids(view, "eos_token_id").value_or(std::vector<int64_t>{});
    defaults.pad_id = read_pad_id(view);
    return defaults;
  });
}

}  // namespace vlm
