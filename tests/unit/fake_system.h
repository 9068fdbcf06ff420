// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <filesystem>
#include <string>

#include "checkpoint_writer.h"

namespace vlm::test {

/// A /proc and a /sys of our own, for what takes the directory that they are in.
class FakeSystem {
 public:
  const std::string& root() const { return directory_.path(); }
  void write(const std::string& file, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(directory_.file(file)).parent_path());
    directory_.write(file, text);
  }

 private:
  TemporaryDirectory directory_;
};

}  // namespace vlm::test
