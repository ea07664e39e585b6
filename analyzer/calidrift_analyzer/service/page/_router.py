"""All pages as one router."""

from fastapi import APIRouter

from calidrift_analyzer.service.page._changes import change_router
from calidrift_analyzer.service.page._pages import show_router
from calidrift_analyzer.service.page._switches import switch_router

__all__ = ["page_router"]

page_router = APIRouter(include_in_schema=False)
page_router.include_router(change_router)
page_router.include_router(switch_router)
page_router.include_router(show_router)
