"""Versions in and out of service: written beside, verified, switched by one rename.

`stage`, `complete` and `withdraw` do it in two moves: canaries serve a version first.

What serves can be published at a URL, from which processes on other machines take it.
"""

from calidrift_analyzer.promote._adopt import adopt
from calidrift_analyzer.promote._canary import complete, stage, withdraw
from calidrift_analyzer.promote._profile_only import promote_profile
from calidrift_analyzer.promote._promote import promote, rollback
from calidrift_analyzer.promote._publish import Publication, publication, publish
from calidrift_analyzer.promote._steps import promoted_version

__all__ = [
    "Publication",
    "adopt",
    "complete",
    "promote",
    "promote_profile",
    "promoted_version",
    "publication",
    "publish",
    "rollback",
    "stage",
    "withdraw",
]
