// SPDX-License-Identifier: LGPL-2.1-or-later
// Requests whose pictures lie on a GPU, with the demo model's checkpoint and a GPU that only notes
// what it is asked for.
#include "scheduler/prepare.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "scheduler/settings.h"

namespace vlm {
namespace {

constexpr int kGpu = 1;

Frame plain(int width, int height) {
  return {width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3), 90)};
}

struct Asked {
  int fetched = 0;
  std::vector<PlannedPicture> planned;
};

class NotingGpu : public DevicePictures {
 public:
  explicit NotingGpu(Asked& asked) : asked_(asked) {}
  int device() const override { return kGpu; }
  Frame fetch(const GpuPicture& picture) override {
    ++asked_.fetched;
    return plain(picture.upright_width(), picture.upright_height());
  }
  std::shared_ptr<const DevicePixels> make(const std::vector<PlannedPicture>& pictures,
                                           const PixelLevels&) override {
    asked_.planned = pictures;
    return std::make_shared<DevicePixels>();
  }

 private:
  Asked& asked_;
};

Frame on_gpu(int width, int height, int device = kGpu) {
  static const uint8_t pixel = 0;
  GpuPicture picture;
  picture.device = device;
  picture.layout.width = width;
  picture.layout.height = height;
  picture.layout.planes[0] = &pixel;
  return {width, height, {}, std::make_shared<GpuPicture>(picture)};
}

class Prepare : public ::testing::Test {
 protected:
  Result<Prepared> prepare(std::vector<Frame> frames, bool with_gpu = true) {
    const char* source = std::getenv("VLM_SOURCE_DIR");
    ModelSpec spec;
    spec.model = std::string(source != nullptr ? source : ".") + "/examples/demo-model/model";
    auto checkpoint = Checkpoint::open(spec);
    EXPECT_TRUE(checkpoint);
    const auto preparer =
        make_preparer(*checkpoint, with_gpu ? std::make_unique<NotingGpu>(asked) : nullptr);
    Request request;
    request.frames = std::move(frames);
    request.prompt.turns = {{Turn::Role::kUser, "Describe the scene."}};
    return preparer->prepare(request);
  }

  Asked asked;
};

TEST_F(Prepare, pictures_on_the_gpu_stay_there) {
  const auto there = prepare({on_gpu(64, 48), on_gpu(30, 50)});
  const auto here = prepare({plain(64, 48), plain(30, 50)});
  ASSERT_TRUE(there && here);
  EXPECT_NE(there->pixels.on_device, nullptr);
  EXPECT_TRUE(there->pixels.values.empty());
  EXPECT_EQ(here->pixels.on_device, nullptr);
  EXPECT_EQ(there->pixels.images, here->pixels.images);
  EXPECT_EQ(there->pixels.height, here->pixels.height);
  EXPECT_EQ(there->pixels.width, here->pixels.width);
  EXPECT_EQ(there->pixels.pictures.size(), 2u);
  EXPECT_EQ(there->prompt.ids, here->prompt.ids);
  EXPECT_EQ(asked.fetched, 0);
  ASSERT_EQ(asked.planned.size(), 2u);
  EXPECT_EQ(asked.planned[1].grid.height, 50);
}

TEST_F(Prepare, pictures_here_and_there_are_prepared_here) {
  const auto mixed = prepare({on_gpu(64, 48), plain(30, 50)});
  const auto here = prepare({plain(64, 48), plain(30, 50)});
  ASSERT_TRUE(mixed && here);
  EXPECT_EQ(asked.fetched, 1);
  EXPECT_TRUE(asked.planned.empty());
  EXPECT_EQ(mixed->pixels.on_device, nullptr);
  EXPECT_EQ(mixed->pixels.values, here->pixels.values);
}

TEST_F(Prepare, another_gpus_picture_is_refused) {
  for (const auto& refused :
       {prepare({on_gpu(64, 48, kGpu + 1)}), prepare({on_gpu(64, 48)}, false)}) {
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind, ErrorKind::kInvalidArgument);
    EXPECT_NE(refused.error().message.find("cuda:"), std::string::npos);
  }
}

TEST(Content, a_picture_on_a_gpu_is_of_the_frames_size_and_has_its_planes) {
  Prompt prompt;
  prompt.turns = {{Turn::Role::kUser, "Describe the scene."}};
  EXPECT_TRUE(check_content(prompt, {on_gpu(4, 3)}));
  Frame frame = on_gpu(4, 3);
  frame.width = 5;
  EXPECT_FALSE(check_content(prompt, {frame}));
  GpuPicture picture = *on_gpu(4, 3).on_gpu;
  picture.layout.turn.swap = true;
  EXPECT_FALSE(check_content(prompt, {{4, 3, {}, std::make_shared<GpuPicture>(picture)}}));
  EXPECT_TRUE(check_content(prompt, {{3, 4, {}, std::make_shared<GpuPicture>(picture)}}));
  picture.layout.format = PictureLayout::Format::kNv12;
  EXPECT_FALSE(check_content(prompt, {{3, 4, {}, std::make_shared<GpuPicture>(picture)}}));
}

}  // namespace
}  // namespace vlm
