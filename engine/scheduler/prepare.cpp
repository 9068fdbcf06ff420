// SPDX-License-Identifier: LGPL-2.1-or-later
#include "scheduler/prepare.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "preprocess/tiles.h"

namespace vlm {
namespace {

std::string size_text(const PixelTensor& pixels) {
  return std::to_string(pixels.channels) + "×" + std::to_string(pixels.height) + "×" +
         std::to_string(pixels.width);
}

class CheckpointPreparer : public Preparer {
 public:
  explicit CheckpointPreparer(std::shared_ptr<const Checkpoint> checkpoint)
      : checkpoint_(std::move(checkpoint)) {
    const ModelConfig& config = checkpoint_->config();
    if (config.layout == Layout::kOriginal) {
      original_ = {checkpoint_->name(), config.image_start_end, config.max_prompt_tokens};
    }
  }

  Result<Prepared> prepare(Request& request) override {
    const ModelConfig& config = checkpoint_->config();
    std::vector<Frame> frames = std::move(request.frames);
    const Result<AspectRatio> aspect_ratio =
        picture_aspect_ratio(config, request.options.image_aspect_ratio);
    if (!aspect_ratio) {
      return aspect_ratio.error();
    }
    Prepared prepared;
    std::vector<int64_t> tokens;
    for (const Frame& frame : frames) {
      const TileGrid grid = picture_grid(config, *aspect_ratio, frame.height, frame.width);
      tokens.push_back(picture_tokens(config, grid));
    }
    const Result<std::string> text =
        format_prompt(request.prompt, frames.size(), checkpoint_->chat_template(),
                      original_ ? &*original_ : nullptr);
    if (!text) {
      return text.error();
    }
    Result<PromptIds> ids = tokenize(*text, tokens, request.prompt.format != "raw");
    if (!ids) {
      return ids.error();
    }
    prepared.prompt = std::move(*ids);
    prepared.image_tokens =
        std::count(prepared.prompt.ids.begin(), prepared.prompt.ids.end(), config.image_token_id);
    for (Frame& held : frames) {
      const Frame frame = std::move(held);
      Result<PixelTensor> picture =
          preprocess_picture(frame, config, checkpoint_->preprocessor(), *aspect_ratio);
      if (!picture) {
        return picture.error();
      }
      if (const Status added = append_pixels(prepared.pixels, std::move(*picture)); !added) {
        return added.error();
      }
    }
    return prepared;
  }

 private:
  Result<PromptIds> tokenize(const std::string& text, const std::vector<int64_t>& tokens_per_image,
                             bool from_template) const {
    const Tokenizer& tokenizer = checkpoint_->tokenizer();
    const int64_t id = checkpoint_->config().image_token_id;
    return original_ ? tokenize_pieces(tokenizer, text, id, tokens_per_image, *original_)
                     : tokenize_prompt(tokenizer, text, id, tokens_per_image, from_template);
  }

  std::shared_ptr<const Checkpoint> checkpoint_;
  std::optional<OriginalPrompts> original_;
};

}  // namespace

std::unique_ptr<Preparer> make_preparer(std::shared_ptr<const Checkpoint> checkpoint) {
  return std::make_unique<CheckpointPreparer>(std::move(checkpoint));
}

Status append_pixels(PixelTensor& pixels, PixelTensor more) {
  if (pixels.images == 0) {
    pixels = std::move(more);
    return ok_status();
  }
  if (pixels.channels != more.channels || pixels.height != more.height ||
      pixels.width != more.width) {
    return Error{ErrorKind::kInternal,
                 "the pictures of a request have different sizes after preprocessing: " +
                     size_text(pixels) + " and " + size_text(more),
                 {}};
  }
  pixels.images += more.images;
  pixels.values.insert(pixels.values.end(), more.values.begin(), more.values.end());
  pixels.pictures.insert(pixels.pictures.end(), more.pictures.begin(), more.pictures.end());
  return ok_status();
}

}  // namespace vlm
