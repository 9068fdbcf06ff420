// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gst/gst.h>

#include "gstvlmdescribe.h"
#include "gstvlmdescription.h"


static gboolean plugin_init(GstPlugin* plugin) {
  GST_DEBUG_CATEGORY_INIT(gst_vlm_debug, "vlm", 0, "video described by vision-language models");
  gstvlm::register_description_meta();
  return GST_ELEMENT_REGISTER(vlmdescribe, plugin);
}

GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, vlm,
                  "Describes video with vision-language models", plugin_init, VERSION, "LGPL",
                  "gst-vlm", GST_PACKAGE_ORIGIN)
