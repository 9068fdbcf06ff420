// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmturn.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <numeric>
#include <utility>

#include "gstvlmlayout.h"

namespace gstvlm {
namespace {

constexpr int kPixel = 3;

void reverse_pixels(uint8_t* first, size_t count) {
  for (uint8_t* last = first + count * kPixel; last - first >= 2 * kPixel; first += kPixel) {
    last -= kPixel;
    uint8_t pixel[kPixel];
    std::memcpy(pixel, first, kPixel);
    std::memcpy(first, last, kPixel);
    std::memcpy(last, pixel, kPixel);
  }
}

// Turns that keep the sides, in the picture's own memory.
void flip(vlm::Frame& frame, bool from_right, bool from_bottom) {
  const auto width = static_cast<size_t>(frame.width);
  const auto height = static_cast<size_t>(frame.height);
  const size_t line = width * kPixel;
  uint8_t* data = frame.rgb.data();
  if (from_right && from_bottom) {
    reverse_pixels(data, width * height);
    return;
  }
  for (size_t y = 0; from_right && y < height; ++y) {
    reverse_pixels(data + y * line, width);
  }
  for (size_t y = 0; from_bottom && y < height / 2; ++y) {
    std::swap_ranges(data + y * line, data + (y + 1) * line, data + (height - 1 - y) * line);
  }
}

// A turn by a quarter goes in tiles, each of which the nearest cache holds from the first line that
// is read of it to the last.
struct Tile {
  int columns, rows;
};

// Long lines are written best, but lines whose distance is a multiple of a power of two share few
// places of the cache.
Tile tile_for(std::ptrdiff_t line) {
  constexpr std::ptrdiff_t kCacheWay = 4096;
  return std::gcd(line, kCacheWay) > kCacheWay / 16 ? Tile{8, 64} : Tile{64, 16};
}

// How to go through the picture for one step along the lines of the turned one, and one down.
struct Steps {
  std::ptrdiff_t along, down;
};

void copy_tile(const uint8_t* from, Steps steps, uint8_t* to, std::ptrdiff_t line, Tile tile) {
  for (int y = 0; y < tile.rows; ++y, from += steps.down, to += line) {
    const uint8_t* source = from;
    uint8_t* target = to;
    for (int x = 0; x < tile.columns; ++x, source += steps.along, target += kPixel) {
      std::memcpy(target, source, kPixel);
    }
  }
}

// Rows become columns, in memory that is `out`'s before.
void swap_sides(vlm::Frame& frame, bool from_right, bool from_bottom, std::vector<uint8_t>& out) {
  const int columns = frame.height;
  const int rows = frame.width;
  const std::ptrdiff_t line = std::ptrdiff_t{rows} * kPixel;
  const Steps steps{from_bottom ? -line : line, from_right ? -kPixel : kPixel};
  const uint8_t* origin = frame.rgb.data() + (from_bottom ? (columns - 1) * line : 0) +
                          (from_right ? line - kPixel : 0);
  out.resize(frame.rgb.size());
  const std::ptrdiff_t out_line = std::ptrdiff_t{columns} * kPixel;
  uint8_t* target = out.data();
  const Tile tile = tile_for(line);
  for (int y = 0; y < rows; y += tile.rows) {
    for (int x = 0; x < columns; x += tile.columns) {
      copy_tile(origin + y * steps.down + x * steps.along, steps,
                target + y * out_line + std::ptrdiff_t{x} * kPixel, out_line,
                Tile{std::min(tile.columns, columns - x), std::min(tile.rows, rows - y)});
    }
  }
  frame.rgb.swap(out);
  std::swap(frame.width, frame.height);
}

}  // namespace

void turn(vlm::Frame& frame, GstVideoOrientationMethod method, std::vector<uint8_t>& spare) {
  const vlm::PictureTurn wanted = turn_of(method);
  if (frame.rgb.empty()) {
    return;
  }
  if (wanted.swap) {
    swap_sides(frame, wanted.from_right, wanted.from_bottom, spare);
  } else {
    flip(frame, wanted.from_right, wanted.from_bottom);
  }
}

}  // namespace gstvlm
