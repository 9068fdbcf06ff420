// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmdescription.h"

#include <gtest/gtest.h>

#define GST_CAT_DEFAULT gst_vlm_debug

namespace gstvlm {
namespace {

StructurePtr described(const char* element, const char* text) {
  Window window;
  window.prompt = "What?";
  window.frame_pts = {1, 2};
  vlm::Description description;
  description.text = text;
  return describe(window, description, 5, "model", element);
}

int metas(GstBuffer* buffer) {
  gpointer state = nullptr;
  int count = 0;
  while (gst_buffer_iterate_meta(buffer, &state) != nullptr) {
    ++count;
  }
  return count;
}

class Description : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    gst_init(nullptr, nullptr);
    register_description_meta();
    register_description_meta();
  }
};

TEST_F(Description, own_meta_is_replaced_and_others_kept) {
  const BufferPtr buffer(gst_buffer_new());
  attach_description(buffer.get(), described("a", "first").get());
  attach_description(buffer.get(), described("b", "other").get());
  attach_description(buffer.get(), described("a", "second").get());
  EXPECT_EQ(metas(buffer.get()), 2);
  GstCustomMeta* meta = gst_buffer_get_custom_meta(buffer.get(), kDescriptionName);
  ASSERT_NE(meta, nullptr);
  EXPECT_STREQ(gst_structure_get_string(gst_custom_meta_get_structure(meta), "text"), "second");
}

TEST_F(Description, meta_is_copied_with_the_buffer) {
  const BufferPtr buffer(gst_buffer_new());
  attach_description(buffer.get(), described("a", "text").get());
  const BufferPtr copy(gst_buffer_copy(buffer.get()));
  EXPECT_EQ(metas(copy.get()), 1);
}

TEST_F(Description, structure_without_wall_clock_has_no_such_field) {
  Window window;
  EXPECT_FALSE(
      gst_structure_has_field(describe(window, vlm::Description(), 0, "m", "e").get(), "utc"));
  window.utc_us = -3;
  gint64 utc = 0;
  EXPECT_TRUE(gst_structure_get_int64(describe(window, vlm::Description(), 0, "m", "e").get(),
                                      "utc", &utc));
  EXPECT_EQ(utc, -3);
}

TEST_F(Description, sequence_score_is_for_beams_only) {
  vlm::Description description;
  StructurePtr structure = described("a", "");
  add_details(structure.get(), description);
  EXPECT_FALSE(gst_structure_has_field(structure.get(), "sequence-score"));
  description.sequence_score = -0.5;
  add_details(structure.get(), description);
  gdouble score = 0;
  EXPECT_TRUE(gst_structure_get_double(structure.get(), "sequence-score", &score));
  EXPECT_EQ(score, -0.5);
}

TEST_F(Description, structure_survives_serialisation) {
  const StructurePtr structure = described("a", "A \"red\" circle;\n<left> é");
  gchar* written = gst_structure_to_string(structure.get());
  const StructurePtr read(gst_structure_from_string(written, nullptr));
  g_free(written);
  ASSERT_NE(read, nullptr);
  EXPECT_TRUE(gst_structure_is_equal(read.get(), structure.get()));
}

TEST(SubtitleText, is_one_harmless_line) {
  const std::pair<const char*, const char*> cases[] = {
      {"", ""},
      {"plain", "plain"},
      {"one\ntwo", "one two"},
      {"one\r\n\r\ntwo", "one two"},
      {"one \n two", "one  two"},
      {"\nstart", "start"},
      {"end\n", "end"},
      {"\n\n", ""},
      {"a --> b", "a --&gt; b"},
      {"a ----> b", "a ----&gt; b"},
      {"-->-->", "--&gt;--&gt;"},
      {"--\n>", "-- >"},
      {"größer\n日本", "größer 日本"},
  };
  for (const auto& [text, expected] : cases) {
    EXPECT_EQ(subtitle_text(text), expected);
  }
}

}  // namespace
}  // namespace gstvlm
