"""Models by name: every source, every mistake."""

import dataclasses
import importlib.resources
import json
import os
import subprocess
import sys
import threading
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import convert.sam2_to_flax
from convert.flax_to_sam2 import convert_directory
from ruac_jax import hub
from ruac_jax.errors import UserError
from ruac_jax.hub import cache_folder, find_checkpoint, shipped_names
from ruac_jax.predictor import Predictor
from ruac_jax.sums import SUMS, add_sum, check_sums, read_sums, sha256
from ruac_jax.weights import (
    ModelMetadata,
    create_model,
    fingerprint,
    leaves,
    load_carried,
    load_metadata,
    load_model,
    packed_model,
    save_model,
    save_packed,
)

ROOT = Path(__file__).parents[1]
SETTINGS = {"prior": (2.0, 1.0)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One random nano network in every form: `model`, `sam2.safetensors`, `packed.safetensors`."""
    folder = tmp_path_factory.mktemp("made")
    model = create_model("nano", "weibull", SETTINGS, rngs=nnx.Rngs(0))
    metadata = save_model(folder / "model", model, ModelMetadata("nano", "weibull", SETTINGS, source="run"))
    convert_directory(folder / "model", folder / "sam2.safetensors")
    save_packed(folder / "packed.safetensors", *packed_model(model), metadata)
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working folder, an empty cache, no hub."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("RUAC_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    return work


@pytest.fixture
def shipped(tmp_path, monkeypatch, made):
    """A package that ships `nano`."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / "nano.safetensors").write_bytes((made / "packed.safetensors").read_bytes())
    add_sum(folder / "nano.safetensors")
    monkeypatch.setattr(hub, "_SHIPPED", folder)
    return folder


class Refusal(Exception):
    """Stands for the hub library's errors, which are told apart by their classes' names."""


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A hub with the repository someone/model, and the calls it got; like the real one it keeps links to blobs."""
    content = tmp_path / "remote"
    content.mkdir()
    calls = []

    def snapshot_download(repository, *, revision=None, allow_patterns):
        calls.append((repository, revision, tuple(allow_patterns)))
        if repository != "someone/model":
            raise type("RepositoryNotFoundError", (Refusal,), {})("404\nmore")
        if revision not in (None, "main", "v1", "c0ffee"):
            raise type("RevisionNotFoundError", (Refusal,), {})("404")
        snapshot = tmp_path / "snapshots" / "c0ffee"
        snapshot.mkdir(parents=True, exist_ok=True)
        for name in allow_patterns:
            if (content / name).is_file():
                target = snapshot / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                target.symlink_to(content / name)
        return str(snapshot)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    return types.SimpleNamespace(content=content, calls=calls)


def publish(source: Path, content: Path) -> None:
    files = [file for file in source.rglob("*") if file.is_file()] if source.is_dir() else [source]
    lines = []
    for file in files:
        name = file.relative_to(source if source.is_dir() else source.parent)
        (content / name).parent.mkdir(parents=True, exist_ok=True)
        (content / name).write_bytes(file.read_bytes())
        lines.append(f"{sha256(file)}  {name}\n")
    (content / SUMS).write_text("".join(lines))


def same_values(first: Path, second: Path) -> bool:
    return fingerprint(leaves(load_model(first)[0])) == fingerprint(leaves(load_model(second)[0]))


# Folders and files


def test_a_folder_is_itself(made, here):
    assert find_checkpoint(made / "model") == made / "model"
    (here / "model").symlink_to(made / "model")
    assert find_checkpoint("model") == Path("model")
    assert not cache_folder().exists()


def test_a_folder_that_is_no_model(here):
    (here / "photos").mkdir()
    with pytest.raises(UserError, match="photos: not a model saved by this project"):
        find_checkpoint("photos")


def test_the_folder_of_a_run_names_its_model(made, here):
    (here / "run").mkdir()
    (here / "run/model").symlink_to(made / "model")
    with pytest.raises(UserError, match="run: the folder of a run, not of a model; its model is run/model"):
        find_checkpoint("run")


def test_a_sam2_file_is_converted_once(made, monkeypatch, capsys):
    found = find_checkpoint(made / "sam2.safetensors")
    assert found.parent == cache_folder() / "converted"
    assert found.name.startswith(sha256(made / "sam2.safetensors"))
    assert load_metadata(found).source == "sam2.safetensors"
    assert same_values(found, made / "model")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "single-frame SAM2, nano, weibull head" in printed.err

    monkeypatch.setattr(convert.sam2_to_flax, "convert_file", None)
    assert find_checkpoint(made / "sam2.safetensors") == found
    assert capsys.readouterr().err == ""


def test_the_cache_goes_by_content_not_by_name(made, here):
    (here / "copy.safetensors").write_bytes((made / "sam2.safetensors").read_bytes())
    first = find_checkpoint(made / "sam2.safetensors")
    assert find_checkpoint("copy.safetensors") == first
    tensors = load_file("copy.safetensors")
    tensors["no_mem_embed"] = tensors["no_mem_embed"] + np.float32(1)
    save_file(tensors, "copy.safetensors")
    assert find_checkpoint("copy.safetensors") != first


def test_the_cache_is_in_the_home_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("RUAC_JAX_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "ruac_jax"


def test_a_cache_that_cannot_be_written(made, here, monkeypatch):
    (here / "file").touch()
    monkeypatch.setenv("RUAC_JAX_CACHE", str(here / "file"))
    with pytest.raises(UserError, match=r"cannot convert .* into the cache .*RUAC_JAX_CACHE names another folder"):
        find_checkpoint(made / "sam2.safetensors")


def test_a_damaged_cache_says_what_to_remove(made):
    found = find_checkpoint(made / "sam2.safetensors")
    (found / "metadata.json").write_text("{")
    with pytest.raises(UserError, match=rf"damaged\); remove {found} to have .*sam2\.safetensors converted again"):
        find_checkpoint(made / "sam2.safetensors")


def test_first_use_by_several_converts_once(made, monkeypatch):
    original, conversions, found = convert.sam2_to_flax.convert_file, [], []

    def counted(*arguments, **options):
        conversions.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(convert.sam2_to_flax, "convert_file", counted)
    start = threading.Barrier(4)

    def use():
        start.wait()
        found.append(find_checkpoint(made / "sam2.safetensors"))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == len(conversions) == 1
    assert same_values(found[0], made / "model")


@pytest.mark.slow
def test_first_use_by_two_processes(made):
    code = f"from ruac_jax.hub import find_checkpoint; print(find_checkpoint({str(made / 'sam2.safetensors')!r}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    printed = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert printed[0][0] == printed[1][0] == f"{find_checkpoint(made / 'sam2.safetensors')}\n"
    assert sum("weibull head" in errors for _, errors in printed) == 1
    assert {path.name for path in (cache_folder() / "converted").iterdir()} == {
        ".lock",
        find_checkpoint(made / "sam2.safetensors").name,
    }


def test_pt_needs_torch(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with zipfile.ZipFile("model.pt", "w") as file:
        file.writestr("data", "x")
    with pytest.raises(UserError, match="needs torch, which is not installed: `pip install torch"):
        find_checkpoint("model.pt")


@pytest.mark.slow
def test_pt_with_torch(made):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(array) for name, array in load_file(made / "sam2.safetensors").items()}
    torch.save({"model": tensors}, "model.pt")
    assert same_values(find_checkpoint("model.pt"), made / "model")


FILES = {
    "text": ("notes.txt", b"hello", "unknown kind of file"),
    "cut": ("cut.safetensors", b"\x10", "perhaps cut short"),
    "no PyTorch": ("no.pt", b"hello", "not a PyTorch checkpoint"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_no_checkpoints(case):
    name, content, message = FILES[case]
    Path(name).write_bytes(content)
    with pytest.raises(UserError, match=f"^{name}: .*{message}"):
        find_checkpoint(name)


def test_tensors_of_something_else():
    save_file({"weight": np.ones((2, 2), np.float32)}, "other.safetensors")
    with pytest.raises(UserError, match="not a SAM2 checkpoint"):
        find_checkpoint("other.safetensors")


# Packed files


def test_a_packed_file_is_itself(made):
    found = find_checkpoint(made / "packed.safetensors")
    assert found == made / "packed.safetensors"
    assert not cache_folder().exists()
    (model, metadata), (original, written) = load_model(found), load_model(made / "model")
    assert dataclasses.replace(metadata, fingerprint=written.fingerprint) == written
    assert metadata.fingerprint == fingerprint(leaves(model))
    assert model.head.prior == (2.0, 1.0)
    assert load_carried(found) == {}
    for path, value in leaves(original).items():
        np.testing.assert_allclose(leaves(model)[path], value, rtol=0, atol=np.abs(value).max() / 32767 * 0.501)


# Shipped


def test_a_shipped_checkpoint(shipped, made):
    assert shipped_names() == ["nano"]
    assert find_checkpoint("nano") == shipped / "nano.safetensors"
    assert same_values(find_checkpoint("nano"), made / "packed.safetensors")


def test_a_folder_of_that_name_comes_first(shipped, made, here):
    (here / "nano").symlink_to(made / "model")
    assert find_checkpoint("nano") == Path("nano")


def test_a_damaged_or_missing_shipped_file(shipped):
    file = shipped / "nano.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"nano\.safetensors: damaged: its SHA-256 .*install the package again"):
        find_checkpoint("nano")
    file.unlink()
    with pytest.raises(UserError, match=r"nano\.safetensors: missing.*install the package again"):
        find_checkpoint("nano")


def test_what_the_package_ships_is_what_its_list_says():
    folder = importlib.resources.files("ruac_jax") / "shipped"
    sums = read_sums(Path(str(folder / SUMS)))
    assert sums.keys() == {file.name for file in folder.iterdir()} - {SUMS}
    check_sums(Path(str(folder)), sums, "")
    for name in shipped_names():
        metadata = load_model(find_checkpoint(name))[1]
        assert metadata.carried == ()
        assert (Path(str(folder)) / f"{name}.safetensors").stat().st_size <= 4_000_000


@pytest.mark.slow
def test_the_wheel_has_what_is_shipped(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        source.mkdir(exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    for package in ("ruac_jax", "convert", "configs"):
        for file in (ROOT / package).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                target = source / file.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
    (source / "ruac_jax/shipped/extra.safetensors").write_bytes(b"x")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        shipped = {f"ruac_jax/shipped/{file.name}" for file in (ROOT / "ruac_jax/shipped").iterdir()}
        assert names >= shipped | {"ruac_jax/shipped/extra.safetensors", "ruac_jax/hub.py", "convert/sam2_to_flax.py"}


# Names of nothing


@pytest.mark.parametrize("name", ["nan0", "nanno"])
def test_an_unknown_name_tells_the_nearest(shipped, name):
    with pytest.raises(UserError) as error:
        find_checkpoint(name)
    assert str(error.value) == (
        f"{name}: no such folder or file, and no shipped checkpoint (did you mean 'nano'?); "
        "a repository of the Hugging Face hub is named OWNER/NAME[@REVISION]"
    )


def test_an_unknown_name_lists_what_is_shipped(shipped):
    with pytest.raises(UserError, match=r"no shipped checkpoint \(there are nano\)"):
        find_checkpoint("completely-different")


def test_nothing_shipped_is_said(shipped):
    (shipped / SUMS).write_text("# nothing yet\n")
    with pytest.raises(UserError, match=r"nano: no such .* \(none comes with this version\)"):
        find_checkpoint("nano")


# The hub


@pytest.mark.parametrize("form", ["model", "sam2.safetensors", "packed.safetensors"])
def test_a_repository_of_each_form(made, remote, form):
    publish(made / form, remote.content)
    (remote.content / "README.md").write_text("not in the list")
    found = find_checkpoint("someone/model@v1")
    assert same_values(found, made / ("packed.safetensors" if form.startswith("packed") else "model"))
    listed = tuple(sorted(read_sums(remote.content / SUMS)))
    # The list first; then, of the very commit that it came from, what it lists and nothing else.
    assert remote.calls == [("someone/model", "v1", (SUMS,)), ("someone/model", "c0ffee", listed)]


def test_without_a_revision_the_newest_is_taken(made, remote):
    publish(made / "packed.safetensors", remote.content)
    find_checkpoint("someone/model")
    assert [revision for _, revision, _ in remote.calls] == [None, "c0ffee"]


def test_a_damaged_download(made, remote):
    publish(made / "packed.safetensors", remote.content)
    content = bytearray((remote.content / "packed.safetensors").read_bytes())
    content[-1] ^= 1
    (remote.content / "packed.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"packed\.safetensors: damaged: its SHA-256 is .*downloaded again"):
        find_checkpoint("someone/model")


def test_the_package_list_comes_before_the_repository_one(made, remote, shipped):
    publish(made / "packed.safetensors", remote.content)
    trusted = sha256(made / "packed.safetensors")
    with (shipped / SUMS).open("a") as file:
        file.write(f"{trusted}  someone/model/packed.safetensors\n")
    assert shipped_names() == ["nano"]
    assert find_checkpoint("someone/model").name == "packed.safetensors"
    assert remote.calls == [("someone/model", None, ("packed.safetensors",))]

    # A forged file with a list of its own that agrees with it.
    (remote.content / "packed.safetensors").write_bytes((made / "sam2.safetensors").read_bytes())
    add_sum(remote.content / "packed.safetensors")
    with pytest.raises(UserError, match=f"damaged: .*expected {trusted}"):
        find_checkpoint("someone/model")


def test_a_repository_without_sums_is_refused(remote):
    with pytest.raises(UserError, match="someone/model: the repository has no SHA256SUMS, so its files cannot be"):
        find_checkpoint("someone/model")


def test_a_repository_with_several_checkpoints_or_none(made, remote):
    for name in ("a.safetensors", "b.safetensors"):
        (remote.content / name).write_bytes((made / "packed.safetensors").read_bytes())
        add_sum(remote.content / name)
    with pytest.raises(UserError, match=r"exactly one checkpoint file in SHA256SUMS, found a\.safetensors, b\.safe"):
        find_checkpoint("someone/model")
    (remote.content / SUMS).write_text("")
    with pytest.raises(UserError, match="found nothing"):
        find_checkpoint("someone/model")


def test_a_listed_file_that_the_repository_lacks(made, remote):
    publish(made / "packed.safetensors", remote.content)
    (remote.content / "packed.safetensors").unlink()
    with pytest.raises(UserError, match=r"packed\.safetensors: missing, though SHA256SUMS lists it"):
        find_checkpoint("someone/model")


def test_a_list_that_leads_out_of_the_repository(remote):
    (remote.content / SUMS).write_text(f"{'0' * 64}  ../../secret.safetensors\n")
    with pytest.raises(UserError, match="line 1: expected a SHA-256"):
        find_checkpoint("someone/model")
    assert len(remote.calls) == 1


def test_no_such_repository_or_revision(remote):
    with pytest.raises(UserError, match=r"no/thing: no such .*the hub has no such repository, or it is private$"):
        find_checkpoint("no/thing")
    with pytest.raises(UserError, match=r"someone/model@v7: no such .*: the repository has no such revision$"):
        find_checkpoint("someone/model@v7")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("LocalEntryNotFoundError", "the network does not let us reach the hub"),
        ("GatedRepoError", "its owner grants access on request"),
        ("SomethingNew", "SomethingNew: first line"),
    ],
)
def test_other_errors_of_the_hub_are_one_line(monkeypatch, kind, message):
    def fail(*_, **__):
        raise type(kind, (Refusal,), {})("first line\nsecond line")

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=fail))
    with pytest.raises(UserError, match=f"from the Hugging Face hub: {message}") as error:
        find_checkpoint("someone/model")
    assert "\n" not in str(error.value)


def test_without_the_library_it_says_how_to_install_it():
    with pytest.raises(
        UserError, match=r"someone/model: no such .*not installed: `pip install 'huggingface_hub>=2,<3'`"
    ):
        find_checkpoint("someone/model")


PATHS = ["runs/missing", "missing.safetensors", "checkpoints/sam2.1_hiera_tiny.pt", "./a", "../a", "/a/b", "a/b/c", ""]


@pytest.mark.parametrize("name", PATHS)
def test_mistyped_paths_are_not_looked_up(name, remote, here):
    (here / "runs").mkdir()
    if not name:
        assert here.is_dir()
        with pytest.raises(UserError, match="not a model saved by this project"):
            find_checkpoint(name)
    else:
        with pytest.raises(UserError, match="no such folder or file"):
            find_checkpoint(name)
    assert remote.calls == []


def test_a_revision_forces_the_hub(made, remote, here):
    (here / "someone").mkdir()
    publish(made / "packed.safetensors", remote.content)
    with pytest.raises(UserError, match="no such folder or file"):
        find_checkpoint("someone/model")
    assert find_checkpoint("someone/model@main").name == "packed.safetensors"


# Who takes names


def test_the_predictor_takes_names(shipped, made):
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    answers = []
    for name in ("nano", made / "model"):
        predictor = Predictor.from_checkpoint(name, image_size=64)
        predictor.set_image(image)
        answers.append(predictor.predict(np.float32([[20, 20]]), np.array([1]), return_logits=True).masks)
    # Random weights, where logits are of the order of one.
    np.testing.assert_allclose(*answers, rtol=0, atol=1e-3)
    assert np.abs(answers[1]).max() > 0.01
    with pytest.raises(UserError, match="did you mean 'nano'"):
        Predictor.from_checkpoint("nanoo")


def run(module: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # one device, as at home
    environment |= {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_commands_take_files(made, here):
    for form in ("sam2", "packed"):
        options = ["--datasets", "shapes/xray", "--num_images", "1", "--pictures", "0", "--output", f"out/{form}"]
        done = run("ruac_jax.evaluate", "--checkpoint", str(made / f"{form}.safetensors"), *options, cwd=here)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.startswith("|")
    results = json.loads((here / "out/packed/results.json").read_text())
    assert results["checkpoint"]["fingerprint"] == load_metadata(made / "packed.safetensors").fingerprint

    options = ["--checkpoint", str(made / "packed.safetensors"), "--output", "out/study"]
    done = run("ruac_jax.study", "parameters", *options, cwd=here)
    assert done.returncode == 0, done.stderr[-3000:]

    options = ["--checkpoint", str(made / "packed.safetensors"), "--output", "back.safetensors"]
    done = run("convert.flax_to_sam2", *options, cwd=here)
    assert done.returncode == 0, done.stderr[-3000:]
    assert same_values(find_checkpoint("back.safetensors"), made / "packed.safetensors")


MISTAKES = {
    "evaluate": ("ruac_jax.evaluate", ["--datasets=shapes/xray"]),
    "study": ("ruac_jax.study", ["parameters"]),
    "flax_to_sam2": ("convert.flax_to_sam2", []),
    "export": ("ruac_jax.export", []),
    "predict": ("ruac_jax.predict", ["photo.png", "--point=1,1"]),
    "ship": ("ruac_jax.ship", []),
}


@pytest.mark.parametrize("command", MISTAKES)
def test_an_unknown_name_is_one_line_of_each_command(command, here):
    module, arguments = MISTAKES[command]
    done = run(module, *arguments, "--checkpoint=nanoo", "--output=o.safetensors", cwd=here)
    assert done.returncode == 1
    assert done.stderr.startswith("error: nanoo: no such folder or file")
    assert done.stderr.count("\n") == 1
    assert list(here.iterdir()) == []
