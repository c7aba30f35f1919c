import subprocess
import sys

import pytest

from ruac_jax.errors import UserError
from ruac_jax.folders import check_output, locked, new_folder


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


def test_a_lock_is_held_once_and_free_again(tmp_path):
    file = tmp_path / "deep/lock"
    with locked(file) as first, locked(file, wait=False) as second, locked(tmp_path / "other", wait=False) as other:
        assert (first, second, other) == (True, False, True)


def test_a_lock_is_free_after_an_exception(tmp_path):
    def fail():
        with locked(tmp_path / "lock", wait=False) as held:
            raise KeyError(held)

    with pytest.raises(KeyError, match="True"):
        fail()
    with pytest.raises(KeyError, match="True"):
        fail()


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    file = tmp_path / "lock"
    code = """
import pathlib, sys
from ruac_jax.folders import locked
with locked(pathlib.Path(sys.argv[1])):
    print(flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with locked(file, wait=False) as held:
            assert not held
        other.kill()
        with locked(file) as held:
            assert held
