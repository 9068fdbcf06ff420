// SPDX-License-Identifier: LGPL-2.1-or-later
#include "readfiles.h"

#include <sys/stat.h>
#include <unistd.h>

namespace describe {

ReadFiles::ReadFiles(const std::vector<Input>& inputs, const std::string& prompt_file) {
  for (const Input& input : inputs) add(input.path, "the input \"" + input.source + "\"");
  add(prompt_file, "the prompt file \"" + prompt_file + "\"");
}

/// Nothing but a regular file can be destroyed: a terminal may well be read and written.
void ReadFiles::add(const std::string& path, const std::string& what) {
  struct stat info = {};
  if (path.empty() || stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return;
  files_.emplace(Identity(info.st_dev, info.st_ino), what);
}

vlm::Status ReadFiles::check_target(const std::string& option, const std::string& path) const {
  struct stat info = {};
  const int known = path.empty() ? fstat(STDOUT_FILENO, &info) : stat(path.c_str(), &info);
  if (known != 0) return vlm::ok_status();
  const auto found = files_.find(Identity(info.st_dev, info.st_ino));
  if (found == files_.end()) return vlm::ok_status();
  const std::string target = path.empty() ? "standard output" : option + " \"" + path + "\"";
  return vlm::Error{vlm::ErrorKind::kInvalidArgument,
                    target + " would destroy " + found->second + ", which is the same file",
                    {}};
}

}  // namespace describe
