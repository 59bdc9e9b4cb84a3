from __future__ import annotations

import platform

from .base import Peer


class Limit(Peer):
    """No package: the least work that the case could be done with. Cases say what that is."""

    name = "limit"

    def can(self, verb: str) -> bool:
        del verb
        return True

    def version(self) -> str:
        return platform.release()
