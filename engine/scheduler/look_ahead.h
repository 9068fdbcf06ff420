// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "scheduler/step_plan.h"

namespace vlm {

// A step may be started before anybody asked for it: from the rows of a step whose tokens the host
// has not seen yet. What decides about that, and what finds such rows again. Pure.

/// Where each of `count` device rows goes on: the slot kept for it, or -1 where nobody goes on from
/// it. Nothing where the next step cannot be foreseen, or where nobody goes on. `rows`: the device
/// row of each decode; choice i is decode i's. Every row that may go on has a slot that is its own,
/// so that rows_ahead() cannot take one sequence for another.
std::optional<std::vector<int32_t>> slots_ahead(std::span<const DecodePart> decodes,
                                                std::span<const Choice> choices,
                                                std::span<const int64_t> rows, int64_t count);

/// The device rows of a plan that comes right after the one that `slots` were made of; fewer than
/// there are where some ended. Nothing where they are not those sequences.
std::optional<std::vector<int64_t>> rows_ahead(std::span<const int32_t> slots,
                                               std::span<const DecodePart> decodes);

}  // namespace vlm
