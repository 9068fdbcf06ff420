// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "vlm/error.h"
#include "vlm/types.h"

#define VLM_EXPORT __attribute__((visibility("default")))

namespace vlm {

/// One thing to describe: pictures, prompt, options.
struct Request {
  std::vector<Frame> frames;
  Prompt prompt;
  Options options;
  uint64_t stream = 0;     ///< requests of one stream are served in turn with those of the others
  uint64_t sequence = 0;   ///< number of this request under its seed: sampling depends on (seed,
                           ///< sequence, token) alone
  std::string trace_path;  ///< where set, this request's tensors are written there as safetensors
};

using RequestId = uint64_t;

/// Called on a thread of the engine; must only enqueue and return, and must not destroy the engine.
struct Callbacks {
  /// The text so far, as tokens arrive: whole UTF-8 characters only. May be empty. Never called for
  /// beams.
  std::function<void(const std::string& text)> partial;
  /// Exactly once for each accepted request, last. Cancelled requests end with what they have and
  /// finish reason `cancelled`, or with ErrorKind::kCancelled where nothing was generated yet.
  std::function<void(Result<Description>)> done;
};

/// What a loaded model is, for logs and for `model` in descriptions.
struct ModelInfo {
  std::string name;    ///< last component of the checkpoint's path
  std::string device;  ///< cpu, cuda:0, …
  DType dtype = DType::kFloat32;
  int64_t parameters = 0;
  int64_t weight_bytes = 0;    ///< as held in memory
  int64_t kv_cache_bytes = 0;  ///< as reserved
  int64_t context_length = 0;  ///< tokens
  int64_t picture_tokens = 0;  ///< of it that a picture takes at least; 0: not known, or a prompt
                               ///< that is too long is cut off
  int64_t vocab_size = 0;
  int64_t prompt_chunk = 0;  ///< as in ModelSpec
};

/// A loaded model with its own thread. Thread-safe. Destroying the last owner cancels what is
/// pending and joins the thread; it must not happen on one of the engine's own callbacks.
class Engine {
 public:
  virtual ~Engine() = default;

  virtual const ModelInfo& info() const = 0;

  /// Takes the request and returns at once; refusals (an option out of range, no user turn, a frame
  /// of zero size) come back here, everything later through `callbacks.done`.
  virtual Result<RequestId> submit(Request request, Callbacks callbacks) = 0;

  /// Ends a request at its next step. Unknown or finished ids are ignored.
  virtual void cancel(RequestId id) = 0;
};

/// Fraction done in [0, 1] and what is being done; called on the thread that loads, not the
/// caller's.
using LoadProgress = std::function<void(double fraction, const std::string& what)>;

/// Checks path, configuration and tensor headers without reading weights. Reentrant.
VLM_EXPORT Status check_model(const ModelSpec& spec);

/// Opens the model, or returns the engine that already holds an equal spec in this process. Blocks
/// while loading (call it on a worker); `stop` makes it give up between tensors with
/// ErrorKind::kCancelled. Thread-safe.
VLM_EXPORT Result<std::shared_ptr<Engine>> open_engine(const ModelSpec& spec,
                                                       LoadProgress progress = {},
                                                       std::stop_token stop = {});

/// Checks a prompt format's name and the options' ranges, as submit would. Reentrant.
VLM_EXPORT Status check_request(const Prompt& prompt, const Options& options);

/// Names accepted by Prompt::format. Reentrant.
VLM_EXPORT const std::vector<std::string>& prompt_formats();

/// The functions above as a table, for hosts that open the library at run time instead of linking
/// to it.
struct EngineApi {
  const char* version;
  Status (*check_model)(const ModelSpec& spec);
  Result<std::shared_ptr<Engine>> (*open_engine)(const ModelSpec& spec, LoadProgress progress,
                                                 std::stop_token stop);
  Status (*check_request)(const Prompt& prompt, const Options& options);
  const std::vector<std::string>& (*prompt_formats)();
};

/// Increases whenever a type in these headers changes.
inline constexpr uint32_t kEngineAbi = 6;

}  // namespace vlm

/// Null where `abi` is not the library's own vlm::kEngineAbi.
extern "C" VLM_EXPORT const vlm::EngineApi* vlm_engine_api(uint32_t abi);
