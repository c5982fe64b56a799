"""The page in a browser of the system: a server whose model says what a script has, and pages that are watched."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright
from starlette.applications import Starlette

import waiting
from chatglm.assistant import Assistant
from chatglm.chat.formats import chat_format
from chatglm.conversation.store import Store
from chatglm.errors import NotFoundError
from chatglm.loading import AutoTokenizer, demo_folder
from chatglm.serving.connections import BareServer, bind
from chatglm.web.app import add_page
from scripted import Asked, ScriptedEngine, Writer

_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
_LANGUAGES = {"zh": "zh-CN", "en": "en-US"}

SHIFTS = """() => {
  window.shifts = [];
  new PerformanceObserver((list) => {
    for (const one of list.getEntries()) {
      const nodes = one.sources.map((source) => source.node).filter(Boolean);  // the caret is no node
      if (nodes.length) window.shifts.push([one.value, nodes.map((node) => node.className || node.nodeName).join()]);
    }
  }).observe({ type: "layout-shift" });
}"""


def chromium() -> str:
    """The browser's program; without one, the test skips, or fails in CI."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    if os.environ.get("CI") == "true":
        pytest.fail("there is no Chromium, which tests of the page need (tests/packages.sh installs it)")
    pytest.skip("there is no Chromium (tests/packages.sh installs it)")


class Speaker(ScriptedEngine):
    """Answers the question that comes last in the prompt with what the script has for it.

    Attributes:
        script: for each question the replies of its rounds: the first one, the one after an observation, and so on.
        hold: while it is set, no token comes.
        fails: what is raised instead of an answer.
        told: the prompts.
    """

    def __init__(self, form: Any, script: Mapping[str, Sequence[list[int]]], context: int) -> None:
        super().__init__([0], context=context)
        self.form, self.script = form, dict(script)
        self.hold = threading.Event()
        self.fails: Exception | None = None
        self.told: list[str] = []

    def submit(self, ids: Sequence[int], *arguments: Any, **options: Any) -> Asked:
        if self.fails is not None:
            raise self.fails
        text = self.form.tokenizer.decode(list(ids))
        self.told.append(text)
        place, question = max((text.rfind(question), question) for question in self.script)
        assert place >= 0, f"no reply to {text[-200:]!r}"
        rounds = self.script[question]
        self.replies = [rounds[min(text[place:].count("<|observation|>"), len(rounds) - 1)]]
        return super().submit(ids, *arguments, **options)

    def step(self) -> Any:
        while self.hold.is_set():
            time.sleep(0.005)
            if not self.running:
                return []
        return super().step()


class Site:
    """A server with the page.

    Attributes:
        url: of the page, without a slash at its end.
        write: makes replies for `engine.script`.

    Args:
        context: tokens that the model reads.
        options: of `add_page`.
    """

    def __init__(self, folder: Path, *, context: int = 1 << 17, **options: Any) -> None:
        self.write = Writer(chat_format(AutoTokenizer.from_pretrained(demo_folder())))
        self.engine = Speaker(self.write.form, {}, context)
        self.assistant = Assistant(self.write.form, self.engine)  # type: ignore[arg-type]
        self.store = Store(folder / "conversations.sqlite")
        self._options = {"folder": folder / "files", **options}
        self._socket: socket.socket | None = None
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/ui"

    def say(self, question: str, *rounds: str | list[int], delay: float = 0.0) -> str:
        """Let the model answer a question so; returns the question."""
        self.engine.script[question] = [self.write.say(one) if isinstance(one, str) else one for one in rounds]
        self.engine.delay = delay
        return question

    def owner(self, page: Page) -> int:
        """The user whose conversation a page shows."""
        name = page.url.rpartition("/")[2]
        for user in self.store.users.all():
            with contextlib.suppress(NotFoundError):
                self.store.conversation(user.id, name)
                return user.id
        raise AssertionError(f"nobody has {name}")

    def start(self) -> None:
        (self._socket,) = bind("127.0.0.1", self._port)
        self._port = self._socket.getsockname()[1]
        app = Starlette()
        page = add_page(app, {"demo": self.assistant}, self.store, **self._options)
        self._server = BareServer(app, log_level="warning", patience=1, last=page.close)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        waiting.until(lambda: self._server.started or not self._thread.is_alive())
        assert self._server.started

    def _run(self) -> None:
        assert self._socket is not None
        asyncio.run(self._server.serve([self._socket]))

    def stop(self) -> None:
        self.engine.hold.clear()
        self._server.should_exit = True
        self._thread.join(60)
        assert not self._thread.is_alive()
        assert self._socket is not None
        self._socket.close()

    def close(self) -> None:
        self.stop()
        self.assistant.close()
        self.store.close()


@contextlib.contextmanager
def browsing() -> Iterator[Browser]:
    program = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_FLAGS)
        yield browser
        browser.close()
    gc.collect()  # Playwright's greenlets: what collects them later, within `ast.parse`, breaks that in Python 3.11


class Views:
    """Pages of one site in one browser. Each is watched: it may ask no other server, log no error, and run no foreign
    script, or `check` fails."""

    def __init__(self, browser: Browser, site: Site) -> None:
        self.browser, self.site = browser, site
        self.faults: list[str] = []
        self.pages: list[Page] = []
        self._contexts: list[Any] = []
        self.expected: list[str] = []

    def context(
        self, width: int = 1200, language: str = "zh", theme: str = "light", height: int = 800, **options: Any
    ) -> Any:
        made = self.browser.new_context(
            viewport={"width": width, "height": height},
            locale=_LANGUAGES[language],
            color_scheme=theme,
            has_touch=width < 500,
            reduced_motion="reduce",
            **options,
        )
        made.set_default_timeout(60_000)
        self._contexts.append(made)
        return made

    def open(self, path: str = "/new", *, context: Any = None, **options: Any) -> Page:
        page: Page = (context or self.context(**options)).new_page()
        page.on("console", lambda message: self._heard(f"console: {message.text}", message.type))
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("request", lambda request: self._asked(request.url))
        page.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))
        self.pages.append(page)
        self.visit(page, path)
        return page

    def visit(self, page: Page, path: str) -> None:
        page.goto(self.site.url + path)
        page.wait_for_selector("body[data-ready]", state="attached")

    def _heard(self, text: str, kind: str) -> None:
        if kind in ("error", "warning") and not any(one in text for one in self.expected):
            self.faults.append(text)

    def _asked(self, url: str) -> None:
        if not url.startswith((self.site.url, "data:", "blob:")):
            self.faults.append(f"asked for {url}")

    def check(self) -> None:
        for page in self.pages:
            if not page.is_closed():
                assert page.evaluate("window.pwned") is None
        assert not self.faults, self.faults

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@contextlib.contextmanager
def viewing(browser: Browser, site: Site) -> Iterator[Views]:
    """Views for one test, which are checked at its end."""
    views = Views(browser, site)
    try:
        yield views
        views.check()
    finally:
        site.engine.hold.clear()
        site.engine.delay = 0.0
        views.close()


def send(page: Page, text: str) -> None:
    asked = page.locator(".user").count()
    page.fill("#question", text)
    page.press("#question", "Enter")
    until(page, "(asked) => document.querySelectorAll('.user').length > asked", asked)


def until(page: Page, expression: str, value: Any = None) -> None:
    """Wait for an expression to be true; Playwright's own way needs `eval`, which the page's policy forbids."""
    end = time.monotonic() + 60
    while not _true(page, expression, value):
        assert time.monotonic() < end, f"never: {expression} {value or ''}"
        page.wait_for_timeout(15)


def _true(page: Page, expression: str, value: Any) -> bool:
    try:
        return bool(page.evaluate(expression, value))
    except Error as error:
        if "context was destroyed" in str(error):  # another page is being loaded
            return False
        raise


def answered(page: Page, text: str = "") -> None:
    """Wait for the end of an answer, which has a text."""
    page.wait_for_selector("#send", state="visible")
    until(page, "!document.querySelector('[data-open]')")
    until(page, "(text) => [...document.querySelectorAll('.answer')].at(-1)?.innerText.includes(text)", text)
