// SPDX-License-Identifier: LGPL-2.1-or-later
#include "registry.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace vlm {
namespace {

std::atomic<int> alive = 0;

class EmptyEngine : public Engine {
 public:
  EmptyEngine() { ++alive; }
  ~EmptyEngine() override {
    std::this_thread::sleep_for(closing_time);
    --alive;
  }
  const ModelInfo& info() const override { return info_; }
  Result<RequestId> submit(Request, Callbacks) override { return RequestId{1}; }
  void cancel(RequestId) override {}

  static inline std::chrono::milliseconds closing_time{0};

 private:
  ModelInfo info_;
};

EngineRegistry::Loader quick_loader(std::atomic<int>& loads) {
  return [&](const LoadProgress&) -> Result<std::unique_ptr<Engine>> {
    ++loads;
    return std::unique_ptr<Engine>(std::make_unique<EmptyEngine>());
  };
}

TEST(Registry, equal_keys_share_one_engine_while_it_lives) {
  EngineRegistry registry;
  std::atomic<int> loads = 0;
  const auto load = quick_loader(loads);
  {
    const auto first = registry.open("a", load, {}, {});
    const auto second = registry.open("a", load, {}, {});
    const auto other = registry.open("b", load, {}, {});
    ASSERT_TRUE(first && second && other);
    EXPECT_EQ(*first, *second);
    EXPECT_NE(*first, *other);
    EXPECT_EQ(loads, 2);
  }
  EXPECT_EQ(alive, 0);
  EXPECT_TRUE(registry.open("a", load, {}, {}));
  EXPECT_EQ(loads, 3);
}

TEST(Registry, many_threads_load_once_and_all_hear_the_progress) {
  EngineRegistry registry;
  std::atomic<int> loads = 0;
  std::atomic<int> told = 0;
  const EngineRegistry::Loader load =
      [&](const LoadProgress& progress) -> Result<std::unique_ptr<Engine>> {
    ++loads;
    for (int i = 0; i < 10; ++i) {
      progress(i / 10.0, "weights");
      std::this_thread::sleep_for(std::chrono::milliseconds(3));
    }
    return std::unique_ptr<Engine>(std::make_unique<EmptyEngine>());
  };
  std::vector<std::future<Result<std::shared_ptr<Engine>>>> openers;
  for (int i = 0; i < 6; ++i) {
    openers.push_back(std::async(std::launch::async, [&] {
      bool heard = false;
      auto engine = registry.open("a", load,
                                  [&](double, const std::string& what) {
                                    if (!heard && what == "weights") {
                                      heard = true;
                                      ++told;
                                    }
                                  },
                                  {});
      return engine;
    }));
  }
  std::vector<std::shared_ptr<Engine>> engines;
  for (auto& opener : openers) {
    const auto engine = opener.get();
    ASSERT_TRUE(engine);
    engines.push_back(*engine);
    EXPECT_EQ(engines.front(), engines.back());
  }
  EXPECT_EQ(loads, 1);
  EXPECT_EQ(told, 6);
}

TEST(Registry, a_failed_load_fails_those_who_wait_and_can_be_repeated) {
  EngineRegistry registry;
  std::atomic<int> loads = 0;
  const EngineRegistry::Loader fail = [&](const LoadProgress&) -> Result<std::unique_ptr<Engine>> {
    ++loads;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    throw std::runtime_error("no such weights");
  };
  auto first = std::async(std::launch::async, [&] { return registry.open("a", fail, {}, {}); });
  while (loads == 0) {
    std::this_thread::yield();
  }
  const auto second = registry.open("a", fail, {}, {});
  for (const auto& result : {first.get(), second}) {
    ASSERT_FALSE(result);
    EXPECT_NE(result.error().message.find("no such weights"), std::string::npos);
  }
  EXPECT_EQ(loads, 1);
  EXPECT_TRUE(registry.open("a", quick_loader(loads), {}, {}));
}

TEST(Registry, who_waits_can_give_up_and_who_is_left_loads_anew) {
  EngineRegistry registry;
  std::atomic<int> loads = 0;
  std::stop_source loader_stop;
  const EngineRegistry::Loader until_stopped =
      [&](const LoadProgress&) -> Result<std::unique_ptr<Engine>> {
    ++loads;
    while (!loader_stop.stop_requested()) {
      std::this_thread::yield();
    }
    return Error{ErrorKind::kCancelled, "cancelled", {}};
  };
  auto loader = std::async(std::launch::async, [&] {
    return registry.open("a", until_stopped, {}, loader_stop.get_token());
  });
  while (loads == 0) {
    std::this_thread::yield();
  }
  std::stop_source impatient_stop;
  auto impatient = std::async(std::launch::async, [&] {
    return registry.open("a", quick_loader(loads), {}, impatient_stop.get_token());
  });
  auto patient = std::async(std::launch::async,
                            [&] { return registry.open("a", quick_loader(loads), {}, {}); });
  impatient_stop.request_stop();
  const auto gave_up = impatient.get();
  ASSERT_FALSE(gave_up);
  EXPECT_EQ(gave_up.error().kind, ErrorKind::kCancelled);
  EXPECT_EQ(loads, 1);
  loader_stop.request_stop();
  EXPECT_EQ(loader.get().error().kind, ErrorKind::kCancelled);
  EXPECT_TRUE(patient.get());
  EXPECT_EQ(loads, 2);
}

TEST(Registry, an_engine_that_closes_is_waited_for) {
  EngineRegistry registry;
  std::atomic<int> loads = 0;
  EmptyEngine::closing_time = std::chrono::milliseconds(100);
  auto engine = registry.open("a", quick_loader(loads), {}, {});
  ASSERT_TRUE(engine);
  std::weak_ptr<Engine> watch = *engine;
  std::thread closer([&] { engine->reset(); });
  while (!watch.expired()) {
    std::this_thread::yield();
  }
  int alive_at_load = -1;
  const EngineRegistry::Loader load = [&](const LoadProgress&) -> Result<std::unique_ptr<Engine>> {
    alive_at_load = alive;
    return std::unique_ptr<Engine>(std::make_unique<EmptyEngine>());
  };
  EXPECT_TRUE(registry.open("a", load, {}, {}));
  EXPECT_EQ(alive_at_load, 0);
  closer.join();
  EmptyEngine::closing_time = std::chrono::milliseconds(0);
}

TEST(Registry, keys_see_through_spellings_of_a_path) {
  const std::string directory = std::filesystem::temp_directory_path().string();
  ModelSpec spec;
  spec.model = directory;
  const std::string key = engine_key(spec);
  spec.model = directory + "/./";
  EXPECT_EQ(engine_key(spec), key);
  spec.model = directory + "/../" + std::filesystem::path(directory).filename().string();
  EXPECT_EQ(engine_key(spec), key);
  spec.device = "cuda";
  const std::string cuda = engine_key(spec);
  EXPECT_NE(cuda, key);
  spec.device = "cuda:0";
  EXPECT_EQ(engine_key(spec), cuda);
  spec.dtype = DType::kBFloat16;
  EXPECT_NE(engine_key(spec), cuda);
  ModelSpec tower = {.model = directory, .vision_tower = "x"};
  ModelSpec base = {.model = directory, .model_base = "x"};
  EXPECT_NE(engine_key(tower), engine_key(base));
}

}  // namespace
}  // namespace vlm
