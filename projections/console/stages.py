"""The pages of stage logs: which a deployment has, and what one of them says, as it is written. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from logstore import Block
from logstore.keys import StageId
from projections.console.look import ago, count, notice, row, table, tag
from projections.console.markup import Markup, element, joined, link, url
from projections.console.page import part

__all__ = ["BLOCKS_SHOWN", "block", "crumbs", "stage", "stages"]

BLOCKS_SHOWN: Final = 5_000
_TONES: Final = {1: "good", 2: "bad"}  # PipeCD's severities, which Block names as the example
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")  # what a terminal would take for a colour


def stages(deployment: str, found: Sequence[StageId] | None) -> Markup:
    """Return the page of a deployment's stage logs; None: nobody said which deployment."""
    form = element(
        "form",
        element("label", "deployment ", element("input", name="deployment", value=deployment, size=48)),
        element("button", "Show"),
        action="/stages",
        class_="query",
        role="search",
    )
    rows = [
        row(
            link(_address(each), element("code", each.stage)),
            str(each.retry),
            numeric=(1,),
            key=f"{each.stage}/{each.retry}",
        )
        for each in found or ()
    ]
    shown = table(
        ("stage", "retry"),
        rows,
        numeric=(1,),
        name="Stage logs",
        class_="grid narrow",
        empty="This deployment has no stage logs.",
    )
    told = element("p", "What a stage of a deployment printed. Name the deployment.", class_="empty")
    return joined(element("h1", "Stage logs"), form, told if found is None else part("stages", shown))


def stage(id_: StageId, blocks: Sequence[Block], complete: bool, now_ms: int) -> Markup:
    """Return the page of one stage log, as far as it is written. More of it is put behind, in ``blocks``."""
    heading = element("h1", element("code", id_.stage), element("small", f"try {id_.retry} of {id_.deployment}"))
    state = tag("complete", "good") if complete else tag("being written", "busy", "nobody has completed it")
    facts = [state, " · ", count(len(blocks)), " blocks"]
    if blocks and blocks[-1].created_ms:
        facts += [", the last ", ago(blocks[-1].created_ms, now_ms)]
    shown = blocks[-BLOCKS_SHOWN:]
    cut = notice(f"The last {BLOCKS_SHOWN:,} are shown.") if len(shown) < len(blocks) else None
    lines = element("div", map(block, shown), class_="log", id="blocks", role="log", tabindex=0, aria_label=id_.stage)
    return joined(heading, part("state", element("p", facts, class_="more")), cut, lines)


def block(each: Block) -> Markup:
    """Some lines of a stage log."""
    number = element("span", str(each.index), class_="index", title=f"severity {each.severity}")
    said = element("pre", _COLOURS.sub("", each.text).rstrip("\n"))
    return element("div", number, said, class_=f"block {_TONES.get(each.severity, '')}".rstrip())


def crumbs(id_: StageId) -> Markup:
    """The way back."""
    return joined(
        link("/stages", "Stage logs"),
        " / ",
        link(url("/stages", deployment=id_.deployment), element("code", id_.deployment)),
    )


def _address(id_: StageId) -> str:
    return url("/stage", deployment=id_.deployment, stage=id_.stage, retry=id_.retry)
