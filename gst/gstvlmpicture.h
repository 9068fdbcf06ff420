// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// A frame on its way from the streaming thread, which must not spend time on it, to the thread that
// converts it.

#include <memory>

#include "gstvlmframe.h"
#include "gstvlmpool.h"

namespace gstvlm {

/// A frame as it came, and once it is converted its picture instead. It is kept in the format in
/// which it came, not scaled down: the model's own preprocessing starts from the whole picture, and
/// another scaling before it would change what the model sees. Thread-safe.
class Picture {
 public:
  /// Shares `buffer`; `look` is what it is to be looked at with.
  Picture(GstBuffer* buffer, std::shared_ptr<const Look> look);

  /// ErrorKind::kInvalidArgument for a buffer that is too small for its format. Maps nothing.
  vlm::Status check() const;

  /// Before it is kept until the next frame comes: where a pool could run dry without it, the bytes
  /// are copied and the buffer is given back.
  void keep_until_next();

  /// Before it is kept until the model is to have it: the bytes are copied (a few hundred
  /// microseconds in 1080p) and the buffer is given back. A decoder that misses one makes itself
  /// one more, and from then on writes to more memory than the caches hold: one copy for each
  /// window costs less.
  void keep(Copies& copies);

  /// Gives the buffer back now.
  void give_back();

  /// Converts where that has not been done; later calls return the same, which must not be changed
  /// while this object lives. The buffer is given back. One thread at a time.
  vlm::Result<std::shared_ptr<vlm::Frame>> convert(FrameConverter& converter);

  const std::shared_ptr<const Look>& look() const { return look_; }

 private:
  BufferPtr borrowed() const;
  void replace(BufferPtr copy);

  const std::shared_ptr<const Look> look_;
  mutable Mutex mutex_;
  BufferPtr buffer_ GSTVLM_GUARDED_BY(mutex_);
  bool own_ GSTVLM_GUARDED_BY(mutex_) = false;  // buffer_ is a copy
  std::shared_ptr<vlm::Frame> frame_ GSTVLM_GUARDED_BY(mutex_);
};

}  // namespace gstvlm
