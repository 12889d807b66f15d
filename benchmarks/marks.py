"""Replace what a program measured in a page of the documentation, between two marks."""

from pathlib import Path

from manifests import UsageError


def replace_between(page: Path, mark: str, text: str) -> None:
    """Put `text` between `<!-- mark -->` and `<!-- /mark -->` of a Markdown page.

    Raises:
        UsageError: The page has not exactly one such pair of marks.
    """
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    content = page.read_text(encoding="utf-8")
    before, found, rest = content.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed) or content.count(begin) != 1 or content.count(end) != 1:
        raise UsageError(f"the page must hold {begin} and {end} once each ({str(page)!r})")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
