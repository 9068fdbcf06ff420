// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// The one structure `vlm-description`: an element message's content, the custom meta on buffers and
// the text pad's text all come from it.

#include <string>

#include "gstvlm-utils.h"
#include "gstvlmdispatch.h"

namespace gstvlm {

inline constexpr const char* kDescriptionName = "vlm-description";

/// Registers the GstCustomMeta `vlm-description`, without tags, so that it survives every element
/// that does not drop all metadata. Before any buffer gets one; further calls do nothing.
void register_description_meta();

/// The structure for a finished description. `model` and `element` are the names of the model and
/// of the element.
StructurePtr describe(const Window& window, const vlm::Description& description,
                      uint64_t latency_ns, const std::string& model, const std::string& element);

/// The structure for a text that is still growing: `partial` is set, and there is no finish-reason,
/// logprob or latency.
StructurePtr describe_partial(const Window& window, const std::string& text,
                              const std::string& model, const std::string& element);

/// Adds what `details` asks for: `final-prompt`, `token-ids`, `logprobs`, `prompt-tokens`,
/// `image-tokens`, `sequence-score` (beams only), `timing` (a structure of wait-ms, vision-ms,
/// prefill-ms, decode-ms, total-ms), and where top-logprobs asks for it `top-logprobs`: for each
/// token an array of structures of id, text and logprob.
void add_details(GstStructure* structure, const vlm::Description& description);

/// Puts a copy of `structure` on `buffer`, replacing what the element of the same name had put
/// there. The buffer must be writable; its memory is not touched.
void attach_description(GstBuffer* buffer, const GstStructure* structure);

/// The text as it may go to subtitle encoders: one line, no `-->`.
std::string subtitle_text(const std::string& text);

}  // namespace gstvlm
