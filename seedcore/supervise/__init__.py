"""The supervisor: watches the Coordinator from outside and mends what Ray does not see.

Ray restarts a process that died. It calls an actor ALIVE that hangs, or whose node is dead, and it forgets one when
the GCS loses its state. ``seedcore supervise`` runs on the head, without Ray in its process, and acts only on a
Coordinator that somebody wanted to run (``desired.py``) and that neither answers nor makes progress.
"""

from __future__ import annotations

from seedcore.supervise.judge import Policy
from seedcore.supervise.service import Supervisor

__all__ = ["Policy", "Supervisor"]
