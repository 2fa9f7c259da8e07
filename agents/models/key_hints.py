"""What to say to somebody whose key a server does not take."""

from __future__ import annotations

from typing import Final

from lcdoc.agents.models.secrets import Key, SecretHeaders

_KEY_VARIABLES: Final = {
    "openai.com": "OPENAI_API_KEY",
    "openrouter.ai": "OPENROUTER_API_KEY",
    "anthropic.com": "ANTHROPIC_API_KEY",
    "mistral.ai": "MISTRAL_API_KEY",
    "deepseek.com": "DEEPSEEK_API_KEY",
    "groq.com": "GROQ_API_KEY",
    "together.xyz": "TOGETHER_API_KEY",
    "googleapis.com": "GEMINI_API_KEY",
    "x.ai": "XAI_API_KEY",
    "fireworks.ai": "FIREWORKS_API_KEY",
}


def key_hint(host: str, key: Key | None, secret_headers: SecretHeaders = ()) -> str:
    """Where the key for `host` comes from, or is to be put."""
    variable = next((name for domain, name in _KEY_VARIABLES.items() if f".{host}".endswith(f".{domain}")), "")
    sources = [each.source for each in (key, *(value for _, value in secret_headers)) if each is not None]
    if not sources:
        return f"set {variable}" if variable else "the server wants a key: name one for it in the configuration"
    named = " and ".join(filter(None, sources)) or variable
    return f"check {named}" if named else "check its key"
