import hashlib
import shutil
import subprocess

import pytest

from ruac_jax.errors import UserError
from ruac_jax.sums import SUMS, add_sum, check_sums, read_sums, sha256


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")  # the example of FIPS 180-2
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture
def files(tmp_path):
    for name in ("a.bin", "b.bin"):
        (tmp_path / name).write_text(name)
        add_sum(tmp_path / name)
    return tmp_path


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_the_list_is_what_sha256sum_reads_and_writes(files):
    subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=files, check=True, capture_output=True)
    written = subprocess.run(["sha256sum", "a.bin", "b.bin"], cwd=files, check=True, capture_output=True, text=True)
    assert (files / SUMS).read_text() == written.stdout


def test_a_new_sum_replaces_the_old_one_and_leaves_the_rest(files):
    (files / SUMS).write_text("# about\n" + (files / SUMS).read_text())
    (files / "a.bin").write_text("changed")
    assert add_sum(files / "a.bin") == hashlib.sha256(b"changed").hexdigest()
    expected = {name: hashlib.sha256(text).hexdigest() for name, text in (("a.bin", b"changed"), ("b.bin", b"b.bin"))}
    assert read_sums(files / SUMS) == expected
    assert (files / SUMS).read_text().startswith("# about\n")
    check_sums(files, expected, "")


def test_changed_and_missing_files(files):
    sums = read_sums(files / SUMS)
    check_sums(files, sums, "copy it again")
    (files / "b.bin").write_text("changed")
    with pytest.raises(UserError, match=r"b\.bin: damaged: its SHA-256 is \w{64}, expected \w{64}; copy it again"):
        check_sums(files, sums, "copy it again")
    (files / "b.bin").unlink()
    with pytest.raises(UserError, match=r"b\.bin: missing, though SHA256SUMS lists it; copy it again"):
        check_sums(files, sums, "copy it again")


HASH = "0" * 64
LINES = {
    "no hash": "nano.safetensors",
    "short hash": "00  a",
    "one space": f"{HASH} a",
    "twice": f"{HASH}  a\n{HASH}  a",
    "out of the folder": f"{HASH}  ../a",
    "further out": f"{HASH}  a/../../b",
    "absolute": f"{HASH}  /etc/passwd",
    "pattern": f"{HASH}  *",
}


@pytest.mark.parametrize("line", LINES)
def test_bad_lines(line, tmp_path):
    (tmp_path / SUMS).write_text(LINES[line])
    with pytest.raises(UserError, match=r"line \d: expected a SHA-256, two spaces and a new name"):
        read_sums(tmp_path / SUMS)


def test_no_list(tmp_path):
    with pytest.raises(UserError, match="not a readable list"):
        read_sums(tmp_path / SUMS)
