"""Where files go: whole or not at all, into one folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis.plots import Drawing, render
from analysis.results import Results
from analysis.tabular.formats import Table, to_csv, to_latex, to_markdown
from mg_core.errors import InputError
from mg_core.store.files import Files
from mg_core.store.layout import ANALYSIS


class Output:
    """The folder that an analysis writes to.

    Args:
        results: results that are analysed; the first store, where it is a local one, takes the
            files into its folder `analysis`.
        folder: another folder to write to.

    Raises:
        InputError: the store is not local and no folder is named.
    """

    def __init__(self, results: Results, folder: Path | None = None) -> None:
        place = results.stores[0].local_path if results.stores else None
        if folder is None and place is None:
            where = (
                f"store {results.store.uri!r} is not on this machine"
                if results.stores
                else ("there is no store to write to")
            )
            raise InputError(f"{where}: name a folder for the output with --out")
        self.folder = folder or Path(results.store.uri) / ANALYSIS
        self._files = Files(str(self.folder))

    def write(self, name: str, content: bytes | str) -> Path:
        """Write one file and return its path.

        Raises:
            InputError: the folder cannot be written.
        """
        data = content.encode() if isinstance(content, str) else content
        try:
            self._files.put(name, data)
            self._files.remove_temporary()
        except OSError as error:
            raise InputError(f"{error.strerror}; name another folder with --out") from None
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
            for kind, content in rendered.items():
                self.write(f"figures/{drawing.name}.{kind}", content)
            self.write(f"figures/{drawing.name}.csv", drawing.csv())
            drawn.append((drawing, rendered["png"]))
        return drawn
