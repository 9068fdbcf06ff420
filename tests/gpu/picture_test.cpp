// SPDX-License-Identifier: LGPL-2.1-or-later
// Pictures in a GPU's memory become the tower's inputs bit for bit as on a CPU.
#include <ATen/ops/from_blob.h>
#include <ATen/ops/randint.h>

#include <cstring>

#include "cuda/picture_index.h"
#include "gpu/gpu_case.h"
#include "preprocess/gpu_pictures.h"
#include "preprocess/tiles.h"

namespace vlm {
namespace {

/// A picture of noise on the CPU and, in a copy, on the GPU.
struct Both {
  Both(PictureLayout::Format format, int width, int height) {
    const bool nv12 = format == PictureLayout::Format::kNv12;
    here.format = format;
    here.width = width;
    here.height = height;
    here.pixel_bytes = 4;
    here.rgb[0] = 2;
    here.rgb[2] = 0;
    here.matrix = {{16, 128, 128}, 1.164384F, 1.792741F, 2.112402F, 0.213249F, 0.532909F};
    here.strides[0] = (nv12 ? width : 4 * width) + 13;
    here.strides[1] = (width + 1) / 2 * 2 + 7;
    const int rows[2] = {height, (height + 1) / 2};
    there.layout = here;
    for (int plane = 0; plane < (nv12 ? 2 : 1); ++plane) {
      bytes[plane] = at::randint(256, {here.strides[plane] * rows[plane]}, at::kByte);
      copies[plane] = to_gpu(bytes[plane]);
      here.planes[plane] = bytes[plane].const_data_ptr<uint8_t>();
      there.layout.planes[plane] = copies[plane].const_data_ptr<uint8_t>();
    }
  }

  /// What the CPU makes of it.
  Frame frame() const {
    Frame frame{there.upright_width(), there.upright_height(), {}};
    for (int y = 0; y < frame.height; ++y) {
      for (int x = 0; x < frame.width; ++x) {
        const Rgb pixel = upright_pixel(here, x, y);
        frame.rgb.insert(frame.rgb.end(), {pixel.red, pixel.green, pixel.blue});
      }
    }
    return frame;
  }

  void turn(const PictureTurn& how) { here.turn = there.layout.turn = how; }

  PictureLayout here;
  GpuPicture there;
  at::Tensor bytes[2], copies[2];
};

const std::vector<std::pair<int, int>> kShapes = {
    {1, 1}, {2, 2}, {1, 7}, {9, 1}, {3, 3}, {16, 8}, {33, 57}, {127, 65}, {640, 48}, {1919, 1079}};
constexpr PictureLayout::Format kFormats[] = {PictureLayout::Format::kNv12,
                                              PictureLayout::Format::kRgb};

TEST(GpuPicture, is_converted_bit_for_bit_in_every_shape_and_turn) {
  const auto gpu = make_device_pictures("cuda");
  for (const PictureLayout::Format format : kFormats) {
    for (const auto& [width, height] : kShapes) {
      Both both(format, width, height);
      for (int turns = 0; turns < (width > 1000 ? 1 : 8); ++turns) {
        both.turn({(turns & 1) != 0, (turns & 2) != 0, (turns & 4) != 0});
        both.here.cosited = both.there.layout.cosited = turns % 3 == 0;
        const Frame got = gpu->fetch(both.there);
        const Frame wanted = both.frame();
        ASSERT_EQ(got.width, wanted.width);
        ASSERT_EQ(got.height, wanted.height);
        EXPECT_TRUE(got.rgb == wanted.rgb) << width << "x" << height << " turns " << turns;
      }
    }
  }
}

void expect_equal(DevicePictures& gpu, const Both& both, const ModelConfig& model,
                  const PreprocessorConfig& config, AspectRatio aspect_ratio) {
  const Frame frame = both.frame();
  const auto plans = plan_picture(frame.height, frame.width, model, config, aspect_ratio);
  const auto wanted = preprocess_picture(frame, model, config, aspect_ratio);
  ASSERT_TRUE(plans && wanted);
  const PlannedPicture planned = {std::make_shared<GpuPicture>(both.there),
                                  picture_grid(model, aspect_ratio, frame.height, frame.width),
                                  *plans};
  const auto made = gpu.make({planned, planned}, pixel_levels(config));
  const at::Tensor got = static_cast<const TorchPixels&>(*made).values.cpu();
  ASSERT_EQ(got.numel(), 2 * static_cast<int64_t>(wanted->values.size()));
  const size_t bytes = wanted->values.size() * sizeof(float);
  const auto* values = got.const_data_ptr<float>();
  for (size_t copy = 0; copy < 2; ++copy) {
    EXPECT_EQ(std::memcmp(values + copy * wanted->values.size(), wanted->values.data(), bytes), 0)
        << frame.width << "x" << frame.height;
  }
}

TEST(GpuPicture, becomes_the_towers_input_bit_for_bit) {
  const auto gpu = make_device_pictures("cuda");
  for (const PictureLayout::Format format : kFormats) {
    for (const auto& [width, height] : kShapes) {
      const Both both(format, width, height);
      for (int filter = 0; filter <= 5; ++filter) {
        PreprocessorConfig config;
        config.resample = filter;
        config.shortest_edge = 32;
        config.crop_height = 40;
        config.crop_width = 24;
        for (const AspectRatio aspect_ratio : {AspectRatio::kCrop, AspectRatio::kPad}) {
          expect_equal(*gpu, both, {}, config, aspect_ratio);
        }
      }
    }
  }
}

TEST(GpuPicture, becomes_tiles_bit_for_bit) {
  const auto gpu = make_device_pictures("cuda");
  ModelConfig model;
  model.vision.image_size = 336;
  model.vision.patch_size = 14;
  model.anyres.sizes = {{336, 672}, {672, 336}, {672, 672}, {1008, 336}, {336, 1008}};
  PreprocessorConfig config;
  config.shortest_edge = config.crop_height = config.crop_width = 336;
  for (const auto& [width, height] :
       {std::pair(640, 480), std::pair(200, 1000), std::pair(1919, 1079)}) {
    expect_equal(*gpu, Both(PictureLayout::Format::kNv12, width, height), model, config,
                 AspectRatio::kAnyres);
  }
}

}  // namespace
}  // namespace vlm

int main(int argc, char** argv) {
  return vlm::run_gpu_tests(argc, argv);
}
