"""The audit line of each order: who has ordered what, and whether the scope of the token sufficed."""

from __future__ import annotations

import logging

from fastapi import Request, Response

from seedcore.coordinator.http.answers import as_json
from seedcore.coordinator.http.middleware import access_of, lacking
from seedcore.core.access import Scope
from seedcore.core.task import failure

logger = logging.getLogger(__name__)
_MAX_CHARS = 100


def refusal(request: Request, order: str, *, needed: Scope = Scope.OPERATE, **about: str) -> Response | None:
    """Write the audit line of an order; return the refusal if the scope of the token does not suffice.

    Args:
        request: The request.
        order: What is ordered.
        needed: The scope that it needs.
        about: What it is about; part of the line.
    """
    access = access_of(request.scope)
    details = "".join(f" {name}={value[:_MAX_CHARS]!r}" for name, value in about.items())
    if access.scope.covers(needed):
        logger.info("audit: token=%r order=%s%s", access.name, order, details)
        return None
    logger.warning("audit: refused: token=%r order=%s%s", access.name, order, details)
    return as_json(failure(lacking(access, needed), error_type="Forbidden", executed="no"), 403)
