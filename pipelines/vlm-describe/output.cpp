// SPDX-License-Identifier: LGPL-2.1-or-later
#include "output.h"

#include <sys/stat.h>

#include <climits>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <system_error>

namespace describe {

namespace {

namespace fs = std::filesystem;

constexpr std::pair<const char*, Format> kEndings[] = {{".txt", Format::kText},
                                                       {".jsonl", Format::kJsonl},
                                                       {".vtt", Format::kVtt},
                                                       {".srt", Format::kSrt}};

std::optional<Format> format_by_ending(const std::string& path) {
  const std::string ending = fs::path(path).extension().string();
  for (const auto& [text, format] : kEndings) {
    if (ending == text) return format;
  }
  return std::nullopt;
}

const char* ending_of(Format format) {
  for (const auto& [text, known] : kEndings) {
    if (format == known) return text;
  }
  return "";
}

vlm::Error usage(const std::string& sentence) {
  return {vlm::ErrorKind::kInvalidArgument, sentence, {}};
}

bool exists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

bool is_directory(const std::string& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

/// A dash and eight digits that tell long names with the same beginning apart (FNV-1a).
std::string short_hash(const std::string& text) {
  uint32_t hash = 2166136261U;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 16777619U;
  char digits[10];
  std::snprintf(digits, sizeof digits, "-%08x", static_cast<unsigned>(hash));
  return digits;
}

/// `name` with `tail`; where that is too long for a file, the name's beginning and a hash of it.
std::string fitting(std::string name, const std::string& tail) {
  if (name.size() + tail.size() <= NAME_MAX) return name + tail;
  const std::string hash = short_hash(name);
  size_t length = NAME_MAX - tail.size() - hash.size();
  while (length > 0 && (static_cast<uint8_t>(name[length]) & 0xC0) == 0x80) --length;
  return name.substr(0, length) + hash + tail;
}

}  // namespace

vlm::Result<std::unique_ptr<Output>> Output::create(const Settings& settings, bool several,
                                                    const std::vector<Input>& inputs,
                                                    const ReadFiles& read) {
  if (!settings.trace.empty()) {
    if (vlm::Status status = read.check_target("--trace", settings.trace); !status) {
      return status.error();
    }
  }
  auto self = from_options(settings, several);
  if (!self) return self.error();
  if ((*self)->one_for_each_) (*self)->name_files(inputs);
  if (vlm::Status status = (*self)->check_targets(read); !status) return status.error();
  return self;
}

vlm::Result<std::unique_ptr<Output>> Output::from_options(const Settings& settings, bool several) {
  std::unique_ptr<Output> self(new Output);
  const std::string& path = self->path_ = settings.output;
  const std::optional<Format> by_ending = format_by_ending(path);
  self->options_.format = settings.format.value_or(by_ending.value_or(Format::kText));
  const Format format = self->options_.format;
  const bool subtitles = format == Format::kVtt || format == Format::kSrt;
  self->options_.name_sources = several && path.empty();
  if (path.empty()) {
    if (several && subtitles) {
      return usage("subtitles of several inputs need a directory to go to; give it with --output");
    }
    return self;
  }
  if (is_directory(path)) {
    self->one_for_each_ = true;
    return self;
  }
  const bool wants_file = !several || (format == Format::kJsonl && !path.ends_with('/'));
  if (wants_file) {
    if (path.ends_with('/'))
      return usage("--output \"" + path + "\" is not a directory that exists");
    const fs::path parent = fs::path(path).parent_path();
    if (!parent.empty() && !is_directory(parent.string())) {
      return usage("--output lies in \"" + parent.string() + "\", which is not a directory");
    }
    return self;
  }
  if (exists(path) || by_ending) {
    return usage("with several inputs --output names a directory, and \"" + path +
                 "\" is the name of a file");
  }
  std::error_code error;
  fs::create_directories(path, error);
  if (error) {
    return usage("the directory \"" + path + "\" for --output can't be made: " + error.message());
  }
  self->one_for_each_ = true;
  return self;
}

/// All names are given before anything runs, so that none depends on what fails.
void Output::name_files(const std::vector<Input>& inputs) {
  files_.resize(inputs.size());
  for (const Input& input : inputs) {
    if (input.kind != Input::Kind::kFailed) files_[input.number] = file_for(input);
  }
}

vlm::Status Output::check_targets(const ReadFiles& read) const {
  if (!one_for_each_) return read.check_target("--output", path_);
  for (const std::string& file : files_) {
    if (file.empty()) continue;
    if (vlm::Status status = read.check_target("--output", file); !status) return status;
  }
  return vlm::ok_status();
}

/// The input's name with another ending; where two inputs would share it, the whole name, and then
/// a number.
std::string Output::file_for(const Input& input) {
  const std::string name = input.name();
  const std::string stem = input.path.empty() ? name : fs::path(name).stem().string();
  const std::string ending = ending_of(options_.format);
  for (int number = 0;; ++number) {
    const std::string tail = number > 1 ? "-" + std::to_string(number) + ending : ending;
    const std::string file = fitting(number == 0 ? stem : name, tail);
    if (taken_.insert(file).second) return (fs::path(path_) / file).string();
  }
}

vlm::Result<std::unique_ptr<Sink>> Output::open_sink(const std::string& path, bool live) const {
  // Lines may follow those of an earlier call; a second header would make subtitles invalid.
  const bool lines = options_.format == Format::kText || options_.format == Format::kJsonl;
  return path.empty() || live ? open_growing(path, !lines) : open_whole(path);
}

vlm::Result<std::unique_ptr<InputOutput>> Output::open_shared(bool live) {
  if (shared_ == nullptr) {
    auto sink = open_sink(path_, live);
    if (!sink) return sink.error();
    auto formatter = make_formatter(options_);
    if (!formatter) return formatter.error();
    shared_ = std::move(*sink);
    shared_formatter_ = std::move(*formatter);
  } else if (live && !shared_grows_) {
    // What is there so far appears, and grows from here on.
    if (vlm::Status status = shared_->commit(); !status) return status.error();
    auto sink = open_growing(path_);
    if (!sink) return sink.error();
    shared_ = std::move(*sink);
  }
  shared_grows_ |= live;
  auto output = std::make_unique<InputOutput>();
  output->sink_ = shared_.get();
  output->formatter_ = shared_formatter_.get();
  // A recording that fails half way leaves no lines in a file that appears as a whole.
  output->hold_ = !path_.empty() && !live;
  return output;
}

vlm::Result<std::unique_ptr<InputOutput>> Output::open(const Input& input, bool live) {
  if (!one_for_each_) return open_shared(live);
  auto sink = open_sink(files_[input.number], live);
  if (!sink) return sink.error();
  auto formatter = make_formatter(options_);
  if (!formatter) return formatter.error();
  auto output = std::make_unique<InputOutput>();
  output->own_ = std::move(*sink);
  output->own_formatter_ = std::move(*formatter);
  output->sink_ = output->own_.get();
  output->formatter_ = output->own_formatter_.get();
  return output;
}

vlm::Status Output::finish() {
  return shared_ != nullptr ? shared_->commit() : vlm::ok_status();
}

vlm::Status InputOutput::add(const Record& record) {
  vlm::Result<std::string> bytes = formatter_->add(record);
  if (!bytes) return bytes.error();
  if (!hold_) return sink_->write(*bytes);
  held_ += *bytes;
  return vlm::ok_status();
}

vlm::Status InputOutput::commit() {
  if (hold_) {
    if (vlm::Status status = sink_->write(held_); !status) return status;
    held_.clear();
  }
  return own_ != nullptr ? own_->commit() : vlm::ok_status();
}

}  // namespace describe
