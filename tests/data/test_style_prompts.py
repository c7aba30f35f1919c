import pytest

from ruac_jax.data.style_prompts import GENERIC, TARGETED, read_prompts, slug
from ruac_jax.errors import UserError


def test_there_are_as_many_as_in_the_paper():
    assert (len(GENERIC), len(TARGETED)) == (2, 9)
    for prompts in (GENERIC, TARGETED):
        assert len(set(prompts.values())) == len(prompts)
        assert all(style == slug(style) for style in prompts)
    assert read_prompts("generic") == GENERIC
    assert read_prompts("targeted") == TARGETED


def test_a_file_has_one_a_line(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("# mine\n\n  A Dark, rainy night \nä\n" + "x" * 50 + " y\n", encoding="utf-8")
    assert read_prompts(str(file)) == {
        "00-a-dark-rainy-night": "A Dark, rainy night",
        "01-prompt": "ä",
        f"02-{'x' * 40}": "x" * 50 + " y",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "expected generic, targeted or a text file"),
        ("# none\n", "holds no prompt"),
        ("a\nb\na\n", "prompt twice"),
    ],
)
def test_mistakes(tmp_path, text, message):
    file = tmp_path / "prompts.txt"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=message):
        read_prompts(str(file))
