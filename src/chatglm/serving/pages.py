"""Pages for people: `/` says what this server is, `/docs` lists its routes. They need no other file and no script."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from starlette.responses import HTMLResponse

from chatglm.serving.dialect import Dialect

__all__ = ["docs_page", "start_page"]

_STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8882; --accent: #2563eb; }
@media (prefers-color-scheme: dark) { :root { --accent: #7aa2f7; } }
body { font: 16px/1.6 system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif;
       max-width: 54rem; margin: 3rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .3rem; }
p { margin: .5rem 0; } .quiet { opacity: .7; }
a { color: var(--accent); }
code, pre { font: 14px/1.5 ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace; }
code { background: var(--soft); border-radius: 4px; padding: .1em .35em; }
pre { background: var(--soft); border-radius: 8px; padding: .9rem 1.1rem; overflow-x: auto; }
pre code { background: none; padding: 0; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; display: block; overflow-x: auto; }
td, th { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); }
summary { cursor: pointer; padding: .3rem 0; }
details { border-bottom: 1px solid var(--line); padding: .2rem 0; }
.method { display: inline-block; min-width: 3.2rem; font-weight: 600; color: var(--accent); }
"""
# A page of this server never loads or runs anything.
_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"}


def _page(title: str, body: str) -> HTMLResponse:
    html = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n'
    )
    return HTMLResponse(html, headers=_HEADERS)


def start_page(
    version: str,
    models: Iterable[str],
    url: str,
    dialects: Iterable[tuple[Dialect, str]],
    *,
    key: bool = False,
    page: str = "",
) -> HTMLResponse:
    """The page that a browser shows at the address of the server.

    Args:
        models: names that requests may give, the default first.
        url: of this server, without a slash at its end.
        dialects: that it speaks, each with the model that its example asks.
        key: whether requests need an API key. Then the page, which needs none, does not name the models.
        page: path of the page with conversations; "": there is none.
    """
    names = ["MODEL"] if key else list(models)
    spoken = "\n".join(
        f"<h3>{escape(dialect.title)}: <code>{escape(url + dialect.base)}</code></h3>\n<pre><code>"
        + escape(dialect.curl(url, "MODEL" if key else model, key=key, between=" \\\n  "))
        + "</code></pre>"
        for dialect, model in dialects
    )
    needed = ("an API key is needed", "需要 API key") if key else ("any API key will do", "API key 任意")
    rows = (
        *([(f"{page}/", "conversations in the browser", "在浏览器中对话")] if page else []),
        ("/v1/models", "models on offer", "可用的模型"),
        ("/docs", "all routes and fields", "全部路由与字段"),
        ("/openapi.json", "the same for programs", "机器可读的接口文档"),
        ("/health", "whether the models answer", "模型是否正常"),
        ("/metrics", "figures for Prometheus", "Prometheus 指标"),
    )
    table = "\n".join(
        f'<tr><td><a href="{path}"><code>{path}</code></a></td>'
        f'<td>{english}<br><span class="quiet" lang="zh">{chinese}</span></td></tr>'
        for path, english, chinese in rows
    )
    listed = " ".join(f"<code>{escape(name)}</code>" for name in names if not key) or (
        'An API key is needed. <span lang="zh">需要 API key。</span>'
    )
    return _page(
        "chatglm",
        f"""<h1>chatglm</h1>
<p class="quiet">version {escape(version)}</p>
<p>This is an API server for chat models of the ChatGLM family. It is running.<br>
<span lang="zh">这是 ChatGLM 系列模型的 API 服务，正在运行。</span></p>
<h2>Models <span class="quiet" lang="zh">模型</span></h2>
<p>{listed}</p>
<h2>Where things are <span class="quiet" lang="zh">入口</span></h2>
<table>
{table}
</table>
<h2>Interfaces and their base URLs <span class="quiet" lang="zh">接口与 base URL</span></h2>
<p>Give a client the base URL of its interface; {needed[0]}. <span class="quiet" lang="zh">将 base URL
填入客户端；{needed[1]}。</span></p>
{spoken}""",
    )


def docs_page(document: Mapping[str, Any]) -> HTMLResponse:
    """The OpenAPI document as a page: every route with its request fields."""
    schemas = document.get("components", {}).get("schemas", {})
    parts = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts.append(_operation(method.upper(), path, operation, schemas))
    info = document["info"]
    return _page(
        f"{info['title']}: API",
        f"""<h1>{escape(info["title"])} API</h1>
<p class="quiet">version {escape(info["version"])} · <a href="/">start page</a> ·
<a href="/openapi.json">openapi.json</a></p>
<p>Open a route for its fields. <span class="quiet" lang="zh">点击路由查看字段。</span></p>
{"".join(parts)}""",
    )


def _operation(method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    fields = "" if content is None else _fields(content, schemas)
    answers = "".join(
        f"<tr><td><code>{escape(status)}</code></td><td>{escape(answer.get('description', ''))}</td></tr>"
        for status, answer in operation.get("responses", {}).items()
    )
    about = operation.get("description") or operation.get("summary", "")
    return f"""<details id="{escape(method.lower() + path)}">
<summary><span class="method">{escape(method)}</span> <code>{escape(path)}</code>
<span class="quiet">{escape(about.splitlines()[0] if about else "")}</span></summary>
{fields}
<h3>Responses</h3>
<table>{answers}</table>
</details>
"""


def _fields(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    """Tables of a body's fields, and of the objects within."""
    tables, waiting, seen = [], [("Request body", schema)], set()
    while waiting:
        title, one = waiting.pop(0)
        name, one = _resolved(one, schemas)
        if name in seen:
            continue
        seen.add(name)
        required = one.get("required", ())
        rows, ignored = [], []
        for field, kind in one.get("properties", {}).items():
            if kind.get("description") in ("accepted; has no effect",):
                ignored.append(f"<code>{escape(field)}</code>")
                continue
            must = " <b>required</b>" if field in required else ""
            rows.append(
                f"<tr><td><code>{escape(field)}</code>{must}</td><td>{_type(kind, waiting, schemas)}</td>"
                f"<td>{escape(kind.get('description', ''))}</td></tr>"
            )
        if rows:
            tables.append(f"<h3>{escape(title)}</h3>\n<table>{''.join(rows)}</table>")
        if ignored:
            tables.append(f'<p class="quiet">Accepted without effect: {" ".join(ignored)}</p>')
    return "\n".join(tables)


def _resolved(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return name, schemas.get(name, schema)


def _type(kind: Mapping[str, Any], waiting: list[tuple[str, Mapping[str, Any]]], schemas: Mapping[str, Any]) -> str:
    """The type of a field in words. Inner objects are put into `waiting`, and get their own tables."""
    if "$ref" in kind:
        name, one = _resolved(kind, schemas)
        if one.get("properties"):
            waiting.append((name.lstrip("_"), kind))
        return f"<code>{escape(name.lstrip('_'))}</code>"
    for word in ("anyOf", "oneOf"):
        if word in kind:
            options = [_type(each, waiting, schemas) for each in kind[word] if each.get("type") != "null"]
            return " or ".join(dict.fromkeys(options)) or "null"
    if "enum" in kind or "const" in kind:
        values = kind.get("enum", [kind.get("const")])
        return " or ".join(f"<code>{escape(json.dumps(value, ensure_ascii=False))}</code>" for value in values)
    if kind.get("type") == "array":
        return f"array of {_type(kind.get('items', {}), waiting, schemas)}"
    limits = {"minimum": "≥", "exclusiveMinimum": "&gt;", "maximum": "≤", "exclusiveMaximum": "&lt;"}
    bounds = ", ".join(f"{sign} {kind[name]:g}" for name, sign in limits.items() if name in kind)
    return escape(str(kind.get("type", "any"))) + (f" ({bounds})" if bounds else "")
