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
  CheckpointPreparer(std::shared_ptr<const Checkpoint> checkpoint,
                     std::unique_ptr<DevicePictures> gpu)
      : checkpoint_(std::move(checkpoint)), gpu_(std::move(gpu)) {
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
    Result<PixelTensor> pixels = prepare_pictures(std::move(frames), *aspect_ratio);
    if (!pixels) {
      return pixels.error();
    }
    prepared.pixels = std::move(*pixels);
    return prepared;
  }

 private:
  Result<PixelTensor> prepare_pictures(std::vector<Frame> frames, AspectRatio aspect_ratio) {
    for (const Frame& frame : frames) {
      if (const Status here = check_place(frame); !here) {
        return here.error();
      }
    }
    Result<std::vector<PlannedPicture>> planned = plan_on_gpu(frames, aspect_ratio);
    if (!planned) {
      return planned.error();
    }
    return planned->empty() ? prepare_on_cpu(std::move(frames), aspect_ratio)
                            : prepare_on_gpu(*planned);
  }

  Status check_place(const Frame& frame) const {
    if (frame.on_gpu == nullptr || (gpu_ != nullptr && gpu_->device() == frame.on_gpu->device)) {
      return ok_status();
    }
    return Error{ErrorKind::kInvalidArgument,
                 "a frame lies on cuda:" + std::to_string(frame.on_gpu->device) +
                     ", but the engine runs elsewhere: copy it into `rgb`",
                 {}};
  }

  // Nothing where not all pictures lie there, or where they are made otherwise than by plans of one
  // size.
  Result<std::vector<PlannedPicture>> plan_on_gpu(const std::vector<Frame>& frames,
                                                  AspectRatio aspect_ratio) const {
    std::vector<PlannedPicture> planned;
    for (const Frame& frame : frames) {
      if (frame.on_gpu == nullptr) {
        return std::vector<PlannedPicture>();
      }
      Result<std::vector<ImagePlan>> plans =
          plan_picture(frame.height, frame.width, checkpoint_->config(),
                       checkpoint_->preprocessor(), aspect_ratio);
      if (!plans) {
        return plans.error();
      }
      planned.push_back(
          {frame.on_gpu,
           picture_grid(checkpoint_->config(), aspect_ratio, frame.height, frame.width),
           std::move(*plans)});
      for (const ImagePlan& plan : planned.back().plans) {
        const ImagePlan& first = planned.front().plans.front();
        if (plan.out_width != first.out_width || plan.out_height != first.out_height) {
          return std::vector<PlannedPicture>();
        }
      }
      if (planned.back().plans.empty()) {
        return std::vector<PlannedPicture>();
      }
    }
    return planned;
  }

  Result<PixelTensor> prepare_on_gpu(const std::vector<PlannedPicture>& planned) {
    PixelTensor pixels;
    const ImagePlan& any = planned.front().plans.front();
    pixels.height = any.out_height;
    pixels.width = any.out_width;
    for (const PlannedPicture& one : planned) {
      pixels.images += static_cast<int64_t>(one.plans.size());
      pixels.pictures.push_back(one.grid);
    }
    pixels.on_device = gpu_->make(planned, pixel_levels(checkpoint_->preprocessor()));
    return pixels;
  }

  Result<PixelTensor> prepare_on_cpu(std::vector<Frame> frames, AspectRatio aspect_ratio) {
    PixelTensor pixels;
    for (Frame& held : frames) {
      const Frame frame = held.on_gpu != nullptr ? gpu_->fetch(*held.on_gpu) : std::move(held);
      held = {};
      Result<PixelTensor> picture = preprocess_picture(frame, checkpoint_->config(),
                                                       checkpoint_->preprocessor(), aspect_ratio);
      if (!picture) {
        return picture.error();
      }
      if (const Status added = append_pixels(pixels, std::move(*picture)); !added) {
        return added.error();
      }
    }
    return pixels;
  }

  Result<PromptIds> tokenize(const std::string& text, const std::vector<int64_t>& tokens_per_image,
                             bool from_template) const {
    const Tokenizer& tokenizer = checkpoint_->tokenizer();
    const int64_t id = checkpoint_->config().image_token_id;
    return original_ ? tokenize_pieces(tokenizer, text, id, tokens_per_image, *original_)
                     : tokenize_prompt(tokenizer, text, id, tokens_per_image, from_template);
  }

  std::shared_ptr<const Checkpoint> checkpoint_;
  std::unique_ptr<DevicePictures> gpu_;
  std::optional<OriginalPrompts> original_;
};

}  // namespace

std::unique_ptr<Preparer> make_preparer(std::shared_ptr<const Checkpoint> checkpoint,
                                        std::unique_ptr<DevicePictures> gpu) {
  return std::make_unique<CheckpointPreparer>(std::move(checkpoint), std::move(gpu));
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
