"""Results on disk: nothing is lost, nothing is doubled, and bad files are named."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import results

from igos_pl.cli.status import print_status
from igos_pl.data.explanation import Explanation, explanations_of
from igos_pl.data.geometry import Frame
from igos_pl.data.records import BatchResult, Columns, ImageRecord
from igos_pl.errors import DiskFullError, IgosError
from igos_pl.store import MaskFile, RunFolder, merge
from igos_pl.store.schema import EXPLANATIONS, SCHEMA_VERSION, write_table
from igos_pl.store.seals import check_seal, read_head, seal
from igos_pl.store.segments import added_bytes, segment_bytes

ATTRIBUTES = {"method": "iGOS++", "l1": 0.1, "mask_size": 4, "data.resize": "squash"}
TEXTS = ("sample_id", "label_name", "status")
SHAPES = {"masks": (4, 4), "box": (4,), "deletion_curve": (51,), "insertion_curve": (51,)}


def result_of(ids: Sequence[str], targets: int = 1, seed: int = 0, **sizes: int) -> BatchResult:
    """Random rows for some images; images that begin with ``bad`` are unreadable."""
    random = np.random.RandomState(seed)
    good = [name for name in ids if not name.startswith("bad")]
    rows = len(good) * targets
    size = {"width": 40, "height": 30, **sizes}
    frame = Frame.of(size["width"], size["height"], (24, 24), "squash")
    records = [
        ImageRecord(name, f"/photos/{name}", frame, ground_truth=3, targets=targets)
        if name in good
        else ImageRecord(name, f"/photos/{name}", status="unreadable", message="damaged: ü")
        for name in ids
    ]
    columns: Columns = {
        name: random.rand(rows, *SHAPES.get(name, ())).astype(np.float32)
        if column.dtype in ("f", "f4")
        else random.randint(0, 100, rows)
        for name, column in EXPLANATIONS.items()
        if name not in TEXTS
    }
    columns["sample_id"] = np.repeat(np.array(good, object), targets)
    columns["target"] = np.tile(np.arange(targets), len(good))
    columns["start_cell"] = np.full(rows, -1)
    columns["label_name"] = np.array([f"class {label} é" for label in columns["label"]], object)
    columns["status"] = np.array(["ok"] * rows, object)
    return BatchResult(records, columns if rows else {})


def run_of(path: Path, *parts: Sequence[str], targets: int = 1) -> RunFolder:
    """A run with a segment for each part."""
    run = RunFolder(path)
    run.prepare()
    for seed, ids in enumerate(parts):
        segment = run.publish([result_of(ids, targets, seed)], ATTRIBUTES)
        segment.rename(segment.with_name(f"{seed}-{segment.name}"))  # names of one second have no order
    return run


def tables(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Everything that a reader sees."""
    with MaskFile(path) as masks:
        return {
            **{name: masks.column(name) for name in EXPLANATIONS},
            **{f"images/{name}": values for name, values in masks.images.items()},
        }


def assert_same_tables(
    found: dict[str, np.ndarray[Any, Any]], expected: dict[str, np.ndarray[Any, Any]]
) -> None:
    assert list(found) == list(expected)
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


def test_round_trip(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.prepare()
    parts = [result_of(["a", "bad", "c"], 2, 1), result_of(["d"], 2, 2)]
    segment = run.publish(parts, ATTRIBUTES)
    assert run.segments() == [segment]
    assert run.done() == {"a", "bad", "c", "d"}
    assert not run.is_merged()
    assert merge(tmp_path, partial=True) == run.merged
    assert run.is_merged()
    expected = {name: np.concatenate([part.explanations[name] for part in parts]) for name in EXPLANATIONS}
    for path in (segment, run.merged, tmp_path):
        found = tables(path)
        for name in EXPLANATIONS:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
        assert found["images/sample_id"].tolist() == ["a", "bad", "c", "d"]
        assert found["images/status"].tolist() == ["ok", "unreadable", "ok", "ok"]
        assert found["images/message"].tolist() == ["", "damaged: ü", "", ""]
        assert found["images/targets"].tolist() == [2, 0, 2, 2]
        assert found["images/path"][0] == "/photos/a"
        with MaskFile(path) as masks:
            assert ATTRIBUTES.items() <= masks.attributes.items()
            assert masks.attributes["schema_version"] == SCHEMA_VERSION
            assert "created" in masks.attributes


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_masks_keep_their_precision(tmp_path: Path, dtype: Any) -> None:
    run, result = RunFolder(tmp_path), result_of(["a"])
    run.prepare()
    result.explanations["masks"] = result.explanations["masks"].astype(dtype)
    run.publish([result], ATTRIBUTES)
    merge(run, partial=True)
    assert tables(run.merged)["masks"].dtype == dtype


def test_merged_rows_are_sorted_however_the_work_was_split(tmp_path: Path) -> None:
    one = run_of(tmp_path / "one", ["d", "a"], ["c", "bad"], ["b"], targets=3)
    merge(one, partial=True)
    found = tables(one.merged)
    assert found["sample_id"].tolist() == sorted("abcd" * 3)
    assert found["target"].tolist() == [0, 1, 2] * 4
    assert found["images/sample_id"].tolist() == ["a", "b", "bad", "c", "d"]
    segments = tables(one.path)
    order = np.lexsort((segments["target"], segments["sample_id"].astype(str)))
    for name in EXPLANATIONS:
        np.testing.assert_array_equal(found[name], segments[name][order], err_msg=name)

    other = RunFolder(tmp_path / "other")
    other.prepare()
    for part in ([2], [1, 0]):
        names = (["d", "a"], ["c", "bad"], ["b"])
        other.publish([result_of(names[i], 3, i) for i in part], ATTRIBUTES)
    merge(other, partial=True)
    assert_same_tables(tables(other.merged), found)


def test_merge_again_gives_the_same(tmp_path: Path) -> None:
    run = run_of(tmp_path, ["b", "a"], ["c"])
    merge(run, partial=True)
    first = tables(run.merged)
    merge(run, partial=True)
    assert_same_tables(tables(run.merged), first)
    run.publish([result_of(["aa"], seed=9)], ATTRIBUTES)
    assert not run.is_merged()
    merge(run, partial=True)
    assert run.is_merged()
    assert tables(run.merged)["sample_id"].tolist() == ["a", "aa", "b", "c"]


@pytest.mark.parametrize("size", [200, 2000, 5000])
def test_merge_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    run = run_of(tmp_path, ["d", "a", "f"], ["c", "e"], ["b"], targets=2)
    merge(run, partial=True)
    expected = tables(run.merged)
    monkeypatch.setattr(sys.modules["igos_pl.store.tables"], "_BLOCK_BYTES", size)
    merge(run, partial=True)
    assert_same_tables(tables(run.merged), expected)


def test_segments_without_explanations(tmp_path: Path) -> None:
    run = run_of(tmp_path, ["bad1"], ["a"], ["bad2"])
    merge(run, partial=True)
    for path in (tmp_path, run.merged):
        with MaskFile(path) as masks:
            assert len(masks) == 1
            assert masks[0].sample_id == "a"
    empty = run_of(tmp_path / "empty", ["bad1"], ["bad2"])
    merge(empty, partial=True)
    for path in (empty.path, empty.merged):
        with MaskFile(path) as masks:
            assert (len(masks), list(masks), len(masks.where(label=3))) == (0, [], 0)
            assert masks.images["sample_id"].tolist() == ["bad1", "bad2"]
            assert [masks.column(name).dtype for name in ("label_name", "label")] == [object, np.int32]


@pytest.mark.parametrize("images", [1, 8])
def test_what_a_result_adds_to_a_segment(images: int) -> None:
    """It is nearly the same for each image, whatever the batch. A segment itself takes many times that."""

    def result_of(count: int) -> BatchResult:
        names = [f"{number:06}.jpg" for number in range(count)]
        frame = Frame(40, 30, (0.0, 0.0, 40.0, 30.0), (24, 24))
        records = [ImageRecord(name, f"/photos/{name}", frame, targets=1) for name in names]
        return BatchResult(records, results.columns_of(names, masks=np.zeros((count, 28, 28), np.float32)))

    true = len(segment_bytes([result_of(500)], results.ATTRIBUTES)) / 500
    assert true * 0.9 < added_bytes(result_of(images), results.ATTRIBUTES) / images < true * 2
    assert added_bytes(BatchResult(result_of(images).images), results.ATTRIBUTES) < true * images


def test_first_of_two_results_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path, ["a", "bad", "b"], ["c", "b"], ["b", "bad"], targets=2)
    run.expect(["a", "b", "bad", "c"])
    first, second = (tables(path) for path in run.segments()[:2])
    found = tables(tmp_path)
    assert found["images/sample_id"].tolist() == ["a", "bad", "b", "c"]
    for name in EXPLANATIONS:
        expected = np.concatenate([first[name], second[name][:2]])  # the rows of c
        np.testing.assert_array_equal(found[name], expected, err_msg=name)
    with MaskFile(tmp_path) as masks:
        assert [row.score for row in masks] == found["score"].tolist()
    assert run.missing() == []
    assert not run.is_merged()
    merge(run)
    assert [record.getMessage() for record in caplog.records] == [
        f"{run.merged}: images explained by more than one run: 1; one result of each is used"
    ]
    assert run.is_merged()
    merged = tables(run.merged)
    assert merged["images/sample_id"].tolist() == ["a", "b", "bad", "c"]
    order = np.lexsort((found["target"], found["sample_id"].astype(str)))
    for name in EXPLANATIONS:
        np.testing.assert_array_equal(merged[name], found[name][order], err_msg=name)
    print_status(tmp_path)
    assert "4 of 4 images are written (3 ok, 1 unreadable)" in capsys.readouterr().out


def test_merge_without_doubles_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    merge(run_of(tmp_path, ["a", "b"], ["c"]), partial=True)
    assert not caplog.records


@contextmanager
def files_at_once(number: int) -> Iterator[None]:
    """Lower the process's limit, so that at most so many more files can be open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir("/proc/self/fd") if Path(f"/proc/self/fd/{name}").exists()}
    # A new file gets a number below the limit.
    free = [place for place in range(len(used) + number + 1) if place not in used]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[number], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_more_segments_than_files_may_be_open(tmp_path: Path) -> None:
    names = [f"{number:02d}" for number in range(40)]
    run = run_of(tmp_path, *([name] for name in names))
    with files_at_once(8):
        with MaskFile(tmp_path) as masks:
            assert sorted(masks.column("sample_id").tolist()) == names
            assert sorted(row.sample_id for row in masks) == names
        merge(run, partial=True)
    assert tables(run.merged)["sample_id"].tolist() == names


def test_too_many_open_files_are_no_damage(tmp_path: Path) -> None:
    (segment,) = run_of(tmp_path, ["a"]).segments()
    with files_at_once(0), pytest.raises(IgosError, match=r"Too many open files.*ulimit -n") as caught:
        MaskFile(segment)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("damage", ["cut off", "a byte"])
def test_damaged_merged_file_is_made_again(tmp_path: Path, damage: str) -> None:
    run = run_of(tmp_path, ["a", "b"], ["c"])
    merge(run, partial=True)
    content = bytearray(run.merged.read_bytes())
    if damage == "cut off":
        content = content[: len(content) // 2]
    else:
        content[-100] ^= 0xFF
    run.merged.write_bytes(content)
    for use in (lambda: MaskFile(tmp_path), lambda: check_seal(run.merged)):
        with pytest.raises(IgosError, match=r"masks\.h5.*damaged.*copy of .*segments: igos-pl merge .*again"):
            use()
    merge(run, partial=True)
    assert run.is_merged()
    assert (tmp_path / "damaged" / "masks.h5").read_bytes() == content
    (tmp_path / "elsewhere").mkdir()
    run.merged.write_bytes(content)
    run.merged.rename(tmp_path / "elsewhere" / "masks.h5")
    with pytest.raises(IgosError, match=r"masks\.h5.*damaged") as caught:
        MaskFile(tmp_path / "elsewhere").column("masks")
    assert "igos-pl merge" not in str(caught.value)


def test_images_that_lost_their_segment_do_not_vanish(tmp_path: Path) -> None:
    run = run_of(tmp_path, ["a", "b"], ["c"])
    merge(run, partial=True)
    before = run.merged.read_bytes()
    run.segments()[0].unlink()
    with pytest.raises(
        IgosError, match=r"masks\.h5 holds 2 images that no segment has any more, such as a: "
    ):
        merge(run, partial=True)
    assert run.merged.read_bytes() == before


def test_incomplete_runs_are_not_merged(tmp_path: Path) -> None:
    run = run_of(tmp_path, ["a"], ["b"])
    run.expect(["a", "b", "c"])
    assert run.missing() == ["c"]
    with pytest.raises(IgosError, match=r"1 image is not explained yet \(c\).*--partial"):
        merge(run)
    assert not run.merged.exists()
    run.expect(["a", "b"])
    assert merge(run) == run.merged
    with pytest.raises(IgosError, match=r"is not the output folder of a run: it has no samples.txt"):
        merge(run_of(tmp_path / "other", ["a"]))


def test_expected_names_are_kept_as_they_are(tmp_path: Path) -> None:
    run = run_of(tmp_path, ["a"])
    names = ["a", "ü", "line\u2028break", "with space"]
    run.expect(names)
    assert run.missing() == names[1:]
    run.publish([result_of(names[1:])], ATTRIBUTES)
    assert run.missing() == []
    merge(run)
    assert tables(run.merged)["sample_id"].tolist() == sorted(names)


def test_merge_without_segments(tmp_path: Path) -> None:
    with pytest.raises(IgosError, match="No segments in .*is .* the output folder of a run"):
        merge(RunFolder(tmp_path), partial=True)


@pytest.mark.parametrize("damage", ["cut off", "no HDF5", "a byte"])
def test_damaged_segment_is_set_aside(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    run = run_of(tmp_path, ["a", "b"], ["c"])
    bad = run.segments()[1]
    content = bytearray(bad.read_bytes())
    if damage == "cut off":
        content = content[: len(content) // 2]
    elif damage == "no HDF5":
        content = bytearray(b"something else")
    else:
        with h5py.File(bad) as file:
            content[file["masks"].id.get_offset()] ^= 0xFF
    bad.write_bytes(content)
    listing = [lambda: RunFolder(tmp_path).done()] if damage != "a byte" else []  # reads the head alone
    for use in (*listing, lambda: tables(tmp_path), lambda: check_seal(bad)):
        with pytest.raises(IgosError, match=f"Cannot read .*{bad.name}.*damaged"):
            use()
    merge(run, partial=True)
    assert f"{bad.name} was damaged and is now {tmp_path}/damaged" in caplog.text
    assert (tmp_path / "damaged" / bad.name).read_bytes() == content
    assert run.done() == {"a", "b"}
    assert tables(tmp_path)["images/sample_id"].tolist() == ["a", "b"]


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(IgosError, match=r"There is no .*nowhere\.h5: give a run's output folder"):
        MaskFile(tmp_path / "nowhere.h5")
    with pytest.raises(IgosError, match=r"No results in .*: neither masks\.h5 nor segments"):
        MaskFile(tmp_path)


def test_folder_of_a_merged_file_alone(tmp_path: Path) -> None:
    run = run_of(tmp_path, ["a", "b"])
    merge(run, partial=True)
    expected = tables(run.merged)
    for path in run.segments():
        path.unlink()
    assert_same_tables(tables(tmp_path), expected)


@pytest.mark.parametrize(
    ("version", "advice"), [(SCHEMA_VERSION + 1, "update"), (2, "read it with .* that wrote it")]
)
def test_other_schema_versions_are_refused(tmp_path: Path, version: int, advice: str) -> None:
    run = run_of(tmp_path, ["a"])
    segment = run.segments()[0]
    seal(segment, {**read_head(segment), "schema_version": version})
    for use in (
        lambda run: merge(run, partial=True),
        RunFolder.done,
        lambda run: run.check_configuration(ATTRIBUTES),
    ):
        with pytest.raises(
            IgosError, match=rf"schema version {version}, .* versions 3 to {SCHEMA_VERSION}: {advice}"
        ):
            use(run)


def test_other_peoples_hdf5_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(IgosError, match=r"other\.h5 is an HDF5 file, but was not written by igos-pl"):
        MaskFile(tmp_path / "other.h5")


def test_a_search_of_an_older_version_is_told(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.prepare()
    run.claim({"method": "search", "search": "0123456789abcdef"})
    with pytest.raises(IgosError, match=r"\(the settings of the search: an older version .* their digest\)"):
        run.check_configuration({"method": "search", "search.weight": 1.5, "search.check": 3})


@pytest.mark.parametrize("merged", [False, True])
def test_another_configuration_names_the_keys(tmp_path: Path, merged: bool) -> None:
    run = RunFolder(tmp_path)
    run.prepare()
    run.publish([result_of(["a"])], {**ATTRIBUTES, "torch": "2.9", "device": "cpu"})  # these may differ
    if merged:
        merge(run, partial=True)
        run.segments()[0].unlink()
    run.check_configuration(ATTRIBUTES)
    changed = {**ATTRIBUTES, "l1": 0.2, "seed": 3}
    del changed["data.resize"]
    with pytest.raises(IgosError) as caught:
        run.check_configuration(changed)
    message = str(caught.value)
    for part in ("l1: there 0.1, now 0.2", "resize: there 'squash', now None", "seed: there None, now 3"):
        assert part in message
    assert "--output" in message
    assert "method" not in message
    assert "; and " not in message
    with pytest.raises(IgosError, match=r"setting5: there None, now 5; and 4 more\)"):
        run.check_configuration({**ATTRIBUTES, **{f"setting{number}": number for number in range(12)}})


def test_output_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("something")
    with pytest.raises(IgosError, match="Cannot write to the output folder .*run.*--output"):
        RunFolder(tmp_path / "run").prepare()
    with pytest.raises(IgosError, match="Cannot write to the output folder"):
        RunFolder(tmp_path / "run" / "below").prepare()
    assert (tmp_path / "run").read_text() == "something"


def full_disk(path: Path, content: bytes) -> int:
    with path.open("wb") as file:
        file.write(content[:100])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_full_disk_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(IgosError, match="Cannot write to the output folder .*: No space left.*free space"):
        RunFolder(tmp_path).prepare()
    assert list((tmp_path / "segments").iterdir()) == []


def test_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, content: bytes) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(IgosError, match="Cannot write to the output folder .*: Permission denied"):
        RunFolder(tmp_path).prepare()


@pytest.mark.parametrize("when", ["write", "sync"])
def test_full_disk_loses_nothing_that_was_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    run = run_of(tmp_path, ["a", "b"])
    before = tables(tmp_path)

    def fail(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        if when == "write":
            patched.setattr(Path, "write_bytes", full_disk)
        else:
            patched.setattr(os, "fsync", fail)
        with pytest.raises(IgosError, match="Cannot write .*No space left.*published before is safe"):
            run.publish([result_of(["c"])], ATTRIBUTES)
        if when == "sync":
            with pytest.raises(IgosError, match=r"Cannot write .*masks\.h5: No space left"):
                merge(run, partial=True)
            assert not run.merged.exists()
    assert len(list(run.segments_path.iterdir())) == 1
    assert run.done() == {"a", "b"}
    assert_same_tables(tables(tmp_path), before)
    run.publish([result_of(["c"])], ATTRIBUTES)
    merge(run, partial=True)
    assert tables(run.merged)["sample_id"].tolist() == ["a", "b", "c"]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["configuration.json", "masks.h5", "segments"]


def test_nothing_is_called_safe_where_nothing_was_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path)
    run.prepare()
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(DiskFullError, match="No space left.*Nothing is published yet"):
        run.publish([result_of(["a"])], ATTRIBUTES)


def test_what_a_killed_run_left_is_no_result(tmp_path: Path) -> None:
    run = run_of(tmp_path, ["a"])
    (run.segments_path / ".20260101-rank0000-x.h5.1234.tmp").write_bytes(b"half")
    (run.segments_path / ".20260101-rank0000-y.h5").write_bytes(b"half")
    assert len(run.segments()) == 1
    assert run.done() == {"a"}
    merge(run, partial=True)
    assert len(tables(run.merged)["label"]) == 1


def test_columns_must_be_those_of_the_schema(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    result = result_of(["a", "b"])
    short = {**result.explanations, "score": np.zeros(1, np.float32)}
    with pytest.raises(IgosError, match="Columns differ in length: .*'score': 1"):
        run.publish([BatchResult(result.images, short)], ATTRIBUTES)
    coloured = {**result.explanations, "colour": np.zeros(2)}
    with (
        h5py.File("x", "w", driver="core", backing_store=False) as file,
        pytest.raises(IgosError, match="'colour'.*missing or unknown"),
    ):
        write_table(file, EXPLANATIONS, coloured)
    assert list(run.segments_path.iterdir()) == []


def test_reading_rows(tmp_path: Path) -> None:
    run = run_of(tmp_path, ["a", "b"], ["c"], targets=2)
    for path in (tmp_path, merge(run, partial=True)):
        with MaskFile(path) as masks:
            assert len(masks) == 6
            assert [row.sample_id for row in masks] == list("aabbcc")
            assert masks[-1].sample_id == masks[5].sample_id == "c"
            assert masks[-1].target == 1
            assert masks[np.int64(2)].sample_id == "b"
            for number, row in enumerate(masks):
                assert row.score == masks.column("score")[number]
                np.testing.assert_array_equal(row.mask, masks.column("masks")[number])
                np.testing.assert_array_equal(row.saliency, 1 - row.mask)
                assert row.image["path"] == f"/photos/{row.sample_id}"
            for outside in (6, -7):
                with pytest.raises(IndexError, match=f"row {outside} does not exist: there are 6 rows"):
                    masks[outside]
            assert masks.where(sample_id="b").tolist() == [2, 3]
            assert masks.where(sample_id="b", target=1).tolist() == [3]
            assert masks.where(sample_id="nobody").tolist() == []
            assert masks.where().tolist() == list(range(6))
            with pytest.raises(IgosError, match="No column 'colour'; there are: masks, sample_id"):
                masks.where(colour="red")
            with pytest.raises(AttributeError, match="no column 'colour'"):
                _ = masks[0].colour


def test_explanations_can_be_copied_and_pickled(tmp_path: Path) -> None:
    run = run_of(tmp_path, ["a"])
    with MaskFile(run.segments()[0]) as masks:
        row = masks[0]
    for other in (copy.copy(row), copy.deepcopy(row), pickle.loads(pickle.dumps(row))):
        assert other.sample_id == "a"
        np.testing.assert_array_equal(other.mask, row.mask)


def test_rows_before_they_are_written_are_those_that_are_read(tmp_path: Path) -> None:
    result = result_of(["a", "bad", "c"], 2)
    run = run_of(tmp_path, [])
    run.publish([result], ATTRIBUTES)
    before = explanations_of(result, ATTRIBUTES)
    segment = next(path for path in run.segments() if run.done())
    with MaskFile(tmp_path) as masks:
        assert segment.exists()
        assert len(before) == len(masks) == 4
        for early, late in zip(before, masks, strict=True):
            assert (early.sample_id, early.target, early.label_name) == (
                late.sample_id, late.target, late.label_name,
            )  # fmt: skip
            np.testing.assert_array_equal(early.mask, late.mask)
            np.testing.assert_array_equal(early.saliency_on_original(), late.saliency_on_original())


def corner(width: int, height: int, resize: str) -> np.ndarray[Any, Any]:
    """The saliency, on the original, of a mask whose upper left quarter is important."""
    mask = np.ones((8, 8), np.float32)
    mask[:4, :4] = 0
    image = ImageRecord("a", "a.png", Frame.of(width, height, (24, 24), resize)).row()
    return Explanation({"masks": mask}, image, {}).saliency_on_original()


@pytest.mark.parametrize(("width", "height"), [(60, 20), (20, 60), (31, 17)])
def test_saliency_lies_right_side_up_on_the_original(width: int, height: int) -> None:
    found = corner(width, height, "squash")
    assert found.shape == (height, width)
    across, down = found[0] > 0.5, found[:, 0] > 0.5
    assert across[: width // 2 - 1].all()
    assert down[: height // 2 - 1].all()
    assert not across[width // 2 + 1 :].any()
    assert not down[height // 2 + 1 :].any()
    assert found[height * 3 // 4 :].max() == found[:, width * 3 // 4 :].max() == 0
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6


@pytest.mark.parametrize(("width", "height"), [(64, 32), (32, 64)])
def test_saliency_of_a_crop_lies_in_the_middle(width: int, height: int) -> None:
    found = corner(width, height, "crop")
    assert found.shape == (height, width)
    left, top = (width - 28) // 2, (height - 28) // 2  # 7/8 of the shorter side
    rows, columns = np.nonzero(found > 0.5)
    assert (columns.min(), rows.min()) == (left, top)
    assert abs(columns.max() + 1 - (left + 14)) <= 1
    assert abs(rows.max() + 1 - (top + 14)) <= 1
    outside = found.copy()
    outside[top : top + 28, left : left + 28] = 0
    assert not outside.any()


def test_rows_are_selected_lazily(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_of(tmp_path, ["a", "b"], ["c", "bad"], ["d"], targets=2)
    for path in (tmp_path, merge(RunFolder(tmp_path), partial=True)):
        with MaskFile(path) as masks:
            ids = masks.column("sample_id").tolist()
            assert ids == ["a", "a", "b", "b", "c", "c", "d", "d"]
            assert [row.sample_id for row in masks[2:5]] == ["b", "b", "c"]
            assert masks[[7, 0]].column("target").tolist() == [1, 0]
            assert [row.target for row in masks["c"]] == [0, 1]
            assert [row.sample_id for row in masks[masks.where(target=1)][::-1]] == ["d", "c", "b", "a"]
            assert [row.target for row in masks["c"][1:]] == [1]
            assert masks[np.int64(-1)].sample_id == "d"
            assert masks["c"].where(target=1).tolist() == [1]
            assert len(masks[5:5]) == 0
            np.testing.assert_array_equal(masks[3].mask, masks.column("masks")[3])
            for name in ("score", "box", "label_name"):
                np.testing.assert_array_equal(masks[[6, 1, 4]].column(name), masks.column(name)[[6, 1, 4]])
            with pytest.raises(KeyError, match="no explanation of 'bad'"):
                masks["bad"]
            with pytest.raises(IndexError, match="row 8 does not exist: there are 8 rows"):
                masks[8]
            assert repr(masks) == "<8 explanations>"
    read: list[str] = []
    real = MaskFile.read

    def noting(self: MaskFile, name: str, numbers: Any) -> Any:
        read.append(name)
        return real(self, name, numbers)

    monkeypatch.setattr(MaskFile, "read", noting)
    with MaskFile(tmp_path) as masks:
        rows = masks[1:7]
        assert read == []
        rows.column("score")
        assert read == ["score"]
        read.clear()
        assert len(list(masks)) == 8
        assert len(read) == len(set(read)), "a block is read column by column, not row by row"


def test_files_of_version_3_are_read_and_merged(tmp_path: Path) -> None:
    """They do not say which points of the curves were measured: all of them were."""
    run = run_of(tmp_path, ["a", "b"], ["c"], targets=2)
    expected = tables(tmp_path)
    for segment in run.segments():
        head = {**read_head(segment), "schema_version": 3}
        with h5py.File(segment, "r+") as file:
            file.attrs["schema_version"] = 3
            for name in ("deletion_measured", "insertion_measured"):
                del file[name]
        seal(segment, head)
    expected |= {f"{name}_measured": np.ones((6, 51), np.int8) for name in ("deletion", "insertion")}
    assert_same_tables(tables(tmp_path), expected)
    merge(run, partial=True)
    assert_same_tables(tables(run.merged), expected)
    with MaskFile(run.merged) as masks:
        assert masks.attributes["schema_version"] == SCHEMA_VERSION
        assert masks[[4, 1]].column("deletion_measured").shape == (2, 51)
        assert masks[3].deletion_measured.all()
