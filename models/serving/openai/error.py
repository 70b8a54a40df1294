"""BodyError: says which field of a body cannot be used."""

from __future__ import annotations

from core.errors import OptionError


class BodyError(OptionError):
    """A body has a field that cannot be used.

    param  the field
    code   OpenAI's word for what is wrong, such as `unsupported_parameter`
    """

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param, self.code = param, code
