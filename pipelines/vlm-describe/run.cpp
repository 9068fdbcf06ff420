// SPDX-License-Identifier: LGPL-2.1-or-later
#include "run.h"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <optional>
#include <utility>

#include "gstreamer.h"
#include "interrupt.h"
#include "report.h"
#include "video.h"

namespace describe {

namespace {

Progress::Level progress_level(const Settings& settings) {
  if (settings.quiet) return Progress::Level::kQuiet;
  return settings.verbose ? Progress::Level::kVerbose : Progress::Level::kNormal;
}

bool need_gstreamer(const std::vector<Input>& inputs) {
  return std::any_of(inputs.begin(), inputs.end(),
                     [](const Input& input) { return !input.uri.empty(); });
}

bool is_subtitle(Format format) {
  return format == Format::kVtt || format == Format::kSrt;
}

/// The engine's error about the trace itself, which it would repeat for every input.
bool is_of_trace(const vlm::Error& error, const std::string& trace) {
  return error.message.find("the trace could not be written to " + trace) != std::string::npos;
}

/// "-m DIR" as the user gave it, else $VLM_MODEL, else the demo model.
std::string model_directory(const Settings& settings, const Places& places) {
  if (!settings.model.model.empty()) return settings.model.model;
  const char* set = std::getenv("VLM_MODEL");
  return set != nullptr && *set != '\0' ? set : places.demo_model;
}

}  // namespace

Run::Run(Settings settings)
    : settings_(std::move(settings)),
      places_(find_places()),
      progress_(progress_level(settings_)),
      pictures_(settings_,
                [this](const Input& input, vlm::Result<Record> result) {
                  picture_done(input, std::move(result));
                }),
      trace_(settings_.trace) {
  settings_.model.model = model_directory(settings_, places_);
}

Run::~Run() {
  stopped_ = true;
  wait_for_all();
}

void Run::wait_for_all() {
  for (std::thread& thread : going_) thread.join();
  going_.clear();
}

vlm::Status Run::prepare_model() {
  if (vlm::Status status = model_.open(places_.engine_library, settings_.model); !status) {
    return status;
  }
  model_.start_loading();
  return vlm::ok_status();
}

ExitStatus Run::run() {
  const bool several = asks_for_several(settings_.inputs);
  const std::vector<Input> inputs = expand_inputs(settings_.inputs);
  inputs_ = inputs.size();
  const bool any_good = std::any_of(inputs.begin(), inputs.end(), [](const Input& input) {
    return input.kind != Input::Kind::kFailed;
  });
  const ReadFiles read(inputs, settings_.prompt_file);
  auto output = Output::create(settings_, several, inputs, read);
  if (!output) {
    complain(output.error().message + " (vlm-describe --help explains)");
    return kUsage;
  }
  output_ = std::move(*output);
  if (any_good) {
    if (vlm::Status status = prepare_model(); !status) {
      complain(status.error().message);
      return kNoModel;
    }
    if (vlm::Status status = model_.check(settings_.request_prompt(), settings_.options); !status) {
      complain(status.error().message);
      return kUsage;
    }
    if (need_gstreamer(inputs) || is_subtitle(output_->format())) {
      // The plugin opens the engine's library too, and must find the same one.
      setenv("VLM_ENGINE_LIBRARY", places_.engine_library.c_str(), 1);
      if (vlm::Status status = prepare_gstreamer(places_.plugin); !status) {
        complain(status.error().message);
        return kNoModel;
      }
    }
  }
  for (const Input& input : inputs) {
    if (describe(input) == Next::kStop) break;
  }
  pictures_.drain();
  wait_for_all();
  progress_.clear();
  if (described_ > 0 && !output_broken_) {
    if (vlm::Status status = output_->finish(); !status) fail(status.error());
  }
  if (interrupted() && finished_ < inputs_ && status_ != kNoModel) {
    complain("interrupted: " + std::to_string(described_) + " of " + std::to_string(inputs_) +
             (inputs_ == 1 ? " input was described" : " inputs were described"));
    status_ = kSomeFailed;
  }
  return status_;
}

Run::Next Run::describe(const Input& input) {
  if (interrupted()) return Next::kStop;
  if (input.kind == Input::Kind::kFailed) {
    pictures_.drain();
    fail({vlm::ErrorKind::kInvalidArgument, input.source + " " + input.error, {}});
    done(false);
    return Next::kGoOn;
  }
  if (engine_ == nullptr) {
    vlm::Result<std::shared_ptr<vlm::Engine>> engine = model_.engine(progress_);
    if (!engine) {
      if (interrupted()) return Next::kStop;
      progress_.clear();
      complain(engine.error().message);
      status_ = kNoModel;
      return Next::kStop;
    }
    engine_ = std::move(*engine);
    progress_.begin(input.source);
  }
  const Next next =
      input.kind == Input::Kind::kPicture ? describe_picture(input) : describe_one_video(input);
  return stopped_ ? Next::kStop : next;
}

Run::Next Run::describe_picture(const Input& input) {
  const std::string trace = take_trace();
  pictures_.add(input, engine_, trace);
  if (trace.empty()) return Next::kGoOn;
  // Only its result says whether the next one gets the trace.
  pictures_.drain();
  if (picture_error_) pass_on_trace(trace, *picture_error_);
  return Next::kGoOn;
}

void Run::picture_done(const Input& input, vlm::Result<Record> result) {
  vlm::Status status = result ? vlm::ok_status() : vlm::Status(result.error());
  picture_error_ = result ? std::nullopt : std::optional(result.error());
  if (status && !output_broken_) {
    auto output = open(input, false);
    status = output ? add(**output, *result) : vlm::Status(output.error());
    if (status) status = commit(**output);
  }
  if (!status && status.error().kind == vlm::ErrorKind::kCancelled && interrupted()) return;
  done(static_cast<bool>(status));
  if (!status) {
    fail(status.error());
    return;
  }
  if (inputs_ > 1 && going_.empty()) {
    progress_.begin(input.source);
    progress_.fraction(static_cast<double>(finished_) / static_cast<double>(inputs_));
  }
}

/// A recording is described before the next input begins; a source without an end is not waited
/// for.
Run::Next Run::describe_one_video(const Input& input) {
  pictures_.drain();
  std::promise<bool> promise;
  std::future<bool> goes_on = promise.get_future();
  std::thread thread([this, &input, trace = take_trace(), promise = std::move(promise)]() mutable {
    play(input, trace, promise);
  });
  if (goes_on.get()) {
    going_.push_back(std::move(thread));
  } else {
    thread.join();
  }
  return stopped_ || interrupted() ? Next::kStop : Next::kGoOn;
}

/// `goes_on` gets true as soon as the video turns out to have no end, false at the end of others.
void Run::play(const Input& input, const std::string& trace, std::promise<bool>& goes_on) {
  bool told = false;
  const auto tell = [&](bool live) {
    if (!std::exchange(told, true)) goes_on.set_value(live);
  };
  try {
    video_done(input, play_to(input, trace, [&] { tell(true); }));
  } catch (const std::exception& error) {
    done(false);
    fail({vlm::ErrorKind::kInternal, std::string("an internal error: ") + error.what(), {}});
  }
  tell(false);
}

vlm::Status Run::play_to(const Input& input, const std::string& trace,
                         const std::function<void()>& goes_on) {
  std::unique_ptr<InputOutput> output;
  VideoReceiver receiver;
  receiver.begin = [&](bool live) -> vlm::Status {
    auto opened = open(input, live);
    if (!opened) return opened.error();
    output = std::move(*opened);
    if (live) goes_on();
    return vlm::ok_status();
  };
  bool described = false;
  receiver.add = [&](const Record& record) {
    described = true;
    return add(*output, record);
  };
  receiver.unwanted = [this] { return stopped_.load(); };
  vlm::Status status = describe_video(settings_, input, trace, receiver, progress_);
  if (!status && !described) pass_on_trace(trace, status.error());
  if (status && output != nullptr) status = commit(*output);
  return status;
}

void Run::video_done(const Input& input, const vlm::Status& status) {
  if (status) {
    done(true);
    return;
  }
  vlm::Error error = status.error();
  if (error.kind == vlm::ErrorKind::kCancelled && (interrupted() || stopped_)) return;
  done(false);
  if (error.kind != vlm::ErrorKind::kIo) error.message = input.source + ": " + error.message;
  fail(error);
  if (error.kind != vlm::ErrorKind::kInvalidModel) return;
  const std::lock_guard lock(mutex_);
  status_ = kNoModel;
  stopped_ = true;
}

void Run::done(bool described) {
  const std::lock_guard lock(mutex_);
  ++finished_;
  described_ += described ? 1 : 0;
}

vlm::Result<std::unique_ptr<InputOutput>> Run::open(const Input& input, bool live) {
  const std::lock_guard lock(mutex_);
  auto output = output_->open(input, live);
  if (!output && output_->shared()) output_broken_ = stopped_ = true;
  return output;
}

vlm::Status Run::add(InputOutput& output, const Record& record) {
  const std::lock_guard lock(mutex_);
  if (output_->to_stdout()) progress_.clear();
  vlm::Status status = output.add(record);
  if (!status && status.error().kind == vlm::ErrorKind::kInvalidArgument) {
    return vlm::Error{
        vlm::ErrorKind::kInvalidArgument, record.source + " " + status.error().message, {}};
  }
  if (!status) output_broken_ = stopped_ = true;
  return status;
}

vlm::Status Run::commit(InputOutput& output) {
  const std::lock_guard lock(mutex_);
  vlm::Status status = output.commit();
  // A file of its own may fail alone.
  if (!status && output_->shared()) output_broken_ = stopped_ = true;
  return status;
}

std::string Run::take_trace() {
  const std::lock_guard lock(mutex_);
  return std::exchange(trace_, {});
}

/// The trace is of the first input that is described: this one was not, and the next may be.
void Run::pass_on_trace(const std::string& trace, const vlm::Error& error) {
  if (trace.empty() || is_of_trace(error, trace)) return;
  const std::lock_guard lock(mutex_);
  trace_ = trace;
}

/// One line for one failure. Where output can't be written, nothing more is tried.
void Run::fail(const vlm::Error& error) {
  progress_.clear();
  complain(error.message);
  if (!error.detail.empty()) progress_.say(error.detail);
  const std::lock_guard lock(mutex_);
  status_ = std::max(status_, kSomeFailed);
}

}  // namespace describe
