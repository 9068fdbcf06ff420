// SPDX-License-Identifier: LGPL-2.1-or-later

// Real pipelines around the text pad, with exactly the queues that the documentation asks for.

#include <gst/app/gstappsink.h>
#include <gst/video/video.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <set>
#include <string>

#include "element_support.h"

namespace element_test {
namespace {

constexpr const char* kRecording =
    "videotestsrc num-buffers=120 ! video/x-raw,width=64,height=32,framerate=25/1 ! "
    "vlmdescribe name=d interval=1000000000 ";
constexpr const char* kLive =
    "videotestsrc num-buffers=60 is-live=true ! video/x-raw,width=64,height=32,framerate=25/1 ! "
    "vlmdescribe name=d interval=400000000 ";
// What the documentation asks for where texts carry their window's time.
constexpr const char* kUnlimited = "queue max-size-buffers=0 max-size-bytes=0 max-size-time=0 ";

class TextPipeline : public ::testing::Test {
 protected:
  std::string file(const char* name) const { return folder_.file(name); }
  std::string read(const char* name) const { return folder_.read(name); }
  /// Texts of the subtitle track of a file.
  std::vector<std::string> track(const char* name, const char* demuxer) const {
    Pipeline pipeline(
        "filesrc location=" + file(name) + " ! " + demuxer +
        " name=m m.subtitle_0 ! queue ! appsink name=texts sync=false wait-on-eos=false "
        "m.video_0 ! " +
        kUnlimited + "! fakesink sync=false");
    const ElementPtr sink = pipeline["texts"];
    EXPECT_TRUE(pipeline.play());
    std::vector<std::string> texts;
    while (GstSample* sample = gst_app_sink_try_pull_sample(GST_APP_SINK(sink.get()), kPatience)) {
      // From 1.24 on matroskamux writes an empty block for a gap.
      if (gst_buffer_get_size(gst_sample_get_buffer(sample)) > 0) {
        texts.push_back(content(gst_sample_get_buffer(sample)));
      }
      gst_sample_unref(sample);
    }
    return texts;
  }

  Folder folder_;
};

int occurrences(const std::string& text, const std::string& word) {
  int count = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
    ++count;
  }
  return count;
}

TEST_F(TextPipeline, webvtt) {
  Pipeline pipeline(std::string(kRecording) +
                    "! fakesink d.text ! webvttenc ! filesink location=" + file("a.vtt"));
  EXPECT_EQ(pipeline.run().size(), 5u);
  const std::string text = read("a.vtt");
  EXPECT_EQ(text.substr(0, 6), "WEBVTT");
  EXPECT_EQ(occurrences(text, " --> "), 5);
  EXPECT_NE(text.find("00:00:04.000 --> 00:00:04.800"), std::string::npos) << text;
}

TEST_F(TextPipeline, srt) {
  Pipeline pipeline(std::string(kRecording) +
                    "! fakesink d.text ! srtenc ! filesink location=" + file("a.srt"));
  EXPECT_EQ(pipeline.run().size(), 5u);
  EXPECT_EQ(occurrences(read("a.srt"), " --> "), 5);
}

TEST_F(TextPipeline, matroska) {
  {
    Pipeline pipeline(std::string(kRecording) + "! videoconvert ! jpegenc ! " + kUnlimited +
                      "! matroskamux name=m ! filesink location=" + file("a.mkv") + " d.text ! m.");
    EXPECT_EQ(pipeline.run().size(), 5u);
  }
  EXPECT_EQ(track("a.mkv", "matroskademux").size(), 5u);
}

TEST_F(TextPipeline, matroska_by_arrival_with_default_queues) {
  {
    Pipeline pipeline(std::string(kRecording) +
                      "text-timing=arrival ! queue ! videoconvert ! jpegenc ! matroskamux name=m ! "
                      "filesink location=" +
                      file("a.mkv") + " d.text ! queue ! m.");
    EXPECT_EQ(pipeline.run().size(), 5u);
  }
  EXPECT_GE(track("a.mkv", "matroskademux").size(), 4u);
}

TEST_F(TextPipeline, mp4) {
  {
    Pipeline pipeline(std::string(kRecording) + "! videoconvert ! x264enc ! " + kUnlimited +
                      "! mp4mux name=m ! filesink location=" + file("a.mp4") + " d.text ! m.");
    EXPECT_EQ(pipeline.run().size(), 5u);
  }
  EXPECT_GE(track("a.mp4", "qtdemux").size(), 5u);
}

TEST_F(TextPipeline, overlay_of_a_recording_by_window) {
  Pipeline pipeline(std::string(kRecording) + "! " + kUnlimited +
                    "! textoverlay name=o ! fakesink d.text ! o.text_sink");
  EXPECT_EQ(pipeline.run().size(), 5u);
}

TEST_F(TextPipeline, overlay_of_a_recording_by_arrival) {
  Pipeline pipeline(std::string(kRecording) +
                    "text-timing=arrival ! queue ! textoverlay name=o ! fakesink "
                    "d.text ! queue ! o.text_sink");
  EXPECT_EQ(pipeline.run().size(), 5u);
}

TEST_F(TextPipeline, overlay_of_live_video) {
  Pipeline pipeline(std::string(kLive) +
                    "! textoverlay name=o ! fakesink sync=true d.text ! o.text_sink");
  const std::vector<MessagePtr> found = pipeline.run();
  EXPECT_GE(found.size(), 4u);
  EXPECT_EQ(stat(pipeline["d"].get(), "frames"), 60u);
}

TEST_F(TextPipeline, live_webvtt) {
  Pipeline pipeline(std::string(kLive) +
                    "! fakesink sync=true d.text ! webvttenc ! filesink location=" + file("a.vtt"));
  const std::vector<MessagePtr> found = pipeline.run();
  EXPECT_EQ(occurrences(read("a.vtt"), " --> "), static_cast<int>(found.size()));
}

TEST_F(TextPipeline, elements_in_series_have_streams_of_their_own) {
  Pipeline pipeline(std::string(kRecording) +
                    "! vlmdescribe name=e interval=1000000000 ! videoconvert ! jpegenc ! " +
                    kUnlimited + "! matroskamux name=m ! filesink location=" + file("a.mkv") +
                    " d.text ! m. e.text ! m.");
  EXPECT_EQ(pipeline.run().size(), 10u);
  std::set<std::string> ids;
  for (const char* name : {"d", "e"}) {
    GstPad* pad = gst_element_get_static_pad(pipeline[name].get(), "text");
    gchar* id = gst_pad_get_stream_id(pad);
    ids.insert(id);
    g_free(id);
    gst_object_unref(pad);
  }
  EXPECT_EQ(ids.size(), 2u);
}

TEST_F(TextPipeline, three_deliveries_say_the_same) {
  Pipeline pipeline(std::string(kRecording) +
                    "meta-policy=exact ! appsink name=video sync=false wait-on-eos=false "
                    "d.text ! appsink name=texts sync=false wait-on-eos=false");
  const std::vector<MessagePtr> found = pipeline.run();
  ASSERT_EQ(found.size(), 5u);
  const ElementPtr video = pipeline["video"];
  const ElementPtr texts = pipeline["texts"];
  for (const MessagePtr& message : found) {
    const GstStructure* structure = description(message.get());
    GstSample* sample = gst_app_sink_try_pull_sample(GST_APP_SINK(texts.get()), kPatience);
    ASSERT_NE(sample, nullptr);
    EXPECT_TRUE(gst_structure_is_equal(meta_of(gst_sample_get_buffer(sample)), structure));
    gst_sample_unref(sample);
  }
  int frames = 0;
  while (GstSample* sample = gst_app_sink_try_pull_sample(GST_APP_SINK(video.get()), 0)) {
    const GstStructure* meta = meta_of(gst_sample_get_buffer(sample));
    const GstStructure* structure = description(found[time_of(meta, "index")].get());
    EXPECT_TRUE(gst_structure_is_equal(meta, structure));
    gst_sample_unref(sample);
    ++frames;
  }
  EXPECT_EQ(frames, 120);
}

// Whatever videotestsrc can make passes, and the model sees the colour that was drawn.
class RawFormat : public ::testing::TestWithParam<std::string> {};

TEST_P(RawFormat, colours_are_right) {
  const struct {
    const char* argb;
    int rgb[3];
  } colours[] = {{"0xffd02030", {0xd0, 0x20, 0x30}}, {"0xff30b050", {0x30, 0xb0, 0x50}}};
  const GstVideoFormat format = gst_video_format_from_string(GetParam().c_str());
  const GstVideoFormatInfo* info = gst_video_format_get_info(format);
  const bool grey = GST_VIDEO_FORMAT_INFO_IS_GRAY(info);
  for (const char* extra : {"", ",colorimetry=bt709", ",colorimetry=bt601", ",colorimetry=1:4:0:0",
                            ",colorimetry=bt2020"}) {
    if (*extra != '\0' && !GST_VIDEO_FORMAT_INFO_IS_YUV(info)) {
      continue;
    }
    for (const auto& colour : colours) {
      SCOPED_TRACE(std::string(extra) + " " + colour.argb);
      // 48 lines suit every format's subsampling and tiling.
      Pipeline pipeline("videotestsrc num-buffers=1 pattern=solid-color foreground-color=" +
                        std::string(colour.argb) +
                        " ! video/x-raw,format=BGRA,width=96,height=48 "
                        "! videoconvert dither=none ! video/x-raw,format=" +
                        GetParam() + extra + " ! vlmdescribe prompt=p ! fakesink");
      const std::vector<MessagePtr> found = pipeline.run();
      ASSERT_EQ(found.size(), 1u);
      int rgb[3] = {-1, -1, -1};
      const std::string text = text_of(description(found[0].get()));
      ASSERT_EQ(std::sscanf(text.c_str(), "p|96x48|%d,%d,%d|1", &rgb[0], &rgb[1], &rgb[2]), 3)
          << text;
      // Formats with few bits cannot hold the colour any better.
      const guint bits = GST_VIDEO_FORMAT_INFO_N_COMPONENTS(info) >= 3
                             ? std::min({GST_VIDEO_FORMAT_INFO_DEPTH(info, 0),
                                         GST_VIDEO_FORMAT_INFO_DEPTH(info, 1),
                                         GST_VIDEO_FORMAT_INFO_DEPTH(info, 2)})
                             : 8;
      // videoconvert's own arithmetic on the way is not exact either.
      const int palette = format == GST_VIDEO_FORMAT_RGB8P ? 47 : 0;
      const int tolerance = 4 + palette + (bits < 8 ? 256 >> bits : 0);
      for (int i = 0; i < 3; ++i) {
        if (grey) {
          EXPECT_NEAR(rgb[i], rgb[0], 1);
        } else {
          EXPECT_NEAR(rgb[i], colour.rgb[i], tolerance) << text;
        }
      }
    }
  }
}

std::vector<std::string> raw_formats() {
  gst_init(nullptr, nullptr);
  std::vector<std::string> names;
  guint count = 0;
  const GstVideoFormat* formats = gst_video_formats_raw(&count);
  // videoconvert makes more than videotestsrc draws; what even it cannot make is left out.
  GstElementFactory* factory = gst_element_factory_find("videoconvert");
  for (guint i = 0; i < count; ++i) {
    const char* name = gst_video_format_to_string(formats[i]);
    GstCaps* caps = gst_caps_new_simple("video/x-raw", "format", G_TYPE_STRING, name, nullptr);
    if (gst_element_factory_can_src_any_caps(factory, caps)) {
      names.emplace_back(name);
    }
    gst_caps_unref(caps);
  }
  gst_object_unref(factory);
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, RawFormat, ::testing::ValuesIn(raw_formats()),
                         [](const ::testing::TestParamInfo<std::string>& one) {
                           return one.param;
                         });

}  // namespace
}  // namespace element_test
