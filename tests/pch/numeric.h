// SPDX-License-Identifier: LGPL-2.1-or-later
#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>
