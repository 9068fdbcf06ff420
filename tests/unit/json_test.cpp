// SPDX-License-Identifier: LGPL-2.1-or-later
#include "base/json.h"

#include <gtest/gtest.h>

#include "checkpoint_writer.h"

namespace vlm {
namespace {

std::string complaint_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Failure& failure) {
    return failure.error().message;
  }
  return "";
}

std::string parse_complaint(const std::string& text) {
  return complaint_of([&] { parse_json(text, "some.json"); });
}

TEST(json, broken_text_names_file_and_place) {
  EXPECT_NE(
      parse_complaint("{\"a\": 1").find("some.json: is not valid JSON, broken at byte 8 of 7"),
      std::string::npos);
  EXPECT_NE(parse_complaint(""), "");
  EXPECT_NE(parse_complaint("{} {}"), "");
  EXPECT_NE(parse_complaint("\"\xFF\""), "");
  EXPECT_NE(parse_complaint("[1e999]"), "");
}

TEST(json, deep_nesting_is_refused_without_using_up_the_stack) {
  EXPECT_EQ(parse_complaint(std::string(64, '[') + std::string(64, ']')), "");
  EXPECT_NE(parse_complaint(std::string(65, '[') + std::string(65, ']')).find("nested deeper"),
            std::string::npos);
  EXPECT_NE(parse_complaint(std::string(3'000'000, '[')).find("nested deeper"), std::string::npos);
}

TEST(json, a_name_that_occurs_twice_is_refused) {
  EXPECT_NE(parse_complaint(R"({"a": 1, "b": 2, "a": 3})").find("\"a\" occurs twice"),
            std::string::npos);
  EXPECT_EQ(parse_complaint(R"({"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]})"), "");
}

TEST(json, whole_numbers_are_bounded) {
  EXPECT_EQ(whole_number(Json(7), 0, 7), 7);
  EXPECT_FALSE(whole_number(Json(8), 0, 7));
  EXPECT_FALSE(whole_number(Json(-1), 0, 7));
  EXPECT_FALSE(whole_number(Json(7.0), 0, 7));
  EXPECT_FALSE(whole_number(Json(true), 0, 7));
  EXPECT_FALSE(whole_number(Json(UINT64_MAX), -1, INT64_MAX));
}

TEST(json, a_wrong_value_names_file_key_expected_and_found) {
  const Json json = {{"inner", {{"size", "big"}, {"ratio", 2}, {"on", 1}, {"none", nullptr}}}};
  const JsonView view = *JsonView(json, "f.json").object("inner");
  EXPECT_EQ(complaint_of([&] { view.integer("size", 1, 0, 9); }),
            "f.json: inner.size is \"big\", but a whole number from 0 to 9 is expected");
  EXPECT_NE(complaint_of([&] { view.number("ratio", 0, 0, 1); }).find("inner.ratio is 2"),
            std::string::npos);
  EXPECT_NE(complaint_of([&] { view.boolean("on", false); }), "");
  EXPECT_NE(complaint_of([&] { view.string("on"); }), "");
  EXPECT_NE(complaint_of([&] { view.object("on"); }), "");
  EXPECT_EQ(view.integer("none", 5, 0, 9), 5);
  EXPECT_EQ(view.integer("absent", 6, 0, 9), 6);
}

TEST(json, files_are_bounded_and_must_be_files) {
  const test::TemporaryDirectory directory;
  directory.write("a.json", std::string("[1, 2]"));
  EXPECT_EQ(read_json_file(directory.file("a.json")).size(), 2u);
  EXPECT_NE(complaint_of([&] { read_json_file(directory.file("a.json"), 5); }), "");
  EXPECT_NE(complaint_of([&] { read_json_file(directory.file("b.json")); }).find("b.json"),
            std::string::npos);
  EXPECT_NE(complaint_of([&] { read_json_file(directory.path()); }).find("is not a file"),
            std::string::npos);
}

}  // namespace
}  // namespace vlm
