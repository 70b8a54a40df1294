"""Puts a table that a program writes between its two marks in a page."""

END = "<!-- end -->\n"


def page_with(text, begin, new, end=END):
    """Return a page's text with `new` between the marks `begin` and `end`."""
    before, rest = text.split(begin)
    return before + begin + new + end + rest.split(end, 1)[1]


def page_with_rows(text, begin, table, names=None, end=END):
    """Return a page's text with the rows of `table` in the place of those that have the same first
    column; other rows stay, unless the table's head is another. `names` are the first columns that
    may stand there, in order; without them new rows go to the end."""
    head, found = table.splitlines(keepends=True)[:2], dict[str, list[str]]()
    for part in (text.split(begin)[1].split(end, 1)[0], table):
        first, *lines = part.splitlines(keepends=True) or [""]
        rows = dict[str, list[str]]()
        for line in lines[1:] if first == head[0] else ():
            rows.setdefault(line.split("|")[1].strip(), []).append(line)
        found |= rows
    lines = [line for name in names or found for line in found.get(name, ())]
    return page_with(text, begin, "".join([*head, *lines]), end)
