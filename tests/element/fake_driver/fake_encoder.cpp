// SPDX-License-Identifier: LGPL-2.1-or-later

// An encoder's library that opens no encoder: with it GStreamer's nvcodec plugin offers cudaupload
// and cudadownload.

#include <cstdint>

namespace {

constexpr int kFailed = 1;
constexpr int kFunctions = 38;

int refuse() {
  return kFailed;
}

struct FunctionList {  // NV_ENCODE_API_FUNCTION_LIST, as far as it holds functions
  uint32_t version, reserved;
  int (*functions[kFunctions])();
};

}  // namespace

#define FAKE extern "C" __attribute__((visibility("default")))

FAKE int NvEncodeAPIGetMaxSupportedVersion(uint32_t* version) {
  *version = 13U << 4;
  return 0;
}

FAKE int NvEncodeAPICreateInstance(FunctionList* list) {
  for (auto& function : list->functions) {
    function = refuse;
  }
  return 0;
}
