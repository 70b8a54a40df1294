"""Renders chat templates as a process: a line of JSON in, a line of JSON out, within bounds.

It is a program of its own and imports nothing of the project. Filters, functions and extensions are
those that transformers gives a template.
"""

from __future__ import annotations

import json
import signal
import sys
from datetime import datetime
from typing import Any, NoReturn

SECONDS, MIB, CHARACTERS = 5, 512, 1 << 24
TOO_DEEP = "it is nested too deeply, or calls itself without end"


def main() -> None:
    """Answer until the input ends."""
    sys.path[:] = json.loads(sys.argv[1])  # the parent's: -I leaves out its environment's
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    _limit_memory()
    for line in sys.stdin.buffer:
        signal.alarm(SECONDS)  # whose default is to end the process, inside any call
        answer = _answer(line)
        signal.alarm(0)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _limit_memory() -> None:
    try:
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (MIB << 20, MIB << 20))
    except (ImportError, OSError, ValueError):  # a system without this limit; time is bounded
        pass


def _answer(line: bytes) -> dict[str, str]:
    try:
        request = json.loads(line)
        return {"text": _render(request["source"], request["values"])}
    except MemoryError:
        return {"error": f"it needs more than {MIB} MiB"}
    except RecursionError:
        return {"error": TOO_DEEP}
    except ImportError as error:
        return {"error": f"{error}; install it with: pip install jinja2"}
    except Exception as error:  # a template is a program: it may fail in any way
        return {"error": str(error)[:1000] or type(error).__name__}


def _render(source: str, values: dict[str, Any]) -> str:
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """Takes `{% generation %}`, which marks what to train on, as a block of its own scope."""

        tags = frozenset(("generation",))  # type: ignore[assignment]

        def parse(self, parser: Any) -> Any:  # noqa: ANN401 - jinja2's
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            shown = self.call_method("shown")
            return nodes.CallBlock(shown, [], [], body).set_lineno(line)

        def shown(self, caller: Any) -> Any:  # noqa: ANN401 - jinja2's
            """Return the text of the block."""
            return caller()

    class Names(Namespace):
        """Holds `namespace(...)`, without names that begin with an underscore."""

        def __init__(*args: Any, **named: Any) -> None:  # noqa: ANN401 - a template's; self is one
            values = dict(*args[1:], **named)
            for name in values:
                _check_name(name)
            Namespace.__init__(args[0], values)

        def __setitem__(self, name: str, value: Any) -> None:  # noqa: ANN401 - a template's
            _check_name(name)
            super().__setitem__(name, value)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                extensions=[loopcontrols, Generation])
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=_reject, strftime_now=_now, dict=_Dict(),
                               namespace=Names)
    parts, left = [], CHARACTERS
    for part in environment.from_string(source).generate(values):
        left -= len(part)
        if left < 0:
            raise ValueError(f"it writes more than {CHARACTERS} characters")
        parts.append(part)
    return "".join(parts)


class _Dict:
    """Is `dict` to a template: a call or `fromkeys` makes one, and nothing else can be reached."""

    def __call__(self, *args: Any, **named: Any) -> dict[Any, Any]:  # noqa: ANN401 - a template's
        return dict(*args, **named)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:  # noqa: ANN401 - a template's
        """Return a dict with these keys and one value."""
        return dict.fromkeys(*args)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise ValueError(f"a namespace holds no name that begins with an underscore: {name!r}")


def _to_json(value: object, ensure_ascii: bool = False, indent: int | str | None = None,
             separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:
    """Write JSON as transformers does: without the HTML escapes of Jinja's own filter."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _reject(message: str) -> NoReturn:
    raise ValueError(message)


if __name__ == "__main__":
    main()
