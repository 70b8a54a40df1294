"""Puts a table that a program writes between its two marks in a page."""


def page_with(text, begin, new, end="<!-- end -->\n"):
    """Return a page's text with `new` between the marks `begin` and `end`."""
    before, rest = text.split(begin)
    return before + begin + new + end + rest.split(end, 1)[1]
