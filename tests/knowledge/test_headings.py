"""Headings of texts that do not mark them."""

from __future__ import annotations

import pytest

from chatglm.knowledge.reading.headings import headings_in


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("正文 第一回 宴桃园豪杰三结义\n话说天下大势。\n", [(3, "正文 第一回 宴桃园豪杰三结义")]),
        ("第二章 休假\n内容。\n第一节 年假\n十天。\n", [(3, "第二章 休假"), (4, "第一节 年假")]),
        ("第\xa01\xa0章\xa0教程\n\n内容。\n", [(3, "第 1 章 教程")]),
        ("第三条　员工应当守时。\n第四条 迟到者扣款。\n", [(5, "第三条"), (5, "第四条")]),
        ("一、总则\n内容。\n（一）目的\n内容。\n", [(6, "一、总则"), (7, "（一）目的")]),
        (
            "1.1 范围\n内容。\n1.2 术语\n内容。\n1.2.1 年假\n内容。\n",
            [(8, "1.1 范围"), (8, "1.2 术语"), (9, "1.2.1 年假")],
        ),
    ],
)
def test_headings(text: str, found: list[tuple[int, str]]) -> None:
    marks = headings_in(text)
    assert [(mark.level, mark.value) for mark in marks] == found
    for mark in marks:
        assert " ".join(text[mark.start : mark.end].split()) == mark.value


@pytest.mark.parametrize(
    "text",
    [
        "见第三章的说明，以及第四章。\n正文。\n",
        "第一回他没有来，第二回也没有。\n正文。\n",
        "内核版本（kernel\n2.6.30 开始的默认行为）\n正文。\n",
        "3.14 是圆周率\n正文。\n",
        "127.0.1.1 host_name\n正文。\n",
        "一、他说，这是一句很长的话。\n正文。\n",
    ],
)
def test_sentences_are_none(text: str) -> None:
    assert headings_in(text) == []


def test_a_table_of_contents_is_none() -> None:
    contents = "目录\n第一章 总则\n    1.1 范围\n    1.2 术语\n第二章 休假\n    2.1 年假\n"
    body = "\n\n第一章 总则\n\n1.1 范围\n\n全体员工。\n\n1.2 术语\n\n无。\n\n第二章 休假\n\n2.1 年假\n\n十天。\n"
    marks = headings_in(contents + body)
    assert all(mark.start > len(contents) for mark in marks)
    assert [mark.value for mark in marks] == ["第一章 总则", "1.1 范围", "1.2 术语", "第二章 休假", "2.1 年假"]


def values(text: str) -> list[str]:
    return [mark.value for mark in headings_in(text)]


def test_a_table_of_contents_has_no_headings() -> None:
    contents = "".join(f"  {n}.{m}. 关于第 {n} 样的第 {m} 点\n" for n in range(1, 4) for m in range(1, 4))
    body = "序言\n\n本书说明一切，请慢慢读。\n\n1.1. 关于第 1 样的第 1 点\n\n这里才是正文。\n"
    assert values(contents + "\n" + body) == ["序言", "1.1. 关于第 1 样的第 1 点"]


def test_what_comes_before_the_first_chapter_is_not_above_it() -> None:
    levels = [
        mark.level for mark in headings_in("序言\n\n话说从头。\n\n1.1. 安装\n\n先解压。\n\n1.2. 删除\n\n再删除。\n")
    ]
    assert levels[0] >= levels[1] == levels[2]


def test_spaces_within_numbers() -> None:
    assert values("第 9 章 系统技巧\n\n正文。\n\n9.4.5.\xa0列出文件\n\n正文。\n") == [
        "第 9 章 系统技巧",
        "9.4.5. 列出文件",
    ]


def test_the_end_of_a_longer_line_is_none() -> None:
    assert values("从某版起可用 (自\n2.6.30 开始的默认行为)\n之后如此。\n") == []
