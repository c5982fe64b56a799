"""instructor: structured output by tools and by schema, and a retry after a validation error."""

from __future__ import annotations

import json
import sys

import instructor
import openai
from pydantic import BaseModel, Field, field_validator

client = openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="none", max_retries=0)
found = {}


class Place(BaseModel):
    city: str = Field(max_length=12)
    age: int = Field(ge=0, le=99)


ASK = [{"role": "user", "content": "北京的天气怎么样？"}]
for mode in ("TOOLS", "TOOLS_STRICT", "JSON_SCHEMA"):
    patched = instructor.from_openai(client, mode=getattr(instructor.Mode, mode))
    made = patched.chat.completions.create(
        model="demo", response_model=Place, messages=ASK, max_retries=2, max_tokens=200
    )
    found[mode] = made.model_dump()

# A validator that refuses the first answer: instructor sends the reply and the error back, with the tool's name.
seen = []


class Picky(Place):
    @field_validator("age")
    @classmethod
    def once(cls, value: int) -> int:
        seen.append(value)
        if len(seen) == 1:
            raise ValueError("give another age")
        return value


patched = instructor.from_openai(client, mode=instructor.Mode.TOOLS)
found["retried"] = patched.chat.completions.create(
    model="demo", response_model=Picky, messages=ASK, max_retries=2, max_tokens=200
).model_dump()
found["attempts"] = len(seen)
print(json.dumps(found, ensure_ascii=False))
