import numpy as np
import pytest
from PIL import Image

from ruac_jax.errors import UserError
from ruac_jax.picture_files import find_pictures, read_picture


def save(path, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (6, 4)).save(path, **options)
    return str(path)


def test_files_and_folders_get_names(tmp_path):
    for name in ("b.JPG", "a.png", "below/c.png", ".hidden.png"):
        save(tmp_path / "many" / name)
    (tmp_path / "many/notes.txt").write_text("")
    single = save(tmp_path / "single.webp")
    found = find_pictures([single, str(tmp_path / "many"), str(tmp_path / "many/a.png")])
    assert {name: path.relative_to(tmp_path).as_posix() for name, path in found.items()} == {
        "single": "single.webp",
        "a": "many/a.png",
        "b": "many/b.JPG",
    }


def test_one_stem_twice_keeps_the_endings(tmp_path):
    files = [save(tmp_path / name) for name in ("a.png", "a.jpg", "b.png")]
    assert list(find_pictures(files)) == ["a.png", "a.jpg", "b"]


def test_mistakes(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no image in this folder"):
        find_pictures([str(tmp_path / "empty")])
    with pytest.raises(UserError, match="nothing: no such image or folder"):
        find_pictures([str(tmp_path / "nothing")])
    with pytest.raises(UserError, match="have one name"):
        find_pictures([save(tmp_path / "x/a.png"), save(tmp_path / "y/a.png")])


def test_pixels_are_upright_rgb(tmp_path):
    turned = Image.new("RGB", (6, 4))
    turned.putpixel((0, 0), (200, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    pixels = read_picture(tmp_path / "turned.png")
    assert pixels.shape == (6, 4, 3)
    np.testing.assert_array_equal(pixels[0, 3], [200, 0, 0])
    for mode in ("L", "RGBA", "P"):
        assert read_picture(save_as(tmp_path, mode)).shape == (4, 6, 3)


def save_as(folder, mode):
    path = folder / f"{mode}.png"
    save(path, mode)
    return path


def test_what_is_no_picture(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    for name in ("text.png", "cut.png"):
        with pytest.raises(UserError, match=f"{name}: not a readable image"):
            read_picture(tmp_path / name)
    with pytest.raises(UserError, match=r"deep.png: image: expected 8 bits"):
        read_picture(save_deep(tmp_path / "deep.png"))


def save_deep(path):
    Image.fromarray(np.zeros((4, 6), np.uint16)).save(path)
    return path
