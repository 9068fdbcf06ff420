// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlm-utils.h"

#include <algorithm>

#define GST_CAT_DEFAULT gst_vlm_debug

GST_DEBUG_CATEGORY(gst_vlm_debug);

namespace gstvlm {
namespace {

struct Domain {
  GQuark quark;
  gint code;
  const char* kind;
};

Domain domain_of(vlm::ErrorKind kind) {
  switch (kind) {
    case vlm::ErrorKind::kInvalidArgument:
      return {GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS, "invalid-argument"};
    case vlm::ErrorKind::kNotFound:
      return {GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND, "not-found"};
    case vlm::ErrorKind::kInvalidModel:
      return {GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_READ, "invalid-model"};
    case vlm::ErrorKind::kUnsupported:
      return {GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS, "unsupported"};
    case vlm::ErrorKind::kPromptTooLong:
      return {GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS, "prompt-too-long"};
    case vlm::ErrorKind::kOutOfMemory:
      return {GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NO_SPACE_LEFT, "out-of-memory"};
    case vlm::ErrorKind::kDevice:
      return {GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_OPEN_READ_WRITE, "device"};
    case vlm::ErrorKind::kCancelled:
      return {GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_FAILED, "cancelled"};
    case vlm::ErrorKind::kIo:
      return {GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_FAILED, "io"};
    case vlm::ErrorKind::kInternal:
      break;
  }
  return {GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_FAILED, "internal"};
}

void post(GstElement* element, GstMessageType type, const Domain& domain, const vlm::Error& error,
          Stage stage) {
  gst_element_message_full_with_details(
      element, type, domain.quark, domain.code, g_strdup(error.message.c_str()),
      error.detail.empty() ? nullptr : g_strdup(error.detail.c_str()), __FILE__, __func__, __LINE__,
      gst_structure_new("vlm-error", "stage", G_TYPE_STRING,
                        stage == Stage::kLoad ? "load" : "window", "kind", G_TYPE_STRING,
                        domain.kind, nullptr));
}

}  // namespace

void post_error(GstElement* element, const vlm::Error& error, Stage stage) {
  post(element, GST_MESSAGE_ERROR, domain_of(error.kind), error, stage);
}

void post_warning(GstElement* element, const vlm::Error& error, Stage stage) {
  post(element, GST_MESSAGE_WARNING, domain_of(error.kind), error, stage);
}

void post_missing_library(GstElement* element, const vlm::Error& error) {
  post(element, GST_MESSAGE_ERROR, {GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_INIT, "missing-library"},
       error, Stage::kLoad);
}

void post_exception(GstElement* element) noexcept {
  if (element == nullptr) {
    GST_ERROR("an exception ended a worker thread");
    return;
  }
  try {
    throw;
  } catch (const std::bad_alloc&) {
    GST_ELEMENT_ERROR(
        element, RESOURCE, NO_SPACE_LEFT,
        ("Memory ran out; lower frames, max-pending or max-held-bytes, take smaller video, "
         "or end other programs."),
        (nullptr));
  } catch (const std::exception& exception) {
    GST_ELEMENT_ERROR(element, LIBRARY, FAILED, ("An internal error stopped the element."),
                      ("%s", exception.what()));
  } catch (...) {
    GST_ELEMENT_ERROR(element, LIBRARY, FAILED, ("An internal error stopped the element."),
                      (nullptr));
  }
}

EventPtr prolonged_gap(GstEvent* gap, uint64_t start, uint64_t duration) {
  if (gap == nullptr || GST_EVENT_TYPE(gap) != GST_EVENT_GAP) {
    return nullptr;
  }
  GstClockTime first = 0;
  GstClockTime length = 0;
  gst_event_parse_gap(gap, &first, &length);
  if (start < first || start > first + length) {
    return nullptr;
  }
  return EventPtr(gst_event_new_gap(first, std::max(length, start - first + duration)));
}

}  // namespace gstvlm
