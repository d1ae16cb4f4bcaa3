"""What makes results of a million images quick: heads, fixed-length text, chunks that threads compress."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from igos_pl.cli.main import main
from igos_pl.data.geometry import Frame
from igos_pl.data.records import BatchResult, Columns, ImageRecord
from igos_pl.errors import IgosError
from igos_pl.store import MaskFile, RunFolder, merge
from igos_pl.store.index import Index, Published, find
from igos_pl.store.schema import EXPLANATIONS, IMAGES, decoded, encoded, find_column, text_array
from igos_pl.store.seals import check_seal, read_head, seal, sealed
from igos_pl.store.tables import compressed

ROOT = Path(__file__).parents[1]
ATTRIBUTES = {"method": "iGOS+", "seed": 1}


def result_of(
    ids: Sequence[str], targets: int = 1, seed: int = 0, size: int = 4, **records: Any
) -> BatchResult:
    """Random rows; the columns' values depend on the seed alone."""
    random = np.random.default_rng(seed)
    rows = len(ids) * targets
    shapes = {"masks": (size, size), "box": (4,), "deletion_curve": (5,), "insertion_curve": (5,)}
    columns: Columns = {
        name: random.random((rows, *shapes.get(name, ())), np.float32)
        if column.dtype in ("f", "f4")
        else random.integers(0, 100, rows)
        for name, column in EXPLANATIONS.items()
    }
    columns["sample_id"] = np.repeat(np.array(ids, object), targets)
    columns["target"] = np.tile(np.arange(targets), len(ids))
    for name in ("label_name", "status"):
        columns[name] = np.array([f"{name} {number}" for number in random.integers(0, 100, rows)], object)
    frame = Frame.of(40, 30, (24, 24), "squash")
    images = [ImageRecord(name, f"/{name}", frame, **{"targets": targets, **records}) for name in ids]
    return BatchResult(images, columns)


def run_of(path: Path, *results: BatchResult) -> RunFolder:
    """A run with a segment for each result."""
    run = RunFolder(path)
    run.prepare()
    run.expect([record.sample_id for result in results for record in result.images])
    for number, result in enumerate(results):
        segment = run.publish([result], ATTRIBUTES)
        segment.rename(segment.with_name(f"{number}-{segment.name}"))
    return run


def plain(path: Path) -> dict[str, Any]:
    """All columns of a file as h5py alone reads them, without the scales that name the axes."""
    found: dict[str, Any] = {}

    def keep(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not item.is_scale:
            found[name] = item[...]

    with h5py.File(path) as file:
        file.visititems(keep)
    return found


# Text


@pytest.mark.parametrize("longest", [0, 1, 255, 256, 257, 70_000])
def test_text_of_every_length_comes_back(tmp_path: Path, longest: int) -> None:
    texts = ["", "ü" * (longest // 2), "x" * longest]
    column = encoded(np.array(texts, object))
    assert column.dtype.kind == ("S" if longest <= 256 else "O")
    assert decoded(column).tolist() == texts
    results = [
        BatchResult([ImageRecord(f"{number}", "", message=text, status="failed")])
        for number, text in enumerate(texts)
    ]
    run = run_of(tmp_path, *results)
    with MaskFile(tmp_path) as masks:
        assert masks.images["message"].tolist() == texts
    with MaskFile(merge(run)) as masks:
        assert masks.images["message"].tolist() == texts
    with h5py.File(run.merged) as file:
        length = h5py.check_string_dtype(file["images/message"].dtype).length
        assert length == (max(1, longest) if longest <= 256 else None)
        assert file["images/message"].asstr()[...].tolist() == texts


def test_long_text_among_short_and_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column has no fixed length in one segment, and one in the others."""
    results = [result_of([f"{number}a", f"{number}b"], 2, number) for number in range(4)]
    results[2].explanations["label_name"][1] = "long " * 1000
    run = run_of(tmp_path, *results)
    monkeypatch.setattr(sys.modules["igos_pl.store.tables"], "_BLOCK_BYTES", 1000)
    with MaskFile(tmp_path) as segments, MaskFile(merge(run)) as merged:
        for name in EXPLANATIONS:
            np.testing.assert_array_equal(merged.column(name), segments.column(name), err_msg=name)


@pytest.mark.parametrize("value", ["a\0", "\0", "\ud800", None, b"bytes", 3])
def test_text_that_no_file_can_hold_is_refused(value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        encoded(np.array([value, "x"], object))


def test_ids_of_different_lengths_are_sorted_as_utf_8(tmp_path: Path) -> None:
    names = ["b", "ä", "a", "\U0001d538", "aé", "a" * 300, "ab", "\uffff", "zz" * 90]
    parts = [result_of(names[place::3], 2, place) for place in range(3)]
    run = run_of(tmp_path, *parts)
    assert run.missing() == []
    assert run.done() == set(names)
    with MaskFile(merge(run)) as masks:
        expected = sorted(names, key=str.encode)
        assert masks.images["sample_id"].tolist() == expected
        assert masks.column("sample_id").tolist() == [name for name in expected for _ in range(2)]
        for part in parts:
            for row, name in enumerate(part.explanations["sample_id"].tolist()):
                place = masks.where(sample_id=name, target=int(part.explanations["target"][row]))
                np.testing.assert_array_equal(
                    masks[place].column("masks")[0], part.explanations["masks"][row]
                )
        for explanation in masks:
            assert explanation.image["path"] == f"/{explanation.sample_id}"


# Heads


def test_the_head_lists_the_images(tmp_path: Path) -> None:
    run = run_of(tmp_path, result_of(["a", "ü"], 2), BatchResult([ImageRecord("c", "", status="failed")]))
    first, second = (Index.read(path) for path in run.segments())
    assert (first.ids.tolist(), first.statuses.tolist(), first.rows) == (
        [b"a", "ü".encode()], [b"ok", b"ok"], 4,
    )  # fmt: skip
    assert (second.ids.tolist(), second.statuses.tolist(), second.rows) == ([b"c"], [b"failed"], 0)
    assert first.configuration == second.configuration
    published = run.published()
    assert len(published) == 3
    assert published.counts() == {"ok": 2, "failed": 1}
    assert published.contains(text_array([b"c", b"x", b"a"])).tolist() == [True, False, True]


@pytest.mark.parametrize("images", [1, 3, 10, 40, 2000])
def test_heads_have_a_power_of_two_bytes(tmp_path: Path, images: int) -> None:
    run = run_of(tmp_path, result_of([f"some/folder/{number:07d}.jpg" for number in range(images)]))
    (path,) = run.segments()
    with h5py.File(path) as file:
        size = file.userblock_size
        assert size in (512 << power for power in range(10))
        place = file["masks"].id.get_offset()
        masks = file["masks"][...]
    assert b'"sample_id":["some/folder/0000000.jpg"' in path.read_bytes()[:size]
    content = path.read_bytes()[place : place + masks.nbytes]
    assert content == masks.tobytes(), "a segment's columns lie plain in the file"
    assert len(run.done()) == images


def test_listing_reads_heads_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path, result_of(["a", "b"]), result_of(["c"]))
    merge(run)

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("HDF5 is opened")

    monkeypatch.setattr(h5py, "File", refuse)
    monkeypatch.setattr("igos_pl.store.seals._digest", refuse)
    assert run.statuses() == {"a": "ok", "b": "ok", "c": "ok"}
    assert run.missing() == []
    assert run.is_merged()
    assert main(["status", str(tmp_path)]) == 0


def test_every_byte_of_a_head_is_sealed(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    whole = sealed(b"content", {"images": {}, "padding": "x" * 100})
    path.write_bytes(whole)
    assert read_head(path)["images"] == {}
    for place in range(len(whole)):
        for bit in (1, 128):
            changed = bytearray(whole)
            changed[place] ^= bit
            path.write_bytes(changed)
            with pytest.raises(IgosError, match="damaged"):
                check_seal(path)
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        with pytest.raises(IgosError, match="damaged"):
            read_head(path)


def test_files_of_version_2_are_refused(tmp_path: Path) -> None:
    (tmp_path / "segments").mkdir()
    old = tmp_path / "segments" / "0.h5"
    old.write_bytes(f"igos-pl result, blake2b {'0' * 64}\n".encode().ljust(512, b"\0") + b"\x89HDF")
    for use in (lambda: MaskFile(tmp_path), RunFolder(tmp_path).done, RunFolder(tmp_path).damaged):
        with pytest.raises(
            IgosError, match="schema version 2, but this igos-pl reads versions 3 to 4: read it with"
        ):
            use()
    assert old.exists()


def test_a_pipe_is_no_result(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "masks.h5")
    with pytest.raises(IgosError, match="it is not a file"):
        MaskFile(tmp_path / "masks.h5")


def test_an_image_twice_in_a_segment_is_told(tmp_path: Path) -> None:
    run = run_of(tmp_path, result_of(["a", "b", "a"]))
    with pytest.raises(IgosError, match=r"1 image is in it more than once"):
        run.done()


def test_the_first_good_result_of_an_image_is_used(tmp_path: Path) -> None:
    def part(**statuses: str) -> BatchResult:
        return BatchResult([ImageRecord(name, "", status=status) for name, status in statuses.items()])

    run = run_of(
        tmp_path,
        part(a="failed", b="ok", c="unreadable"),
        part(c="failed", a="no detection", b="nan"),
        part(a="ok", c="failed"),
    )
    assert run.statuses() == {"b": "ok", "c": "unreadable", "a": "no detection"}
    published = Published(run.segments())
    assert published.used.tolist() == [False, True, True, False, True, False, False, False]


def test_finding_ids() -> None:
    ids = text_array([b"a", b"bb", b"ccc"])
    assert find(ids, text_array([b"bb", b"b", b"zzzz", b"", b"a"])).tolist() == [1, -1, -1, -1, 0]
    assert find(ids[:0], text_array([b"a"])).tolist() == [-1]
    assert find(ids, text_array([b"x" * 300, b"ccc"])).tolist() == [-1, 2]


# The merged file


@pytest.mark.parametrize("size", [1, 4, 28, 100, 200])
@pytest.mark.parametrize("rows", [1, 7, 40])
def test_chunks_are_those_of_hdf5(tmp_path: Path, size: int, rows: int) -> None:
    results = [result_of([f"{place}-{row}" for row in range(rows)], 1, place, size) for place in range(2)]
    run = run_of(tmp_path, *results)
    found = plain(merge(run))
    for name in EXPLANATIONS:
        expected = np.concatenate([result.explanations[name] for result in results])
        order = np.argsort(np.concatenate([result.explanations["sample_id"] for result in results]))
        values = decoded(found[name])
        np.testing.assert_array_equal(values, expected[order].astype(values.dtype), err_msg=name)
    assert {name.removeprefix("images/") for name in found if name.startswith("images/")} == set(IMAGES)
    with h5py.File(run.merged) as file:
        for name in ("masks", "sample_id", "score", "best"):
            assert (file[name].compression, file[name].shuffle) == ("gzip", True)


@pytest.mark.parametrize("dtype", ["i1", "f2", "f4", "i8", "S13"])
def test_compressing_is_what_the_filters_undo(tmp_path: Path, dtype: str) -> None:
    values = np.random.default_rng(0).integers(0, 50, (37, 5)).astype(dtype)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        options = {"chunks": (16, 5), "compression": "gzip", "shuffle": True}
        dataset = file.create_dataset("x", values.shape, dtype, **options)
        for start in range(0, 37, 16):
            dataset.id.write_direct_chunk((start, 0), compressed(values[start : start + 16], 16))
        np.testing.assert_array_equal(file["x"][...], values)
        np.testing.assert_array_equal(file["x"][14:18], values[14:18])


def test_a_stale_merged_file_is_not_read(tmp_path: Path) -> None:
    run = run_of(tmp_path, result_of(["b"]))
    merge(run)
    assert run.is_merged()
    run.publish([result_of(["a"], seed=1)], ATTRIBUTES)
    assert not run.is_merged()
    with MaskFile(tmp_path) as masks:
        assert masks.column("sample_id").tolist() == ["b", "a"]
    merge(run)
    assert run.is_merged()
    run.segments()[0].unlink()
    assert not run.is_merged(), "its segments are others"


def test_progress_of_merging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path, result_of(["a", "b"], 3), result_of(["c"], 3))
    monkeypatch.setattr(sys.modules["igos_pl.store.tables"], "_BLOCK_BYTES", 1500)
    seen: list[tuple[int, int]] = []
    merge(run, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (12, 12)
    assert len(seen) > 2
    assert seen == sorted(seen)


def test_segments_of_other_shapes_are_named(tmp_path: Path) -> None:
    run = run_of(tmp_path, result_of(["a"], size=4), result_of(["b"], size=5))
    with pytest.raises(IgosError, match=r"1-.*: masks has rows of \(5, 5\), not \(4, 4\)"):
        merge(run)


def test_a_segment_that_shrinks_while_it_is_merged_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path, result_of(["a"]), result_of(["b"]))
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, place: real(file, size, place)[: size // 2])
    with pytest.raises(IgosError, match=r"0-.*it became shorter while it was merged"):
        merge(run)
    assert not run.merged.exists()


def test_damage_in_large_merged_files_is_noticed_by_hdf5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their seal is not checked when they are opened. In a process of its own: HDF5 might crash."""
    run = run_of(tmp_path, result_of([f"{number:04d}" for number in range(64)], size=28))
    merge(run)
    with h5py.File(run.merged) as file:
        chunk = file["masks"].id.get_chunk_info(1)
    content = bytearray(run.merged.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 1
    run.merged.write_bytes(content)
    monkeypatch.setattr(sys.modules["igos_pl.store.files"], "_QUICK_BYTES", 0)
    with MaskFile(run.merged) as masks, pytest.raises(IgosError, match="masks is damaged"):
        masks.column("masks")


# Reading


def test_rows_of_a_large_file_are_read_chunk_by_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number:05d}" for number in range(3000)]
    run = run_of(tmp_path, result_of(names[:1500]), result_of(names[1500:], seed=1))
    with MaskFile(tmp_path) as segments:
        whole = segments.column("score")
        chosen = np.array([2999, 0, 0, 1499, 1500, 7, 2000])
        np.testing.assert_array_equal(segments[chosen].column("score"), whole[chosen])
    with MaskFile(merge(run)) as masks:
        read: list[int] = []
        real = sys.modules["igos_pl.store.reader"].read_column

        def noting(table: Any, name: str, rows: slice) -> Any:
            read.append(rows.stop - rows.start)
            return real(table, name, rows)

        monkeypatch.setattr(sys.modules["igos_pl.store.reader"], "read_column", noting)
        np.testing.assert_array_equal(masks[chosen].column("score"), whole[chosen])
        assert sum(read) <= 3 * 1024
        read.clear()
        np.testing.assert_array_equal(masks[::-1].column("score"), whole[::-1])
        assert read == [3000]
        assert [row.score for row in masks[chosen]] == whole[chosen].tolist()
        assert [row.image["path"] for row in masks[chosen]] == [f"/{names[place]}" for place in chosen]


def test_reading_a_run_opens_its_segments_only_for_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_of(tmp_path, *(result_of([f"{number}"], 2, number) for number in range(6)))
    opened: list[Any] = []
    real = h5py.File

    def noting(path: Any, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(h5py, "File", noting)
    with MaskFile(tmp_path) as masks:
        assert len(masks) == 12
        assert len(opened) == 1
        assert masks[8].sample_id == "4"
        assert len(opened) == 2


def test_an_image_without_a_record_is_told(tmp_path: Path) -> None:
    result = result_of(["a", "b"])
    run = run_of(tmp_path, BatchResult(result.images[:1], result.explanations))
    with MaskFile(run.segments()[0]) as masks:
        assert masks.column("sample_id").tolist() == ["a", "b"]
        with pytest.raises(IgosError, match="b is missing from its table of images"):
            list(masks)


def test_text_that_is_no_utf_8_is_told(tmp_path: Path) -> None:
    run = run_of(tmp_path, result_of(["a"]))
    (path,) = run.segments()
    head = read_head(path)
    with h5py.File(path, "r+") as file:
        file["label_name"][...] = np.array([b"\xff"], "S1").view(h5py.string_dtype("utf-8", 1))
    seal(path, head)
    with MaskFile(path) as masks, pytest.raises(IgosError, match="label_name is damaged"):
        masks.column("label_name")


def test_columns_lie_in_the_file_itself(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["there"] = np.zeros(3)
        file["soft"] = h5py.SoftLink("/there")
        assert find_column(file, "there").shape == (3,)
        for name in ("soft", "absent"):
            with pytest.raises(IgosError, match=f"{name} (leads to another place|is damaged)"):
                find_column(file, name)


def test_commands_that_look_at_results_import_no_torch(tmp_path: Path) -> None:
    run_of(tmp_path, result_of(["a"]), result_of(["b"]))
    program = (
        "import sys; from igos_pl.cli.main import main;"
        "codes = [main([command, sys.argv[1]]) for command in ('status', 'merge', 'info', 'verify')];"
        "assert codes == [0] * 4; assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Merged into" in done.stdout
    assert done.stderr == "", "no progress bar where there is no terminal"


# The benchmark


def test_the_benchmark_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import scale

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["scale.py", *words])
        scale.main()
        return capsys.readouterr().out

    folder = str(tmp_path)
    made = run("make", folder, "--images=30", "--segment=12", "--detections=60", "--size=5", "--scattered")
    assert "30 images" in made
    assert "3 segments" in made
    measured = run("measure", folder, "--tasks", "list", "merge", "--name=0")
    assert [line.split()[0] for line in measured.splitlines()[1:3]] == ["list", "merge"]
    assert "torch" not in measured
    assert "3 segments" in run("limit", folder)
    assert "masks of 5 x 5" in run("half", str(tmp_path / "masks.h5"))
    with MaskFile(tmp_path) as masks:
        assert f"{len(masks)} explanations of 5 x 5" in made
