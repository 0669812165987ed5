#!/usr/bin/env python3
"""The table of clients and cases in docs/clients.md, from what run.py left in target/compat."""
import datetime, json
from pathlib import Path

from run import CASES, CLIENTS, HERE, RESULTS

MARK = {"ok": "✓", "n/a": "–", "FAILED": "✗"}


def main():
    found = {client: json.loads((RESULTS / f"{client}.json").read_text()) for client in CLIENTS if (RESULTS / f"{client}.json").exists()}
    lines = ["| case | " + " | ".join(f"{client} {result['version']}" for client, result in found.items()) + " |", "|---|" + "---|" * len(found)]
    for name, _ in CASES:
        lines.append(f"| {name} | " + " | ".join(MARK[result["cases"][name][0]] for result in found.values()) + " |")
    reasons = {}
    for client, result in found.items():
        for name, (verdict, note) in result["cases"].items():
            if verdict != "ok":
                reasons.setdefault((name, note), []).append(client)
    notes = [f"- {name}: {note} ({', '.join(clients)})" for (name, note), clients in sorted(reasons.items())]
    path = HERE.parent / "docs/clients.md"
    before, rest = path.read_text().split("<!-- table -->\n")
    _, after = rest.split("<!-- end of table -->\n")
    table = [f"Of {datetime.date.today()}.", "", *lines, "", "What a dash or a cross is:", "", *notes]
    path.write_text(before + "<!-- table -->\n" + "\n".join(table) + "\n<!-- end of table -->\n" + after)


if __name__ == "__main__":
    main()
