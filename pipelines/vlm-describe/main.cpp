// SPDX-License-Identifier: LGPL-2.1-or-later
#include <exception>
#include <new>
#include <variant>

#include "interrupt.h"
#include "options.h"
#include "report.h"
#include "run.h"

int main(int argc, char** argv) {
  try {
    std::variant<describe::Settings, describe::ExitStatus> parsed =
        describe::parse_options(argc, argv);
    if (const auto* status = std::get_if<describe::ExitStatus>(&parsed)) return *status;
    describe::catch_interrupts();
    return describe::Run(std::get<describe::Settings>(std::move(parsed))).run();
  } catch (const std::bad_alloc&) {
    describe::complain("there is not enough memory");
  } catch (const std::exception& error) {
    describe::complain(std::string("an internal error: ") + error.what());
  }
  return describe::kSomeFailed;
}
