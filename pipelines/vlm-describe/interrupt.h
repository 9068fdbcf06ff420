// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

namespace describe {

/// Makes the first Ctrl-C or SIGTERM a request to end cleanly; a second one ends the process at
/// once. Call it once, before other threads start.
void catch_interrupts();

/// True from the first Ctrl-C or SIGTERM on. Reentrant.
bool interrupted();

}  // namespace describe
