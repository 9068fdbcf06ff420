// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <memory>

#include "loader/checkpoint.h"
#include "preprocess/device_pictures.h"
#include "preprocess/image.h"
#include "text/prompt.h"
#include "vlm/engine.h"
#include "vlm/error.h"

namespace vlm {

/// A request as the model takes it.
struct Prepared {
  PromptIds prompt;
  PixelTensor pixels;  ///< all pictures one after the other; none: images is 0
  int64_t image_tokens = 0;
};

/// Turns a request into ids and pixels ahead of the model. Called by one thread at a time.
class Preparer {
 public:
  virtual ~Preparer() = default;
  /// Takes the frames out of `request` and frees each as soon as it is read.
  virtual Result<Prepared> prepare(Request& request) = 0;
};

/// With a checkpoint's templates, tokenizer and picture settings. `gpu` sees to pictures that lie
/// on the engine's GPU: where all of a request do, their pixels stay there. Null where there is
/// none; such pictures are an error then (kInvalidArgument), as those of another GPU are.
std::unique_ptr<Preparer> make_preparer(std::shared_ptr<const Checkpoint> checkpoint,
                                        std::unique_ptr<DevicePictures> gpu = nullptr);

/// Appends the pictures of `more` to `pixels`. Error: sizes differ.
Status append_pixels(PixelTensor& pixels, PixelTensor more);

}  // namespace vlm
