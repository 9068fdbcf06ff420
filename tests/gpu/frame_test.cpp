// SPDX-License-Identifier: LGPL-2.1-or-later
// The engine on a GPU describes a frame that lies there as it describes the same frame from the
// host's memory. Exits with 77, which means skipped, where there is no GPU.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <future>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "vlm/engine.h"

namespace vlm {
namespace {

/// The driver's calls that a decoder uses, on the primary context.
class Driver {
 public:
  Driver() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW);
    const auto find = [library]<typename Call>(Call& call, const char* name) {
      call = library == nullptr ? nullptr : reinterpret_cast<Call>(dlsym(library, name));
      return call != nullptr;
    };
    int (*init)(unsigned) = nullptr;
    int (*retain)(void**, int) = nullptr;
    int (*make_current)(void*) = nullptr;
    void* context = nullptr;
    ready_ = find(init, "cuInit") && find(retain, "cuDevicePrimaryCtxRetain") &&
             find(make_current, "cuCtxSetCurrent") && find(allocate_, "cuMemAlloc_v2") &&
             find(free_, "cuMemFree_v2") && find(copy_, "cuMemcpyHtoD_v2") && init(0) == 0 &&
             retain(&context, 0) == 0 && make_current(context) == 0;
  }

  bool ready() const { return ready_; }

  /// A copy of `bytes` on the GPU.
  std::shared_ptr<const void> upload(const std::vector<uint8_t>& bytes) const {
    unsigned long long at = 0;
    EXPECT_EQ(allocate_(&at, bytes.size()), 0);
    EXPECT_EQ(copy_(at, bytes.data(), bytes.size()), 0);
    return {reinterpret_cast<const void*>(at), [free = free_](const void* memory) {
              free(reinterpret_cast<unsigned long long>(memory));
            }};
  }

 private:
  bool ready_ = false;
  int (*allocate_)(unsigned long long*, size_t) = nullptr;
  int (*free_)(unsigned long long) = nullptr;
  int (*copy_)(unsigned long long, const void*, size_t) = nullptr;
};

const Driver& driver() {
  static const Driver opened;
  return opened;
}

Result<std::shared_ptr<Engine>> open_demo() {
  const char* source = std::getenv("VLM_SOURCE_DIR");
  ModelSpec spec;
  spec.model = std::string(source != nullptr ? source : ".") + "/examples/demo-model/model";
  spec.device = "cuda";
  spec.dtype = DType::kFloat32;
  return open_engine(spec);
}

std::shared_ptr<Engine> open_on_gpu() {
  auto engine = open_demo();
  EXPECT_TRUE(engine) << (engine ? "" : engine.error().message);
  return engine ? *engine : nullptr;
}

// A plain ground with a rectangle in another colour.
Frame host_frame(uint32_t seed) {
  std::mt19937 random(seed);
  const uint32_t ground = random(), figure = random();
  Frame frame{150, 110, {}};
  for (int y = 0; y < frame.height; ++y) {
    for (int x = 0; x < frame.width; ++x) {
      const uint32_t colour = x > 40 && x < 90 && y > 30 && y < 80 ? figure : ground;
      for (int c = 0; c < 3; ++c) frame.rgb.push_back(static_cast<uint8_t>(colour >> (8 * c)));
    }
  }
  return frame;
}

Frame gpu_frame(const Frame& frame) {
  GpuPicture picture;
  picture.layout.width = frame.width;
  picture.layout.height = frame.height;
  picture.layout.strides[0] = int64_t{frame.width} * 3;
  picture.owner = driver().upload(frame.rgb);
  picture.layout.planes[0] = static_cast<const uint8_t*>(picture.owner.get());
  return {frame.width, frame.height, {}, std::make_shared<GpuPicture>(picture)};
}

Result<Description> describe(Engine& engine, std::vector<Frame> frames) {
  Request request;
  request.frames = std::move(frames);
  request.prompt.turns = {{Turn::Role::kUser, "Describe the scene."}};
  std::promise<Result<Description>> answer;
  Callbacks callbacks;
  callbacks.done = [&answer](Result<Description> result) { answer.set_value(std::move(result)); };
  const auto id = engine.submit(std::move(request), callbacks);
  return id ? answer.get_future().get() : Result<Description>(id.error());
}

void expect_same(const Result<Description>& there, const Result<Description>& here) {
  ASSERT_TRUE(there) << there.error().message;
  ASSERT_TRUE(here) << here.error().message;
  EXPECT_EQ(there->token_ids, here->token_ids);
  EXPECT_EQ(there->logprobs, here->logprobs);
}

TEST(GpuFrame, is_described_as_from_the_host) {
  const auto engine = open_on_gpu();
  ASSERT_NE(engine, nullptr);
  for (uint32_t seed = 0; seed < 8; ++seed) {
    const Frame one = host_frame(seed), two = host_frame(seed + 100);
    expect_same(describe(*engine, {gpu_frame(one)}), describe(*engine, {one}));
    expect_same(describe(*engine, {gpu_frame(one), gpu_frame(two)}), describe(*engine, {one, two}));
    expect_same(describe(*engine, {one, gpu_frame(two)}), describe(*engine, {one, two}));
  }
}

TEST(GpuFrame, is_let_go_of) {
  const auto engine = open_on_gpu();
  ASSERT_NE(engine, nullptr);
  Frame frame = gpu_frame(host_frame(1));
  const std::weak_ptr<const GpuPicture> picture = frame.on_gpu;
  ASSERT_TRUE(describe(*engine, {std::move(frame)}));
  EXPECT_TRUE(picture.expired());
}

TEST(GpuFrame, of_another_gpu_is_refused) {
  const auto engine = open_on_gpu();
  ASSERT_NE(engine, nullptr);
  Frame frame = gpu_frame(host_frame(1));
  GpuPicture elsewhere = *frame.on_gpu;
  elsewhere.device = 7;
  frame.on_gpu = std::make_shared<GpuPicture>(elsewhere);
  const auto refused = describe(*engine, {std::move(frame)});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kInvalidArgument);
}

}  // namespace
}  // namespace vlm

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const auto probe = vlm::open_demo();
  if (!vlm::driver().ready() || (!probe && probe.error().kind == vlm::ErrorKind::kDevice)) {
    std::puts("no GPU, or no GPU module beside the test: skipped");
    return 77;
  }
  return RUN_ALL_TESTS();
}
