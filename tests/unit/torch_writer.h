// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint_writer.h"

namespace vlm::test {

/// A tensor as a pickle describes it.
struct PickledView {
  std::string name;
  std::string type;  ///< FloatStorage …
  std::string storage;
  int64_t elements;
  int64_t offset;
  std::vector<int64_t> shape, strides;
};

inline std::string pickled(int64_t number) {
  return std::string("\x8a\x08") + little_endian(static_cast<uint64_t>(number), 8);
}

inline std::string pickled(const std::string& text) {
  return std::string("X") + little_endian(text.size(), 4) + text;
}

inline std::string pickled(const std::vector<int64_t>& numbers) {
  std::string text = "(";
  for (const int64_t number : numbers) text += pickled(number);
  return text + "t";
}

/// The pickle of a state dict, as torch.save writes it.
inline std::string state_dict(const std::vector<PickledView>& views) {
  std::string text = "\x80\x02}(";
  for (const PickledView& view : views) {
    text += pickled(view.name) + "ctorch._utils\n_rebuild_tensor_v2\n((" +
            pickled(std::string("storage")) + "ctorch\n" + view.type + "\n" +
            pickled(view.storage) + pickled(std::string("cpu")) + pickled(view.elements) + "tQ" +
            pickled(view.offset) + pickled(view.shape) + pickled(view.strides) +
            "\x89"
            "ccollections\nOrderedDict\n)RtR";
  }
  return text + "u.";
}

inline uint32_t crc32(const std::string& data) {
  uint32_t sum = 0xFFFFFFFFu;
  for (const char c : data) {
    sum ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) sum = sum >> 1 ^ (sum & 1 ? 0xEDB88320u : 0u);
  }
  return sum ^ 0xFFFFFFFFu;
}

/// A stored archive of these records, with the 64-bit directory that torch.save writes.
inline std::string stored_archive(const std::vector<std::pair<std::string, std::string>>& records) {
  std::string file, directory;
  for (const auto& [name, data] : records) {
    const std::string sizes = little_endian(crc32(data), 4) + little_endian(data.size(), 4) +
                              little_endian(data.size(), 4) + little_endian(name.size(), 2);
    const std::string versions = little_endian(0x0800, 2) + std::string(6, '\0');
    directory += "PK\x01\x02" + std::string(4, '\0') + versions + sizes + std::string(12, '\0') +
                 little_endian(file.size(), 4) + name;
    const std::string padding(63 - (file.size() + 30 + name.size() + 4 + 63) % 64, 'Z');
    file += "PK\x03\x04" + std::string(2, '\0') + versions + sizes +
            little_endian(padding.size() + 4, 2) + name + "FB" + little_endian(padding.size(), 2) +
            padding + data;
  }
  const uint64_t offset = file.size(), end = offset + directory.size();
  const std::string count = little_endian(records.size(), 8);
  return file + directory + "PK\x06\x06" + little_endian(44, 8) + std::string(12, '\0') + count +
         count + little_endian(directory.size(), 8) + little_endian(offset, 8) + "PK\x06\x07" +
         std::string(4, '\0') + little_endian(end, 8) + little_endian(1, 4) + "PK\x05\x06" +
         std::string(4, '\0') + little_endian(records.size(), 2) +
         little_endian(records.size(), 2) + little_endian(directory.size(), 4) +
         little_endian(offset, 4) + std::string(2, '\0');
}

/// A file of torch.save with this pickle and these storages by key.
inline std::string torch_archive(const std::string& pickle,
                                 const std::vector<std::pair<std::string, std::string>>& storages,
                                 const std::string& pickle_name = "data.pkl") {
  std::vector<std::pair<std::string, std::string>> records = {{"x/" + pickle_name, pickle},
                                                              {"x/byteorder", "little"}};
  for (const auto& [key, data] : storages) records.emplace_back("x/data/" + key, data);
  records.emplace_back("x/version", "3\n");
  return stored_archive(records);
}

}  // namespace vlm::test
