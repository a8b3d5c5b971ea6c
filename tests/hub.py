"""A small Hub on this machine: serves folders as repositories, as the real one does, errors included."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ERRORS = {"GatedRepo": 403, "RepoNotFound": 401, "RevisionNotFound": 404, "EntryNotFound": 404}


@contextmanager
def serve(repositories: dict[str, dict[str, Path]], gated: set[str] = frozenset()) -> Iterator[str]:
    """Serve ``{repository: {revision: folder}}``; yields the endpoint."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0].strip("/").removeprefix("api/models/").replace("%2F", "/")
            owner, name, *rest = path.split("/")
            repository = f"{owner}/{name}"
            listing, wanted = self.path.startswith("/api/models/"), rest[0] if rest else ""
            revision = rest[1] if len(rest) > 1 else "main"
            if repository in gated and not listing:
                self.refuse("GatedRepo")
            elif repository not in repositories:
                self.refuse("RepoNotFound")
            elif revision not in revisions(repositories[repository]):
                self.refuse("RevisionNotFound")
            else:
                folder = revisions(repositories[repository])[revision]
                if listing:
                    entry = {"type": "file", "size": 1, "oid": "0"}
                    files = [entry | {"path": file.name} for file in folder.iterdir()]
                    below = "/".join(rest[2:])
                    siblings = {"sha": commit(folder), "siblings": [{"rfilename": f["path"]} for f in files]}
                    if wanted == "tree" and below:
                        self.refuse("EntryNotFound")
                    else:
                        self.give(json.dumps(files if wanted == "tree" else siblings).encode(), folder)
                elif (file := folder / "/".join(rest[2:])).is_file():
                    self.give(file.read_bytes(), folder)
                else:
                    self.refuse("EntryNotFound")

        do_HEAD = do_GET  # noqa: N815

        def give(self, content: bytes, folder: Path) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit(folder))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def refuse(self, error: str) -> None:
            self.send_response(ERRORS[error])
            self.send_header("X-Error-Code", error)
            self.send_header("X-Error-Message", f"{error}: refused by the test")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def revisions(folders: dict[str, Path]) -> dict[str, Path]:
    """Branches and tags, and the commits they stand for."""
    return folders | {commit(folder): folder for folder in folders.values()}


def commit(folder: Path) -> str:
    """40 hex digits that name a folder."""
    return hashlib.sha1(str(folder).encode()).hexdigest()
