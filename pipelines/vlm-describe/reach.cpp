// SPDX-License-Identifier: LGPL-2.1-or-later
#include "reach.h"

#include <algorithm>
#include <iterator>
#include <memory>

namespace describe {

namespace {

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

// The HTTP source tells of each request, with the status 0 where there was no answer.
void Reach::note(GstMessage* message) {
  if (!gst_message_has_name(message, "http-headers")) return;
  guint status = 0;
  gst_structure_get_uint(gst_message_get_structure(message), "http-status-code", &status);
  unanswered_ = status == 0;
}

std::string Reach::explain(const GError& error, const std::string& debug) const {
  if (!network_ || (!unanswered_ && !is_about_reaching(error))) return error.message;
  const std::string what = unanswered_ ? "no server answered" : without_stop(error.message);
  const std::string cause = unanswered_ ? "" : without_stop(said_in(debug));
  const bool repeats = cause.empty() || cause.starts_with(what);
  return what + (repeats ? "" : " (" + cause + ")") +
         "; check the address and the port, and that the server runs";
}

}  // namespace describe
