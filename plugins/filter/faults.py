# SPDX-License-Identifier: Apache-2.0
"""Filters that return everything that is wrong with a set of variables, one line per fault."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

LOWEST = 1024
HIGHEST = 65535
_NO_FLAGS = ("y", "n", "t", "f")


def argument_faults(values: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the types and choices of ``values`` under the ``options`` of an argument spec."""
    spec = {name: {**option, "required": False} for name, option in options.items() if name in values}
    # The validator makes deep copies, and Ansible attaches all variables of the play to a value: that takes seconds.
    known = {name: _plain(value) for name, value in values.items() if name in spec}
    # Ansible's validation accepts these, but its filter "bool" does not.
    short = [
        f"{name} is {value!r}: give true or false"
        for name, value in known.items()
        if spec[name].get("type") == "bool" and isinstance(value, str) and value.lower() in _NO_FLAGS
    ]
    # As a limit, nan and inf allow everything, and they pass every check of a minimum.
    endless = [name for name, value in known.items() if spec[name].get("type") == "float" and _is_endless(value)]
    finite = [f"{name} is {known.pop(name)}: give a finite number" for name in endless]
    return short + finite + [str(message) for message in ArgumentSpecValidator(spec).validate(known).error_messages]


def _is_endless(value: Any) -> bool:
    try:
        return not math.isfinite(float(value))
    except OverflowError:
        return True
    except (TypeError, ValueError):
        return False


def _plain(value: Any) -> Any:
    """Return a value without Ansible's attachments."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, str) else value


def port_faults(ports: Mapping[str, Any], first: Any, last: Any) -> list[str]:
    """Return what is wrong with the fixed ``ports`` (variable: port) and the worker ports ``first`` to ``last``."""
    faults = []
    valid: dict[str, int] = {}
    for name, value in {**ports, "ray_min_worker_port": first, "ray_max_worker_port": last}.items():
        text = str(value)
        if text.isascii() and text.isdigit() and LOWEST <= int(text) <= HIGHEST:
            valid[name] = int(text)
        else:
            faults.append(f"{name} is {value!r}: give a port from {LOWEST} to {HIGHEST}")
    low, high = valid.pop("ray_min_worker_port", None), valid.pop("ray_max_worker_port", None)
    if low is not None and high is not None and low > high:
        faults.append(f"ray_min_worker_port {low} is above ray_max_worker_port {high}: exchange them")
    names: dict[int, list[str]] = {}
    for name, port in valid.items():
        names.setdefault(port, []).append(name)
        if low is not None and high is not None and low <= port <= high:
            faults.append(f"{name} {port} lies among the worker ports {low}-{high}: give it a port outside of them")
    for port, same in names.items():
        if len(same) > 1:
            faults.append(f"{' and '.join(sorted(same))} are both {port}: give each a port of its own")
    return faults


def no_networks(entries: Iterable[Any]) -> list[str]:
    """Return the values that are neither an address nor a network; host bits in a network are an error."""
    wrong = []
    for entry in entries:
        try:
            ipaddress.ip_network(str(entry))
        except ValueError:
            wrong.append(str(entry))
    return wrong


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """Return them by name."""
        return {"argument_faults": argument_faults, "no_networks": no_networks, "port_faults": port_faults}
