import pytest

from ruac_jax.errors import UserError
from ruac_jax.folders import check_output, new_folder


def test_a_new_folder_takes_the_place_of_the_old_one(tmp_path):
    target = tmp_path / "deep/down"
    for name in ("first", "second"):
        with new_folder(target) as unfinished:
            assert not (target / name).exists()
            (unfinished / name).write_text(name)
        assert [path.name for path in target.iterdir()] == [name]
        assert list(target.parent.iterdir()) == [target]


def test_an_exception_changes_nothing(tmp_path):
    with new_folder(tmp_path / "kept") as unfinished:
        (unfinished / "file").write_text("old")
    with pytest.raises(KeyError), new_folder(tmp_path / "kept") as unfinished:  # noqa: PT012
        (unfinished / "file").write_text("new")
        raise KeyError
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["kept", "kept/file"]
    assert (tmp_path / "kept/file").read_text() == "old"


def test_a_place_that_cannot_be_written_is_the_users_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"), new_folder(tmp_path / "file/below"):
        pass


def test_what_may_be_replaced(tmp_path):
    def check(name, overwrite):
        check_output(tmp_path / name, overwrite=overwrite, marker="mark", what="ours")

    check("nothing", False)
    (tmp_path / "empty").mkdir()
    check("empty", False)
    for name, file in (("ours", "mark"), ("theirs", "photo")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("")
        with pytest.raises(UserError, match="exists already; --overwrite replaces it"):
            check(name, False)
    check("ours", True)
    with pytest.raises(UserError, match="is not ours, so it is not replaced"):
        check("theirs", True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is not ours"):
        check("file", True)
