"""The addresses of the server."""

from __future__ import annotations

import time
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lcdoc.local_engine.serving.access import Access
from lcdoc.local_engine.serving.chat_answer import ChatApi
from lcdoc.local_engine.serving.chat_request import read_chat
from lcdoc.local_engine.serving.completion_answer import CompletionApi
from lcdoc.local_engine.serving.completion_request import read_completion
from lcdoc.local_engine.serving.generation import Generation
from lcdoc.local_engine.serving.problems import Problem, unknown_model
from lcdoc.local_engine.serving.service import Service


def create_app(service: Service) -> Starlette:
    """The ASGI application."""
    listing = _Listing(service)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", Generation(service, ChatApi(), read_chat), methods=["POST"]),
            Route("/v1/completions", Generation(service, CompletionApi(), read_completion), methods=["POST"]),
            Route("/v1/models", listing.models),
            Route("/v1/models/{name:path}", listing.model),
            Route("/health", listing.health),
            Route("/metrics", listing.metrics),
        ],
        middleware=[Middleware(Access, settings=service.settings)],
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )


class _Listing:
    """What the server says of itself."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._created = int(time.time())

    async def models(self, _request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._entry()]})

    async def model(self, request: Request) -> Response:
        name, served = request.path_params["name"], self._service.served.name
        return JSONResponse(self._entry()) if name == served else unknown_model(name, served).response

    async def health(self, _request: Request) -> Response:
        if self._service.gate.draining:
            return JSONResponse({"status": "shutting down"}, 503)
        if self._service.engine.closed:
            return JSONResponse({"status": "the engine has ended"}, 503)
        return JSONResponse({"status": "ok"})

    async def metrics(self, _request: Request) -> Response:
        return Response(self._service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _entry(self) -> dict[str, object]:
        served = self._service.served
        return {
            "id": served.name,
            "object": "model",
            "created": self._created,
            "owned_by": "lcdoc",
            # As vLLM tells it: prompt and answer together.
            "max_model_len": served.window,
        }


async def _refused(request: Request, error: Exception) -> Response:
    """A path or a method that is not served."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    said = f"{HTTPStatus(status).phrase}: {request.method} {request.url.path[:200]}"
    return Problem(f"{said} is not served here.", status=status, code="unknown_url", headers=headers).response


async def _failed(_request: Request, _error: Exception) -> Response:
    return Problem("The server failed; its log says how.", status=500, code="internal_error").response
