// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "loader/tensor_file.h"

namespace vlm {

/// One record of an archive, as it lies in the mapped file.
struct ZipRecord {
  const std::byte* data = nullptr;
  size_t bytes = 0;
  uint32_t crc = 0;  ///< of the data, as the archive says; not checked
};

/// The records of an untrusted archive by name, of the kind that torch.save writes: stored, not
/// compressed, one disk, no comment, also beyond 4 GiB. No record leaves the file or overlaps
/// another. Throws Failure naming `path`.
std::map<std::string, ZipRecord, std::less<>> read_zip(const MappedFile& file,
                                                       const std::string& path);

/// Whether the record's data have the checksum that the archive says. Reads all of them.
bool checksum_holds(const ZipRecord& record);

}  // namespace vlm
