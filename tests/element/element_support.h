// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// What the element's tests share: pipelines and harnesses that collect messages, solid frames, and
// the fake engine's controls.

#include <gst/check/gstharness.h>
#include <gst/gst.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fake_engine.h"

namespace element_test {

struct Free {
  void operator()(GstMessage* message) const { gst_message_unref(message); }
  void operator()(GstBuffer* buffer) const { gst_buffer_unref(buffer); }
  void operator()(GstEvent* event) const { gst_event_unref(event); }
  void operator()(GstElement* element) const { gst_object_unref(element); }
  void operator()(GstStructure* structure) const { gst_structure_free(structure); }
  void operator()(GstHarness* harness) const { gst_harness_teardown(harness); }
};
using MessagePtr = std::unique_ptr<GstMessage, Free>;
using BufferPtr = std::unique_ptr<GstBuffer, Free>;
using EventPtr = std::unique_ptr<GstEvent, Free>;
using ElementPtr = std::unique_ptr<GstElement, Free>;
using StructurePtr = std::unique_ptr<GstStructure, Free>;
using HarnessPtr = std::unique_ptr<GstHarness, Free>;

/// Longest time anything here may take; only a failing test waits that long.
inline constexpr GstClockTime kPatience = 20 * GST_SECOND;

/// What a Rig's frames are.
inline constexpr const char* kFrameCaps = "video/x-raw,format=RGB,width=16,height=8,framerate=25/1";
inline constexpr gsize kFrameSize = 16 * 8 * 3;

/// Waits until `condition` holds; false where it never does.
bool eventually(const std::function<bool()>& condition);

/// The controls of the fake engine that the plugin has opened.
FakeCounts counts();
int opened(const char* model);
void close_gate();
void open_gate(int count = -1);

/// The description's structure of a message; null where it is another message.
const GstStructure* description(GstMessage* message);

/// A field of a structure; the test fails where it is missing or of another type.
std::string text_of(const GstStructure* structure, const char* field = "text");
guint64 time_of(const GstStructure* structure, const char* field);
std::vector<guint64> times_of(const GstStructure* structure, const char* field);

/// The `vlm-description` that `element` put on a buffer (null: any); null where there is none.
const GstStructure* meta_of(GstBuffer* buffer, const char* element = nullptr);

/// One value of the property `stats`.
guint64 stat(GstElement* element, const char* field);

/// Collects what comes over a bus.
class Messages {
 public:
  explicit Messages(GstBus* bus) : bus_(GST_BUS(gst_object_ref(bus))) {}
  ~Messages() { gst_object_unref(bus_); }
  Messages(const Messages&) = delete;
  Messages& operator=(const Messages&) = delete;

  /// The next message of these types; null where none comes.
  MessagePtr next(GstMessageType types, GstClockTime timeout = kPatience);
  /// The next finished description.
  MessagePtr next_description(GstClockTime timeout = kPatience);
  /// All descriptions that have come, with none waited for.
  std::vector<MessagePtr> descriptions();
  /// Text of the next error; empty where none comes. `code` gets domain and code.
  std::string next_error(GQuark* domain = nullptr, gint* code = nullptr);

 private:
  GstBus* bus_;
};

/// A pipeline of a launch line.
class Pipeline {
 public:
  explicit Pipeline(const std::string& line);
  ~Pipeline();
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  ElementPtr operator[](const char* name) const;
  bool play();
  GstStateChangeReturn set_state(GstState state);
  /// Plays until EOS and returns the descriptions in between; the test fails on an error, or where
  /// nothing comes for longer than `patience`.
  std::vector<MessagePtr> run(GstClockTime patience = kPatience);

  GstElement* const pipeline;
  Messages messages;
};

/// The element alone between harness pads. `properties` are "name=value" items apart by spaces.
class Rig {
 public:
  explicit Rig(const std::string& properties, bool with_text = false);
  ~Rig();
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

  /// Sends stream-start, caps and a segment.
  void begin(const std::string& caps = kFrameCaps);
  /// Pushes one solid frame.
  GstFlowReturn push(GstClockTime pts, GstClockTime duration = 40 * GST_MSECOND);
  /// Pushes frames of 25 a second with timestamps in [from, to).
  GstFlowReturn push_range(GstClockTime from, GstClockTime to);
  bool push_event(GstEvent* event);
  bool eos() { return push_event(gst_event_new_eos()); }
  void set(const std::string& properties);
  /// Buffers that came out, taken from the harness.
  std::vector<BufferPtr> buffers();

  GstElement* element = nullptr;
  GstHarness* video = nullptr;
  GstHarness* text = nullptr;
  std::unique_ptr<Messages> messages;

 private:
  bool begun_ = false;
};

/// A directory that goes with the object.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  /// The path of a file in it.
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  std::string read(const std::string& name) const;

 private:
  std::string path_;
};

/// Memory that the process takes; a failure where the system does not tell.
double resident_mib();

/// The bytes of a buffer as text.
std::string content(GstBuffer* buffer);

/// An active pool of `maximum` buffers (0: any number) for the rig's frames, of which `minimum` are
/// there from the start.
std::shared_ptr<GstBufferPool> frame_pool(guint minimum, guint maximum);

/// A solid frame of such a pool; null where it has none to give at once.
BufferPtr pooled_frame(GstBufferPool* pool, GstClockTime pts, guint8 value = 0x40);

/// A buffer of one value.
BufferPtr solid_frame(gsize size, GstClockTime pts, GstClockTime duration);

/// Everything that came to a harness's sink, in order where it is events alone.
std::vector<EventPtr> events_of(GstHarness* harness);

}  // namespace element_test
