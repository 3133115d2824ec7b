"""Run notebooks from top to bottom and keep their outputs: small, without bars, paths and times.

python -m notebooks.run          # all of them
python -m notebooks.run 03 07    # some
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from support.files import write

FOLDER = Path(__file__).parent
LARGEST = 300_000  # bytes of a notebook


def executed(notebook):
    """The notebook with the outputs of a fresh kernel. Raises where a cell does."""
    kernel = {"metadata": {"path": str(FOLDER)}}
    NotebookClient(notebook, timeout=1800, resources=kernel, record_timing=False).execute()
    return notebook


def cleaned(notebook):
    """Without what is different on the next machine: stderr, where bars are, and its folder."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
            cell.outputs = [nbformat.from_dict(without_paths(out)) for out in outputs]
    language = notebook.metadata.get("language_info", {}).get("name", "python")
    notebook.metadata["language_info"] = {"name": language}
    return notebook


def without_paths(output):
    if isinstance(output, dict):
        return {key: without_paths(value) for key, value in output.items()}
    if isinstance(output, list):
        return [without_paths(value) for value in output]
    return output.replace(f"{FOLDER.parent}/", "") if isinstance(output, str) else output


def main(names: list[str]) -> None:
    chosen = [
        path
        for path in sorted(FOLDER.glob("[0-9]*.ipynb"))
        if not names or path.name.startswith(tuple(names))
    ]
    if not chosen:
        sys.exit(f"error: no notebook begins with {' or '.join(names)}")
    for path in chosen:
        print(path.name, flush=True)
        text = nbformat.writes(cleaned(executed(nbformat.read(path, 4)))) + "\n"
        if len(text) > LARGEST:
            sys.exit(f"error: {path.name} would be {len(text)} bytes, over {LARGEST}")
        write(path, text)


if __name__ == "__main__":
    main(sys.argv[1:])
