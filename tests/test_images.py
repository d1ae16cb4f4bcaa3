"""Every kind of picture that people have: the right pixels, or a clear reason."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from igos_pl.data.geometry import Frame
from igos_pl.data.images import find_images, read_image, to_input
from igos_pl.errors import IgosError, UnreadError

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
    with pytest.raises(IgosError, match="too many pixels.*800"):
        read_image(tmp_path / "a.png")


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


def test_find_images_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(IgosError, match="There is no folder .*nowhere.*--data.root"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(IgosError, match="No image in .*but nothing"):
        find_images(tmp_path)
    for name in ("a.txt", "b.csv"):
        (tmp_path / name).write_text("?")
    with pytest.raises(IgosError, match="No image in .*but 2 other files"):
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
