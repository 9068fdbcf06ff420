// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmfeeder.h"

namespace gstvlm {

void Feeder::start() {
  join();
  converter_.reset();
  thread_ = std::thread([this] {
    const bool ended = guarded(shared_.element, false, [this] {
      run();
      return true;
    });
    if (!ended) {
      shared_.dispatcher.fail();
      shared_.held.resolve_all();
    }
  });
}

void Feeder::join() {
  if (thread_.joinable()) {
    thread_.join();
  }
}

void Feeder::run() {
  while (std::optional<Work> work = shared_.dispatcher.take()) {
    if (const vlm::Status ready = prepare(*work); !ready) {
      shared_.dispatcher.fail_window(work->token, ready.error());
      continue;
    }
    shared_.dispatcher.submit(std::move(*work));
  }
}

vlm::Status Feeder::prepare(Work& work) {
  for (std::shared_ptr<Picture>& picture : work.pictures) {
    vlm::Result<std::shared_ptr<vlm::Frame>> frame =
        picture->convert(converter_for(picture->look()));
    if (!frame) {
      return frame.error();
    }
    picture.reset();
    // Of a frame that nobody else may want the pixels are moved.
    if (frame->use_count() == 1) {
      work.request.frames.push_back(std::move(**frame));
    } else {
      work.request.frames.push_back(**frame);
    }
  }
  const std::string trace = shared_.all_settings().trace;
  if (!trace.empty() && !shared_.traced.exchange(true)) {
    work.request.trace_path = trace;
  }
  return vlm::ok_status();
}

FrameConverter& Feeder::converter_for(const std::shared_ptr<const Look>& look) {
  if (converter_ == nullptr || look != converter_look_) {
    // Whoever takes work has an engine, and it stays for as long as this thread runs.
    const std::shared_ptr<vlm::Engine> engine = shared_.dispatcher.engine();
    converter_ = std::make_unique<FrameConverter>(
        *look, engine == nullptr ? std::string() : engine->info().device);
    converter_look_ = look;
  }
  return *converter_;
}

}  // namespace gstvlm
