// SPDX-License-Identifier: LGPL-2.1-or-later
#include "inputs.h"

#include <fcntl.h>
#include <glib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>
#include <system_error>

#include "picture/picture.h"

namespace describe {

namespace {

namespace fs = std::filesystem;

constexpr unsigned kVideo4LinuxMajor = 81;

constexpr std::array<std::string_view, 13> kPictureEndings = {
    "jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp", "pbm", "pgm", "ppm", "pnm"};

/// Pictures that are not read: named in the error instead of being tried as video.
constexpr std::array<std::string_view, 13> kOtherPictureEndings = {
    "tif", "tiff", "avif", "heic", "heif", "jxl", "jp2", "svg", "ico", "psd", "tga", "exr", "dib"};

constexpr std::array<std::string_view, 35> kVideoEndings = {
    "mp4", "m4v",  "mov", "qt",   "mkv", "webm", "avi",   "mpg", "mpeg", "m2v", "ts",  "m2ts",
    "mts", "mxf",  "ogv", "ogg",  "flv", "wmv",  "asf",   "3gp", "3g2",  "vob", "y4m", "h264",
    "264", "h265", "265", "hevc", "ivf", "mjpg", "mjpeg", "dv",  "nut",  "rm",  "av1"};

template <size_t kCount>
bool ends_in(const fs::path& path, const std::array<std::string_view, kCount>& endings) {
  std::string ending = path.extension().string();
  if (!ending.empty()) ending.erase(0, 1);
  for (char& c : ending) c = g_ascii_tolower(c);
  return std::find(endings.begin(), endings.end(), ending) != endings.end();
}

Input failed(std::string source, std::string why) {
  Input input;
  input.source = std::move(source);
  input.error = std::move(why);
  return input;
}

std::string file_uri(const std::string& path) {
  std::error_code error;
  const fs::path absolute = fs::absolute(path, error);
  char* uri = g_filename_to_uri((error ? fs::path(path) : absolute).c_str(), nullptr, nullptr);
  std::string result = uri != nullptr ? uri : "";
  g_free(uri);
  return result;
}

/// The first bytes of a regular file; empty where it can't be read, with errno set.
std::vector<uint8_t> first_bytes(const std::string& path) {
  std::vector<uint8_t> bytes;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return bytes;
  bytes.resize(16);
  const ssize_t got = read(fd, bytes.data(), bytes.size());
  const int error = errno;
  bytes.resize(got > 0 ? static_cast<size_t>(got) : 0);
  close(fd);
  errno = got < 0 ? error : 0;
  return bytes;
}

/// A file of Motion JPEG begins as its first picture does; only its name says that more follow.
bool is_picture(const std::string& path, const std::vector<uint8_t>& start) {
  const PictureFormat format = picture_format(start);
  if (format == PictureFormat::kJpeg && ends_in(path, kVideoEndings)) return false;
  return format != PictureFormat::kUnknown || ends_in(path, kPictureEndings);
}

Input from_regular_file(const std::string& source, const std::string& path) {
  const std::vector<uint8_t> start = first_bytes(path);
  if (start.empty()) {
    return failed(source, errno != 0 ? std::string("can't be read: ") + strerror(errno)
                                     : "is empty: it holds no picture and no video");
  }
  Input input;
  input.source = source;
  if (is_picture(path, start)) {
    input.kind = Input::Kind::kPicture;
    return input;
  }
  if (ends_in(path, kOtherPictureEndings)) {
    return failed(source,
                  std::string("is a kind of picture that is not read; convert it to one of ") +
                      kPictureFormats);
  }
  input.kind = Input::Kind::kVideo;
  input.uri = file_uri(path);
  return input;
}

Input from_path(const std::string& source, const std::string& path) {
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0) {
    return failed(source, errno == ENOENT || errno == ENOTDIR
                              ? "does not exist"
                              : std::string("can't be opened: ") + strerror(errno));
  }
  if (S_ISREG(info.st_mode)) {
    Input input = from_regular_file(source, path);
    input.path = path;
    return input;
  }
  if (S_ISCHR(info.st_mode) && major(info.st_rdev) == kVideo4LinuxMajor) {
    Input input;
    input.kind = Input::Kind::kVideo;
    input.source = source;
    input.uri = "v4l2://" + path;
    return input;
  }
  return failed(source, "is neither a file nor a directory nor a camera");
}

/// A picture that is fetched by HTTP is decoded as exactly as one on disk.
Input from_uri(const std::string& uri) {
  Input input;
  input.source = input.uri = uri;
  const bool http = uri.starts_with("http:") || uri.starts_with("https:");
  const std::string path = uri.substr(0, uri.find_first_of("?#"));
  input.kind = http && ends_in(path, kPictureEndings) ? Input::Kind::kPicture : Input::Kind::kVideo;
  return input;
}

/// Media files by their ending or, where that says nothing, by what they begin with.
bool is_media(const fs::path& path) {
  if (ends_in(path, kPictureEndings) || ends_in(path, kOtherPictureEndings) ||
      ends_in(path, kVideoEndings)) {
    return true;
  }
  return picture_format(first_bytes(path.string())) != PictureFormat::kUnknown;
}

void expand_directory(const std::string& source, const std::string& path,
                      std::vector<Input>& inputs) {
  std::error_code error;
  std::vector<std::string> names;
  for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    std::error_code unreadable;
    if (name.starts_with(".") || !it->is_regular_file(unreadable)) continue;
    if (is_media(it->path())) names.push_back(name);
  }
  if (error) {
    inputs.push_back(failed(source, "can't be listed: " + error.message()));
    return;
  }
  if (names.empty()) {
    inputs.push_back(failed(source, "is a directory without any picture or video in it"));
    return;
  }
  std::sort(names.begin(), names.end());
  const std::string slash = source.ends_with('/') ? "" : "/";
  for (const std::string& name : names) {
    const std::string local = (fs::path(path) / name).string();
    inputs.push_back(from_path(source + slash + name, local));
  }
}

/// "scheme:…", where the scheme has two letters or more and no file has that name.
std::string scheme_of(const std::string& argument) {
  size_t length = 0;
  while (length < argument.size() &&
         (g_ascii_isalnum(argument[length]) || std::strchr("+-.", argument[length]) != nullptr)) {
    ++length;
  }
  if (length < 2 || length >= argument.size() || argument[length] != ':') return "";
  struct stat info = {};
  if (stat(argument.c_str(), &info) == 0) return "";
  return argument.substr(0, length);
}

std::string path_of_file_uri(const std::string& uri) {
  char* path = g_filename_from_uri(uri.c_str(), nullptr, nullptr);
  std::string result = path != nullptr ? path : "";
  g_free(path);
  return result;
}

bool is_directory(const std::string& path) {
  struct stat info = {};
  return !path.empty() && stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

/// The local path that an argument names; empty for URIs of other places.
std::string local_path(const std::string& argument) {
  const std::string scheme = scheme_of(argument);
  if (scheme.empty()) return argument;
  return scheme == "file" ? path_of_file_uri(argument) : "";
}

}  // namespace

std::string Input::name() const {
  if (!path.empty()) return fs::path(path).filename().string();
  std::string name = uri.empty() ? fs::path(source).filename().string() : uri;
  if (const size_t scheme = name.find("://"); scheme != name.npos) {
    name.erase(0, scheme + 3);
    // The account stands in front of the host; an @ further on is the path's or the query's.
    const size_t account = name.substr(0, name.find_first_of("/?#")).rfind('@');
    if (account != name.npos) name.erase(0, account + 1);
  }
  for (char& c : name) {
    if (!g_ascii_isalnum(c) && std::strchr(".-_", c) == nullptr) c = '_';
  }
  while (name.starts_with('_') || name.starts_with('.')) name.erase(0, 1);
  return name.empty() ? "input" : name;
}

std::vector<Input> expand_inputs(const std::vector<std::string>& arguments) {
  std::vector<Input> inputs;
  for (const std::string& argument : arguments) {
    const std::string path = local_path(argument);
    if (is_directory(path)) {
      expand_directory(argument, path, inputs);
    } else if (!path.empty()) {
      inputs.push_back(from_path(argument, path));
    } else if (scheme_of(argument) == "file") {
      inputs.push_back(failed(argument, "is not a valid file: URI; write file:///PATH"));
    } else {
      inputs.push_back(from_uri(argument));
    }
  }
  for (size_t i = 0; i < inputs.size(); ++i) inputs[i].number = i;
  return inputs;
}

bool asks_for_several(const std::vector<std::string>& arguments) {
  return arguments.size() > 1 || is_directory(local_path(arguments.front()));
}

}  // namespace describe
