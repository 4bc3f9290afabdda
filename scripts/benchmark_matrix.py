"""Train and evaluate networks on data sets, and put the runs into tables: Markdown, LaTeX, pages of the documentation.

    python scripts/benchmark_matrix.py scripts/matrices/suite.yaml                # train, evaluate, resume
    python scripts/benchmark_matrix.py scripts/matrices/suite.yaml --table_only   # write the tables of what is there

A matrix is a YAML file, and every run one of its data sets by one of its rows by one seed.

- ``data``: by name ``title``, ``note``, ``training`` and ``evaluating`` (options of the bundle), ``parts`` (a table of
  its own for some groups of test images), ``by_group`` (one of all groups), ``pooled`` (whether the short table has
  Dice pooled over pixels) and ``speckle_of`` (a folder of SL-SSDD's masks, to which images are simulated).
- ``rows``: by name options of training, and beside them ``title``, ``recipe`` (of the packaged bundle), ``per_data``
  (further options on single data sets), ``only_on`` (those that it is for; all without it) and a ``budget_minutes`` of
  its own.
- ``training`` and ``evaluating``: options that all runs share; a row's go before a data set's, and those before these.
- ``seeds`` of all, ``more_seeds`` of ``DATA/ROW`` patterns, ``skip``: patterns with the reason, which the table gives.
- ``budget_minutes``: what training may take of one core, start and validation included (of the wall clock with a GPU).
  A probe of some steps measures once for each data set and row how many fit; the schedule spans just these, in up to
  ``validations`` epochs with a validation each. Without a budget a run trains as its options say.
- ``scores`` of single images, ``title`` and ``note`` of the page, ``page`` and ``short``: where the tables go.

A run that fails does not stop the others. Finished runs are not repeated, killed ones go on from their last epoch:
give the same command again. Every run leaves a JSON file in ``results/NAME_OF_MATRIX``, from which the tables are made.
"""

import argparse
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

from matrix.plan import ROOT, planned, read_matrix, run_path
from matrix.runs import Bench
from matrix.tables import Results, markdown, write_tables


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("matrix", type=Path)
    parser.add_argument("--output_dir", type=Path, help="folder of the runs, runs/NAME_OF_MATRIX when not given")
    parser.add_argument("--results", type=Path, help="folder of their JSON files, results/NAME_OF_MATRIX")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="runs whose DATA/ROW fits one")
    parser.add_argument("--seeds", nargs="+", type=int, help="these alone")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="of the processor, for each run")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop then; the same command goes on")
    parser.add_argument("--budget_minutes", type=float, help="of a run, instead of the matrix's")
    parser.add_argument("--set", nargs="+", default=[], metavar="ID=VALUE", help="options of all trainings")
    parser.add_argument("--retry", action="store_true", help="also the runs that have failed")
    parser.add_argument("--table_only", action="store_true", help="train nothing; write the tables")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(words)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    matrix = read_matrix(arguments.matrix)
    bench = Bench(matrix, arguments)
    if not arguments.table_only:
        runs = [
            run
            for run in planned(matrix)
            if any(fnmatch(run.cell, pattern) for pattern in arguments.only)
            and (arguments.seeds is None or run.seed in arguments.seeds)
        ]
        with ThreadPoolExecutor(arguments.jobs) as pool:  # which none may need that forks
            list((map if arguments.jobs == 1 else pool.map)(bench.complete, runs))
        for table in Results(matrix, bench.results).tables():
            if table.begun:
                print(f"\n{table.title}\n{markdown(table)}")
        return
    for path, text in write_tables(matrix, bench.results, ROOT, run_path(arguments.matrix)).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"written: {path}")


if __name__ == "__main__":
    main()
