"""A set of photos to judge saliency methods on, made from what packages offer.

Photographic cut-outs of Debian's package ``tuxpaint-stamps-default`` are pasted on textures and photos of
scikit-image and scikit-learn; the demo's photos are added. A photo is kept if EfficientNet-Lite0 is sure of
its class (above 0.5), and the class is right. Of each class there is one photo: the one with the largest
score among a few backgrounds, sizes and places. No saliency method has a say in any of this.

Two halves: ``tuning``, on which settings may be chosen, and ``test``. The demo's photos are for tuning; the
others go by a hash of their class. ::

    python benchmarks/photos.py FOLDER

writes ``FOLDER/<id>.png`` and ``FOLDER/photos.tsv`` (id, class, label, score, half, source).
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps

from igos_pl.data.annotations import GroundTruth
from igos_pl.data.batches import ImageBatch
from igos_pl.data.geometry import Frame
from igos_pl.data.images import read_image, to_input
from igos_pl.data.records import ImageRecord
from igos_pl.demo.run import PHOTOS as DEMO_PHOTOS
from igos_pl.errors import IgosError
from igos_pl.models import EfficientNetLite0Classifier
from igos_pl.randomness import key_of

TABLE = "photos.tsv"
STAMPS_FOLDER = Path("/usr/share/tuxpaint/stamps")
SURE = 0.5
SIDE = 384
TRIES = 10

# Of a hundred classes, this many are for tuning.
_TUNING_SHARE = 28

# The photographs among the stamps that show one of ImageNet's classes, and which; drawings are left out.
STAMPS = {
    "animals/amphibians": "frog-1=tailed frog, frog=tailed frog",
    "animals/birds": "chicken_profile=hen, crowned_crane=crane bird, drake=drake, duck=drake, gander=goose,"
    " heron_greatblue_flying=little blue heron, hen=hen, magpie=magpie, ostrich=ostrich,"
    " owl=great grey owl, peacock=peacock, pelican=pelican, penguin=king penguin, pink_flamingo=flamingo,"
    " rainbow-lorikeet=lorikeet, rooster=cock, tucan=toucan, vulture=vulture",
    "animals/fish": "clownfish=anemone fish, lionfish=lionfish, lobster=spiny lobster",
    "animals/insects": "Brown_slug=slug, Woodlouse=isopod, bee=bee, fly=fly, grasshopper=grasshopper,"
    " mantis=mantis",
    "animals/lizards": "iguana=common iguana",
    "animals/mammals": "badger=badger, ferret=black-footed ferret,"
    " hippopotamus=hippopotamus, pig=hog, pig_golden=hog, pig_golden2=hog, rabbit_little=Angora,"
    " wildboar=wild boar, elephant=African elephant",
    "animals/mammals/apes": "chimp=chimpanzee, gorilla=gorilla",
    "animals/mammals/aquatic": "orca=killer whale, otter=otter, sea_lion=sea lion",
    "animals/mammals/bears": "bear=brown bear, european-bear=brown bear",
    "animals/mammals/bears/toys": "edward_bear=teddy",
    "animals/mammals/bovines": "bison=bison, bull=ox, ram=ram, indian_blackbuck=gazelle, mountaingoat=ibex",
    "animals/mammals/camel": "camel=Arabian camel, dromedary=Arabian camel",
    "animals/mammals/cats": "lion=lion, lion-2=lion, tiger=tiger, tiger_sumatran=tiger",
    "animals/mammals/dogs": "dingo=dingo, dog=Eskimo dog, fox=red fox",
    "animals/mammals/equines": "zebra=zebra, horse=sorrel",
    "animals/mammals/rodents": "beaver=beaver, marmot=marmot, rabbit=hare, rabbit-2=hare,"
    " squirrel=fox squirrel",
    "animals/marsupials": "kangaroo=wallaby, koala=koala, wombat=wombat",
    "food": "pizza=pizza",
    "food/fruit": "Strawberry2=strawberry, apple_granny_smith=Granny Smith, apple_green=Granny Smith,"
    " banana=banana, cherimoya=custard apple, lemon=lemon, mandarine=orange, orange=orange,"
    " orange_seville=orange, sliced_orange=orange, pineapple=pineapple, pomegranate=pomegranate",
    "food/vegetables": "broccoli=broccoli, corn=ear, pepper=bell pepper, yellowpepper=bell pepper,"
    " mushroom=mushroom",
    "hobbies": "binoculars=binoculars, camera_35mm=reflex camera",
    "hobbies/music/brass": "trumpet=cornet",
    "hobbies/music/percussion": "drum_tomtom_floor=drum, drumkit=drum",
    "hobbies/music/string": "cello=cello, guitar2=electric guitar, guitar_classical=acoustic guitar,"
    " guitar_electric=electric guitar, guitar_electric_bass=electric guitar, violin=violin",
    "hobbies/music/wind": "bassoon=bassoon",
    "household": "garbagecan=ashcan, home_compost_bin=rain barrel, kettle=coffeepot,"
    " toilet=toilet seat, wheelie_bin=ashcan",
    "household/dishes": "mug=coffee mug, pitcher_small=water jug, teapot=teapot",
    "household/tools": "hammer=hammer, paintbrush_large=paintbrush, spade=shovel",
    "medical": "bandage_adhesive=Band Aid, stethoscope=stethoscope, syringe=syringe",
    "military": "paratrooper=parachute",
    "military/ammunition": "old_naval_shell=projectile",
    "military/vehicles": "bradley=tank, f22_raptor=warplane, infantry-stryker=amphibian",
    "plants/flowers": "appooppanthady=daisy, pigface=daisy, yellow-flower=daisy",
    "plants/mushrooms": "cep=bolete, cep-1=bolete, cep-2=bolete",
    "seasonal": "candle=candle",
    "seasonal/christmas": "Mince_Pie=potpie",
    "sports": "basketball=basketball, football=rugby ball, soccer=soccer ball, tennis_ball=tennis ball,"
    " tennis_racket=racket",
    "town": "uk_post_box=mailbox, usps_mailbox=mailbox",
    "town/monuments": "inukshuk-photo=megalith",
    "vehicles": "7spoke256=car wheel, garbagetruck=garbage truck, wheel_tractor=tractor",
    "vehicles/auto": "sportscar2=convertible, truck=pickup",
    "vehicles/cycle": "pink_tricycle=tricycle",
    "vehicles/emergency": "firetruck=fire engine",
    "vehicles/flight": "balloon360=balloon",
    "vehicles/flight/planes": "747=airliner",
    "vehicles/masstransit": "green_korean_bus=minibus",
    "vehicles/race": "indycar=racer",
    "vehicles/ship": "walnutBoat=yawl",
}

# Grey textures and the colours that their black and white become.
_TEXTURES = {
    "brick.png": ("#3a1c14", "#d9a48c"),
    "grass.png": ("#0f2408", "#b7d482"),
    "gravel.png": ("#2b2620", "#d8d0c0"),
}
_SHARP = ("hubble_deep_field.jpg", "china.jpg")
_BLURRED = ("china.jpg", "flower.jpg", "coffee.png", "rocket.jpg", "chelsea.png", "motorcycle_left.png")
_BLUR_RADIUS = 14


@dataclass(frozen=True)
class Photo:
    """One row of the table; ``label`` is the number of the class, ``score`` the network's of it."""

    id: str
    class_name: str
    label: int
    score: float
    half: str
    source: str


@dataclass(frozen=True)
class Candidate:
    """A photo that may be kept."""

    id: str
    image: Image.Image
    class_name: str | None  # what it shows; None where the network's word is taken, for the demo's photos
    source: str


def squashed(names: Sequence[str], pictures: Sequence[Image.Image], size: tuple[int, int]) -> ImageBatch:
    """Pictures as the loader gives them to a network whose input has some size; without annotations."""
    frames = [Frame.of(picture.width, picture.height, size, "squash") for picture in pictures]
    pixels = [to_input(picture, frame) for picture, frame in zip(pictures, frames, strict=True)]
    records = [ImageRecord(name, name, frame) for name, frame in zip(names, frames, strict=True)]
    return ImageBatch(torch.from_numpy(np.stack(pixels)), records, [GroundTruth()] * len(records))


def packaged(package: str, path: str) -> Path:
    """A file inside of an installed package.

    Raises:
        IgosError: if the package is missing.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise IgosError(f"The package {package} is missing: pip install 'igos_pl[demo]'")
    return Path(spec.origin).parent / path


def _background_file(name: str) -> Path:
    if name in ("china.jpg", "flower.jpg"):
        return packaged("sklearn", f"datasets/images/{name}")
    return packaged("skimage", f"data/{name}")


def make_backgrounds() -> dict[str, Image.Image]:
    """The pictures of which backgrounds are cut, by what the table calls them."""
    tinted = {
        f"tinted {name}": ImageOps.colorize(read_image(_background_file(name)).convert("L"), *colours)
        for name, colours in _TEXTURES.items()
    }
    sharp = {name: read_image(_background_file(name)) for name in _SHARP}
    blurred = {
        f"blurred {name}": read_image(_background_file(name)).filter(ImageFilter.GaussianBlur(_BLUR_RADIUS))
        for name in _BLURRED
    }
    return {**tinted, **sharp, **blurred}


def cut(background: Image.Image, chance: random.Random) -> Image.Image:
    """Any square of half the shorter side or more, as ``SIDE x SIDE`` pixels."""
    side = min(background.size) * chance.uniform(0.5, 1)
    left = chance.uniform(0, background.width - side)
    top = chance.uniform(0, background.height - side)
    box = (left, top, left + side, top + side)
    return background.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)


def paste(stamp: Image.Image, background: Image.Image, chance: random.Random) -> Image.Image:
    """Put a stamp anywhere on a background; its bounding box takes 30% to 60% of the frame.

    Less for long objects, which are no longer than 94% of the frame's side.
    """
    stamp = stamp.crop(stamp.getchannel("A").getbbox())
    wanted = SIDE * (chance.uniform(0.3, 0.6) / (stamp.width * stamp.height)) ** 0.5
    scale = min(wanted, 0.94 * SIDE / max(stamp.size))
    size = (max(1, round(stamp.width * scale)), max(1, round(stamp.height * scale)))
    scaled = stamp.resize(size, Image.Resampling.LANCZOS)
    photo = background.copy()
    photo.paste(scaled, (chance.randint(0, SIDE - size[0]), chance.randint(0, SIDE - size[1])), scaled)
    return photo


def stamp_classes() -> dict[str, str]:
    """The stamps' paths and their classes."""
    pairs = ((folder, entry.split("=")) for folder, line in STAMPS.items() for entry in line.split(", "))
    return {f"{folder}/{stem}.png": name for folder, (stem, name) in pairs}


def stamp_candidates(folder: Path) -> Iterator[list[Candidate]]:
    """For each stamp, the photos to choose from; they depend on the stamp's name alone.

    Raises:
        IgosError: if the stamps are not installed.
    """
    if not folder.is_dir():
        raise IgosError(f"There are no stamps in {folder}: apt-get install tuxpaint-stamps-default")
    backgrounds = make_backgrounds()
    for path, class_name in stamp_classes().items():
        if not (folder / path).is_file():
            raise IgosError(f"{folder} has no {path}: is it tuxpaint-stamps-default of 2022 or later?")
        stamp = Image.open(folder / path).convert("RGBA")
        name = path.removesuffix(".png").replace("/", "-")
        tries = []
        for number in range(TRIES):
            chance = random.Random(key_of(path, number))
            ground = chance.choice(list(backgrounds))
            photo = paste(stamp, cut(backgrounds[ground], chance), chance)
            tries.append(Candidate(name, photo, class_name, f"stamp {path} on {ground}"))
        yield tries


def demo_candidates() -> Iterator[list[Candidate]]:
    """The demo's photos as they are."""
    for package, names in DEMO_PHOTOS.items():
        for name in names:
            image = read_image(packaged(package, name))
            yield [Candidate(f"demo-{Path(name).stem}", image, None, f"{package} {Path(name).name}")]


def demo_batch(number: int, size: tuple[int, int]) -> ImageBatch:
    """The demo's photos in the order of their names, again and again."""
    photos = [photo for tries in demo_candidates() for photo in tries]
    photos.sort(key=lambda photo: photo.id)
    pictures = [photos[i % len(photos)].image for i in range(number)]
    return squashed([f"photo {i}" for i in range(number)], pictures, size)


@torch.no_grad()
def surest(
    network: EfficientNetLite0Classifier, candidates: Sequence[Candidate]
) -> tuple[Photo, Candidate] | None:
    """The candidate that the network is surest of, if it is sure and right."""
    pictures = [candidate.image for candidate in candidates]
    batch = squashed([candidate.id for candidate in candidates], pictures, network.input_size)
    scores, labels = network.probabilities(network.normalize(batch.images)).max(1)
    best: tuple[Photo, Candidate] | None = None
    for candidate, score, label in zip(candidates, scores.tolist(), labels.tolist(), strict=True):
        name = network.label_name(label)
        right = candidate.class_name in (None, name)
        if right and score > max(SURE, best[0].score if best else 0.0):
            best = (
                Photo(candidate.id, name, label, score, half_of(candidate, name), candidate.source),
                candidate,
            )
    return best


def half_of(candidate: Candidate, class_name: str) -> str:
    """``tuning`` or ``test``."""
    is_demo = candidate.class_name is None
    return "tuning" if is_demo or key_of("half", class_name) % 100 < _TUNING_SHARE else "test"


def choose(network: EfficientNetLite0Classifier, stamps: Path) -> list[tuple[Photo, Candidate]]:
    """One photo for each class, the surest; where the demo has one, that one."""
    unknown = set(stamp_classes().values()) - set(network.class_names)
    if unknown:
        raise IgosError(f"These are no classes of ImageNet: {', '.join(sorted(unknown))}")
    kept: dict[str, tuple[Photo, Candidate]] = {}
    demo = [found for tries in demo_candidates() if (found := surest(network, tries))]
    taken = {photo.class_name for photo, _ in demo}
    for tries in stamp_candidates(stamps):
        found = surest(network, tries)
        if found is None or found[0].class_name in taken:
            continue
        known = kept.get(found[0].class_name)
        if known is None or found[0].score > known[0].score:
            kept[found[0].class_name] = found
    return [*demo, *kept.values()]


def write(folder: Path, chosen: Sequence[tuple[Photo, Candidate]]) -> None:
    """Write the photos, and the table last."""
    folder.mkdir(parents=True, exist_ok=True)
    for photo, candidate in chosen:
        candidate.image.save(folder / f"{photo.id}.png")
    with (folder / TABLE).open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow("class" if field.name == "class_name" else field.name for field in fields(Photo))
        for photo, _ in chosen:
            table.writerow(f"{cell:.4f}" if isinstance(cell, float) else cell for cell in astuple(photo))


def read_table(folder: Path, half: str) -> list[Photo]:
    """The photos of a half, or of both for ``all``.

    Raises:
        IgosError: if there is no table.
    """
    path = folder / TABLE
    if not path.is_file():
        raise IgosError(f"There is no {path}: make the photos by python benchmarks/photos.py {folder}")
    with path.open(newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))[1:]
    photos = [Photo(id, name, int(label), float(score), *rest) for id, name, label, score, *rest in rows]
    return [photo for photo in photos if half in ("all", photo.half)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the photos go")
    parser.add_argument("--stamps", type=Path, default=STAMPS_FOLDER)
    options = parser.parse_args()
    network = EfficientNetLite0Classifier()
    network.freeze()
    chosen = choose(network, options.stamps)
    write(options.folder, chosen)
    for half in ("tuning", "test"):
        print(f"{half}: {sum(photo.half == half for photo, _ in chosen)} photos")


if __name__ == "__main__":
    try:
        main()
    except IgosError as error:
        sys.exit(str(error))
