"""Every kind of picture that people have: the right pixels, or a clear reason."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from igos_pl.data import images
from igos_pl.data.geometry import Frame
from igos_pl.data.images import MAX_BYTES, decode_image, displayed, find_images, read_image, to_input
from igos_pl.errors import IgosError, UnreadError

ROOT = str(Path(images.__file__).resolve().parents[2])
RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def halves(left: tuple[int, ...], right: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    """A 40 x 20 picture of two colours."""
    picture = Image.new(mode, (40, 20), left)
    picture.paste(right, (20, 0, 40, 20))
    return picture


def colors(path: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The colours well inside of the left and the right half."""
    picture = read_image(path)
    assert picture.mode == "RGB"
    assert picture.size == (40, 20)
    return picture.getpixel((5, 10)), picture.getpixel((35, 10))


def test_color(tmp_path: Path) -> None:
    halves(RED, GREEN).save(tmp_path / "a.png")
    assert colors(tmp_path / "a.png") == (RED, GREEN)


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp", "bmp"])
def test_grey(tmp_path: Path, ending: str) -> None:
    Image.fromarray(np.full((20, 40), 120, np.uint8)).save(tmp_path / f"a.{ending}")
    left, right = colors(tmp_path / f"a.{ending}")
    assert left == right
    assert np.abs(np.subtract(left, 120)).max() <= 1


def test_palette(tmp_path: Path) -> None:
    halves(RED, GREEN).convert("P").save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "P"
    assert colors(tmp_path / "a.png") == (RED, GREEN)


def test_palette_with_transparency_is_put_on_white(tmp_path: Path) -> None:
    picture = Image.fromarray(np.repeat([[0] * 20 + [1] * 20], 20, 0).astype(np.uint8))
    picture.putpalette([*RED, *GREEN])
    picture.save(tmp_path / "a.png", transparency=1)
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "P"
        assert "transparency" in stored.info
    assert colors(tmp_path / "a.png") == (RED, WHITE)


def test_transparent_color_is_put_on_white(tmp_path: Path) -> None:
    halves(RED, GREEN).save(tmp_path / "a.png", transparency=GREEN)
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "RGB"
    assert colors(tmp_path / "a.png") == (RED, WHITE)


def test_alpha_is_put_on_white(tmp_path: Path) -> None:
    halves((*RED, 255), (*GREEN, 0), "RGBA").save(tmp_path / "a.png")
    assert colors(tmp_path / "a.png") == (RED, WHITE)
    halves((0, 0, 0, 255), (0, 0, 0, 128), "RGBA").save(tmp_path / "b.png")
    assert colors(tmp_path / "b.png") == ((0, 0, 0), (127, 127, 127))


def test_grey_with_alpha(tmp_path: Path) -> None:
    halves((50, 255), (50, 0), "LA").save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "LA"
    assert colors(tmp_path / "a.png") == ((50, 50, 50), WHITE)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    halves((0, 0, 0, 0), (0, 255, 255, 0), "CMYK").save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as stored:
        assert stored.mode == "CMYK"
    left, right = colors(tmp_path / "a.jpg")
    assert np.abs(np.subtract(left, WHITE)).max() <= 8
    assert np.abs(np.subtract(right, RED)).max() <= 8


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_keep_their_upper_eight(tmp_path: Path, ending: str) -> None:
    deep = np.repeat([[0x12FF] * 20 + [0xFE00] * 20], 20, 0).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / f"a.{ending}")
    with Image.open(tmp_path / f"a.{ending}") as stored:
        assert stored.mode.startswith("I")
    assert colors(tmp_path / f"a.{ending}") == ((0x12,) * 3, (0xFE,) * 3)


def test_one_bit(tmp_path: Path) -> None:
    halves((0,), (255,), "L").convert("1").save(tmp_path / "a.png")
    assert colors(tmp_path / "a.png") == ((0, 0, 0), WHITE)


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_turned_as_exif_says(tmp_path: Path, ending: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    upright = halves(RED, GREEN)
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / f"a.{ending}", exif=exif, quality=95)
    left, right = colors(tmp_path / f"a.{ending}")
    assert np.abs(np.subtract(left, RED)).max() <= 8
    assert np.abs(np.subtract(right, GREEN)).max() <= 8


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [halves(RED, GREEN), halves(GREEN, RED)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a.gif") as stored:
        assert stored.n_frames == 2
    assert colors(tmp_path / "a.gif") == (RED, GREEN)


def noisy_jpeg() -> bytes:
    """A JPEG that is long enough to be cut."""
    pixels = np.random.RandomState(0).randint(0, 255, (64, 64, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("cut.jpg", lambda: noisy_jpeg()[:1500], "damaged: .*truncated"),
        ("empty.jpg", lambda: b"", r"empty \(0 bytes\)"),
        ("text.jpg", lambda: b"no picture at all\n" * 50, "no image"),
        ("head.png", lambda: b"\x89PNG\r\n\x1a\n", "no image|damaged"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, name: str, content: Callable[[], bytes], reason: str) -> None:
    (tmp_path / name).write_bytes(content())
    with pytest.raises(IgosError, match=reason):
        read_image(tmp_path / name)


def test_floats_have_no_range(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(-1, 1, 800, dtype=np.float32).reshape(20, 40)).save(tmp_path / "a.tif")
    with pytest.raises(IgosError, match="floating-point pixels.*convert"):
        read_image(tmp_path / "a.tif")


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    halves(RED, GREEN).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    assert colors(tmp_path / "a.png") == (RED, GREEN)  # large, 800 pixels, but not twice the limit
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.raises(IgosError, match="the image has 800 pixels, but at most 160,000,000 are read"):
        read_image(tmp_path / "a.png")


def png_header(width: int, height: int) -> bytes:
    """A PNG that ends before its pixels."""
    start = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 16, 0, 0, 0, 0)
    data = struct.pack(">I4s", 0, b"IDAT")
    chunks = [struct.pack(">I", len(start) - 4) + start, data]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk + struct.pack(">I", zlib.crc32(chunk[4:])) for chunk in chunks
    )


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [
        (13_300, 13_300, "has 13,300 x 13,300 pixels, but at most 160,000,000 are read"),
        (2, 1_000_001, "and 1,000,000 along a side: scale it down, or cut it into parts"),
        (30_000, 30_000, "the image has 900,000,000 pixels, but at most 160,000,000"),
        (12_000, 13_000, "damaged"),
    ],
)
def test_too_many_pixels_are_refused_before_decoding(
    tmp_path: Path, width: int, height: int, reason: str
) -> None:
    (tmp_path / "a.png").write_bytes(png_header(width, height))
    with pytest.raises(IgosError, match=reason):
        read_image(tmp_path / "a.png")


def test_a_file_that_is_too_large_or_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(IgosError, match=r"has 1,073,741,825 bytes, but at most 1,073,741,824 are read"):
        read_image(tmp_path / "large.png")
    monkeypatch.setattr(images, "MAX_BYTES", 99)
    with pytest.raises(IgosError, match="has 100 bytes, but at most 99 are read"):
        decode_image(bytes(100))
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UnreadError, match="not a file, but a folder, a pipe or a device"):
        read_image(tmp_path / "pipe.png")


@pytest.mark.parametrize("name", ["a.eps", "a.png"])
def test_no_other_program_decodes_an_image(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Pillow would start Ghostscript for an EPS file, whatever its ending says."""

    def started(*arguments: object, **options: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", started)
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", started)
    halves(RED, GREEN).save(tmp_path / "b.png")
    buffer = io.BytesIO()
    halves(RED, GREEN).save(buffer, "EPS")
    (tmp_path / name).write_bytes(buffer.getvalue())
    with pytest.raises(IgosError, match="no image, or in a format that cannot be read here"):
        read_image(tmp_path / name)
    found = [path.name for path in find_images(tmp_path)]
    assert found == (["b.png"] if name == "a.eps" else ["a.png", "b.png"])
    assert ("left out files of kinds that cannot be read here: 1 .eps" in caplog.text) == (name == "a.eps")


def test_parts_make_the_same_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are converted in parts; the pixels do not depend on where these end."""
    random = np.random.RandomState(0)
    pixels = random.randint(0, 255, (37, 50, 4), np.uint8)
    color = Image.fromarray(pixels[..., :3])
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    made: list[tuple[Image.Image, dict[str, Any]]] = [
        (Image.fromarray(pixels), {}), (Image.fromarray(pixels).convert("LA"), {}), (deep, {}),
        (color.quantize(9), {"transparency": 4}), (color, {"transparency": (0, 0, 0)}),
        (color.convert("L"), {}), (color.convert("1"), {}),
    ]  # fmt: skip
    for number, (image, options) in enumerate(made):
        path = tmp_path / f"{number}.png"
        image.save(path, **options)
        whole = np.asarray(read_image(path))
        with monkeypatch.context() as small:
            small.setattr(images, "_PART_PIXELS", 120)
            np.testing.assert_array_equal(np.asarray(read_image(path)), whole)


def test_a_narrow_image_of_a_great_height(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Widening it first would need a hundred times its memory; the result is the same but for rounding."""
    picture = Image.fromarray(np.random.RandomState(0).randint(0, 255, (900, 3, 3), np.uint8))
    for frame in (Frame.of(3, 900, (16, 24), "squash"), Frame.of(3, 900, (16, 24), "crop")):
        usual = to_input(picture, frame).astype(int)
        with monkeypatch.context() as small:
            small.setattr(images, "_WIDENED_PIXELS", 10)
            assert np.abs(to_input(picture, frame) - usual).max() <= 1


# Prints how many bytes a pixel it takes to read and scale each image, without the image's file.
PEAKS = """
import sys
from pathlib import Path
from igos_pl.data.geometry import Frame
from igos_pl.data.images import read_image, to_input

def memory(key):
    return int(Path("/proc/self/status").read_text().split(key)[1].split()[0]) * 1024

read_image(Path(sys.argv[1]))  # imports what it needs
for path in map(Path, sys.argv[1:]):
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
    before = memory("VmRSS:")
    image = read_image(path)
    to_input(image, Frame.of(*image.size, (224, 224), "squash"))
    print((memory("VmHWM:") - before - path.stat().st_size) / (image.width * image.height))
    del image
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_bounded(tmp_path: Path) -> None:
    """The bytes a pixel that are said at `MAX_PIXELS`."""
    bounds = {
        "rgba.png": 13, "deep.png": 13, "transparent.png": 13, "turned.jpg": 13, "progressive.jpg": 13,
        "cmyk.jpg": 13, "deep.tif": 13, "rgba.tif": 13, "rgba.webp": 25, "rgba.jp2": 25,
    }  # fmt: skip
    color = Image.fromarray(np.random.RandomState(0).randint(0, 255, (24, 32, 4), np.uint8))
    color = color.resize((2400, 2000), Image.Resampling.NEAREST)
    plain = color.convert("RGB")
    deep = Image.fromarray(np.asarray(color)[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    made: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "rgba": (color, {"lossless": True, "method": 0, "quality": 0, "compress_level": 1}),
        "deep": (deep, {}),
        "transparent": (plain, {"transparency": (0, 0, 0), "compress_level": 1}),
        "turned": (plain, {"exif": exif}),
        "progressive": (plain, {"progressive": True, "subsampling": 0}),
        "cmyk": (plain.convert("CMYK"), {"progressive": True}),
    }
    for name in bounds:
        image, options = made[name.partition(".")[0]]
        image.save(tmp_path / name, **options)
    process = subprocess.run(
        [sys.executable, "-c", PEAKS, *(str(tmp_path / name) for name in bounds)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": ROOT},
    )  # fmt: skip
    peaks = dict(zip(bounds, map(float, process.stdout.split()), strict=True))
    assert {name: peak for name, peak in peaks.items() if peak > bounds[name]} == {}
    assert min(peaks.values()) > 3, "what was measured is the image"


def test_missing_file_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(UnreadError, match="cannot be read: No such file") as caught:
        read_image(tmp_path / "gone.png")
    assert "damaged" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of the damage
@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "bmp", "tif", "webp", "ppm", "avif"])
def test_no_damage_escapes_as_another_error(tmp_path: Path, ending: str) -> None:
    """One bad file must not end a run: whatever Pillow raises becomes a reason."""
    if ending == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    random = np.random.RandomState(1)
    whole = tmp_path / f"whole.{ending}"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(random.randint(0, 255, (16, 16, 3), np.uint8)).save(whole, exif=exif)
    content = np.frombuffer(whole.read_bytes(), np.uint8)
    refused = 0
    for _ in range(150):
        damaged = content.copy()
        places = random.randint(0, min(len(content), 300), 3)
        damaged[places] = random.randint(0, 256, 3)
        (tmp_path / f"bad.{ending}").write_bytes(damaged[: random.randint(1, len(content) + 1)].tobytes())
        try:
            assert read_image(tmp_path / f"bad.{ending}").mode == "RGB"
        except IgosError as error:
            assert str(error)
            refused += 1
    assert refused > 20


def scaled(picture: Image.Image, size: tuple[int, int], resize: str) -> NDArray[np.uint8]:
    return to_input(picture, Frame.of(*picture.size, size, resize))


def test_frames() -> None:
    assert Frame.of(640, 480, (224, 224), "squash").box == (0, 0, 640, 480)
    assert Frame.of(640, 480, (224, 224), "crop").box == (110, 30, 530, 450)
    assert Frame.of(100, 400, (224, 224), "crop").box == (6.25, 156.25, 93.75, 243.75)
    frame = Frame.of(640, 480, (32, 64), "crop")
    assert (frame.width, frame.height, frame.input_size) == (640, 480, (32, 64))
    assert frame.box == (40, 100, 600, 380)  # twice as wide as high, as the input is
    with pytest.raises(IgosError, match="resize is 'pad'.*squash, crop"):
        Frame.of(640, 480, (224, 224), "pad")


def test_squash_shows_all_and_crop_the_middle() -> None:
    picture = Image.new("RGB", (80, 40), WHITE)
    picture.paste(RED, (0, 0, 20, 40))
    picture.paste(GREEN, (60, 0, 80, 40))
    squashed = scaled(picture, (16, 16), "squash")
    assert squashed.shape == (3, 16, 16)
    assert squashed.dtype == np.uint8
    assert tuple(squashed[:, 8, 0]) == RED
    assert tuple(squashed[:, 8, 15]) == GREEN
    assert tuple(squashed[:, 8, 8]) == WHITE
    cropped = scaled(picture, (16, 16), "crop")  # x from 22.5 to 57.5
    assert (cropped == 255).all()


def test_input_may_have_unequal_sides() -> None:
    picture = Image.new("RGB", (80, 40), WHITE)
    picture.paste(RED, (0, 0, 80, 20))
    found = scaled(picture, (8, 24), "squash")
    assert found.shape == (3, 8, 24)
    assert tuple(found[:, 1, 22]) == RED
    assert tuple(found[:, 6, 1]) == WHITE


def test_input_is_right_side_up() -> None:
    picture = Image.new("RGB", (30, 60), WHITE)
    picture.paste(RED, (0, 0, 15, 30))  # left above
    for resize in ("squash", "crop"):
        found = scaled(picture, (16, 16), resize)
        assert tuple(found[:, 2, 2]) == RED
        for row, column in ((2, 13), (13, 2), (13, 13)):
            assert tuple(found[:, row, column]) == WHITE


def test_input_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    found = scaled(Image.fromarray(stripes), (16, 16), "squash")
    assert found[:, :, 2:-2].min() > 110
    assert found[:, :, 2:-2].max() < 145


def test_find_images_below_folders_without_hidden_ones(tmp_path: Path) -> None:
    root = tmp_path / ".cache" / "photos"  # the root itself may be hidden
    names = ["b.JPG", "a/c.png", "a/b/d.jpeg", "a.webp", "z.tiff", ".hidden.png", ".git/e.png", "notes.txt"]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"?")
    (root / "folder.png").mkdir()
    found = [path.as_posix() for path in find_images(root)]
    assert found == ["a.webp", "a/b/d.jpeg", "a/c.png", "b.JPG", "z.tiff"]


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"?")


def test_find_images_leaves_out_what_igos_pl_wrote(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for run in (tmp_path, tmp_path / "cats"):  # with pictures in the output folder
        touch(run, "overlays/a.png", "segments/x.h5", "configuration.json", "samples.txt", "masks.h5")
        report = run / "gallery"
        touch(report, "report.json", "data/a.js", "pictures/0/b.jpg", "thumbnails/0/c.jpg", "static/d.js")
        touch(run, "heat/.igos-pl-export", "heat/a/e.png")
        touch(run, "explanations/epoch=000.h5", "explanations/epoch=000/0.png")
    with pytest.raises(IgosError, match=r"No image in .*igos-pl wrote are left out: .*/gallery, .*/heat, "):
        find_images(tmp_path)
    own = [
        "a.png", "cats/b.png", "damaged/g.png", "dogs/epoch=000/h.png", "dogs/overlays/c.png",
        "dogs/report/e.png", "segments/f.png",
    ]  # fmt: skip
    touch(tmp_path, *own, "dogs/samples.txt", "dogs/report/report.json")
    assert [path.as_posix() for path in find_images(tmp_path)] == own
    assert f"Left out pictures that igos-pl wrote: {tmp_path / 'gallery'}, " in caplog.text
    assert "(8 in all)" in caplog.text
    named = find_images(tmp_path / "overlays")  # what a user asks for
    assert named == [Path("a.png")]


def test_find_images_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(IgosError, match="There is no folder .*nowhere.*--data.root"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(IgosError, match="No image in .*there are no files"):
        find_images(tmp_path)
    for name in ("a.txt", "b.csv"):
        (tmp_path / name).write_text("?")
    with pytest.raises(IgosError, match="No image in .*there are 2 other files"):
        find_images(tmp_path)
    with pytest.raises(IgosError, match=r"a\.txt is a file"):
        find_images(tmp_path / "a.txt")


def test_grey_networks_get_grey_values() -> None:
    picture = Image.new("RGB", (8, 6), (255, 0, 0))
    frame = Frame.of(8, 6, (3, 4), "squash")
    assert to_input(picture, frame, 1).tolist() == [[[76] * 4] * 3]
    assert to_input(picture, frame, 3).shape == (3, 3, 4)
    with pytest.raises(IgosError, match="takes 5 channels, but picture files have 1 or 3"):
        to_input(picture, frame, 5)


def test_inputs_are_displayed_as_pictures() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 5), np.uint8)
    np.testing.assert_array_equal(displayed(pixels), pixels.transpose(1, 2, 0))
    shares = pixels.astype(np.float32) / 255
    np.testing.assert_array_equal(displayed(shares), pixels.transpose(1, 2, 0))
    shares[0, 0, 0], shares[0, 0, 1] = -0.1, 1.1  # of bicubic scaling: the others stay as they are
    clipped = displayed(shares)
    assert (clipped[0, 0, 0], clipped[0, 1, 0]) == (0, 255)
    np.testing.assert_array_equal(clipped[1:], pixels.transpose(1, 2, 0)[1:])
    normalized = displayed(4 * shares - 2)
    assert (normalized.min(), normalized.max()) == (0, 255)
    two = np.stack([np.full((4, 5), 0.2, np.float32), np.full((4, 5), 0.6, np.float32)])
    np.testing.assert_array_equal(displayed(two), np.full((4, 5, 3), 102, np.uint8))
