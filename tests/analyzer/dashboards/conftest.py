"""A strict stand-in for Grafana, written from the documented contract of its `/api`.

It is stricter than Grafana where that finds mistakes: it refuses fields that it does not know.
"""

import json
import re
import socket
import threading
import time
from collections import deque

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

ADMIN, EDITOR, VIEWER = "glsa_admin_0123", "glsa_editor_0123", "glsa_viewer_0123"
UID = re.compile(r"[A-Za-z0-9_-]{1,40}")
DURATION = re.compile(r"(0s|(\d+d)?(\d+h)?(\d+m)?(\d+s)?)")
DASHBOARD_KEYS = {
    *("annotations", "description", "editable", "fiscalYearStartMonth", "gnetId", "graphTooltip"),
    *("id", "links", "liveNow", "panels", "preload", "refresh", "revision", "schemaVersion"),
    *("snapshot", "tags", "templating", "time", "timepicker", "timezone", "title", "uid"),
    *("version", "weekStart"),
}
RULE_NEEDS = {
    *("orgID", "folderUID", "ruleGroup", "title", "condition", "data", "noDataState"),
    *("execErrState", "for"),
}
RULE_KEYS = RULE_NEEDS | {
    *("id", "uid", "annotations", "labels", "isPaused", "notification_settings", "updated"),
    *("provenance", "record", "keep_firing_for"),
}
QUERY_KEYS = {"refId", "queryType", "relativeTimeRange", "datasourceUid", "model"}


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, code, message, **more):
        super().__init__(message)
        self.code, self.body = code, {"message": message, **more}


class StandIn:
    """What this Grafana has, and the trouble that it makes."""

    refusal = Refusal

    def __init__(self):
        self.reset()

    def reset(self):
        self.folders, self.dashboards, self.groups = {}, {}, {}
        self.receivers = ["grafana-default-email", "on-call"]
        self.datasources = {"prometheus", "prom-eu"}
        self.trouble = deque()
        self.calls, self.tokens = [], set()
        self.version = "12.3.1"
        self.before_save = lambda: None

    @property
    def writes(self):
        return [call for call in self.calls if not call.startswith("GET")]

    def stumble(self, *statuses):
        """Answer the next requests by these statuses, or with these bodies."""
        self.trouble.extend(statuses)

    # Folders

    def get_folder(self, uid):
        if uid not in self.folders:
            raise Refusal(404, "folder not found", status="not-found")
        return self.folders[uid]

    def add_folder(self, body):
        only(body, {"uid", "title", "parentUid", "description"})
        uid = body.get("uid", "")
        if not UID.fullmatch(uid):
            raise Refusal(400, "uid contains illegal characters")
        if not body.get("title"):
            raise Refusal(400, "folder title cannot be empty")
        if uid in self.folders:
            raise Refusal(409, "a folder with that uid already exists")
        self.folders[uid] = {"id": len(self.folders) + 1, "version": 1, **body}
        return self.folders[uid]

    # Dashboards

    def get_dashboard(self, uid):
        if uid not in self.dashboards:
            raise Refusal(404, "Dashboard not found")
        document, folder, provisioned = self.dashboards[uid]
        meta = {"folderUid": folder, "version": document["version"], "provisioned": provisioned}
        return {"meta": {**meta, "slug": "x", "canSave": True}, "dashboard": document}

    def save_dashboard(self, body):
        only(body, {"dashboard", "folderUid", "message", "overwrite"})
        document, folder = body["dashboard"], body.get("folderUid", "")
        only(document, DASHBOARD_KEYS)
        uid = document.get("uid", "")
        if not document.get("title"):
            raise Refusal(400, "Dashboard title cannot be empty", status="empty-name")
        if not UID.fullmatch(uid):
            raise Refusal(400, "uid contains illegal characters or is too long")
        if folder and folder not in self.folders:
            raise Refusal(404, "folder not found", status="not-found")
        version = 0
        if uid in self.dashboards:
            old, _, provisioned = self.dashboards[uid]
            if provisioned:
                raise Refusal(400, "Cannot save provisioned dashboard")
            version = old["version"]
            if not body.get("overwrite") and document.get("version") != version:
                raise Refusal(
                    412,
                    "The dashboard has been changed by someone else",
                    status="version-mismatch",
                )
        elif document.get("id") is not None:
            raise Refusal(404, "Dashboard not found")
        # What a real one adds by itself.
        added = {"preload": False, "weekStart": "", "schemaVersion": 42}
        stored = {**document, **added, "id": 7, "version": version + 1}
        self.dashboards[uid] = (stored, folder, False)
        return {
            "uid": uid,
            "id": 7,
            "status": "success",
            "version": version + 1,
            "url": "/d/" + uid,
        }

    # Alert rules

    def get_group(self, folder, name):
        if (folder, name) not in self.groups:
            raise Refusal(404, "rule group not found")
        return self.groups[folder, name][0]

    def put_group(self, folder, name, body, provenance):
        only(body, {"title", "folderUid", "interval", "rules"})
        self.get_folder(folder)
        if body.get("title") != name or body.get("folderUid") != folder:
            raise Refusal(400, "the group of the body is not that of the path")
        interval = body.get("interval")
        if not isinstance(interval, int) or interval <= 0 or interval % 10:
            raise Refusal(400, "interval must be a multiple of the base interval of 10 seconds")
        before = self.groups.get((folder, name), (None, provenance))[1]
        if before not in ("", "api") and before != provenance:
            raise Refusal(403, f"cannot change provenance from '{before}' to '{provenance}'")
        elsewhere = {
            rule["uid"]
            for key, (group, _) in self.groups.items()
            if key != (folder, name)
            for rule in group["rules"]
        }
        for rule in body["rules"]:
            self.check_rule(rule, folder, name)
            if rule["uid"] in elsewhere:
                raise Refusal(409, f"a rule with the uid {rule['uid']} exists already")
        added = {
            "id": 1,
            "updated": "2026-01-01T00:00:00Z",
            "provenance": provenance,
            "record": None,
        }
        rules = [{**rule, **added, "orgID": 3} for rule in body["rules"]]
        self.groups[folder, name] = ({**body, "rules": rules}, provenance)
        return self.groups[folder, name][0]

    def check_rule(self, rule, folder, group):
        only(rule, RULE_KEYS)
        if missing := RULE_NEEDS - set(rule):
            raise Refusal(400, f"invalid alert rule: missing {sorted(missing)}")
        if (rule["folderUID"], rule["ruleGroup"]) != (folder, group):
            raise Refusal(400, "invalid alert rule: it belongs to another group")
        if not UID.fullmatch(rule.get("uid", "")):
            raise Refusal(400, "invalid alert rule: UID is no uid")
        if rule["noDataState"] not in {"OK", "NoData", "Alerting", "KeepLast"}:
            raise Refusal(400, "invalid alert rule: no data state")
        if rule["execErrState"] not in {"OK", "Error", "Alerting", "KeepLast"}:
            raise Refusal(400, "invalid alert rule: execution error state")
        if not rule["for"] or not DURATION.fullmatch(rule["for"]):
            raise Refusal(400, f"not a valid duration string: {rule['for']}")
        for texts in (rule.get("annotations", {}), rule.get("labels", {})):
            if not all(isinstance(text, str) for text in texts.values()):
                raise Refusal(400, "cannot unmarshal into a map of strings")
        if rule["condition"] not in [self.check_query(query) for query in rule["data"]]:
            raise Refusal(400, "invalid alert rule: condition names no query")
        settings = rule.get("notification_settings")
        if settings is not None:
            only(settings, {"receiver", "group_by", "group_wait", "group_interval"})
            if settings["receiver"] not in self.receivers:
                raise Refusal(400, f"receiver {settings['receiver']} does not exist")

    def check_query(self, query):
        only(query, QUERY_KEYS)
        if query["model"].get("refId") != query["refId"]:
            raise Refusal(400, "invalid alert rule: refId of the model differs")
        if query["datasourceUid"] != "__expr__":
            if query["datasourceUid"] not in self.datasources:
                raise Refusal(400, "invalid alert rule: data source not found")
            span = query["relativeTimeRange"]
            if not span["from"] > span["to"]:
                raise Refusal(400, "invalid alert rule: from must be greater than to")
        elif query["model"]["type"] == "threshold":
            for condition in query["model"]["conditions"]:
                if condition["evaluator"]["type"] not in {"gt", "lt"}:
                    raise Refusal(400, "invalid alert rule: threshold function")
        return query["refId"]


def only(body, known):
    if strange := set(body) - known:
        raise Refusal(400, f"bad request data: unknown fields {sorted(strange)}")


def application(grafana):
    app = FastAPI(openapi_url=None)

    @app.middleware("http")
    async def guard(request: Request, call_next):
        path = request.url.path.removeprefix("/below")
        grafana.calls.append(f"{request.method} {path}")
        word = request.headers.get("authorization", "").removeprefix("Bearer ")
        grafana.tokens.add(word)
        trouble = grafana.trouble.popleft() if grafana.trouble else None
        if isinstance(trouble, int):
            return JSONResponse({"message": "try again later"}, trouble)
        if isinstance(trouble, bytes):
            return Response(trouble, 502, media_type="application/json")
        if path != "/api/health" and word not in {ADMIN, EDITOR, VIEWER}:
            return JSONResponse({"message": "Invalid API key"}, 401)
        for_admins = path.startswith("/api/datasources") and word != ADMIN
        if for_admins or (word == VIEWER and request.method != "GET"):
            told = "You'll need additional permissions to perform this action."
            return JSONResponse({"message": told, "accessErrorId": "ACE1"}, 403)
        return await call_next(request)

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal):
        return JSONResponse(error.body, error.code)

    for root in ("/api", "/below/api"):
        add_routes(app, root, grafana)

    @app.get("/elsewhere/api/health")
    async def elsewhere():
        return HTMLResponse("<h1>Welcome to nginx</h1>")

    @app.get("/other/api/health")
    async def other():
        return {"status": "up"}

    @app.get("/moved/api/health")
    async def moved():
        return RedirectResponse("https://grafana.example.org/api/health", 301)

    return app


def add_routes(app, root, grafana):
    group_path = root + "/v1/provisioning/folder/{folder}/rule-groups/{group}"

    @app.get(root + "/health")
    async def health():
        return {"commit": "abc", "database": "ok", "version": grafana.version}

    @app.get(root + "/folders/{uid}")
    async def get_folder(uid: str):
        return grafana.get_folder(uid)

    @app.post(root + "/folders")
    async def add_folder(request: Request):
        return grafana.add_folder(await request.json())

    @app.get(root + "/dashboards/uid/{uid}")
    async def get_dashboard(uid: str):
        return JSONResponse(grafana.get_dashboard(uid))

    @app.post(root + "/dashboards/db")
    async def save_dashboard(request: Request):
        body = await request.json()
        grafana.before_save()
        return JSONResponse(grafana.save_dashboard(body))

    @app.get(group_path)
    async def get_group(folder: str, group: str):
        return JSONResponse(grafana.get_group(folder, group))

    @app.put(group_path)
    async def put_group(folder: str, group: str, request: Request):
        free = request.headers.get("x-disable-provenance")
        body = await request.json()
        return JSONResponse(grafana.put_group(folder, group, body, "" if free else "api"))

    @app.delete(group_path)
    async def delete_group(folder: str, group: str):
        grafana.get_group(folder, group)
        del grafana.groups[folder, group]
        return Response(status_code=204)

    @app.get(root + "/v1/provisioning/contact-points")
    async def receivers():
        return [{"name": name, "type": "email", "settings": {}} for name in grafana.receivers]

    @app.get(root + "/datasources/uid/{uid}")
    async def datasource(uid: str):
        if uid not in grafana.datasources:
            raise Refusal(404, "Data source not found")
        return {"uid": uid, "type": "prometheus", "name": uid}


@pytest.fixture(scope="module")
def running():
    """The stand-in behind a real server on a free port, and its address."""
    grafana = StandIn()
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    settings = uvicorn.Config(
        application(grafana), log_level="critical", lifespan="off", ws="none", access_log=False
    )
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.started
    yield grafana, f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(30)
    listening.close()
    assert not thread.is_alive()


@pytest.fixture
def stand_in(running):
    """The stand-in, fresh."""
    grafana, _ = running
    grafana.reset()
    return grafana


@pytest.fixture
def address(running):
    """Where the stand-in listens."""
    return running[1]


@pytest.fixture
def editor():
    """The token that may write."""
    return EDITOR


@pytest.fixture
def admin():
    """The token that may also look at data sources."""
    return ADMIN


@pytest.fixture
def viewer():
    """The token that may only read."""
    return VIEWER


@pytest.fixture
def no_waiting(monkeypatch):
    """Retries without waits."""
    from calidrift_analyzer.dashboards import Patience, _client

    monkeypatch.setattr(_client, "Patience", lambda: Patience(attempts=5, first_seconds=0.0))


@pytest.fixture
def command(tmp_path, monkeypatch, capsys, no_waiting):
    """Run `calidrift dashboards` in an empty folder; give its status, output and errors."""
    from calidrift_agent._command_line import run

    monkeypatch.chdir(tmp_path)
    for variable in ("CALIDRIFT_GRAFANA_TOKEN", "CALIDRIFT_GRAFANA__URL", "CALIDRIFT_CONFIG"):
        monkeypatch.delenv(variable, raising=False)

    def call(*words):
        status = run(["dashboards", *words])
        written = capsys.readouterr()
        if "--json" in words and written.out:
            return status, json.loads(written.out), written.err
        return status, written.out, written.err

    return call
