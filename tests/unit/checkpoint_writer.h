// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include <stdlib.h>

namespace vlm::test {

using Json = nlohmann::json;

/// A directory that is removed with its owner.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "vlm-unit-XXXXXX").string();
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("no temporary directory");
    path_ = pattern;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  void write(const std::string& name, const std::string& content) const {
    std::ofstream(file(name), std::ios::binary) << content;
  }
  void write(const std::string& name, const Json& content) const { write(name, content.dump()); }
  void remove(const std::string& name) const { std::filesystem::remove(file(name)); }
  std::string read(const std::string& name) const {
    std::ifstream stream(file(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }

 private:
  std::string path_;
};

/// Names and shapes of float32 tensors.
using Shapes = std::map<std::string, std::vector<int64_t>>;

inline std::string little_endian(uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i) & 0xFF);
  return text;
}

/// A safetensors file with this header and so many bytes of data; element i of the data is i.
inline std::string safetensors_bytes(const std::string& header, size_t data_bytes) {
  std::string data(data_bytes, '\0');
  for (size_t i = 0; i + 4 <= data_bytes; i += 4) {
    const float value = static_cast<float>(i / 4);
    std::memcpy(data.data() + i, &value, 4);
  }
  return little_endian(header.size(), 8) + header + data;
}

/// Header and size of the data for float32 tensors, one after the other.
inline std::pair<Json, size_t> safetensors_header(const Shapes& shapes) {
  Json header = {{"__metadata__", {{"format", "pt"}}}};
  size_t offset = 0;
  for (const auto& [name, shape] : shapes) {
    size_t bytes = 4;
    for (const int64_t side : shape) bytes *= static_cast<size_t>(side);
    header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  return {header, offset};
}

inline std::string safetensors(const Shapes& shapes) {
  const auto [header, bytes] = safetensors_header(shapes);
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return safetensors_bytes(text, bytes);
}

/// A field of a protocol buffer that holds bytes.
inline std::string protobuf_bytes(int field, const std::string& content) {
  std::string text(1, static_cast<char>(field << 3 | 2));
  for (size_t size = content.size();; size >>= 7) {
    text += static_cast<char>((size & 0x7F) | (size > 0x7F ? 0x80 : 0));
    if (size <= 0x7F) break;
  }
  return text + content;
}

struct Piece {
  std::string text;
  int type = 1;
};

/// A sentencepiece model of these pieces.
inline std::string sentencepiece_model(const std::vector<Piece>& pieces) {
  std::string model;
  for (const Piece& piece : pieces) {
    const std::string content = protobuf_bytes(1, piece.text) +
                                std::string("\x15\0\0\0\0", 5) +  // score
                                std::string("\x18") + static_cast<char>(piece.type);
    model += protobuf_bytes(1, content);
  }
  return model + protobuf_bytes(2, "");  // an empty trainer_spec
}

/// `<unk>`, BOS, EOS, 256 bytes, then letters and a few words.
inline std::vector<Piece> small_pieces() {
  std::vector<Piece> pieces = {{"<unk>", 2}, {"<s>", 3}, {"</s>", 3}};
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    pieces.push_back({name, 6});
  }
  for (const char* text : {"▁", "a", "b", "c", "é", ":", "▁a", "ab", "▁ab", "abc", "▁abc"}) {
    pieces.push_back({text});
  }
  return pieces;
}

inline Json added_token(const std::string& text, bool special = true) {
  return {{"content", text}, {"special", special}, {"normalized", false},
          {"lstrip", false}, {"rstrip", false},    {"single_word", false}};
}

/// A whole small checkpoint, to be bent before it is written.
struct SmallCheckpoint {
  Json config, preprocessor, tokenizer;
  Shapes shapes;
  std::vector<Piece> pieces = small_pieces();

  SmallCheckpoint() {
    const int image = static_cast<int>(pieces.size());
    config = {{"architectures", {"LlavaForConditionalGeneration"}},
              {"model_type", "llava"},
              {"image_token_index", image},
              {"vision_config",
               {{"model_type", "clip_vision_model"},
                {"hidden_size", 8},
                {"intermediate_size", 12},
                {"num_hidden_layers", 2},
                {"num_attention_heads", 2},
                {"image_size", 8},
                {"patch_size", 4}}},
              {"text_config",
               {{"model_type", "llama"},
                {"hidden_size", 12},
                {"intermediate_size", 16},
                {"num_hidden_layers", 1},
                {"num_attention_heads", 3},
                {"num_key_value_heads", 1},
                {"vocab_size", image + 2}}}};
    preprocessor = {{"image_processor_type", "CLIPImageProcessor"},
                    {"size", {{"shortest_edge", 8}}},
                    {"crop_size", {{"height", 8}, {"width", 8}}}};
    tokenizer = {{"tokenizer_class", "LlamaTokenizer"},
                 {"add_bos_token", true},
                 {"added_tokens_decoder",
                  {{std::to_string(image), added_token("<image>")},
                   {std::to_string(image + 1), added_token("<pad>")}}}};
    add_vision();
    add_text(image + 2);
  }

  void write(const TemporaryDirectory& directory) const {
    directory.write("config.json", config);
    directory.write("preprocessor_config.json", preprocessor);
    directory.write("tokenizer_config.json", tokenizer);
    directory.write("tokenizer.model", sentencepiece_model(pieces));
    directory.write("model.safetensors", safetensors(shapes));
  }

 private:
  void linear(const std::string& name, int64_t out, int64_t in, bool bias) {
    shapes[name + ".weight"] = {out, in};
    if (bias) shapes[name + ".bias"] = {out};
  }
  void norm(const std::string& name, int64_t size) {
    shapes[name + ".weight"] = shapes[name + ".bias"] = {size};
  }
  void add_vision() {
    const std::string tower = "vision_tower.vision_model.";
    shapes[tower + "embeddings.class_embedding"] = {8};
    shapes[tower + "embeddings.patch_embedding.weight"] = {8, 3, 4, 4};
    shapes[tower + "embeddings.position_embedding.weight"] = {5, 8};
    norm(tower + "pre_layrnorm", 8);
    norm(tower + "post_layernorm", 8);
    for (int i = 0; i < 2; ++i) {
      const std::string layer = tower + "encoder.layers." + std::to_string(i) + ".";
      norm(layer + "layer_norm1", 8);
      norm(layer + "layer_norm2", 8);
      for (const char* part : {"q_proj", "k_proj", "v_proj", "out_proj"}) {
        linear(layer + "self_attn." + part, 8, 8, true);
      }
      linear(layer + "mlp.fc1", 12, 8, true);
      linear(layer + "mlp.fc2", 8, 12, true);
    }
    linear("multi_modal_projector.linear_1", 12, 8, true);
    linear("multi_modal_projector.linear_2", 12, 12, true);
  }
  void add_text(int64_t vocab) {
    const std::string model = "language_model.model.";
    shapes[model + "embed_tokens.weight"] = {vocab, 12};
    shapes["language_model.lm_head.weight"] = {vocab, 12};
    shapes[model + "norm.weight"] = {12};
    const std::string layer = model + "layers.0.";
    shapes[layer + "input_layernorm.weight"] = {12};
    shapes[layer + "post_attention_layernorm.weight"] = {12};
    linear(layer + "self_attn.q_proj", 12, 12, false);
    linear(layer + "self_attn.k_proj", 4, 12, false);
    linear(layer + "self_attn.v_proj", 4, 12, false);
    linear(layer + "self_attn.o_proj", 12, 12, false);
    linear(layer + "mlp.gate_proj", 16, 12, false);
    linear(layer + "mlp.up_proj", 16, 12, false);
    linear(layer + "mlp.down_proj", 12, 16, false);
  }
};

}  // namespace vlm::test
