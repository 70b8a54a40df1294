"""Makes the application: the endpoints of OpenAI's API, and those beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import FileResponse, Response

from models.serving.http import errors
from models.serving.http.chat import converse
from models.serving.http.completions import complete
from models.serving.http.errors import ApiError, JsonResponse
from models.serving.http.limits import BodyLimit, HeadAsGet, Keys
from models.serving.http.metrics import Metrics
from models.serving.http.respond import ClientLeftError, left
from models.serving.http.schema import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from models.serving.http.service import Service

BODY_LIMIT = 16 << 20  # bytes
_PAGE = Path(__file__).with_name("page.html")
_ERROR = {"description": "OpenAI's error object"}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    code: _ERROR for code in (400, 401, 404, 413, 429, 500, 503)}


def create_app(service: Service, *, keys: Sequence[str] = (), body_limit: int = BODY_LIMIT,
               ) -> FastAPI:
    """Return the application, which opens the engine as it starts and closes it as it ends.

    keys        one of these must be sent; none: everyone is served
    body_limit  bytes that a request may have
    """
    engine = service.engine

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with engine:
            yield
    app = FastAPI(title="kernelyard", lifespan=lifespan, docs_url=None, redoc_url=None,
                  responses=_RESPONSES)
    errors.install(app)
    app.add_exception_handler(ClientLeftError, _nobody)
    app.add_middleware(BodyLimit, limit=body_limit)
    app.add_middleware(HeadAsGet)
    if keys:
        app.add_middleware(Keys, keys=keys)
    metrics = Metrics(engine, service.name)

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        return await complete(service, body, request)

    @app.post("/v1/chat/completions")
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        return await converse(service, body, request)

    @app.get("/v1/models")
    async def models() -> Response:
        return JsonResponse({"object": "list", "data": [_card(service)]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        service.check_model(name)
        return JsonResponse(_card(service))

    @app.post("/v1/embeddings")
    async def embeddings() -> Response:
        raise ApiError(400, f"{service.name} generates text, and this server makes no embeddings "
                       "of it; ask a server of an embedding model", code="unsupported_endpoint")

    @app.post("/tokenize")
    async def tokenize(body: TokenizeRequest) -> Response:
        service.check_model(body.model)
        if (body.prompt is None) == (body.messages is None):
            raise ApiError(400, "give either prompt or messages", param="prompt")
        if body.messages is not None:
            ids = await service.converse([m.model_dump(exclude_unset=True) for m in body.messages],
                                         tools=body.tools, documents=body.documents,
                                         more=body.chat_template_kwargs,
                                         add_generation_prompt=body.add_generation_prompt,
                                         continue_final_message=body.continue_final_message)
        else:
            ids = await service.encode(body.prompt or "", special=not body.add_special_tokens)
        answer = {"count": len(ids), "max_model_len": engine.facts.max_model_len, "tokens": ids}
        if body.return_token_strs:
            answer["token_strs"] = [service.tokenizer.token(i) for i in ids]
        return JsonResponse(answer)

    @app.post("/detokenize")
    async def detokenize(body: DetokenizeRequest) -> Response:
        service.check_model(body.model)
        if wrong := [i for i in body.tokens if not 0 <= i < engine.facts.vocab_size]:
            raise ApiError(400, f"tokens has {wrong[:5]}, expected 0 to "
                           f"{engine.facts.vocab_size - 1}", param="tokens")
        text = await engine.in_thread(lambda: service.tokenizer.decode(body.tokens))
        return JsonResponse({"prompt": text})

    @app.get("/v1/ledger")
    async def ledger() -> Response:
        return JsonResponse(await engine.ask("ledger"))

    @app.get("/health")
    async def health() -> Response:
        if engine.trouble is not None:
            return JsonResponse({"status": "unavailable", "reason": engine.trouble}, 503)
        check = engine.state.check
        return JsonResponse({"status": "ok", **({"check": check.to_json()} if check else {})})

    @app.get("/metrics")
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/")
    async def page() -> Response:
        return FileResponse(_PAGE, media_type="text/html")

    return app


def _card(service: Service) -> dict[str, Any]:
    return {"id": service.name, "object": "model", "created": service.created,
            "owned_by": "kernelyard", "max_model_len": service.engine.facts.max_model_len,
            "chat": service.conversations is not None}


async def _nobody(_: Request, __: Exception) -> Response:
    return left()
