// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstreamer.h"

#include <gst/gst.h>
#include <gst/pbutils/pbutils.h>

#include <filesystem>
#include <system_error>

namespace describe {

namespace {

vlm::Error failure(vlm::ErrorKind kind, std::string message) {
  return {kind, std::move(message), {}};
}

}  // namespace

vlm::Status prepare_gstreamer(const std::string& plugin) {
  static bool done = false;
  if (done) return vlm::ok_status();
  GError* error = nullptr;
  if (!gst_init_check(nullptr, nullptr, &error)) {
    const std::string why = error != nullptr ? error->message : "no reason given";
    g_clear_error(&error);
    return failure(vlm::ErrorKind::kInternal, "GStreamer could not be started: " + why);
  }
  gst_pb_utils_init();
  std::string why = "it is not at \"" + plugin + "\" nor where GStreamer looks";
  std::error_code ignored;
  if (std::filesystem::exists(plugin, ignored)) {
    GstPlugin* loaded = gst_plugin_load_file(plugin.c_str(), &error);
    if (loaded != nullptr) gst_object_unref(loaded);
    if (error != nullptr) why = error->message;
    g_clear_error(&error);
  }
  GstElementFactory* factory = gst_element_factory_find("vlmdescribe");
  if (factory == nullptr) {
    return failure(vlm::ErrorKind::kNotFound, "GStreamer's element vlmdescribe is missing: " + why);
  }
  gst_object_unref(factory);
  done = true;
  return vlm::ok_status();
}

}  // namespace describe
