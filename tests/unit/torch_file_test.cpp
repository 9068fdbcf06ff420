// SPDX-License-Identifier: LGPL-2.1-or-later
#include "loader/torch_file.h"

#include <gtest/gtest.h>

#include <random>

#include "base/failure.h"
#include "checkpoint_writer.h"
#include "loader/pickle.h"
#include "torch_writer.h"

namespace vlm {
namespace {

using test::little_endian;
using test::PickledView;
using test::state_dict;
using test::TemporaryDirectory;
using test::torch_archive;

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

/// What of a file must be the same for it to hold the same tensors.
std::string summary(const TensorFile& file) {
  std::string text;
  for (const TensorEntry& entry : file.entries) {
    text += entry.name + " " + entry.dtype;
    for (const int64_t side : entry.shape) text.append(" ").append(std::to_string(side));
    text += ":";
    text.append(reinterpret_cast<const char*>(entry.data), entry.bytes).append("\n");
  }
  return text;
}

/// The tensors of a file with these bytes, or what is wrong with it.
Result<std::string> read(const std::string& bytes) {
  const TemporaryDirectory directory;
  directory.write("x.bin", bytes);
  return as_result([&] { return summary(map_torch_file(directory.file("x.bin"))); });
}

std::string complaint(const std::string& bytes) {
  const auto result = read(bytes);
  return result ? "" : result.error().message;
}

std::string pickle_complaint(const std::string& pickle) {
  const auto result = as_result([&] { return read_state_dict(pickle, "x.bin"); });
  return result ? "" : result.error().message;
}

/// An archive of one float32 storage of four elements, with one tensor that sees it so.
std::string one_view(const PickledView& view, const std::string& storage = std::string(16, 'x')) {
  return torch_archive(state_dict({view}), {{"0", storage}});
}

std::string small_archive() {
  return torch_archive(
      state_dict({{"a", "FloatStorage", "0", 4, 0, {2, 2}, {2, 1}},
                  {"b", "FloatStorage", "0", 4, 1, {3}, {1}},
                  {"t", "HalfStorage", "1", 6, 0, {3, 2}, {1, 3}}}),
      {{"0", std::string("0000111122223333")}, {"1", std::string("aabbccddeeff")}});
}

TEST(torch_file, tensors_are_views_of_storages_that_they_may_share) {
  const auto text = read(small_archive());
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_EQ(*text,
            "a F32 2 2:0000111122223333\n"
            "b F32 3:111122223333\n"
            "t F16 3 2:aaddbbeeccff\n");
}

TEST(torch_file, every_truncation_is_refused) {
  const std::string whole = small_archive();
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_NE(complaint(whole.substr(0, size)), "") << size;
  }
}

TEST(torch_file, a_flipped_byte_outside_of_tensors_is_refused_or_changes_nothing) {
  const std::string whole = small_archive();
  const std::string expected = *read(whole);
  std::vector<std::pair<size_t, size_t>> tensors;
  for (const char* data : {"0000111122223333", "aabbccddeeff"}) {
    tensors.emplace_back(whole.find(data), std::string(data).size());
  }
  std::mt19937 random(7);
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string bent = whole;
    bent[at] = static_cast<char>(bent[at] ^ (1 << random() % 8));
    const auto result = read(bent);
    bool in_tensor = false;
    for (const auto& [begin, size] : tensors) in_tensor |= at >= begin && at < begin + size;
    if (result && !in_tensor) {
      EXPECT_EQ(*result, expected) << "byte " << at;
    }
  }
}

// Without a checksum in the way, whatever the pickle says: an error or tensors inside the file.
TEST(torch_file, random_pickles_never_leave_the_file) {
  const std::string pickle = state_dict({{"a", "FloatStorage", "0", 4, 0, {2, 2}, {2, 1}},
                                         {"t", "FloatStorage", "0", 4, 0, {2, 2}, {1, 2}}});
  std::mt19937 random(11);
  for (int round = 0; round < 2000; ++round) {
    std::string bent = pickle;
    for (unsigned changes = 1 + random() % 4; changes > 0; --changes) {
      bent[random() % bent.size()] = static_cast<char>(random());
    }
    complaint(torch_archive(bent, {{"0", std::string(16, 'x')}}));
    pickle_complaint(bent.substr(0, random() % bent.size()));
  }
}

TEST(torch_file, other_kinds_of_file_are_refused_with_the_cure) {
  EXPECT_HAS(complaint(std::string("\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19.", 15)),
             "torch before 1.6");
  EXPECT_HAS(complaint("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull");
  EXPECT_HAS(complaint("{}"), "is no file of torch.save");
  EXPECT_HAS(complaint(""), "is no file of torch.save");
  EXPECT_HAS(complaint(torch_archive("x", {}, "model.json")), "without data.pkl");
}

TEST(torch_file, names_that_a_state_dict_does_not_need_are_refused_by_name) {
  const std::string call =
      "\x80\x02"
      "cos\nsystem\nX" +
      little_endian(4, 4) + "true\x85R.";
  EXPECT_HAS(pickle_complaint(call), "asks for os.system");
  EXPECT_HAS(pickle_complaint("\x80\x04\x8c\x08"
                              "builtins\x8c\x04"
                              "eval\x93."),
             "builtins.eval");
  EXPECT_HAS(pickle_complaint("\x80\x02"
                              "ctorch\nload\n."),
             "torch.load");
  EXPECT_HAS(pickle_complaint("\x80\x02i__main__\nX\n."), "operation 105");
  EXPECT_HAS(pickle_complaint("\x80\x01."), "protocol 1");
}

TEST(torch_file, entries_that_are_no_tensors_are_refused_by_name) {
  EXPECT_HAS(pickle_complaint("\x80\x02}X" + little_endian(5, 4) + "epochK\x03s."), "entry epoch");
  EXPECT_HAS(pickle_complaint("\x80\x02]."), "no state dict");
}

TEST(torch_file, nesting_and_memo_do_not_exhaust_anything) {
  const std::string deep(1'000'000, ')');
  std::string nested = "\x80\x02)" + std::string(1'000'000, '\x85') + ".";
  EXPECT_HAS(pickle_complaint(nested), "no state dict");
  EXPECT_HAS(pickle_complaint("\x80\x02" + deep + "."), "no state dict");
  EXPECT_HAS(pickle_complaint("\x80\x02" + std::string(1'000'000, '(') + "."), "damaged");
  EXPECT_HAS(pickle_complaint("\x80\x02}r\xff\xff\xff\xffj\xff\xff\xff\xfe."), "damaged");
  // A list in itself.
  EXPECT_HAS(pickle_complaint(std::string("\x80\x02]q\0h\0a.", 9)), "no state dict");
}

TEST(torch_file, views_that_leave_their_storage_are_refused) {
  const auto view = [](int64_t offset, std::vector<int64_t> shape, std::vector<int64_t> strides) {
    return one_view({"a", "FloatStorage", "0", 4, offset, std::move(shape), std::move(strides)});
  };
  EXPECT_EQ(complaint(view(0, {4}, {1})), "");
  EXPECT_EQ(complaint(view(9, {0, 5}, {7, 1})), "");  // empty: nothing is read
  const int64_t huge = int64_t{1} << 62;
  for (const auto& bytes :
       {view(1, {4}, {1}), view(0, {5}, {1}), view(-1, {1}, {1}), view(0, {-4}, {1}),
        view(0, {2}, {4}), view(0, {2}, {-1}), view(0, {huge, huge}, {1, 1}),
        view(huge, {huge}, {4}), view(0, {8}, {0}), view(0, {2, huge}, {huge, 1})}) {
    EXPECT_HAS(complaint(bytes), "tensor a leaves its storage");
  }
}

TEST(torch_file, views_in_another_order_are_not_copied_without_end) {
  std::vector<PickledView> views;
  for (int i = 0; i < 100; ++i) {
    const std::string name = std::string("t").append(std::to_string(i));
    views.push_back({name, "FloatStorage", "0", 1024, 0, {32, 32}, {1, 32}});
  }
  const std::vector<std::pair<std::string, std::string>> data = {{"0", std::string(4096, 'x')}};
  EXPECT_HAS(complaint(torch_archive(state_dict(views), data)), "too many in another order");
  views.resize(2);
  EXPECT_EQ(complaint(torch_archive(state_dict(views), data)), "");
}

TEST(torch_file, names_are_shown_in_one_printable_line) {
  const auto view = [](const std::string& name, const std::string& storage) {
    return one_view({name, "FloatStorage", storage, 5, 0, {5}, {1}});
  };
  EXPECT_HAS(complaint(view("a\n\x80z", "0")), "tensor a??z needs");
  EXPECT_HAS(complaint(view("a", "\xff")), "storage ?,");
  EXPECT_LT(complaint(view(std::string(100'000, 'n'), "0")).size(), 500U);
}

TEST(torch_file, storages_that_lie_about_their_size_are_refused) {
  EXPECT_HAS(complaint(one_view({"a", "FloatStorage", "0", 5, 0, {5}, {1}})), "has 16 bytes");
  EXPECT_HAS(complaint(one_view({"a", "FloatStorage", "0", -4, 0, {1}, {1}})), "has 16 bytes");
  EXPECT_HAS(complaint(one_view({"a", "HalfStorage", "0", 4, 0, {4}, {1}})), "has 16 bytes");
  EXPECT_HAS(complaint(one_view({"a", "FloatStorage", "7", 4, 0, {4}, {1}})), "storage 7");
  EXPECT_HAS(complaint(one_view({"a", "FloatStorage", "../0", 4, 0, {4}, {1}})), "storage ../0");
}

}  // namespace
}  // namespace vlm
