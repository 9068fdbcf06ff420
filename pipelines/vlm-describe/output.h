// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "formatter.h"
#include "inputs.h"
#include "options.h"
#include "readfiles.h"
#include "record.h"
#include "vlm/error.h"

namespace describe {

/// Where bytes go. Errors are sentences that name it; ErrorKind::kCancelled where the user
/// interrupted while nobody took them. Thread-bound.
class Sink {
 public:
  virtual ~Sink() = default;
  /// A regular file keeps nothing of `bytes` that it could not take whole.
  virtual vlm::Status write(const std::string& bytes) = 0;
  /// Makes what was written appear. A sink that ends without it leaves nothing of its own behind,
  /// except what it had to write at once.
  virtual vlm::Status commit() = 0;
};

/// Appends to standard output or to a file that grows, and flushes each time. `anew`: a regular
/// file's content goes.
vlm::Result<std::unique_ptr<Sink>> open_growing(const std::string& path, bool anew = false);
/// Collects in a temporary file beside `path`, which commit() renames.
vlm::Result<std::unique_ptr<Sink>> open_whole(const std::string& path);

class Output;

/// The descriptions of one input. Dropped without commit(), a recording's leave nothing behind.
class InputOutput {
 public:
  vlm::Status add(const Record& record);
  vlm::Status commit();

 private:
  friend class Output;
  std::unique_ptr<Sink> own_;  // null: the shared one
  std::unique_ptr<Formatter> own_formatter_;
  Sink* sink_ = nullptr;
  Formatter* formatter_ = nullptr;
  bool hold_ = false;  // keep this input's bytes back until it is complete
  std::string held_;
};

/// Decides from the options where each input's descriptions go. Of it and all that it opens, one
/// call at a time.
class Output {
 public:
  /// `several`: more than one input was asked for. Fails (a matter of usage) where the options
  /// contradict each other or what is there, or where output would destroy one of `read`.
  static vlm::Result<std::unique_ptr<Output>> create(const Settings& settings, bool several,
                                                     const std::vector<Input>& inputs,
                                                     const ReadFiles& read);

  /// `live`: a source without an end, whose output grows as it comes.
  vlm::Result<std::unique_ptr<InputOutput>> open(const Input& input, bool live);

  /// Completes what the inputs share. Call it last.
  vlm::Status finish();

  Format format() const { return options_.format; }
  bool to_stdout() const { return path_.empty(); }
  /// All inputs go to one place.
  bool shared() const { return !one_for_each_; }

 private:
  static vlm::Result<std::unique_ptr<Output>> from_options(const Settings& settings, bool several);
  void name_files(const std::vector<Input>& inputs);
  std::string file_for(const Input& input);
  vlm::Status check_targets(const ReadFiles& read) const;
  vlm::Result<std::unique_ptr<InputOutput>> open_shared(bool live);
  vlm::Result<std::unique_ptr<Sink>> open_sink(const std::string& path, bool live) const;

  FormatOptions options_;
  std::string path_;                // empty: standard output
  bool one_for_each_ = false;       // path_ is a directory
  std::set<std::string> taken_;     // names given in the directory
  std::vector<std::string> files_;  // in the directory, by the input's number; empty: none
  std::unique_ptr<Sink> shared_;
  bool shared_grows_ = false;
  std::unique_ptr<Formatter> shared_formatter_;
};

}  // namespace describe
