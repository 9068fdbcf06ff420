// SPDX-License-Identifier: LGPL-2.1-or-later
// The engine without GStreamer: describes one picture in the binary PPM format.
//
//   engine_only MODEL PICTURE.ppm [PROMPT]

#include <fstream>
#include <future>
#include <iostream>
#include <string>

#include "vlm/engine.h"

namespace {

/// A plain reader, enough for an example: 8-bit P6 without comments. Empty where it is another
/// file.
vlm::Frame read_ppm(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  int max = 0;
  vlm::Frame frame;
  file >> magic >> frame.width >> frame.height >> max;
  file.get();
  const bool good = magic == "P6" && max == 255 && frame.width > 0 && frame.height > 0 &&
                    frame.width < 65536 && frame.height < 65536;
  if (!file || !good) return {};
  frame.rgb.resize(static_cast<size_t>(frame.width) * frame.height * 3);
  file.read(reinterpret_cast<char*>(frame.rgb.data()),
            static_cast<std::streamsize>(frame.rgb.size()));
  return file ? frame : vlm::Frame{};
}

int fail(const std::string& message) {
  std::cerr << message << "\n";
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: engine_only MODEL PICTURE.ppm [PROMPT]\n";
    return 2;
  }
  vlm::Request request;
  request.frames.push_back(read_ppm(argv[2]));
  if (request.frames[0].rgb.empty()) return fail(std::string(argv[2]) + " is no 8-bit PPM picture");
  request.prompt.turns = {{vlm::Turn::Role::kUser, argc > 3 ? argv[3] : "Describe the scene."}};

  vlm::ModelSpec spec;
  spec.model = argv[1];
  vlm::Result<std::shared_ptr<vlm::Engine>> engine = vlm::open_engine(spec);
  if (!engine) return fail(engine.error().message);

  // Results come on a thread of the engine, which must not be held up: pass them on.
  auto answer = std::make_shared<std::promise<vlm::Result<vlm::Description>>>();
  vlm::Callbacks callbacks;
  callbacks.done = [answer](auto result) { answer->set_value(std::move(result)); };
  const vlm::Result<vlm::RequestId> id = (*engine)->submit(std::move(request), callbacks);
  if (!id) return fail(id.error().message);
  const vlm::Result<vlm::Description> description = answer->get_future().get();
  if (!description) return fail(description.error().message);
  std::cout << description->text << "\n";
  return 0;
}
