// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace vlm {

/// Whether `name` has the form of a Hugging Face hub id, organisation/name. Reentrant.
bool is_hub_id(std::string_view name);

/// The local hub cache: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, else the folder hub in HF_HOME, in
/// XDG_CACHE_HOME/huggingface or in ~/.cache/huggingface. Reads the environment; reentrant.
std::string hub_cache();

/// Directory of the newest fetched snapshot of the hub id `id` in the local cache; nothing where
/// none is there. Reentrant.
std::optional<std::string> find_in_hub_cache(std::string_view id);

/// How to fetch `id`, as messages say it.
std::string fetch_advice(std::string_view id);

}  // namespace vlm
