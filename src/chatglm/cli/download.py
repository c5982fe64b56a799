"""`chatglm download`: a model from the hub into the cache, or into a new folder."""

from __future__ import annotations

import argparse

from chatglm.cli.models import note


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Download a model: its configuration, tokenizer and weights, never Python files. An interrupted download is "
        "resumed. HF_ENDPOINT names a mirror, HF_HOME the place of the cache, HF_TOKEN an access token."
    )
    parser.add_argument("id", metavar="ID", help="repository id, such as THUDM/chatglm3-6b")
    parser.add_argument("--to", metavar="FOLDER", help="new folder for plain files (default: the cache)")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit (default: main)")


def run(arguments: argparse.Namespace) -> int:
    from chatglm import hub

    print(hub.download(arguments.id, arguments.to, revision=arguments.revision, say=note))
    return 0
