// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gst/gst.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>
