"""How well bases find what answers questions, with floors a little below what was measured."""

from __future__ import annotations

import json
from pathlib import Path

from chatglm.knowledge import Upload, open_base
from chatglm.knowledge.evaluating import Question, found_in, read_questions, refusals

NOVELS = ("三国演义", "水浒传", "红楼梦", "西游记")


def test_questions_on_encyclopedia_articles(shared: Path, tmp_path: Path) -> None:
    """CMRC 2018's development set: every eighth article, every third question."""
    file = shared / "data" / "knowledge" / "cmrc_dev.json"
    passages = [passage for article in json.loads(file.read_text("utf-8"))["data"] for passage in article["paragraphs"]]
    chosen = {f"{passage['id']}.txt": passage["context"] for passage in passages[::8]}
    questions = [question for question in read_questions(file) if question.file in chosen][::3]
    with open_base("cmrc", create=True, home=tmp_path) as base:
        base.add(*(Upload(name, text.encode()) for name, text in chosen.items()))
        found = found_in(base, questions)
        # All 3,219 questions over all 848 articles: hit@1 .945, MRR .969.
        assert found.hit(1) >= 0.93
        assert found.mrr >= 0.95
        # Questions on other articles are not answered here.
        others = [Question(question.text, answerable=False) for question in read_questions(file)[1::40]]
        told = refusals(base, [*questions, *others])
        assert told.auc > 0.9


def test_questions_in_todays_chinese_on_old_novels(shared: Path, tmp_path: Path) -> None:
    """`novel_questions.jsonl`: places are single sentences. BM25 over jieba's words finds .31 among the first five."""
    with open_base("小说", create=True, home=tmp_path) as base:
        base.add(*(shared / "data" / "knowledge" / f"{name}.txt" for name in NOVELS))
        found = found_in(base, read_questions(Path(__file__).with_name("novel_questions.jsonl")))
        assert found.hit(5) >= 0.54
        assert found.mrr >= 0.40


def test_todays_words_find_older_ones(tmp_path: Path) -> None:
    texts = {"甲.txt": "其母早亡，家贫。", "乙.txt": "其兄早行，家富。"}
    with open_base("b", create=True, home=tmp_path) as base:
        base.add(*(Upload(name, text.encode()) for name, text in texts.items()))
        assert [hit.file for hit in base.search("谁的妈妈死了？")] == ["甲.txt"]
        # They are not asked for: a text without them lacks nothing.
        assert base.search("妈妈")[0].parts["covered"] == 0


def test_what_stands_beside_a_piece_counts_for_it(tmp_path: Path) -> None:
    """The name stands in one piece, and what is asked in the next."""
    before = "他说的话没有人听，那天也没有别的事。" * 24
    asked = "后来他在山上种树，种了三年。" + "此外并无可说。" * 64
    files = {"甲.txt": f"{before}\n\n{asked}", "乙.txt": f"王小明来过。{before[6:]}\n\n{asked}"}
    with open_base("b", create=True, home=tmp_path) as base:
        base.add(*(Upload(name, text.encode()) for name, text in files.items()))
        assert all(len(base.pieces(name)) == 2 for name in files)
        hits = base.search("王小明种树", k=10)
        assert [hit.file for hit in hits if "种树" in hit.text] == ["乙.txt"]  # equal texts once: the better one
