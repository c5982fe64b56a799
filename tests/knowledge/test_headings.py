from __future__ import annotations

from chatglm.knowledge.reading.headings import headings_in


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
