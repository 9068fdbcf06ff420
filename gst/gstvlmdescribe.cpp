// SPDX-License-Identifier: LGPL-2.1-or-later

/**
 * SECTION:element-vlmdescribe
 * @title: vlmdescribe
 *
 * Describes video with a LLaVA model. Video passes through untouched; every
 * #GstVlmDescribe:interval some frames are taken, a model answers #GstVlmDescribe:prompt about
 * them, and the text goes out three ways: as GstCustomMeta `vlm-description` on the buffers, as an
 * element message of that name, and as timed text on the request pad `text`. All three carry the
 * same structure:
 *
 * * `text`, `prompt`, `model`, `element` (string)
 * * `pts`, `duration`, `stream-time`, `running-time` (uint64, ns) of the window described
 * * `frame-pts` (GstValueArray of uint64, ns), `utc` (int64, µs, live sources only)
 * * `index` (uint64), `tokens` (uint), `logprob` (double, mean of a token), `latency` (uint64, ns)
 * * `finish-reason` (stop, length, stop_string, repetition or cancelled), `partial` (boolean)
 * * `extra` (boolean, true): described by `describe-now`, besides the windows, of which `index`
 * names the one it lies in; not there otherwise
 *
 * Of a recording every window is described, and video waits where the model is slower. A live
 * source never waits: one window is described, one waits, and the newest wins.
 *
 * ## Which frames are described
 * Windows and sampling points are cut from stream time, so that neither the frame rate nor where
 * timestamps begin matters: window k covers [k·interval, (k+1)·interval), clipped to the segment
 * and to what was seen of the stream.
 *
 * * A frame that lasts is described in each window whose first sampling point it covers; one of
 *   unknown duration lasts until the next, a picture alone to the end of its window; where
 *   nothing is shown (a hole of more than a frame, a GAP event, an empty buffer with the GAP flag)
 *   there is no window. A GAP event takes nothing from the time that a frame claims; in a recording
 *   it waits for the next frame, since decoders let it overtake pictures that they hold. DISCONT
 *   alone changes nothing: timestamps say what is missing.
 * * A buffer without PTS follows the one before it, the first one begins where the segment is
 *   entered. Without stream time video passes undescribed, of segments not in TIME format a
 *   warning says so. The flag GAP on a buffer with content changes nothing.
 * * A segment that maps times otherwise ends the window, so does a stream-start; a segment that
 *   only repeats or prolongs the one before does not. Caps may change inside a window.
 * * A rate changes only how fast windows come, an INSTANT_RATE_CHANGE nothing at all. With a
 * negative rate, or a negative applied rate, they come from the end, and sampling points count from
 * a window's end. In trick modes that leave out frames one lasts until the next; backwards, windows
 *   without a frame of their own are left out.
 * * A flush, with or without a seek, drops the open window and those on their way; they count as
 *   passed over. What follows starts anew, wherever it is.
 * * EOS and SEGMENT_DONE end the open window and go on when its description has been delivered, and
 *   on the text pad behind the texts. Live, they wait for #GstVlmDescribe:eos-timeout at most, and
 *   what is not there then counts as passed over.
 *
 * ## What becomes of the buffers
 * The streaming thread only notes which frames are wanted; a thread of the element's own converts
 * them when the model is to have them. They wait in the format in which they came, because any
 * scaling but the model's own would change what it sees. The bytes are copied and the buffer is
 * given back at once, so that cameras and decoders with few buffers go on, and those with many need
 * no more of them. So there are copies of as many frames as #GstVlmDescribe:frames says for each
 * window on its way: #GstVlmDescribe:max-pending and one of a recording, three of a live source.
 * A DRAIN query has the others copied and given back that are kept until the next
 * frame comes or, with meta-policy=exact, until they are described.
 *
 * The model sees a frame as a viewer does: turned as `image-orientation` says, cropped, with square
 * pixels, in full-range RGB by the caps' colour matrix and range. Of an interlaced frame it sees
 * the field that was taken first, at the frame's full height, so that what moves has no comb;
 * fields that come one in a buffer are looked at each alike. Where the caps or the buffer do not
 * say which field is first, that is the bottom one, as everywhere in GStreamer. Where that lacks
 * its last line of colours (4:2:0 of 486 lines, say), the top one is seen instead.
 *
 * Frames in a GPU's memory (memory:CUDAMemory) stay there where the engine runs on that GPU, its
 * primary context is the one that all use, and the frame is plain: NV12 or RGB of 8 bits,
 * progressive, with square pixels and without crop metadata. The element offers that context to
 * who asks with a CONTEXT query for `gst.cuda.context`; where #GstVlmDescribe:device names a GPU,
 * or an engine on one is given, it tells the pipeline of it from READY on. Any other frame in a
 * device's memory is mapped to system memory, and only if it is described.
 *
 * With meta-policy=exact video is held until its description is there. The allocation query then
 * asks for two windows of buffers more, at most #GstVlmDescribe:max-held-bytes of them; what a pool
 * does not have is held as a copy. In any other case that query passes as it is.
 *
 * ## One model for many
 * Elements whose model, vision-tower, model-base, device, dtype and quantization are equal share
 * one loaded model, wherever in the process they are, and take turns at it. It lives as long as one
 * of them, or a pipeline that has heard of it, is above NULL: where an element alone changes its
 * model, its pipeline keeps the former one until it goes to NULL itself. An application may hold it
 * itself: the message HAVE_CONTEXT of the type `vlm.engine` brings it, and
 * gst_element_set_context(), as an answer to NEED_CONTEXT or before, gives it to an element, which
 * then loads nothing. An element in READY loads ahead of need. What could not be loaded is tried
 * anew whenever it is set from READY to PAUSED; on the way from NULL it is not, and one error says
 * so.
 *
 * ## Changing what is asked
 * The prompt and every option of generation may change while playing and hold from the next window
 * on; each description names the prompt that it answers. `prompt`, all numbers and choices among
 * them, `interval`, `frames` and `active` can be bound to a GstController, which goes by stream
 * time. A custom event `vlm-prompt` from either side, with a string `prompt`, sets the prompt and
 * goes on to others.
 *
 * ## Times on the text pad
 * Buffers of the text pad count in stream time, because that is what subtitle encoders write, and
 * the pad's segment maps it to the running times of the video, so that muxers, overlays and sinks
 * show text and frames together: start and time are the video segment's time, the rate is rate
 * times applied rate, base stays. `pts`, `duration` and `frame-pts` in the structure are buffer
 * times of the video, as on the buffers themselves. Where a window gets no text (it was passed
 * over, or failed) a GAP event says so in its place, and where a frame is in no window (live with
 * interval=0, or `active` is false), or nothing is shown, one for that time.
 *
 * The element is a plain GstElement rather than a GstBaseTransform: it never transforms, it holds
 * EOS and (meta-policy=exact) video until texts are there, it has a second source pad with a thread
 * of its own, and every query goes to the neighbour as it came.
 *
 * ## Example launch line
 * |[
 * gst-launch-1.0 filesrc location=video.mp4 ! decodebin ! vlmdescribe name=describe ! fakesink \
 *     describe.text ! webvttenc ! filesink location=video.vtt
 * ]|
 *
 * Since: 0.1
 */

#include "gstvlmdescribe.h"

#include <gst/video/video.h>

#include <cstring>

#include "gstvlmcontext.h"
#include "gstvlmcuda.h"
#include "gstvlmdelivery.h"
#include "gstvlmfeeder.h"
#include "gstvlmmodel.h"
#include "gstvlmproperties.h"
#include "gstvlmqueries.h"
#include "gstvlmstream.h"

#define GST_CAT_DEFAULT gst_vlm_debug

namespace {

using gstvlm::ObjectLock;

enum { SIGNAL_DESCRIBE_NOW, LAST_SIGNAL };
guint signals[LAST_SIGNAL];

GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE(
    "sink", GST_PAD_SINK, GST_PAD_ALWAYS,
    GST_STATIC_CAPS(GST_VIDEO_CAPS_MAKE_WITH_FEATURES("ANY", GST_VIDEO_FORMATS_ALL)));
GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE(
    "src", GST_PAD_SRC, GST_PAD_ALWAYS,
    GST_STATIC_CAPS(GST_VIDEO_CAPS_MAKE_WITH_FEATURES("ANY", GST_VIDEO_FORMATS_ALL)));
GstStaticPadTemplate text_template = GST_STATIC_PAD_TEMPLATE(
    "text", GST_PAD_SRC, GST_PAD_REQUEST, GST_STATIC_CAPS("text/x-raw, format=(string)utf8"));

// The C++ side of an element, made in init and deleted in finalize.
struct Describe {
  Describe(GstElement* element, GstPad* sink, GstPad* src)
      : shared(element),
        stream(shared, sink, src),
        feeder(shared),
        delivery(shared),
        model(shared) {}

  gstvlm::Shared shared;
  gstvlm::Stream stream;
  gstvlm::Feeder feeder;
  gstvlm::Delivery delivery;
  gstvlm::Model model;
};

}  // namespace

struct _GstVlmDescribe {
  GstElement parent;
  GstPad* sink;
  GstPad* src;
  Describe* d;
};

G_DEFINE_TYPE(GstVlmDescribe, gst_vlm_describe, GST_TYPE_ELEMENT)
GST_ELEMENT_REGISTER_DEFINE(vlmdescribe, "vlmdescribe", GST_RANK_NONE, GST_TYPE_VLM_DESCRIBE)

namespace {

void set_prompt(GstVlmDescribe* self, const char* prompt) {
  {
    const ObjectLock lock(self);
    self->d->shared.settings.prompt = prompt;
  }
  g_object_notify(G_OBJECT(self), "prompt");
}

// `vlm-prompt` works from either side, and is passed on for others.
void look_for_prompt(GstVlmDescribe* self, GstEvent* event) {
  const GstStructure* structure = gst_event_get_structure(event);
  if ((GST_EVENT_TYPE(event) & GST_EVENT_CUSTOM_UPSTREAM) == 0 || structure == nullptr ||
      !gst_structure_has_name(structure, "vlm-prompt")) {
    return;
  }
  if (const char* prompt = gst_structure_get_string(structure, "prompt")) {
    set_prompt(self, prompt);
  }
}

GstFlowReturn chain(GstPad*, GstObject* parent, GstBuffer* data) {
  GstVlmDescribe* self = GST_VLM_DESCRIBE(parent);
  gstvlm::BufferPtr buffer(data);
  return gstvlm::guarded(self, GST_FLOW_ERROR,
                         [&] { return self->d->stream.chain(std::move(buffer)); });
}

gboolean sink_event(GstPad*, GstObject* parent, GstEvent* data) {
  GstVlmDescribe* self = GST_VLM_DESCRIBE(parent);
  gstvlm::EventPtr event(data);
  look_for_prompt(self, event.get());
  return gstvlm::guarded(
      self, FALSE, [&] { return static_cast<gboolean>(self->d->stream.event(std::move(event))); });
}

gboolean src_event(GstPad* pad, GstObject* parent, GstEvent* event) {
  look_for_prompt(GST_VLM_DESCRIBE(parent), event);
  return gst_pad_event_default(pad, parent, event);
}

// What a text sink says about its own lateness or caps is of no use to the video.
gboolean text_event(GstPad* pad, GstObject* parent, GstEvent* event) {
  if (GST_EVENT_TYPE(event) == GST_EVENT_QOS || GST_EVENT_TYPE(event) == GST_EVENT_RECONFIGURE) {
    gst_event_unref(event);
    return TRUE;
  }
  return src_event(pad, parent, event);
}

bool answer_context(GstVlmDescribe* self, GstQuery* query) {
  GstElement* element = GST_ELEMENT(self);
  return gstvlm::answer_context(element, query) || gstvlm::guarded(self, false, [&] {
           return gstvlm::answer_cuda_context(element, self->d->shared.all_settings().spec.device,
                                              query);
         });
}

gboolean src_query(GstPad* pad, GstObject* parent, GstQuery* query) {
  return answer_context(GST_VLM_DESCRIBE(parent), query) ||
         gst_pad_query_default(pad, parent, query);
}

// Everything goes on to the neighbour, but for what gstvlmqueries.h answers.
gboolean sink_query(GstPad* pad, GstObject* parent, GstQuery* query) {
  GstVlmDescribe* self = GST_VLM_DESCRIBE(parent);
  switch (GST_QUERY_TYPE(query)) {
    case GST_QUERY_CAPS:
      return gstvlm::answer_caps(pad, self->src, query);
    case GST_QUERY_ACCEPT_CAPS:
      return gstvlm::answer_accept_caps(pad, self->src, query);
    case GST_QUERY_DRAIN:
      gstvlm::guarded(self, [&] { self->d->stream.give_back(); });
      return gst_pad_peer_query(self->src, query);
    case GST_QUERY_ALLOCATION:
      return gstvlm::answer_allocation(self->d->shared, self->src, query);
    default:
      return answer_context(self, query) || gst_pad_peer_query(self->src, query);
  }
}

gboolean text_query(GstPad* pad, GstObject* parent, GstQuery* query) {
  GstVlmDescribe* self = GST_VLM_DESCRIBE(parent);
  return GST_QUERY_TYPE(query) == GST_QUERY_LATENCY
             ? gstvlm::answer_text_latency(self->d->shared, self->sink, query)
             : src_query(pad, parent, query);
}

GstPad* request_pad(GstElement* element, GstPadTemplate* templ, const gchar*, const GstCaps*) {
  GstVlmDescribe* self = GST_VLM_DESCRIBE(element);
  return gstvlm::guarded(self, static_cast<GstPad*>(nullptr), [&] {
    return self->d->shared.text.attach(templ, text_query, text_event);
  });
}

void release_pad(GstElement* element, GstPad* pad) {
  GstVlmDescribe* self = GST_VLM_DESCRIBE(element);
  gstvlm::guarded(self, [&] { self->d->shared.text.detach(pad); });
}

void set_property(GObject* object, guint id, const GValue* value, GParamSpec* pspec) {
  GstVlmDescribe* self = GST_VLM_DESCRIBE(object);
  gstvlm::guarded(self, [&] {
    gstvlm::Shared& shared = self->d->shared;
    bool known = false;
    bool retimed = false;
    {
      const ObjectLock lock(self);
      const GstClockTime before = gstvlm::text_latency(shared.settings.streaming);
      known = gstvlm::set_setting(shared.settings, id, value);
      retimed = gstvlm::text_latency(shared.settings.streaming) != before;
    }
    if (!known) {
      G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
    } else if (id == gstvlm::PROP_STATS_INTERVAL) {
      shared.dispatcher.poke();
    } else if (retimed) {
      gstvlm::announce_text_latency(shared, self->sink);
    }
  });
}

void get_property(GObject* object, guint id, GValue* value, GParamSpec* pspec) {
  GstVlmDescribe* self = GST_VLM_DESCRIBE(object);
  gstvlm::Shared& shared = self->d->shared;
  gstvlm::guarded(self, [&] {
    if (id == gstvlm::PROP_STATS) {
      g_value_take_boxed(value, shared.stats.snapshot(shared.dispatcher.counts()).release());
      return;
    }
    const ObjectLock lock(self);
    if (id == gstvlm::PROP_LAST_DESCRIPTION) {
      g_value_set_string(value, shared.last_description.c_str());
    } else if (!gstvlm::get_setting(shared.settings, id, value)) {
      G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
    }
  });
}

void describe_now(GstVlmDescribe* self) {
  gstvlm::guarded(self, [&] { self->d->stream.describe_now(); });
}

// Whether READY is only a step to more, of the element alone or of a bin that it is in.
bool passes_ready(GstElement* element) {
  gstvlm::ElementPtr at(GST_ELEMENT(gst_object_ref(element)));
  while (at != nullptr) {
    {
      const ObjectLock lock(at.get());
      if (GST_STATE_NEXT(at.get()) == GST_STATE_READY &&
          GST_STATE_PENDING(at.get()) > GST_STATE_READY) {
        return true;
      }
    }
    GstObject* parent = gst_object_get_parent(GST_OBJECT(at.get()));
    at.reset(parent == nullptr ? nullptr : GST_ELEMENT(parent));
  }
  return false;
}

bool start(GstVlmDescribe* self) {
  Describe& d = *self->d;
  if (!d.model.keep()) {
    return false;
  }
  d.stream.start();
  d.shared.dispatcher.start();
  d.feeder.start();
  d.delivery.start();
  return true;
}

void finish(GstVlmDescribe* self) {
  self->d->feeder.join();
  self->d->delivery.join();
  self->d->stream.stop();
  self->d->shared.text.reset();
}

GstStateChangeReturn change_state(GstElement* element, GstStateChange transition) {
  GstVlmDescribe* self = GST_VLM_DESCRIBE(element);
  Describe& d = *self->d;
  const bool ready = gstvlm::guarded(self, false, [&] {
    if (transition == GST_STATE_CHANGE_NULL_TO_READY) {
      d.shared.dispatcher.reset();
      d.shared.stats.reset();
      d.shared.traced = false;
      d.model.set_passing(passes_ready(element));
      return d.model.prepare();
    }
    if (transition == GST_STATE_CHANGE_READY_TO_PAUSED) {
      return start(self);
    }
    if (transition == GST_STATE_CHANGE_PAUSED_TO_READY) {
      // Before chaining up, which waits for the streaming threads.
      d.shared.dispatcher.stop();
      d.shared.held.flush();
    }
    return true;
  });
  if (!ready) {
    return GST_STATE_CHANGE_FAILURE;
  }
  const GstStateChangeReturn result =
      GST_ELEMENT_CLASS(gst_vlm_describe_parent_class)->change_state(element, transition);
  gstvlm::guarded(self, [&] {
    if (transition == GST_STATE_CHANGE_PAUSED_TO_READY) {
      finish(self);
    } else if (transition == GST_STATE_CHANGE_READY_TO_PAUSED &&
               result == GST_STATE_CHANGE_FAILURE) {
      d.shared.dispatcher.stop();
      finish(self);
    } else if (transition == GST_STATE_CHANGE_READY_TO_NULL) {
      d.model.release();
    }
  });
  return result;
}

void finalize(GObject* object) {
  delete GST_VLM_DESCRIBE(object)->d;
  G_OBJECT_CLASS(gst_vlm_describe_parent_class)->finalize(object);
}

GstPad* add_pad(GstVlmDescribe* self, GstStaticPadTemplate* templ, const char* name) {
  GstPad* pad = gst_pad_new_from_static_template(templ, name);
  GST_PAD_SET_PROXY_CAPS(pad);
  GST_PAD_SET_PROXY_ALLOCATION(pad);
  gst_element_add_pad(GST_ELEMENT(self), pad);
  return pad;
}

}  // namespace

static void gst_vlm_describe_class_init(GstVlmDescribeClass* klass) {
  GObjectClass* object_class = G_OBJECT_CLASS(klass);
  GstElementClass* element_class = GST_ELEMENT_CLASS(klass);
  object_class->set_property = set_property;
  object_class->get_property = get_property;
  object_class->finalize = finalize;
  element_class->change_state = change_state;
  element_class->request_new_pad = request_pad;
  element_class->release_pad = release_pad;
  gstvlm::install_properties(object_class);
  /**
   * GstVlmDescribe::describe-now:
   *
   * Describes the newest frame at once, besides the windows. Where the element no longer has it at
   * hand, it takes the next one. One waits at most, and the newest wins; while `active` is false
   * nothing is described.
   *
   * Since: 0.1
   */
  signals[SIGNAL_DESCRIBE_NOW] = g_signal_new_class_handler(
      "describe-now", G_TYPE_FROM_CLASS(klass),
      static_cast<GSignalFlags>(G_SIGNAL_RUN_LAST | G_SIGNAL_ACTION), G_CALLBACK(describe_now),
      nullptr, nullptr, nullptr, G_TYPE_NONE, 0);
  gst_element_class_add_static_pad_template(element_class, &sink_template);
  gst_element_class_add_static_pad_template(element_class, &src_template);
  gst_element_class_add_static_pad_template(element_class, &text_template);
  gst_element_class_set_static_metadata(
      element_class, "Video describer", "Filter/Analyzer/Video",
      "Describes video with a LLaVA model: as metadata and as messages, each a structure "
      "vlm-description, and as timed text. Events vlm-prompt (field prompt) set the prompt; "
      "elements share models through the context vlm.engine; describe-now describes the newest "
      "frame",
      "The gst-vlm developers");
}

static void gst_vlm_describe_init(GstVlmDescribe* self) {
  self->sink = add_pad(self, &sink_template, "sink");
  gst_pad_set_chain_function(self->sink, chain);
  gst_pad_set_event_function(self->sink, sink_event);
  gst_pad_set_query_function(self->sink, sink_query);
  self->src = add_pad(self, &src_template, "src");
  gst_pad_set_event_function(self->src, src_event);
  gst_pad_set_query_function(self->src, src_query);
  self->d = new Describe(GST_ELEMENT(self), self->sink, self->src);
}
