"""A page that uploads a file, shows how far its compression is, and offers the result.

Run it: ``uvicorn examples.upload:app``, then open ``http://localhost:8000``. Kill the server in the
middle (``kill -9``) and start it again: the page needs no reload, and the bar goes on.

There is no login: whoever uploads is given a token that lets the page follow this one job. The
secret that signs the tokens must be the same after a restart and in all processes; here it is kept
beside the data, an application has it among its settings.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import lzma
import os
import secrets
import shutil
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from asyncjobs import Fail, File, JobOutcome, Runner, current_job
from asyncjobs.web import job_token, status_routes

DATA = Path(os.environ.get("UPLOAD_DATA", "upload-data")).absolute()
UPLOAD_BYTES_MAX = 50 * 1024 * 1024
BLOCK_BYTES = 256 * 1024

DATA.mkdir(mode=0o700, parents=True, exist_ok=True)
runner = Runner(DATA / "jobs.db", threads=2)


def stored_secret(path: Path) -> bytes:
    """The same in all processes and after a restart."""
    mine = path.with_suffix(f".{os.getpid()}")
    with open(os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(secrets.token_bytes(32))
    with contextlib.suppress(FileExistsError):  # another process was first
        os.link(mine, path)
    mine.unlink()
    return path.read_bytes()


SECRET = stored_secret(DATA / "secret")

# The job


@runner.task(name="clean_up")
def clean_up(outcome: JobOutcome) -> None:
    """The upload and the blocks go once the job has its outcome, whatever crashes."""
    shutil.rmtree(DATA / outcome.job_id, ignore_errors=True)


@runner.task(name="compress", on_complete=clean_up, on_failure=clean_up)
def compress(name: str) -> File:
    """Compress an upload in a thread, block by block. Run again, it goes on with the next block."""
    job = current_job()
    folder = DATA / job.id
    with (folder / "upload").open("rb") as upload, (folder / "whole").open("wb") as whole:
        size = os.fstat(upload.fileno()).st_size
        if size == 0:
            raise Fail(f"{name} is empty: there is nothing to compress")
        for start in range(0, size, BLOCK_BYTES):
            job.check_stop()  # cancelled, or the server shuts down: another run does the rest
            block = folder / f"block-{start}"
            content = upload.read(BLOCK_BYTES)
            if not block.exists():
                part = folder / "part"
                part.write_bytes(lzma.compress(content, preset=9))
                part.replace(block)
                # Not for a block that was there: the bar of another run would begin anew.
                job.progress(start + len(content), size, note=name)
            whole.write(block.read_bytes())  # .xz files one after the other are one .xz file
        job.progress(size, size, note=name)
    return File(folder / "whole", f"{name}.xz", "application/x-xz")


# The routes


async def upload(request: Request) -> JSONResponse:
    """Keep the file, accept the job: both are on disk when this answers."""
    given = request.query_params.get("name", "")[-200:]
    # What the client calls its file is shown, and offered with the result; it is no path here.
    name = "".join(one if one.isprintable() and one not in "/\\" else "_" for one in given)
    job = compress.job(name or "file")
    folder = DATA / job.id
    folder.mkdir()
    try:
        await save(request, folder / "upload")
    except BaseException:
        shutil.rmtree(folder)
        raise
    await runner.enqueue(job)
    token = job_token(SECRET, job.id, expires_in=86_400, actions=["status", "result", "cancel"])
    return JSONResponse({"job": job.id, "token": token}, status_code=202)


async def save(request: Request, path: Path) -> None:
    """Write the body as it comes, through to the disk."""
    received = 0
    with path.open("xb") as file:
        async for piece in request.stream():
            received += len(piece)
            if received > UPLOAD_BYTES_MAX:
                raise HTTPException(413, f"at most {UPLOAD_BYTES_MAX} bytes")
            file.write(piece)
        file.flush()
        await asyncio.to_thread(os.fsync, file.fileno())


STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 32rem; margin: 4rem auto; padding: 0 1rem }
progress { width: 100%; height: 1.5rem }
[hidden] { display: none }
"""

# All text from outside goes in by textContent: it is never markup. <bdi> keeps what turns the
# direction of writing within itself.
SCRIPT = """
"use strict";
const at = (id) => document.getElementById(id);
let source = null, delay = 500;

function follow(job, token) {
  const url = (path) => `jobs/${job}${path}?token=${encodeURIComponent(token)}`;
  at("cancel").onclick = () => fetch(`jobs/${job}/cancel`,
    { method: "POST", headers: { authorization: `Bearer ${token}` } });
  at("download").href = url("/result");
  source = new EventSource(url("/events"));
  const on = (name, handle) =>
    source.addEventListener(name, (event) => { delay = 500; handle(JSON.parse(event.data)); });
  on("snapshot", show);
  on("state", show);
  on("progress", move);
  on("outcome", (status) => { show(status); end(); });
  on("gone", () => { at("state").textContent = "gone"; end(); });
  source.onerror = async () => {
    if (source.readyState !== EventSource.CLOSED) return;  // it connects again by itself
    // Refused, or by an answer of a proxy while the server is down: ask what it is, then again.
    const answer = await fetch(url("")).catch(() => null);
    if (answer !== null && [401, 403, 404].includes(answer.status)) {
      at("state").textContent = (await answer.json()).error.message;
      return end();
    }
    setTimeout(follow, delay, job, token);
    delay = Math.min(2 * delay, 10000);
  };
}

function move(progress) {
  if (progress === null) return;
  at("bar").max = progress.total;
  at("bar").value = progress.done;
  at("name").textContent = progress.note;
}

function show(status) {
  move(status.progress);
  at("state").textContent = status.status;
  // While it runs, an error is that of a run before: another one has begun.
  const old = status.error === null || status.state === "running";
  at("error").textContent = old ? "" : status.error.message;
  at("cancel").hidden = status.finished_at !== null;
  at("download").hidden = status.file === null;
  at("download").textContent = status.file === null ? "" : `Download ${status.file.name}`;
}

function end() {
  source.close();
  at("cancel").hidden = true;
  sessionStorage.removeItem("job");
}

at("file").onchange = async () => {
  const [file] = at("file").files;
  if (source !== null) source.close();
  for (const id of ["error", "name"]) at(id).textContent = "";
  at("download").hidden = true;
  at("bar").value = 0;
  at("state").textContent = "uploading";
  const answer = await fetch(`uploads?name=${encodeURIComponent(file.name)}`,
    { method: "POST", body: file }).catch(() => null);
  if (answer === null || !answer.ok) {
    at("state").textContent = answer === null ? "the server is not there" : await answer.text();
    return;
  }
  const { job, token } = await answer.json();
  sessionStorage.setItem("job", JSON.stringify([job, token]));
  follow(job, token);
};

const before = sessionStorage.getItem("job");
if (before !== null) follow(...JSON.parse(before));
"""

PAGE = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Compress a file</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
<h1>Compress a file</h1>
<p><input type="file" id="file"></p>
<progress id="bar" max="1" value="0"></progress>
<p><span id="state">choose a file</span> <bdi id="name"></bdi></p>
<p><bdi id="error"></bdi></p>
<p><a id="download" hidden></a> <button id="cancel" hidden>Cancel</button></p>
<script>{SCRIPT}</script>
</html>
"""


def source_of(content: str) -> str:
    """What lets this very script or style run, and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


PAGE_HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; script-src {source_of(SCRIPT)}; style-src {source_of(STYLE)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


async def page(request: Request) -> HTMLResponse:
    """The page."""
    return HTMLResponse(PAGE, headers=PAGE_HEADERS)


app = Starlette(
    lifespan=runner.lifespan,
    routes=[
        Route("/", page),
        Route("/uploads", upload, methods=["POST"]),
        *status_routes(runner, secret=SECRET),
    ],
)
