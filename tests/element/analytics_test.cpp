// SPDX-License-Identifier: LGPL-2.1-or-later

// With a GStreamer that has analytics metadata (1.24 and later).

#include <gst/analytics/analytics.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "element_support.h"

namespace element_test {
namespace {

/// Text and confidence in the relation metadata of a buffer; an empty text where there is none.
std::pair<std::string, float> told_by(GstBuffer* buffer) {
  GstAnalyticsRelationMeta* meta = gst_buffer_get_analytics_relation_meta(buffer);
  gpointer state = nullptr;
  GstAnalyticsMtd mtd;
  while (meta != nullptr &&
         gst_analytics_relation_meta_iterate(meta, &state, GST_ANALYTICS_MTD_TYPE_ANY, &mtd)) {
#if GST_CHECK_VERSION(1, 29, 0)
    if (gst_analytics_mtd_get_mtd_type(&mtd) == gst_analytics_text_mtd_get_mtd_type()) {
      const auto* text = reinterpret_cast<const GstAnalyticsTextMtd*>(&mtd);
      return {gst_analytics_text_mtd_get_text(text), gst_analytics_text_mtd_get_confidence(text)};
    }
#else
    const char* name = gst_analytics_mtd_type_get_name(gst_analytics_mtd_get_mtd_type(&mtd));
    if (std::strcmp(name, "vlm-description") == 0) {
      const auto* data =
          static_cast<const char*>(gst_analytics_relation_meta_get_mtd_data(meta, mtd.id));
      float confidence = 0;
      std::memcpy(&confidence, data, sizeof(confidence));
      return {data + sizeof(confidence), confidence};
    }
#endif
  }
  return {"", 0.0F};
}

TEST(Analytics, relation_metadata_carry_the_text) {
  for (const char* policy : {"latest", "exact", "none"}) {
    Rig rig(std::string("mode=recorded interval=100000000 meta-policy=").append(policy));
    rig.begin();
    ASSERT_EQ(rig.push_range(0, 200 * GST_MSECOND), GST_FLOW_OK);
    ASSERT_NE(rig.messages->next_description(), nullptr);
    ASSERT_EQ(rig.push(200 * GST_MSECOND), GST_FLOW_OK);
    ASSERT_TRUE(rig.eos());
    const std::vector<BufferPtr> buffers = rig.buffers();
    ASSERT_EQ(buffers.size(), 6u);
    const auto [text, confidence] = told_by(buffers.back().get());
    if (std::string(policy) == "none") {
      EXPECT_EQ(text, "");
      continue;
    }
    EXPECT_EQ(text, "Describe the scene.|16x8|64,64,64|1");
    EXPECT_NEAR(confidence, std::exp(-0.5), 1e-6);
    const BufferPtr copy(gst_buffer_copy(buffers.back().get()));
    EXPECT_EQ(told_by(copy.get()).first, text);
  }
}

}  // namespace
}  // namespace element_test
