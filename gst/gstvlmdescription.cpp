// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmdescription.h"

#include <array>
#include <cstring>
#include <vector>

namespace gstvlm {
namespace {

// Appends `value`, of which ownership passes, to the GstValueArray `array`.
void append(GValue* array, GType type, const std::function<void(GValue*)>& fill) {
  GValue item = G_VALUE_INIT;
  g_value_init(&item, type);
  fill(&item);
  gst_value_array_append_and_take_value(array, &item);
}

template <typename Container, typename Fill>
void fill_array(GValue* array, GType type, const Container& items, Fill fill) {
  for (const auto& item : items) {
    append(array, type, [&](GValue* value) { fill(value, item); });
  }
}

template <typename Container, typename Fill>
void set_array(GstStructure* structure, const char* field, GType type, const Container& items,
               Fill fill) {
  GValue array = G_VALUE_INIT;
  gst_value_array_init(&array, static_cast<guint>(items.size()));
  fill_array(&array, type, items, fill);
  gst_structure_take_value(structure, field, &array);
}

StructurePtr common(const Window& window, const std::string& text, const std::string& model,
                    const std::string& element) {
  StructurePtr structure(gst_structure_new(
      kDescriptionName, "text", G_TYPE_STRING, text.c_str(), "prompt", G_TYPE_STRING,
      window.prompt.c_str(), "pts", G_TYPE_UINT64, window.times.pts, "duration", G_TYPE_UINT64,
      window.times.duration, "stream-time", G_TYPE_UINT64, window.times.stream_time, "running-time",
      G_TYPE_UINT64, window.times.running_time, "index", G_TYPE_UINT64, window.index, "model",
      G_TYPE_STRING, model.c_str(), "element", G_TYPE_STRING, element.c_str(), nullptr));
  if (window.extra) {
    gst_structure_set(structure.get(), "extra", G_TYPE_BOOLEAN, TRUE, nullptr);
  }
  if (window.utc_us) {
    gst_structure_set(structure.get(), "utc", G_TYPE_INT64, *window.utc_us, nullptr);
  }
  set_array(structure.get(), "frame-pts", G_TYPE_UINT64, window.frame_pts,
            [](GValue* value, uint64_t pts) { g_value_set_uint64(value, pts); });
  return structure;
}

void set_choice(GValue* value, const vlm::TokenChoice& choice) {
  const StructurePtr structure(gst_structure_new(
      "vlm-token", "id", G_TYPE_INT64, static_cast<gint64>(choice.id), "text", G_TYPE_STRING,
      choice.text.c_str(), "logprob", G_TYPE_DOUBLE, double{choice.logprob}, nullptr));
  gst_value_set_structure(value, structure.get());
}

// The meta that the element called `name` put on the buffer before, or null.
GstCustomMeta* find_own(GstBuffer* buffer, const char* name) {
  gpointer state = nullptr;
  const GstMetaInfo* info = gst_meta_get_info(kDescriptionName);
  while (GstMeta* meta = gst_buffer_iterate_meta_filtered(buffer, &state, info->api)) {
    auto* custom = reinterpret_cast<GstCustomMeta*>(meta);
    const char* element =
        gst_structure_get_string(gst_custom_meta_get_structure(custom), "element");
    if (element != nullptr && name != nullptr && std::strcmp(element, name) == 0) {
      return custom;
    }
  }
  return nullptr;
}

gboolean copy_field(GQuark field, const GValue* value, gpointer target) {
  gst_structure_id_set_value(static_cast<GstStructure*>(target), field, value);
  return TRUE;
}

}  // namespace

void register_description_meta() {
  static const gboolean once = [] {
    if (gst_meta_get_info(kDescriptionName) == nullptr) {
      std::array<const gchar*, 1> no_tags = {nullptr};
      gst_meta_register_custom(kDescriptionName, no_tags.data(), nullptr, nullptr, nullptr);
    }
    return TRUE;
  }();
  static_cast<void>(once);
}

StructurePtr describe(const Window& window, const vlm::Description& description,
                      uint64_t latency_ns, const std::string& model, const std::string& element) {
  StructurePtr structure = common(window, description.text, model, element);
  gst_structure_set(structure.get(), "finish-reason", G_TYPE_STRING,
                    vlm::finish_reason_name(description.finish_reason), "tokens", G_TYPE_UINT,
                    static_cast<guint>(description.token_ids.size()), "logprob", G_TYPE_DOUBLE,
                    description.mean_logprob(), "latency", G_TYPE_UINT64, latency_ns, "partial",
                    G_TYPE_BOOLEAN, FALSE, nullptr);
  return structure;
}

StructurePtr describe_partial(const Window& window, const std::string& text,
                              const std::string& model, const std::string& element) {
  StructurePtr structure = common(window, text, model, element);
  gst_structure_set(structure.get(), "partial", G_TYPE_BOOLEAN, TRUE, nullptr);
  return structure;
}

void add_details(GstStructure* structure, const vlm::Description& description) {
  const vlm::Timing& timing = description.timing;
  StructurePtr times(gst_structure_new(
      "vlm-timing", "wait-ms", G_TYPE_DOUBLE, timing.wait_ms, "vision-ms", G_TYPE_DOUBLE,
      timing.vision_ms, "prefill-ms", G_TYPE_DOUBLE, timing.prefill_ms, "decode-ms", G_TYPE_DOUBLE,
      timing.decode_ms, "total-ms", G_TYPE_DOUBLE, timing.total_ms, nullptr));
  gst_structure_set(structure, "final-prompt", G_TYPE_STRING, description.prompt.c_str(),
                    "prompt-tokens", G_TYPE_INT64, static_cast<gint64>(description.prompt_tokens),
                    "image-tokens", G_TYPE_INT64, static_cast<gint64>(description.image_tokens),
                    "timing", GST_TYPE_STRUCTURE, times.get(), nullptr);
  if (description.sequence_score) {
    gst_structure_set(structure, "sequence-score", G_TYPE_DOUBLE, *description.sequence_score,
                      nullptr);
  }
  set_array(structure, "token-ids", G_TYPE_INT64, description.token_ids,
            [](GValue* value, int64_t id) { g_value_set_int64(value, id); });
  set_array(structure, "logprobs", G_TYPE_DOUBLE, description.logprobs,
            [](GValue* value, float logprob) { g_value_set_double(value, double{logprob}); });
  if (!description.top_logprobs.empty()) {
    set_array(structure, "top-logprobs", GST_TYPE_ARRAY, description.top_logprobs,
              [](GValue* value, const std::vector<vlm::TokenChoice>& choices) {
                fill_array(value, GST_TYPE_STRUCTURE, choices, set_choice);
              });
  }
}

void attach_description(GstBuffer* buffer, const GstStructure* structure) {
  GstCustomMeta* meta = find_own(buffer, gst_structure_get_string(structure, "element"));
  if (meta == nullptr) {
    meta = gst_buffer_add_custom_meta(buffer, kDescriptionName);
  }
  GstStructure* target = gst_custom_meta_get_structure(meta);
  gst_structure_remove_all_fields(target);
  gst_structure_foreach(structure, copy_field, target);
}

std::string subtitle_text(const std::string& text) {
  std::string line;
  line.reserve(text.size());
  bool broken = false;
  for (const char c : text) {
    if (c == '\n' || c == '\r' || c == '\v' || c == '\f') {
      broken = true;
      continue;
    }
    if (broken && !line.empty() && line.back() != ' ' && c != ' ') {
      line += ' ';
    }
    broken = false;
    line += c;
  }
  constexpr const char* kArrow = "-->";
  constexpr const char* kHarmless = "--&gt;";
  for (size_t at = line.find(kArrow); at != std::string::npos; at = line.find(kArrow, at)) {
    line.replace(at, std::strlen(kArrow), kHarmless);
    at += std::strlen(kHarmless);
  }
  return line;
}

}  // namespace gstvlm
