// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <utility>
#include <variant>

#include "interrupt.h"
#include "options.h"
#include "report.h"
#include "run.h"

namespace {

/// The next file that is opened would get the number of a standard stream that is closed, and with
/// it what is meant for the stream. Nothing can be written to what this opens instead.
bool occupy_standard_streams() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) != fd) return false;
  }
  return true;
}

/// `status`, unless what was printed did not arrive.
describe::ExitStatus printed(describe::ExitStatus status) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return status;
  describe::complain(std::string("writing to standard output failed: ") + strerror(errno));
  return describe::kSomeFailed;
}

}  // namespace

int main(int argc, char** argv) {
  if (!occupy_standard_streams()) return describe::kSomeFailed;
  try {
    std::variant<describe::Settings, describe::ExitStatus> parsed =
        describe::parse_options(argc, argv);
    if (const auto* status = std::get_if<describe::ExitStatus>(&parsed)) return printed(*status);
    describe::catch_interrupts();
    return describe::Run(std::get<describe::Settings>(std::move(parsed))).run();
  } catch (const std::bad_alloc&) {
    describe::complain("there is not enough memory");
  } catch (const std::exception& error) {
    describe::complain(std::string("an internal error: ") + error.what());
  }
  return describe::kSomeFailed;
}
