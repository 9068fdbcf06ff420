// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmcontext.h"

#include "vlm/names.h"

namespace gstvlm {
namespace {

gpointer copy_boxed(gpointer boxed) {
  return new SharedEngine(*static_cast<SharedEngine*>(boxed));
}

void free_boxed(gpointer boxed) {
  delete static_cast<SharedEngine*>(boxed);
}

// For logs, which write out what passes.
gchar* name_boxed(const GValue* value) {
  const auto* shared = static_cast<const SharedEngine*>(g_value_get_boxed(value));
  return g_strdup(shared == nullptr ? "none" : shared->spec.model.c_str());
}

GType boxed_type() {
  static const GType type = [] {
    const GType boxed = g_boxed_type_register_static("GstVlmEngine", copy_boxed, free_boxed);
    // GStreamer keeps the address.
    static const GstValueTable table = {boxed, nullptr, name_boxed, nullptr, nullptr, {nullptr}};
    gst_value_register(&table);
    return boxed;
  }();
  return type;
}

// True where a peer of one of the element's pads answered; its context is set on the element.
gboolean ask_peer(GstElement* element, GstPad* pad, gpointer query) {
  if (!gst_pad_peer_query(pad, static_cast<GstQuery*>(query))) {
    return TRUE;
  }
  GstContext* context = nullptr;
  gst_query_parse_context(static_cast<GstQuery*>(query), &context);
  if (context != nullptr) {
    gst_element_set_context(element, context);
  }
  return FALSE;
}

}  // namespace

GstContext* new_engine_context(const SharedEngine& shared) {
  GstContext* context = gst_context_new(kEngineContext, FALSE);
  const vlm::ModelSpec& spec = shared.spec;
  gst_structure_set(gst_context_writable_structure(context), "engine", boxed_type(), &shared,
                    "model", G_TYPE_STRING, spec.model.c_str(), "vision-tower", G_TYPE_STRING,
                    spec.vision_tower.c_str(), "model-base", G_TYPE_STRING, spec.model_base.c_str(),
                    "device", G_TYPE_STRING, spec.device.c_str(), "dtype", G_TYPE_STRING,
                    vlm::dtype_name(spec.dtype), "quantization", G_TYPE_STRING,
                    vlm::quantization_name(spec.quantization), nullptr);
  return context;
}

std::optional<SharedEngine> engine_of_context(GstContext* context) {
  if (context == nullptr || !gst_context_has_context_type(context, kEngineContext)) {
    return std::nullopt;
  }
  const GValue* value = gst_structure_get_value(gst_context_get_structure(context), "engine");
  if (value == nullptr || !G_VALUE_HOLDS(value, boxed_type())) {
    return std::nullopt;
  }
  return *static_cast<const SharedEngine*>(g_value_get_boxed(value));
}

void ask_for_engine(GstElement* element) {
  GstQuery* query = gst_query_new_context(kEngineContext);
  if (gst_element_foreach_pad(element, ask_peer, query)) {
    gst_element_post_message(element,
                             gst_message_new_need_context(GST_OBJECT(element), kEngineContext));
  }
  gst_query_unref(query);
}

void announce_engine(GstElement* element, const SharedEngine& shared) {
  GstContext* context = new_engine_context(shared);
  gst_element_set_context(element, context);
  gst_element_post_message(element, gst_message_new_have_context(GST_OBJECT(element), context));
}

bool answer_context(GstElement* element, GstQuery* query) {
  const gchar* type = nullptr;
  if (GST_QUERY_TYPE(query) != GST_QUERY_CONTEXT || !gst_query_parse_context_type(query, &type) ||
      g_strcmp0(type, kEngineContext) != 0) {
    return false;
  }
  GstContext* context = gst_element_get_context(element, kEngineContext);
  if (context == nullptr) {
    return false;
  }
  gst_query_set_context(query, context);
  gst_context_unref(context);
  return true;
}

}  // namespace gstvlm
