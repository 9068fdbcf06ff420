// SPDX-License-Identifier: LGPL-2.1-or-later
#include "formatter.h"

#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

#include "report.h"
#include "subtitles.h"

namespace describe {

namespace {

/// ISO 8601 in UTC with milliseconds.
std::string utc_text(int64_t utc_us) {
  const time_t seconds = static_cast<time_t>(utc_us / 1'000'000);
  tm parts = {};
  gmtime_r(&seconds, &parts);
  char date[32];
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
  char text[48];
  std::snprintf(text, sizeof text, "%s.%03dZ", date, static_cast<int>(utc_us % 1'000'000 / 1000));
  return text;
}

/// A still picture's text alone as it is; of a video, or beside others, one line for each.
class TextFormatter : public Formatter {
 public:
  explicit TextFormatter(bool name_sources) : name_sources_(name_sources) {}

  vlm::Result<std::string> add(const Record& record) override {
    const std::string& text = record.description.text;
    std::string line;
    if (name_sources_) line.append(one_line(record.source)).append(": ");
    if (record.utc_us) {
      line.append("[").append(utc_text(*record.utc_us)).append("] ");
    } else if (record.duration_ns) {
      line.append("[").append(clock_text(record.pts_ns)).append(" - ");
      line.append(clock_text(record.pts_ns + *record.duration_ns)).append("] ");
    }
    return line.empty() ? text + "\n" : line + one_line(text) + "\n";
  }

 private:
  bool name_sources_;
};

/// For each token a list of what could have been in its place.
template <typename Json>
Json choices_of(const vlm::Description& description) {
  Json tokens = Json::array();
  for (const std::vector<vlm::TokenChoice>& choices : description.top_logprobs) {
    Json& list = tokens.emplace_back(Json::array());
    for (const vlm::TokenChoice& choice : choices) {
      list.push_back({{"id", choice.id}, {"text", choice.text}, {"logprob", choice.logprob}});
    }
  }
  return tokens;
}

class JsonFormatter : public Formatter {
 public:
  vlm::Result<std::string> add(const Record& record) override {
    using Json = nlohmann::ordered_json;
    const vlm::Description& d = record.description;
    Json object;
    object["source"] = record.source;
    object["index"] = record.index;
    object["pts"] = record.pts_ns;
    object["duration"] = record.duration_ns ? Json(*record.duration_ns) : Json(nullptr);
    object["frame_pts"] = record.frame_pts_ns;
    if (record.utc_us) object["utc"] = utc_text(*record.utc_us);
    object["prompt"] = d.prompt;
    object["text"] = d.text;
    object["token_ids"] = d.token_ids;
    object["finish_reason"] = record.finish_reason;
    object["prompt_tokens"] = d.prompt_tokens;
    object["image_tokens"] = d.image_tokens;
    object["logprobs"] = d.logprobs;
    object["logprob"] = d.mean_logprob();
    if (!d.top_logprobs.empty()) object["top_logprobs"] = choices_of<Json>(d);
    if (d.sequence_score) object["sequence_score"] = *d.sequence_score;
    object["timing"] = {{"wait_ms", d.timing.wait_ms},
                        {"vision_ms", d.timing.vision_ms},
                        {"prefill_ms", d.timing.prefill_ms},
                        {"decode_ms", d.timing.decode_ms},
                        {"total_ms", d.timing.total_ms}};
    // File names need not be UTF-8.
    return object.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  }
};

class SubtitleFormatter : public Formatter {
 public:
  explicit SubtitleFormatter(std::unique_ptr<SubtitleEncoder> encoder)
      : encoder_(std::move(encoder)) {}

  vlm::Result<std::string> add(const Record& record) override {
    if (!record.duration_ns) {
      return vlm::Error{vlm::ErrorKind::kInvalidArgument,
                        "is a picture, and subtitles need a video; use --format text or jsonl",
                        {}};
    }
    return encoder_->add(record.pts_ns, *record.duration_ns, one_line(record.description.text));
  }

 private:
  std::unique_ptr<SubtitleEncoder> encoder_;
};

}  // namespace

std::string clock_text(uint64_t time_ns) {
  const uint64_t ms = time_ns / 1'000'000;
  char text[40];
  std::snprintf(text, sizeof text, "%02llu:%02llu:%02llu.%03llu",
                static_cast<unsigned long long>(ms / 3'600'000),
                static_cast<unsigned long long>(ms / 60'000 % 60),
                static_cast<unsigned long long>(ms / 1000 % 60),
                static_cast<unsigned long long>(ms % 1000));
  return text;
}

vlm::Result<std::unique_ptr<Formatter>> make_formatter(const FormatOptions& options) {
  using Made = std::unique_ptr<Formatter>;
  if (options.format == Format::kText) return Made(new TextFormatter(options.name_sources));
  if (options.format == Format::kJsonl) return Made(new JsonFormatter);
  auto encoder = SubtitleEncoder::create(options.format == Format::kVtt ? "webvttenc" : "srtenc");
  if (!encoder) return encoder.error();
  return Made(new SubtitleFormatter(std::move(*encoder)));
}

}  // namespace describe
