// SPDX-License-Identifier: LGPL-2.1-or-later
// Precompiled for the sources without libtorch. Each source still includes what it uses.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>
