import json
import subprocess
import sys

import numpy as np
import pytest
from absl import flags

from ruac_jax.data.pipeline import FrameSampler, PipelineSettings, Shard, training_iterator
from ruac_jax.data.record import Batch, Record
from ruac_jax.data.transforms import NO_AUGMENTATION


class Stills:
    """Record i is a grey image of value i with `areas[i % len(areas)]` masks."""

    def __init__(self, length=10, objects=(1, 2, 5)):
        self.length, self.objects = length, objects

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        image = np.full((20, 24, 3), index, np.uint8)
        masks = np.zeros((self.objects[index % len(self.objects)], 20, 24), bool)
        for number, mask in enumerate(masks):
            mask[3:17, 2 + 4 * number : 5 + 4 * number] = True
        return Record(image=image, masks=masks, image_id=str(index))


class Clips(Stills):
    """Frames 0-3, 4-5 and 6-9 are clips; usable are those listed."""

    clips = ((0, 1, 3), (5,), (6, 7, 8, 9))


def settings(**changes):
    values = {"image_size": 16, "batch_size": 4, "max_objects": 3, "seed": 0, **changes}
    return PipelineSettings(**values)


def take(iterator, count):
    batches = [next(iterator) for _ in range(count)]
    return batches


def assert_equal(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_shapes_types_and_slots():
    iterator = training_iterator(Stills(), settings())
    for batch in take(iterator, 5):
        assert isinstance(batch, Batch)
        assert batch.image.shape == (4, 16, 16, 3)
        assert batch.image.dtype == np.uint8
        assert batch.masks.shape == (4, 3, 16, 16)
        np.testing.assert_array_equal(batch.masks.any(axis=(2, 3)), batch.valid)
        assert batch.valid.any(axis=1).all()
        assert (np.diff(batch.valid.astype(int), axis=1) <= 0).all()  # used slots come first
    iterator.close()


def test_an_epoch_visits_every_image_once_and_the_next_in_another_order():
    plain = settings(augmentation=NO_AUGMENTATION, batch_size=5)
    batches = take(training_iterator(Stills(), plain), 4)
    seen = np.concatenate([batch.image[:, 0, 0, 0] for batch in batches])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert (seen[:10] != seen[10:]).any()


@pytest.mark.parametrize("stop", [0, 1, 5])
def test_a_restored_iterator_continues_bit_by_bit(stop):
    first = training_iterator(Clips(), settings(samples_per_clip=4))
    take(first, stop)
    state = json.loads(json.dumps(first.get_state()))
    expected = take(first, 3)
    second = training_iterator(Clips(), settings(samples_per_clip=4))
    take(second, 2)
    second.set_state(state)
    for a, b in zip(expected, take(second, 3), strict=True):
        assert_equal(a, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workers": 2}, "workers was 0, is 2"),
        ({"seed": 7}, "seed was 0, is 7"),
        ({"batch_size": 2}, "batch_size was 4, is 2"),
    ],
)
def test_a_state_of_other_settings_is_refused(change, message):
    state = training_iterator(Stills(), settings()).get_state()
    with pytest.raises(ValueError, match=message):
        training_iterator(Stills(), settings(**change)).set_state(state)


def test_a_state_of_other_data_is_refused():
    state = training_iterator(Stills(10), settings()).get_state()
    with pytest.raises(ValueError, match="samples_per_epoch was 10, is 9"):
        training_iterator(Stills(9), settings()).set_state(state)
    state = training_iterator(Clips(), settings(samples_per_clip=4)).get_state()
    with pytest.raises(ValueError, match="samples_per_epoch was 12, is 6"):
        training_iterator(Clips(), settings(samples_per_clip=2)).set_state(state)


def test_a_state_of_another_process_is_refused():
    state = training_iterator(Stills(), settings(), Shard(1, 2)).get_state()
    with pytest.raises(ValueError, match=r"shard_index was 1, is 0; shard_count was 2, is 1"):
        training_iterator(Stills(), settings()).set_state(state)


def test_the_shards_of_a_batch_make_up_the_global_batch():
    whole = take(training_iterator(Stills(), settings(batch_size=4)), 5)
    shards = [take(training_iterator(Stills(), settings(batch_size=2), Shard(index, 2)), 5) for index in range(2)]
    for step, batch in enumerate(whole):
        for index in range(2):
            assert_equal([x[index::2] for x in batch], shards[index][step])


def test_seeds_differ_and_repeat():
    one, again, other = (next(training_iterator(Stills(50), settings(seed=seed))) for seed in (1, 1, 2))
    assert_equal(one, again)
    assert (one.image != other.image).any()


def test_an_epoch_of_clips_has_the_wanted_visits_and_all_usable_frames_turn_up():
    sampler = FrameSampler(Clips(), 4)
    assert len(sampler) == 12
    assert sorted(sampler[visit] for visit in range(12)) == sorted([0, 1, 2] * 4)
    assert len(FrameSampler(Stills(10), 4)) == 10
    iterator = training_iterator(Clips(), settings(samples_per_clip=4, augmentation=NO_AUGMENTATION, batch_size=12))
    assert iterator.samples_per_epoch == 12
    frames = []
    for batch in take(iterator, 30):
        values = batch.image[:, 0, 0, 0]
        frames.append(values)
        # Each epoch has four frames of each clip.
        assert [np.isin(values, clip).sum() for clip in Clips.clips] == [4, 4, 4]
    counts = np.bincount(np.concatenate(frames), minlength=10)
    assert counts[[2, 4]].sum() == 0
    # 120 visits of clip 2, uniform over four frames: 30 each, five standard deviations.
    assert abs(counts[6:] - 30).max() < 5 * np.sqrt(120 * 0.25 * 0.75)


def test_images_without_objects_are_replaced():
    iterator = training_iterator(Stills(10, objects=(0, 2)), settings(augmentation=NO_AUGMENTATION))
    for batch in take(iterator, 10):
        assert (batch.image[:, 0, 0, 0] % 2 == 1).all()


def test_a_source_without_any_object_says_so():
    with pytest.raises(ValueError, match="found no object"):
        next(training_iterator(Stills(4, objects=(0,)), settings()))
    with pytest.raises(ValueError, match="empty"):
        training_iterator(Stills(0), settings())


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_give_the_same_batches(workers, tmp_path):
    """In a process of its own: Grain spawns workers, which import the main module."""
    script = tmp_path / "main.py"
    script.write_text(
        "import sys, numpy as np\n"
        "from ruac_jax.data.pipeline import PipelineSettings, training_iterator\n"
        "from ruac_jax.data.shapes import ShapesSource\n"
        "if __name__ == '__main__':\n"
        "    batches = {}\n"
        f"    for workers in (0, {workers}):\n"
        "        settings = PipelineSettings(32, 3, 2, 5, workers=workers)\n"
        "        it = training_iterator(ShapesSource('source', size=32, num_images=20), settings)\n"
        "        batches[workers] = [next(it) for _ in range(2)]\n"
        "        state = it.get_state()\n"
        "        batches[workers].append(next(it))\n"
        "        it.set_state(state)\n"
        "        batches[workers].append(next(it))\n"
        "        it.close()\n"
        f"    for a, b in zip(batches[0], batches[{workers}], strict=True):\n"
        "        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))\n"
        "    print('equal')\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "equal"


def test_no_flags_need_be_parsed_without_workers():
    parsed = flags.FLAGS.is_parsed()
    flags.FLAGS.unparse_flags()
    try:
        next(training_iterator(Stills(), settings()))
        assert not flags.FLAGS.is_parsed()
    finally:
        if parsed:
            flags.FLAGS.mark_as_parsed()
