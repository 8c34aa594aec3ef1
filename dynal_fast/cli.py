"""The command line: ``dynal-fast run``, ``select``, ``demo``, ``report``, ``bench`` and more.

Torch and everything above it load inside the commands, so that ``--help`` answers at once.
"""

import argparse
import dataclasses
import os
import sys
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from dynal_fast._version import __version__
from dynal_fast.bench.command import add_bench
from dynal_fast.embeddings.command import add_select
from dynal_fast.experiment.config import Protocol, RunConfig, Training
from dynal_fast.experiment.tables import merge_tables, read_config
from dynal_fast.report.command import add_demo_2d, add_report

if TYPE_CHECKING:
    from dynal_fast.experiment.results import GridResult

BAD_INPUT, FAILED, WAITING, INTERRUPTED = 2, 1, 3, 130

RUN_EXAMPLES = """
examples:
  # three strategies, three seeds, scikit-learn's digits; results in runs/digits
  dynal-fast run -o runs/digits

  # other strategies and sizes
  dynal-fast run -o runs/a --strategies random label_dispersion cod \\
      --initial 50 --budget 25 --cycles 6

  # the same from a file; options on the command line win over the file
  dynal-fast run experiment.toml -o runs/b --seeds 0 1 2 3 4

  # MNIST as in the long-tail paper (4.1), from a folder with the four idx files
  dynal-fast run -o runs/mnist --data mnist --data-root ~/mnist --model lenet \\
      --strategies random least_confidence farthest_first \\
      --initial 10000 --budget 2000 --cycles 5 --epochs 10 --batch-size 128

  # a paper's protocol by name, shrunk to a tenth for a laptop
  dynal-fast run -o runs/tail --preset long-tail/mnist --scale 0.1 --data-root ~/mnist

  # label images of your own: 20 a cycle, asked for in runs/photos/to_label.csv
  dynal-fast run -o runs/photos --oracle ask --data image-folder --data-root ~/photos \\
      --image-size 64 64 --model resnet18 --budget 20 --cycles 10

  # the same with texts and their embeddings, one row each, under a linear head
  dynal-fast run -o runs/texts --oracle ask --data texts --data-root texts.csv \\
      --embeddings texts.npy --classes good bad --initial 20 --budget 20 --cycles 10

a config file (TOML; YAML has the same keys):
  data = "digits"
  model = "cnn"
  strategies = ["random", "prediction_stability"]
  seeds = [0, 1, 2]
  [protocol]
  initial = 40
  budget = 20
  cycles = 5
  [training]
  epochs = 30
  [schedules]
  prediction_stability = { last = 5, interval = 5 }   # eq. 4 of the paper; or "every"
  [options]
  coreset = { max_pairs = 1000000 }

Every cycle is checkpointed: after an interruption run the same command again, and it goes on to the
same results. They are in the output folder: results.json and results.csv (the same on every
repeat), timings.json, learning_curves.svg, differences.csv (from random, with their intervals).

With --oracle ask a run ends when it needs labels, and says where to put them; the same command goes
on when they are there. Exit status 3: it waits for labels still, and nothing was changed.
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: error: {message} (try {self.prog} --help)\n")


class _CommandParser(_Parser):
    """The parser of one command; it refuses empty paths and names."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.register("type", None, _given)
        self.register("type", str, _given)
        self.register("type", Path, lambda text: Path(_given(text)))


def _given(text: str) -> str:
    """Return the text of an option, which must not be empty, as an unset shell variable is."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty; leave it out instead")
    return text


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _Parser(
        prog="dynal-fast",
        description="Exact, fast selection for deep active learning.",
        epilog="`dynal-fast COMMAND --help` shows a command's options and examples.",
    )
    parser.add_argument("--version", action="version", version=f"dynal-fast {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND", parser_class=_CommandParser
    )
    _add_run(commands)
    add_select(commands)
    _add_demo(commands)
    add_demo_2d(commands)
    _add_plot(commands)
    add_report(commands)
    add_bench(commands)
    listing = commands.add_parser("strategies", help="list the strategies and what they do")
    listing.set_defaults(command=_strategies)
    presets = commands.add_parser("presets", help="list the papers' protocols for `run --preset`")
    presets.set_defaults(command=_presets)
    info = commands.add_parser("info", help="print versions, CPU features and backends")
    info.set_defaults(command=_info)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0, 1 (failed), 2 (bad input), 3 (a run waits for a person's labels still), 130 (interrupted).
    """
    arguments = build_parser().parse_args(argv)
    try:
        code = arguments.command(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        resumes = arguments.command in (_run, _demo)
        advice = "; run the same command again to go on" if resumes else ""
        print(f"dynal-fast: interrupted{advice}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, LookupError, FileNotFoundError) as error:
        return _report(error, BAD_INPUT, arguments.debug)
    except (OSError, ImportError, FloatingPointError, RuntimeError) as error:
        return _report(error, FAILED, arguments.debug)
    return code or 0


def _report(error: Exception, code: int, debug: bool) -> int:
    if debug:
        raise error
    has_own_text = isinstance(error, OSError) and error.strerror and error.filename is None
    text = error.strerror if has_own_text else str(error)  # type: ignore[attr-defined]
    if isinstance(error, ImportError) and "pip install" not in text:
        text += " (pip install 'dynal_fast[experiment]' brings what the commands need)"
    elif isinstance(error, RuntimeError):
        text += " (dynal-fast --debug shows where)"
    print(f"dynal-fast: error: {' '.join(text.split())}", file=sys.stderr)
    return code


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="run an active-learning experiment",
        description="Train, select and label in cycles, for every strategy with every seed.",
        epilog=RUN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("config", nargs="?", metavar="CONFIG", help="a .toml or .yaml file of options")
    run.add_argument("-o", "--output", type=Path, required=True, help="folder of the results")
    run.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    run.add_argument(
        "--option",
        action="append",
        default=[],
        type=_strategy_option,
        metavar="STRATEGY.NAME=NUMBER",
        help="option of a strategy, as `dynal-fast strategies` lists them; may be given repeatedly",
    )
    _add_config_options(run.add_argument_group("what runs"), RunConfig, table="")
    _add_config_options(run.add_argument_group("protocol"), Protocol, table="protocol")
    _add_config_options(run.add_argument_group("training"), Training, table="training")
    run.set_defaults(command=_run)


def _add_config_options(group: Any, cls: type, table: str) -> None:
    """Add an option for each field of a configuration class, stored as ``table.field``."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint, origin = hints[field.name], typing.get_origin(hints[field.name])
        if dataclasses.is_dataclass(hint) or origin is dict:
            continue
        default = (
            field.default_factory()
            if field.default_factory is not dataclasses.MISSING
            else field.default
        )
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        settings: dict[str, Any] = {
            "dest": f"{table}.{field.name}" if table else f".{field.name}",
            "default": argparse.SUPPRESS,
            "help": f"{field.metadata['help']} (default: {shown if shown != '' else 'none'})",
        }
        if hint is bool:
            settings["action"] = argparse.BooleanOptionalAction
        elif origin is Literal:
            settings["choices"] = typing.get_args(hint)
        elif origin is list:
            kind = typing.get_args(hint)[0]
            settings |= {"nargs": "*", "type": kind, "metavar": kind.__name__.upper()}
        else:
            settings |= {"type": hint, "metavar": hint.__name__.upper()}
        group.add_argument(f"--{field.name.replace('_', '-')}", **settings)


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="run an experiment on bundled images (about a minute or two)",
        description="Compare the strategies on scikit-learn's digits, with several seeds.",
    )
    demo.add_argument("-o", "--output", type=Path, default=Path("demo"), help="default: demo")
    demo.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    demo.set_defaults(command=_demo)


def _add_plot(commands: Any) -> None:
    plot = commands.add_parser(
        "plot", help="draw the learning curves and print the tables of a finished run"
    )
    plot.add_argument("folder", type=Path, metavar="RUN", help="the output folder of `run`")
    plot.add_argument("-o", "--output", type=Path, help="folder of the pictures (default: RUN)")
    plot.set_defaults(command=_plot)


def _strategy_option(text: str) -> dict[str, dict[str, float]]:
    """Return ``STRATEGY.NAME=NUMBER`` as the nested table of a config file."""
    path, _, number = text.partition("=")
    strategy, _, name = path.rpartition(".")
    try:
        return {strategy: {name: float(number)}}
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected STRATEGY.NAME=NUMBER, such as coreset.time_limit=60, got {text!r}"
        ) from None


def _run(arguments: argparse.Namespace) -> int:
    return _run_config(_config_of(arguments), arguments.output, arguments.quiet)


def _config_of(arguments: argparse.Namespace) -> RunConfig:
    """Return the configuration of ``run``: its file, with the options on top."""
    values = read_config(arguments.config) if arguments.config else {}
    for name, value in vars(arguments).items():
        table, dot, key = name.partition(".")
        if dot:
            values = merge_tables(values, {table: {key: value}} if table else {key: value})
    for given in arguments.option:
        values = merge_tables(values, {"options": given})
    return RunConfig.from_mapping(values)


def _demo(arguments: argparse.Namespace) -> None:
    from dynal_fast.experiment.demo import DEMO

    _run_config(RunConfig.from_mapping(DEMO), arguments.output, arguments.quiet)


def _run_config(config: RunConfig, folder: Path, quiet: bool) -> int:
    """Run a grid, show its results and what it waits for, and return the exit code."""
    from tqdm import tqdm

    from dynal_fast.experiment.grid import SELECTING, run_grid, total_epochs
    from dynal_fast.ops.farthest_first.progress import hidden_bars

    hidden = quiet or not sys.stderr.isatty()
    with (
        warnings_in_one_line(),
        hidden_bars(),  # those of selections: the run shows its own
        tqdm(total=total_epochs(config), unit="epoch", disable=hidden, leave=False) as bar,
    ):

        def on_epoch(where: str, done: int) -> None:
            bar.set_description(where, refresh=where.endswith(SELECTING))
            bar.update(done - bar.n)

        grid = run_grid(config, folder, on_epoch=on_epoch)
    awaited = grid.awaited
    if awaited is None or (awaited.new and awaited.cycle):
        _show(grid, folder)
    if awaited is None:
        return 0
    print(f"\n{awaited.message()}" if awaited.new and awaited.cycle else awaited.message())
    return 0 if awaited.new else WAITING


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Write the package's warnings as the command line writes its errors."""
    import warnings

    def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
        if category is UserWarning:
            print(f"dynal-fast: warning: {' '.join(str(message).split())}", file=sys.stderr)
        else:
            usual(message, category, *where, **more)

    usual = warnings.showwarning
    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _plot(arguments: argparse.Namespace) -> None:
    from dynal_fast.experiment.results import GridResult

    folder = arguments.output or arguments.folder
    grid = GridResult.load(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    _show(grid, folder)


def _show(grid: "GridResult", folder: Path) -> None:
    from dynal_fast.experiment.chance import chance_note
    from dynal_fast.report.curves import draw_learning_curves
    from dynal_fast.report.differences import differences_table, of_grid, write_differences
    from dynal_fast.report.table import accuracy_table, cost_table, loss_table, timings_of
    from dynal_fast.table import as_text

    cost = cost_table(timings_of(grid))
    if not grid.evaluated:
        print("Training loss by number of labeled samples; there is no hold-out to test on")
        print(as_text(loss_table([(run.strategy, run) for run in grid.runs])))
        print(f"\n{cost.label}\n{as_text(cost)}")
        print(f"\nResults: {folder}")
        return
    picture = draw_learning_curves(grid, folder)
    print(f"Test {grid.metric} (%) by number of labeled samples; * is the best")
    print(as_text(accuracy_table(grid)))
    differences = of_grid(grid)
    if write_differences(differences, folder):
        table = differences_table(differences, grid.metric)
        print(f"\n{table.label}\n{as_text(table)}")
    if grid.protocol_note:
        print(f"\n{grid.protocol_note}")
    for note in (grid.steps_note, chance_note(grid)):
        if note:
            print(f"\n{note}")
    print(f"\n{cost.label}\n{as_text(cost)}")
    print(f"\nResults and picture: {folder} ({picture.name})")


def _strategies(arguments: argparse.Namespace) -> None:
    from dynal_fast.strategies.hybrid import SHORTLIST
    from dynal_fast.strategies.registry import strategies

    listed = list(strategies())
    width = max(len(strategy.name) for strategy in listed)
    for strategy in listed:
        notes = [f"also: {', '.join(strategy.aliases)}"] if strategy.aliases else []
        if strategy.options:
            defaults = (f"{name}={value}" for name, value in strategy.options.items())
            notes.append(f"options: {', '.join(defaults)}")
        more = f" ({'; '.join(notes)})" if notes else ""
        print(f"{strategy.name:<{width}}  {strategy.description}{more}")
    print(
        f"{'NAME+farthest_first':<{width}}  any of these that selects from unlabeled samples to "
        f"shortlist, farthest-first to choose (options: shortlist={SHORTLIST:g}, times the budget)"
    )


def _presets(arguments: argparse.Namespace) -> None:
    from dynal_fast.experiment.presets import PRESETS

    for name, preset in PRESETS.items():
        print(f"{name}\n    {preset.source}")
        if preset.chosen_here:
            print(f"    chosen here: {preset.chosen_here}")


def _info(arguments: argparse.Namespace) -> None:
    from dynal_fast.info import main as print_info

    print_info()


if __name__ == "__main__":
    sys.exit(main())
