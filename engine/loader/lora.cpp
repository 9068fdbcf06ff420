// SPDX-License-Identifier: LGPL-2.1-or-later
#include "loader/lora.h"

#include <map>
#include <memory>
#include <utility>

#include "base/json.h"

namespace vlm {
namespace {

constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kOtherFile = "non_lora_trainables.bin";
constexpr const char* kAdapterFiles[] = {"adapter_model.safetensors", "adapter_model.bin"};

/// `base_model.model.` in front is peft's, the next `model.` may be doubled.
std::string trained_name(std::string_view spelling) {
  if (spelling.starts_with("base_model.")) spelling.remove_prefix(11);
  if (spelling.starts_with("model.model.") || spelling.starts_with("model.lm_head.")) {
    spelling.remove_prefix(6);
  }
  return canonical_name(spelling);
}

/// The adapter's tensors keep their own names: they are not the model's.
std::string own_name(std::string_view spelling) {
  return std::string(spelling);
}

/// Factor of the product, as peft has it without its later variants.
double read_scale(const JsonView& view) {
  const auto expect = [&](const char* key, bool good, const char* expected) {
    if (!good) view.unsupported(key, expected);
  };
  expect("peft_type", view.string("peft_type", "") == "LORA", "LORA is supported");
  expect("bias", view.string("bias", "none") == "none", "none is supported");
  for (const char* key : {"fan_in_fan_out", "use_dora", "use_rslora", "lora_bias", "use_qalora"}) {
    expect(key, !view.boolean(key, false), "false is supported");
  }
  for (const char* key : {"rank_pattern", "alpha_pattern", "modules_to_save"}) {
    const Json* value = view.find(key);
    expect(key, !value || value->empty(), "none is supported");
  }
  const Json* start = view.find("init_lora_weights");
  expect("init_lora_weights", !start || start->is_boolean() || *start == "gaussian",
         "true, false and gaussian are supported");
  const int64_t rank = view.integer("r", 0, 0, 1 << 16);
  if (rank == 0) view.refuse("r", "the adapter's rank is expected");
  if (!view.has("lora_alpha")) view.refuse("lora_alpha", "a number is expected");
  return view.number("lora_alpha", 0, -1e6, 1e6) / static_cast<double>(rank);
}

/// What one matrix gets.
struct Pair {
  const StoredTensor* down = nullptr;
  const StoredTensor* up = nullptr;
};

/// `base_model.model.model.layers.0.….q_proj.lora_A.weight` → the matrix's canonical name, and
/// whether it is lora_A. Throws Failure for other names.
std::pair<std::string, bool> target_of(const StoredTensor& tensor) {
  for (const bool down : {true, false}) {
    for (const char* middle : {"", ".default"}) {
      const std::string end =
          std::string(down ? ".lora_A" : ".lora_B") + middle + std::string(".weight");
      if (!tensor.spelling.ends_with(end)) continue;
      const std::string module = tensor.spelling.substr(0, tensor.spelling.size() - end.size());
      return {trained_name(module + ".weight"), down};
    }
  }
  throw Failure(ErrorKind::kUnsupported,
                tensor.file + ": tensor " + tensor.spelling +
                    " is neither lora_A nor lora_B of a linear layer, which alone are supported");
}

void check_shapes(const std::string& name, const Pair& pair, const StoredTensor& matrix) {
  const auto is_matrix = [](const StoredTensor& tensor) { return tensor.shape.size() == 2; };
  const bool good = is_matrix(*pair.down) && is_matrix(*pair.up) && is_matrix(matrix) &&
                    pair.down->shape[0] == pair.up->shape[1] &&
                    pair.down->shape[1] == matrix.shape[1] && pair.up->shape[0] == matrix.shape[0];
  if (good) return;
  throw Failure(ErrorKind::kInvalidModel, pair.down->file + ": the shapes of " +
                                              pair.down->spelling + " and " + pair.up->spelling +
                                              " do not fit the base model's " + name);
}

void add_factors(const Weights& adapter, double scale, Weights& weights) {
  std::map<std::string, Pair> pairs;
  for (const auto& [name, tensor] : adapter.tensors()) {
    const auto [target, down] = target_of(tensor);
    (down ? pairs[target].down : pairs[target].up) = &tensor;
  }
  for (const auto& [name, pair] : pairs) {
    const StoredTensor& some = pair.down ? *pair.down : *pair.up;
    if (!pair.down || !pair.up) {
      throw Failure(ErrorKind::kInvalidModel,
                    some.file + ": tensor " + some.spelling + " lacks its other factor");
    }
    const StoredTensor* matrix = weights.find(name);
    if (!matrix) {
      throw Failure(ErrorKind::kInvalidModel,
                    some.file + ": tensor " + some.spelling + " has no place in the base model");
    }
    check_shapes(name, pair, *matrix);
    weights.set_lora(name,
                     std::make_shared<const LoraFactors>(LoraFactors{*pair.down, *pair.up, scale}));
  }
}

}  // namespace

bool has_lora(const std::string& directory) {
  return file_exists(directory + "/" + kConfigFile);
}

void apply_lora(const std::string& directory, Weights& weights) {
  const std::string path = directory + "/" + kConfigFile;
  const Json json = read_json_file(path);
  const double scale = read_scale(JsonView(json, path));
  const std::string other = directory + "/" + kOtherFile;
  if (!file_exists(other)) {
    throw Failure(
        ErrorKind::kNotFound,
        other + ": is missing, though it holds the projector; fetch the checkpoint again");
  }
  Weights trained;
  trained.add_file(other, trained_name);
  weights.replace_by(trained);
  for (const char* name : kAdapterFiles) {
    const std::string file = directory + "/" + name;
    if (!file_exists(file)) continue;
    Weights adapter;
    adapter.add_file(file, own_name);
    return add_factors(adapter, scale, weights);
  }
  throw Failure(ErrorKind::kNotFound, directory + ": holds neither " + kAdapterFiles[0] + " nor " +
                                          kAdapterFiles[1] + "; fetch the checkpoint again");
}

}  // namespace vlm
