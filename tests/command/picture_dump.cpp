// SPDX-License-Identifier: LGPL-2.1-or-later
// Decodes pictures as vlm-describe does, for comparison with the reference. For each path on
// standard input it writes one line, "WIDTH HEIGHT" or the error, and then the RGB bytes.

#include <cstdio>
#include <iostream>
#include <string>

#include "picture/picture.h"

int main() {
  for (std::string path; std::getline(std::cin, path);) {
    const auto bytes = describe::read_file(path, describe::kMaxPictureFile);
    const auto frame = bytes ? describe::decode_picture(*bytes) : bytes.error();
    if (!frame) {
      std::printf("error %s\n", frame.error().message.c_str());
    } else {
      std::printf("%d %d\n", frame->width, frame->height);
      std::fwrite(frame->rgb.data(), 1, frame->rgb.size(), stdout);
    }
    std::fflush(stdout);
  }
  return 0;
}
