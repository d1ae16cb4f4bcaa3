"""Turns the errors of other libraries into messages for the command line."""

from __future__ import annotations

import importlib
import inspect
import logging
import re
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities import rank_zero_only

from igos_pl.checks import closest, suggestion
from igos_pl.cli.console import say
from igos_pl.data.images import has_picture_ending
from igos_pl.data.regions import GivenLabelMaps, RegionSource
from igos_pl.datamodules.base import SampleDataModule
from igos_pl.errors import IgosError, RunError
from igos_pl.models import ExplainableNetwork
from igos_pl.settings import Configurable, parameters_of
from igos_pl.solver.micro_batches import is_dead_loader, is_out_of_memory
from igos_pl.solver.optimizers import MaskOptimizer
from igos_pl.store.folder import START_OVER

# Lines of the parser's message that start like this describe its internals, and are dropped.
_NOISE = (
    "Given value", "Subtypes:", "Errors:", "Does not validate", "Expected a <class 'NoneType'>",
    "Expected a path but", "Parser key", "Problem with given class_path",
)  # fmt: skip

# The types of settings, in words.
_TYPES = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "text",
    "list": "a list in square brackets", "Sequence": "a list in square brackets", "dict": "a mapping",
}  # fmt: skip

# The settings whose values are often patterns, and options of other programs that replace results.
_FILES = ("--data.root", "--data.urls")
_REPLACING = ("--overwrite", "--force")

# The commands that are given images, and those that are given a folder for results.
_FOR_IMAGES = ("predict", "import")
_WITH_OUTPUT = ("predict", "import", "sanity")

_CLASSES = {
    "model.network": ExplainableNetwork,
    "model.optimizer": MaskOptimizer,
    "model.regions": RegionSource,
    "data": SampleDataModule,
}

# The import paths of torch's own optimisers by their names.
_TORCH_OPTIMIZERS = {
    name: f"torch.optim.{name}"
    for name, made in vars(torch.optim).items()
    if isinstance(made, type) and made is not torch.optim.Optimizer
}

# The settings that a data module must have.
_NEEDED = {
    "root": "the folder with the images",
    "dataset": "the import path of a map-style data set, such as torchvision.datasets.CIFAR10",
    "urls": "the tar files, such as 'shards/{000..099}.tar'",
}


@contextmanager
def shortages_explained() -> Iterator[None]:
    """Turn torch's errors about lack of memory and dead workers into readable messages.

    Raises:
        RunError: if memory ran out outside of the network, or a process that reads images died.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            # The network's micro-batches shrink by themselves, so images, baselines or masks need too much.
            raise RunError(
                f"Out of memory outside of the network ({(str(error) or 'MemoryError').splitlines()[0]})."
                " Lower --data.batch_size. All finished images are safe: run the same command again to go on"
            ) from error
        if not is_dead_loader(error):
            raise
        raise RunError(
            f"A process that reads images died ({str(error).strip().rstrip('.')}). The usual cause is too"
            " little memory: lower --data.num_workers or --data.batch_size, or request more memory. All"
            " finished images are safe: run the same command again to go on"
        ) from error


@contextmanager
def interrupts_explained(kept: Callable[[], str]) -> Iterator[None]:
    """Let an interrupt (Ctrl-C), which Lightning turns into a ``SystemExit``, say what the command has kept.

    Args:
        kept: says what is kept, and how to go on; called by the first rank when all ranks have ended their
            part.

    Raises:
        KeyboardInterrupt: with these words.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and not isinstance(end.__context__, KeyboardInterrupt):
            raise
        raise KeyboardInterrupt(rank_zero_only(kept, default="")()) from end


def own_error(error: BaseException | None) -> IgosError | None:
    """The `IgosError` inside of the parser's own exceptions; None if there is none."""
    while error is not None and not isinstance(error, IgosError):
        error = error.__cause__ or error.__context__
    return error


_NO_GPU = (
    " PyTorch finds no GPU on this machine: set --trainer.accelerator to auto or cpu, or install the PyTorch"
    " that fits the GPU and its driver"
)

# The number of characters that are shown of another library's message.
_LONGEST = 300


def refused(error: Exception) -> IgosError:
    """The error for an exception that a constructor raised: that of the trainer, or of a user's class."""
    if isinstance(error, MisconfigurationException):  # Lightning raises it for invalid trainer settings
        return IgosError(f"{error}{_NO_GPU if 'No supported gpu backend' in str(error) else ''}")
    place = traceback.extract_tb(error.__traceback__)[-1]
    words = str(error).strip() or "no reason given"
    words = words if len(words) <= _LONGEST else f"{words[:_LONGEST]}..."
    return IgosError(
        f"The settings were refused: {words} ({type(error).__name__} in"
        f" {Path(place.filename).name}, line {place.lineno})"
    )


def explained(message: str, command: str, options: Collection[str] = (), words: Sequence[str] = ()) -> str:
    """An argument parser's message as a sentence: which setting is wrong, and what was probably meant.

    Args:
        message: the message of jsonargparse.
        command: whose settings they are, as in ``predict``.
        options: the options that the parser knows, such as ``--model.seed``.
        words: the arguments after the command.
    """
    missing = re.search(r"required: (\w+)$", message, re.MULTILINE)
    if missing and missing[1] in _NEEDED:
        return f"--data.{missing[1]} is missing: set it to {_NEEDED[missing[1]]}"
    setting = "--" + ".".join(re.findall(r'Parser key "([^"]+)"', message))
    inner = re.sub(r"\.* Got value: Namespace\(.*", "", message, flags=re.DOTALL)
    inner = re.sub(r"Type collections\.abc\..* expects a function or a callable class: ", "", inner)
    said = (
        _stray_word(message, words, command)
        or _unknown_option(message, options, command)
        or _foreign_setting(message)
        or _wrong_value(inner, setting)
        or _unknown_class(inner, setting)
        or _shortened(inner, setting)
    )
    return f"{said}\n  igos-pl {command} --help says more"


def _stray_word(message: str, words: Sequence[str], command: str) -> str:
    """The message for a word that follows no setting; empty for other problems.

    It is often the folder with the images, or a file that the shell found for a pattern.
    """
    unknown = message.partition("unrecognized arguments: ")[2]
    strays = [word for word in words if not word.startswith("-") and f" {word} " in f" {unknown} "]
    stray = next((word for word in strays if f"{unknown} ".startswith(f"{word} ")), "")
    if not stray:
        return ""
    before = words[: words.index(stray)]
    if setting := _setting_with_value(before):
        pattern = _pattern([before[-1].rpartition("=")[2], *strays]) if setting in _FILES else ""
        quote = ". Put a pattern into quotes, so that the shell does not expand it:"
        advice = f"{quote} {setting} {pattern}" if pattern else ""
        return f"{stray} is one value too many for {setting}{advice}"
    said = f"{stray} belongs to no setting: each setting has one value, as in --KEY VALUE"
    if Path(stray).suffix in (".yaml", ".yml"):
        return f"{stray} belongs to no setting: each file of settings needs its own -c"
    if command not in _FOR_IMAGES or any(word.partition("=")[0] in _FILES for word in words):
        return said
    if len(strays) > 1 and (pattern := _pattern(strays)):
        return f"{said}. For images, set --data.root to their folder, or to a pattern in quotes: {pattern}"
    return f"{said}. If it is the folder with the images, write --data.root {shlex.quote(stray)}"


def _setting_with_value(words: Sequence[str]) -> str:
    """The setting whose value is the last of some words; empty if this is no value."""
    name, equals, _ = words[-1].partition("=") if words else ("", "", "")
    if name.startswith("-"):
        # The files of settings, the preset and the run to evaluate stand as --config= in front of all words.
        return name if equals and name != "--config" else ""
    before = words[-2] if len(words) > 1 else ""
    return before if before.startswith("-") and "=" not in before else ""


def _pattern(words: Sequence[str]) -> str:
    """The pattern that a shell may have expanded to some pictures or tar files; empty for other words."""
    paths = [Path(word) for word in words]
    folders, endings = {path.parent for path in paths}, {path.suffix for path in paths}
    if len(folders) > 1 or not all(has_picture_ending(path) or path.suffix == ".tar" for path in paths):
        return ""
    return shlex.quote(str(folders.pop() / f"*{endings.pop() if len(endings) == 1 else ''}"))


def _unknown_option(message: str, options: Collection[str], command: str) -> str:
    """The message for a setting that the parser does not know; empty for other problems."""
    known = [option.lstrip("-") for option in options]
    if group := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        return _no_setting(f"{group[1]}.{group[2]}", known)
    if found := re.match(r"Option '(\w+)[\w.]*' is not accepted", message):  # in a file
        return _no_setting(found[1], [option.partition(".")[0] for option in known])
    found = re.match(r"unrecognized arguments: (\S+?)(?:=|\s|$)", message)
    if found and found[1] in _REPLACING:
        said = f"There is no setting {found[1]}: igos-pl {command} does not replace results"
        return f"{said}. {START_OVER}" if command in _WITH_OUTPUT else said
    return _no_setting(found[1], options) if found else ""


def _no_setting(name: str, known: Collection[str]) -> str:
    """The message for an unknown setting, with the closest known ones: a list of all is too long to help."""
    close = closest(name, known)
    return f"There is no setting {name}" + (f": did you mean {' or '.join(close)}?" if close else "")


def _foreign_setting(message: str) -> str:
    """The message for a setting that a class does not have; empty for other problems."""
    found = re.search(r"Option '([^']+)' is not accepted", message)
    paths = re.findall(r"class_path(?:=| )'([\w.]+)'", message)
    if not (found and paths):
        return ""
    made = _imported(paths[-1])
    known = _settings(made) if made else ()
    if found[1] in known:  # a subclass gives it to its base class
        return f"{paths[-1]} has no setting {found[1]}: the class sets it itself"
    return f"{paths[-1]} has no setting {found[1]!r}: {suggestion(found[1], known)}"


def _unknown_class(message: str, setting: str) -> str:
    """The message for a class that does not exist or does not fit; empty for other problems."""
    usable = _names(_CLASSES[setting[2:]]) if setting[2:] in _CLASSES else []
    others = "give the import path for your own class"
    usable_text = f"Available: {', '.join(usable)}; {others}" if usable else ""
    if found := re.search(r"Expected a dot import path string: (\S+)", message):
        known = [*usable, *_TORCH_OPTIMIZERS] if setting == "--model.optimizer" else usable
        close = [_TORCH_OPTIMIZERS.get(name, name) for name in closest(found[1], known)]
        meant = f"did you mean {' or '.join(close)}?" if close else ""
        help_text = meant or usable_text or "give its import path, as in package.module.Class"
        return f"{setting}: there is no class {found[1]}: {help_text}"
    if found := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", message):
        names = [name for name in dir(sys.modules.get(found[1])) if not name.startswith("_")]
        module, name = found.groups()
        return f"{setting} names {module}.{name}, but {module} has no {name}: {suggestion(name, names)}"
    if found := re.search(r"No module named '([\w.]+)'", message):
        advice = usable_text or "Correct the import path, or install the package"
        return f"{setting}{_named(message)}: there is no module {found[1]}. {advice}"
    if found := re.search(r"Import path (\S+) does not correspond to a subclass of (\w+)", message):
        ending = f". {usable_text}" if usable_text else ""
        return f"{setting}: {found[1]} is not a subclass of {found[2]}{ending}"
    if "Expected an instantiatable class, but is abstract" in message:
        return f"{setting}{_named(message)}, which is the base of other classes. {usable_text}".rstrip()
    return ""


def _named(message: str) -> str:
    """The import path that a message is about, as part of a sentence."""
    paths = re.findall(r"class_path '([\w.]+)'|import path string: (\S+)|Expected a path but (\S+)", message)
    return f" names {next(path for path in paths[-1] if path)}" if paths else ""


def _wrong_value(message: str, setting: str) -> str:
    """The message for a value of a wrong type, or outside of the choices; empty for other problems."""
    values = re.findall(r"Got value: (.*)", message) or re.findall(r"Given value: (.*)", message)
    wanted = re.findall(r"Expected a (?:typing\.)?(Literal\[.*?\]|<class '[\w.]+'>)", message)
    choices = [word for text in wanted for word in re.findall(r"'([^']*)'|\b(\d+)\b", text) if "Lit" in text]
    names = list(dict.fromkeys(quoted or number for quoted, number in choices))
    types = [_TYPES.get(kind, kind) for kind in re.findall(r"<class '(?:\w+\.)*(\w+)'>", " ".join(wanted))]
    kinds = list(dict.fromkeys(kind for kind in types if kind != "NoneType"))
    if not values or not (names or kinds):
        return ""
    choice = f"one of {', '.join(names)}" if len(names) > 1 else "".join(names)
    either = " or ".join(filter(None, [choice, *kinds]))
    close = closest(values[0], names)
    if not close and _TYPES["list"] in kinds and values[0][:1] not in ("[", "{"):
        close = [shlex.quote(f"[{values[0]}]")]
    meant = f"; did you mean {close[0]}?" if close else ""
    if _TYPES["str"] in kinds and values[0].isdecimal():  # alone, a number is taken as text
        return f'{setting} has the entry {values[0]}, but each must be text: write "{values[0]}" in quotes'
    return f"{setting} is {values[0]}, but must be {either}{meant}"


def _shortened(message: str, setting: str) -> str:
    """The message without the lines about the parser's internals."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    kept = [line for line in lines if not line.startswith(_NOISE)]
    return "\n  ".join(([setting + ":"] if len(setting) > 2 else []) + kept)


def _imported(path: str) -> Any:
    """The object of an import path; None if it cannot be imported."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


def _settings(made: Any) -> list[str]:
    """The names of the parameters of a class or function."""
    if isinstance(made, type) and issubclass(made, Configurable):
        return parameters_of(made)
    try:
        return [name for name in inspect.signature(made).parameters if name not in ("self", "params")]
    except (TypeError, ValueError):
        return []


def _names(base: type) -> list[str]:
    """The public classes of this package that derive from ``base``, and can be made on the command line."""
    found = [base]
    for cls in found:
        found.extend(cls.__subclasses__())
    ours = {cls for cls in found if cls.__module__.startswith("igos_pl.") and ".api." not in cls.__module__}
    return sorted(
        cls.__name__ for cls in ours if not inspect.isabstract(cls) and cls not in (base, GivenLabelMaps)
    )


def quieten_lightning() -> None:
    """Silence Lightning's messages about training. The callbacks of igos_pl report what matters.

    The launcher has one message: a process died, and it now kills the others. `_tell_dead_rank` replaces it.
    """
    launcher = logging.getLogger("lightning_fabric.strategies.launchers.subprocess_script")
    launcher.setLevel(logging.INFO)
    launcher.addFilter(_tell_dead_rank)
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in (
        ".*does not have many workers.*",
        ".*predict_dataloader.*",
        ".*LightningCLI.s args parameter.*",
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*`srun` command is available.*",  # checked at set-up
        ".*across ranks is zero.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def _tell_dead_rank(record: logging.LogRecord) -> bool:
    """Tell that a process died, instead of Lightning's message; returns False for that message."""
    found = re.search(r"rank: (\d+)\].* terminated with code (-?\d+)", record.getMessage())
    if found is None:
        return True
    code = int(found[2])
    if code < 0:
        usual = " (usually too little memory)" if code == -signal.SIGKILL else ""
        ended, advice = f"was killed by signal {-code}{usual}", "run the same command again"
    else:
        ended, advice = f"ended with the exit code {code}", "its message is above"
    say(f"igos-pl: the process of rank {found[1]} {ended}, so all processes end now: {advice}")
    return False
