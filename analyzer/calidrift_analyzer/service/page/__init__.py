"""What people look at: server-rendered pages that need neither a script nor another site."""

from calidrift_analyzer.service.page._router import page_router

__all__ = ["page_router"]
