// SPDX-License-Identifier: LGPL-2.1-or-later
#include "base/huge_memory.h"

#include <ATen/ops/from_blob.h>
#include <c10/core/ScalarType.h>
#include <sys/mman.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <utility>

#include "base/ceil_div.h"

namespace vlm {
namespace {

constexpr size_t kPage = size_t{2} << 20;
constexpr size_t kBlock = size_t{64} << 20;  // only pages that are written to take memory
constexpr size_t kLine = 64;

}  // namespace

class HugeMemory::Block {
 public:
  explicit Block(size_t bytes) : bytes_(bytes), mapped_(bytes + kPage) {
    start_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
#ifdef MADV_HUGEPAGE
    if (there()) madvise(data(), bytes_, MADV_HUGEPAGE);
#endif
  }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block() {
    if (there()) munmap(start_, mapped_);
  }

  bool there() const {
    return start_ != MAP_FAILED;
  }
  std::byte* data() const {
    return reinterpret_cast<std::byte*>(round_up(reinterpret_cast<size_t>(start_), kPage));
  }
  size_t bytes() const {
    return bytes_;
  }

 private:
  size_t bytes_, mapped_;
  void* start_;
};

bool HugeMemory::available() {
  static const bool there = [] {
    const std::string directory = "/sys/kernel/mm/transparent_hugepage/";
    std::ifstream enabled(directory + "enabled"), size(directory + "hpage_pmd_size");
    std::string modes;
    std::getline(enabled, modes);
    size_t bytes = 0;
    size >> bytes;
    const bool asked =
        modes.find("[always]") != std::string::npos || modes.find("[madvise]") != std::string::npos;
    return asked && bytes > 0 && bytes <= kPage;  // half a gigabyte on some Arm kernels
  }();
  return there;
}

void HugeMemory::let_go(void* block) {
  delete static_cast<std::shared_ptr<Block>*>(block);
}

bool HugeMemory::holds(const at::Tensor& tensor) {
  return tensor.storage().data_ptr().get_deleter() == let_go;
}

at::Tensor HugeMemory::take(at::IntArrayRef sizes, at::ScalarType type) {
  size_t bytes = c10::elementSize(type);
  for (const int64_t size : sizes) bytes *= static_cast<size_t>(size);
  if (block_ == nullptr || used_ + bytes > block_->bytes()) {
    auto next = std::make_shared<Block>(std::max(kBlock, round_up(bytes, kPage)));
    if (!next->there()) return {};
    block_ = std::move(next);
    used_ = 0;
  }
  std::byte* data = block_->data() + used_;
  used_ += round_up(bytes, kLine);
  return at::for_blob(data, sizes)
      .context(new std::shared_ptr<Block>(block_), let_go)
      .options(at::TensorOptions().dtype(type))
      .make_tensor();
}

}  // namespace vlm
