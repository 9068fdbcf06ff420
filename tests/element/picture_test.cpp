// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmpicture.h"

#include <gtest/gtest.h>

namespace gstvlm {
namespace {

constexpr gsize kSize = 8 * 4 * 4;

std::shared_ptr<const Look> bgrx_look() {
  gst_init(nullptr, nullptr);
  Look look{};
  gst_video_info_set_format(&look.info, GST_VIDEO_FORMAT_BGRx, 8, 4);
  return std::make_shared<const Look>(look);
}

/// A frame whose bytes count up, of a pool that may grow.
BufferPtr counting_frame() {
  BufferPtr buffer(gst_buffer_new_allocate(nullptr, kSize, nullptr));
  GstMapInfo map;
  EXPECT_TRUE(gst_buffer_map(buffer.get(), &map, GST_MAP_WRITE));
  for (gsize i = 0; i < map.size; ++i) {
    map.data[i] = static_cast<guint8>(i);
  }
  gst_buffer_unmap(buffer.get(), &map);
  return buffer;
}

int owners(const BufferPtr& buffer) {
  return GST_MINI_OBJECT_REFCOUNT_VALUE(buffer.get());
}

TEST(Picture, that_waits_for_the_model_gives_its_buffer_back) {
  const auto look = bgrx_look();
  const BufferPtr buffer = counting_frame();
  Copies copies;
  Picture picture(buffer.get(), look);
  EXPECT_EQ(owners(buffer), 2);
  picture.keep_until_next();
  EXPECT_EQ(owners(buffer), 2);
  picture.keep(copies);
  EXPECT_EQ(owners(buffer), 1);
  gst_buffer_memset(buffer.get(), 0, 0, kSize);
  FrameConverter converter(*look);
  const auto frame = picture.convert(converter);
  ASSERT_TRUE(frame.ok());
  EXPECT_EQ((*frame)->rgb[0], 2);
  EXPECT_EQ((*frame)->rgb[3 * 31], 126);
}

TEST(Picture, gives_its_buffer_back_on_demand) {
  const auto look = bgrx_look();
  const BufferPtr buffer = counting_frame();
  Picture picture(buffer.get(), look);
  picture.give_back();
  EXPECT_EQ(owners(buffer), 1);
  FrameConverter converter(*look);
  const auto frame = picture.convert(converter);
  ASSERT_TRUE(frame.ok());
  EXPECT_EQ((*frame)->rgb[3 * 31], 126);
  picture.give_back();
}

TEST(Picture, copy_has_what_the_picture_needs_to_know_and_holds_no_parent) {
  const auto look = bgrx_look();
  const BufferPtr parent = counting_frame();
  const BufferPtr buffer(gst_buffer_copy(parent.get()));
  gst_buffer_add_parent_buffer_meta(buffer.get(), parent.get());
  GstVideoCropMeta* crop = gst_buffer_add_video_crop_meta(buffer.get());
  crop->x = 2;
  crop->width = 3;
  crop->height = 4;
  gsize offset[GST_VIDEO_MAX_PLANES] = {4};
  gint stride[GST_VIDEO_MAX_PLANES] = {31};
  gst_buffer_add_video_meta_full(buffer.get(), GST_VIDEO_FRAME_FLAG_NONE, GST_VIDEO_FORMAT_BGRx, 8,
                                 3, 1, offset, stride);
  const int before = owners(parent);
  Copies copies;
  const BufferPtr copy = copies.copy(buffer.get());
  ASSERT_NE(copy, nullptr);
  EXPECT_EQ(owners(parent), before);
  EXPECT_EQ(gst_buffer_get_parent_buffer_meta(copy.get()), nullptr);
  EXPECT_EQ(gst_buffer_get_size(copy.get()), kSize);
  ASSERT_NE(gst_buffer_get_video_crop_meta(copy.get()), nullptr);
  EXPECT_EQ(gst_buffer_get_video_crop_meta(copy.get())->width, 3U);
  const GstVideoMeta* video = gst_buffer_get_video_meta(copy.get());
  ASSERT_NE(video, nullptr);
  EXPECT_EQ(video->offset[0], 4U);
  EXPECT_EQ(video->stride[0], 31);
}

TEST(Picture, copy_has_the_bytes_of_all_memories_in_their_order) {
  gst_init(nullptr, nullptr);
  for (const gsize split : {0, 1, 63, 64, 100, 127}) {
    const BufferPtr buffer(gst_buffer_new());
    for (const gsize size : {split, 1000 - split, gsize{7}}) {
      if (size == 0) {
        continue;
      }
      const BufferPtr part(gst_buffer_new_allocate(nullptr, size, nullptr));
      for (gsize i = 0; i < size; ++i) {
        const auto byte = static_cast<guint8>(size + 3 * i);
        gst_buffer_fill(part.get(), i, &byte, 1);
      }
      gst_buffer_append_memory(buffer.get(), gst_buffer_get_all_memory(part.get()));
    }
    Copies copies;
    const BufferPtr copy = copies.copy(buffer.get());
    ASSERT_NE(copy, nullptr);
    ASSERT_EQ(gst_buffer_get_size(copy.get()), 1007U);
    guint8 bytes[1007];
    gst_buffer_extract(buffer.get(), 0, bytes, sizeof(bytes));
    EXPECT_EQ(gst_buffer_memcmp(copy.get(), 0, bytes, sizeof(bytes)), 0) << split;
  }
}

TEST(Picture, memory_of_a_copy_is_used_again) {
  const BufferPtr buffer((bgrx_look(), counting_frame()));
  Copies copies;
  BufferPtr first = copies.copy(buffer.get());
  BufferPtr second = copies.copy(buffer.get());
  GstBuffer* const freed = first.get();
  EXPECT_NE(freed, second.get());
  first.reset();
  first = copies.copy(buffer.get());
  EXPECT_EQ(first.get(), freed);
  const BufferPtr larger(gst_buffer_new_allocate(nullptr, 2 * kSize, nullptr));
  const BufferPtr other = copies.copy(larger.get());
  EXPECT_EQ(gst_buffer_get_size(other.get()), 2 * kSize);
  copies.clear();
  EXPECT_EQ(gst_buffer_memcmp(second.get(), 0, "\0\1\2", 3), 0);
}

}  // namespace
}  // namespace gstvlm
