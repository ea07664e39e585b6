"""A service in every state that pages can show, and a reader of its pages."""

import json
import time
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from types import SimpleNamespace
from urllib.parse import urlencode

import numpy as np
import pytest

from calidrift_agent._capture._file import CaptureRow, encode_capture, points_digest
from calidrift_agent._registry import Pointer, VersionLayout
from calidrift_analyzer.records import JobState, Marker, Mute, VersionRow

HERE = "http://127.0.0.1"
HOSTILE = '<script>alert("x")</script>\'&/?#%'
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}
REPORT = {
    "model": "net",
    "candidate": {"id": "samples-mse", "estimator": "mse", "source": "samples", "path": "/gone"},
    "labelled": False,
    "gates": [
        {"name": "agreement", "passed": True, "measured": 0.99, "required": 0.98,
         "sentence": "agrees with FP32 on 99 %"},
        {"name": "kernels", "passed": False, "measured": None, "required": 3.0,
         "sentence": f"a kernel is missing in {HOSTILE}"},
    ],
    "scores": [{"id": "samples-mse", "metric": 0.99, "sqnr_db": 30.5, "bulk_sqnr_db": None}],
    "accuracy": {
        "int8": {"estimate": 0.9, "low": 0.85, "high": 0.95},
        "fp32": {"estimate": 0.91, "low": 0.86, "high": 0.96},
        "difference": {"estimate": -0.01, "low": -0.02, "high": 0.0},
        "segments": [{"name": "night", "samples": 40, "fp32": 0.9, "int8": 0.8}],
    },
    "agreement": 0.99,
    "sqnr_db": 30.5,
    "bulk_sqnr_db": 35.0,
    "sizes": {"int8_file_bytes": 1_234_567, "fp32_file_bytes": 4_567_890},
    "kernels": {"layers": [{"name": "conv", "kind": "convolution", "planned": 1, "found": 0}]},
    "coverage": {"ratio": 0.98, "lower": 0.95},
    "latency": {"int8_ms": 1.5, "fp32_ms": 3.0},
}  # fmt: skip


class Reader(HTMLParser):
    """Reads a page, and complains about what is not well-formed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict]] = []
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        assert len(found) == len(attributes), f"an attribute of {tag} is given twice"
        self.tags.append((tag, found))
        if tag not in VOID:
            self.open.append((tag, found))

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        last, _ = self.open.pop()
        assert last == tag, f"</{tag}> closes <{last}>"

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict]:
        return [found for name, found in self.tags if name == tag]

    def field(self, name: str) -> str:
        return next(one["value"] for one in self.all("input") if one.get("name") == name)


def read(answer, status=200) -> Reader:
    """Read a page and check what all of them promise."""
    assert answer.status_code == status, answer.text[-800:]
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = Reader(answer.text)
    assert [tag for tag, _ in page.tags].count("h1") == 1
    assert [tag for tag, _ in page.tags].count("main") == 1
    heads = [int(tag[1]) for tag, _ in page.tags if tag in {"h1", "h2", "h3", "h4"}]
    assert heads[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(heads))
    assert all(one.get("scope") in {"col", "row"} for one in page.all("th"))
    assert all(one.get("role") == "img" for one in page.all("svg"))
    assert all({"aria-label", "aria-labelledby"} & set(one) for one in page.all("svg"))
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert len(ids) == len(set(ids))
    for _, found in page.tags:
        assert "style" not in found
        assert not [name for name in found if name.startswith("on")]
        for name in found.get("aria-labelledby", "").split():
            assert name in ids
    for one in page.all("script"):
        assert one["src"].startswith("/assets/")
    return page


def post(site, path, fields=None, *, origin=HERE, **headers):
    told = {"content-type": "application/x-www-form-urlencoded", **headers}
    if origin is not None:
        told["origin"] = origin
    return site.http.post(
        path, content=urlencode(fields or {}), headers=told, follow_redirects=False
    )


def decide(site, path, **fields):
    """Open the page that asks again, and send its form."""
    asked = read(site.http.get(path))
    body = {"form_token": asked.field("form_token"), **fields}
    target = path.partition("?")[0]
    assert target in [one["action"] for one in asked.all("form")], "the form goes elsewhere"
    return post(site, target, body)


@pytest.fixture
def pages():
    """What tests read and send pages with."""

    return SimpleNamespace(
        read=read, post=post, decide=decide, hostile=HOSTILE, report=REPORT, here=HERE
    )


@pytest.fixture
def drifted(site, traffic, tmp_path):
    """A service whose model `net` drifted, with a mute and a marker beside it.

    Its alarm has ordered job 1, which has run up to where it awaits an approval.
    """
    site.stages.run = telling(site.stages.run, tmp_path / "one.safetensors")
    site.meta, site.profile, site.windows = site.record(traffic)
    site.service.tasks.assess()
    site.wait("awaiting_approval")
    now = time.time_ns()
    mute = Mute(
        model="net",
        point="b:*",
        created_ns=now,
        until_ns=now + 10**13,
        reason="known",
        author="eve",
    )
    marker = Marker(model="net", at_ns=now - 60 * 10**9, text="a new client", author="eve")
    site.run(lambda store: (store.annotations.mute(mute), store.annotations.mark(marker)))
    return site


def telling(run, path):
    """Stages that select a captured request and measure something."""
    points = ("a:input", "b:input")
    row = CaptureRow(
        inputs={"x": np.zeros((1, 3, 8, 8), np.float32)},
        maxima=np.ones(2, np.float32),
        uncovered=True,
        time_ns=1_800_000_000 * 10**9,
        segment="night",
    )
    header = {
        "id": "1" * 32,
        "kind": "uncovered",
        "model": "net",
        "profile": "",
        "points": json.dumps(points),
        "points_digest": points_digest(points),
    }
    path.write_bytes(encode_capture(row, row.inputs, header))
    candidate = {**REPORT["candidate"], "path": str(path.parent / "candidate")}
    documents = {
        JobState.RECALIBRATING: {
            "samples": [str(path), "/gone/two.safetensors"],
            "selection": SELECTION,
        },
        JobState.AWAITING_APPROVAL: {"report": {**REPORT, "candidate": candidate}},
    }

    def tell(work):
        result = run(work)
        return replace(result, document=documents.get(result.state, result.document))

    return tell


SELECTION = {
    "ids": ["one", "two"],
    "picked_by": ["range", "random"],
    "by_segment": {"night": 1, "": 1},
    "certificate": 0.97,
    "uncovered": 12,
    "suspicious": [{"id": "odd", "reason": "alone", "point": "a:input", "maximum": 99.5}],
}


@pytest.fixture
def promoted(drifted):
    """The same with two versions in the registry, the second of which serves."""
    layout = VersionLayout(drifted.config.models["net"].registry, "net")
    drifted.versions = ["000001-" + "a" * 16, "000002-" + "b" * 16]
    for identity in drifted.versions:
        layout.version(identity).mkdir(parents=True)
    layout.pointer.write_text(Pointer(drifted.versions[1], "b" * 64).to_json(), encoding="utf-8")
    rows = [
        VersionRow(
            model="net", version=one, action="promoted", created_ns=1, profile="", document="{}"
        )
        for one in drifted.versions
    ]
    drifted.run(lambda store: [store.outcomes.record_version(row) for row in rows])
    return drifted
