// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmanalytics.h"

#if VLM_HAVE_ANALYTICS
#include <gst/analytics/analytics.h>

#include <cmath>
#include <cstring>
#endif

namespace gstvlm {

#if VLM_HAVE_ANALYTICS
namespace {

#if !VLM_HAVE_TEXT_MTD
// Its address is the type; the name is what others find it by.
const GstAnalyticsMtdImpl kDescriptionMtd = {.name = "vlm-description"};

void add_text(GstAnalyticsRelationMeta* meta, const char* text, float confidence) {
  const gsize size = std::strlen(text) + 1;
  GstAnalyticsMtd added;
  auto* data = static_cast<char*>(gst_analytics_relation_meta_add_mtd(
      meta, &kDescriptionMtd, sizeof(confidence) + size, &added));
  if (data != nullptr) {
    std::memcpy(data, &confidence, sizeof(confidence));
    std::memcpy(data + sizeof(confidence), text, size);
  }
}
#else
void add_text(GstAnalyticsRelationMeta* meta, const char* text, float confidence) {
  GstAnalyticsTextMtd added;
  gst_analytics_relation_meta_add_text_mtd(meta, text, confidence, &added);
}
#endif

}  // namespace

void attach_analytics(GstBuffer* buffer, const GstStructure* structure) {
  GstAnalyticsRelationMeta* meta = gst_buffer_get_analytics_relation_meta(buffer);
  if (meta == nullptr) {
    meta = gst_buffer_add_analytics_relation_meta(buffer);
  }
  const char* text = gst_structure_get_string(structure, "text");
  gdouble logprob = 0;
  gst_structure_get_double(structure, "logprob", &logprob);
  add_text(meta, text == nullptr ? "" : text, static_cast<float>(std::exp(logprob)));
}

#else

void attach_analytics(GstBuffer*, const GstStructure*) {}

#endif

}  // namespace gstvlm
