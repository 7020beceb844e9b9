"""Runs cases, each a function that says what it saw, and compares it with what is written down."""

import argparse
import json
import os
import sys
import traceback


def outcome(function, alive, name):
    """What the case says it saw; one broken case is that case's failure."""
    try:
        return function(alive, name)
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"


TABLE = "| case | Envoy 1.40 | meshd |\n|---|---|---|\n"


def rows(table):
    """The table in Markdown."""

    def cell(text):
        return text.replace("|", "\\|")

    text = ""
    for name, row in table.items():
        ours = f"{cell(row['ours'])} ({row['why']})" if "ours" in row else "the same"
        text += f"| {name} | {cell(row['envoy'])} | {ours} |\n"
    return text


# So many cases may be played a second time: a busy machine disturbs a few, a fault shows in each of its cases again.
SECOND_TRIES = 5


class Play:
    def __init__(self):
        self.cases = []
        self.write = False
        self.wrong = []

    def case(self, expected, ours=None, why=None):
        """What Envoy shows; `ours`: what meshd shows instead, and `why`."""
        assert (ours is None) == (why is None), "a difference has a reason"

        def keep(function):
            self.cases.append((function.__name__, function, expected, ours))
            return function

        return keep

    def _from_table(self, more, document):
        path = sys.argv[0].removesuffix(".py") + ".json"
        table = {}
        if os.path.exists(path):
            with open(path, encoding="utf-8") as text:
                table = json.load(text)
        for name, function in more:
            row = table.get(name, {})
            assert ("ours" in row) == ("why" in row), f"a difference has a reason: {name}"
            self.cases.append((name, function, row.get("envoy", "?"), row.get("ours")))
        played = {name for name, *_ in self.cases}
        self.wrong += [f"the table has a row that nobody plays: {name}" for name in table if name not in played]
        if document is None:
            return
        document = os.path.join(os.path.dirname(path), "../../docs", document)
        with open(document, encoding="utf-8") as text:
            old = text.read()
        new = old[: old.index(TABLE)] + TABLE + rows(table)
        if self.write:
            with open(document, "w", encoding="utf-8") as out:
                out.write(new)
        if new != old and not self.write:
            self.wrong.append("the document is not what the table says: run with --write")

    def main(self, world, more=None, document=None):
        """Runs all cases. Those of `more`, pairs of name and function, have their expectations in a table beside the script,
        which `document` shows."""
        parser = argparse.ArgumentParser()
        parser.add_argument("--proxy", required=True)
        parser.add_argument("--scratch", required=True)
        parser.add_argument("--only", default="")
        parser.add_argument("--envoy", action="store_true", help="the proxy is Envoy itself")
        parser.add_argument("--show", action="store_true", help="show what was seen of each case")
        parser.add_argument("--write", action="store_true", help="write the document anew from the table")
        options = parser.parse_args()
        self.write = options.write
        os.makedirs(options.scratch, exist_ok=True)
        # Envoy keeps log lines for ten seconds unless told otherwise.
        arguments = ["--drain-time-s", "2"]
        if options.envoy:
            arguments += ["--file-flush-interval-msec", "20"]
        if more is not None:
            self._from_table(more, document)
        alive = world(options.proxy, options.scratch, arguments)
        failed, again = [], 0
        cases = [one for one in self.cases if options.only in one[0]]
        try:
            for name, function, expected, ours in cases:
                wanted = expected if options.envoy or ours is None else ours
                seen = outcome(function, alive, name)
                if options.show:
                    print(f"{name}\n    {seen}", flush=True)
                    continue
                # What is left over at the end would be gone with the proxy that left it.
                if seen != wanted and function.__name__ != "nothing_leaks" and again < SECOND_TRIES:
                    again += 1
                    print(f"{name}: played again\n    expected {wanted}\n    seen     {seen}", flush=True)
                    self.wrong += alive.proxy.faults()
                    alive.stop()
                    alive = world(options.proxy, options.scratch, arguments)
                    seen = outcome(function, alive, name)
                if seen == wanted:
                    print(f"{name}: passed", flush=True)
                else:
                    failed.append(name)
                    print(f"{name}: FAILED\n    expected {wanted}\n    seen     {seen}", flush=True)
            self.wrong += alive.proxy.faults()
        finally:
            alive.stop()
        if not cases:
            self.wrong.append(f"no case is called {options.only}")
        twice = f" ({again} played twice)" if again else ""
        told = failed + self.wrong
        print(f"{len(cases) - len(failed)} passed, {len(failed)} failed{twice}{': ' if told else ''}{', '.join(told)}")
        return 1 if told else 0
