// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "vlm/error.h"
#include "vlm/types.h"

namespace vlm {

enum class Activation { kGelu, kGeluTanh, kQuickGelu, kSilu, kRelu };

/// The CLIP tower, with the reference's defaults for absent keys.
struct VisionConfig {
  int64_t hidden_size = 768;
  int64_t intermediate_size = 3072;
  int64_t layers = 12;
  int64_t heads = 12;
  int64_t channels = 3;
  int64_t image_size = 224;  ///< pixels, square
  int64_t patch_size = 32;
  Activation activation = Activation::kQuickGelu;
  double layer_norm_eps = 1e-5;

  int64_t grid() const { return image_size / patch_size; }
  int64_t patches() const { return grid() * grid(); }
};

/// How rotary frequencies are scaled; `factor` and the rest only where the type uses them.
struct RopeConfig {
  enum class Type { kDefault, kLinear, kDynamic, kLlama3 };
  Type type = Type::kDefault;
  double theta = 10000.0;
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  int64_t original_max_positions = 0;
};

/// The language model, with the reference's defaults for absent keys.
struct TextConfig {
  int64_t vocab_size = 32000;
  int64_t hidden_size = 4096;
  int64_t intermediate_size = 11008;
  int64_t layers = 32;
  int64_t heads = 32;
  int64_t kv_heads = 32;
  int64_t head_dim = 128;
  int64_t max_positions = 2048;
  double rms_norm_eps = 1e-6;
  Activation activation = Activation::kSilu;
  bool attention_bias = false;
  bool mlp_bias = false;
  bool tie_word_embeddings = false;
  int64_t sliding_window = 0;  ///< 0: none
  RopeConfig rope;
};

/// Whose files a checkpoint follows, and so whose reference it is compared with: transformers'
/// conversions, or the original project's own.
enum class Layout { kHuggingFace, kOriginal };

/// What becomes of a picture's features (LLaVA llava_arch.py, mm_patch_merge_type).
enum class PatchMerge {
  kFlat,         ///< one tile after the other
  kSpatial,      ///< the picture as a whole, then the tiles' patches row by row over all of them
  kSpatialUnpad  ///< the same without the rows or columns that were only padding, and with a learnt
                 ///< newline at the end of each row, or of a picture without tiles
};

/// Height and width in pixels of what pictures are fitted into.
using TileSizes = std::vector<std::pair<int64_t, int64_t>>;

/// LLaVA-1.6's tiles: a picture as a whole, and cut into tiles of the tower's size.
struct AnyresConfig {
  /// Multiples of the tower's size, in the order in which the layout's reference tries them. Empty:
  /// the checkpoint knows no tiles.
  TileSizes sizes;
  PatchMerge merge = PatchMerge::kFlat;
};

/// Everything config.json says that inference needs.
struct ModelConfig {
  Layout layout = Layout::kHuggingFace;
  VisionConfig vision;
  TextConfig text;
  Activation projector_activation = Activation::kGelu;
  bool projector_bias = true;
  int64_t projector_layers = 2;  ///< linear ones; 0: features go to the decoder as they are
  /// What AspectRatio::kAuto means: kAuto what the preprocessor's configuration says, else itself.
  AspectRatio aspect_ratio = AspectRatio::kAuto;
  AnyresConfig anyres;
  bool image_start_end = false;    ///< original layout: <im_start> and <im_end> around <image>
  bool image_patch_token = false;  ///< original layout: the tokenizer gets <im_patch>
  int64_t max_prompt_tokens = 0;   ///< original layout: later ones are cut off; 0: none are
  bool original_mistral = false;   ///< original layout: the text model is Mistral's
  std::string vision_tower;        ///< original layout: path or hub id of the tower
  std::vector<int64_t> feature_layers = {
      -2};  ///< hidden states taken, concatenated on features; negative counts from the end
  bool keep_cls = false;  ///< feature select strategy `full`
  int64_t image_token_id = 32000;
  DType stored_dtype =
      DType::kAuto;  ///< torch_dtype / dtype of the checkpoint; kAuto: config.json says nothing
  int64_t bos_id = 1;
  std::vector<int64_t> eos_ids = {2};
  std::optional<int64_t> pad_id;

  /// Tokens that the tower makes of one image: a picture, or one of its tiles.
  int64_t image_tokens() const { return vision.patches() + (keep_cls ? 1 : 0); }
  /// Width of what the projector takes.
  int64_t feature_size() const {
    return vision.hidden_size * static_cast<int64_t>(feature_layers.size());
  }
};

/// What generation_config.json sets; unset members leave the default of Options.
struct GenerationDefaults {
  Options options;
  bool do_sample = false;
  std::vector<int64_t> eos_ids;  ///< empty: ModelConfig's
  std::optional<int64_t> pad_id;
};

/// What the picture goes through before the tower: preprocessor_config.json with the class's
/// defaults.
struct PreprocessorConfig {
  bool do_resize = true;
  /// Short side of the result, or exact height × width where both are set.
  std::optional<int64_t> shortest_edge = 224;
  int64_t resize_height = 0;
  int64_t resize_width = 0;
  int resample =
      3;  ///< PIL's numbers: 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming
  bool do_center_crop = true;
  int64_t crop_height = 224;
  int64_t crop_width = 224;
  bool do_rescale = true;
  double rescale_factor = 1.0 / 255.0;
  bool do_normalize = true;
  std::array<double, 3> mean = {0.48145466, 0.4578275, 0.40821073};
  std::array<double, 3> std = {0.26862954, 0.26130258, 0.27577711};
  bool do_pad = false;                  ///< to a square of the mean colour, before resizing
  std::optional<TileSizes> tile_sizes;  ///< of LLaVA-1.6's class, which makes tiles; else absent
};

/// Stands for a picture where the vocabulary has no token for it: the original project's own
/// number.
inline constexpr int64_t kNoImageToken = -200;

/// config.json of either layout; the original one leaves the tower to set_tower. Every size is
/// bounded so that products of three of them fit int64. Errors name file, key, what was expected
/// and found. Reentrant, as are those below.
Result<ModelConfig> load_model_config(const std::string& directory);

/// config.json of a tower's own directory: a whole CLIP's, or its vision half's.
Result<VisionConfig> load_vision_config(const std::string& directory);

/// Completes a configuration of the original layout. `file` is its config.json, for messages.
Status set_tower(ModelConfig& config, const VisionConfig& vision, const std::string& file);

/// generation_config.json; all unset where the directory has none.
Result<GenerationDefaults> load_generation_config(const std::string& directory);

/// The image processor's block of processor_config.json, else preprocessor_config.json.
/// `default_class`: the image processor of files that name none.
Result<PreprocessorConfig> load_preprocessor_config(
    const std::string& directory, const std::string& default_class = "LlavaImageProcessor");

}  // namespace vlm
