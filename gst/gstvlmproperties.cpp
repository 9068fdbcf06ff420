// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmproperties.h"

namespace gstvlm {
namespace {

void install_model(GObjectClass* klass) {
  /**
   * GstVlmDescribe:model:
   *
   * Checkpoint directory, or the id of one in the local cache of the Hugging Face hub. Not set:
   * $VLM_MODEL, else the demo model that is installed with the plugin, which knows drawn scenes of
   * coloured shapes only.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_MODEL,
      g_param_spec_string("model", "Model",
                          "Checkpoint directory, or a hub id in the local cache (not set: "
                          "$VLM_MODEL, else the demo model)",
                          nullptr, kReady));
  /**
   * GstVlmDescribe:vision-tower:
   *
   * Directory of the vision tower, for checkpoints in LLaVA's original layout that hold none.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_VISION_TOWER,
      g_param_spec_string("vision-tower", "Vision tower",
                          "Directory of the vision tower, for checkpoints that hold none", nullptr,
                          kReady));
  /**
   * GstVlmDescribe:model-base:
   *
   * Directory of the base model, for checkpoints that hold only a projector or a LoRA.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_MODEL_BASE,
      g_param_spec_string(
          "model-base", "Model base",
          "Directory of the base model, for checkpoints of only a projector or a LoRA", nullptr,
          kReady));
  /**
   * GstVlmDescribe:device:
   *
   * Where the model runs: auto (a GPU where there is one), cpu, cuda, cuda:N.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_DEVICE,
      g_param_spec_string("device", "Device", "Where the model runs: auto, cpu, cuda or cuda:N",
                          DEFAULT_DEVICE, kReady));
  /**
   * GstVlmDescribe:dtype:
   *
   * Data type of weights and arithmetic.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_DTYPE,
      g_param_spec_enum("dtype", "Data type", "Data type of weights and arithmetic", dtype_type(),
                        nick(DEFAULT_DTYPE), kReady));
  /**
   * GstVlmDescribe:quantization:
   *
   * How weights are held and multiplied: less memory and faster, less exact. int8
   * and int4 round the language model's weights alone: int8 with a scale for each
   * output, int4 with one for each 32 inputs. w8a8 and w4a8 are the same and, on a
   * CPU that multiplies bytes faster than 16-bit numbers (AVX-512 with VNNI and BF16, no
   * AMX, dtype bfloat16), also hold the vision tower's weights in 8 bits and round what
   * pictures and prompts are multiplied by to 8 bits, with a scale for each 128 values.
   * With AVX2 alone they hold the tower's so, too; there 15 bits are as fast as 8, except with
   * weights in 4 bits, where w4a8 rounds what meets those to 8 bits, with a scale for each
   * 32 values, in the steps that write the text, too.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_QUANTIZATION,
      g_param_spec_enum(
          "quantization", "Quantization",
          "How the language model's weights are held: in 8 or 4 bits they take less memory and are "
          "faster and less exact; w8a8 and w4a8 are multiplied in 8 bits, too, where that is "
          "faster",
          quantization_type(), nick(DEFAULT_QUANTIZATION), kReady));
  /**
   * GstVlmDescribe:trace:
   *
   * File that the tensors of the first request are written to, in the safetensors format.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_TRACE,
      g_param_spec_string("trace", "Trace", "File for the first request's tensors (safetensors)",
                          nullptr, kReady));
}

void install_question(GObjectClass* klass) {
  /**
   * GstVlmDescribe:active:
   *
   * Whether video is described at all. Where false it only passes, without the last
   * description, too.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_ACTIVE,
      g_param_spec_boolean("active", "Active", "Describe the video; if false it only passes",
                           DEFAULT_ACTIVE, kControllable));
  /**
   * GstVlmDescribe:prompt:
   *
   * What is asked about the frames, from the next window on.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_PROMPT,
      g_param_spec_string("prompt", "Prompt",
                          "Instruction or question about the frames, from the next window on",
                          DEFAULT_PROMPT, kControllable));
  /**
   * GstVlmDescribe:prompt-format:
   *
   * Conversation template: auto, hf, raw, vicuna_v1 (v1), llava_v1, v1_mmtag, llava_v0, v0
   * (default), v0_mmtag, llava_llama_2, llama_2, llava_llama_3, mistral_instruct, chatml_direct
   * (mistral_direct), mpt, plain (v0_plain). With raw the prompt is the whole text, `<image>`
   * included.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_PROMPT_FORMAT,
      g_param_spec_string("prompt-format", "Prompt format",
                          "Conversation template: auto (the checkpoint's own), hf, raw, vicuna_v1 "
                          "(v1), llava_v1, v1_mmtag, llava_v0, v0 (default), v0_mmtag, "
                          "llava_llama_2, llama_2, llava_llama_3, mistral_instruct, chatml_direct "
                          "(mistral_direct), mpt or plain (v0_plain)",
                          DEFAULT_PROMPT_FORMAT, kPlaying));
  /**
   * GstVlmDescribe:system-prompt:
   *
   * Replaces the template's system text.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_SYSTEM_PROMPT,
      g_param_spec_string("system-prompt", "System prompt",
                          "Replaces the template's system text (not set: the template's own)",
                          nullptr, kPlaying));
  /**
   * GstVlmDescribe:image-aspect-ratio:
   *
   * How a frame is fitted to the square that the model sees.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_IMAGE_ASPECT_RATIO,
      g_param_spec_enum("image-aspect-ratio", "Image aspect ratio",
                        "How a frame is fitted to the model's picture", aspect_ratio_type(),
                        nick(DEFAULT_IMAGE_ASPECT_RATIO), kControllable));
}

void install_windows(GObjectClass* klass) {
  /**
   * GstVlmDescribe:interval:
   *
   * Stream time in nanoseconds that one description covers; less than a millisecond is taken for
   * one. A frame that is shown for longer is described again for each interval that it is still
   * shown in; of a live source for the last 64 that have ended when the next one comes, those
   * before count as passed over. 0, only with frames=1: a live source is described as often as the
   * model is free, of a recording every frame.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_INTERVAL,
      g_param_spec_uint64("interval", "Interval",
                          "Stream time covered by one description, in nanoseconds, 1 ms at "
                          "least (0: live as often as the model is free, recorded every frame)",
                          0, G_MAXINT64, DEFAULT_INTERVAL, kControllable));
  /**
   * GstVlmDescribe:frames:
   *
   * Frames that one description looks at, evenly spread over its interval.
   *
   * Since: 0.1
   */
  g_object_class_install_property(klass, PROP_FRAMES,
                                  g_param_spec_uint("frames", "Frames", "Frames per description", 1,
                                                    G_MAXUINT16, DEFAULT_FRAMES, kControllable));
  /**
   * GstVlmDescribe:mode:
   *
   * Whether video may wait for descriptions. auto asks upstream with a LATENCY query at the first
   * buffer of each stream; if the query fails it takes the source for live, and warns of it.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_MODE,
      g_param_spec_enum("mode", "Mode", "Whether video may wait for descriptions", mode_type(),
                        nick(DEFAULT_MODE), kReady));
  /**
   * GstVlmDescribe:max-pending:
   *
   * Recorded mode: windows that may be on their way through the model before video waits.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_MAX_PENDING,
      g_param_spec_uint("max-pending", "Max pending",
                        "Recorded mode: windows on their way before video waits", 1, G_MAXUINT16,
                        DEFAULT_MAX_PENDING, kPlaying));
  /**
   * GstVlmDescribe:eos-timeout:
   *
   * Live mode: how long EOS waits for descriptions that are on their way, in nanoseconds.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_EOS_TIMEOUT,
      g_param_spec_uint64("eos-timeout", "EOS timeout",
                          "Live mode: how long EOS waits for descriptions, in nanoseconds", 0,
                          G_MAXINT64, DEFAULT_EOS_TIMEOUT, kPlaying));
}

void install_deliveries(GObjectClass* klass) {
  /**
   * GstVlmDescribe:text-timing:
   *
   * Timestamps of the text pad: the time of the video that a text describes, or of the newest
   * video that has passed when it is ready.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_TEXT_TIMING,
      g_param_spec_enum("text-timing", "Text timing", "Timestamps of the text pad",
                        text_timing_type(), nick(DEFAULT_TEXT_TIMING), kReady));
  /**
   * GstVlmDescribe:latency:
   *
   * Live with text-timing=window: time in nanoseconds a description may take after its window's
   * end. The text pad then reports upstream's latency + interval + this.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_LATENCY,
      g_param_spec_uint64("latency", "Latency",
                          "Live with text-timing=window: time allowed after a window's end, in "
                          "nanoseconds",
                          0, G_MAXINT64, DEFAULT_LATENCY, kPlaying));
  /**
   * GstVlmDescribe:meta-policy:
   *
   * Which description the GstCustomMeta "vlm-description" on video buffers holds. exact is for
   * recorded mode only: buffers are held until the description of their window is there.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_META_POLICY,
      g_param_spec_enum("meta-policy", "Meta policy", "Which description video buffers carry",
                        meta_policy_type(), nick(DEFAULT_META_POLICY), kReady));
  /**
   * GstVlmDescribe:max-held-bytes:
   *
   * meta-policy=exact: bytes of video that may be held until they are described. A window larger
   * than that is an error. The frames that the model is to look at do not count, with any policy:
   * there is a copy of each, for as many windows as may be on their way. Those are max-pending and
   * one more of a recording, three of a live source, with as many pictures each as `frames` says,
   * of the frame's bytes or of 3 for each pixel where that is more.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_MAX_HELD_BYTES,
      g_param_spec_uint64("max-held-bytes", "Max held bytes",
                          "meta-policy=exact: bytes of video that may be held until they are "
                          "described; copies of frames for the model do not count",
                          0, G_MAXUINT64, DEFAULT_MAX_HELD_BYTES, kPlaying));
  /**
   * GstVlmDescribe:partial:
   *
   * Post messages with the growing text, `partial` set, while a description is made.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_PARTIAL,
      g_param_spec_boolean("partial", "Partial", "Post messages with the growing text",
                           DEFAULT_PARTIAL, kPlaying));
  /**
   * GstVlmDescribe:details:
   *
   * Messages also carry token ids, log-probabilities, counts and timings.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_DETAILS,
      g_param_spec_boolean("details", "Details",
                           "Messages also carry token ids, log-probabilities and timings",
                           DEFAULT_DETAILS, kPlaying));
  /**
   * GstVlmDescribe:on-error:
   *
   * What the failure of one description does: stop the element with an error, or be a warning and
   * count as failed. That the model's memory does not suffice for it is such a failure. Losing the
   * device always stops the element, and so does a lack of memory in the element itself.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_ON_ERROR,
      g_param_spec_enum(
          "on-error", "On error",
          "What the failure of one description does, one for want of memory included; "
          "losing the device always stops",
          on_error_type(), nick(DEFAULT_ON_ERROR), kPlaying));
  /**
   * GstVlmDescribe:stats-interval:
   *
   * Period in nanoseconds of the element message `vlm-stats`, of a millisecond at least; 0: none.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_STATS_INTERVAL,
      g_param_spec_uint64("stats-interval", "Stats interval",
                          "Period of `vlm-stats` messages in nanoseconds, 1 ms at least (0: none)",
                          0, G_MAXINT64, DEFAULT_STATS_INTERVAL, kPlaying));
  /**
   * GstVlmDescribe:last-description:
   *
   * Text of the newest description.
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_LAST_DESCRIPTION,
      g_param_spec_string("last-description", "Last description", "Text of the newest description",
                          nullptr,
                          static_cast<GParamFlags>(G_PARAM_READABLE | G_PARAM_STATIC_STRINGS)));
  /**
   * GstVlmDescribe:stats:
   *
   * Structure `vlm-stats`: frames, windows, described, passed-over, failed, waiting (uint64),
   * latency-mean, latency-p95, latency-max (uint64, ns), tokens-per-second (double).
   *
   * Since: 0.1
   */
  g_object_class_install_property(
      klass, PROP_STATS,
      g_param_spec_boxed(
          "stats", "Statistics", "Counts of frames and windows, latencies in nanoseconds, tokens/s",
          GST_TYPE_STRUCTURE, static_cast<GParamFlags>(G_PARAM_READABLE | G_PARAM_STATIC_STRINGS)));
}

}  // namespace

void install_properties(GObjectClass* klass) {
  install_model(klass);
  install_question(klass);
  install_windows(klass);
  install_generation(klass);
  install_deliveries(klass);
}

}  // namespace gstvlm
