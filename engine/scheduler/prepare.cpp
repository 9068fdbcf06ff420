// SPDX-License-Identifier: LGPL-2.1-or-later
#include "scheduler/prepare.h"

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
      : checkpoint_(std::move(checkpoint)) {}

  Result<Prepared> prepare(Request& request) override {
    std::vector<Frame> frames = std::move(request.frames);
    const ModelConfig& model = checkpoint_->config();
    const Result<AspectRatio> aspect_ratio =
        picture_aspect_ratio(model, request.options.image_aspect_ratio);
    if (!aspect_ratio) {
      return aspect_ratio.error();
    }
    Prepared prepared;
    std::vector<int64_t> tokens;
    for (const Frame& frame : frames) {
      const TileGrid grid = picture_grid(model, *aspect_ratio, frame.height, frame.width);
      tokens.push_back(picture_tokens(model, grid));
      prepared.image_tokens += tokens.back();
    }
    const Result<std::string> text =
        format_prompt(request.prompt, frames.size(), checkpoint_->chat_template());
    if (!text) {
      return text.error();
    }
    Result<PromptIds> ids = tokenize_prompt(checkpoint_->tokenizer(), *text, model.image_token_id,
                                            tokens, request.prompt.format != "raw");
    if (!ids) {
      return ids.error();
    }
    prepared.prompt = std::move(*ids);
    for (Frame& held : frames) {
      const Frame frame = std::move(held);
      Result<PixelTensor> picture =
          preprocess_picture(frame, model, checkpoint_->preprocessor(), *aspect_ratio);
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
  std::shared_ptr<const Checkpoint> checkpoint_;
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
