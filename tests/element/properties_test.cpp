// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gst/controller/controller.h>
#include <gtest/gtest.h>

#include <array>
#include <iterator>
#include <map>
#include <set>

#include "element_support.h"

namespace element_test {
namespace {

/// A property as applications rely on it: type and default as text.
const std::map<std::string, std::pair<std::string, std::string>> kContract = {
    {"model", {"gchararray", "NULL"}},
    {"vision-tower", {"gchararray", "NULL"}},
    {"model-base", {"gchararray", "NULL"}},
    {"device", {"gchararray", "auto"}},
    {"dtype", {"GstVlmDType", "auto"}},
    {"quantization", {"GstVlmQuantization", "none"}},
    {"active", {"gboolean", "true"}},
    {"prompt", {"gchararray", "\"Describe\\ the\\ scene.\""}},
    {"prompt-format", {"gchararray", "auto"}},
    {"system-prompt", {"gchararray", "NULL"}},
    {"image-aspect-ratio", {"GstVlmAspectRatio", "auto"}},
    {"interval", {"guint64", "2000000000"}},
    {"frames", {"guint", "1"}},
    {"mode", {"GstVlmMode", "auto"}},
    {"max-pending", {"guint", "4"}},
    {"text-timing", {"GstVlmTextTiming", "auto"}},
    {"latency", {"guint64", "0"}},
    {"meta-policy", {"GstVlmMetaPolicy", "latest"}},
    {"max-held-bytes", {"guint64", "536870912"}},
    {"partial", {"gboolean", "false"}},
    {"details", {"gboolean", "false"}},
    {"max-new-tokens", {"guint", "128"}},
    {"min-new-tokens", {"guint", "0"}},
    {"temperature", {"gdouble", "0"}},
    {"top-k", {"guint", "0"}},
    {"top-p", {"gdouble", "1"}},
    {"min-p", {"gdouble", "0"}},
    {"repetition-penalty", {"gdouble", "1"}},
    {"no-repeat-ngram-size", {"guint", "0"}},
    {"repetition-guard", {"guint", "0"}},
    {"top-logprobs", {"guint", "0"}},
    {"num-beams", {"guint", "1"}},
    {"length-penalty", {"gdouble", "1"}},
    {"early-stopping", {"GstVlmEarlyStopping", "false"}},
    {"seed", {"guint64", "18446744073709551615"}},
    {"stop", {"GstValueArray", "<  >"}},
    {"on-error", {"GstVlmOnError", "fail"}},
    {"eos-timeout", {"guint64", "5000000000"}},
    {"trace", {"gchararray", "NULL"}},
    {"stats-interval", {"guint64", "0"}},
    {"last-description", {"gchararray", "\"\""}},
    {"stats", {"GstStructure", ""}},
};

ElementPtr element() {
  return ElementPtr(
      GST_ELEMENT(gst_object_ref_sink(gst_element_factory_make("vlmdescribe", nullptr))));
}

std::string value_of(GstElement* element, GParamSpec* spec) {
  GValue value = G_VALUE_INIT;
  g_value_init(&value, spec->value_type);
  g_object_get_property(G_OBJECT(element), spec->name, &value);
  gchar* text = gst_value_serialize(&value);
  const std::string result = text == nullptr ? "NULL" : text;
  g_free(text);
  g_value_unset(&value);
  return result;
}

TEST(Properties, all_are_there_with_their_defaults) {
  const ElementPtr describe = element();
  for (const auto& [name, expected] : kContract) {
    GParamSpec* spec =
        g_object_class_find_property(G_OBJECT_GET_CLASS(describe.get()), name.c_str());
    ASSERT_NE(spec, nullptr) << name;
    EXPECT_EQ(g_type_name(spec->value_type), expected.first) << name;
    if (name != "stats") {
      EXPECT_EQ(value_of(describe.get(), spec), expected.second) << name;
    }
  }
}

TEST(Properties, each_says_what_it_means_and_when_it_may_change) {
  const ElementPtr describe = element();
  guint count = 0;
  GParamSpec** specs = g_object_class_list_properties(G_OBJECT_GET_CLASS(describe.get()), &count);
  size_t own = 0;
  for (guint i = 0; i < count; ++i) {
    if (specs[i]->owner_type != G_OBJECT_TYPE(describe.get())) {
      continue;
    }
    ++own;
    EXPECT_TRUE(kContract.count(specs[i]->name)) << specs[i]->name << " is in no contract";
    EXPECT_GT(std::string(g_param_spec_get_blurb(specs[i])).size(), 10u) << specs[i]->name;
    if ((specs[i]->flags & G_PARAM_WRITABLE) != 0) {
      EXPECT_NE(specs[i]->flags & (GST_PARAM_MUTABLE_READY | GST_PARAM_MUTABLE_PLAYING), 0)
          << specs[i]->name;
    }
  }
  g_free(specs);
  EXPECT_EQ(own, kContract.size());
}

TEST(Properties, what_is_set_is_read_back) {
  const ElementPtr describe = element();
  const std::map<std::string, std::string> values = {
      {"model", "/some/where"},
      {"vision-tower", "/t"},
      {"model-base", "/b"},
      {"device", "cuda:1"},
      {"dtype", "bfloat16"},
      {"quantization", "int4"},
      {"active", "false"},
      {"prompt", "Why"},
      {"prompt-format", "raw"},
      {"system-prompt", "s"},
      {"image-aspect-ratio", "pad"},
      {"interval", "5"},
      {"frames", "7"},
      {"mode", "live"},
      {"max-pending", "9"},
      {"text-timing", "arrival"},
      {"latency", "11"},
      {"meta-policy", "exact"},
      {"max-held-bytes", "12"},
      {"partial", "true"},
      {"details", "true"},
      {"max-new-tokens", "13"},
      {"min-new-tokens", "14"},
      {"temperature", "0.5"},
      {"top-k", "15"},
      {"top-p", "0.25"},
      {"min-p", "0.125"},
      {"repetition-penalty", "1.5"},
      {"no-repeat-ngram-size", "3"},
      {"repetition-guard", "5"},
      {"top-logprobs", "6"},
      {"num-beams", "4"},
      {"length-penalty", "-1"},
      {"early-stopping", "never"},
      {"seed", "18446744073709551614"},
      {"stop", "< (string)a, (string)b >"},
      {"on-error", "skip"},
      {"eos-timeout", "16"},
      {"trace", "/x"},
      {"stats-interval", "17"},
  };
  EXPECT_EQ(values.size() + 2, kContract.size());
  for (const auto& [name, value] : values) {
    gst_util_set_object_arg(G_OBJECT(describe.get()), name.c_str(), value.c_str());
  }
  for (const auto& [name, value] : values) {
    GParamSpec* spec =
        g_object_class_find_property(G_OBJECT_GET_CLASS(describe.get()), name.c_str());
    EXPECT_EQ(value_of(describe.get(), spec), value) << name;
  }
}

// Refused or not: no number takes memory without measure, or ends the process.
TEST(Properties, largest_numbers_are_described_or_named) {
  guint count = 0;
  const ElementPtr describe = element();
  GParamSpec** specs = g_object_class_list_properties(G_OBJECT_GET_CLASS(describe.get()), &count);
  int tried = 0;
  for (guint i = 0; i < count; ++i) {
    if (!G_IS_PARAM_SPEC_UINT(specs[i])) {
      continue;
    }
    SCOPED_TRACE(specs[i]->name);
    const std::string largest =
        std::string(specs[i]->name) + "=" + std::to_string(G_PARAM_SPEC_UINT(specs[i])->maximum);
    Rig rig("mode=recorded interval=200000000 details=true model=fake:tokens=4096 " + largest);
    rig.begin();
    if (rig.push_range(0, 400 * GST_MSECOND) == GST_FLOW_OK) {
      EXPECT_TRUE(rig.eos());
      EXPECT_EQ(rig.messages->descriptions().size(), 2u);
    } else {
      const std::string error = rig.messages->next_error();
      EXPECT_NE(error.find(largest), std::string::npos) << error;
    }
    ++tried;
  }
  g_free(specs);
  EXPECT_EQ(tried, 9);
}

/// What a window asks of the engine, and as the fake engine tells it.
struct Change {
  const char* property;
  std::string value;  // GStreamer writes into it while it reads
  const char* told;   // null: "PROPERTY=VALUE"
};

// One after the other while video flows: the window that has begun keeps what it began with, the
// next one has the new value, and all that were changed before stay.
TEST(Properties, each_takes_effect_on_the_next_window) {
  const Change changes[] = {
      {"prompt", "Why", nullptr},
      {"prompt-format", "raw", nullptr},
      {"system-prompt", "s", nullptr},
      {"image-aspect-ratio", "pad", "image-aspect-ratio=2"},
      {"frames", "3", nullptr},
      {"max-new-tokens", "13", nullptr},
      {"min-new-tokens", "14", nullptr},
      {"temperature", "0.5", nullptr},
      {"top-k", "15", nullptr},
      {"top-p", "0.25", nullptr},
      {"min-p", "0.125", nullptr},
      {"repetition-penalty", "1.5", nullptr},
      {"no-repeat-ngram-size", "3", nullptr},
      {"repetition-guard", "5", nullptr},
      {"top-logprobs", "6", nullptr},
      {"num-beams", "4", nullptr},
      {"length-penalty", "-1", nullptr},
      {"early-stopping", "never", "early-stopping=2"},
      {"seed", "18446744073709551614", nullptr},
      {"stop", "< (string)a, (string)b >", "stop=a;stop=b"},
  };
  Rig rig("mode=recorded interval=200000000 model=fake:options");
  rig.begin();
  guint64 window = 0;
  ASSERT_EQ(rig.push(0), GST_FLOW_OK);
  std::vector<std::string> expected;
  for (const Change& change : changes) {
    gst_util_set_object_arg(G_OBJECT(rig.element), change.property, change.value.c_str());
    const guint64 begun = window++ * 200 * GST_MSECOND;
    // The rest of this window and the first frame of the next.
    ASSERT_EQ(rig.push_range(begun + 40 * GST_MSECOND, begun + 240 * GST_MSECOND), GST_FLOW_OK);
    const MessagePtr message = rig.messages->next_description();
    ASSERT_NE(message, nullptr);
    const std::string text = text_of(description(message.get()));
    for (const std::string& told : expected) {
      EXPECT_NE(text.find(told), std::string::npos) << change.property << ": " << text;
    }
    std::string told = change.told != nullptr ? change.told : change.property;
    if (change.told == nullptr) {
      told.append("=").append(change.value);
    }
    expected.push_back(told.append(";"));
    EXPECT_EQ(text.find(expected.back()), std::string::npos) << text;
  }
  ASSERT_TRUE(rig.eos());
  const std::string text = text_of(description(rig.messages->next_description().get()));
  for (const std::string& told : expected) {
    EXPECT_NE(text.find(told), std::string::npos) << told << ": " << text;
  }
  // All that may change while playing were among them, but for those that the engine never sees.
  std::set<std::string> left;
  for (const auto& [name, contract] : kContract) {
    const GParamSpec* spec =
        g_object_class_find_property(G_OBJECT_GET_CLASS(rig.element), name.c_str());
    if ((spec->flags & GST_PARAM_MUTABLE_PLAYING) != 0) {
      left.insert(name);
    }
  }
  for (const Change& change : changes) {
    EXPECT_EQ(left.erase(change.property), 1u) << change.property;
  }
  EXPECT_EQ(left, (std::set<std::string>{"active", "details", "eos-timeout", "interval", "latency",
                                         "max-held-bytes", "max-pending", "on-error", "partial",
                                         "stats-interval"}));
}

// Numbers that make sense as a curve over time; a window takes the value of the moment it begins.
TEST(Properties, numbers_of_generation_follow_a_controller) {
  Rig rig("mode=recorded interval=1000000000 model=fake:options,curve");
  GstControlSource* source = gst_interpolation_control_source_new();
  g_object_set(source, "mode", GST_INTERPOLATION_MODE_LINEAR, nullptr);
  auto* values = GST_TIMED_VALUE_CONTROL_SOURCE(source);
  gst_timed_value_control_source_set(values, 0, 1);
  gst_timed_value_control_source_set(values, 4 * GST_SECOND, 9);
  for (const char* name : {"max-new-tokens", "min-new-tokens", "temperature", "top-k",
                           "repetition-penalty", "no-repeat-ngram-size", "repetition-guard",
                           "top-logprobs", "num-beams", "length-penalty"}) {
    ASSERT_TRUE(gst_object_add_control_binding(
        GST_OBJECT(rig.element),
        gst_direct_control_binding_new_absolute(GST_OBJECT(rig.element), name, source)))
        << name;
  }
  gst_object_unref(source);
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 3 * GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  for (const char* value : {"=1;", "=3;", "=5;"}) {
    const MessagePtr message = rig.messages->next_description();
    ASSERT_NE(message, nullptr);
    const std::string text = text_of(description(message.get()));
    EXPECT_NE(text.find(std::string(";temperature") + value), std::string::npos) << text;
    EXPECT_NE(text.find(std::string("max-new-tokens") + value), std::string::npos) << text;
    EXPECT_NE(text.find(std::string("length-penalty") + value), std::string::npos) << text;
  }
}

// Binds `property` to values that hold from one stream time to the next.
void bind_steps(GstElement* element, const char* property,
                const std::vector<std::pair<GstClockTime, double>>& steps) {
  GstControlSource* source = gst_interpolation_control_source_new();
  g_object_set(source, "mode", GST_INTERPOLATION_MODE_NONE, nullptr);
  for (const auto& [time, value] : steps) {
    gst_timed_value_control_source_set(GST_TIMED_VALUE_CONTROL_SOURCE(source), time, value);
  }
  EXPECT_TRUE(gst_object_add_control_binding(
      GST_OBJECT(element),
      gst_direct_control_binding_new_absolute(GST_OBJECT(element), property, source)))
      << property;
  gst_object_unref(source);
}

TEST(Properties, choices_and_windows_follow_a_controller) {
  Rig rig("mode=recorded model=fake:options,steps");
  bind_steps(rig.element, "interval", {{0, 1e9}, {GST_SECOND, 5e8}});
  bind_steps(rig.element, "frames", {{0, 1}, {GST_SECOND, 2}});
  bind_steps(rig.element, "seed", {{0, 7}, {GST_SECOND, 8}});
  // Of choices a controller knows a share of all: 1 is the last.
  bind_steps(rig.element, "early-stopping", {{0, 0}, {GST_SECOND, 1}});
  bind_steps(rig.element, "image-aspect-ratio", {{0, 0}, {GST_SECOND, 1}});
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 2 * GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  for (const bool later : {false, true, true}) {
    const MessagePtr message = rig.messages->next_description();
    ASSERT_NE(message, nullptr);
    EXPECT_EQ(time_of(description(message.get()), "duration"), later ? GST_SECOND / 2 : GST_SECOND);
    const std::string text = text_of(description(message.get()));
    for (const char* told :
         later ? std::array{"frames=2;", "seed=8;", "early-stopping=2;", "image-aspect-ratio=3;"}
               : std::array{"frames=1;", "seed=7;", "early-stopping=0;", "image-aspect-ratio=0;"}) {
      EXPECT_NE(text.find(told), std::string::npos) << told << " " << text;
    }
  }
}

TEST(Properties, plugin_and_pads_are_as_announced) {
  const ElementPtr describe = element();
  GstElementClass* klass = GST_ELEMENT_GET_CLASS(describe.get());
  EXPECT_STREQ(gst_element_class_get_metadata(klass, GST_ELEMENT_METADATA_KLASS),
               "Filter/Analyzer/Video");
  GstPadTemplate* text = gst_element_class_get_pad_template(klass, "text");
  ASSERT_NE(text, nullptr);
  EXPECT_EQ(GST_PAD_TEMPLATE_PRESENCE(text), GST_PAD_REQUEST);
  GstCaps* caps = gst_pad_template_get_caps(text);
  gchar* written = gst_caps_to_string(caps);
  EXPECT_STREQ(written, "text/x-raw, format=(string)utf8");
  g_free(written);
  gst_caps_unref(caps);
  GstElementFactory* factory = gst_element_get_factory(describe.get());
  EXPECT_STREQ(gst_plugin_feature_get_plugin_name(GST_PLUGIN_FEATURE(factory)), "vlm");
}

}  // namespace
}  // namespace element_test
