// SPDX-License-Identifier: LGPL-2.1-or-later

// For a build with the thread sanitizer: GLib and GStreamer are not instrumented, so it does not
// see what their locks, queues and reference counts order. These take the place of the functions
// that libraries call, tell the sanitizer, and call the real ones.

#include <dlfcn.h>
#include <gst/gst.h>
#include <sanitizer/tsan_interface.h>

namespace {

template <typename Function>
Function* real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

// What other threads did before they released `object` comes before what this one does now.
void acquire(void* object) {
  __tsan_acquire(object);
}
void release(void* object) {
  __tsan_release(object);
}

}  // namespace

#define REAL(name) static auto* const call = real<decltype(name)>(#name)
#define TAKES_THE_PLACE extern "C" __attribute__((visibility("default")))

TAKES_THE_PLACE void g_mutex_lock(GMutex* mutex) {
  REAL(g_mutex_lock);
  call(mutex);
  acquire(mutex);
}

TAKES_THE_PLACE gboolean g_mutex_trylock(GMutex* mutex) {
  REAL(g_mutex_trylock);
  const gboolean locked = call(mutex);
  if (locked) {
    acquire(mutex);
  }
  return locked;
}

TAKES_THE_PLACE void g_mutex_unlock(GMutex* mutex) {
  REAL(g_mutex_unlock);
  release(mutex);
  call(mutex);
}

TAKES_THE_PLACE void g_rec_mutex_lock(GRecMutex* mutex) {
  REAL(g_rec_mutex_lock);
  call(mutex);
  acquire(mutex);
}

TAKES_THE_PLACE gboolean g_rec_mutex_trylock(GRecMutex* mutex) {
  REAL(g_rec_mutex_trylock);
  const gboolean locked = call(mutex);
  if (locked) {
    acquire(mutex);
  }
  return locked;
}

TAKES_THE_PLACE void g_rec_mutex_unlock(GRecMutex* mutex) {
  REAL(g_rec_mutex_unlock);
  release(mutex);
  call(mutex);
}

TAKES_THE_PLACE void g_cond_wait(GCond* condition, GMutex* mutex) {
  REAL(g_cond_wait);
  release(mutex);
  call(condition, mutex);
  acquire(mutex);
}

TAKES_THE_PLACE gboolean g_cond_wait_until(GCond* condition, GMutex* mutex, gint64 end) {
  REAL(g_cond_wait_until);
  release(mutex);
  const gboolean signalled = call(condition, mutex, end);
  acquire(mutex);
  return signalled;
}

TAKES_THE_PLACE void g_async_queue_push(GAsyncQueue* queue, gpointer item) {
  REAL(g_async_queue_push);
  release(queue);
  call(queue, item);
}

TAKES_THE_PLACE gpointer g_async_queue_try_pop(GAsyncQueue* queue) {
  REAL(g_async_queue_try_pop);
  gpointer item = call(queue);
  acquire(queue);
  return item;
}

TAKES_THE_PLACE gpointer g_async_queue_timeout_pop(GAsyncQueue* queue, guint64 timeout) {
  REAL(g_async_queue_timeout_pop);
  gpointer item = call(queue, timeout);
  acquire(queue);
  return item;
}

TAKES_THE_PLACE void g_object_unref(gpointer object) {
  REAL(g_object_unref);
  release(object);
  acquire(object);
  call(object);
}

TAKES_THE_PLACE void gst_object_unref(gpointer object) {
  REAL(gst_object_unref);
  release(object);
  acquire(object);
  call(object);
}

TAKES_THE_PLACE void gst_mini_object_unref(GstMiniObject* object) {
  REAL(gst_mini_object_unref);
  release(object);
  acquire(object);
  call(object);
}

TAKES_THE_PLACE gboolean gst_bus_post(GstBus* bus, GstMessage* message) {
  REAL(gst_bus_post);
  release(bus);
  return call(bus, message);
}

TAKES_THE_PLACE GstMessage* gst_bus_timed_pop_filtered(GstBus* bus, GstClockTime timeout,
                                                       GstMessageType types) {
  REAL(gst_bus_timed_pop_filtered);
  GstMessage* message = call(bus, timeout, types);
  acquire(bus);
  return message;
}
