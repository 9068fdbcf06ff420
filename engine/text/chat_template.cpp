// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/chat_template.h"

#include "text/jinja/template.h"

namespace vlm {
namespace {

constexpr const char* kCure =
    "; or choose a prompt format yourself (--prompt-format, property prompt-format)";

Json text_part(const std::string& text) {
  return {{"type", "text"}, {"text", text}};
}

/// The conversation as the reference's processors pass it to templates.
Json messages_with_parts(const std::vector<Turn>& turns, size_t pictures,
                         const std::optional<std::string>& system) {
  Json messages = Json::array();
  const auto add = [&](const char* role, Json content) {
    messages.push_back({{"role", role}, {"content", std::move(content)}});
  };
  if (system) add("system", Json::array({text_part(*system)}));
  for (const Turn& turn : turns) {
    const bool user = turn.role == Turn::Role::kUser;
    Json content = Json::array();
    for (; user && pictures > 0; --pictures) content.push_back({{"type", "image"}});
    content.push_back(text_part(turn.text));
    add(user ? "user" : "assistant", std::move(content));
  }
  return messages;
}

/// The same for templates that know texts only.
Json messages_with_text(Json messages) {
  for (Json& message : messages) {
    std::string text;
    for (const Json& part : message["content"]) {
      text += part["type"] == "image" ? "<image>\n" : part["text"].get<std::string>();
    }
    message["content"] = text;
  }
  return messages;
}

std::string rendered(const ChatTemplate& chat_template, Json messages) {
  std::map<std::string, Json> variables = {{"tools", nullptr},
                                           {"documents", nullptr},
                                           {"add_generation_prompt", true},
                                           {"messages", std::move(messages)}};
  for (const auto& [name, text] : chat_template.tokens) variables[name] = text;
  return jinja::render(chat_template.source, chat_template.file, variables);
}

}  // namespace

Result<std::string> apply_chat_template(const ChatTemplate& chat_template,
                                        const std::vector<Turn>& turns, size_t pictures,
                                        const std::optional<std::string>& system) {
  const Json messages = messages_with_parts(turns, pictures, system);
  Result<std::string> text = as_result([&] {
    try {
      return rendered(chat_template, messages);
    } catch (const jinja::NeedsText&) {
      return rendered(chat_template, messages_with_text(messages));
    }
  });
  if (text) return text;
  Error error = text.error();
  error.message += kCure;
  return error;
}

}  // namespace vlm
