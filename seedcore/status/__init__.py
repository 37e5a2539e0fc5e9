"""Determine the present state of a deployment. Nothing here imports Ray."""

from __future__ import annotations

from seedcore.status.probing import probe, wait
from seedcore.status.report import Report

__all__ = ["Report", "probe", "wait"]
