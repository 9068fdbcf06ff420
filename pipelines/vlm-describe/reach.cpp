// SPDX-License-Identifier: LGPL-2.1-or-later
#include "reach.h"

#include <gst/pbutils/pbutils.h>

#include <algorithm>
#include <iterator>
#include <memory>

namespace describe {

namespace {

constexpr const char* kNoVideo = "It holds no video.";

/// What an element said itself in a debug text, behind the line of where it did.
std::string said_in(const std::string& debug) {
  const size_t end = debug.find('\n');
  return end == std::string::npos ? std::string() : debug.substr(end + 1);
}

bool is_about_reaching(const GError& error) {
  constexpr int kCodes[] = {GST_RESOURCE_ERROR_NOT_FOUND, GST_RESOURCE_ERROR_OPEN_READ,
                            GST_RESOURCE_ERROR_OPEN_READ_WRITE, GST_RESOURCE_ERROR_READ};
  return error.domain == GST_RESOURCE_ERROR &&
         std::find(std::begin(kCodes), std::end(kCodes), error.code) != std::end(kCodes);
}

std::string without_stop(std::string sentence) {
  while (sentence.ends_with('.') || sentence.ends_with('\n')) sentence.pop_back();
  return sentence;
}

}  // namespace

Reach::Reach(const std::string& uri) {
  const std::unique_ptr<GstUri, void (*)(GstUri*)> parsed(
      gst_uri_from_string(uri.c_str()), [](GstUri* value) { gst_uri_unref(value); });
  const char* host = parsed != nullptr ? gst_uri_get_host(parsed.get()) : nullptr;
  network_ = host != nullptr && *host != '\0';
}

void Reach::note(GstMessage* message) {
  if (gst_is_missing_plugin_message(message)) note_missing(message);
  // The HTTP source tells of each request, with the status 0 where there was no answer.
  if (!gst_message_has_name(message, "http-headers")) return;
  guint status = 0;
  gst_structure_get_uint(gst_message_get_structure(message), "http-status-code", &status);
  unanswered_ = status == 0;
}

void Reach::note_missing(GstMessage* message) {
  GstCaps* caps = nullptr;
  gst_structure_get(gst_message_get_structure(message), "detail", GST_TYPE_CAPS, &caps, nullptr);
  const char* type =
      caps != nullptr ? gst_structure_get_name(gst_caps_get_structure(caps, 0)) : nullptr;
  if (type != nullptr && g_str_has_prefix(type, "text/")) {
    text_type_ = type;
  } else {
    char* what = gst_missing_plugin_message_get_description(message);
    missing_ = what;
    g_free(what);
  }
  if (caps != nullptr) gst_caps_unref(caps);
}

std::string Reach::explain(const GError& error, const std::string& debug) const {
  if (!missing_.empty()) {
    return "GStreamer lacks here what decodes it: " + missing_ +
           " (gstreamer1.0-libav has most decoders)";
  }
  if (!text_type_.empty()) {
    return "it is a text (" + text_type_ + ") and no video; " +
           (network_ ? "check the address, and whether the server wants a login"
                     : "check its name");
  }
  // Of what there is nothing is missing, but none of it is video.
  if (g_error_matches(&error, GST_CORE_ERROR, GST_CORE_ERROR_MISSING_PLUGIN)) return kNoVideo;
  return network_ ? explain_server(error, debug) : error.message;
}

std::string Reach::explain_server(const GError& error, const std::string& debug) const {
  if (g_error_matches(&error, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SEEK)) {
    return "the connection broke off, and the server does not go on in the middle of a file";
  }
  if (g_error_matches(&error, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS)) {
    return "the server answered with nothing that describes a video; check the address";
  }
  if (!unanswered_ && !is_about_reaching(error)) return error.message;
  const std::string what = unanswered_ ? "no server answered" : without_stop(error.message);
  const std::string cause = unanswered_ ? "" : without_stop(said_in(debug));
  const bool repeats = cause.empty() || cause.starts_with(what);
  return what + (repeats ? "" : " (" + cause + ")") +
         "; check the address and the port, and that the server runs";
}

}  // namespace describe
