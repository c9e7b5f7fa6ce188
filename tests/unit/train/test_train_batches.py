"""Transformed Parquet as blocks of whole batches."""

from __future__ import annotations

import numpy as np
import pytest

from tidemill.errors import DataError, PlatformError
from tidemill.train import batches
from tidemill.train.batches import Block, Examples, Packing, summarize_labels
from tidemill.train.place import Place
from tidemill.transform.features import TransformedFeatures


def numbered(split, columns):
    """Puts the row's number into the rows, by which they can be told."""
    columns["hours-per-week"] = np.arange(len(columns["__label__"]), dtype=np.float32)
    return columns


@pytest.fixture(scope="module")
def inputs(make_inputs):
    return make_inputs(rows=1030, spoil=numbered)


@pytest.fixture
def packing(inputs):
    return Packing(TransformedFeatures.read(inputs.transform_graph))


@pytest.fixture(params=["in memory", "in windows"])
def examples(request, inputs, packing, monkeypatch):
    if request.param == "in windows":
        monkeypatch.setattr(batches, "WINDOW_BYTES", 250 * packing.row_bytes)
    monkeypatch.setattr(batches, "BLOCK_ROWS", 160)
    return Examples(inputs.transformed, "train", packing)


def row_numbers(blocks):
    return [block.dense[:, 0].astype(int).tolist() for block in blocks]


def flat(lists):
    return [item for items in lists for item in items]


def test_an_epoch_has_every_example_once_and_only_the_last_batch_is_smaller(examples):
    numbers = row_numbers(examples.blocks(64, order=(0, 0)))
    assert sorted(flat(numbers)) == list(range(1030))
    assert all(len(block) % 64 == 0 for block in numbers[:-1])


def test_without_an_order_the_rows_come_as_they_lie_in_the_files(examples):
    assert flat(row_numbers(examples.blocks(64))) == list(range(1030))


def test_the_order_follows_from_seed_and_epoch(examples):
    orders = [flat(row_numbers(examples.blocks(64, order=order))) for order in [(1, 0), (1, 0), (1, 1), (2, 0)]]
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 3
    assert np.corrcoef(orders[0], range(1030))[0, 1] < 0.2


@pytest.mark.parametrize("steps", [0, 1, 5, 12, 16])
def test_an_epoch_that_is_entered_in_the_middle_goes_on_with_the_same_rows(examples, steps):
    whole = flat(row_numbers(examples.blocks(64, order=(3, 4))))
    rest = flat(row_numbers(examples.blocks(64, order=(3, 4), skip=steps * 64)))
    assert rest == whole[steps * 64 :]


def test_windows_that_are_skipped_are_not_read(inputs, packing, monkeypatch):
    monkeypatch.setattr(batches, "WINDOW_BYTES", 250 * packing.row_bytes)
    examples = Examples(inputs.transformed, "train", packing)
    read = []
    original = Examples._read
    monkeypatch.setattr(
        Examples, "_read", lambda self, groups, epoch: read.append(groups) or original(self, groups, epoch)
    )
    list(examples.blocks(64, order=(0, 0), skip=960))
    assert len(read) == 1
    assert examples._kept is None


def test_a_split_that_fits_a_window_is_read_once(inputs, packing, monkeypatch):
    examples = Examples(inputs.transformed, "train", packing)
    list(examples.blocks(64))
    monkeypatch.setattr(batches.pq, "ParquetFile", None)
    assert sum(len(block) for block in examples.blocks(64, order=(0, 1))) == 1030


def test_unpacking_gives_each_feature_with_its_shape_and_dtype(inputs, packing):
    import pyarrow.parquet as pq

    table = pq.read_table(sorted((inputs.transformed / "eval").glob("*.parquet"))[0])
    block = next(iter(Examples(inputs.transformed, "eval", packing).blocks(32)))[: table.num_rows]
    features, label, weight = packing.unpack(block.tensors())
    assert list(features) == ["hours-per-week", "edu_parts", "1st color", "note"]
    for name, tensor in features.items():
        assert tensor.numpy().tolist() == table[name].to_pylist()
        assert tensor.dtype.name == ("int64" if name in ("1st color", "note") else "float32")
    assert label.numpy()[:, 0].tolist() == table["__label__"].to_pylist()
    assert weight is None


def test_example_and_class_weights_are_multiplied(make_inputs):
    inputs = make_inputs(weighted=True)
    described = TransformedFeatures.read(inputs.transform_graph)
    plain = Block.concat(list(Examples(inputs.transformed, "train", Packing(described)).blocks(64)))
    both = Examples(inputs.transformed, "train", Packing(described), np.array([1, 3], np.float32), 0.5)
    block = Block.concat(list(both.blocks(64)))
    np.testing.assert_allclose(block.weight, plain.weight * np.where(block.label == 1, 3, 1) * 0.5, rtol=1e-6)


def test_labels_are_summarized(inputs, packing):
    block = Block.concat(list(Examples(inputs.transformed, "train", packing).blocks(64)))
    label = summarize_labels(inputs.transformed, packing.described)
    assert label.rows == label.weight_sum == 1030
    assert label.counts == (int((block.label == 0).sum()), int((block.label == 1).sum()))
    assert label.mean == pytest.approx(block.label.mean())
    assert label.std == pytest.approx(block.label.std())


def constant_label(split, columns):
    return {**columns, "__label__": np.zeros_like(columns["__label__"])}


def nan_label(split, columns):
    columns["__label__"][3] = np.nan
    return columns


def strange_label(split, columns):
    columns["__label__"][3] = 7
    return columns


def no_rows(split, columns):
    return {name: values[:0] for name, values in columns.items()}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (constant_label, "needs at least two classes of the label .got only 'no'"),
        (nan_label, "every label must be finite .got 1 are not"),
        (strange_label, "labels must be one of the 2 class indices .got 7.0"),
        (no_rows, "training split: has no rows"),
    ],
)
def test_labels_that_nothing_can_be_learnt_from_are_refused(make_inputs, spoil, message):
    inputs = make_inputs(rows=40, spoil=spoil)
    with pytest.raises(DataError, match=message):
        summarize_labels(inputs.transformed, TransformedFeatures.read(inputs.transform_graph))


@pytest.mark.parametrize(
    ("weight", "message"), [(0.0, "must not all be 0"), (-1.0, "not negative"), (np.nan, "must be finite")]
)
def test_weights_that_mean_nothing_are_refused(make_inputs, weight, message):
    def spoil(split, columns):
        return {**columns, "__weight__": np.full_like(columns["__weight__"], weight)}

    inputs = make_inputs(rows=40, weighted=True, spoil=spoil)
    with pytest.raises(DataError, match=message):
        summarize_labels(inputs.transformed, TransformedFeatures.read(inputs.transform_graph))


def test_a_missing_label_is_refused(make_inputs):
    import pyarrow as pa
    import pyarrow.parquet as pq

    inputs = make_inputs(rows=40)
    path = sorted((inputs.transformed / "train").glob("*.parquet"))[0]
    table = pq.read_table(path)
    index = table.schema.get_field_index("__label__")
    pq.write_table(table.set_column(index, "__label__", pa.array([None] * len(table), pa.float32())), path)
    with pytest.raises(DataError, match="__label__: has no value in some rows"):
        summarize_labels(inputs.transformed, TransformedFeatures.read(inputs.transform_graph))


def test_a_truncated_file_is_told(make_inputs):
    inputs = make_inputs(rows=40)
    path = sorted((inputs.transformed / "train").glob("*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(PlatformError, match=r"part-00000.parquet: is not a whole Parquet file"):
        Examples(inputs.transformed, "train", Packing(TransformedFeatures.read(inputs.transform_graph)))


def shares(inputs, packing, workers):
    return [Examples(inputs.transformed, "train", packing, place=Place(w, workers)) for w in range(workers)]


@pytest.mark.parametrize("memory", ["in memory", "in windows"])
@pytest.mark.parametrize(("workers", "size"), [(2, 32), (3, 20), (7, 5), (23, 4)])
def test_workers_have_every_example_once_in_an_epoch(inputs, packing, monkeypatch, memory, workers, size):
    """1,030 rows in row groups of 100 and 15: with 23 workers, fewer row groups than workers."""
    if memory == "in windows":
        monkeypatch.setattr(batches, "WINDOW_BYTES", 250 * packing.row_bytes)
    monkeypatch.setattr(batches, "BLOCK_ROWS", 160)
    found = [list(each.blocks(size, order=(0, 1))) for each in shares(inputs, packing, workers)]
    numbers = [row_numbers(blocks) for blocks in found]
    assert sorted(flat(flat(numbers))) == list(range(1030))
    assert {len(blocks) for blocks in found} == {len(found[0])}, "all workers make as many calls"
    assert all(len(block) == len(found[0][0]) for blocks in found for block in blocks[:-1])


@pytest.mark.parametrize(("workers", "size"), [(2, 32), (3, 20), (7, 5), (23, 4), (5, 206), (5, 103)])
def test_workers_know_of_each_step_how_many_examples_it_has(inputs, packing, workers, size):
    each = shares(inputs, packing, workers)
    assert {share.steps(size) for share in each} == {-(-1030 // (size * workers))}
    steps = each[0].steps(size)
    real = np.sum([np.clip(share.rows - size * np.arange(steps), 0, size) for share in each], axis=0)
    for share in each:
        assert share.examples(size, 0, steps).tolist() == real.tolist()
        assert share.examples(size, steps - 1, 1).tolist() == real[-1:].tolist()
    assert real.sum() == 1030
    assert real.min() > 0


def test_a_workers_share_is_whole_row_groups_but_for_its_ends(inputs, packing):
    """515 rows of each of two files: with two workers each reads one file, and nothing of the other."""
    first, second = shares(inputs, packing, 2)
    assert {group.path.name for group in first._groups} == {"part-00000.parquet"}
    assert {group.path.name for group in second._groups} == {"part-00001.parquet"}
    thirds = shares(inputs, packing, 3)
    cut = [group for share in thirds for group in share._groups if group.rows not in (100, 15)]
    assert len(cut) == 4, "two borders within a row group, each of which is read by two workers"


def test_a_worker_with_nothing_in_the_last_step_has_an_empty_block(inputs, packing, monkeypatch):
    """1,030 rows of three workers are 343, 343 and 344; the last step of 343 rows each has one row in all."""
    monkeypatch.setattr(batches, "BLOCK_ROWS", 343)
    lengths = [[len(b) for b in share.blocks(343)] for share in shares(inputs, packing, 3)]
    assert lengths == [[343, 0], [343, 0], [343, 1]]
    assert [len(b) for b in shares(inputs, packing, 3)[0].blocks(343, skip=343)] == [0]


@pytest.mark.parametrize("steps", [0, 3, 7])
def test_a_worker_enters_an_epoch_in_the_middle_with_the_same_blocks(inputs, packing, monkeypatch, steps):
    monkeypatch.setattr(batches, "WINDOW_BYTES", 250 * packing.row_bytes)
    monkeypatch.setattr(batches, "BLOCK_ROWS", 160)
    share = shares(inputs, packing, 2)[1]
    whole = row_numbers(share.blocks(32, order=(3, 4)))
    rest = row_numbers(share.blocks(32, order=(3, 4), skip=steps * 32))
    assert flat(rest) == flat(whole)[steps * 32 :]
    assert rest[1:] == whole[len(whole) - len(rest) + 1 :], "blocks end where they did, so calls have the same steps"


def test_workers_do_not_draw_the_same_order(inputs, packing):
    first, second = (flat(row_numbers(share.blocks(64, order=(0, 0)))) for share in shares(inputs, packing, 2))
    assert [number - 515 for number in second] != first


def test_blocks_are_made_ahead_of_who_takes_them(inputs, packing):
    made = []

    def noted(blocks):
        for block in blocks:
            made.append(len(made))
            yield block

    examples = Examples(inputs.transformed, "train", packing)
    whole = row_numbers(examples.blocks(64))
    taken = batches.ahead(noted(examples.blocks(64)))
    assert row_numbers([next(taken)]) == whole[:1]
    assert row_numbers(taken) == whole[1:]
    with pytest.raises(ZeroDivisionError):
        list(batches.ahead(noted(Block(1 / 0, None, None, None) for _ in range(1))))


def test_a_block_is_padded_with_zeros(inputs, packing):
    block = next(iter(Examples(inputs.transformed, "train", packing).blocks(64)))[:3]
    padded = block.padded(5)
    assert len(padded) == 5
    assert not padded.dense[3:].any()
    assert not padded.ids[3:].any()
    np.testing.assert_array_equal(padded.dense[:3], block.dense)
