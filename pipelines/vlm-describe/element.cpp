// SPDX-License-Identifier: LGPL-2.1-or-later
#include "element.h"

#include "values.h"
#include "vlm/names.h"

namespace describe {

namespace {

/// Sets properties by name and remembers the first one that is not there.
class Setter {
 public:
  explicit Setter(GstElement* element) : object_(G_OBJECT(element)) {}

  /// Numbers, booleans and enums, from their text.
  void value(const char* name, const std::string& text) {
    if (known(name)) gst_util_set_object_arg(object_, name, text.c_str());
  }
  void text(const char* name, const std::string& text) {
    if (known(name)) g_object_set(object_, name, text.c_str(), nullptr);
  }
  void whole(const char* name, const std::optional<int>& number) {
    if (number) value(name, std::to_string(*number));
  }
  void real(const char* name, const std::optional<double>& number) {
    if (number) value(name, number_text(*number));
  }
  void texts(const char* name, const std::vector<std::string>& list) {
    if (!known(name)) return;
    GValue array = G_VALUE_INIT;
    g_value_init(&array, GST_TYPE_ARRAY);
    for (const std::string& item : list) {
      GValue entry = G_VALUE_INIT;
      g_value_init(&entry, G_TYPE_STRING);
      g_value_set_string(&entry, item.c_str());
      gst_value_array_append_and_take_value(&array, &entry);
    }
    g_object_set_property(object_, name, &array);
    g_value_unset(&array);
  }
  const std::string& missing() const { return missing_; }

 private:
  bool known(const char* name) {
    if (g_object_class_find_property(G_OBJECT_GET_CLASS(object_), name) != nullptr) return true;
    if (missing_.empty()) missing_ = name;
    return false;
  }

  GObject* object_;
  std::string missing_;
};

void set_generation(Setter& set, const vlm::Options& options) {
  set.whole("max-new-tokens", options.max_new_tokens);
  set.whole("min-new-tokens", options.min_new_tokens);
  set.real("temperature", options.temperature);
  set.whole("top-k", options.top_k);
  set.real("top-p", options.top_p);
  set.real("min-p", options.min_p);
  set.real("repetition-penalty", options.repetition_penalty);
  set.whole("no-repeat-ngram-size", options.no_repeat_ngram_size);
  set.whole("repetition-guard", options.repetition_guard);
  set.whole("top-logprobs", options.top_logprobs);
  set.whole("num-beams", options.num_beams);
  set.real("length-penalty", options.length_penalty);
  if (options.early_stopping) {
    set.value("early-stopping", vlm::early_stopping_name(*options.early_stopping));
  }
  if (options.seed) set.value("seed", std::to_string(*options.seed));
  if (!options.stop.empty()) set.texts("stop", options.stop);
}

}  // namespace

vlm::Status configure_element(GstElement* element, const Settings& settings,
                              const std::string& trace_path) {
  Setter set(element);
  set.text("model", settings.model.model);
  if (!settings.model.vision_tower.empty()) set.text("vision-tower", settings.model.vision_tower);
  if (!settings.model.model_base.empty()) set.text("model-base", settings.model.model_base);
  set.text("device", settings.model.device);
  set.value("dtype", vlm::dtype_name(settings.model.dtype));
  set.value("quantization", vlm::quantization_name(settings.model.quantization));
  set.text("prompt", settings.prompt);
  set.text("prompt-format", settings.prompt_format);
  if (settings.system) set.text("system-prompt", *settings.system);
  set.value("image-aspect-ratio", vlm::aspect_ratio_name(settings.options.image_aspect_ratio));
  set.value("interval", std::to_string(settings.interval_ns));
  set.value("frames", std::to_string(settings.frames));
  set.value("meta-policy", "none");
  set.value("details", "true");
  if (!trace_path.empty()) set.text("trace", trace_path);
  set_generation(set, settings.options);
  if (set.missing().empty()) return vlm::ok_status();
  return vlm::Error{
      vlm::ErrorKind::kInternal,
      "the plugin vlm is older than this program: its element has no property " + set.missing(),
      {}};
}

}  // namespace describe
