"""A loopback stand-in for a W&B server: it keeps what it receives, or fails in one of the ways in which servers fail."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlparse

FAULTS = ("401", "500", "garbage", "slow", "hang", "close")
SLOW_SECONDS = 2.0


class WandbServer(ThreadingHTTPServer):
    """Accepts runs, their files, artifacts and alerts.

    Attributes:
        fault: None or one of FAULTS; may change while requests arrive.
        runs: {run id: fields of the run}.
        history: {run id: {_step: logged values}}; as at W&B, an upload that is repeated replaces its rows.
        files: {run id: {name: content}}.
        artifacts: fields of each artifact, with its files {name: content}.
        used: name of each artifact that a run used.
        views: fields of each saved workspace.
        alerts: fields of each alert.
    """

    daemon_threads = True

    def __init__(self, fault: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.fault = fault
        self.closed = threading.Event()
        self.requests = 0
        self.runs: dict[str, dict[str, Any]] = {}
        self.history: dict[str, dict[int, dict[str, Any]]] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.artifacts: list[dict[str, Any]] = []
        self.used: list[str] = []
        self.views: list[dict[str, Any]] = []
        self.alerts: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are gone are no error of a test."""

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Data of the answer to a GraphQL operation; unknown ones have no data."""
        operation = re.search(r"^\s*(?:query|mutation)\s+(\w+)", query, re.MULTILINE)
        method = getattr(self, f"on_{operation.group(1)}" if operation else "", None)
        return method(variables) if method else {}

    def on_Viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "user", "entity": "team", "username": "user", "email": "", "flags": "{}", "teams": {"edges": []}}}

    on_GetDefaultEntity = on_Viewer

    def on_RunResumeStatus(self, run: dict[str, Any]) -> dict[str, Any]:
        known = self.runs.get(run["name"])
        return {
            "model": {
                "id": "project",
                "name": run["project"],
                "entity": {"id": "team", "name": "team"},
                "bucket": known and self._bucket(known),
            }
        }

    def on_UpsertBucket(self, run: dict[str, Any]) -> dict[str, Any]:
        known = self.runs.setdefault(run["name"], {"state": "running"})
        known.update({name: value for name, value in run.items() if value is not None})
        return {"upsertBucket": {"inserted": True, "bucket": self._bucket(known)}}

    def on_Run(self, run: dict[str, Any]) -> dict[str, Any]:
        known = self.runs.get(run["name"])
        return {"project": {"run": known and self._bucket(known)}}

    def on_CreateRunFiles(self, run: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.url}/run/{run['run']}/{name}"} for name in run["files"]]
        return {"createRunFiles": {"runID": run["run"], "uploadHeaders": [], "files": files}}

    def on_CreateArtifact(self, artifact: dict[str, Any]) -> dict[str, Any]:
        self.artifacts.append(artifact["input"] | {"files": {}, "state": "PENDING"})
        created = {"id": str(len(self.artifacts) - 1), "state": "PENDING", "artifactSequence": {"id": "sequence", "latestArtifact": None}}
        return {"createArtifact": {"artifact": created}}

    def on_CreateArtifactManifest(self, manifest: dict[str, Any]) -> dict[str, Any]:
        number = manifest["artifactID"]
        return {"createArtifactManifest": {"artifactManifest": {"id": number, "file": self._artifact_file(number, manifest["name"])}}}

    def on_CreateArtifactFiles(self, files: dict[str, Any]) -> dict[str, Any]:
        nodes = [self._artifact_file(file["artifactID"], file["name"]) for file in files["input"]["artifactFiles"]]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def on_CommitArtifact(self, artifact: dict[str, Any]) -> dict[str, Any]:
        self.artifacts[int(artifact["artifactID"])]["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": artifact["artifactID"], "digest": ""}}}

    def on_AllViews(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"allViews": {"edges": [{"node": {"displayName": view["displayName"]}} for view in self.views]}}}

    def on_UpsertView2(self, view: dict[str, Any]) -> dict[str, Any]:
        self.views.append(view)
        return {"upsertView": {"view": {"id": str(len(self.views)), "name": view["name"]}, "inserted": True}}

    def on_upsertView(self, report: dict[str, Any]) -> dict[str, Any]:
        self.on_UpsertView2(report)
        return {"upsertView": {"view": report | {"id": str(len(self.views))}, "inserted": True}}

    def on_ProjectInternalId(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"internalId": "project"}}

    def on_GetProjects(self, _: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "project", "name": "afterglow", "entityName": "team", "createdAt": "", "isBenchmark": False, "user": None}
        return {"models": {"edges": [{"node": project}], "pageInfo": {"endCursor": None, "hasNextPage": False}}}

    def on_UseArtifact(self, used: dict[str, Any]) -> dict[str, Any]:
        self.used.append(self.artifacts[int(used["input"]["artifactID"])]["artifactCollectionName"])
        return {"useArtifact": {"artifact": {"id": used["input"]["artifactID"]}}}

    def on_NotifyScriptableRunAlert(self, alert: dict[str, Any]) -> dict[str, Any]:
        self.alerts.append(alert)
        return {"notifyScriptableRunAlert": {"success": True}}

    def stream(self, run: str, message: dict[str, Any]) -> None:
        """Keep the lines of a run's files that grow."""
        for name, part in (message.get("files") or {}).items():
            if name == "wandb-history.jsonl":
                for row in map(json.loads, part["content"]):
                    self.history.setdefault(run, {})[row["_step"]] = row
        if message.get("complete"):
            self.runs[run]["state"] = "finished" if message.get("exitcode") == 0 else "failed"

    def put(self, kind: str, owner: str, name: str, content: bytes) -> None:
        """Keep a file of a run or of an artifact."""
        files = self.files.setdefault(owner, {}) if kind == "run" else self.artifacts[int(owner)]["files"]
        files[name] = content

    def _artifact_file(self, number: str, name: str) -> dict[str, Any]:
        address = {"uploadUrl": f"{self.url}/artifact/{number}/{name}", "uploadHeaders": [], "uploadMultipartUrls": None}
        return {"id": name, "name": name, "displayName": name, "storagePath": name, "artifact": {"id": number}} | address

    def _bucket(self, run: dict[str, Any]) -> dict[str, Any]:
        """A run as the server describes it."""
        name, lines = run["name"], self.history.get(run["name"], {})
        last = json.dumps([json.dumps(lines[max(lines)])]) if lines else "[]"
        counts = {"historyLineCount": len(lines), "eventsLineCount": 0, "logLineCount": 0}
        texts = {"summaryMetrics": "{}", "systemMetrics": "{}", "config": "{}", "wandbConfig": '{"t": 1}', "notes": "", "description": ""}
        project = {"id": "project", "name": run["project"], "entity": {"id": "team", "name": "team"}}
        return {
            **{"id": name, "name": name, "storageId": name, "displayName": name, "tags": [], "projectId": 1, "internalId": name},
            **{"sweepName": None, "group": None, "jobType": None, "commit": None, "readOnly": False, "heartbeatAt": "", "createdAt": ""},
            **{
                "project": project,
                "state": run["state"],
                "historyTail": last,
                "eventsTail": "[]",
                "user": {"name": "user", "username": "user"},
                "historyKeys": {},
            },
            **counts,
            **texts,
        }


class _Request(BaseHTTPRequestHandler):
    server: WandbServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def handle_all(self) -> None:
        self.server.requests += 1
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._failed(self.server.fault):
            return
        parts = urlparse(self.path).path.strip("/").split("/")  # a proxy receives whole addresses
        answer: Any = {}
        if parts == ["graphql"]:
            message = json.loads(content)
            answer = {"data": self.server.answer(message["query"], message.get("variables") or {})}
        elif parts[-1] == "file_stream":
            self.server.stream(parts[-2], json.loads(content))
        elif self.command == "PUT":
            self.server.put(parts[0], parts[1], "/".join(parts[2:]), content)
        self._send(200, json.dumps(answer).encode())

    do_GET = do_POST = do_PUT = handle_all

    def _failed(self, fault: str | None) -> bool:
        if fault == "slow":
            self.server.closed.wait(SLOW_SECONDS)
        elif fault == "garbage":
            self._send(200, b"<html>Log in to this network.</html>")
        elif fault in ("401", "500"):
            self._send(int(fault), b"{}")
        elif fault is not None:
            self.close_connection = True
            if fault == "hang":
                self.server.closed.wait()
        return fault not in (None, "slow")

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def wandb_server(fault: str | None = None) -> Iterator[WandbServer]:
    """A running server on a free port."""
    server = WandbServer(fault)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.closed.set()
        server.shutdown()
        server.server_close()
