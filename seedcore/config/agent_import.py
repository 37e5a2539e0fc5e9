"""Import agents by path, and check that they fit an organ.

An agent is a class or a function. A class is constructed once per agent as ``cls(agent_id, **options)``; it has a
method ``execute(task)`` and optionally ``start()``, ``check_health()`` and ``stop()``, each sync or async. A function
is called as ``fn(task, **options)``, sync or async, and keeps no state between tasks. ``task`` is a
:class:`seedcore.core.task.Task`. Either may be a generator, sync or async, which yields the result item by item.

Commands that check a configuration use this in their own process, an organ in its process.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from seedcore.core.errors import AgentStartError
from seedcore.core.task import describe

ALLOWED_PATH = "an import path 'package.module:name' of an agent class or function"
_OPTIONAL_METHODS = ("start", "check_health", "stop")
_BY_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_BY_POSITION = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an object cannot be an agent; ``option`` names the wrong option, if there is one."""

    text: str
    option: str | None = None


def is_agent_path(path: str) -> bool:
    """Return whether a text has the form ``package.module:name``."""
    module, colon, name = path.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))


def load_agent(path: str) -> object:
    """Import the object that ``path`` names.

    Raises:
        AgentStartError: The path is malformed, the module is missing or raises anything (SystemExit
            included), or the name is missing. The message is one line.
    """
    if not is_agent_path(path):
        raise AgentStartError(f"{path!r} is not {ALLOWED_PATH}")
    module_name, _, name = path.partition(":")
    # Python caches directory listings; this finds files that were written since.
    importlib.invalidate_caches()
    try:
        found: object = importlib.import_module(module_name)
    except BaseException as error:
        # Importing a module runs user code, which may raise anything; it must not end this process.
        if isinstance(error, ModuleNotFoundError) and _is_or_holds(error.name, module_name):
            raise AgentStartError(
                f"there is no module {error.name!r} in this Python environment", _traceback(error)
            ) from error
        raise AgentStartError(f"cannot import module {module_name!r}: {_one_line(error)}", _traceback(error)) from error
    for step in name.split("."):
        holder = found
        try:
            found = getattr(holder, step)
        except AttributeError as error:
            raise AgentStartError(f"module {module_name!r} has no {name!r}{_near(step, holder)}") from error
        except BaseException as error:
            # A module may compute its attributes, which runs user code again.
            raise AgentStartError(
                f"module {module_name!r} raised at the attribute {name!r}: {_one_line(error)}", _traceback(error)
            ) from error
    return found


def check_agent(agent: object, options: Mapping[str, Any]) -> str | None:
    """Return why an object cannot be an agent with these options, or None if it can."""
    return "; ".join(problem.text for problem in agent_problems(agent, options)) or None


def agent_problems(agent: object, options: Mapping[str, Any] | None) -> list[Problem]:
    """List every reason why ``agent`` cannot be an agent with these options (None: unknown options).

    Nothing is constructed or called.
    """
    if any(kind.__module__ in {"ray.actor", "ray.remote_function"} for kind in type(agent).__mro__):
        return [Problem("it is decorated with ray.remote, expected the plain class or function")]
    if inspect.isclass(agent):
        return [*_class_problems(agent), *_call_problems(agent, options, first="the agent id")]
    if callable(agent):
        return list(_call_problems(agent, options, first="the task"))
    return [Problem(f"it is of type {type(agent).__name__}, expected a class with a method 'execute' or a function")]


def _class_problems(agent: type) -> Iterable[Problem]:
    if inspect.isabstract(agent):
        missing = ", ".join(sorted(getattr(agent, "__abstractmethods__", ())))
        yield Problem(f"class {agent.__name__} is abstract, it does not implement {missing}")
        return
    execute = getattr(agent, "execute", None)
    if execute is None:
        yield Problem(f"class {agent.__name__} has no method 'execute(task)'")
    elif not callable(execute):
        yield Problem(f"'execute' of class {agent.__name__} is of type {type(execute).__name__}, expected a method")
    elif not _takes(agent, "execute", 1):
        yield Problem(f"'execute' of class {agent.__name__} must accept one argument, the task")
    for name in _OPTIONAL_METHODS:
        method = getattr(agent, name, None)
        if method is None:
            continue
        if not callable(method):
            yield Problem(f"{name!r} of class {agent.__name__} is of type {type(method).__name__}, expected a method")
        elif not _takes(agent, name, 0):
            yield Problem(f"{name!r} of class {agent.__name__} requires arguments, expected none")


def _call_problems(agent: Callable[..., Any], options: Mapping[str, Any] | None, *, first: str) -> Iterable[Problem]:
    signature = _signature(agent)
    if signature is None:
        return
    parameters = list(signature.parameters.values())
    name = getattr(agent, "__name__", type(agent).__name__)
    if not parameters or parameters[0].kind not in _BY_POSITION:
        yield Problem(f"{name} accepts no positional argument for {first}")
        taken = None
    else:
        taken = parameters[0] if parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL else None
    rest = {p.name: p for p in parameters if p is not taken}
    by_keyword = [p.name for p in rest.values() if p.kind in _BY_KEYWORD]
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in rest.values())
    for option in options or ():
        if taken is not None and option == taken.name and taken.kind in _BY_KEYWORD:
            yield Problem(f"option {option!r} of {name} is the parameter for {first} and cannot be set", option)
        elif option not in by_keyword and not anything:
            allowed = f"expected one of: {', '.join(by_keyword)}" if by_keyword else "expected no options"
            yield Problem(f"{name} does not accept the option {option!r}, {allowed}", option)
    for parameter in rest.values():
        if parameter.default is not inspect.Parameter.empty:
            continue
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            yield Problem(f"{name} requires a second positional argument {parameter.name!r}, expected options by name")
        elif parameter.kind in _BY_KEYWORD and options is not None and parameter.name not in options:
            yield Problem(f"{name} requires the option {parameter.name!r}, which is missing")


def _takes(agent: type, method: str, count: int) -> bool:
    """Return whether a method of an instance can be called with ``count`` positional arguments."""
    static = inspect.getattr_static(agent, method)
    bound_already = isinstance(static, staticmethod | classmethod)
    if not bound_already and not inspect.isfunction(static):
        return True  # a descriptor or a callable object: only a call would show it
    signature = _signature(getattr(agent, method))
    if signature is None:
        return True
    try:
        signature.bind(*range(count if bound_already else count + 1))
    except TypeError:
        return False
    return True


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        # Some callables in C have no signature; only a call shows what they accept.
        return None


def _is_or_holds(missing: str | None, module: str) -> bool:
    return missing is not None and (module == missing or module.startswith(f"{missing}."))


def _near(name: str, holder: object) -> str:
    public = [known for known in dir(holder) if not known.startswith("_")]
    close = difflib.get_close_matches(name, public, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _one_line(error: BaseException) -> str:
    text = describe(error).strip()
    kind = type(error).__name__
    return kind if text in {"", kind} else f"{kind}: {text.splitlines()[0]}"


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException:
        # Formatting calls the exception's __str__, which may be user code.
        return _one_line(error)
