"""OpenAI's Responses API: answers to items instead of messages, which the server may keep for later requests."""

from chatglm.serving.openai.responses_api.routes import add_routes

__all__ = ["add_routes"]
