"""plan --base: what a merge would do, from two git revisions of a manifest."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from fleet.cli.output import Output
from fleet.core.planning import plan_text
from fleet.errors import UsageError

CHANGES = 2


def merge_preview(paths: Sequence[str], args: argparse.Namespace, out: Output) -> int:
    """Show the plan between the two revisions; no fleet is looked at."""
    from fleet.operate.sync.preview import markdown, preview

    if not paths:
        raise UsageError("--base needs a manifest file", hint="like `fleet plan --base main --head HEAD fleet.yaml`")
    if args.out:
        raise UsageError("--out keeps a plan for what runs, and --base looks at no fleet", hint="leave one of them out")
    shown = preview(paths, base=args.base, head=args.head, prune=args.prune, environ=os.environ)
    if args.output == "markdown":
        out.facts(markdown(shown))
    else:
        document = {**plan_text.document(shown.plan), "base": args.base, "head": args.head, "merged": shown.merged}
        out.either(document, plan_text.text(shown.plan, verbose=args.verbose, colour=out.colour))
    return CHANGES if args.detailed_exitcode and not shown.plan.is_empty else 0
