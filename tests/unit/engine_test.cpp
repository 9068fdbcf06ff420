// SPDX-License-Identifier: LGPL-2.1-or-later
// The library as a host sees it that opens it at run time.
#include "vlm/engine.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <future>
#include <string>
#include <vector>

namespace vlm {
namespace {

class EngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* path = std::getenv("VLM_ENGINE_LIBRARY");
    ASSERT_NE(path, nullptr) << "VLM_ENGINE_LIBRARY names the library";
    // Stays open: libtorch cannot be unloaded.
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(library, nullptr) << dlerror();
    entry_ = reinterpret_cast<decltype(&vlm_engine_api)>(dlsym(library, "vlm_engine_api"));
    ASSERT_NE(entry_, nullptr);
    api_ = entry_(kEngineAbi);
    ASSERT_NE(api_, nullptr);
  }

  std::string refusal(const Prompt& prompt, const Options& options = {}) const {
    const Status status = api_->check_request(prompt, options);
    return status ? "" : status.error().message;
  }

  decltype(&vlm_engine_api) entry_ = nullptr;
  const EngineApi* api_ = nullptr;
};

Prompt prompt(const std::string& format, const std::string& text) {
  return {format, {}, {{Turn::Role::kUser, text}}};
}

TEST_F(EngineTest, another_abi_gets_nothing) {
  EXPECT_EQ(entry_(kEngineAbi + 1), nullptr);
  EXPECT_EQ(entry_(0), nullptr);
  EXPECT_NE(api_->version, std::string());
}

TEST_F(EngineTest, formats_are_those_of_the_interfaces) {
  const std::vector<std::string>& formats = api_->prompt_formats();
  for (const char* name :
       {"auto", "hf", "raw", "vicuna_v1", "llava_v0", "llava_v1", "llava_llama_2",
        "mistral_instruct", "mistral_direct", "chatml_direct", "mpt", "plain"}) {
    EXPECT_EQ(std::count(formats.begin(), formats.end(), name), 1) << name;
    EXPECT_EQ(refusal(prompt(name, "What is this?")), "");
  }
}

TEST_F(EngineTest, requests_are_checked_without_a_model) {
  EXPECT_NE(refusal(prompt("latin", "What is this?")).find("prompt-format is \"latin\""),
            std::string::npos);
  EXPECT_NE(refusal(prompt("auto", "  ")).find("empty"), std::string::npos);
  EXPECT_EQ(refusal({}), "") << "options alone may be checked before there is a text";
  Options options;
  options.num_beams = 0;
  EXPECT_EQ(refusal({}, options), "num-beams is 0, but it must be at least 1");
}

TEST_F(EngineTest, a_missing_checkpoint_is_told_by_name) {
  ModelSpec spec;
  spec.model = "/no/such/checkpoint";
  const Status status = api_->check_model(spec);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().kind, ErrorKind::kNotFound);
  EXPECT_NE(status.error().message.find(spec.model), std::string::npos);
  // Again and together: a failure leaves nothing behind.
  std::vector<std::future<ErrorKind>> openers;
  for (int i = 0; i < 4; ++i) {
    openers.push_back(std::async(std::launch::async, [&] {
      const auto engine = api_->open_engine(spec, {}, {});
      return engine ? ErrorKind::kInternal : engine.error().kind;
    }));
  }
  for (auto& opener : openers) {
    EXPECT_EQ(opener.get(), ErrorKind::kNotFound);
  }
}

TEST_F(EngineTest, a_stop_request_cancels_the_opening) {
  std::stop_source stop;
  stop.request_stop();
  const auto engine = api_->open_engine({.model = "/no/such/checkpoint"}, {}, stop.get_token());
  ASSERT_FALSE(engine);
  EXPECT_EQ(engine.error().kind, ErrorKind::kCancelled);
}

}  // namespace
}  // namespace vlm
