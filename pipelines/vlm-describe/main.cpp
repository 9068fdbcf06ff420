// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <string_view>
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

/// Where the prompt comes from: the settings hold what was read. Empty for nowhere.
std::string prompt_file_of(int argc, char** argv) {
  constexpr std::string_view kOption = "--prompt-file";
  std::string file;
  for (int i = 1; i < argc && std::string_view(argv[i]) != "--"; ++i) {
    const std::string_view argument = argv[i];
    if (argument == kOption && i + 1 < argc) file = argv[++i];
    if (argument.starts_with("--prompt-file=")) file = argument.substr(kOption.size() + 1);
  }
  return file;
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
    // GOption takes the options out of argv.
    std::string prompt_file = prompt_file_of(argc, argv);
    std::variant<describe::Settings, describe::ExitStatus> parsed =
        describe::parse_options(argc, argv);
    if (const auto* status = std::get_if<describe::ExitStatus>(&parsed)) return printed(*status);
    describe::catch_interrupts();
    return describe::Run(std::get<describe::Settings>(std::move(parsed)), std::move(prompt_file))
        .run();
  } catch (const std::bad_alloc&) {
    describe::complain("there is not enough memory");
  } catch (const std::exception& error) {
    describe::complain(std::string("an internal error: ") + error.what());
  }
  return describe::kSomeFailed;
}
