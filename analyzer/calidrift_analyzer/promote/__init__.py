"""Versions in and out of service: written beside, verified, switched by one rename."""

from calidrift_analyzer.promote._profile_only import promote_profile
from calidrift_analyzer.promote._promote import promote, rollback

__all__ = ["promote", "promote_profile", "rollback"]
