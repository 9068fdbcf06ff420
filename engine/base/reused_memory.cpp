// SPDX-License-Identifier: LGPL-2.1-or-later
#include "base/reused_memory.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <deque>
#include <iterator>
#include <unordered_map>
#include <utility>

#include "base/ceil_div.h"
#include "base/mutex.h"

namespace vlm {
namespace {

constexpr size_t kSmallest = size_t{64} << 10;
constexpr size_t kUnit = size_t{64} << 10;  // sizes are rounded up to
// A piece serves a tensor of so many eighths of its size at least.
constexpr size_t kEighths = 6;

thread_local int guards = 0;

struct Piece {
  c10::DataPtr memory;
  size_t bytes = 0;
};

// In front of libtorch's own allocator, for the whole process; never destroyed, since tensors may
// outlive every other object.
class Pool final : public c10::Allocator {
 public:
  static Pool& instance() {
    static Pool* pool = [] {
      auto* made = new Pool(c10::GetCPUAllocator());
      c10::SetCPUAllocator(made);
      return made;
    }();
    return *pool;
  }

  c10::DataPtr allocate(size_t bytes) override {
    if (guards == 0 || bytes < kSmallest) return base_->allocate(bytes);
    void* data = take(round_up(bytes, kUnit));
    return {data, data, give_back, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return give_back; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  size_t kept_bytes() {
    const MutexLock lock(mutex_);
    return kept_;
  }

  void let_go() {
    std::deque<Piece> pieces;  // freed behind the lock
    const MutexLock lock(mutex_);
    pieces.swap(pieces_);
    kept_ = 0;
  }

 private:
  explicit Pool(c10::Allocator* base) : base_(base) {}

  void* take(size_t bytes) {
    Piece piece = take_kept(bytes);
    if (piece.bytes == 0) piece = {base_->allocate(bytes), bytes};
    void* data = piece.memory.get();
    const MutexLock lock(mutex_);
    used_.emplace(data, std::move(piece));
    return data;
  }

  // The one that came back last, which caches still hold, among those of a fitting size; else none.
  Piece take_kept(size_t bytes) {
    const MutexLock lock(mutex_);
    const auto found = std::find_if(pieces_.rbegin(), pieces_.rend(), [&](const Piece& piece) {
      return piece.bytes >= bytes && piece.bytes / 8 * kEighths <= bytes;
    });
    if (found == pieces_.rend()) return {};
    Piece piece = std::move(*found);
    pieces_.erase(std::next(found).base());
    kept_ -= piece.bytes;
    return piece;
  }

  // Of memory that take() gave, or that libtorch asked the whole process's allocator for.
  static void give_back(void* data) {
    if (!instance().keep(data)) instance().base_->raw_deallocate(data);
  }

  bool keep(void* data) {
    std::deque<Piece> dropped;  // freed behind the lock
    const MutexLock lock(mutex_);
    const auto found = used_.find(data);
    if (found == used_.end()) return false;
    kept_ += found->second.bytes;
    pieces_.push_back(std::move(found->second));
    used_.erase(found);
    while (kept_ > ReusedMemory::kMostBytes) {
      kept_ -= pieces_.front().bytes;
      dropped.push_back(std::move(pieces_.front()));
      pieces_.pop_front();
    }
    return true;
  }

  c10::Allocator* base_;
  Mutex mutex_;
  size_t kept_ VLM_GUARDED_BY(mutex_) = 0;
  std::deque<Piece> pieces_ VLM_GUARDED_BY(mutex_);  // latest last
  std::unordered_map<void*, Piece> used_ VLM_GUARDED_BY(mutex_);
};

}  // namespace

ReusedMemory::ReusedMemory() {
  Pool::instance();
  ++guards;
}

ReusedMemory::~ReusedMemory() {
  --guards;
}

size_t ReusedMemory::kept_bytes() {
  return Pool::instance().kept_bytes();
}

void ReusedMemory::let_go() {
  Pool::instance().let_go();
}

}  // namespace vlm
