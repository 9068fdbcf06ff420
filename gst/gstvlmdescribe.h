// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

#define GST_TYPE_VLM_DESCRIBE (gst_vlm_describe_get_type())
G_DECLARE_FINAL_TYPE(GstVlmDescribe, gst_vlm_describe, GST, VLM_DESCRIBE, GstElement)

GST_ELEMENT_REGISTER_DECLARE(vlmdescribe)

G_END_DECLS
