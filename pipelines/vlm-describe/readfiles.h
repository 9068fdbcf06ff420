// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "inputs.h"
#include "vlm/error.h"

namespace describe {

/// The files that a call reads, so that nothing it writes destroys one. Reentrant once made.
class ReadFiles {
 public:
  /// `prompt_file`: empty for none.
  ReadFiles(const std::vector<Input>& inputs, const std::string& prompt_file);

  /// Fails (a matter of usage) where `path` is one of these files under whatever name: itself,
  /// through a symbolic link, or another name of it. `option` is who wants to write there. An empty
  /// path is standard output.
  vlm::Status check_target(const std::string& option, const std::string& path) const;

 private:
  using Identity = std::pair<dev_t, ino_t>;
  void add(const std::string& path, const std::string& what);

  std::map<Identity, std::string> files_;
};

}  // namespace describe
