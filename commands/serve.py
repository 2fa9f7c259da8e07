"""`lcdoc serve`."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lcdoc.commands.guard import BAD_INPUT, INTERRUPTED, guarded, usage_error
from lcdoc.commands.options import DebugOption, QuietOption

if TYPE_CHECKING:
    from lcdoc.local_engine import Engine
    from lcdoc.screen import Screen

_UNITS = {"": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]i?b)?", re.IGNORECASE)


@guarded
def serve(
    path: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="A model's folder, or its name on the hub.", show_default=False),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="PATH", help="The same, as an option.", show_default=False)
    ] = None,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Where to listen; other than this machine needs a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help="0: any free one.")] = 8080,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            envvar="LCDOC_SERVE_KEY",
            help="Clients must send it. Better in the variable: other users see a command's options.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"],
        typer.Option("--dtype", help="Numbers to compute in; auto: what is fast on this machine."),
    ] = "auto",
    quantize: Annotated[
        Literal["int8", "int4"] | None,
        typer.Option("--quantize", help="Weights in fewer bits: less memory, a little less exact.", show_default=False),
    ] = None,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")] = "auto",
    max_memory: Annotated[
        str | None,
        typer.Option(
            "--max-memory",
            metavar="SIZE",
            help="For the cache: 8GiB, or a share of what is free, as 0.5 [default: 0.5 on a CPU, 0.9 on a GPU].",
            show_default=False,
        ),
    ] = None,
    sequences: Annotated[
        int | None,
        typer.Option(
            "--sequences",
            metavar="N",
            min=1,
            help="Answers written at once, at most [default: 16 on a CPU, 64 on a GPU].",
            show_default=False,
        ),
    ] = None,
    max_waiting: Annotated[
        int, typer.Option("--max-waiting", metavar="N", min=0, help="Answers that may wait; beyond, 429.")
    ] = 64,
    max_body_mib: Annotated[
        float, typer.Option("--max-body-mib", metavar="N", min=0.001, help="Longest request; beyond, 413.")
    ] = 8.0,
    timeout_seconds: Annotated[
        float, typer.Option("--timeout-seconds", metavar="N", min=0.001, help="Longest time for a request; then 408.")
    ] = 1800.0,
    drain_seconds: Annotated[
        float,
        typer.Option("--drain-seconds", metavar="N", min=0, help="After Ctrl-C, time for answers that are under way."),
    ] = 30.0,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Serve a local model to any program that speaks OpenAI's API.

    MODEL is a folder with config.json, tokenizer.json and safetensors, or a name on Hugging Face's hub; models of the
    Llama family work. It is loaded once, and answers many requests at once: /v1/chat/completions, /v1/completions,
    /v1/models, /health, /metrics. Ctrl-C lets answers end; a second one does not. Exit code 0: ended by SIGTERM, 2: bad
    input, 130: interrupted.

    lcdoc serve models/Qwen2.5-0.5B-Instruct

    lcdoc serve Qwen/Qwen2.5-0.5B-Instruct --quantize int8 --port 8000

    LCDOC_SERVE_KEY=secret lcdoc serve models/Qwen3-4B --host 0.0.0.0

    lcdoc ask book.pdf "Why did she leave?" --model http://127.0.0.1:8080/v1
    """
    if (path is None) == (model is None):
        raise usage_error("name one model; try: lcdoc serve models/Qwen2.5-0.5B-Instruct")
    name, cache = path or model or "", None if max_memory is None else _size(max_memory)
    from lcdoc.local_engine.errors import EngineError
    from lcdoc.local_engine.serving.listening import bound
    from lcdoc.local_engine.serving.settings import Settings
    from lcdoc.screen import Screen

    with Screen(quiet=quiet) as screen:
        try:
            settings = Settings(
                host=host,
                port=port,
                key=api_key,
                max_body_bytes=int(max_body_mib * 2**20),
                max_waiting=max_waiting,
                timeout_s=timeout_seconds,
                drain_s=drain_seconds,
            )
            # First the address: importing the engine takes seconds, and loading a model may take minutes.
            with bound(settings) as made:
                from lcdoc.local_engine import Engine, KVConfig
                from lcdoc.local_engine.serving.start import serve_engine

                kv = KVConfig(max_memory=cache)

                def load() -> Engine:
                    screen.say(f"loading {name}")
                    return Engine.load(name, dtype=dtype, quantize=quantize, device=device, kv=kv, sequences=sequences)

                received = serve_engine(load, settings, made, lambda engine, url: _show_ready(screen, engine, url))
        except EngineError as error:
            if debug:
                raise
            screen.fail(str(error))
            raise typer.Exit(BAD_INPUT) from None
        except KeyboardInterrupt:
            # While the model was being loaded; from then on the server takes signals.
            received = signal.SIGINT
        if received == signal.SIGINT:
            screen.fail("interrupted")
            raise typer.Exit(INTERRUPTED)


def _show_ready(screen: Screen, engine: Engine, url: str) -> None:
    number = str(engine.dtype).removeprefix("torch.")
    screen.say(
        f"serving {engine.name} ({engine.context_window:,} tokens, {number} on {engine.device}) at {url}; "
        f'try: lcdoc ask FILE "QUESTION" --model {url}'
    )


def _size(text: str) -> float:
    """Bytes, or a share up to 1."""
    found = _SIZE.fullmatch(text.strip())
    value = float(found[1]) * _UNITS[(found[2] or "").lower()] if found else 0.0
    if value <= 0:
        raise usage_error(f"--max-memory {text}: give a size, as 8GiB, or a share of what is free, as 0.5")
    return value
