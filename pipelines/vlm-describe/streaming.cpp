// SPDX-License-Identifier: LGPL-2.1-or-later
#include "streaming.h"

namespace describe {

namespace {

gboolean note_task(GstElement*, GstPad* pad, gpointer running) {
  if (gst_pad_get_task_state(pad) == GST_TASK_STARTED) *static_cast<bool*>(running) = true;
  return TRUE;
}

void note_tasks(const GValue* element, gpointer running) {
  gst_element_foreach_pad(GST_ELEMENT(g_value_get_object(element)), note_task, running);
}

}  // namespace

bool has_running_task(GstBin* bin) {
  bool running = false;
  GstIterator* elements = gst_bin_iterate_recurse(bin);
  while (gst_iterator_foreach(elements, note_tasks, &running) == GST_ITERATOR_RESYNC) {
    gst_iterator_resync(elements);
  }
  gst_iterator_free(elements);
  return running;
}

}  // namespace describe
