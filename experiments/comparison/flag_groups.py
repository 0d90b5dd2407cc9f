"""The tokens of a command line, grouped by flag."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["by_flag"]


def by_flag(tokens: Sequence[str], where: str) -> dict[str, tuple[str, ...]]:
    """Groups the tokens of a command line by flag.

    Args:
        tokens: such as ["--batch-size=8", "--tta-scales", "0.75", "1.0"].
        where: what errors say of them.

    Returns:
        Tokens by name; the name of "--no-x" is "x", and "--a=b" becomes "--a", "b".

    Raises:
        ValueError: a value has no flag, or a flag is there twice.
    """
    groups: dict[str, tuple[str, ...]] = {}
    name = None
    for token in tokens:
        if not isinstance(token, str):
            raise ValueError(f"{where}: {token!r} is no string; put it into quotation marks")
        if token.startswith("--"):
            flag, equals, value = token.partition("=")
            flag = flag.replace("_", "-")
            name = flag.removeprefix("--").removeprefix("no-")
            if name in groups:
                raise ValueError(f"{where}: --{name} is there twice")
            groups[name] = (flag, value) if equals else (flag,)
        elif name is None:
            raise ValueError(f"{where}: {token!r} belongs to no flag; flags begin with --")
        else:
            groups[name] += (token,)
    return groups
