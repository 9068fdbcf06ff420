// SPDX-License-Identifier: LGPL-2.1-or-later
#include "base/control_groups.h"

#include <fstream>

namespace vlm {

void visit_control_groups(
    const std::string& root, const std::string& controller,
    const std::function<void(const std::string& directory, bool unified)>& visit) {
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    std::string kinds(",");
    kinds.append(line, first + 1, second - first - 1).append(",");
    const bool unified = kinds == ",,";
    if (!unified && kinds.find("," + controller + ",") == std::string::npos) continue;
    const std::string path = line.substr(second + 1);
    const std::string mount = root + "/sys/fs/cgroup" + (unified ? "" : "/" + controller);
    visit(mount, unified);
    for (size_t end = path.size(); end > 0 && end != std::string::npos;
         end = path.rfind('/', end - 1)) {
      visit(mount + path.substr(0, end), unified);
    }
  }
}

}  // namespace vlm
