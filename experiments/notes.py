"""What is said of many inputs, once."""

from __future__ import annotations

from tqdm import tqdm

__all__ = ["Notes"]


class Notes:
    """Says what a user should know of an input when it first occurs, then only counts it."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def say(self, name: str, text: str) -> None:
        """Prints a note on an input, unless another input had the same."""
        names = self._names.setdefault(text, [])
        if not names:
            tqdm.write(f"{name}: {text}")
        names.append(name)

    def finish(self) -> None:
        """Prints how many inputs had the notes of which only the first was printed."""
        for text, names in self._names.items():
            if len(names) > 1:
                print(f"{len(names)} inputs, {names[0]} to {names[-1]}: {text}")
