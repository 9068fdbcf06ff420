// SPDX-License-Identifier: LGPL-2.1-or-later

// What an element costs a pipeline that decodes a clip as fast as it can, on a machine whose speed
// wanders: the time from each frame to the next, taken apart by the frame's place in the clip.
//
//     passthrough_frames CLIP ROUNDS LAUNCH-LINE…       such as "vlmdescribe mode=recorded"
//
// In each round every line plays the clip once, between two runs of identity. The frame rate is the
// median of what the rounds give, each against its own two runs, and it lies within the bounds
// beside it with a confidence of 95 % (order statistics: nothing is taken for normal). What counts
// for a place is the lower quartile over the rounds, which a neighbour that takes the memory for a
// while does not reach. GST_PLUGIN_PATH, VLM_ENGINE_LIBRARY and VLM_MODEL say with what; the clip
// has more than 60 frames at 30 a second. Built by ninja, run by hand.

#include <gst/gst.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

namespace {

constexpr size_t kWindow = 60;  ///< frames of an interval of two seconds
constexpr size_t kSampled = kWindow / 2;

using Times = std::vector<double>;  ///< ms from each frame to the next, the end last

double now_ms() {
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

GstPadProbeReturn note(GstPad*, GstPadProbeInfo* info, gpointer data) {
  const bool event = (info->type & GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM) != 0;
  if (!event || GST_EVENT_TYPE(GST_PAD_PROBE_INFO_EVENT(info)) == GST_EVENT_EOS) {
    static_cast<Times*>(data)->push_back(now_ms());
  }
  return GST_PAD_PROBE_OK;
}

Times play(const std::string& clip, const std::string& element) {
  const std::string line = "filesrc location=" + clip +
                           " ! qtdemux ! h264parse ! avdec_h264 max-threads=1 ! " + element +
                           " ! fakesink name=end sync=false";
  GError* error = nullptr;
  GstElement* pipeline = gst_parse_launch(line.c_str(), &error);
  if (error != nullptr) {
    std::fprintf(stderr, "%s: %s\n", line.c_str(), error->message);
    std::exit(2);
  }
  GstElement* sink = gst_bin_get_by_name(GST_BIN(pipeline), "end");
  GstPad* pad = gst_element_get_static_pad(sink, "sink");
  Times at;
  gst_pad_add_probe(
      pad,
      static_cast<GstPadProbeType>(GST_PAD_PROBE_TYPE_BUFFER | GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM),
      note, &at, nullptr);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  GstBus* bus = gst_element_get_bus(pipeline);
  GstMessage* message = gst_bus_timed_pop_filtered(
      bus, GST_CLOCK_TIME_NONE, static_cast<GstMessageType>(GST_MESSAGE_EOS | GST_MESSAGE_ERROR));
  const bool failed = GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR;
  gst_message_unref(message);
  gst_object_unref(bus);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pad);
  gst_object_unref(sink);
  gst_object_unref(pipeline);
  if (failed || at.size() <= kWindow) {
    std::fprintf(stderr, "%s: it did not play\n", line.c_str());
    std::exit(2);
  }
  Times steps;
  // The first frame waits for the pipeline to play.
  for (size_t i = 2; i < at.size(); ++i) {
    steps.push_back(at[i] - at[i - 1]);
  }
  return steps;
}

Times quartiles(const std::vector<Times>& rounds) {
  Times result;
  for (size_t place = 0; place < rounds.front().size(); ++place) {
    Times all;
    for (const Times& round : rounds) {
      all.push_back(round[place]);
    }
    std::sort(all.begin(), all.end());
    result.push_back(all[all.size() / 4]);
  }
  return result;
}

/// Mean of the places that lie from `begin` to `end` frames behind one that is sampled.
double behind_sampled(const Times& times, size_t begin, size_t end) {
  double sum = 0;
  size_t count = 0;
  for (size_t place = kSampled; place + 1 < times.size(); ++place) {
    const size_t behind = (place + 1 - kSampled) % kWindow;
    if (behind >= begin && behind < end) {
      sum += times[place];
      ++count;
    }
  }
  return sum / static_cast<double>(std::max<size_t>(count, 1));
}

double sum(const Times& times) {
  double all = 0;
  for (const double one : times) {
    all += one;
  }
  return all;
}

struct Ratio {
  double low;
  double median;
  double high;
};

/// The median, and bounds that hold it with a confidence of 95 %: binomial, taken as normal.
Ratio median_of(std::vector<double> ratios) {
  std::sort(ratios.begin(), ratios.end());
  const auto count = static_cast<double>(ratios.size());
  const double reach = 0.98 * std::sqrt(count);
  const auto at = [&](double place) {
    return ratios[static_cast<size_t>(std::clamp(place, 0.0, count - 1))];
  };
  return {at(std::floor(count / 2 - reach)), at(count / 2), at(std::ceil(count / 2 + reach))};
}

}  // namespace

int main(int count, char** words) {
  gst_init(&count, &words);
  const int rounds = count > 3 ? std::atoi(words[2]) : 0;
  if (rounds < 1) {
    std::fprintf(stderr, "usage: passthrough_frames CLIP ROUNDS LAUNCH-LINE...\n");
    return 2;
  }
  const std::string clip = words[1];
  const std::vector<std::string> lines(words + 3, words + count);
  std::map<std::string, std::vector<Times>> played;
  std::map<std::string, std::vector<double>> ratios;
  std::vector<Times> bare = {play(clip, "identity")};
  for (int round = 0; round < rounds; ++round) {
    for (const std::string& line : lines) {
      const Times& own = played[line].emplace_back(play(clip, line));
      bare.push_back(play(clip, "identity"));
      const double beside = (sum(bare[bare.size() - 2]) + sum(bare.back())) / 2;
      ratios[line].push_back(beside / sum(own));
    }
  }
  std::printf(
      "| | frame rate, identity's = 1 | from | to | ms | frame sampled, ms | five behind it | "
      "others "
      "|\n|---|---|---|---|---|---|---|---|\n");
  const auto print_times = [](const std::vector<Times>& all) {
    const Times times = quartiles(all);
    std::printf("%.1f | %.3f | %.3f | %.3f |\n", sum(times), behind_sampled(times, 0, 1),
                behind_sampled(times, 1, 6), behind_sampled(times, 6, kWindow));
  };
  for (const std::string& line : lines) {
    const Ratio ratio = median_of(ratios[line]);
    std::printf("| %s | %.3f | %.3f | %.3f | ", line.c_str(), ratio.median, ratio.low, ratio.high);
    print_times(played[line]);
  }
  std::printf("| identity | 1 | | | ");
  print_times(bare);
  return 0;
}
