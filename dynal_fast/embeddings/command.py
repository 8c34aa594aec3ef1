"""The command ``dynal-fast select``: picks from files of embeddings."""

import argparse
import errno
import re
from pathlib import Path
from typing import Any

EXAMPLES = """
examples:
  # 4,000 picks, farthest first, from an array of shape (samples, features)
  dynal-fast select features.npy -k 4000 -o picks.npy

  # some samples are labeled already: the picks are farthest from those
  dynal-fast select features.npy -k 4000 --labeled labeled_ids.npy -o picks.npy

  # cosine distance, random first pick
  dynal-fast select features.npy -k 100 --metric cosine --seed 7 -o picks.npy

  # one tensor of several, and the columns of a table that are features
  dynal-fast select features.safetensors --key penultimate -k 100 -o picks.npy
  dynal-fast select features.csv --columns 'e*' -k 100 -o picks.csv

  # a folder of parts, or a pattern: the picks say which file and row
  dynal-fast select parts/ -k 100 -o picks.csv
  dynal-fast select 'parts/*.parquet' -k 100 --labeled picks.csv -o more.csv

  # four processes, each with a share of the files; a state to go on from
  torchrun --nproc-per-node 4 -m dynal_fast select 'features/*.npy' -k 10000 -o picks.npy \\
      --checkpoint state/

formats, by content and not by name:
  .npy .pt .pth .safetensors     memory-mapped: one file may be larger than memory
  .npz                           read whole
  .csv .tsv (also .gz)           text, read as float64; numbers in columns, or a column of lists
  .parquet .arrow .feather       a column of lists, or columns of numbers; needs dynal_fast[files]
  folder of Hugging Face's save_to_disk, of one split; the same
  folder or 'pattern' of files   in the order of their names, read into one array in memory

PICKS is int64 row numbers (.npy), in the order of picking; .txt has one a line, .csv distances too.
Of several files the numbers count through all of them in order, and PICKS.files.csv (or PICKS
itself where it is .csv) has the file and the row of each.
"""


def add_select(commands: Any) -> None:
    """Add the subcommand to an argparse ``commands``."""
    select = commands.add_parser(
        "select",
        help="pick samples from files of embeddings, farthest first",
        description="Exact farthest-first traversal of the rows of FEATURES.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    select.add_argument(
        "features",
        nargs="+",
        metavar="FEATURES",
        help="numbers, (samples, features): files, a folder or a pattern",
    )
    select.add_argument("-k", type=int, required=True, help="number of picks")
    select.add_argument("-o", "--output", type=Path, required=True, metavar="PICKS")
    select.add_argument(
        "--labeled",
        metavar="LABELED",
        help="what is labeled already: row numbers, a boolean for each row, picks of an earlier "
        "run, or embeddings (labeled, features); in any of the formats",
    )
    select.add_argument("--key", help="name of the array in a .npz, .pt or .safetensors")
    select.add_argument("--labeled-key", metavar="KEY", help="the same for LABELED")
    select.add_argument(
        "--columns",
        nargs="+",
        metavar="COLUMN",
        help="columns of a table that are features: names, patterns ('e*') or slices of positions "
        "(1:513) (default: the column of lists, else all numbers)",
    )
    select.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="the first line of a text table names its columns (default: found out)",
    )
    select.add_argument("--metric", choices=("euclidean", "cosine"), default="euclidean")
    first = select.add_mutually_exclusive_group()
    first.add_argument("--start", type=int, help="row number of the first pick")
    first.add_argument("--seed", type=_seed, help="seed of a random first pick")
    select.add_argument(
        "--checkpoint",
        type=Path,
        metavar="DIR",
        help="a folder, the same for all ranks, in which the state is kept: the same command goes "
        "on there after it was ended, with any number of ranks",
    )
    select.add_argument(
        "--checkpoint-every",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="time between two checkpoints (default: 60)",
    )
    select.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    select.set_defaults(command=_select)


def _seed(text: str) -> int:
    """Return a seed that ``torch.Generator`` takes."""
    seed = int(text) if re.fullmatch(r"[+-]?[0-9]{1,20}", text) else 2**64
    if not -(2**63) <= seed < 2**64:
        raise argparse.ArgumentTypeError(f"must be an integer from -2^63 to 2^64 - 1, got {text}")
    return seed


def _seconds(text: str) -> float:
    """Return a time that is not negative."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds from 0 on, got {text}")
    return seconds


def _select(arguments: argparse.Namespace) -> None:
    try:
        _select_and_write(arguments)
    except MemoryError as error:
        raise OSError(errno.ENOMEM, "the selection does not fit into memory") from error
    except TypeError as error:  # of an input: its dtype
        raise ValueError(str(error)) from error


def _select_and_write(arguments: argparse.Namespace) -> None:
    from dynal_fast.collective import agreed
    from dynal_fast.embeddings.many_ranks import together

    with together() as ranks:
        agreed(ranks, lambda: _check_output(arguments) if ranks.rank == 0 else None)
        if ranks.size > 1 or arguments.checkpoint is not None:
            from dynal_fast.embeddings.many_ranks import select_shards

            traversal, pool = select_shards(arguments, ranks)
        else:
            traversal, pool = _select_in_memory(arguments)
        agreed(ranks, lambda: _write(arguments, traversal, pool) if ranks.rank == 0 else None)


def _select_in_memory(arguments: argparse.Namespace) -> tuple[Any, Any]:
    import torch

    from dynal_fast.embeddings.labeled import load_labeled
    from dynal_fast.embeddings.load import load_embeddings
    from dynal_fast.embeddings.source import Wanted
    from dynal_fast.ops.farthest_first import farthest_first

    pool = load_embeddings(
        arguments.features, key=arguments.key, columns=arguments.columns, header=arguments.header
    )
    labeled = None
    if arguments.labeled is not None:
        wanted = Wanted(arguments.labeled_key, arguments.columns)
        labeled = load_labeled(arguments.labeled, wanted, pool)
    generator = None
    if arguments.seed is not None:
        generator = torch.Generator().manual_seed(arguments.seed)
    traversal = farthest_first(
        pool.array,
        arguments.k,
        labeled=labeled,
        metric=arguments.metric,
        start="random" if generator is not None else arguments.start,
        generator=generator,
        progress=False if arguments.quiet else None,
    )
    return traversal, pool


def _write(arguments: argparse.Namespace, traversal: Any, pool: Any) -> None:
    """Write the picks and say where."""
    from dynal_fast.embeddings.picks import write_picks

    written = write_picks(
        arguments.output, traversal.indices.tolist(), traversal.distances.tolist(), pool
    )
    samples, features = pool.array.shape
    print(
        f"{arguments.k} picks of {samples} samples with {features} features: "
        f"{written[0]}, radius {float(traversal.radius):.6g}"
    )
    if len(pool.files) > 1:
        print(f"The file and row of each, of {len(pool.files)} files: {written[-1]}")
    if pool.left_out:
        shown = ", ".join(name or "the unnamed column" for name in pool.left_out[:8]) + (
            ", ..." if len(pool.left_out) > 8 else ""
        )
        print(f"Not read: {shown}")


def _check_output(arguments: argparse.Namespace) -> None:
    """Refuse, before any work, an output that cannot be written or would replace an input."""
    from dynal_fast.embeddings.load import find_files
    from dynal_fast.embeddings.picks import places
    from dynal_fast.files import regular_target

    files, _ = find_files(arguments.features)
    inputs = list(files)
    if arguments.labeled is not None:
        inputs += find_files(arguments.labeled)[0]
    for output in places(arguments.output, len(files) > 1):
        if output.is_dir():
            raise ValueError(f"--output must be a file, got the folder {output}")
        if not output.is_symlink() and not output.parent.is_dir():
            raise ValueError(f"--output must be in a folder that exists, got {output}")
        if output.exists() and any(path.exists() and output.samefile(path) for path in inputs):
            raise ValueError(f"--output must not be a file that is read, got {output}")
        for given in arguments.features:
            if Path(given).is_dir() and output.resolve().parent == Path(given).resolve():
                raise ValueError(f"--output must not be in the folder that is read, got {output}")
        regular_target(output)
    if arguments.checkpoint is not None:
        folder = Path(arguments.checkpoint).resolve()
        if any(Path(path).resolve().parent == folder for path in inputs):
            raise ValueError(f"--checkpoint must not be a folder that is read, got {folder}")
