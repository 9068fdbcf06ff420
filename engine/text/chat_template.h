// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <string>
#include <string_view>

namespace vlm {

/// A Jinja chat template reduced to what decides its output: text between tags as
/// Hugging Face's environment leaves it (the line break after a block and the white space in front
/// of one are dropped), tags with single spaces and single quotes, no comments, and no
/// generation marks, which only label the assistant's text. Reentrant.
std::string canonical_template(std::string_view source);

/// Whether `source` is the chat template that the LLaVA-1.5 conversions are published with, in any
/// of its spellings. Reentrant.
bool is_llava_template(std::string_view source);

}  // namespace vlm
