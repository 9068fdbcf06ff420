// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <string>

namespace describe {

/// Finds out from a pipeline's messages why a server could not be reached.
class Reach {
 public:
  explicit Reach(const std::string& uri);

  /// Any element message.
  void note(GstMessage* message);

  /// The sentence of an error of the source's, with its cause and what to check where a server is
  /// behind it that did not answer as it should; else as it is.
  std::string explain(const GError& error, const std::string& debug) const;

 private:
  bool network_ = false;
  bool unanswered_ = false;  // HTTP: the request came to nothing
};

}  // namespace describe
