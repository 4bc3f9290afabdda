"""Tables of the runs that are on file: Markdown, LaTeX, a page of the documentation."""

import math
import os
import re
import statistics
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from matrix.plan import SCORES, Run, planned, read_record

WITH_INTERVAL = ("dice", "cldice")
LEVEL, RESAMPLES = 0.05, 2000
NOT_RUN = "not run yet"
START, END = "<!-- table by scripts/benchmark_matrix.py -->\n", "<!-- end of table -->\n"


class Cell(NamedTuple):
    """What stands in a table; ``mark`` is ``"best"``, ``"like best"`` or nothing."""

    text: str
    mark: str = ""


class Table(NamedTuple):
    """A table with what stands above it."""

    title: str
    note: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @property
    def begun(self) -> bool:
        """Whether there is more to say than that nothing has been run."""
        return any(cell.text not in ("", NOT_RUN) for row in self.rows for cell in row[1:])


class Measured:
    """Scores of a row on a data set, or on some groups of its images, over seeds.

    Args:
        records: of its seeds.
        groups: of the images that count; None for all.
    """

    def __init__(self, records: Sequence[Mapping[str, Any]], groups: Sequence[str] | None = None) -> None:
        self.records = records
        tables = [record["per_image"] for record in records]
        if any(table["name"] != tables[0]["name"] for table in tables):
            raise SystemExit(f"{records[0]['data']}/{records[0]['row']}: its seeds were scored on different images")
        kept = [number for number, _ in enumerate(tables[0]["name"])]
        if groups is not None:
            kept = [number for number in kept if tables[0]["group"][number] in groups]
        self.scores = {
            score: np.array([table[score] for table in tables], float)[:, kept]
            for score in tables[0]
            if score not in ("name", "group")
        }

    def of_images(self, score: str) -> Any:
        """A value of each image, averaged over seeds."""
        return self.scores[score].mean(axis=0)

    def value(self, score: str) -> tuple[float, float | None]:
        """Mean over images and seeds, and the deviation over seeds where there are several."""
        if score == "pooled dice":
            return _mean_and_deviation([record["test"]["dice"] for record in self.records])
        return _mean_and_deviation(np.nanmean(self.scores[score], axis=1).tolist())

    def text(self, score: str) -> str:
        """Mean with deviation over seeds and, of some scores, the interval over images."""
        from topolora_monai.metrics import bootstrap_interval

        digits = 1 if score.endswith("error") else 3
        mean, deviation = self.value(score)
        text = f"{mean:.{digits}f}" + (f" ± {deviation:.{digits}f}" if deviation is not None else "")
        if score in WITH_INTERVAL and self.of_images(score).size > 1:
            interval = bootstrap_interval(self.of_images(score), resamples=RESAMPLES)
            text += f" ({interval.low:.{digits}f} to {interval.high:.{digits}f})"
        return text


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


class Results:
    """What is on file of a matrix.

    Args:
        matrix: as :func:`read_matrix` gives it.
        folder: of the runs' files.
    """

    def __init__(self, matrix: Mapping[str, Any], folder: Path) -> None:
        self.matrix = matrix
        runs = list(planned(matrix))
        self.records = {run: read_record(folder, run) for run in runs}

    def of(self, data: str, row: str) -> list[dict[str, Any]]:
        """Finished runs of a cell by seed."""
        return [
            record
            for run, record in sorted(self.records.items(), key=lambda one: one[0].seed)
            if record and "test" in record and run[:2] == (data, row)
        ]

    def rows(self, data: str) -> list[str]:
        """Those that are for a data set."""
        return list(dict.fromkeys(run.row for run in self.records if run.data == data))

    def why_missing(self, data: str, row: str) -> str:
        """Of a cell without a finished run."""
        found = [record for run, record in self.records.items() if record and run[:2] == (data, row)]
        said = [record.get("missing") or f"failed: {record['failed']}" for record in found]
        skipped = [str(why) for fits, why in self.matrix.get("skip", {}).items() if fnmatch(f"{data}/{row}", fits)]
        return next(iter([*skipped, *said]), NOT_RUN)

    def title(self, row: str) -> str:
        """What a row is called."""
        return str(self.matrix["rows"][row].get("title", row))

    def tables(self, results_at: str = "") -> Iterator[Table]:
        """A table of every data set, and of each part of one that is reported apart."""
        for data, about in self.matrix["data"].items():
            title, note = about.get("title", data), about.get("note", "")
            if not about.get("parts"):
                yield self._table(data, None, title, note, results_at)
            for part, groups in about.get("parts", {}).items():
                yield self._table(data, groups, f"{title}, {part}", note, results_at)
            yield from self._by_group(data, title)

    def _table(self, data: str, groups: Sequence[str] | None, title: str, note: str, results_at: str) -> Table:
        from topolora_monai.reports.html.scores import lower_is_better, score_title

        scores = [*([] if groups else ["pooled dice"]), *self.matrix.get("scores", SCORES)]
        measured = {row: Measured(self.of(data, row), groups) for row in self.rows(data) if self.of(data, row)}
        marks = {score: marked(measured, score, lower_is_better(score)) for score in scores}
        head = ["network", "seeds", *("Dice, pooled" if s == "pooled dice" else score_title(s) for s in scores)]
        rows = []
        for row in self.rows(data):
            if row not in measured:
                reason = Cell(self.why_missing(data, row))
                rows.append([Cell(self.title(row)), Cell(""), reason, *[Cell("")] * (len(scores) + 3)])
                continue
            records = measured[row].records
            seeds = ", ".join(f"{one['seed']}" for one in records)
            if results_at:
                files = [f"{results_at}/{Run(data, row, one['seed']).name}.json" for one in records]
                seeds = ", ".join(f"[{one['seed']}]({file})" for one, file in zip(records, files, strict=True))
            cells = [Cell(measured[row].text(score), marks[score].get(row, "")) for score in scores]
            took = statistics.fmean(one["processor_seconds"]["training"] for one in records) / 60
            best = ", ".join(f"{one['best_epoch']} of {one['epochs']}" for one in records)
            seconds = statistics.fmean(one["seconds_per_image"] or math.nan for one in records)
            costs = [f"{records[0]['trainable']:,}", f"{seconds:.2f}", f"{took:.0f}", best]
            rows.append([Cell(self.title(row)), Cell(seeds), *cells, *map(Cell, costs)])
        return Table(title, note, [*head, "trained", "s an image", "minutes", "best epoch"], rows)

    def short(self) -> Table | None:
        """Dice and clDice of every row that has any, a column for each data set or part; None where there is none."""
        columns = [
            (about.get("title", data) + (f", {part}" if part else ""), data, groups)
            for data, about in self.matrix["data"].items()
            for part, groups in (about.get("parts") or {"": None}).items()
            if any(self.of(data, row) for row in self.rows(data))
        ]
        return self._pairs("", columns) if columns else None

    def _by_group(self, data: str, title: str) -> Iterator[Table]:
        found = [record for row in self.rows(data) for record in self.of(data, row)]
        groups = dict.fromkeys(group for record in found for group in record["per_image"].get("group", ()))
        if self.matrix["data"][data].get("by_group") and groups:
            yield self._pairs(f"{title}, by group", [(group, data, [group]) for group in groups])

    def _pairs(self, title: str, columns: Sequence[tuple[str, str, Sequence[str] | None]]) -> Table:
        """Dice and clDice in one cell; the best Dice of a column is marked."""
        cells: dict[str, list[Cell]] = {row: [] for row in self.matrix["rows"]}
        for _, data, groups in columns:
            dice = "pooled dice" if self.matrix["data"][data].get("pooled") else "dice"
            measured = {row: Measured(self.of(data, row), groups) for row in self.rows(data) if self.of(data, row)}
            best = max((one.value(dice)[0] for one in measured.values()), default=math.nan)
            for row, of_row in cells.items():
                values = [measured[row].value(score)[0] for score in (dice, "cldice")] if row in measured else []
                text = " / ".join(f"{value:.3f}" for value in values)
                of_row.append(Cell(text or "-", "best" if values and values[0] == best else ""))
        rows = []
        for row, of_row in cells.items():
            known = [record for _, data, _ in columns for record in self.of(data, row)]
            if known:
                rows.append([Cell(self.title(row)), Cell(f"{known[0]['trainable']:,}"), *of_row])
        return Table(title, "Dice / clDice.", ["network", "trained", *(head for head, *_ in columns)], rows)


def marked(measured: Mapping[str, Measured], score: str, low: bool) -> dict[str, str]:
    """The best row of a column, and those that the paired test over images does not tell apart from it."""
    values = {row: one.value(score)[0] for row, one in measured.items()}
    values = {row: value for row, value in values.items() if not math.isnan(value)}
    if len(values) < 2:
        return {}
    best = (min if low else max)(values, key=lambda row: values[row])
    marks = {best: "best"}
    if score == "pooled dice":
        return marks
    from topolora_monai.metrics import paired_test

    of_best = measured[best].of_images(score)
    for row in values.keys() - {best}:
        other = measured[row].of_images(score)
        if other.shape == of_best.shape and not paired_test(of_best, other, resamples=1).p_value < LEVEL:
            marks[row] = "like best"
    return marks


def markdown(table: Table) -> str:
    """As Markdown, without its title."""
    around = {"best": "**{}**", "like best": "_{}_", "": "{}"}
    lines = [f"| {' | '.join(table.head)} |", "|---" * len(table.head) + "|"]
    lines += [f"| {' | '.join(around[cell.mark].format(cell.text) for cell in row)} |" for row in table.rows]
    return "\n".join(lines) + "\n"


def latex(table: Table) -> str:
    """As a tabular of LaTeX's booktabs."""
    around = {"best": r"\textbf{%s}", "like best": r"\emph{%s}", "": "%s"}
    lines = [rf"% {table.title}", rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}", r"\toprule"]
    lines += [" & ".join(map(_tex, table.head)) + r" \\", r"\midrule"]
    lines += [" & ".join(around[cell.mark] % _tex(cell.text) for cell in row) + r" \\" for row in table.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _tex(text: str) -> str:
    text = re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", r"\textbackslash "))
    return text.replace("±", r"$\pm$")


def page(results: Results, matrix_path: str, results_at: str) -> str:
    """Everything as a page of Markdown.

    Args:
        results: what is on file.
        matrix_path: of the matrix, from the root of the tree.
        results_at: folder of the runs' files, from the page.
    """
    matrix = results.matrix
    done = [record for record in results.records.values() if record and "test" in record]
    budget = sorted({record["budget_minutes"] for record in done if record["budget_minutes"]})
    parts = [f"# {matrix.get('title', matrix['name'])}\n", _wrapped(matrix.get("note", ""))]
    parts.append(
        f"{len(done)} of {len(results.records)} runs are on file"
        + (f", trained for {' or '.join(f'{one:g}' for one in budget)} minutes each" if budget else "")
        + f". To go on with them, and to write this page anew:\n\n"
        f"```text\npython scripts/benchmark_matrix.py {matrix_path}\n"
        f"python scripts/benchmark_matrix.py {matrix_path} --table_only\n```\n"
    )
    parts.append(LEGEND)
    for table in results.tables(results_at):
        shown = markdown(table) if table.begun else "No run is on file yet.\n"
        parts += [f"## {table.title}\n", _wrapped(table.note), shown]
    parts += ["## Hardware and commands\n", *_origins(done)]
    return "\n".join(part for part in parts if part)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 118, break_on_hyphens=False) + "\n" if text else ""


LEGEND = """\
Scores are means over test images, averaged over seeds, ± their deviation between seeds; "Dice, pooled" counts the
pixels of all images together. In parentheses the bootstrap 95 % interval over images. **Bold** is the best of a column,
_italic_ what Wilcoxon's signed-rank test on the same images does not tell apart from it (p >= 0.05; it knows nothing of
seeds). Of errors, less is better. "Trained" counts parameters that train, "s an image" is the network's answer to one
test image (seconds of the processor, all cores added up; of the wall clock on a GPU), "minutes" what the processor took
for training, "best epoch" where validation was best. Each seed leads to the file of its run, with command, commit and
hardware.
"""


def _origins(done: Sequence[Mapping[str, Any]]) -> list[str]:
    if not done:
        return ["No run is on file yet.\n"]
    hardware = sorted({str(record["hardware"]) for record in done})
    commands = [record["command"] for record in done if record["seed"] == min(r["seed"] for r in done)]
    told = ["Trained on:\n\n" + "\n".join(f"- {one}" for one in hardware) + "\n"]
    return [*told, "```text\n" + "\n".join(commands) + "\n```\n"]


def write_tables(matrix: Mapping[str, Any], results_dir: Path, root: Path, matrix_path: str) -> dict[Path, str]:
    """Files with the tables of what is on file, and their content: the page, LaTeX, and the short form."""
    results = Results(matrix, results_dir)
    where = root / matrix["page"] if "page" in matrix else results_dir / "table.md"
    results_at = Path(os.path.relpath(results_dir, where.parent)).as_posix()
    files = {
        where: page(results, matrix_path, results_at),
    }
    if latex_tables := [latex(table) for table in results.tables() if table.begun]:
        files[results_dir / "tables.tex"] = "\n".join(latex_tables)
    if "short" in matrix:
        short = root / matrix["short"]
        before, _, rest = short.read_text(encoding="utf-8").partition(START)
        _, _, after = rest.partition(END)
        table = results.short()
        shown = markdown(table) if table else "No run of the suite is on file yet.\n"
        files[short] = f"{before}{START}{shown}{END}{after}"
    return files
