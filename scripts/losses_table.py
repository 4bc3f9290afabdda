"""Write the tables of docs/topology.md that compare losses, from the results of two matrices.

python scripts/benchmark_matrix.py scripts/matrices/drive_losses.yaml --json results/drive_losses.json
python scripts/benchmark_matrix.py scripts/matrices/chase_db1_losses.yaml --json results/chase_db1_losses.json
python scripts/losses_table.py
"""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "topology.md"
RESULTS = {"DRIVE": ROOT / "results/drive_losses.json", "CHASE_DB1": ROOT / "results/chase_db1_losses.json"}
START, END = "<!-- tables by scripts/losses_table.py -->\n", "<!-- end of tables -->\n"
SCORES = {"dice": "Dice", "cldice": "clDice", "betti_0_error": "Betti 0", "betti_1_error": "Betti 1"} | {
    "betti_matching_error": "Betti matching"
}
ERRORS = ("betti_0_error", "betti_1_error", "betti_matching_error")
LEVEL = 0.05


def number(score: str, value: float) -> str:
    """With the digits that matter."""
    return f"{value:.1f}" if score in ERRORS else f"{value:.4f}"


def cell(run: dict, score: str) -> str:
    """Mean over images with its interval, and deviation between seeds where there are several.

    Bold where the paired test calls it better than plain, italic where worse.
    """
    interval = run["intervals"][score]
    value, low, high = (number(score, interval[key]) for key in ("value", "low", "high"))
    test = run.get("against_reference", {}).get(score)
    mark = ""
    if test and test["p_value"] < LEVEL:
        mark = "**" if (test["difference"] > 0) != (score in ERRORS) else "_"
    spread = f" ± {number(score, run['standard_deviation'][score])}" if "standard_deviation" in run else ""
    return f"{mark}{value}{mark}{spread} ({low} to {high})"


def table(result: dict) -> str:
    """A row for each run, as Markdown."""
    lines = [f"| terms and weights | seeds | validation Dice | {' | '.join(SCORES.values())} |", "|---" * 8 + "|"]
    for name, run in result["runs"].items():
        cells = [name.replace("_and_", " + ").replace("_", " "), str(len(run["seeds"]))]
        cells += [f"{run['validation']['dice']:.4f}", *(cell(run, score) for score in SCORES)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page(text: str, results: dict[str, dict]) -> str:
    """The page with its tables replaced."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    tables = "\n".join(f"{name}:\n\n{table(result)}" for name, result in results.items())
    return f"{before}{START}{tables}{END}{after}"


def main() -> None:
    results = {name: json.loads(path.read_text()) for name, path in RESULTS.items()}
    PAGE.write_text(page(PAGE.read_text(), results))


if __name__ == "__main__":
    main()
