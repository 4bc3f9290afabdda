"""Send every broken and hostile file of the tests' corpus through the package, and count what became of them.

    python scripts/broken_inputs.py [--only archive/] [--seconds 20] [--jobs 1]

Prints a table of counts and every fault, and exits with 1 if there is one. Needs the ``dev`` extras. Takes a few
minutes; files are made in the system's temporary folder, small ones, and each is gone before the next.
"""

import argparse
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose names begin so")
    parser.add_argument("--seconds", type=float, default=20.0, help="time limit of a case")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    return parser.parse_args()


def judge_all(names: Sequence[str], seconds: float, jobs: int):
    """Verdict by name; each process takes every n-th case."""
    from tests.corpus.supervisor import Supervisor

    verdicts = {}

    def work(part: Sequence[str]) -> None:
        with Supervisor(seconds) as supervisor:
            for name, verdict in supervisor.run(part):
                verdicts[name] = verdict
                if not verdict.sound:
                    print(f"{verdict.outcome:8}{name}\n        {verdict.detail}", flush=True)

    threads = [threading.Thread(target=work, args=(names[number::jobs],)) for number in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return verdicts


def print_counts(verdicts) -> None:
    from tests.corpus.cases import FAULTS

    columns = ["refused", "read", *FAULTS]
    counts = Counter((name.partition("/")[0], verdict.outcome) for name, verdict in verdicts.items())
    kinds = list(dict.fromkeys(name.partition("/")[0] for name in verdicts))
    print("".join(f"{word:>12}" for word in ("kind", "cases", *columns)))
    for kind in [*sorted(kinds), "all"]:
        row = [sum(n for (k, o), n in counts.items() if kind in (k, "all") and o == column) for column in columns]
        print("".join(f"{word:>12}" for word in (kind, sum(row), *row)))


def main() -> int:
    from tests.corpus.worker import all_cases

    arguments = parse_arguments()
    names = [name for name in all_cases() if name.startswith(arguments.only)]
    verdicts = judge_all(names, arguments.seconds, arguments.jobs)
    print_counts(verdicts)
    missing = len(names) - len(verdicts)
    return 0 if not missing and all(verdict.sound for verdict in verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
