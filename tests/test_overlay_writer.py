"""Which overlays a run draws, what they are called, and that a later run adds missing ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
from PIL import Image

from igos_pl import Explainer, ImageFolderDataModule, OverlayWriter
from igos_pl.callbacks import overlays
from igos_pl.errors import IgosError
from igos_pl.store import MaskFile, RunFolder

NAMES = ["b/owl.jpg", "cat.jpg", "cat.png", "dog & cow.png"]

pytestmark = pytest.mark.filterwarnings("ignore")


def predict(photos: Path, count: int, limit: int | None = None, **choice: Any) -> list[str]:
    """Explain the photos; returns the pictures' names."""
    run = photos.parent / "run"
    explainer = Explainer(tiny.tiny_classifier(), mask_size=4, iterations=1, path_steps=1)
    trainer = tiny.quiet_trainer(run, callbacks=[OverlayWriter(count, **choice)])
    data = ImageFolderDataModule(str(photos), num_workers=0, batch_size=3, limit=limit)
    trainer.predict(explainer, data, return_predictions=False)
    return sorted(path.name for path in (run / "overlays").glob("*"))


def shown(photos: Path) -> dict[str, str]:
    """The image that each picture shows."""
    found = {}
    for path in (photos.parent / "run" / "overlays").iterdir():
        with Image.open(path) as picture:
            found[path.name] = json.loads(picture.text["Explanation"])[0]
    return found


def test_pictures_have_readable_names(photos: Path) -> None:
    assert predict(photos, 9) == ["b_owl.png", "cat-2.png", "cat.png", "dog _ cow.png"]
    assert shown(photos) == {
        "b_owl.png": "b/owl.jpg",
        "cat.png": "cat.jpg",
        "cat-2.png": "cat.png",
        "dog _ cow.png": "dog & cow.png",
    }


def test_a_larger_count_adds_the_missing_pictures(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert predict(photos, 1, limit=3) == ["b_owl.png"]
    before = (photos.parent / "run/overlays/b_owl.png").read_bytes()
    assert predict(photos, 2, limit=3) == ["b_owl.png", "cat.png"]  # no image is pending
    assert len(predict(photos, 9)) == 4  # one is
    assert sorted(shown(photos).values()) == NAMES
    assert (photos.parent / "run/overlays/b_owl.png").read_bytes() == before
    (photos.parent / "run/overlays/cat.png").unlink()

    def never(*rest: object) -> None:
        raise AssertionError("a picture was drawn")

    with monkeypatch.context() as patched:
        patched.setattr(overlays, "draw", never)
        assert len(predict(photos, 3)) == 3  # a smaller count removes nothing
    assert sorted(predict(photos, 4)) == ["b_owl.png", "cat-2.png", "cat.png", "dog _ cow.png"]
    assert shown(photos)["cat.png"] == "cat.jpg"


def test_an_image_that_has_gone_is_tried_once(photos: Path, recwarn: pytest.WarningsRecorder) -> None:
    predict(photos, 0)
    assert RunFolder(photos.parent / "run").merged.exists()
    (photos / "cat.png").unlink()
    (photos / "new.png").write_bytes((photos / "cat.jpg").read_bytes())
    with pytest.warns(
        UserWarning, match=r"No overlays of 1 earlier .* not any more \(.*/cat\.png, "
    ) as warned:
        predict(photos, 9)
    assert sum("No overlay" in str(one.message) for one in warned) == 1
    assert "cat.png" not in shown(photos).values()
    assert len(shown(photos)) == 4


def test_long_and_strange_names_fit_the_file_system(tmp_path: Path) -> None:
    names = ["猫" * 70 + ".png", "x" * 200 + ".png"]
    photos = tiny.write_pictures(tmp_path / "photos", names)
    predict(photos, 9)
    assert sorted(shown(photos).values()) == sorted(names)


def test_a_random_choice_depends_on_the_seed_alone(tmp_path: Path) -> None:
    photos = tiny.write_pictures(tmp_path / "photos", [f"{number}.png" for number in range(12)])
    chosen = {}
    for seed in range(3):
        predict(photos, 3, seed=seed)
        chosen[seed] = sorted(shown(photos).values())
        shutil.rmtree(tmp_path / "run" / "overlays")
        predict(photos, 3, seed=seed)  # from the results on the disk
        assert sorted(shown(photos).values()) == chosen[seed]
        shutil.rmtree(tmp_path / "run")
    assert len({tuple(names) for names in chosen.values()}) > 1
    assert all(len(names) == 3 for names in chosen.values())


def test_classes_are_chosen_by_name(photos: Path) -> None:
    with pytest.warns(UserWarning, match="No overlays: no explanation is of the classes nothing"):
        assert predict(photos, 9, label_names=["nothing"]) == []
    with MaskFile(photos.parent / "run") as masks:
        labels = dict(zip(masks.column("sample_id"), masks.column("label_name"), strict=True))
    wanted = labels["cat.jpg"]
    predict(photos, 9, label_names=[wanted])
    assert sorted(shown(photos).values()) == sorted(name for name, label in labels.items() if label == wanted)


def test_classes_are_found_as_labels_are(photos: Path) -> None:
    run = photos.parent / "run"
    network = tiny.tiny_classifier(
        class_names=["cat, tabby", "Dog", "big owl", "crane, bird", "crane, machine"]
    )
    writer = OverlayWriter(label_names=["TABBY", "dog", "Big_Owl", "crane"])
    data = ImageFolderDataModule(str(photos), num_workers=0)
    trainer = tiny.quiet_trainer(run, callbacks=[writer])
    trainer.predict(Explainer(network, mask_size=4, iterations=1), data, return_predictions=False)
    assert sorted(shown(photos).values()) == NAMES


def test_classes_that_the_network_does_not_have_are_refused(photos: Path) -> None:
    network = tiny.tiny_classifier(class_names=["tench", "owl", "cat", "cow", "dog"])
    trainer = tiny.quiet_trainer(photos.parent / "run", callbacks=[OverlayWriter(label_names=["owll"])])
    with pytest.raises(IgosError, match=r"label_names.*: 'owll' is not a class .*did you mean owl"):
        trainer.predict(Explainer(network, mask_size=4), ImageFolderDataModule(str(photos), num_workers=0))
    assert not list((photos.parent / "run").glob("*.h5"))
