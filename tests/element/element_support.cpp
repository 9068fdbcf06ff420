// SPDX-License-Identifier: LGPL-2.1-or-later
#include "element_support.h"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace element_test {
namespace {

class Environment : public ::testing::Environment {
 public:
  void SetUp() override {
    gst_init(nullptr, nullptr);
    GstElementFactory* factory = gst_element_factory_find("vlmdescribe");
    // Before every test has waited for what cannot come.
    ASSERT_TRUE(factory != nullptr && std::getenv("VLM_ENGINE_LIBRARY") != nullptr)
        << "This test needs GST_PLUGIN_PATH and VLM_ENGINE_LIBRARY; run it as `meson test -C BUILD "
           "element-NAME`, with --test-args for options.";
    gst_object_unref(factory);
  }
};

[[maybe_unused]] const auto* const environment =
    ::testing::AddGlobalTestEnvironment(new Environment);

template <typename Function>
Function* control(const char* name) {
  void* library = dlopen(std::getenv("VLM_ENGINE_LIBRARY"), RTLD_NOW | RTLD_LOCAL);
  EXPECT_NE(library, nullptr) << dlerror();
  return reinterpret_cast<Function*>(dlsym(library, name));
}

void set_properties(GstElement* element, const std::string& properties) {
  std::istringstream items(properties);
  std::string item;
  while (items >> item) {
    const size_t equals = item.find('=');
    gst_util_set_object_arg(G_OBJECT(element), item.substr(0, equals).c_str(),
                            item.substr(equals + 1).c_str());
  }
}

}  // namespace

bool eventually(const std::function<bool()>& condition) {
  const gint64 end = g_get_monotonic_time() + static_cast<gint64>(kPatience / GST_USECOND);
  while (!condition()) {
    if (g_get_monotonic_time() > end) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

FakeCounts counts() {
  return control<decltype(fake_counts)>("fake_counts")();
}

int opened(const char* model) {
  return control<decltype(fake_opened)>("fake_opened")(model);
}

void close_gate() {
  control<decltype(fake_close_gate)>("fake_close_gate")();
}

void open_gate(int count) {
  control<decltype(fake_open_gate)>("fake_open_gate")(count);
}

const GstStructure* description(GstMessage* message) {
  if (message == nullptr || GST_MESSAGE_TYPE(message) != GST_MESSAGE_ELEMENT) {
    return nullptr;
  }
  const GstStructure* structure = gst_message_get_structure(message);
  return gst_structure_has_name(structure, "vlm-description") ? structure : nullptr;
}

std::string text_of(const GstStructure* structure, const char* field) {
  const char* text = structure == nullptr ? nullptr : gst_structure_get_string(structure, field);
  EXPECT_NE(text, nullptr) << field;
  return text == nullptr ? "" : text;
}

guint64 time_of(const GstStructure* structure, const char* field) {
  guint64 time = 0;
  EXPECT_TRUE(structure != nullptr && gst_structure_get_uint64(structure, field, &time)) << field;
  return time;
}

std::vector<guint64> times_of(const GstStructure* structure, const char* field) {
  std::vector<guint64> times;
  const GValue* array = structure == nullptr ? nullptr : gst_structure_get_value(structure, field);
  EXPECT_TRUE(array != nullptr && GST_VALUE_HOLDS_ARRAY(array)) << field;
  for (guint i = 0; array != nullptr && i < gst_value_array_get_size(array); ++i) {
    times.push_back(g_value_get_uint64(gst_value_array_get_value(array, i)));
  }
  return times;
}

const GstStructure* meta_of(GstBuffer* buffer, const char* element) {
  gpointer state = nullptr;
  while (GstMeta* meta = gst_buffer_iterate_meta(buffer, &state)) {
    auto* custom = reinterpret_cast<GstCustomMeta*>(meta);
    if (!gst_meta_info_is_custom(meta->info) ||
        !gst_custom_meta_has_name(custom, "vlm-description")) {
      continue;
    }
    const GstStructure* structure = gst_custom_meta_get_structure(custom);
    if (element == nullptr || text_of(structure, "element") == element) {
      return structure;
    }
  }
  return nullptr;
}

guint64 stat(GstElement* element, const char* field) {
  GstStructure* stats = nullptr;
  g_object_get(element, "stats", &stats, nullptr);
  const StructurePtr owned(stats);
  return time_of(stats, field);
}

MessagePtr Messages::next(GstMessageType types, GstClockTime timeout) {
  return MessagePtr(gst_bus_timed_pop_filtered(bus_, timeout, types));
}

MessagePtr Messages::next_description(GstClockTime timeout) {
  while (MessagePtr message = next(GST_MESSAGE_ELEMENT, timeout)) {
    if (description(message.get()) != nullptr) {
      return message;
    }
  }
  return nullptr;
}

std::vector<MessagePtr> Messages::descriptions() {
  std::vector<MessagePtr> found;
  while (MessagePtr message = next_description(0)) {
    found.push_back(std::move(message));
  }
  return found;
}

std::string Messages::next_error(GQuark* domain, gint* code) {
  const MessagePtr message = next(GST_MESSAGE_ERROR);
  if (message == nullptr) {
    return "";
  }
  GError* error = nullptr;
  gst_message_parse_error(message.get(), &error, nullptr);
  const std::string text = error->message;
  if (domain != nullptr) {
    *domain = error->domain;
  }
  if (code != nullptr) {
    *code = error->code;
  }
  g_error_free(error);
  return text;
}

namespace {

GstElement* parse(const std::string& line) {
  GError* error = nullptr;
  GstElement* element =
      gst_parse_launch_full(line.c_str(), nullptr, GST_PARSE_FLAG_FATAL_ERRORS, &error);
  if (element == nullptr) {
    ADD_FAILURE() << line << ": " << error->message;
    g_error_free(error);
    return gst_pipeline_new(nullptr);
  }
  return element;
}

}  // namespace

Pipeline::Pipeline(const std::string& line)
    : pipeline(parse(line)), messages(GST_ELEMENT_BUS(pipeline)) {}

Pipeline::~Pipeline() {
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
}

ElementPtr Pipeline::operator[](const char* name) const {
  return ElementPtr(gst_bin_get_by_name(GST_BIN(pipeline), name));
}

bool Pipeline::play() {
  return set_state(GST_STATE_PLAYING) != GST_STATE_CHANGE_FAILURE;
}

GstStateChangeReturn Pipeline::set_state(GstState state) {
  return gst_element_set_state(pipeline, state);
}

std::vector<MessagePtr> Pipeline::run(GstClockTime patience) {
  std::vector<MessagePtr> found;
  if (!play()) {
    ADD_FAILURE() << "it does not start: " << messages.next_error();
    return found;
  }
  const auto types =
      static_cast<GstMessageType>(GST_MESSAGE_EOS | GST_MESSAGE_ERROR | GST_MESSAGE_ELEMENT);
  while (true) {
    MessagePtr message = messages.next(types, patience);
    if (message == nullptr) {
      ADD_FAILURE() << "nothing came for a long time";
      return found;
    }
    if (GST_MESSAGE_TYPE(message.get()) == GST_MESSAGE_EOS) {
      return found;
    }
    if (GST_MESSAGE_TYPE(message.get()) == GST_MESSAGE_ERROR) {
      GError* error = nullptr;
      gst_message_parse_error(message.get(), &error, nullptr);
      ADD_FAILURE() << error->message;
      g_error_free(error);
      return found;
    }
    if (description(message.get()) != nullptr) {
      found.push_back(std::move(message));
    }
  }
}

Rig::Rig(const std::string& properties, bool with_text) {
  element = gst_element_factory_make("vlmdescribe", "describe");
  if (element == nullptr) {
    ADD_FAILURE() << "the plugin is not found";
    std::abort();
  }
  gst_object_ref_sink(element);
  GstBus* bus = gst_bus_new();
  messages = std::make_unique<Messages>(bus);
  gst_element_set_bus(element, bus);
  gst_object_unref(bus);
  set_properties(element, properties);
  video = gst_harness_new_with_element(element, "sink", "src");
  if (with_text) {
    text = gst_harness_new_with_element(element, nullptr, "text");
  }
}

Rig::~Rig() {
  open_gate();
  if (text != nullptr) {
    gst_harness_teardown(text);
  }
  gst_harness_teardown(video);
  gst_element_set_state(element, GST_STATE_NULL);
  gst_element_set_bus(element, nullptr);
  gst_object_unref(element);
}

void Rig::begin(const std::string& caps) {
  if (begun_) {
    push_event(gst_event_new_stream_start("again"));
  }
  begun_ = true;
  gst_harness_set_src_caps_str(video, caps.c_str());
}

GstFlowReturn Rig::push(GstClockTime pts, GstClockTime duration) {
  return gst_harness_push(video, solid_frame(kFrameSize, pts, duration).release());
}

GstFlowReturn Rig::push_range(GstClockTime from, GstClockTime to) {
  GstFlowReturn flow = GST_FLOW_OK;
  for (GstClockTime pts = from; pts < to && flow == GST_FLOW_OK; pts += 40 * GST_MSECOND) {
    flow = push(pts);
  }
  return flow;
}

bool Rig::push_event(GstEvent* event) {
  return gst_harness_push_event(video, event) != FALSE;
}

void Rig::set(const std::string& properties) {
  set_properties(element, properties);
}

std::vector<BufferPtr> Rig::buffers() {
  std::vector<BufferPtr> found;
  while (GstBuffer* buffer = gst_harness_try_pull(video)) {
    found.emplace_back(buffer);
  }
  return found;
}

Folder::Folder() {
  std::string name = (std::filesystem::temp_directory_path() / "vlm-XXXXXX").string();
  EXPECT_NE(mkdtemp(name.data()), nullptr);
  path_ = name;
}

Folder::~Folder() {
  std::filesystem::remove_all(path_);
}

std::string Folder::read(const std::string& name) const {
  std::ifstream stream(file(name), std::ios::binary);
  std::stringstream text;
  text << stream.rdbuf();
  return text.str();
}

double resident_mib() {
  std::ifstream statm("/proc/self/statm");
  double size = 0, resident = 0;
  if (!(statm >> size >> resident)) {
    ADD_FAILURE() << "no /proc/self/statm";
  }
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 20);
}

std::string content(GstBuffer* buffer) {
  GstMapInfo map;
  EXPECT_TRUE(gst_buffer_map(buffer, &map, GST_MAP_READ));
  const std::string text(reinterpret_cast<const char*>(map.data), map.size);
  gst_buffer_unmap(buffer, &map);
  return text;
}

std::shared_ptr<GstBufferPool> frame_pool(guint minimum, guint maximum) {
  GstBufferPool* pool = gst_buffer_pool_new();
  GstStructure* config = gst_buffer_pool_get_config(pool);
  GstCaps* caps = gst_caps_from_string(kFrameCaps);
  gst_buffer_pool_config_set_params(config, caps, kFrameSize, minimum, maximum);
  gst_caps_unref(caps);
  EXPECT_TRUE(gst_buffer_pool_set_config(pool, config));
  EXPECT_TRUE(gst_buffer_pool_set_active(pool, TRUE));
  return {pool, [](GstBufferPool* used) {
            gst_buffer_pool_set_active(used, FALSE);
            gst_object_unref(used);
          }};
}

BufferPtr pooled_frame(GstBufferPool* pool, GstClockTime pts, guint8 value) {
  GstBufferPoolAcquireParams params = {};
  params.flags = GST_BUFFER_POOL_ACQUIRE_FLAG_DONTWAIT;
  GstBuffer* buffer = nullptr;
  if (gst_buffer_pool_acquire_buffer(pool, &buffer, &params) != GST_FLOW_OK) {
    return nullptr;
  }
  gst_buffer_memset(buffer, 0, value, kFrameSize);
  GST_BUFFER_PTS(buffer) = pts;
  GST_BUFFER_DURATION(buffer) = 40 * GST_MSECOND;
  return BufferPtr(buffer);
}

BufferPtr solid_frame(gsize size, GstClockTime pts, GstClockTime duration) {
  BufferPtr buffer(gst_buffer_new_allocate(nullptr, size, nullptr));
  gst_buffer_memset(buffer.get(), 0, 0x40, size);
  GST_BUFFER_PTS(buffer.get()) = pts;
  GST_BUFFER_DURATION(buffer.get()) = duration;
  return buffer;
}

std::vector<EventPtr> events_of(GstHarness* harness) {
  std::vector<EventPtr> found;
  while (GstEvent* event = gst_harness_try_pull_event(harness)) {
    found.emplace_back(event);
  }
  return found;
}

}  // namespace element_test
