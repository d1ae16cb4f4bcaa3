"""The command line of ``igos-pl``.

Torch and Lightning are imported only by the commands that need them, so the others are quick. The preset and
the settings files are checked before that.
"""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence
from pathlib import Path

from igos_pl import __version__
from igos_pl.cli.console import say
from igos_pl.cli.help import EVALUATE_HELP, IMPORT_HELP, PREDICT_HELP, SANITY_HELP
from igos_pl.cli.options import compare_options, export_options, figure_options
from igos_pl.errors import IgosError

# The number of characters that are shown of a path that is too long.
_SHOWN = 100


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    Args:
        args: the arguments after the program's name; those of this process by default.
    """
    words = list(sys.argv[1:] if args is None else args)
    try:
        return _long_running(words[0], words[1:]) if words[:1] and words[0] in _HELP else _dispatch(words)
    except IgosError as error:
        print(f"igos-pl: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 141
    except KeyboardInterrupt as interrupt:
        return _interrupted(words, str(interrupt))
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        print(f"igos-pl: {error.strerror}: {str(error.filename)[:_SHOWN]}...", file=sys.stderr)
        return 2


def _interrupted(words: list[str], kept: str) -> int:
    """Say that a command was interrupted, and what it has kept if that is known; returns the exit code."""
    from igos_pl.run.signals import GO_ON, INTERRUPTED, is_first_of_node

    if not is_first_of_node():
        return 0  # the first rank reports: the launcher kills it if another rank exits with an error
    told = GO_ON if words[:1] and words[0] in _HELP else "igos-pl: interrupted"
    print(f"igos-pl: interrupted. {kept}" if kept else told, file=sys.stderr)
    return INTERRUPTED


# The commands that go through a data set by Lightning, and their help.
_HELP = {"predict": PREDICT_HELP, "import": IMPORT_HELP, "evaluate": EVALUATE_HELP, "sanity": SANITY_HELP}


def _long_running(command: str, words: list[str]) -> int:
    if "-h" in words or "--help" in words:
        print(_HELP[command], end="")
        return 0
    from igos_pl.cli.presets import WITH_PRESET, with_preset
    from igos_pl.run.signals import StopSignals, die_with_parent

    if command in WITH_PRESET:
        words = with_preset(words)  # before the slow imports, so that a typo is told at once
    die_with_parent()
    if not {"--print_config", "--help_all", "help"} & set(words):
        _say_starting()  # importing torch and Lightning takes seconds

    with StopSignals(starting=True):  # signals are noted from here on
        words = ["--help" if word == "--help_all" else word for word in words]
        if command == "import":
            from igos_pl.cli.importing import import_saliency

            return import_saliency(words)
        if command == "evaluate":
            from igos_pl.cli.evaluate import evaluate

            return evaluate(words)
        if command == "sanity":
            from igos_pl.cli.sanity import sanity

            return sanity(words)
        from igos_pl.cli.predict import predict

        return predict(words)


def _say_starting() -> None:
    say(f"igos-pl {__version__} is starting: loading PyTorch and Lightning ...")


def _dispatch(words: list[str]) -> int:
    options = _parser().parse_args(words)
    if options.command == "merge":
        from igos_pl.cli.merge import print_merge

        print_merge(options.run, options.partial)
    elif options.command == "status":
        from igos_pl.cli.status import print_status

        print_status(options.run)
    elif options.command == "verify":
        from igos_pl.cli.verify import print_verification

        return print_verification(options.path)
    elif options.command == "info":
        from igos_pl.cli.info import print_info, write_csv

        if options.csv:
            write_csv(options.file, None if options.csv == "-" else Path(options.csv), options.overwrite)
        else:
            print_info(options.file, options.rows, options.settings)
    elif options.command == "findings":
        from igos_pl.cli.findings import print_findings

        print_findings(options.run)
    elif options.command == "figure":
        from igos_pl.cli.figure import print_figure

        print_figure(options)
    elif options.command == "compare":
        from igos_pl.cli.compare import print_comparison

        print_comparison(options)
    elif options.command == "export":
        from igos_pl.cli.export import print_export

        print_export(options)
    elif options.command == "report":
        from igos_pl.cli.report import print_report

        print_report(options.run, options.output, options.images, None if options.all else options.count)
    elif options.command == "demo":
        from igos_pl.demo.run import run_demo

        _say_starting()
        run_demo(
            options.output or Path("runs/demo-detector" if options.detector else "runs/demo"),
            options.detector,
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "igos-pl",
        description="Optimised saliency masks (I-GOS, iGOS+, iGOS++) for whole data sets.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"igos-pl {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("predict", help="explain every image of a data set", add_help=False)
    commands.add_parser("import", help="turn other methods' saliency maps into a result", add_help=False)
    commands.add_parser("evaluate", help="judge the masks of a result by metrics", add_help=False)
    commands.add_parser("sanity", help="check that masks depend on the network's weights", add_help=False)

    def add(name: str, text: str, more: str = "") -> argparse.ArgumentParser:
        description = f"{text[0].upper()}{text[1:]}.{more}"
        return commands.add_parser(name, help=text, description=description, allow_abbrev=False)

    status = add("status", "show the progress of a run", " A run writes its results about once a minute.")
    status.add_argument("run", type=Path, metavar="RUN", help="output folder of a run")
    info = add(
        "info", "show what a result contains", " Results come first; --settings adds how they were made."
    )
    info.add_argument("file", type=Path, metavar="RUN", help="output folder, or a masks.h5, or a segment")
    info.add_argument("--rows", type=int, default=20, metavar="N", help="explanations to list [20]")
    info.add_argument("--settings", action="store_true", help="list all settings of the run, too")
    info.add_argument("--csv", metavar="FILE", help="write all explanations as CSV instead (- for stdout)")
    info.add_argument("--overwrite", action="store_true", help="replace a CSV file that exists")
    findings = add(
        "findings",
        "show what the network looks at over the whole set",
        " Places that one class uses more than the others, clusters of masks, and wrong predictions.",
    )
    findings.add_argument("run", type=Path, metavar="RUN", help="output folder, or a masks.h5, or a segment")
    figure_options(add("figure", "draw explanations for a paper or slides", " As PDF, SVG or PNG."))
    compare_options(
        add("compare", "compare results of the same images", " Paired differences, and how the masks agree.")
    )
    export_options(add("export", "write explanations in the format of another program"))
    verify = add("verify", "check the files of a result for damage", " Every byte is read.")
    verify.add_argument("path", type=Path, metavar="RUN", help="output folder of a run, or a result file")
    merge = add("merge", "copy a run's segments into its masks.h5", " A run that ends does this by itself.")
    merge.add_argument("run", type=Path, metavar="RUN", help="output folder of a run")
    merge.add_argument("--partial", action="store_true", help="merge even if images are missing")
    report = add(
        "report", "write a page that shows a whole run", " It opens from disk, without network or server."
    )
    report.add_argument("run", type=Path, metavar="RUN", help="output folder of a run, or a result file")
    report.add_argument("--output", type=Path, metavar="FOLDER", help="for the report [RUN/report]")
    report.add_argument("--images", type=Path, metavar="FOLDER", help="where the images are now, if moved")
    shown = report.add_mutually_exclusive_group()
    shown.add_argument(
        "--count", type=int, default=2000, metavar="N", help="explanations in the gallery, about [2000]"
    )
    shown.add_argument("--all", action="store_true", help="show all explanations in the gallery")
    demo = add("demo", "explain some real photos with a real network")
    demo.add_argument("--detector", action="store_true", help="run a detector on generated images instead")
    demo.add_argument(
        "--output", type=Path, metavar="FOLDER", help="for the results [runs/demo or runs/demo-detector]"
    )
    return parser
