"""Limit the number of examples of a property test."""

from __future__ import annotations

from hypothesis import settings


def examples(most: int) -> int:
    """Return ``most``, or fewer in the profile ``quick``; for tests that set their own number of examples."""
    quick = settings.get_current_profile_name() == "quick"
    return min(most, settings.get_profile("quick").max_examples) if quick else most
