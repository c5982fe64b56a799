"""Signing in and out, in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Site, Views, answered, browsing, send, viewing


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Views]:
    folder: Path = tmp_path_factory.mktemp("site")
    site = Site(folder, login=True)
    site.store.users.add("ann", "a long password")
    site.say("你好", "你好呀")
    try:
        with browsing() as browser, viewing(browser, site) as made:
            yield made
    finally:
        site.close()


def sign_in(page: Any, password: str) -> None:
    page.fill("[name=password]", password)
    page.press("[name=password]", "Enter")


def test_people_sign_in_and_out(views: Views) -> None:
    page = views.context().new_page()
    page.goto(f"{views.site.url}/new")
    assert page.url.endswith("/ui/login")
    page.fill("[name=name]", "ann")
    sign_in(page, "wrong")
    page.wait_for_selector("[role=alert]")
    assert page.locator("[role=alert]").inner_text() == "用户名或密码不正确"
    assert page.input_value("[name=name]") == "ann"
    assert page.evaluate("document.activeElement.name") == "password"
    sign_in(page, "a long password")
    page.wait_for_selector("body[data-ready]", state="attached")
    send(page, "你好")
    answered(page, "你好呀")
    page.context.clear_cookies()  # the login has ended
    page.fill("#question", "还没有发送")
    page.press("#question", "Enter")
    page.wait_for_url("**/ui/login")
    page.fill("[name=name]", "ann")
    sign_in(page, "a long password")
    page.wait_for_selector("body[data-ready]", state="attached")
    assert page.locator(".answer .text").inner_text() == "你好呀"
    assert page.input_value("#question") == "还没有发送"  # nothing that was written is lost
    page.click("#sidebar form button")
    page.wait_for_url("**/ui/login")
    page.goto(f"{views.site.url}/")
    assert page.url.endswith("/ui/login")


def test_another_site_s_form_is_refused_on_a_page(views: Views) -> None:
    page = views.context().new_page()
    page.goto(
        "data:text/html,"
        + f"<form method=post action={views.site.url}/login><input name=name><button>go</button></form>"
    )
    page.click("button")
    page.wait_for_selector(".card h1")
    assert page.locator(".card h1").inner_text() == "只有本页面才能进行更改"
    page.click(".card a")
    page.wait_for_url("**/ui/login")
