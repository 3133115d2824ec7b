"""Markdown tables, and where they stand in a README."""

import re


def markdown(header: list[str], rows: list[list]) -> str:
    """
    >>> print(markdown(["a", "b"], [[1, 2]]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def renew(text: str, made: dict[str, str]) -> str:
    """Put each text between its marks, <!-- NAME --> and <!-- /NAME -->; other marks stay.

    >>> renew("<!-- a -->old<!-- /a --> <!-- b -->kept<!-- /b -->", {"a": "new"})
    '<!-- a -->\\nnew\\n<!-- /a --> <!-- b -->kept<!-- /b -->'
    """
    for mark, new in made.items():
        pattern = rf"(<!-- {re.escape(mark)} -->).*?(<!-- /{re.escape(mark)} -->)"
        # a function, since backslashes in a replacement string would be read as escapes
        text = re.sub(pattern, lambda m, new=new: f"{m[1]}\n{new}\n{m[2]}", text, flags=re.S)
    return text
