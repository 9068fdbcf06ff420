// SPDX-License-Identifier: LGPL-2.1-or-later
#include "loader/tensor_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/ceil_div.h"
#include "base/failure.h"

namespace vlm {

MappedFile::MappedFile(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat info;
  if (fd < 0 || ::fstat(fd, &info) != 0) {
    const int error = errno;
    if (fd >= 0) ::close(fd);
    throw Failure(ErrorKind::kNotFound, path + ": cannot be read: " + std::strerror(error) +
                                            "; check its permissions, or fetch it again");
  }
  size_ = S_ISREG(info.st_mode) ? static_cast<size_t>(info.st_size) : 0;
  if (size_ > 0) {
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    if (address != MAP_FAILED) data_ = static_cast<const std::byte*>(address);
  }
  const int error = errno;
  ::close(fd);
  if (size_ > 0 && !data_) {
    throw Failure(ErrorKind::kNotFound, path + ": cannot be mapped: " + std::strerror(error));
  }
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::let_go(const std::byte* begin, size_t bytes) const {
  // Elsewhere it would not drop a copy but the only one.
  if (begin < data_ || bytes > size_ || begin > data_ + (size_ - bytes)) return;
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t first = round_up(address, page);
  const uintptr_t last = (address + bytes) / page * page;
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

std::string shown_name(std::string_view name) {
  constexpr size_t kLongest = 200;
  std::string shown(name.substr(0, kLongest));
  std::replace_if(
      shown.begin(), shown.end(), [](char c) { return c < 0x21 || c > 0x7E; }, '?');
  return name.size() > kLongest ? shown + "…" : shown;
}

uint64_t element_bits(const std::string& dtype) {
  static constexpr std::pair<std::string_view, uint64_t> kBits[] = {
      {"F64", 64},    {"I64", 64},    {"U64", 64}, {"F32", 32},    {"I32", 32},
      {"U32", 32},    {"F16", 16},    {"I16", 16}, {"U16", 16},    {"BF16", 16},
      {"I8", 8},      {"U8", 8},      {"BOOL", 8}, {"C64", 64},    {"F8_E4M3", 8},
      {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6}};
  for (const auto& [name, bits] : kBits) {
    if (dtype == name) return bits;
  }
  return 0;
}

}  // namespace vlm
