// SPDX-License-Identifier: LGPL-2.1-or-later
#include "report.h"

#include <cstdio>

namespace describe {

std::string one_line(const std::string& text) {
  std::string line;
  for (const char c : text) {
    const bool space = static_cast<unsigned char>(c) <= ' ' || c == '\x7f';
    if (!space) {
      line += c;
    } else if (!line.empty() && line.back() != ' ') {
      line += ' ';
    }
  }
  while (line.ends_with(' ')) line.pop_back();
  return line;
}

void complain(const std::string& sentence) {
  std::fprintf(stderr, "vlm-describe: %s\n", one_line(sentence).c_str());
}

}  // namespace describe
