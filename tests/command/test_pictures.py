# SPDX-License-Identifier: LGPL-2.1-or-later
"""Still pictures are decoded to the very values that Pillow gives."""

import io
import random
import struct
import subprocess
import zlib

import numpy
import pytest
from PIL import Image, ImageOps

from conftest import program


class Decoder:
    """The command's own picture decoder, one process for all pictures."""

    def __init__(self):
        self.process = subprocess.Popen(
            [program("VLM_PICTURE_DUMP")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, path):
        self.process.stdin.write(str(path).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline().decode()
        assert line, f"the decoder died on {path}"
        if line.startswith("error "):
            return line[6:].strip()
        width, height = map(int, line.split())
        data = self.process.stdout.read(width * height * 3)
        return numpy.frombuffer(data, numpy.uint8).reshape(height, width, 3)


@pytest.fixture(scope="module")
def decode():
    return Decoder()


def reference(path):
    with Image.open(path) as image:
        return numpy.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def noise(seed, width, height, channels, smooth=True):
    """Something with edges, gradients and noise."""
    rng = numpy.random.default_rng(seed)
    y, x = numpy.mgrid[0:height, 0:width]
    planes = []
    for _ in range(channels):
        wave = 127 + 90 * numpy.sin(x / rng.uniform(2, 20)) * numpy.cos(y / rng.uniform(2, 20))
        if rng.random() < 0.5:
            wave[height // 3:, width // 2:] = rng.integers(0, 256)
        planes.append(wave + rng.normal(0, 12 if smooth else 60, (height, width)))
    array = numpy.clip(numpy.stack(planes, -1), 0, 255).astype(numpy.uint8)
    return array[..., 0] if channels == 1 else array


SIZES = [(1, 1), (7, 5), (8, 8), (33, 17), (64, 48), (101, 99), (257, 3)]
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "YCbCr": 3}


def picture(mode, size, seed):
    if mode == "1":
        return Image.fromarray(noise(seed, *size, 1)).convert("1")
    if mode == "P":
        colours = random.Random(seed).choice([2, 3, 4, 15, 16, 17, 100, 256])
        return Image.fromarray(noise(seed, *size, 3)).quantize(colours)
    if mode == "I;16":
        rng = numpy.random.default_rng(seed)
        return Image.fromarray(rng.integers(0, 700, size[::-1]).astype(numpy.uint16))
    return Image.fromarray(noise(seed, *size, CHANNELS[mode]), mode)


def check(decode, path):
    want = reference(path)
    got = decode(path)
    assert not isinstance(got, str), got
    assert got.shape == want.shape
    assert (got == want).all(), f"{(got != want).any(-1).sum()} pixels differ in {path}"


CASES = [(mode, "png", {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
CASES += [("P", "png", {"transparency": 1}), ("L", "png", {"transparency": 100}),
          ("RGB", "png", {"transparency": (1, 2, 3)}), ("P", "png", {"transparency": b"\0\x80\xff"})]
CASES += [("RGB", "jpg", {"quality": q, "subsampling": s, "progressive": p})
          for q in (5, 60, 95) for s in (0, 1, 2) for p in (False, True)]
CASES += [("L", "jpg", {"quality": 70}), ("CMYK", "jpg", {"quality": 80}),
          ("RGB", "jpg", {"quality": 80, "restart_marker_rows": 1})]
CASES += [("RGB", "webp", {"quality": 40}), ("RGB", "webp", {"lossless": True}),
          ("RGBA", "webp", {"quality": 60}), ("RGBA", "webp", {"lossless": True, "exact": True})]
CASES += [("P", "gif", {}), ("L", "gif", {}), ("1", "gif", {}), ("P", "gif", {"interlace": 0}),
          ("P", "gif", {"transparency": 1})]
CASES += [(mode, "bmp", {}) for mode in ("1", "L", "P", "RGB", "RGBA")]
CASES += [(mode, "ppm", {}) for mode in ("1", "L", "RGB", "I;16")]


@pytest.mark.parametrize("mode,extension,options", CASES,
                         ids=[f"{m}-{e}-{'-'.join(map(str, o.values()))}" for m, e, o in CASES])
def test_pixels_equal_the_reference(decode, tmp_path, mode, extension, options):
    for seed, size in enumerate(SIZES):
        path = tmp_path / f"{seed}.{extension}"
        picture(mode, size, seed).save(path, **options)
        check(decode, path)


@pytest.mark.parametrize("orientation", range(0, 10))
@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_exif_orientation_is_honoured(decode, tmp_path, orientation, extension, byte_order):
    entry = struct.pack(byte_order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = (b"II*\0" if byte_order == "<" else b"MM\0*") + struct.pack(byte_order + "IH", 8, 1)
    exif += entry + b"\0\0\0\0"
    path = tmp_path / f"turned.{extension}"
    options = {"lossless": True} if extension == "webp" else {}
    picture("RGB", (31, 18), 4).save(path, exif=b"Exif\0\0" + exif, **options)
    check(decode, path)


@pytest.mark.parametrize("text", ['<x tiff:Orientation="6"/>', "<tiff:Orientation>8<", "nothing"])
@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_orientation_in_xmp_is_honoured(decode, tmp_path, text, extension):
    path = tmp_path / f"xmp.{extension}"
    options = {"xmp": text.encode()}
    if extension == "png":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", text)
        options = {"pnginfo": info}
    picture("RGB", (31, 18), 5).save(path, **options)
    check(decode, path)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_file(width, height, depth, colour, rows, interlace=0, palette=b"", extra=b""):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra +
            (chunk(b"PLTE", palette) if palette else b"") +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
         (0, 1, 1, 2)]


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("depth,colour", [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2),
                                          (1, 3), (2, 3), (4, 3), (8, 3), (8, 4), (16, 4), (8, 6),
                                          (16, 6)])
def test_every_kind_of_png(decode, tmp_path, depth, colour, interlace):
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    rng = numpy.random.default_rng(depth * 10 + colour)
    palette = rng.bytes(3 * min(200, 1 << depth)) if colour == 3 else b""
    for width, height in [(1, 1), (9, 6), (40, 31)]:
        rows = b""
        for x0, y0, dx, dy in ADAM7 if interlace else [(0, 0, 1, 1)]:
            columns, lines = -(-(width - x0) // dx), -(-(height - y0) // dy)
            if columns > 0 and lines > 0:
                size = -(-columns * depth * channels // 8)
                rows += b"".join(b"\0" + rng.bytes(size) for _ in range(lines))
        path = tmp_path / f"{width}.png"
        path.write_bytes(png_file(width, height, depth, colour, rows, interlace, palette,
                                  chunk(b"gAMA", struct.pack(">I", 220000))))
        check(decode, path)


def test_jpeg_subsampling_in_height_only(decode, tmp_path):
    """4:4:0 and 4:1:1, which Pillow can't write: GStreamer's encoder makes them."""
    for name, caps in [("440", "Y444"), ("411", "Y41B"), ("422", "Y42B"), ("420", "I420")]:
        path = tmp_path / f"{name}.jpg"
        subprocess.run(["gst-launch-1.0", "-q", "videotestsrc", "num-buffers=1", "!",
                        f"video/x-raw,format={caps},width=77,height=45", "!", "jpegenc", "!",
                        "filesink", f"location={path}"], check=True, stdout=subprocess.DEVNULL)
        data = bytearray(path.read_bytes())
        if name == "440":  # relabelled: the same blocks, another sampling
            at = data.index(b"\xff\xc0")
            data[at + 11] = 0x11
            path.write_bytes(data)
        check(decode, path)


def test_plain_and_scaled_pnm(decode, tmp_path):
    rng = random.Random(3)
    files = {
        "P1": b"P1\n# comment\n5 3\n" + b"10110 0 1 0 0 1\n11011",
        "P2": b"P2 4 2 15\n" + b" ".join(b"%d" % rng.randrange(16) for _ in range(8)),
        "P2w": b"P2 4 2 1000\n" + b" ".join(b"%d" % rng.randrange(1001) for _ in range(8)),
        "P3": b"P3\n2 2\n#x\n7\n" + b"\n".join(b"%d" % rng.randrange(8) for _ in range(12)) + b"\n",
        "P5": b"P5 16 16 100\n" + bytes(rng.randrange(101) for _ in range(256)),
        "P5w": b"P5 8 8 65535\n" + rng.randbytes(128),
        "P5t": b"P5 8 8 1023\n" + b"".join(struct.pack(">H", rng.randrange(1024)) for _ in range(64)),
        "P6w": b"P6 8 8 1023\n" + b"".join(struct.pack(">H", rng.randrange(1024)) for _ in range(192)),
        "P6s": b"P6 8 8 31\n" + bytes(rng.randrange(32) for _ in range(192)),
    }
    for name, data in files.items():
        path = tmp_path / f"{name}.ppm"
        path.write_bytes(data)
        check(decode, path)


def bmp_file(width, height, bits, pixels, compression=0, masks=b"", palette=b"", colours=0):
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(pixels), 0, 0,
                         colours, 0)
    offset = 14 + len(header) + len(masks) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + header + masks + \
        palette + pixels


def test_kinds_of_bmp(decode, tmp_path):
    rng = random.Random(9)
    palette = rng.randbytes(64)
    files = {
        "15": bmp_file(5, 4, 16, rng.randbytes(12 * 4)),
        "16": bmp_file(5, 4, 16, rng.randbytes(12 * 4), 3, struct.pack("<III", 0xf800, 0x7e0, 0x1f)),
        "down": bmp_file(5, -4, 24, rng.randbytes(16 * 4)),
        "32": bmp_file(5, 4, 32, rng.randbytes(20 * 4)),
        "rgbx": bmp_file(5, 4, 32, rng.randbytes(80), 3, struct.pack("<III", 0xff0000, 0xff00, 0xff)),
        "4": bmp_file(5, 4, 4, rng.randbytes(4 * 4), palette=palette, colours=16),
        "rle8": bmp_file(6, 3, 8, b"\x06\x01\0\0\0\x04\x02\x03\x04\x05\x02\x07\0\0\x06\x02\0\1", 1,
                         palette=palette, colours=16),
        "rle4": bmp_file(6, 2, 4, b"\x06\x12\0\0\0\x06\x34\x56\x78\0\0\1", 2, palette=palette,
                         colours=16),
    }
    for name, data in files.items():
        path = tmp_path / f"{name}.bmp"
        path.write_bytes(data)
        check(decode, path)


def test_animations_give_their_first_frame(decode, tmp_path):
    frames = [picture("RGB", (40, 30), seed) for seed in range(3)]
    for extension in ("gif", "webp", "png"):
        path = tmp_path / f"animated.{extension}"
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
        check(decode, path)


def test_photographs_from_elsewhere(decode):
    skimage = pytest.importorskip("skimage")
    import pathlib

    folder = pathlib.Path(skimage.__file__).parent / "data"
    paths = [p for p in sorted(folder.iterdir()) if p.suffix in (".png", ".jpg", ".jpeg", ".gif")]
    assert paths
    for path in paths:
        check(decode, path)


@pytest.mark.parametrize("extension,options", [
    ("jpg", {}), ("jpg", {"progressive": True}), ("png", {}), ("webp", {}),
    ("webp", {"lossless": True}), ("gif", {}), ("bmp", {}), ("ppm", {})])
def test_broken_files_give_one_sentence(decode, tmp_path, extension, options):
    """Every truncation, and thousands of damaged copies: an error or a picture, never a crash."""
    source = io.BytesIO()
    mode = "P" if extension == "gif" else "RGB"
    picture(mode, (37, 29), 1).save(source, {"jpg": "jpeg"}.get(extension, extension), **options)
    data = source.getvalue()
    path = tmp_path / f"broken.{extension}"
    for size in [0, 1, 2, 8, 12, 20, 40, *range(60, len(data) // 2, 37)]:
        path.write_bytes(data[:size])
        got = decode(path)
        assert isinstance(got, str), f"{size} of {len(data)} bytes were taken for a picture"
        assert got.startswith("is ") and "\n" not in got
    rng = random.Random(7)
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 8])):
            damaged[rng.randrange(min(len(data), rng.choice([40, 200, len(data)])))] = rng.randrange(256)
        path.write_bytes(damaged)
        decode(path)


def test_huge_sizes_are_refused_before_memory_is_taken(decode, tmp_path):
    path = tmp_path / "huge"
    path.write_bytes(png_file(100000, 100000, 8, 2, b"\0" * 100))
    assert decode(path) == "is too large: 100000 × 100000 pixels, at most 178956970 are read"
    path.write_bytes(b"P6 99999 99999 255\n" + b"\0" * 100)
    assert "is too large" in decode(path)
    path.write_bytes(b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," +
                     struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x08")
    assert "is too large" in decode(path)
    path.write_bytes(bmp_file(60000, 60000, 24, b"\0" * 100))
    assert "is too large" in decode(path)
    path.write_bytes(bmp_file(10000, 10000, 24, b"\0" * 100))
    assert decode(path) == "is a broken BMP picture: the file ends in the middle of the picture"


def test_other_files_are_named_as_such(decode, tmp_path):
    path = tmp_path / "text"
    path.write_text("hello")
    assert decode(path) == ("is not a picture that can be read (JPEG, PNG, WebP, GIF, BMP and PNM "
                            "are)")
    assert decode(tmp_path / "absent") == "does not exist"
