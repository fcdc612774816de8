"""What the server answers: the page, the list of pictures, and what is done with them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from dreamsr.config import from_mapping
from dreamsr.disk import parse_json
from dreamsr.errors import ConfigError, DreamsrError, printable
from dreamsr.html import template
from dreamsr.pictures.opening import limit_for
from dreamsr.pictures.picture import FORMATS
from dreamsr.serving.choices import Choices, Offer, in_words_of_the_page, require_offered, without_folders
from dreamsr.serving.queue import PictureQueue, Queued
from dreamsr.serving.uploads import receive, require_size
from dreamsr.upscaling.sizes import MAX_SCALE

HERE = Path(__file__).parent
ASSETS = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
COMPARE_POLICY = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
}
"""Of a page that brings everything with it: it may ask nothing of anyone, not even of this server."""
GONE = "this picture is not in the list any more; reload the page"


@dataclass(frozen=True)
class Site:
    """The answers, for one queue of pictures."""

    queue: PictureQueue
    offers: Sequence[Offer]

    def app(self) -> Starlette:
        """All of it as an ASGI application."""
        routes = [
            Route("/", self.page),
            *(Route(f"/{name}", self.asset) for name in ASSETS),
            Route("/check", self.check),
            Route("/pictures", self.list),
            Route("/pictures", self.add, methods=["POST"]),
            Route("/pictures/{id}", self.remove, methods=["DELETE"]),
            Route("/pictures/{id}/cancel", self.cancel, methods=["POST"]),
            Route("/pictures/{id}/result", self.result),
            Route("/pictures/{id}/compare", self.compare),
        ]
        handlers: dict[Any, Any] = {DreamsrError: self.refused, HTTPException: _not_found, Exception: _broken}
        return Starlette(routes=routes, exception_handlers=handlers)

    @property
    def limit_bytes(self) -> int:
        """Of one picture's file: what `upscale` would read of it."""
        return limit_for(self.queue.max_pixels)

    async def page(self, _: Request) -> Response:
        """The page itself."""
        text = template(HERE / "page.html").render(
            offers=self.offers,
            defaults=Choices(self.offers[0].name),
            formats=list(FORMATS),
            endings=[ending for endings in FORMATS.values() for ending in endings],
            max_scale=MAX_SCALE,
        )
        return HTMLResponse(text)

    async def asset(self, request: Request) -> Response:
        """Its style or its script."""
        name = request.url.path.rsplit("/", 1)[1]
        return FileResponse(HERE / name, media_type=ASSETS[name])

    async def check(self, request: Request) -> Response:
        """Whether a picture of that name and so many bytes would be taken: asked before it is sent."""
        query = request.query_params
        self._choices(query)
        if query.get("bytes", "").isdecimal():
            require_size(query.get("name", ""), int(query["bytes"]), self.limit_bytes)
        return JSONResponse({})

    async def list(self, _: Request) -> Response:
        """All pictures, in the order they came."""
        return JSONResponse([_plain(entry) for entry in self.queue.entries()])

    async def add(self, request: Request) -> Response:
        """A picture, as it stands in the body, at the end of the queue."""
        choices = self._choices(request.query_params)
        name = request.query_params.get("name", "")
        announced = request.headers.get("content-length", "0")
        require_size(name, int(announced) if announced.isdecimal() else 0, self.limit_bytes)
        upload = self.queue.place(name)
        try:
            await receive(request.stream(), upload, self.limit_bytes)
        except BaseException:
            self.queue.discard(upload)
            raise
        entry = await run_in_threadpool(self.queue.add, upload, choices)
        return JSONResponse(_plain(entry), status_code=201)

    async def cancel(self, request: Request) -> Response:
        """One picture less to enlarge."""
        self.queue.cancel(self._entry(request).id)
        return JSONResponse({})

    async def remove(self, request: Request) -> Response:
        """One picture less on the page, and its files with it."""
        entry = self._entry(request)
        await run_in_threadpool(self.queue.remove, entry.id)
        return JSONResponse({})

    async def result(self, request: Request) -> Response:
        """The enlarged picture, to be saved."""
        entry = self._entry(request)
        if entry.result is None:
            raise HTTPException(404, "this picture is not enlarged yet; wait until it is done")
        return FileResponse(entry.result, filename=entry.result.name, media_type=f"image/{entry.format.lower()}")

    async def compare(self, request: Request) -> Response:
        """Before and after of this picture, on a page of their own."""
        entry = self._entry(request)
        if entry.compare is None:
            raise HTTPException(404, "there is nothing to compare; wait until this picture is done")
        text = await run_in_threadpool(entry.compare.read_text, "utf-8")
        return HTMLResponse(without_folders(text, self.queue.folder), headers=COMPARE_POLICY)

    async def refused(self, _: Request, error: Exception) -> Response:
        """What cannot be done, in one line."""
        return JSONResponse({"error": in_words_of_the_page(str(error), self.queue.folder)}, status_code=400)

    def _choices(self, query: Mapping[str, str]) -> Choices:
        """What was chosen. Raises UsageError and ConfigError."""
        try:
            values = parse_json(query.get("choices", ""))
        except ValueError as error:
            raise ConfigError(f"choices: {printable(error)}; reload the page") from None
        chosen = from_mapping(Choices, values, source="choices")
        require_offered(chosen.weights, self.offers)
        return chosen

    def _entry(self, request: Request) -> Queued:
        try:
            return self.queue.entry(request.path_params["id"])
        except KeyError:
            raise HTTPException(404, GONE) from None


def _plain(entry: Queued) -> dict[str, Any]:
    """What the page is told of a picture."""
    result = entry.result
    seconds = time.monotonic() - entry.began if entry.state in ("working", "cancelling") else entry.seconds
    return {
        "id": entry.id,
        "name": entry.upload.name,
        "state": entry.state,
        "error": entry.error,
        "notes": entry.notes,
        "doing": entry.doing,
        "fraction": round(entry.fraction, 4),
        "seconds": round(seconds, 1),
        "input_size": entry.input_size,
        "size": entry.size,
        "format": entry.format,
        "weights": entry.weights or entry.choices.weights,
        "choices": dataclasses.asdict(entry.choices),
        "result": None if result is None else {"name": result.name, "bytes": result.stat().st_size},
        "compares": entry.compare is not None,
    }


async def _not_found(_: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, status_code=error.status_code)


async def _broken(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"internal error ({type(error).__name__}: {error})"}, status_code=500)
