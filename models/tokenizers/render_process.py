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
        return {"error": "it is nested too deeply, or calls itself without end"}
    except ImportError as error:
        return {"error": f"{error}; install it with: pip install jinja2"}
    except Exception as error:  # a template is a program: it may fail in any way
        return {"error": str(error)[:1000] or type(error).__name__}


def _render(source: str, values: dict[str, Any]) -> str:
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """Takes `{% generation %}`, which marks what to train on, as a plain block."""

        tags = frozenset(("generation",))  # type: ignore[assignment]

        def parse(self, parser: Any) -> Any:  # noqa: ANN401 - jinja2's
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                extensions=[loopcontrols, Generation])
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=_reject, strftime_now=_now)
    parts, left = [], CHARACTERS
    for part in environment.from_string(source).generate(**values):
        left -= len(part)
        if left < 0:
            raise ValueError(f"it writes more than {CHARACTERS} characters")
        parts.append(part)
    return "".join(parts)


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
