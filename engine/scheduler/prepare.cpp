// SPDX-License-Identifier: LGPL-2.1-or-later
#include "scheduler/prepare.h"

#include <string>
#include <utility>
#include <vector>

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
    const int64_t per_picture = checkpoint_->config().image_tokens();
    const Result<std::string> text =
        format_prompt(request.prompt, frames.size(), checkpoint_->chat_template());
    if (!text) {
      return text.error();
    }
    Result<PromptIds> ids =
        tokenize_prompt(checkpoint_->tokenizer(), *text, checkpoint_->config().image_token_id,
                        std::vector<int64_t>(frames.size(), per_picture));
    if (!ids) {
      return ids.error();
    }
    Prepared prepared;
    prepared.prompt = std::move(*ids);
    prepared.image_tokens = static_cast<int64_t>(frames.size()) * per_picture;
    for (Frame& held : frames) {
      const Frame frame = std::move(held);
      Result<PixelTensor> picture =
          preprocess_image(frame, checkpoint_->preprocessor(), request.options.image_aspect_ratio);
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
