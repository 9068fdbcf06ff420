// SPDX-License-Identifier: LGPL-2.1-or-later

// The text pad's times against those of the video, through real files whose buffer times do not
// begin at 0: an MP4 with B-frames has an edit list.

#include <gst/app/gstappsink.h>
#include <gst/video/video.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>

#include "element_support.h"

namespace element_test {
namespace {

constexpr GstClockTime kFrame = 40 * GST_MSECOND;
constexpr const char* kUnlimited = "queue max-size-buffers=0 max-size-bytes=0 max-size-time=0 ";
// One second of each.
constexpr const char* kColours[] = {"d02030", "30b050", "2030d0", "d0d020"};

struct Rgb {
  int r = 0, g = 0, b = 0;
};

Rgb rgb_of(const char* hex) {
  const auto value = static_cast<unsigned>(std::stoul(hex, nullptr, 16));
  return {static_cast<int>(value >> 16), static_cast<int>(value >> 8 & 255),
          static_cast<int>(value & 255)};
}

/// Which of kColours it is; -1 where none is near.
int colour_index(const Rgb& seen) {
  for (int i = 0; i < 4; ++i) {
    const Rgb want = rgb_of(kColours[i]);
    if (std::abs(seen.r - want.r) + std::abs(seen.g - want.g) + std::abs(seen.b - want.b) < 90) {
      return i;
    }
  }
  return -1;
}

/// The colour that the fake engine was shown.
int colour_of(const std::string& text) {
  Rgb seen;
  if (std::sscanf(text.c_str(), "p|160x120|%d,%d,%d|1", &seen.r, &seen.g, &seen.b) != 3) {
    return -1;
  }
  return colour_index(seen);
}

/// What an appsink received.
struct Sample {
  GstClockTime pts = 0, duration = 0, stream_time = 0;
  GstClockTime running_start = 0, running_end = 0;  // of its first and last moment on a screen
  double rate = 1;
  std::string bytes;
};

std::vector<Sample> samples_of(const Pipeline& pipeline, const char* name) {
  std::vector<Sample> found;
  const ElementPtr sink = pipeline[name];
  while (GstSample* sample = gst_app_sink_try_pull_sample(GST_APP_SINK(sink.get()), 0)) {
    GstBuffer* buffer = gst_sample_get_buffer(sample);
    const GstSegment* segment = gst_sample_get_segment(sample);
    Sample one;
    one.pts = GST_BUFFER_PTS(buffer);
    one.duration = GST_BUFFER_DURATION(buffer);
    one.rate = segment->rate;
    one.stream_time = gst_segment_to_stream_time(segment, GST_FORMAT_TIME, one.pts);
    one.running_start = gst_segment_to_running_time(segment, GST_FORMAT_TIME, one.pts);
    one.running_end = gst_segment_to_running_time(segment, GST_FORMAT_TIME, one.pts + one.duration);
    if (segment->rate < 0) {
      std::swap(one.running_start, one.running_end);
    }
    one.bytes = content(buffer);
    found.push_back(one);
    gst_sample_unref(sample);
  }
  return found;
}

/// Frames in 160x120 RGB: which colour each one has at its corner, where no text is drawn.
int colour_of(const Sample& frame) {
  const auto* at = reinterpret_cast<const unsigned char*>(frame.bytes.data());
  return colour_index({at[0], at[1], at[2]});
}

/// Whether something is drawn over the one colour.
bool is_drawn_on(const Sample& frame) {
  const auto* at = reinterpret_cast<const unsigned char*>(frame.bytes.data());
  for (size_t i = 3; i < frame.bytes.size(); ++i) {
    if (std::abs(at[i] - at[i % 3]) > 60) {
      return true;
    }
  }
  return false;
}

/// The stream time at which each colour is seen first.
std::map<int, GstClockTime> changes(const std::vector<Sample>& frames) {
  std::map<int, GstClockTime> first;
  for (const Sample& frame : frames) {
    first.emplace(colour_of(frame), frame.stream_time);
  }
  return first;
}

/// Cues of a WebVTT or SubRip file: milliseconds and text.
std::vector<std::pair<int, std::string>> cues(const std::string& text) {
  std::vector<std::pair<int, std::string>> found;
  for (size_t at = text.find(" --> "); at != std::string::npos; at = text.find(" --> ", at + 1)) {
    int h = 0;
    int m = 0;
    int s = 0;
    int ms = 0;
    EXPECT_EQ(std::sscanf(text.c_str() + at - 12, "%d:%d:%d%*c%d", &h, &m, &s, &ms), 4);
    const size_t line = text.find('\n', at) + 1;
    found.emplace_back(((h * 60 + m) * 60 + s) * 1000 + ms,
                       text.substr(line, text.find('\n', line) - line));
  }
  return found;
}

class Times : public ::testing::Test {
 protected:
  // A clip of four seconds whose colour changes each second, with B-frames.
  static void SetUpTestSuite() {
    folder = new Folder;
    {
      std::ofstream raw(folder->file("raw"), std::ios::binary);
      for (int frame = 0; frame < 100; ++frame) {
        const Rgb colour = rgb_of(kColours[frame / 25]);
        for (int pixel = 0; pixel < 160 * 120; ++pixel) {
          raw.put(static_cast<char>(colour.r)).put(static_cast<char>(colour.g));
          raw.put(static_cast<char>(colour.b));
        }
      }
    }
    Pipeline(
        "filesrc location=" + folder->file("raw") +
        " ! rawvideoparse format=rgb width=160 height=120 framerate=25/1 ! videoconvert ! "
        "video/x-raw,format=I420 ! x264enc bframes=3 ! h264parse ! mp4mux ! filesink location=" +
        folder->file("clip.mp4"))
        .run();
  }
  static void TearDownTestSuite() {
    delete folder;
    folder = nullptr;
  }

  /// The clip, decoded, into the element.
  static std::string clip(const std::string& properties) {
    return "filesrc location=" + folder->file("clip.mp4") +
           " ! qtdemux name=q q.video_0 ! queue ! h264parse ! avdec_h264 "
           "! vlmdescribe name=d prompt=p interval=1000000000 " +
           properties + " ";
  }

  static Folder* folder;
};
Folder* Times::folder = nullptr;

TEST_F(Times, clip_begins_late) {
  Pipeline pipeline(
      clip("") +
      "! videoconvert ! video/x-raw,format=RGB ! appsink name=v sync=false wait-on-eos=false");
  const std::vector<MessagePtr> found = pipeline.run();
  ASSERT_EQ(found.size(), 4u);
  // Else nothing here would tell buffer times from stream times.
  EXPECT_GE(time_of(description(found[0].get()), "pts"), 2 * kFrame);
  const std::map<int, GstClockTime> expected = {
      {0, 0}, {1, GST_SECOND}, {2, 2 * GST_SECOND}, {3, 3 * GST_SECOND}};
  EXPECT_EQ(changes(samples_of(pipeline, "v")), expected);
}

TEST_F(Times, subtitle_encoders_write_stream_time) {
  for (const char* encoder : {"webvttenc", "srtenc"}) {
    SCOPED_TRACE(encoder);
    Pipeline pipeline(clip("") + "! fakesink d.text ! queue ! " + encoder +
                      " ! filesink location=" + folder->file("cues"));
    EXPECT_EQ(pipeline.run().size(), 4u);
    const auto found = cues(folder->read("cues"));
    ASSERT_EQ(found.size(), 4u);
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(found[static_cast<size_t>(i)].first, i * 1000);
      EXPECT_EQ(colour_of(found[static_cast<size_t>(i)].second), i);
    }
  }
}

// In the file that comes out, a text begins with the first frame of what it speaks of.
TEST_F(Times, muxed_texts_begin_with_their_frames) {
  const struct {
    const char* muxer;
    const char* demuxer;
  } containers[] = {{"matroskamux", "matroskademux"}, {"mp4mux", "qtdemux"}};
  for (const auto& container : containers) {
    SCOPED_TRACE(container.muxer);
    Pipeline writer(clip("") + "! videoconvert ! x264enc bframes=3 ! h264parse ! " + kUnlimited +
                    "! m. d.text ! queue ! m. " + container.muxer +
                    " name=m ! filesink location=" + folder->file("out"));
    EXPECT_EQ(writer.run().size(), 4u);
    Pipeline reader("filesrc location=" + folder->file("out") + " ! " + container.demuxer +
                    " name=m m.subtitle_0 ! " + kUnlimited +
                    "! appsink name=t sync=false wait-on-eos=false m.video_0 ! " + kUnlimited +
                    "! h264parse ! avdec_h264 ! videoconvert ! video/x-raw,format=RGB ! "
                    "appsink name=v sync=false wait-on-eos=false");
    reader.run();
    std::map<int, GstClockTime> frames = changes(samples_of(reader, "v"));
    ASSERT_EQ(frames.size(), 4u);
    int texts = 0;
    for (const Sample& text : samples_of(reader, "t")) {
      const int colour = colour_of(text.bytes);
      if (colour >= 0) {
        ++texts;
        EXPECT_NEAR(static_cast<double>(text.stream_time), static_cast<double>(frames[colour]),
                    static_cast<double>(GST_MSECOND));
      }
    }
    EXPECT_EQ(texts, 4);
  }
}

// Every second window has no text: exactly the frames of the others are written on.
TEST_F(Times, overlay_is_exact_to_the_frame) {
  Pipeline pipeline(
      clip("on-error=skip model=fake:fail-every=2") + "! " + kUnlimited +
      "! videoconvert ! o.video_sink d.text ! queue ! o.text_sink textoverlay name=o "
      "valignment=center font-desc=\"Sans 40\" ! "
      "videoconvert ! video/x-raw,format=RGB ! appsink name=v sync=false wait-on-eos=false");
  EXPECT_EQ(pipeline.run().size(), 2u);
  const std::vector<Sample> frames = samples_of(pipeline, "v");
  ASSERT_EQ(frames.size(), 100u);
  for (const Sample& frame : frames) {
    EXPECT_EQ(is_drawn_on(frame), colour_of(frame) % 2 == 0) << frame.stream_time;
  }
}

// Each text covers, in running time, the frames of its colour.
void expect_together(const std::vector<Sample>& texts, const std::vector<Sample>& frames) {
  std::map<int, const Sample*> text_of_colour;
  for (const Sample& text : texts) {
    EXPECT_EQ(text.pts, text.stream_time);
    EXPECT_TRUE(text_of_colour.emplace(colour_of(text.bytes), &text).second);
  }
  ASSERT_FALSE(frames.empty());
  for (const Sample& frame : frames) {
    const auto text = text_of_colour.find(colour_of(frame));
    ASSERT_NE(text, text_of_colour.end()) << frame.stream_time;
    EXPECT_GE(frame.running_start + 2, text->second->running_start) << frame.stream_time;
    EXPECT_LE(frame.running_end, text->second->running_end + 2) << frame.stream_time;
  }
}

struct Seek {
  const char* name;
  double rate;
  GstSeekFlags flags;
  int from_ms, to_ms, windows;
};

std::ostream& operator<<(std::ostream& stream, const Seek& one) {
  return stream << one.name;
}

class TimesAfterSeek : public Times, public ::testing::WithParamInterface<Seek> {};

TEST_P(TimesAfterSeek, texts_run_with_their_frames) {
  const Seek seek = GetParam();
  Pipeline pipeline(
      clip("") +
      "! videoconvert ! video/x-raw,format=RGB ! appsink name=v sync=false wait-on-eos=false "
      "d.text ! queue ! appsink name=t sync=false wait-on-eos=false");
  pipeline.set_state(GST_STATE_PAUSED);
  ASSERT_EQ(gst_element_get_state(pipeline.pipeline, nullptr, nullptr, kPatience),
            GST_STATE_CHANGE_SUCCESS);
  ASSERT_TRUE(gst_element_seek(
      pipeline.pipeline, seek.rate, GST_FORMAT_TIME,
      static_cast<GstSeekFlags>(seek.flags | GST_SEEK_FLAG_FLUSH | GST_SEEK_FLAG_ACCURATE),
      GST_SEEK_TYPE_SET, seek.from_ms * GST_MSECOND, GST_SEEK_TYPE_SET, seek.to_ms * GST_MSECOND));
  pipeline.messages.next(GST_MESSAGE_ASYNC_DONE);
  pipeline.run();
  const std::vector<Sample> texts = samples_of(pipeline, "t");
  EXPECT_EQ(texts.size(), static_cast<size_t>(seek.windows));
  for (const Sample& text : texts) {
    EXPECT_EQ(text.rate, seek.rate);
  }
  expect_together(texts, samples_of(pipeline, "v"));
}

INSTANTIATE_TEST_SUITE_P(
    Seeks, TimesAfterSeek,
    ::testing::Values(Seek{"part", 1, GST_SEEK_FLAG_NONE, 1400, 3200, 3},
                      Seek{"fast", 2, GST_SEEK_FLAG_NONE, 1000, 4000, 3},
                      Seek{"slow", 0.5, GST_SEEK_FLAG_NONE, 2000, 4000, 2},
                      Seek{"backwards", -1, GST_SEEK_FLAG_NONE, 0, 4000, 4},
                      Seek{"backwards_part", -1, GST_SEEK_FLAG_NONE, 1200, 2600, 2},
                      Seek{"backwards_fast", -4, GST_SEEK_FLAG_NONE, 0, 4000, 4}),
    [](const ::testing::TestParamInfo<Seek>& one) { return one.param.name; });

// A live text is stamped with the newest frame; both are in running time what they are in the
// video.
TEST_F(Times, live_texts_begin_with_a_frame_that_passes) {
  Pipeline pipeline(
      clip("mode=live text-timing=arrival model=fake:delay=100") +
      "! clocksync ! videoconvert ! video/x-raw,format=RGB ! appsink name=v sync=false "
      "wait-on-eos=false "
      "d.text ! queue ! tee name=s ! queue ! appsink name=t sync=false wait-on-eos=false "
      "s. ! queue ! webvttenc ! filesink location=" +
      folder->file("live.vtt"));
  EXPECT_EQ(pipeline.run().size(), 4u);
  std::map<GstClockTime, GstClockTime> running;  // of frames, by stream time
  for (const Sample& frame : samples_of(pipeline, "v")) {
    running[frame.stream_time] = frame.running_start;
  }
  const std::vector<Sample> texts = samples_of(pipeline, "t");
  ASSERT_EQ(texts.size(), 4u);
  for (size_t i = 0; i < texts.size(); ++i) {
    const Sample& text = texts[i];
    EXPECT_EQ(colour_of(text.bytes), static_cast<int>(i));
    ASSERT_EQ(running.count(text.pts), 1u) << text.pts;
    EXPECT_EQ(running[text.pts], text.running_start);
    // The middle of the window and the time to describe it have passed.
    EXPECT_GE(text.pts, i * GST_SECOND + GST_SECOND / 2);
    EXPECT_LE(text.pts, i * GST_SECOND + GST_SECOND + 10 * kFrame);
  }
  const auto found = cues(folder->read("live.vtt"));
  ASSERT_EQ(found.size(), 4u);
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(static_cast<GstClockTime>(found[i].first), texts[i].pts / GST_MSECOND);
  }
}

}  // namespace
}  // namespace element_test
