"""Failures as ZhipuAI's numbered codes.

The numbers and their texts are from https://docs.bigmodel.cn/cn/api/api-code. The exact problem follows the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from chatglm.serving.failures import Failure

__all__ = ["Refusal", "refusal_of"]

_TEXTS = {
    500: "内部错误",
    1000: "身份验证失败",
    1001: "Header 中未收到 Authentication 参数，无法进行身份验证",
    1002: "Authentication Token 非法，请确认 Authentication Token 正确传递",
    1003: "Authentication Token 已过期，请重新生成/获取",
    1004: "通过提供的 Authentication Token 的验证失败",
    1210: "API 调用参数有误，请检查文档",
    1211: "模型不存在，请检查模型代码",
    1212: "当前 API 不支持该调用方式",
    1213: "未正常接收到 {0} 参数",
    1214: "{0} 参数非法。请检查文档",
    1215: "{0} 与 {1} 不能同时设置，请检查文档",
    1220: "您无权访问该资源",
    1222: "该资源不存在",
    1234: "网络错误",
    1261: "Prompt 超长",
    1302: "您当前使用该 API 的并发数过高，请降低并发",
    1303: "您当前使用该 API 的频率过高，请降低频率",
    1305: "当前 API 请求过多，请稍后重试",
}

_BY_CODE = {
    "missing_api_key": 1001,
    "expired_api_key": 1003,
    "invalid_api_key": 1004,
    "concurrency_limit": 1302,
    "model_not_found": 1211,
    "context_length_exceeded": 1261,
    "queue_full": 1302,
    "upstream": 1234,
}
_BY_STATUS = {401: 1000, 403: 1220, 404: 1222, 405: 1212, 429: 1303, 503: 1305}


@dataclass(frozen=True)
class Refusal:
    """
    Attributes:
        code: ZhipuAI's number.
        status: of the HTTP response.
    """

    code: int
    message: str
    status: int


def refusal_of(failure: Failure) -> Refusal:
    """A failure with ZhipuAI's number for it."""
    code, fields = _code(failure)
    status = 400 if code == 1211 else failure.status  # an unknown model is a wrong parameter there
    return Refusal(code, f"{_TEXTS[code].format(*fields)}。{failure.message}", status)


def _code(failure: Failure) -> tuple[int, tuple[str, ...]]:
    """The number, and the fields that its text names."""
    if failure.code in _BY_CODE:
        return _BY_CODE[failure.code], ()
    if failure.status in _BY_STATUS:
        return _BY_STATUS[failure.status], ()
    if failure.status >= 500:
        return 500, ()
    if both := re.match(r"([\w.\[\]]+): cannot be given together with ([\w.\[\]]+)", failure.message):
        return 1215, (both[1], both[2])
    if failure.param is None:
        return 1210, ()
    return (1213 if failure.code == "missing" else 1214), (failure.param,)
