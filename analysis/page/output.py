"""Where files go: whole or not at all, into one folder."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis.plots import Drawing, render
from analysis.plots.drawing import file_name
from analysis.results import Results
from analysis.tabular.formats import Table, to_csv, to_latex, to_markdown
from mg_core.errors import InputError
from mg_core.store import reading
from mg_core.store.files import Files
from mg_core.store.layout import ANALYSIS
from mg_core.store.written import Written


class Output:
    """The folder that an analysis writes to: one that is named, or the first store's `analysis`.

    Raises:
        InputError: no folder is named, and the store is not local or `analysis` there is a link.
    """

    def __init__(self, results: Results, folder: Path | None = None) -> None:
        place = results.stores[0].local_path if results.stores else None
        if folder is None and place is None:
            why = "there is no store to write to"
            if results.stores:
                why = f"store {results.store.uri!r} is not on this machine"
            raise InputError(f"{why}: name a folder for the output with --out")
        if folder is not None and re.match(r"\w+:/", str(folder)):
            raise InputError(f"--out is a folder on this machine, not {str(folder)!r}")
        if folder is None:
            with reading(results.store):
                results.store.files.check_no_link(ANALYSIS)
        self.folder = folder or Path(results.store.uri) / ANALYSIS
        self._files = Files(str(self.folder))
        # `mg-sweep rm` deletes only the files of this record.
        self._written = Written(self._files)

    def write(self, name: str, content: bytes | str) -> Path:
        """Write one file and return its path; a file of the user's in its place gets another name.

        Raises:
            InputError: the folder cannot be written.
        """
        # A name that is no UTF-8 has surrogates, which JSON and people can read as `\udcff`.
        data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
        try:
            kept = self._written.put(name, data)
            self._files.remove_temporary()
        except OSError as error:
            raise InputError(f"{error.strerror}; name another folder with --out") from None
        if kept is not None:
            place = self.folder / name
            print(f"{place} was changed by hand, or is yours: kept as {kept}", file=sys.stderr)
        return self.folder / name

    def write_tables(self, tables: Sequence[Table]) -> list[Path]:
        """Write tables as CSV, LaTeX and Markdown; return the paths of the last."""
        written = []
        for table in tables:
            self.write(f"tables/{table.name}.csv", to_csv(table))
            self.write(f"tables/{table.name}.tex", to_latex(table))
            written.append(self.write(f"tables/{table.name}.md", to_markdown(table)))
        return written

    def write_figures(
        self, drawings: Iterable[Drawing], formats: Sequence[str]
    ) -> list[tuple[Drawing, bytes]]:
        """Draw figures into files, with their data as CSV; return them with their PNG files."""
        drawn = []
        for drawing in drawings:
            rendered = render(drawing, formats)
            name = file_name(drawing.name)
            for kind, content in rendered.items():
                self.write(f"figures/{name}.{kind}", content)
            self.write(f"figures/{name}.csv", drawing.csv())
            drawn.append((drawing, rendered["png"]))
        return drawn
