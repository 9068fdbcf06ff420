// SPDX-License-Identifier: LGPL-2.1-or-later
#include "message.h"

namespace describe {

namespace {

/// Any number that a field may hold, as another type of number.
template <typename Number>
Number number_of(const GValue* value) {
  if (value == nullptr) return Number{};
  switch (G_VALUE_TYPE(value)) {
    case G_TYPE_INT:
      return static_cast<Number>(g_value_get_int(value));
    case G_TYPE_UINT:
      return static_cast<Number>(g_value_get_uint(value));
    case G_TYPE_INT64:
      return static_cast<Number>(g_value_get_int64(value));
    case G_TYPE_UINT64:
      return static_cast<Number>(g_value_get_uint64(value));
    case G_TYPE_FLOAT:
      return static_cast<Number>(g_value_get_float(value));
    case G_TYPE_DOUBLE:
      return static_cast<Number>(g_value_get_double(value));
    default:
      return Number{};
  }
}

class Fields {
 public:
  explicit Fields(const GstStructure* structure) : structure_(structure) {}

  bool has(const char* name) const { return gst_structure_has_field(structure_, name); }
  std::string text(const char* name) const {
    const char* value = gst_structure_get_string(structure_, name);
    return value != nullptr ? value : "";
  }
  template <typename Number>
  Number number(const char* name) const {
    return number_of<Number>(gst_structure_get_value(structure_, name));
  }
  template <typename Number>
  std::vector<Number> numbers(const char* name) const {
    std::vector<Number> list;
    const GValue* array = gst_structure_get_value(structure_, name);
    if (array == nullptr || !GST_VALUE_HOLDS_ARRAY(array)) return list;
    for (guint i = 0; i < gst_value_array_get_size(array); ++i) {
      list.push_back(number_of<Number>(gst_value_array_get_value(array, i)));
    }
    return list;
  }

 private:
  const GstStructure* structure_;
};

std::vector<std::vector<vlm::TokenChoice>> choices_of(const GValue* tokens) {
  std::vector<std::vector<vlm::TokenChoice>> lists;
  if (tokens == nullptr || !GST_VALUE_HOLDS_ARRAY(tokens)) return lists;
  for (guint i = 0; i < gst_value_array_get_size(tokens); ++i) {
    const GValue* choices = gst_value_array_get_value(tokens, i);
    std::vector<vlm::TokenChoice>& list = lists.emplace_back();
    if (!GST_VALUE_HOLDS_ARRAY(choices)) continue;
    for (guint k = 0; k < gst_value_array_get_size(choices); ++k) {
      const GValue* choice = gst_value_array_get_value(choices, k);
      if (!GST_VALUE_HOLDS_STRUCTURE(choice)) continue;
      const Fields fields(gst_value_get_structure(choice));
      list.push_back(
          {fields.number<int64_t>("id"), fields.text("text"), fields.number<float>("logprob")});
    }
  }
  return lists;
}

vlm::Timing timing_of(const Fields& fields) {
  vlm::Timing timing;
  timing.wait_ms = fields.number<double>("wait-ms");
  timing.vision_ms = fields.number<double>("vision-ms");
  timing.prefill_ms = fields.number<double>("prefill-ms");
  timing.decode_ms = fields.number<double>("decode-ms");
  timing.total_ms = fields.number<double>("total-ms");
  return timing;
}

}  // namespace

std::optional<Record> to_record(const GstStructure* structure, const std::string& source,
                                bool live) {
  if (structure == nullptr || !gst_structure_has_name(structure, "vlm-description")) {
    return std::nullopt;
  }
  gboolean partial = FALSE;
  gst_structure_get_boolean(structure, "partial", &partial);
  if (partial) return std::nullopt;
  const Fields fields(structure);
  Record record;
  record.source = source;
  record.index = fields.number<uint64_t>("index");
  // Buffers of some files begin later than the video: their times become those of the video.
  const auto pts = fields.number<uint64_t>("pts");
  // Those of a live source begin anew with each connection, and what it has played so far does not.
  const char* time = live ? "running-time" : "stream-time";
  record.pts_ns = fields.has(time) ? fields.number<uint64_t>(time) : pts;
  record.duration_ns = fields.number<uint64_t>("duration");
  record.frame_pts_ns = fields.numbers<uint64_t>("frame-pts");
  for (uint64_t& frame : record.frame_pts_ns) frame += record.pts_ns - pts;
  if (fields.has("utc")) record.utc_us = fields.number<int64_t>("utc");
  record.finish_reason = fields.text("finish-reason");
  vlm::Description& d = record.description;
  d.text = fields.text("text");
  d.prompt = fields.text(fields.has("final-prompt") ? "final-prompt" : "prompt");
  d.token_ids = fields.numbers<int64_t>("token-ids");
  d.logprobs = fields.numbers<float>("logprobs");
  d.top_logprobs = choices_of(gst_structure_get_value(structure, "top-logprobs"));
  if (fields.has("sequence-score")) d.sequence_score = fields.number<double>("sequence-score");
  d.prompt_tokens = fields.number<int64_t>("prompt-tokens");
  d.image_tokens = fields.number<int64_t>("image-tokens");
  const GValue* timing = gst_structure_get_value(structure, "timing");
  if (timing != nullptr && GST_VALUE_HOLDS_STRUCTURE(timing)) {
    d.timing = timing_of(Fields(gst_value_get_structure(timing)));
  }
  return record;
}

}  // namespace describe
