"""Templates, and how figures, moments and names are written in them."""

import math
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote, urlencode

import jinja2
import markupsafe
from starlette.responses import HTMLResponse

import calidrift_agent
from calidrift_analyzer.records import JobState, Verdict
from calidrift_analyzer.service._advice import while_serving

__all__ = ["ask", "asset", "coded", "figure", "link", "percent", "render", "spoken", "when"]

ABSENT: Final = "\N{EM DASH}"
_ASSETS: Final = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_SIGNS: Final = {
    Verdict.DRIFTED_HARMFUL: ("bad", "\N{BLACK UP-POINTING TRIANGLE}"),
    Verdict.DRIFTED_HARMLESS: ("odd", "\N{WHITE UP-POINTING TRIANGLE}"),
    Verdict.NOT_DRIFTED: ("good", "\N{CHECK MARK}"),
    Verdict.LEARNING: ("calm", "\N{HORIZONTAL ELLIPSIS}"),
    Verdict.NO_REFERENCE: ("calm", "?"),
    Verdict.NO_DATA: ("calm", "\N{EMPTY SET}"),
    Verdict.BLIND: ("odd", "\N{MULTIPLICATION SIGN}"),
}
_STATES: Final = {
    JobState.PROMOTED: "good",
    JobState.CONFIRMED: "good",
    JobState.REFUSED: "odd",
    JobState.FAILED: "bad",
    JobState.AWAITING_APPROVAL: "odd",
}
_LARGE: Final = 1e6
_SMALL: Final = 1e-3


def figure(value: float | None, digits: int = 3, unit: str = "") -> str:
    """Write a figure with some significant digits; absence is a dash.

    >>> figure(3.14159, 3, "dB"), figure(None), figure(0.0), figure(1.5e-9)
    ('3.14 dB', '—', '0', '1.5e-09')
    """
    if value is None or not math.isfinite(value):
        return ABSENT
    large = abs(value) >= _LARGE or 0 < abs(value) < _SMALL
    text = f"{value:.{digits}g}" if large or not value else _plain(value, digits)
    return text.replace("-", "\N{MINUS SIGN}", 1 if value < 0 else 0) + (f" {unit}" if unit else "")


def percent(value: float | None) -> str:
    """Write a share; only what is all or nothing is 100 % or 0 %.

    >>> percent(0.123), percent(0.99999), percent(1.0), percent(0.00001), percent(None)
    ('12.3 %', '>99.9 %', '100 %', '<0.1 %', '—')
    """
    if value is None or not math.isfinite(value):
        return ABSENT
    if value in (0.0, 1.0):
        return f"{value * 100:.0f} %"
    if 1.0 > value > 0.9995:
        return ">99.9 %"
    return "<0.1 %" if 0.0 < value < 0.0005 else f"{value * 100:.1f} %"


def when(value: datetime | int | None) -> str:
    """Write a moment in UTC; a number is in nanoseconds.

    >>> when(1_800_000_000_000_000_000), when(None)
    ('2027-01-15 08:00 UTC', '—')
    """
    if isinstance(value, int):
        value = datetime.fromtimestamp(value / 1e9, UTC) if value else None
    return ABSENT if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def spoken(word: object) -> str:
    """Write a word of a closed list for people.

    >>> spoken(Verdict.NOT_DRIFTED)
    'not drifted'
    """
    return str(word).replace("_", " ")


def link(*parts: object) -> str:
    """Give the path of a page, with names quoted.

    >>> link("models", "a/b", "points", "c:d?")
    '/models/a%2Fb/points/c%3Ad%3F'
    """
    return "".join(f"/{quote(str(part), safe='')}" for part in parts)


def coded(text: str) -> markupsafe.Markup:
    """Set what stands between backticks as code.

    >>> coded("run `calidrift serve` <now>")
    Markup('run <code>calidrift serve</code> &lt;now&gt;')
    """
    parts = [markupsafe.escape(part) for part in text.split("`")]
    if len(parts) % 2 == 0:
        return markupsafe.escape(text)
    code = markupsafe.Markup("<code>{}</code>")
    return markupsafe.Markup("").join(
        code.format(part) if place % 2 else part for place, part in enumerate(parts)
    )


def ask(what: str, **about: str) -> str:
    """Give the path of a page that asks again, with what it is about.

    >>> ask("mute", model="a/b", point="layer4.*")
    '/mute?model=a%2Fb&point=layer4.%2A'
    """
    return f"/{what}?{urlencode(about)}"


def asset(name: str) -> tuple[bytes, str] | None:
    """Give a file that pages load, and its type; `None` where there is none of the name."""
    return (_content(name), _ASSETS[name]) if name in _ASSETS else None


def render(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Fill a template."""
    return HTMLResponse(_environment().get_template(template).render(**values), status)


def _plain(value: float, digits: int) -> str:
    after = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{after}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _sign(verdict: Verdict | None) -> tuple[str, str]:
    return ("calm", "?") if verdict is None else _SIGNS[verdict]


def _state_class(state: JobState) -> str:
    return _STATES.get(state, "calm")


@cache
def _content(name: str) -> bytes:
    return (files(__package__) / "assets" / name).read_bytes()


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        figure=figure,
        percent=percent,
        when=when,
        spoken=spoken,
        coded=coded,
        advised=while_serving,
        sign=_sign,
        tone=_state_class,
    )
    environment.globals.update(link=link, ask=ask, version=calidrift_agent.__version__)
    return environment
