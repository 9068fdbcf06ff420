// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "interrupt.h"
#include "output.h"

namespace describe {

namespace {

vlm::Error io_error(const std::string& doing, const std::string& name, int error) {
  return {vlm::ErrorKind::kIo, doing + " " + name + " failed: " + strerror(error), {}};
}

std::string in_quotes(const std::string& path) {
  return "\"" + path + "\"";
}

/// Waits until a descriptor that does not block takes bytes again. A reader that still reads gets
/// the end after an interruption, too; one that does not is not waited for: false.
bool wait_for_room(int fd) {
  constexpr int kStepMs = 100;
  pollfd waiting = {fd, POLLOUT, 0};
  for (int patience = 10; patience > 0; patience -= interrupted() ? 1 : 0) {
    if (poll(&waiting, 1, kStepMs) > 0) return true;
  }
  return false;
}

/// Cuts the last `bytes` off a regular file, so that no half record stays in it; not where another
/// program wrote behind them by a descriptor of its own.
void take_back(int fd, size_t bytes) {
  struct stat info = {};
  const off_t end = lseek(fd, 0, SEEK_CUR);
  if (bytes == 0 || fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size != end) return;
  const off_t begin = end - static_cast<off_t>(bytes);
  if (ftruncate(fd, begin) == 0) lseek(fd, begin, SEEK_SET);
}

/// All of `bytes`, or where it can be helped nothing of them.
vlm::Status write_all(int fd, const std::string& bytes, const std::string& name) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t wrote = write(fd, bytes.data() + done, bytes.size() - done);
    if (wrote >= 0) {
      done += static_cast<size_t>(wrote);
      continue;
    }
    const int error = errno;
    if (error == EINTR) continue;
    if (error != EAGAIN) {
      take_back(fd, done);
      return io_error("writing to", name, error);
    }
    if (!wait_for_room(fd)) {
      return vlm::Error{vlm::ErrorKind::kCancelled, "interrupted while writing to " + name, {}};
    }
  }
  return vlm::ok_status();
}

class GrowingSink : public Sink {
 public:
  GrowingSink(int fd, bool owned, std::string name)
      : fd_(fd), owned_(owned), name_(std::move(name)) {}
  ~GrowingSink() override {
    if (owned_) close(fd_);
  }
  vlm::Status write(const std::string& bytes) override { return write_all(fd_, bytes, name_); }
  vlm::Status commit() override { return vlm::ok_status(); }

 private:
  int fd_;
  bool owned_;
  std::string name_;
};

/// Without a name until commit() where the file system can do that, so that not even a killed
/// process leaves anything behind; else under a temporary name.
class WholeSink : public Sink {
 public:
  WholeSink(int fd, std::string temporary, bool named, std::string path)
      : fd_(fd), temporary_(std::move(temporary)), named_(named), path_(std::move(path)) {}
  ~WholeSink() override {
    if (fd_ >= 0) close(fd_);
    if (named_) unlink(temporary_.c_str());
  }
  vlm::Status write(const std::string& bytes) override {
    return write_all(fd_, bytes, in_quotes(path_));
  }
  vlm::Status commit() override {
    if ((fsync(fd_) != 0 && errno != EINVAL) || !give_name() || !close_file() ||
        rename(temporary_.c_str(), path_.c_str()) != 0) {
      return io_error("writing to", in_quotes(path_), errno);
    }
    named_ = false;
    return vlm::ok_status();
  }

 private:
  bool give_name() {
    if (named_) return true;
    const std::string self = "/proc/self/fd/" + std::to_string(fd_);
    unlink(temporary_.c_str());
    named_ = linkat(AT_FDCWD, self.c_str(), AT_FDCWD, temporary_.c_str(), AT_SYMLINK_FOLLOW) == 0;
    return named_;
  }
  bool close_file() { return close(std::exchange(fd_, -1)) == 0; }

  int fd_;
  std::string temporary_;
  bool named_;
  std::string path_;
};

/// What a rename must replace: the file behind symbolic links.
std::string resolved(const std::string& path) {
  char* real = realpath(path.c_str(), nullptr);
  std::string result = real != nullptr ? real : path;
  std::free(real);
  return result;
}

mode_t file_mode(const std::string& path) {
  struct stat info = {};
  if (stat(path.c_str(), &info) == 0) return info.st_mode & 07777;
  const mode_t mask = umask(0);
  umask(mask);
  return 0666 & ~mask;
}

}  // namespace

vlm::Result<std::unique_ptr<Sink>> open_growing(const std::string& path, bool anew) {
  if (path.empty()) {
    return std::unique_ptr<Sink>(new GrowingSink(STDOUT_FILENO, false, "standard output"));
  }
  const int fd =
      open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (anew ? O_TRUNC : 0), 0666);
  if (fd < 0) return io_error("opening", in_quotes(path), errno);
  return std::unique_ptr<Sink>(new GrowingSink(fd, true, in_quotes(path)));
}

vlm::Result<std::unique_ptr<Sink>> open_whole(const std::string& given) {
  const std::string path = resolved(given);
  struct stat info = {};
  if (stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) return open_growing(given);
  const std::filesystem::path target(path);
  const std::filesystem::path folder =
      target.has_parent_path() ? target.parent_path() : std::filesystem::path(".");
  // The temporary name must fit where the target's own does.
  const std::string stem = target.filename().string().substr(0, NAME_MAX - 24);
  std::string temporary = (folder / ("." + stem + "." + std::to_string(getpid()))).string();
  const mode_t mode = file_mode(path);
  int fd = open(folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, mode);
  const bool named = fd < 0;
  if (named) {
    temporary += ".XXXXXX";
    fd = mkostemp(temporary.data(), O_CLOEXEC);
  }
  if (fd < 0) return io_error("creating", in_quotes(given), errno);
  // Where the mode can't be set, the file keeps a narrower one.
  [[maybe_unused]] const int ignored = fchmod(fd, mode);
  return std::unique_ptr<Sink>(new WholeSink(fd, temporary, named, path));
}

}  // namespace describe
