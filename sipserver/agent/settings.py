"""The `llm:` part of the settings: language models by the name under which dialplans use them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    first_token_timeout_s: float = Field(default=3, gt=0)
    temperature: float = Field(default=0.3, ge=0, le=2)
    concurrency: int = Field(default=8, ge=1)


class OpenAiLlmSettings(_Model):
    """Any server with OpenAI's /chat/completions: OpenAI, Ollama, vLLM, llama.cpp."""

    vendor: Literal["openai"]
    base_url: str = "https://api.openai.com/v1"
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    tools: bool = True


class LlamaCppSettings(_Model):
    """A GGUF file served by llama.cpp in a process of our own on loopback. model: a catalogue name or a path."""

    vendor: Literal["llama_cpp"] = "llama_cpp"
    model: str = "smollm2-135m"
    threads: int = Field(default=2, ge=1)
    context: int = Field(default=4096, ge=512)
    slots: int = Field(default=2, ge=1)
    tools: bool = False


LlmSettings = Annotated[LlamaCppSettings | OpenAiLlmSettings, Field(discriminator="vendor")]
