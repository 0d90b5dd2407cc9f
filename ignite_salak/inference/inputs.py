"""Files and folders given by a user -> pictures and the names of what is made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ignite_salak.data.patches import IMAGE_SUFFIXES

__all__ = ["find_pictures"]

_NO_PICTURES = "masks"


def find_pictures(inputs: Sequence[Path], output: Path) -> dict[str, Path]:
    """Lists pictures, and names them so that no two are written to the same file.

    Folders are searched with all that is below them, except hidden folders, folders called
    ``masks``, and the output folder.

    Args:
        inputs: files, taken whatever their suffix, and folders.
        output: folder of the results.

    Returns:
        Path of every picture, once, by its name: the path without suffix, relative to the folder
        that was given, with POSIX separators; for a file, its stem. Of several folders, each one's
        own name comes first. In order of the inputs and, within a folder, of the names.

    Raises:
        FileNotFoundError: an input does not exist, or a folder holds no picture.
        ValueError: no input, or two pictures would have one name.
    """
    if not inputs:
        raise ValueError("INPUT is missing: give photos, GeoTIFFs or folders of them")
    several = sum(path.is_dir() for path in inputs) > 1
    found: dict[str, Path] = {}
    seen: dict[str, Path] = {}
    known: set[Path] = set()
    for given in inputs:
        if not given.exists():
            raise FileNotFoundError(f"INPUT {given} does not exist")
        prefix = Path(given.resolve().name) if several and given.is_dir() else Path()
        pictures = sorted(_below(given, output.resolve())) if given.is_dir() else [given]
        if not pictures:
            raise FileNotFoundError(
                f"INPUT {given} holds no picture ({', '.join(IMAGE_SUFFIXES)}) outside of folders "
                f"called {_NO_PICTURES}"
            )
        for path in pictures:
            if path.resolve() in known:
                continue
            known.add(path.resolve())
            relative = path.relative_to(given) if given.is_dir() else Path(path.name)
            name = (prefix / relative).with_suffix("").as_posix()
            other = seen.setdefault(name.lower(), path)  # Windows does not tell a from A
            if other is not path:
                raise ValueError(
                    f"{other} and {path} would both be written as {name}: rename one, give a "
                    "folder above both, or map them into different --output folders"
                )
            found[name] = path
    return found


def _below(folder: Path, output: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir():
            hidden = path.name.startswith(".") or path.name.lower() == _NO_PICTURES
            if not hidden and path.resolve() != output:
                yield from _below(path, output)
        elif path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            yield path
