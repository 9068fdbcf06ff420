# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a random checkpoint is made of: shapes and settings, drawn from a seed."""

import dataclasses
import random

SPECIALS = 3  # <unk>, <s>, </s>
GENERATIONS = ("1.5", "next")
TEXT_MODELS = ("llama", "mistral")
PUBLISHED_TILES = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))  # LLaVA-1.6's grids, rows first


@dataclasses.dataclass
class Vision:
    hidden: int
    heads: int
    layers: int
    intermediate: int
    image: int
    patch: int
    activation: str = "quick_gelu"
    eps: float = 1e-5

    @property
    def patches(self):
        return (self.image // self.patch) ** 2


@dataclasses.dataclass
class Text:
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: int
    intermediate: int
    vocab: int = 0  # set when the tokenizer exists
    activation: str = "silu"
    eps: float = 1e-6
    attention_bias: bool = False
    mlp_bias: bool = False
    tied: bool = False
    max_positions: int = 2048
    theta: float = 10000.0
    sliding_window: object = None  # Mistral's; null is no window


@dataclasses.dataclass
class Spec:
    """Everything that makes a checkpoint. Fields named *_style choose between spellings of the same thing."""
    seed: int
    vision: Vision
    text: Text
    layout: str = "hf"
    generation: str = "1.5"
    text_model: str = "llama"
    grids: tuple = ()  # (rows, columns) of tiles that pictures are fitted into, for generation next
    pieces: int = 400  # sentencepiece pieces
    vocab_multiple: int = 1
    feature_layer: object = -2  # int or list
    select: str = "default"
    projector_activation: str = "gelu"
    projector_bias: bool = True
    rope: str = "default"
    rope_factor: float = 2.0
    rope_original: int = 64
    rope_style: str = "new"  # new: rope_parameters; old: rope_theta and rope_scaling; alias: `type` for `rope_type`
    names_style: str = "classic"
    sharded: bool = False
    dtype: str = "float32"
    dtype_key: str = "dtype"
    explicit_defaults: bool = True  # write keys whose value is the default of the reference
    extra_buffers: bool = False  # position_ids and inv_freq, as old checkpoints carry them
    legacy_tokenizer: object = None  # true, false or absent
    added_tokens_style: str = "config"
    template_style: str = "none"
    preprocessor_style: str = "file"
    preprocessor: dict = dataclasses.field(default_factory=dict)
    eos: list = dataclasses.field(default_factory=lambda: [2])
    generation_config: bool = True

    @property
    def family(self):
        return self.layout, self.generation, self.text_model

    @property
    def pinpoints(self):
        """image_grid_pinpoints: height and width in pixels."""
        return [[rows * self.vision.image, columns * self.vision.image] for rows, columns in self.grids]


def random_family(seed, generation="any", text_model="any"):
    """What is "any" of these, drawn."""
    rng = random.Random(f"family {seed}")
    drawn = rng.choice(GENERATIONS), rng.choice(TEXT_MODELS)
    return (drawn[0] if generation == "any" else generation, drawn[1] if text_model == "any" else text_model)


def random_spec(seed, generation="1.5", text_model="llama"):
    """A checkpoint of a random shape. Only the arguments decide."""
    rng = random.Random(seed)
    heads = rng.choice([1, 2, 3, 4, 8])
    kv_heads = rng.choice([n for n in range(1, heads + 1) if heads % n == 0])
    hidden = heads * rng.choice([8, 10, 12, 16, 24])
    head_dim = rng.choice([hidden // heads] * 3 + [8, 16, 20, 32])
    head_dim += head_dim % 2
    text = Text(
        hidden=hidden, heads=heads, kv_heads=kv_heads, head_dim=head_dim, layers=rng.choice([1, 2, 2, 3, 5]),
        intermediate=rng.choice([17, 48, 64, 96, 160]),
        activation=rng.choice(["silu"] * 4 + ["gelu", "gelu_pytorch_tanh", "relu"]),
        eps=rng.choice([1e-6, 1e-5, 1e-4, 1e-3]), attention_bias=rng.random() < 0.25, mlp_bias=rng.random() < 0.15,
        tied=rng.random() < 0.25, theta=rng.choice([10000.0, 10000.0, 1000000.0, 500.0]))
    vision_heads = rng.choice([1, 2, 3, 4])
    patch = rng.choice([4, 6, 7, 8, 14, 16])
    vision = Vision(
        hidden=vision_heads * rng.choice([8, 12, 16, 20]), heads=vision_heads, layers=rng.choice([2, 3, 4, 5]),
        intermediate=rng.choice([24, 50, 64, 128]), patch=patch,
        image=patch * rng.choice([1, 2, 3, 4, 5, 6]) + rng.choice([0] * 5 + [patch // 2]),
        activation=rng.choice(["quick_gelu"] * 4 + ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"]),
        eps=rng.choice([1e-5, 1e-5, 1e-6, 1e-3]))
    spec = Spec(
        seed=seed, vision=vision, text=text, pieces=rng.choice([330, 360, 400, 500, 700]),
        vocab_multiple=rng.choice([1, 1, 8, 64]), feature_layer=random_feature_layer(rng, vision.layers),
        select=rng.choice(["default", "default", "full"]),
        projector_activation=rng.choice(["gelu"] * 4 + ["gelu_pytorch_tanh", "quick_gelu", "relu", "silu"]),
        projector_bias=rng.random() < 0.8, rope=rng.choice(["default"] * 4 + ["linear", "dynamic", "llama3"]),
        rope_factor=rng.choice([2.0, 4.0, 8.0, 1.5]), rope_original=rng.choice([32, 64, 256]),
        rope_style=rng.choice(["new", "old", "alias"]),
        names_style=rng.choice(["classic", "classic", "memory", "fresh", "memory_fresh"]),
        sharded=rng.random() < 0.3, dtype=rng.choice(["float32"] * 3 + ["float16", "bfloat16"]),
        dtype_key=rng.choice(["dtype", "torch_dtype", "absent"]), explicit_defaults=rng.random() < 0.6,
        extra_buffers=rng.random() < 0.2, legacy_tokenizer=rng.choice([True, False, None]),
        added_tokens_style=rng.choice(["config", "config", "file"]),
        template_style=rng.choice(["none", "json", "jinja", "tokenizer_config", "processor_config"]),
        preprocessor_style=rng.choice(["file", "file", "nested"]), generation_config=rng.random() < 0.85)
    spec.preprocessor = random_preprocessor(rng, vision.image)
    if generation == "next":
        make_next(random.Random(f"next {seed}"), spec)
    if text_model == "mistral":
        make_mistral(random.Random(f"mistral {seed}"), spec)
    if spec.rope == "dynamic":
        # Some prompts are longer already, others grow out of it; the context is `factor` times as long.
        text.max_positions = spec_image_tokens(spec) + rng.choice([24, 40, 70])
        spec.rope_factor = max(spec.rope_factor, 4.0)
    if spec.generation_config and rng.random() < 0.6:
        # Ordinary tokens that end a text: a random model would hardly ever come to </s>.
        spec.eos += [rng.randrange(SPECIALS, spec.pieces) for _ in range(rng.choice([1, 2, 12, 40]))]
        spec.eos = list(dict.fromkeys(spec.eos))
    return spec


def make_next(rng, spec):
    """Turns a LLaVA-1.5 into a LLaVA-1.6."""
    vision = spec.vision
    spec.generation, spec.select = "next", "default"
    if rng.random() < 0.15:  # the sizes that the defaults of pinpoints are made for
        vision.image, vision.patch = 336, rng.choice([48, 84, 112, 168])
        spec.preprocessor = random_preprocessor(rng, vision.image)
        spec.grids = PUBLISHED_TILES
    else:
        shapes = [(rows, columns) for rows in range(1, 6) for columns in range(1, 6) if rows * columns <= 6]
        spec.grids = tuple(rng.choice([PUBLISHED_TILES, PUBLISHED_TILES[::-1], ((1, 1),), ((2, 3),), ((5, 1), (1, 2)),
                                       rng.sample(shapes, rng.randrange(1, 7))]))
    config = spec.preprocessor
    config["image_processor_type"] = "LlavaNextImageProcessor"
    config.pop("do_pad", None)
    if rng.random() < 0.5:
        config["do_pad"] = True
    if not config.get("do_center_crop", True):
        config["crop_size"] = {"height": vision.image, "width": vision.image}  # tiles are cut to it all the same
    if spec.explicit_defaults or spec.grids != PUBLISHED_TILES or vision.image != 336:
        config["image_grid_pinpoints"] = spec.pinpoints


def make_mistral(rng, spec):
    """Turns a Llama text model into a Mistral, with a window below, around and above the length of a prompt."""
    text = spec.text
    spec.text_model, text.attention_bias, text.mlp_bias = "mistral", False, False
    text.max_positions = 131072 if rng.random() < 0.5 else 4096
    text.sliding_window = rng.choice([None, 1, 2, 7, 4096, *(spec_image_tokens(spec) + n for n in (3, 9, 15, 22, 30))])


def random_feature_layer(rng, layers):
    def one():
        return rng.choice([-2, -2, -1, -layers, rng.randrange(0, layers + 1), -rng.randrange(1, layers + 2)])
    if rng.random() < 0.25:
        return [one() for _ in range(rng.choice([1, 2, 3]))]
    return one()


def random_preprocessor(rng, image):
    """Settings that always end in pictures of image × image."""
    config = {"image_processor_type": "CLIPImageProcessor", "do_convert_rgb": True}
    kind = rng.choice(["crop", "crop", "crop", "square", "square_crop", "short_small", "unresized"])
    square = {"height": image, "width": image}
    if kind == "crop":
        config.update(size={"shortest_edge": image}, crop_size=square, do_center_crop=True)
    elif kind == "square":
        config.update(size=square, do_center_crop=False)
    elif kind == "square_crop":
        config.update(size={"height": image + rng.randrange(0, 20), "width": image + rng.randrange(0, 20)},
                      crop_size=square, do_center_crop=True)
    elif kind == "short_small":
        config.update(size={"shortest_edge": max(1, image - rng.randrange(-9, 9))}, crop_size=square,
                      do_center_crop=True)
    else:
        config.update(do_resize=False, crop_size=square, do_center_crop=True)
    if kind in ("crop", "square") and rng.random() < 0.35:
        config.update(image_processor_type="LlavaImageProcessor", do_pad=True)
    if kind == "crop" and rng.random() < 0.3:  # the form that OpenAI's CLIP files have
        config.update(size=image, crop_size=image)
    config["resample"] = rng.choice([3, 3, 3, 3, 2, 1, 0, 4, 5])
    if rng.random() < 0.3:
        config["image_mean"] = [rng.uniform(0.3, 0.6) for _ in range(3)]
        config["image_std"] = [rng.uniform(0.2, 0.5) for _ in range(3)]
    if rng.random() < 0.2:
        config["rescale_factor"] = rng.choice([0.00392156862745098, 1 / 256, 1 / 127.5])
    if rng.random() < 0.1:
        config["do_normalize"] = False
    return config


def spec_image_tokens(spec):
    """The most tokens that one picture can take."""
    vision = spec.vision
    side = vision.image // vision.patch
    tiles = max((rows * side * (columns * side + 1) for rows, columns in spec.grids), default=0)
    return vision.patches + (1 if spec.select == "full" else 0) + tiles
