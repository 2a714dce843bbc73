"""Did you mean: the word a person probably meant, among those that exist."""

from collections.abc import Iterable


def closest(word: str, among: Iterable[str]) -> str:
    """Return the word of `among` that looks most like `word`, or the empty string when none does."""
    import difflib  # here: it is needed on errors only, and `atoll --help` must start fast

    names = {name.lower(): name for name in among}
    found = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    return names[found[0]] if found else ""


def hint(word: str, among: Iterable[str], otherwise: str = "") -> str:
    """Return `did you mean 'memory'?`, or `otherwise` when nothing looks like `word`."""
    found = closest(word, among)
    return f"did you mean {found!r}?" if found else otherwise
