// SPDX-License-Identifier: LGPL-2.1-or-later
// Answers questions about text and pictures: one JSON object a line on stdin, one a line on stdout.
// For the tests that compare with the reference; links the core alone.
//   {"op":"load","directory":D,"reader":"slow4"|"fast4"?,"extra":[TOKEN…]?}  tokenizer for what
//                                                   follows; with a reader as the original has it
//   {"op":"encode","hex":[BYTES…]}                  ids of each
//   {"op":"decode","ids":[[…]…]}                    of each: text, and as a stream
//   {"op":"format","format":F,"system":S|null,"turns":[[role,text]…],"pictures":N,
//    "template":T|null,"tokens":{NAME:TEXT}}        text
//   {"op":"jinja","template":T,"variables":{…}}     text
//   {"op":"prompt","text":T,"image_id":I,"tokens":[…],"from_template":B,"pieces":B}  ids and
//                                                   offsets; pieces: as the original has it
//   {"op":"pictures","directory":D}                 picture settings for what follows
//   {"op":"tiles","layout":"hf"|"original","image":S,"patch":P,"sizes":[[H,W]…],"merge":M}  model
//   {"op":"counts","pictures":[[H,W]…]}             rows, columns and tokens of each
//   {"op":"preprocess","width":W,"height":H,"file":RGB,"aspect":A,"out":FLOATS}  shape

#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "loader/config.h"
#include "preprocess/tiles.h"
#include "text/jinja/template.h"
#include "text/prompt.h"
#include "text/tokenizer.h"
#include "vlm/names.h"

namespace {

using Json = nlohmann::json;

std::unique_ptr<const vlm::Tokenizer> tokenizer;
vlm::PreprocessorConfig pictures;
vlm::ModelConfig model;

Json error_of(const vlm::Error& error) {
  return {{"error", error.message}, {"kind", static_cast<int>(error.kind)}};
}

std::string unhex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

Json load(const Json& request) {
  vlm::TokenizerOptions options;
  const std::string reader = request.value("reader", "");
  if (reader == "slow4") options.reader = vlm::TokenizerReader::kSlow4;
  if (reader == "fast4") options.reader = vlm::TokenizerReader::kFast4;
  options.extra = request.value("extra", std::vector<std::string>());
  auto loaded = vlm::Tokenizer::load(request["directory"], options);
  if (!loaded) return error_of(loaded.error());
  tokenizer = std::move(*loaded);
  return {{"vocab_size", tokenizer->vocab_size()},
          {"bos", tokenizer->bos_id()},
          {"eos", tokenizer->eos_id()}};
}

Json encode(const Json& request) {
  Json all = Json::array();
  for (const Json& hex : request["hex"]) all.push_back(tokenizer->encode(unhex(hex)));
  return {{"ids", all}};
}

Json decode(const Json& request) {
  Json texts = Json::array(), streams = Json::array();
  for (const Json& entry : request["ids"]) {
    const std::vector<int64_t> ids = entry;
    vlm::StreamDecoder stream(*tokenizer);
    std::string grown;
    for (const int64_t id : ids) grown += stream.push(id);
    texts.push_back(tokenizer->decode(ids));
    streams.push_back(grown);
  }
  return {{"texts", texts}, {"streams", streams}};
}

Json format(const Json& request) {
  vlm::Prompt prompt;
  prompt.format = request["format"];
  if (!request["system"].is_null()) prompt.system = request["system"].get<std::string>();
  for (const Json& turn : request["turns"]) {
    prompt.turns.push_back(
        {turn[0] == "user" ? vlm::Turn::Role::kUser : vlm::Turn::Role::kAssistant,
         turn[1].get<std::string>()});
  }
  std::optional<vlm::ChatTemplate> chat_template;
  if (!request["template"].is_null()) {
    chat_template = {request["template"], "chat_template.jinja", {}};
    if (request.contains("tokens")) chat_template->tokens = request["tokens"];
  }
  const auto text = vlm::format_prompt(prompt, request["pictures"].get<size_t>(), chat_template);
  return text ? Json{{"text", *text}} : error_of(text.error());
}

Json jinja(const Json& request) {
  const std::map<std::string, Json> variables = request["variables"];
  const auto text = vlm::as_result([&] {
    return vlm::jinja::render(request["template"].get_ref<const std::string&>(), "test", variables);
  });
  return text ? Json{{"text", *text}} : error_of(text.error());
}

Json prompt(const Json& request) {
  const std::vector<int64_t> tokens = request["tokens"];
  const int64_t image = request["image_id"];
  const auto ids = request.value("pieces", false)
                       ? vlm::tokenize_pieces(*tokenizer, request["text"], image, tokens, {})
                       : vlm::tokenize_prompt(*tokenizer, request["text"], image, tokens,
                                              request.value("from_template", false));
  if (!ids) return error_of(ids.error());
  return {{"ids", ids->ids}, {"offsets", ids->image_offsets}};
}

Json tiles(const Json& request) {
  static const std::pair<const char*, vlm::PatchMerge> kMerges[] = {
      {"flat", vlm::PatchMerge::kFlat},
      {"spatial", vlm::PatchMerge::kSpatial},
      {"spatial_unpad", vlm::PatchMerge::kSpatialUnpad},
  };
  model.layout =
      request["layout"] == "original" ? vlm::Layout::kOriginal : vlm::Layout::kHuggingFace;
  model.vision.image_size = request["image"];
  model.vision.patch_size = request["patch"];
  model.anyres.sizes = request["sizes"].get<vlm::TileSizes>();
  for (const auto& [name, merge] : kMerges) {
    if (request["merge"] == name) model.anyres.merge = merge;
  }
  return Json::object();
}

Json counts(const Json& request) {
  Json replies = Json::array();
  for (const Json& size : request["pictures"]) {
    const vlm::TileGrid grid =
        vlm::picture_grid(model, vlm::AspectRatio::kAnyres, size[0], size[1]);
    replies.push_back({grid.rows, grid.columns, vlm::picture_tokens(model, grid)});
  }
  return {{"counts", replies}};
}

Json preprocess(const Json& request) {
  std::ifstream file(request["file"].get<std::string>(), std::ios::binary);
  vlm::Frame frame;
  frame.width = request["width"];
  frame.height = request["height"];
  frame.rgb.assign(std::istreambuf_iterator<char>(file), {});
  const auto ratio = vlm::enum_value(vlm::kAspectRatioNames, request["aspect"].get<std::string>());
  const auto pixels = vlm::preprocess_picture(frame, model, pictures, ratio.value());
  if (!pixels) return error_of(pixels.error());
  std::ofstream out(request["out"].get<std::string>(), std::ios::binary);
  out.write(reinterpret_cast<const char*>(pixels->values.data()),
            static_cast<std::streamsize>(pixels->values.size() * sizeof(float)));
  return {{"shape", {pixels->images, pixels->channels, pixels->height, pixels->width}}};
}

Json answer(const Json& request) {
  const std::string op = request["op"];
  if (op == "load") return load(request);
  if (op == "encode") return encode(request);
  if (op == "jinja") return jinja(request);
  if (op == "decode") return decode(request);
  if (op == "format") return format(request);
  if (op == "prompt") return prompt(request);
  if (op == "tiles") return tiles(request);
  if (op == "counts") return counts(request);
  if (op == "preprocess") return preprocess(request);
  if (op != "pictures") return {{"error", "unknown op " + op}};
  const auto config = vlm::load_preprocessor_config(request["directory"]);
  if (!config) return error_of(config.error());
  pictures = *config;
  return Json::object();
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << answer(Json::parse(line)).dump() << std::endl;
  }
  return 0;
}
