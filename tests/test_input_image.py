import io

import numpy as np
import pytest
from PIL import Image

from ruac_jax.errors import UserError
from ruac_jax.functional.resize import interpolation_matrix
from ruac_jax.input_image import network_input, to_rgb


@pytest.fixture
def colours(rng):
    return rng.integers(0, 256, (5, 7, 3), np.uint8)


def test_arrays(colours):
    np.testing.assert_array_equal(to_rgb(colours), colours)
    grey = colours[:, :, 0]
    expected = np.stack([grey] * 3, axis=-1)
    np.testing.assert_array_equal(to_rgb(grey), expected)
    np.testing.assert_array_equal(to_rgb(grey[:, :, None]), expected)
    np.testing.assert_array_equal(to_rgb(np.concatenate([colours, colours[:, :, :1]], axis=2)), colours)
    np.testing.assert_array_equal(to_rgb(colours[::-1, ::2]), colours[::-1, ::2])


def test_pil_images(colours):
    np.testing.assert_array_equal(to_rgb(Image.fromarray(colours)), colours)
    grey = Image.fromarray(colours[:, :, 1])
    np.testing.assert_array_equal(to_rgb(grey), np.stack([colours[:, :, 1]] * 3, axis=-1))
    see_through = np.concatenate([colours, colours[:, :, :1]], axis=2)
    np.testing.assert_array_equal(to_rgb(Image.fromarray(see_through)), colours)
    bits = colours[:, :, 0] > 99
    np.testing.assert_array_equal(to_rgb(Image.fromarray(bits)), 255 * np.stack([bits] * 3, axis=-1))


def test_palettes_with_transparency(colours):
    image = Image.fromarray(colours[:, :, 0] // 64, "P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.info["transparency"] = bytes([0, 255, 128, 255])
    table = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    np.testing.assert_array_equal(to_rgb(image), table[colours[:, :, 0] // 64])


# Tag and what turns the stored pixels upright (EXIF 2.3, section 4.6.4).
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: a[::-1].swapaxes(0, 1)),
        (7, lambda a: a[::-1, ::-1].swapaxes(0, 1)),
        (8, lambda a: a[:, ::-1].swapaxes(0, 1)),
    ],
)
def test_rotated_photographs_are_turned_upright(colours, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(colours).save(file, "PNG", exif=exif)
    np.testing.assert_array_equal(to_rgb(Image.open(file)), upright(colours))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"expected uint8 from 0 to 255, found float32; .*255 \* image"),
        (np.zeros((4, 4, 3), np.int64), "found int64"),
        (np.zeros((3, 4, 5), np.uint8), r"found \(3, 4, 5\); move the channels last: image\.transpose\(1, 2, 0\)"),
        (np.zeros((4, 4, 2), np.uint8), r"expected shape \(H, W\), .* found \(4, 4, 2\)$"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"found \(1, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
        ("photo.jpg", "expected a numpy array or a PIL image, found str"),
        ([[0, 1]], "found list"),
        (Image.fromarray(np.zeros((4, 4), np.float32)), "expected 8 bits a channel, found a PIL image of mode 'F'"),
        (Image.fromarray(np.zeros((4, 4), np.uint16)), "mode 'I;16'"),
    ],
)
def test_other_things_are_refused(image, message):
    with pytest.raises(UserError, match=message):
        to_rgb(image)


def test_truncated_files_are_refused(rng):
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (100, 100, 3), np.uint8)).save(file, "PNG")
    with pytest.raises(UserError, match="not a readable PIL image"):
        to_rgb(Image.open(io.BytesIO(file.getvalue()[:3000])))


@pytest.mark.parametrize("size", [(90, 231), (20, 13), (64, 64), (65, 3)])
def test_stretching_is_antialiased_and_unrounded(size, rng):
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    rows, columns = (interpolation_matrix(side, 64, "bilinear", antialias=True) for side in size)
    expected = np.einsum("Hh,hwc,Ww->HWc", rows, image.astype(float), columns)
    got = network_input(image, 64)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-4)  # of 255
