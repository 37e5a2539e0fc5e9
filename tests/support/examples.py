"""How many examples a test of properties has."""

from __future__ import annotations

from hypothesis import settings


def examples(most: int) -> int:
    """Return ``most``, or what the profile ``quick`` allows: for tests that do not take hypothesis's own number."""
    quick = settings.get_current_profile_name() == "quick"
    return min(most, settings.get_profile("quick").max_examples) if quick else most
