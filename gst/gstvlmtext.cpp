// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmtext.h"

#define GST_CAT_DEFAULT gst_vlm_debug

#include <algorithm>
#include <chrono>

#include "gstvlmdescription.h"

namespace gstvlm {
namespace {

constexpr const char* kTextTitle = "Descriptions";

// How long a pad that is released may take to hand over what it is pushing.
constexpr std::chrono::milliseconds kLeave(100);

EventPtr caps_event() {
  GstCaps* caps = gst_caps_new_simple("text/x-raw", "format", G_TYPE_STRING, "utf8", nullptr);
  EventPtr event(gst_event_new_caps(caps));
  gst_caps_unref(caps);
  return event;
}

// Muxers take the track's name from it.
EventPtr tag_event() {
  GstTagList* tags = gst_tag_list_new(GST_TAG_TITLE, kTextTitle, nullptr);
  gst_tag_list_set_scope(tags, GST_TAG_SCOPE_STREAM);
  return EventPtr(gst_event_new_tag(tags));
}

// Whether both say the same of the same stream.
bool same_start(GstEvent* a, GstEvent* b) {
  if (a == nullptr || b == nullptr || gst_event_get_seqnum(a) != gst_event_get_seqnum(b)) {
    return false;
  }
  const gchar* ids[2] = {nullptr, nullptr};
  guint groups[2] = {0, 0};
  gst_event_parse_stream_start(a, &ids[0]);
  gst_event_parse_stream_start(b, &ids[1]);
  gst_event_parse_group_id(a, &groups[0]);
  gst_event_parse_group_id(b, &groups[1]);
  return g_strcmp0(ids[0], ids[1]) == 0 && groups[0] == groups[1];
}

// What the pad has sent, or is sending: it holds a start from before those behind it have taken it.
EventPtr sticky(GstPad* pad, GstEventType type) {
  return EventPtr(pad == nullptr ? nullptr : gst_pad_get_sticky_event(pad, type, 0));
}

bool is_event(GstMiniObject* item, GstEventType type) {
  return GST_IS_EVENT(item) && GST_EVENT_TYPE(GST_EVENT_CAST(item)) == type;
}

// Whoever is linked later may take what comes then.
bool goes_on(GstFlowReturn flow) {
  return flow == GST_FLOW_OK || flow == GST_FLOW_NOT_LINKED;
}

}  // namespace

GstPad* TextOutput::attach(GstPadTemplate* templ, GstPadQueryFunction query,
                           GstPadEventFunction event) {
  GstPad* pad = gst_pad_new_from_template(templ, "text");
  gst_pad_set_element_private(pad, this);
  gst_pad_set_activatemode_function(pad, activate_mode);
  gst_pad_set_query_function(pad, query);
  gst_pad_set_event_function(pad, event);
  gst_pad_use_fixed_caps(pad);
  {
    const Lock lock(mutex_);
    if (pad_ != nullptr) {
      gst_object_unref(pad);
      return nullptr;
    }
    pad_.reset(GST_PAD_CAST(gst_object_ref_sink(pad)));
    queue_.clear();
  }
  if (GST_STATE(element_) > GST_STATE_READY || GST_STATE_TARGET(element_) > GST_STATE_READY) {
    gst_pad_set_active(pad, TRUE);
  }
  gst_element_add_pad(element_, pad);
  return pad;
}

void TextOutput::detach(GstPad* pad) {
  PadPtr held;
  bool idle = false;
  {
    const Lock lock(mutex_);
    if (pad_.get() != pad) {
      return;
    }
    held.swap(pad_);
    flushing_ = true;
    queue_.clear();
    changed_.notify_all();
    const Clock::time_point deadline = Clock::now() + kLeave;
    while (pushing_ == pad && changed_.wait_until(mutex_, deadline)) {
    }
    idle = pushing_ != pad;
    flow_ = GST_FLOW_OK;
  }
  if (idle) {
    gst_pad_set_active(pad, FALSE);
  } else {
    // A flush would free it, but may reach what others record into; so its thread ends when it can,
    // and is waited for elsewhere. (Only a pad with a parent can be deactivated.)
    {
      const ObjectLock lock(pad);
      GST_PAD_SET_FLUSHING(pad);
      GST_PAD_BLOCK_BROADCAST(pad);
    }
    const auto join = [](GstElement*, gpointer blocked) {
      gst_pad_stop_task(GST_PAD_CAST(blocked));
    };
    gst_element_call_async(element_, join, held.release(), gst_object_unref);
  }
  gst_element_remove_pad(element_, pad);
}

void TextOutput::put_stream(GstEvent* upstream_start) {
  const gchar* upstream_id = nullptr;
  gst_event_parse_stream_start(upstream_start, &upstream_id);
  // With the element's name, since the video goes on under its own id to what may be another one.
  const std::unique_ptr<gchar, void (*)(gpointer)> name(gst_element_get_name(element_), g_free);
  const std::string id = std::string(upstream_id) + "/" + name.get() + "/text";
  EventPtr event(gst_event_new_stream_start(id.c_str()));
  gst_event_set_stream_flags(event.get(), GST_STREAM_FLAG_SPARSE);
  guint group = 0;
  if (gst_event_parse_group_id(upstream_start, &group)) {
    gst_event_set_group_id(event.get(), group);
  }
  gst_event_set_seqnum(event.get(), gst_event_get_seqnum(upstream_start));
  const PadPtr held = pad();
  // A flush may have dropped either on its way.
  const EventPtr sent = sticky(held.get(), GST_EVENT_STREAM_START);
  const EventPtr caps = sticky(held.get(), GST_EVENT_CAPS);
  const Lock lock(mutex_);
  const bool known = !closed_ && caps != nullptr && same_start(stream_start_.get(), event.get()) &&
                     same_start(sent.get(), event.get());
  stream_start_ = std::move(event);
  segment_.reset();
  position_ = kNoTime;
  if (!known) {
    closed_ = false;
    flow_ = GST_FLOW_OK;
    put_opening();
  }
}

void TextOutput::put_segment(EventPtr segment) {
  const Lock lock(mutex_);
  const GstSegment* values = nullptr;
  gst_event_parse_segment(segment.get(), &values);
  position_ = values->rate > 0 ? values->start : kNoTime;
  put(ref_event(segment.get()));
  if (segment_ == nullptr) {
    put(tag_event());
  }
  segment_ = std::move(segment);
  // Lets a sink behind the pad preroll before there is a text.
  if (values->rate > 0) {
    put(EventPtr(gst_event_new_gap(values->start, 0)));
  } else if (values->stop != kNoTime && values->stop > values->start) {
    // What begins at the stop would already be outside.
    put(EventPtr(gst_event_new_gap(values->stop - 1, 1)));
  }
}

void TextOutput::put_event(EventPtr event) {
  const Lock lock(mutex_);
  const bool ends = GST_EVENT_TYPE(event.get()) == GST_EVENT_EOS;
  put(std::move(event));
  closed_ = closed_ || ends;
}

void TextOutput::put_text(const GstStructure* structure, uint64_t pts, uint64_t duration,
                          bool fill) {
  const char* text = gst_structure_get_string(structure, "text");
  const std::string line = subtitle_text(text == nullptr ? "" : text);
  const Lock lock(mutex_);
  if (pad_ == nullptr) {
    return;
  }
  if (fill && position_ != kNoTime && pts > position_) {
    put_gap_locked(position_, pts - position_);
  }
  if (line.empty()) {
    put_gap_locked(pts, duration);
    return;
  }
  GstBuffer* buffer = gst_buffer_new_memdup(line.data(), line.size());
  GST_BUFFER_PTS(buffer) = pts;
  GST_BUFFER_DURATION(buffer) = duration;
  attach_description(buffer, structure);
  position_ = fill ? pts + duration : position_;
  put(ItemPtr(GST_MINI_OBJECT_CAST(buffer), gst_mini_object_unref));
}

void TextOutput::put_gap(uint64_t pts, uint64_t duration) {
  const Lock lock(mutex_);
  put_gap_locked(pts, duration);
}

// Gaps that nobody has taken yet grow instead of piling up.
void TextOutput::put_gap_locked(uint64_t pts, uint64_t duration) {
  if (pad_ == nullptr || segment_ == nullptr) {
    return;
  }
  position_ = pts + duration;
  if (!queue_.empty() && GST_IS_EVENT(queue_.back().get())) {
    if (EventPtr longer = prolonged_gap(GST_EVENT_CAST(queue_.back().get()), pts, duration)) {
      queue_.pop_back();
      put(std::move(longer));
      return;
    }
  }
  put(EventPtr(gst_event_new_gap(pts, duration)));
}

void TextOutput::flush_start(GstEvent* event) {
  {
    const Lock lock(mutex_);
    flushing_ = true;
    queue_.clear();
    changed_.notify_all();
  }
  if (const PadPtr held = pad()) {
    gst_pad_push_event(held.get(), gst_event_ref(event));
    gst_pad_pause_task(held.get());
  }
}

void TextOutput::flush_stop(GstEvent* event) {
  const PadPtr held = pad();
  if (held != nullptr) {
    gst_pad_push_event(held.get(), gst_event_ref(event));
  }
  {
    const Lock lock(mutex_);
    queue_.clear();
    segment_.reset();
    position_ = kNoTime;
  }
  if (held != nullptr && gst_pad_is_active(held.get())) {
    start(held.get(), false);
  }
}

void TextOutput::reset() {
  const Lock lock(mutex_);
  queue_.clear();
  stream_start_.reset();
  segment_.reset();
  position_ = kNoTime;
}

GstFlowReturn TextOutput::flow() const {
  const Lock lock(mutex_);
  return pad_ == nullptr || !gst_pad_is_linked(pad_.get()) ? GST_FLOW_NOT_LINKED : flow_;
}

gboolean TextOutput::activate_mode(GstPad* pad, GstObject*, GstPadMode mode, gboolean active) {
  auto* self = static_cast<TextOutput*>(gst_pad_get_element_private(pad));
  if (mode != GST_PAD_MODE_PUSH) {
    return FALSE;
  }
  if (active) {
    self->start(pad, true);
  } else {
    self->stop(pad);
  }
  return TRUE;
}

void TextOutput::start(GstPad* pad, bool opening) {
  {
    const Lock lock(mutex_);
    if (pad_.get() != pad) {
      return;
    }
    flushing_ = false;
    closed_ = false;
    flow_ = GST_FLOW_OK;
    if (opening) {
      put_opening();
    }
  }
  gst_pad_start_task(pad, loop, pad, nullptr);
}

void TextOutput::stop(GstPad* pad) {
  {
    const Lock lock(mutex_);
    if (pad_.get() == pad) {
      flushing_ = true;
      queue_.clear();
      changed_.notify_all();
    }
  }
  gst_pad_stop_task(pad);
}

void TextOutput::loop(gpointer data) {
  GstPad* pad = GST_PAD_CAST(data);
  auto* self = static_cast<TextOutput*>(gst_pad_get_element_private(pad));
  guarded(self->element_, [self, pad] { self->push_next(pad); });
}

void TextOutput::push_next(GstPad* pad) {
  ItemPtr item = next(pad);
  if (item == nullptr) {
    gst_pad_pause_task(pad);
    return;
  }
  if (GST_IS_EVENT(item.get())) {
    gst_pad_push_event(pad, GST_EVENT_CAST(item.release()));
  } else {
    handle(pad, gst_pad_push(pad, GST_BUFFER_CAST(item.release())));
  }
  const Lock lock(mutex_);
  if (pushing_ == pad) {
    pushing_ = nullptr;
    changed_.notify_all();
  }
}

// Null where nothing is to be pushed on this pad. One that was released may still be at its last
// item when the next is there.
TextOutput::ItemPtr TextOutput::next(GstPad* pad) {
  ItemPtr item(nullptr, gst_mini_object_unref);
  const Lock lock(mutex_);
  while (pad_.get() == pad && queue_.empty() && !flushing_) {
    changed_.wait(mutex_);
  }
  if (pad_.get() == pad && !flushing_) {
    item = std::move(queue_.front());
    queue_.pop_front();
    pushing_ = pad;
  }
  return item;
}

// Texts that nobody wants are no failure; the video goes on in any case but an error.
void TextOutput::handle(GstPad* pad, GstFlowReturn flow) {
  {
    const Lock lock(mutex_);
    if (pad_.get() != pad) {
      return;
    }
    flow_ = flow;
    if (!goes_on(flow)) {
      drop_stream();
    }
  }
  if (goes_on(flow)) {
    return;
  }
  GST_DEBUG_OBJECT(pad, "no more of this stream: %s", gst_flow_get_name(flow));
  if (flow == GST_FLOW_NOT_NEGOTIATED || flow <= GST_FLOW_ERROR) {
    GST_ELEMENT_FLOW_ERROR(element_, flow);
    gst_pad_push_event(pad, gst_event_new_eos());
  }
}

// What is left of the stream that is being pushed; another one may be queued behind it.
void TextOutput::drop_stream() {
  while (!queue_.empty() && !is_event(queue_.front().get(), GST_EVENT_STREAM_START)) {
    queue_.pop_front();
  }
  if (queue_.empty()) {
    closed_ = true;
  } else {
    flow_ = GST_FLOW_OK;
  }
}

PadPtr TextOutput::pad() const {
  const Lock lock(mutex_);
  return pad_ == nullptr ? PadPtr() : ref_pad(pad_.get());
}

void TextOutput::put(ItemPtr item) {
  if (pad_ != nullptr && !flushing_ && !closed_) {
    queue_.push_back(std::move(item));
    changed_.notify_all();
  }
}

void TextOutput::put(EventPtr event) {
  put(ItemPtr(GST_MINI_OBJECT_CAST(event.release()), gst_mini_object_unref));
}

void TextOutput::put_opening() {
  if (stream_start_ == nullptr) {
    return;
  }
  put(ref_event(stream_start_.get()));
  put(caps_event());
  if (segment_ != nullptr) {
    put(ref_event(segment_.get()));
    put(tag_event());
  }
}

}  // namespace gstvlm
