// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <string>

namespace describe {

/// Finds out from a pipeline's messages why nothing could be read or decoded.
class Reach {
 public:
  explicit Reach(const std::string& uri);

  /// Any element message.
  void note(GstMessage* message);

  /// What an error of the source's means, before there was a picture: with its cause and what to
  /// check where a server is behind it that did not answer as it should; else in its own words.
  std::string explain(const GError& error, const std::string& debug) const;

 private:
  void note_missing(GstMessage* message);
  std::string explain_server(const GError& error, const std::string& debug) const;

  bool network_ = false;
  bool unanswered_ = false;  // HTTP: the request came to nothing
  std::string missing_;      // what would decode it
  std::string text_type_;    // of what turned out to be a text, such as a web page
};

}  // namespace describe
