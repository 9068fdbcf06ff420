// SPDX-License-Identifier: LGPL-2.1-or-later
#include "progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "report.h"

namespace describe {

namespace {

constexpr auto kRedrawPeriod = std::chrono::milliseconds(100);
constexpr int kBarWidth = 20;
constexpr size_t kLeastName = 12;

bool is_terminal() {
  const char* kind = std::getenv("TERM");
  return isatty(STDERR_FILENO) != 0 && (kind == nullptr || std::strcmp(kind, "dumb") != 0);
}

size_t terminal_width() {
  winsize size = {};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

std::string bar(double fraction) {
  const int full = static_cast<int>(std::lround(std::clamp(fraction, 0.0, 1.0) * kBarWidth));
  std::string text = "[";
  for (int i = 0; i < kBarWidth; ++i) text += i < full ? '#' : '.';
  return text + "]";
}

/// At most `columns` characters of UTF-8, without a part of one at the end.
std::string cut(const std::string& text, size_t columns) {
  size_t used = 0, end = 0;
  for (; end < text.size(); ++end) {
    const bool continues = (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80;
    if (!continues && used++ == columns) break;
  }
  return text.substr(0, end);
}

size_t columns(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

/// The last `limit` characters, with an ellipsis for what is left out.
std::string cut_front(const std::string& text, size_t limit) {
  size_t surplus = columns(text);
  if (surplus <= limit) return text;
  surplus -= limit - 1;
  size_t at = 0;
  for (; at < text.size(); ++at) {
    const bool continues = (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80;
    if (!continues && surplus-- == 0) break;
  }
  return "…" + text.substr(at);
}

}  // namespace

std::string short_time(double seconds) {
  const long all = std::lround(std::clamp(seconds, 0.0, 359999.0));
  char text[32];
  if (all >= 3600) {
    std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", all / 3600, all / 60 % 60, all % 60);
  } else {
    std::snprintf(text, sizeof text, "%ld:%02ld", all / 60, all % 60);
  }
  return text;
}

Progress::Progress(Level level)
    : shown_(level != Level::kQuiet && is_terminal()), verbose_(level == Level::kVerbose) {}

Progress::~Progress() {
  clear();
}

void Progress::begin(const std::string& what) {
  {
    const std::lock_guard lock(mutex_);
    what_ = one_line(what);
    began_ = Clock::now();
    first_position_ns_.reset();
  }
  draw("", true);
}

void Progress::fraction(double fraction) {
  char percent[16];
  std::snprintf(percent, sizeof percent, " %3.0f %%", std::clamp(fraction, 0.0, 1.0) * 100);
  draw(bar(fraction) + percent, fraction >= 1);
}

void Progress::position(const std::string& what, uint64_t position_ns, uint64_t duration_ns) {
  if (!shown_) return;
  double elapsed = 0, done = 0;
  {
    const std::lock_guard lock(mutex_);
    what_ = one_line(what);
    if (!first_position_ns_) first_position_ns_ = position_ns;
    elapsed = std::chrono::duration<double>(Clock::now() - began_).count();
    done = static_cast<double>(position_ns - std::min(*first_position_ns_, position_ns)) / 1e9;
  }
  const double speed = elapsed > 0 ? done / elapsed : 0;
  std::string text;
  if (duration_ns > 0) {
    text += bar(static_cast<double>(position_ns) / static_cast<double>(duration_ns)) + " ";
  }
  text += short_time(static_cast<double>(position_ns) / 1e9);
  if (duration_ns > 0) text += " / " + short_time(static_cast<double>(duration_ns) / 1e9);
  if (duration_ns > 0 && speed > 0) {
    char rest[64];
    const double left = static_cast<double>(duration_ns - std::min(duration_ns, position_ns)) / 1e9;
    std::snprintf(rest, sizeof rest, "  %.1f×  %s left", speed, short_time(left / speed).c_str());
    text += rest;
  }
  draw(text, false);
}

void Progress::draw(const std::string& text, bool force) {
  if (!shown_) return;
  const std::lock_guard lock(mutex_);
  const Clock::time_point now = Clock::now();
  if (!force && visible_ && now - drawn_ < kRedrawPeriod) return;
  // What changes has the first claim to the line; a name loses its beginning.
  const size_t width = terminal_width() - 1;
  const size_t needed = text.empty() ? 0 : columns(text) + 2;
  std::string line = cut_front(what_, width > needed + kLeastName ? width - needed : kLeastName);
  if (!text.empty()) line.append("  ").append(text);
  std::fprintf(stderr, "\r\033[K%s", cut(line, width).c_str());
  std::fflush(stderr);
  drawn_ = now;
  visible_ = true;
}

void Progress::clear() {
  const std::lock_guard lock(mutex_);
  if (!visible_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  visible_ = false;
}

void Progress::say(const std::string& line) {
  if (!verbose_) return;
  clear();
  std::fprintf(stderr, "%s\n", one_line(line).c_str());
}

}  // namespace describe
