// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <string>
#include <vector>

namespace describe {

/// One thing to describe.
struct Input {
  enum class Kind {
    kPicture,  ///< a file here, or fetched by HTTP, that this program decodes itself
    kVideo,    ///< everything that GStreamer opens
    kFailed,   ///< can't be described; `error` completes the sentence "SOURCE …"
  };
  Kind kind = Kind::kFailed;
  std::string source;  ///< as given; in a directory, the directory as given and the file's name
  std::string path;    ///< of a local file (a failed one's too), else empty
  std::string uri;     ///< of a video, or of a picture to fetch
  std::string error;
  size_t number = 0;  ///< counts from 0 in the order of expand_inputs()

  /// What output files are named after: the file's name, or something made of the URI, without the
  /// account in it. It may be too long for a file.
  std::string name() const;
};

/// What the arguments stand for, in order, directories spread out and sorted by name (bytes).
/// Opens local files to see what they hold. Reentrant.
std::vector<Input> expand_inputs(const std::vector<std::string>& arguments);

/// True where the arguments ask for more than one description file: several, or a directory.
bool asks_for_several(const std::vector<std::string>& arguments);

}  // namespace describe
