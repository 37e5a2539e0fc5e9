"""Choose the organ for a task: by (type, domain) first, then by type alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from seedcore.core.errors import UnknownTaskTypeError
from seedcore.core.spec import OrganSpec


class RoutingTable:
    """The routes of an organism, built from its specs, which the configuration check keeps unambiguous."""

    def __init__(self, organs: Iterable[OrganSpec]) -> None:
        self._by_type: dict[str, str] = {}
        self._by_domain: dict[tuple[str, str], str] = {}
        for organ in organs:
            for kind in organ.task_types:
                self._by_type.setdefault(kind, organ.id)
            for domain, kinds in organ.domains.items():
                for kind in kinds:
                    self._by_domain.setdefault((kind, domain), organ.id)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RoutingTable:
        """Build it from the result of :meth:`to_dict`."""
        table = cls(())
        table._by_type = dict(data["by_type"])
        table._by_domain = {
            (kind, domain): organ_id for domain, kinds in data["by_domain"].items() for kind, organ_id in kinds.items()
        }
        return table

    @property
    def known_types(self) -> list[str]:
        """Return all task types that some organ accepts, sorted."""
        return sorted({*self._by_type, *(kind for kind, _ in self._by_domain)})

    def route(self, kind: str, domain: str | None) -> str:
        """Return the id of the organ for a task type and domain (both normalised).

        Raises:
            UnknownTaskTypeError: No organ accepts it; the message lists the known types.
        """
        if domain is not None and (organ_id := self._by_domain.get((kind, domain))) is not None:
            return organ_id
        if (organ_id := self._by_type.get(kind)) is not None:
            return organ_id
        domains = sorted(name for known, name in self._by_domain if known == kind)
        if domains:
            raise UnknownTaskTypeError(
                f"task type {kind!r} exists only in the domains {', '.join(domains)}, got {domain or 'no domain'}"
            )
        raise UnknownTaskTypeError(
            f"no organ accepts task type {kind!r}, known types are: {', '.join(self.known_types) or 'none'}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the whole table, for ``get_routing_debug``."""
        domains: dict[str, dict[str, str]] = {}
        for (kind, domain), organ_id in sorted(self._by_domain.items()):
            domains.setdefault(domain, {})[kind] = organ_id
        return {"by_type": dict(sorted(self._by_type.items())), "by_domain": domains}
