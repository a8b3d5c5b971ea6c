"""A real JupyterLab in a real Chromium: a server, notebooks run in it, and what their kernels say."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nbformat

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
SECONDS = 60.0


def chromium() -> str | None:
    """Where Chromium is: LMMAP_CHROMIUM, or the first of its usual names."""
    named = os.environ.get("LMMAP_CHROMIUM")
    return next((found for name in ([named] if named else NAMES) if (found := shutil.which(name))), None)


def missing() -> str:
    """What is not there that browser tests need; nothing if all is."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install playwright"
    if chromium() is None:
        looked_for = os.environ.get("LMMAP_CHROMIUM") or ", ".join(NAMES)
        return f"no Chromium found ({looked_for}): install one, or name it in LMMAP_CHROMIUM"
    return ""


class Server(NamedTuple):
    """A running JupyterLab."""

    url: str
    token: str
    root: Path

    def ask(self, path: str, *, method: str = "GET", content: Any = None) -> bytes:
        """Talk to the server itself."""
        data = None if content is None else json.dumps(content).encode()
        headers = {"Authorization": f"token {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())


@contextlib.contextmanager
def lab_server(folder: Path) -> Iterator[Server]:
    """Start JupyterLab with folders of its own, and shut it down with its kernels."""
    root = folder / "notebooks"
    root.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(f"http://127.0.0.1:{port}", secrets.token_hex(16), root)
    private = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={server.token}",
        f"--ServerApp.root_dir={root}", f"--LabApp.workspaces_dir={folder / 'workspaces'}",
        "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=",
    ]  # fmt: skip
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT,
            env={**os.environ, **private, "JUPYTER_PREFER_ENV_PATH": "1", "PATH": path, "MPLBACKEND": "agg"},
        )  # fmt: skip
    try:
        _wait_until_up(server, process, log)
        _settle(server)
        yield server
    finally:
        with contextlib.suppress(OSError):
            server.ask("/api/shutdown", method="POST")
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_up(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + SECONDS
    while True:
        try:
            server.ask("/api")
        except OSError as error:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}") from error
            time.sleep(0.1)
        else:
            return


def _settle(server: Server) -> None:
    """Keep every cell in the page, and no news over it."""
    for plugin, settings in (
        ("@jupyterlab/notebook-extension:tracker", {"windowingMode": "none"}),
        ("@jupyterlab/apputils-extension:notification", {"fetchNews": "false", "checkForUpdates": False}),
    ):
        server.ask(f"/lab/api/settings/{plugin}", method="PUT", content={"raw": json.dumps(settings)})


OPEN = """async (path) => { const app = window.jupyterapp; await app.restored;
  await app.commands.execute('docmanager:open', {path, factory: 'Notebook'});
  const nb = app.shell.currentWidget; await nb.context.ready; await nb.sessionContext.ready; }"""
CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets.filter(c => c.model.type === 'code')
  .map(c => ({count: c.model.executionCount, errors: c.model.outputs.toJSON()
    .filter(o => o.output_type === 'error').map(o => o.ename + ': ' + o.evalue)}))"""
ASK = """async (code) => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  let out = '', error = '';
  const asked = kernel.requestExecute({code, store_history: false});
  asked.onIOPub = m => { if (m.header.msg_type === 'stream') out += m.content.text;
    if (m.header.msg_type === 'error') error = m.content.ename + ': ' + m.content.evalue; };
  const late = new Promise((_, fail) => setTimeout(() => fail(new Error('no answer')), 30000));
  await Promise.race([asked.done, late]);
  if (error) throw new Error(error);
  return out; }"""
BROKEN = """() => [...document.querySelectorAll('.jp-OutputArea')].map(area => area.innerText)
  .filter(text => /show javascript error|Error displaying widget|Failed to (create|load)/i.test(text))"""
SAVE = """() => Promise.race([window.jupyterapp.shell.currentWidget.context.save(),
  new Promise(done => setTimeout(done, 5000))])"""


class Notebook:
    """A notebook open in JupyterLab. Tests ask its kernel, again and again until an answer is right."""

    def __init__(self, server: Server, page: Any) -> None:
        self.server, self.page = server, page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, cells: Sequence[str], name: str = "notebook.ipynb") -> None:
        """Write a notebook of code cells and open it."""
        written = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        written.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
        nbformat.write(written, self.server.root / name)
        self.open_file(name)

    def open_file(self, name: str) -> None:
        """Open a notebook that is there."""
        self.page.goto(f"{self.server.url}/lab?token={self.server.token}&reset")
        self.page.wait_for_function("() => window.jupyterapp !== undefined", timeout=1000 * SECONDS)
        self.page.evaluate(OPEN, name)

    def run(self) -> None:
        """Run all cells; an error in one fails the test."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        end = time.monotonic() + 2 * SECONDS
        while True:  # the command may return before the kernel is there: only counts tell
            cells = self.page.evaluate(CELLS)
            errors = [error for cell in cells for error in cell["errors"]]
            assert not errors, errors
            if all(cell["count"] for cell in cells):
                return
            assert time.monotonic() < end, "the notebook did not run to its end"
            self.page.wait_for_timeout(100)

    def do(self, code: str) -> str:
        """Run code in the kernel, beside the cells; gives what it prints."""
        return str(self.page.evaluate(ASK, code))

    def value(self, expression: str) -> Any:
        """Ask the kernel for a value that JSON can hold."""
        return json.loads(self.do(f"import json as _json; print(_json.dumps({expression}))"))

    def wait(self, expression: str, expected: Any = True) -> None:
        """Ask until the value is the expected one."""
        end = time.monotonic() + 15
        while (seen := self.value(expression)) != expected:
            assert time.monotonic() < end, f"{expression} is {seen!r}, expected {expected!r}"
            self.page.wait_for_timeout(60)

    def check(self) -> None:
        """Fail if the page, a cell or a widget has an error: that of a widget is a box of text only."""
        cells = [error for cell in self.page.evaluate(CELLS) for error in cell["errors"]]
        assert [*self.errors, *cells, *self.page.evaluate(BROKEN)] == []

    def save(self) -> None:
        """Save the file."""
        self.page.evaluate(SAVE)


def drag(page: Any, points: Sequence[tuple[float, float]], *, button: str = "left") -> None:
    """Press at the first point, move through the others, release at the last."""
    page.mouse.move(*points[0])
    page.mouse.down(button=button)
    for point in points[1:]:
        page.mouse.move(*point, steps=4)
    page.mouse.up(button=button)
